#!/usr/bin/env python3
"""Makes tests/goldens/yaml/asked.json: what lm-evaluation-harness asks for the task files there, for `tests/yaml.rs`.

    pip install lm-eval
    python tests/make_yaml.py
    python tests/make_yaml.py --released bitsweep

The task files and their data are ours. `--released` writes nothing: it counts which of the task files that come with the
harness `bitsweep` reads, and why it does not read the others.
"""
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent / "goldens" / "yaml"
os.environ["HF_HUB_OFFLINE"] = "1"


def right(task, doc):
    """The indices of the right choices, or the right answers."""
    gold = task.doc_to_target(doc)
    if task.OUTPUT_TYPE == "generate_until":
        if task.config.doc_to_choice is not None:
            return [task.doc_to_choice(doc)[gold]]
        return [str(g) for g in gold] if task.multiple_target else [str(gold)]
    choices = task.doc_to_choice(doc)
    golds = gold if isinstance(gold, list) else [gold]
    return [choices.index(g) if isinstance(g, str) else int(g) for g in golds]


def asked(task):
    task.set_fewshot_seed(seed=1234)
    task.build_all_requests(rank=0, world_size=1)
    docs = list(task.eval_docs)
    items = []
    for i in task.instances:
        if not items or items[-1]["doc"] != i.doc_id:
            items.append({"doc": i.doc_id, "requests": []})
            if task.OUTPUT_TYPE in ("multiple_choice", "generate_until"):
                items[-1]["right"] = right(task, docs[i.doc_id])
        items[-1]["requests"].append([a for a in i.args if isinstance(a, str)])
    out = {"output_type": task.OUTPUT_TYPE, "version": task.VERSION, "items": items}
    if task.OUTPUT_TYPE == "generate_until":
        from lm_eval.models.utils import normalize_gen_kwargs

        kwargs = normalize_gen_kwargs(task.config.generation_kwargs)
        out["written"] = {k: kwargs.get(k) for k in ("until", "max_gen_toks", "temperature", "do_sample", "top_k", "top_p")}
        out["repeats"] = task.config.repeats
    out["metrics"] = list(task._metric_fn_list)
    return out


def goldens():
    import lm_eval
    from lm_eval.tasks import TaskManager

    os.chdir(HERE)
    manager = TaskManager(include_path=str(HERE), include_defaults=False)
    tasks = {}
    for path in sorted(HERE.glob("[a-z]*.yaml")):
        # The harness knows a group by its name only.
        group = re.search(r"^group: (.*)$", path.read_text(encoding="utf-8"), re.M)
        loaded = manager.load([group[1] if group else str(path)])["tasks"]
        tasks[path.name] = {name: asked(task) for name, task in loaded.items()}
    value = {"made_with": f"lm-eval {lm_eval.__version__}", "files": tasks}
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    (HERE / "asked.json").write_text(text + "\n", encoding="utf-8")


def released(program):
    import lm_eval

    folder = Path(lm_eval.__file__).parent / "tasks"
    counts, reasons = collections.Counter(), collections.Counter()
    for path in sorted(folder.glob("**/*.yaml")):
        text = path.read_text(encoding="utf-8")
        # A task, and not what others include.
        if not re.search(r"^task:", text, re.M) or re.search(r"^group:", text, re.M):
            continue
        study = Path(tempfile.gettempdir()) / "released.toml"
        study.write_text(f'about = "a"\nmodels = ["builtin:llama"]\ntasks = ["{path}"]\n')
        done = subprocess.run([program, "plan", str(study)], capture_output=True, text=True, env={**os.environ, "HF_HOME": "/nowhere"})
        said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
        # It was read, where what is missing is the data.
        read = done.returncode == 0 or "names no commit" in said or "not in the cache" in said
        counts["read" if read else "python" if "!function" in said else "refused"] += 1
        if not read and "!function" not in said:
            reasons[re.sub(r"`[^`]*[/.][^`]*`", "", said)[:150]] += 1
    print(dict(counts))
    for reason, n in reasons.most_common(60):
        print(n, reason)


if __name__ == "__main__":
    if "--released" in sys.argv:
        released(sys.argv[-1])
    else:
        goldens()

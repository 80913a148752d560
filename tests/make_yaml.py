#!/usr/bin/env python3
"""Makes tests/goldens/yaml/asked.json: what lm-evaluation-harness asks for the task files there, for `tests/yaml.rs`.

    pip install lm-eval
    python tests/make_yaml.py

The task files and their data are ours.
"""
import json
import os
import re
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


if __name__ == "__main__":
    goldens()

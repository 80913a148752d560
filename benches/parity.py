"""End to end beside lm-evaluation-harness itself: the same rows, the same model, both programs' own tasks.

    cargo build --release
    pip install lm-eval torch transformers
    python benches/parity.py MODEL_DIR DATA_DIR [--only hellaswag,mmlu] [--dtype float32] [--batch 8]

DATA_DIR holds a folder a task (`hellaswag/hellaswag_val.jsonl`, `mmlu/test/*_test.csv`; `TASKS` has all names).
Rows are brought into the layout that the Hub's datasets have, and both programs read those. The harness's tasks are
the installed ones, untouched: only its download is replaced. Prints docs/parity.md's tables; ends with 0 where all is
equal.
"""
import argparse
import csv
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
HERE = pathlib.Path(__file__).resolve().parent.parent
# What a perplexity may differ by, relative, where its text has more digits than arithmetic in f32.
F32 = 1e-6
# Tokens of a text, and how many the model takes: set when it is loaded.
LONG, CONTEXT = len, 0
# Names of one harness metric here, where they differ.
OURS = {("truthfulqa_mc2", "acc"): "mc2"}


def lines(path):
    return [json.loads(line) for line in path.open(encoding="utf-8") if line.strip()]


def hellaswag(path):
    """The file has activity and context in one text; what follows the last full stop is the second half."""
    rows = []
    for row in lines(path):
        activity, _, context = row["ctx"].partition(": ")
        first, dot, second = context.rpartition(". ")
        if not dot or second.endswith("."):
            first, second = context, ""
        rows.append(dict(activity_label=activity, ctx_a=first + dot.strip() if second else first, ctx_b=second,
                         endings=row["endings"], label=str(row["label"])))
    return rows


def arc(path):
    rows = []
    for row in lines(path):
        letters = "ABCDEFGH"[: len(row["choices"])]
        rows.append(dict(question=row["question"], choices=dict(text=row["choices"], label=list(letters)),
                         answerKey=letters[row["label"]]))
    return rows


def piqa(path):
    """Without solutions longer than a context, which both programs refuse: no context would be left."""
    return [row for row in lines(path) if max(LONG(row["sol1"]), LONG(row["sol2"])) <= CONTEXT]


def truthfulqa(path):
    targets = lambda t: dict(choices=list(t), labels=list(t.values()))
    rows = json.loads(path.read_text(encoding="utf-8"))
    return [dict(question=r["question"], **{k: targets(r[k]) for k in ("mc1_targets", "mc2_targets")}) for r in rows]


def mmlu(path):
    with path.open(encoding="utf-8", newline="") as file:
        return [dict(question=r["question"], choices=[r[f"choice{i}"] for i in range(4)], answer=int(r["answer"]))
                for r in csv.DictReader(file)]


def pages(path):
    """A line with one `=` on either side is a title, and a page goes from one to the next."""
    found, page = [], []
    for line in path.read_text(encoding="utf-8").split("\n") + [" = end = "]:
        if re.fullmatch(r"\s*= (?!=).*(?<!=) =\s*", line):
            if "".join(page).strip():
                found.append(dict(page="\n".join(page)))
            page = []
        page.append(line)
    return found


# Task in the harness: task here, file, its reader, the split it is, items (of each part).
TASKS = {
    "lambada_openai": ("basic/lambada_openai", "lambada/lambada_test.jsonl", lines, "test", 500),
    "hellaswag": ("basic/hellaswag", "hellaswag/hellaswag_val.jsonl", hellaswag, "validation", 500),
    "piqa": ("basic/piqa", "piqa/piqa_validation.jsonl", piqa, "validation", 500),
    "arc_easy": ("basic/arc_easy", "arc_easy/arc_easy_test.jsonl", arc, "test", 500),
    "arc_challenge": ("basic/arc_challenge", "arc_challenge/arc_challenge_test.jsonl", arc, "test", 500),
    "winogrande": ("basic/winogrande", "winogrande/winogrande_validation.jsonl", lines, "validation", 500),
    "truthfulqa_mc1": ("trust/truthfulqa_mc1", "truthfulqa/mc_task.json", truthfulqa, "validation", 400),
    "truthfulqa_mc2": ("trust/truthfulqa_mc2", "truthfulqa/mc_task.json", truthfulqa, "validation", 400),
    "mmlu": ("emergent/mmlu", "mmlu/test/{part}_test.csv", mmlu, "test", 20),
    "wikitext": ("language/wikitext", "wikitext2/wiki.test.raw", pages, "test", None),
}
EXAMPLES = {"mmlu": ("mmlu/dev/{part}_dev.csv", "dev", 5)}


def dataset(name, data):
    """`{part: {split: rows}}`; without parts, one called ''."""
    _, file, read, split, _ = TASKS[name]
    if "{part}" not in file:
        return {"": {split: read(data / file)}}
    found = {}
    for path in sorted((data / file).parent.glob(pathlib.Path(file).name.replace("{part}", "*"))):
        part = path.name.removesuffix("_test.csv")
        shots, pool, _ = EXAMPLES[name]
        found[part] = {split: read(path), pool: read(data / shots.replace("{part}", part))}
    return found


def theirs(name, data, lm, kept):
    """Results and samples, as far as they are compared; kept on disk."""
    if kept.exists():
        return json.loads(kept.read_text())
    import lm_eval
    import lm_eval.api.task as api
    from datasets import Dataset, DatasetDict

    parts = dataset(name, data)

    def download(self, dataset_kwargs=None, **_):
        part = self.config.task.removeprefix(name).lstrip("_")
        splits = {split: Dataset.from_list(rows) for split, rows in parts[part].items()}
        # The harness opens a split for examples even where it takes none.
        for split in (self.config.training_split, self.config.validation_split):
            if split is not None:
                splits.setdefault(split, next(iter(splits.values())))
        self.dataset = DatasetDict(splits)

    api.ConfigurableTask.download = download
    shots = EXAMPLES[name][2] if name in EXAMPLES else None
    given = lm_eval.simple_evaluate(model=lm, tasks=[name], num_fewshot=shots, limit=TASKS[name][4])
    brief = lambda s: [s["doc_id"], s["filtered_resps"]]
    samples = {task: sorted(map(brief, all)) for task, all in given["samples"].items()}
    numbers = lambda r: {k: float(v) if v != "N/A" else v for k, v in r.items() if "," in k}
    results = {task: numbers(r) for task, r in given["results"].items()}
    kept.write_text(json.dumps(dict(results=results, samples=samples)))
    return json.loads(kept.read_text())


def ours(name, args, folder):
    """One record and its items."""
    word, source, _, split, limit = TASKS[name]
    file = word.split("/")[1]
    sets = {}
    if name == "wikitext":
        # This program's own task cuts the raw text into pages.
        sets[file] = str((args.data / source).resolve())
    for part, splits in dataset(name, args.data).items() if not sets else ():
        for which, rows in splits.items():
            label = f"{name}-{which}" + (f"-{part}" if part else "") + ".jsonl"
            (folder / label).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
            key = file if which == split else f"{file}-fewshot"
            sets[key] = str(folder / (f"{name}-{which}-{{part}}.jsonl" if part else label))
    (folder / f"{name}.toml").write_text(
        f"about = 'parity'\nmodels = [{json.dumps(str(pathlib.Path(args.model).resolve()))}]\n"
        f"tasks = ['{word}']\n" + (f"limit = {limit}\n" if limit else "")
        + "[data]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in sets.items())
    )
    out = folder / f"out-{name}"
    ran = subprocess.run([args.binary, folder / f"{name}.toml", "--out", out], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"bitsweep ended with {ran.returncode}: {ran.stderr}")
    record = json.loads((out / "records.jsonl").read_text().splitlines()[0])
    items = lines(out / "items" / f"{record['cell']}.jsonl")
    return record, items


def scores(item):
    """An item's log-likelihoods and greedy flags, in order."""
    kind, outcome = next(iter(item["outcome"].items()))
    if kind == "choice":
        return list(zip(outcome["log_probs"], outcome["greedy"]))
    return [(outcome["log_prob"], outcome["greedy"])] if kind == "cloze" else [(-outcome["nll"], None)]


def compare(name, given, record, items):
    """Lines of the two tables, and whether all is equal."""
    samples = given["samples"]
    # Parts in this program's order; items in the data's.
    order = [f"{name}_{part}" for part in record["parts"]] if "parts" in record else [name]
    asked = [replies for task in order for _, replies in samples[task]]
    assert len(asked) == len(items), f"{name}: {len(items)} items, lm-eval {len(asked)}"
    worst = requests = greedy = 0
    for replies, item in zip(asked, items):
        mine = scores(item)
        assert len(replies) == len(mine), f"{name}: {len(mine)} requests of an item, lm-eval {len(replies)}"
        for reply, (ll, flag) in zip(replies, mine):
            reply = reply if isinstance(reply, list) else (reply, None)
            worst = max(worst, abs(reply[0] - ll))
            greedy += flag is not None and flag != reply[1]
            requests += 1
    head = f"| {name} | {len(items)} | {requests} | {worst:.1e} | {greedy} |"
    table, fine = [], worst < 1e-3
    groups = [(name, record["metrics"])] + [(f"{name}_{p}", m) for p, m in record.get("parts", {}).items()]
    unequal = []
    for task, metrics in groups:
        results = given["results"][task]
        for key, value in results.items():
            metric, _, filter_ = key.partition(",")
            if filter_ != "none" or metric.endswith("_stderr"):
                continue
            error = results.get(f"{metric}_stderr,none", "N/A")
            value_of = metrics[OURS.get((name, metric), metric)]
            mine = [f"{value_of['value']:.4f}", value_of.get("stderr_lm_eval", value_of.get("stderr"))]
            show = lambda e: "N/A" if e == "N/A" or e is None else f"{e:.4f}"
            pair = [f"{value:.4f}", show(error)]
            mine[1] = "N/A" if pair[1] == "N/A" else show(mine[1])
            same = "yes" if pair == mine else "no"
            # A text of twelve digits is more than f32 holds.
            apart = abs(value_of["value"] / value - 1) if value else 0
            if same == "no" and pair[0] != mine[0] and apart < F32:
                same = f"to {apart:.0e}"
            fine &= same != "no"
            if task == name:
                sides = f"{pair[0]} ± {pair[1]} | {mine[0]} ± {mine[1]}"
                table.append(f"| {name} | {metric} | {sides} | {same} |")
            elif same != "yes":
                unequal.append(f"{task} {metric}: {pair} {mine}")
    if len(groups) > 1:
        said = "yes" if not unequal else "; ".join(unequal)
        table.append(f"| {name}, each of {len(groups) - 1} parts | | | | {said} |")
    return head, table, fine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--binary", default=str(HERE / "target/release/bitsweep"))
    parser.add_argument("--work", type=pathlib.Path, help="what both leave; what lm-eval has left is not made again")
    args = parser.parse_args()
    import lm_eval
    import torch
    import transformers
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=args.model, dtype=args.dtype, device="cpu", batch_size=args.batch)
    global LONG, CONTEXT
    LONG, CONTEXT = (lambda text: len(lm.tok_encode(" " + text))), lm.max_length
    heads, tables, fine = [], [], True
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.work or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for name in args.only.split(","):
            given = theirs(name, args.data, lm, folder / f"lm-eval-{name}-{args.dtype}-{args.batch}.json")
            head, table, same = compare(name, given, *ours(name, args, folder))
            heads.append(head)
            tables += table
            fine &= same
            print(head, *table, sep="\n", file=sys.stderr)
    print(f"lm-eval {lm_eval.__version__}, transformers {transformers.__version__}, torch {torch.__version__}, "
          f"{args.dtype}, batch size {args.batch}, context {lm.max_length}\n")
    print("| task | items | requests | worst difference of a log-likelihood | greedy flags that differ |")
    print("|---|---|---|---|---|", *heads, "", sep="\n")
    print("| task | metric | lm-evaluation-harness | bitsweep | equal |\n|---|---|---|---|---|", *tables, sep="\n")
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()

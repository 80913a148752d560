"""Questions with endings to choose from: bitsweep beside lm-evaluation-harness (hf, f32), in turn.

    cargo build --release
    pip install lm-eval torch transformers numpy
    python benches/choice.py DATA_DIR --tokenizer DIR [--only hellaswag,mmlu] [--subject global_facts] [--limit 200]

DATA_DIR is that of parity.py: `hellaswag/hellaswag_val.jsonl`, `mmlu/test/SUBJECT_test.csv`,
`mmlu/dev/SUBJECT_dev.csv`. HellaSwag has no examples, `--limit` items; MMLU is one subject with five examples, all its
questions. Both programs have their own tasks and get the same rows, as in parity.py.

Batch size of the harness: the fastest of `--batches`, each tried once on the first `--probe` items. Its `auto` is not
tried: on a CPU it looks for the size at which memory is exhausted.

Counted: what each spends on scoring requests. For the harness that is the whole of `HFLM.loglikelihood`: tokenizing,
batches, passes, log-softmax; it answers from one pass where endings of a question are one token each, as is its
default. For bitsweep it is the record's `seconds`: rendering templates, tokenizing, passes, scores and their errors.
Not counted: loading the model, reading data, and in the harness rendering requests and aggregating scores.
"""
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = os.environ["TQDM_DISABLE"] = "1"

import common
import parity
from common import Side

WANTED = {"hellaswag": 4, "mmlu": 10}


def rows(name, args):
    """`{split: rows}` of the harness' dataset, and `bitsweep`'s task and the keys of its data."""
    word, file, read, split, _ = parity.TASKS[name]
    if name == "mmlu":
        shots, pool, _ = parity.EXAMPLES[name]
        found = {split: read(args.data / file.replace("{part}", args.subject)),
                 pool: read(args.data / shots.replace("{part}", args.subject))}
        return found, f"{word}/{args.subject}", {split: "mmlu", pool: "mmlu-fewshot"}
    return {split: read(args.data / file)}, word, {split: name}


class Peer:
    """The harness with a model that stays loaded, and the seconds of its scoring."""

    def __init__(self, args, model):
        import lm_eval
        import torch
        import transformers
        from lm_eval.models.huggingface import HFLM

        torch.set_num_threads(args.threads)
        self.lm = HFLM(pretrained=str(model), dtype="float32", device="cpu", batch_size=1)
        self.seconds = 0.0
        whole = self.lm.loglikelihood

        def timed(*given, **named):
            began = common.time.perf_counter()
            answers = whole(*given, **named)
            self.seconds += common.time.perf_counter() - began
            return answers

        self.lm.loglikelihood = timed
        print(f"lm-eval {lm_eval.__version__}, torch {torch.__version__}, transformers {transformers.__version__}, "
              f"{args.threads} threads")

    def run(self, name, splits, args, limit, batch):
        """Seconds; `{metric: value}`; log-likelihoods of each item's endings."""
        import lm_eval
        import lm_eval.api.task as api
        from datasets import Dataset, DatasetDict, disable_progress_bars

        disable_progress_bars()

        def download(task, dataset_kwargs=None, **_):
            found = {split: Dataset.from_list(rows) for split, rows in splits.items()}
            # The harness opens a split for examples even where it takes none.
            for split in (task.config.training_split, task.config.validation_split):
                if split is not None:
                    found.setdefault(split, next(iter(found.values())))
            task.dataset = DatasetDict(found)

        api.ConfigurableTask.download = download
        task = f"mmlu_{args.subject}" if name == "mmlu" else name
        self.lm.batch_size_per_gpu, self.seconds = batch, 0.0
        given = lm_eval.simple_evaluate(
            model=self.lm, tasks=[task], num_fewshot=5 if name == "mmlu" else None, limit=limit, bootstrap_iters=0)
        metrics = {k.split(",")[0]: v for k, v in given["results"][task].items()
                   if k.endswith(",none") and "stderr" not in k}
        samples = sorted(given["samples"][task], key=lambda s: s["doc_id"])
        return self.seconds, metrics, [[reply[0] for reply in s["filtered_resps"]] for s in samples]


def bench(name, args, where, model, peer):
    splits, word, keys = rows(name, args)
    limit = args.limit if name == "hellaswag" else None
    data = {}
    for split, key in keys.items():
        # Where a task has parts, a path without `{part}` stands for each. HellaSwag has no examples, so that rows
        # beyond the limit count for nothing.
        data[key] = where / f"{name}-{split}.jsonl"
        splits[split] = splits[split][:limit]
        data[key].write_text("".join(parity.json.dumps(r) + "\n" for r in splits[split]), encoding="utf-8")
    tried = {batch: peer.run(name, splits, args, args.probe, batch)[0] for batch in map(int, args.batches.split(","))}
    best = min(tried, key=tried.get)
    print(f"{name}: the harness on {args.probe} items: "
          + ", ".join(f"batch {b} {s:.2f} s" for b, s in tried.items()) + f"; the fastest: {best}", flush=True)
    last = {}

    def ours():
        run = common.bitsweep(args, where, model, [word], data=data,
                              options=["--limit", str(limit)] if limit else [])
        record = run.records[0]
        last["ours"] = ({m: v["value"] for m, v in record["metrics"].items()},
                        [[ll for ll, _ in parity.scores(item)]
                         for item in parity.lines(run.out / "items" / f"{record['cell']}.jsonl")])
        return Side(run.seconds(), mean(last["ours"][1]))

    def theirs():
        seconds, *last["theirs"] = peer.run(name, splits, args, limit, best)
        return Side(seconds, mean(last["theirs"][1]))

    print(f"{name}: beside seconds the mean log-likelihood of a request")
    ratio = common.pairs(args, ours, theirs, ("bitsweep", "lm-eval"),
                         (len(splits[next(iter(keys))][:limit]), "items"))
    (our_metrics, our_scores), (their_metrics, their_scores) = last["ours"], last["theirs"]
    assert list(map(len, our_scores)) == list(map(len, their_scores)), f"{name}: other requests"
    apart = max(abs(a - b) for i, j in zip(our_scores, their_scores) for a, b in zip(i, j))
    print(f"{name}: {len(our_scores)} items, {sum(map(len, our_scores))} requests, log-likelihoods differ by at most "
          f"{apart:.1e}")
    for metric, value in their_metrics.items():
        if metric in our_metrics:
            print(f"{name}: {metric}: bitsweep {our_metrics[metric]:.4f}, lm-eval {value:.4f}")
    common.verdict(f"{name}: seconds, lm-eval / bitsweep", ratio, WANTED[name], least=True)


def mean(scores):
    return sum(map(sum, scores)) / sum(map(len, scores))


def main():
    parser = common.arguments(__doc__, model=False)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--model", help="a LLaMA in Hugging Face layout; default: random, 125M shape")
    parser.add_argument("--only", default="hellaswag,mmlu")
    parser.add_argument("--subject", default="global_facts", help="of MMLU (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=200, help="items of HellaSwag (default: %(default)s)")
    parser.add_argument("--batches", default="1,8,16,32", help="of the harness (default: %(default)s)")
    parser.add_argument("--probe", type=int, default=32, help="items for choosing one (default: %(default)s)")
    args = parser.parse_args()
    common.machine()
    with common.folder(args) as where:
        model = common.model(args, where)
        peer = Peer(args, model)
        for name in args.only.split(","):
            bench(name, args, where, model, peer)


if __name__ == "__main__":
    main()

"""Perplexity of one text in non-overlapping windows: bitsweep beside transformers (PyTorch, f32, sdpa), in turn.

    cargo build --release
    pip install torch transformers
    python benches/perplexity.py MODEL_DIR TEXT_FILE [--window 256] [--pairs 5] [--threads 2]

Prints seconds and perplexity of both in each pair, and the median of the ratios bitsweep / transformers. Loading is
counted on neither side; tokenizing is on bitsweep's.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent.parent


def ours(args, folder):
    (folder / "text.toml").write_text(
        "about = 'bench'\nversion = 1\nmetrics = ['perplexity']\n"
        f"[data.file]\npath = {json.dumps(str(pathlib.Path(args.text).resolve()))}\n"
        f"[ask.perplexity]\nprotocol = 'windows'\nwindow = {args.window}\n"
    )
    (folder / "study.toml").write_text(
        f"about = 'bench'\nmodels = [{json.dumps(str(pathlib.Path(args.model).resolve()))}]\ntasks = ['text.toml']\n"
    )
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            [HERE / "target/release/bitsweep", folder / "study.toml", "--out", out],
            check=True, capture_output=True, env={**os.environ, "RAYON_NUM_THREADS": str(args.threads)},
        )
        record = json.loads((pathlib.Path(out) / "records.jsonl").read_text().splitlines()[0])
    return record["cost"]["seconds"], record["metrics"]["perplexity"]["value"]


def theirs(args, torch, model, windows):
    began = time.perf_counter()
    nll = count = 0
    with torch.no_grad():
        for window in windows:
            logits = model(window, use_cache=False).logits[0]
            nll += torch.nn.functional.cross_entropy(logits[:-1].float(), window[0, 1:], reduction="sum").item()
            count += window.shape[1] - 1
    return time.perf_counter() - began, math.exp(nll / count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    text = pathlib.Path(args.text).read_text()
    ids = torch.tensor([AutoTokenizer.from_pretrained(args.model)(text).input_ids])
    windows = [ids[:, i : i + args.window] for i in range(0, ids.shape[1] - args.window + 1, args.window)]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        ours(args, pathlib.Path(folder))
        theirs(args, torch, model, windows)
        for _ in range(args.pairs):
            a, ppl_a = ours(args, pathlib.Path(folder))
            b, ppl_b = theirs(args, torch, model, windows)
            ratios.append(a / b)
            print(f"bitsweep {a:.3f} s  {ppl_a:.6f}   transformers {b:.3f} s  {ppl_b:.6f}   ratio {a / b:.3f}")
    tokens = len(windows) * args.window
    print(f"{tokens} tokens; median of bitsweep / transformers: {statistics.median(ratios):.3f} of the time")


if __name__ == "__main__":
    main()

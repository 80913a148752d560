"""Perplexity of a text in windows that do not overlap, f32: bitsweep beside transformers (PyTorch, sdpa), in turn.

    cargo build --release
    pip install torch transformers numpy
    python benches/perplexity.py --tokenizer DIR [--text FILE] [--window 2048] [--windows 4]
    python benches/perplexity.py MODEL_DIR ...

Counted on both sides: the passes, the logits of all positions that are scored and their log-softmax; on bitsweep's also
tokenizing the text. Not counted: loading the model, starting the process. Both have the same number of threads, and
PyTorch its window as one batch of one, without a cache of keys and values.

Prints seconds, tokens/s and perplexity of both in each pair, and the median of the ratios.
"""
import math

import common
from common import Side


def peer(args, model, text):
    """A function that times transformers over the same windows."""
    import torch
    import transformers

    torch.set_num_threads(args.threads)
    lm = transformers.AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = transformers.AutoTokenizer.from_pretrained(model)(text.read_text(encoding="utf-8")).input_ids
    windows = [torch.tensor([ids[i : i + args.window]]) for i in range(0, len(ids) - args.window + 1, args.window)]
    windows = windows[: args.windows]
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {args.threads} threads, "
          f"{sum(p.numel() for p in lm.parameters()) / 1e6:.0f}M parameters")

    @torch.no_grad()
    def run():
        began, nll, count = common.time.perf_counter(), 0.0, 0
        for window in windows:
            logits = lm(window, use_cache=False).logits[0]
            nll += torch.nn.functional.cross_entropy(logits[:-1], window[0, 1:], reduction="sum").item()
            count += window.shape[1] - 1
        return Side(common.time.perf_counter() - began, math.exp(nll / count))

    return run, len(windows) * args.window


def main():
    args = common.with_text(common.arguments(__doc__), window=2048, windows=4).parse_args()
    common.machine()
    with common.folder(args) as where:
        model, text = common.model(args, where), common.text(args, where, args.window * args.windows)
        theirs, tokens = peer(args, model, text)
        task = common.text_task(where, text, args.window, args.windows)

        def ours():
            run = common.bitsweep(args, where, model, [task])
            return Side(run.seconds(), run.value())

        ratio = common.pairs(args, ours, theirs, ("bitsweep", "PyTorch"), (tokens, "tokens"))
    common.verdict("tokens/s, bitsweep / PyTorch sdpa", ratio, 2, least=True)


if __name__ == "__main__":
    main()

"""How cost grows: with tokens, with recipes, and with the number of sequences at equal tokens. bitsweep alone.

    cargo build --release
    pip install numpy
    python benches/scaling.py --tokenizer DIR [--text FILE] [--total 8192] [--repeat 3]

Each line is the median of `--repeat` runs. `seconds` is the record's: evaluation and tokenizing, of all cells.
`process` is the whole process. The last column is seconds by the first line's, over what they should be: 1 where cost
is in proportion.

1. Tokens: windows of 512, more of them. Should grow in proportion.
2. Recipes of round-to-nearest weights, in one study; `full` is always there. Should grow in proportion to recipes.
3. Sequences: `--total` tokens in windows of 2048 down to 64. Should stay equal, but for attention, whose share falls
   with a shorter window. Each window's first token is not scored, so the head has a little less to do in shorter ones.
"""
import statistics

import common

RECIPES = ["w8", "w4", "w3", "w2", "w4g64", "w4g32", "w3g64", "w4row"]


def main():
    parser = common.arguments(__doc__)
    parser.add_argument("--text", type=common.pathlib.Path, metavar="FILE", help="default: this project's documents")
    parser.add_argument("--total", type=int, default=8192, help="tokens at most (default: %(default)s)")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    common.machine()
    with common.folder(args) as where:
        model, text = common.model(args, where), common.text(args, where, args.total)

        def measure(window, windows, recipes=()):
            task = common.text_task(where, text, window, windows)
            runs = [common.bitsweep(args, where, model, [task], recipes) for _ in range(args.repeat)]
            return statistics.median(r.seconds() for r in runs), statistics.median(r.wall for r in runs)

        def table(head, lines):
            print(f"\n| {head} | seconds | process | a unit of it | seconds / proportion |\n|---|---|---|---|---|")
            first = None
            for label, units, seconds, wall in lines:
                first = first or seconds / units
                each = seconds / units
                print(f"| {label} | {seconds:.3f} | {wall:.3f} | {each:.6f} | {each / first:.3f} |", flush=True)

        measure(512, 1)  # brings files into memory
        counts = [2**i for i in range(12) if 512 * 2**i <= args.total]
        table("tokens", ((512 * n, 512 * n, *measure(512, n)) for n in counts))
        few = max(1, args.total // 4096)
        table("models evaluated: full and recipes",
              ((1 + n, 1 + n, *measure(512, few, RECIPES[:n])) for n in (0, 1, 2, 4, 8)))
        table(f"sequences of {args.total} tokens",
              ((f"{args.total // w} x {w}", 1, *measure(w, args.total // w)) for w in (2048, 1024, 512, 256, 128, 64)))


if __name__ == "__main__":
    main()

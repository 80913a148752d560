"""A sweep in one study against as many single runs: bitsweep against itself, in turn.

    cargo build --release
    pip install numpy
    python benches/sweep.py --tokenizer DIR [--text FILE] [--window 2048] [--windows 2] [--recipes weights]

One side is a study with twelve round-to-nearest recipes, and `full`, which every study has. The other is a study with
`full` alone, times twelve. Counted on both sides: the whole process, from its start to its end, with loading,
quantizing, tables and charts. Recipes: of six weight widths, alone and with activations of 8 bits; with `--recipes
weights`, twelve of weights alone, whose passes cost what those of `full` cost.

The ratio printed pair by pair is 12 x full / sweep; the share of that time which the sweep takes stands in the last
line.
"""
import common
from common import Side

RECIPES = {
    "both": ["w8", "w6", "w5", "w4", "w3", "w2", "w8a8", "w6a8", "w5a8", "w4a8", "w3a8", "w2a8"],
    "weights": ["w8", "w6", "w5", "w4", "w3", "w2", "w4g64", "w4g32", "w3g64", "w4row", "w8row", "w4sym"],
}


def main():
    parser = common.with_text(common.arguments(__doc__), window=2048, windows=2)
    parser.add_argument("--recipes", choices=RECIPES, default="both")
    args = parser.parse_args()
    recipes = RECIPES[args.recipes]
    common.machine()
    with common.folder(args) as where:
        model, text = common.model(args, where), common.text(args, where, args.window * args.windows)
        task = common.text_task(where, text, args.window, args.windows)

        def sweep():
            run = common.bitsweep(args, where, model, [task], recipes)
            assert len(run.records) == len(recipes) + 1
            return Side(run.wall, run.value(recipe="full"))

        def alone():
            run = common.bitsweep(args, where, model, [task])
            return Side(len(recipes) * run.wall, run.value(recipe="full"))

        ratio = common.pairs(args, sweep, alone, (f"{len(recipes)} recipes + full", f"{len(recipes)} x full"))
    n = len(recipes)
    common.verdict(f"one study of {n} recipes / {n} single runs of full", 1 / ratio, 0.8, least=False)


if __name__ == "__main__":
    main()

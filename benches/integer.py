"""What integer recipes cost beside full precision: bitsweep against itself, in turn.

    cargo build --release
    pip install numpy
    python benches/integer.py --tokenizer DIR [--text FILE] [--recipes w8a8,w4a8] [--window 2048] [--windows 4]

Each side is a run of its own with one recipe (`--only`), so that nothing is shared. Counted: evaluation and tokenizing
of the text, as the record says. Not counted: loading and quantizing.

The ratio printed is time of `full` / time of the recipe; the share of `full`'s time that the recipe takes stands in the
last line. Perplexities differ here, because they are of two models.
"""
import common
from common import Side


def main():
    parser = common.with_text(common.arguments(__doc__), window=2048, windows=4)
    parser.add_argument("--recipes", default="w8a8,w4a8")
    args = parser.parse_args()
    common.machine()
    shares = []
    with common.folder(args) as where:
        model, text = common.model(args, where), common.text(args, where, args.window * args.windows)
        task = common.text_task(where, text, args.window, args.windows)

        def side(recipe):
            run = common.bitsweep(args, where, model, [task], args.recipes.split(","), only=f"*/{recipe}/*")
            assert len(run.records) == 1, run.records
            return Side(run.seconds(), run.value())

        for recipe in args.recipes.split(","):
            ratio = common.pairs(args, lambda: side(recipe), lambda: side("full"), (recipe, "full"),
                                 (args.windows * args.window, "tokens"), same=False)
            shares.append((recipe, 1 / ratio))
    for recipe, share in shares:
        common.verdict(f"time of {recipe} / time of full", share, 0.6, least=False)


if __name__ == "__main__":
    main()

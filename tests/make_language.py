#!/usr/bin/env python3
"""Makes tests/goldens/language.json for `tests/language.rs`.

    pip install lm_eval
    python tests/make_language.py

Texts are written here, of invented words; a token is a byte, and BOS is 1. Windows are what the protocols of GPTQ's
`datautils.py` make of them, with Python's own `random`; pages are what the dataset wikitext_document_level makes of a
file, and their detokenized form is what lm-evaluation-harness itself does to them.
"""
import json
import random
import re
from pathlib import Path

from lm_eval.tasks.wikitext import preprocess_wikitext

OUT = Path(__file__).resolve().parent / "goldens" / "language.json"
BOS, WINDOW = 1, 24


def encode(text):
    return [BOS, *text.encode()]


def windows(ids, most=None):
    count = len(ids) // WINDOW
    count = count if most is None else min(count, most)
    return [ids[i * WINDOW:(i + 1) * WINDOW] for i in range(count)]


def c4(texts, count, seed):
    random.seed(seed)
    out = []
    for _ in range(count):
        while True:
            ids = encode(texts[random.randint(0, len(texts) - 1)])
            if len(ids) >= WINDOW:
                break
        at = random.randint(0, len(ids) - WINDOW - 1)
        out.append(ids[at:at + WINDOW])
    return out


def pages(text):
    out, held = [], []
    for line in text.split("\n"):
        bare = line.replace("= = =", "===").replace("= =", "==").strip()
        if bare.startswith("= ") and bare.endswith(" ="):
            page = "\n".join(held)
            if page.strip():
                out.append(page)
            held = []
        held.append(line)
    return out + ["\n".join(held)]


WIKI = r"""
 = Sneth ( plant ) =

 The sneth is a plant of Wexim , and no one 's food . It has 1 @,@ 200 leaves , 3 @.@ 5 mm wide : a well @-@ known " brin " .

 = = Use = =

 = = = In towns = = =

 Of 12 ° it is said ; ( a [ quiet ] thing ) ! Is it ? It is ' good ' , the traders ' guild says / ' 4 / . { so } N
 = = = = Deep = = = =
 Lines end here .
 = Dunor =

 Dunor is a baker . = no title = A line about 2 = 2 , = and = signs .
 = Hollam = = of = the = north =

 The last page , and its end .
"""


def main():
    rng = random.Random(7)
    word = lambda: "".join(rng.choice("abdefgiklmnorstuvwz") for _ in range(rng.randint(2, 7)))
    line = lambda n: " ".join(word() for _ in range(n))
    docs = [line(rng.randint(1, 14)) for _ in range(48)]
    # GPTQ's own code fails where a document is just as long as a window.
    docs = [d for d in docs if len(encode(d)) != WINDOW][:40]
    rows = [row if row.strip() else "" for row in WIKI.splitlines(keepends=True)]
    sentences = [" " + line(rng.randint(2, 9)) + " " for _ in range(12)]
    ptb = [s.strip() for s in sentences]
    all_pages = pages(WIKI)
    detokenized = [preprocess_wikitext.wikitext_detokenizer({"page": p}) for p in all_pages]
    golden = {
        "window": WINDOW,
        "wiki": WIKI,
        "wikitext2": windows(encode("\n\n".join(rows))),
        "pages": [
            {"text": d, "words": len(re.split(r"\s+", p)), "bytes": len(p.encode())}
            for p, d in zip(all_pages, detokenized)
        ],
        "sentences": "".join(s + "\n" for s in sentences),
        "ptb": windows(encode("\n\n".join(ptb))),
        "ptb_new": windows(encode(" ".join(ptb))),
        "documents": docs,
        "c4": c4(docs, 30, 0),
        "c4_seed_3": c4(docs, 30, 3),
        "c4_new": windows(encode(" ".join(docs[:9])), 6),
    }
    assert len(all_pages) == 3 and all(len(encode(d)) != WINDOW for d in docs)
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in golden.items())
    OUT.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()

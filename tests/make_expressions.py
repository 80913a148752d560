#!/usr/bin/env python3
"""Makes tests/goldens/generate/expressions.json: what CPython's `re` takes out of texts by
expressions that Rust reads otherwise, for `tests/generate.rs`.

    python tests/make_expressions.py
"""
import json
import re
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent / "goldens" / "generate" / "expressions.json"

TEXTS = [
    "",
    "5\n",
    "1 pm\n",
    "a\nb\n",
    "x <answer>4</answer>",
    "a&&b||c",
    "a*+,-b--c",
    "~q~~",
    "12\x1c",
    "12\x1f 13\x85",
    "zb",
    "[0] ^ {2} \\d",
    "b\x08c",
]

EXPRESSIONS = [
    r"(?P<number>\d+)$",
    r"(?:am|pm)$",
    r"(?=m)m$",
    r"(?m)^\w$",
    r"(?im)^A$",
    r"(?m:a$)|b$",
    r"(?m:a$)|(?-m:b$)",
    r"(?m:(a)$)|(b)$",
    r"(?s:a.)b$",
    r"\<answer\>(.*?)\<\/answer\>",
    r"[\<\>]",
    r"[a&&b]+",
    r"[^a&&b]+",
    r"[*--]+",
    r"[--/]+",
    r"[+--a]+",
    r"[^-a]+",
    r"[a-]+",
    r"[-a]+",
    r"[\w.-]+",
    r"[~~q]+",
    r"[]&[^-]+",
    r"[^]]",
    r"[\b]",
    r"\d+\s",
    r"[\s]",
    r"[^\s]+",
    r"\S+",
    r"[\Sz]+",
    r"[^\S]",
    r"(a)|(b)|",
    r"(\d)?(x)?(y)?",
    r"\d{,1}\D",
]


def main():
    cases = [{"pattern": p, "left": [re.sub(p, "", t) for t in TEXTS]} for p in EXPRESSIONS]
    out = {"python": sys.version.split()[0], "texts": TEXTS, "cases": cases}
    OUT.write_text(json.dumps(out, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()

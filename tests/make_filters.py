#!/usr/bin/env python3
"""Makes tests/goldens/generate/filters.json: what lm-evaluation-harness's filters and its `exact_match` make of answers,
for `tests/generate.rs`.

    pip install lm_eval
    python tests/make_filters.py

The answers are our own, chosen for what Python's `re` and others read differently: `$` before a last newline, empty
matches, brackets in classes, groups that took no part, looking around, white space of Unicode.
"""
import json
from pathlib import Path

import lm_eval
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters import build_filter_ensemble

OUT = Path(__file__).resolve().parent / "goldens" / "generate" / "filters.json"

ANSWERS = [
    "He has 3 + 4 = 7 apples.\n#### 7",
    "#### -1,234.50\n",
    "#### 12 and then #### 13.",
    "So it costs $1,300.00. The answer is $1,250.",
    "The answer is (B). But (C) is near.",
    "the answer is twelve.\nAnswer: 12.\n",
    "12.\n",
    "12.\n\n",
    "\u2003wide\u00a0space \x1f",
    "",
    "no digits at all",
    "\\boxed{42} then \\boxed{43}",
    "x[1] and y[2]] {3}",
    "\u00c4RGER, \u00df and \u0130stanbul; \u03a3\u0391\u03a3",
    "caf\u00e9 1\u0662 \u0967 10",
    "- 5 -5 $ . , 5.",
    "aaa\nbbb",
    "yes",
    "Yes, YES!",
]

REGEX = [  # pattern, group_select
    (r"#### (\-?[0-9\.\,]+)", 0),
    (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
    (r"(?<=[Tt]he answer is )(.*)(?=\.)", 0),
    (r"\(([A-D])\)", 0),
    (r"\(([A-D])\)", -1),
    (r"\\boxed{(.*?)}", -1),
    (r"[[\]]", 0),
    (r"[^]\w]+", 0),
    (r"(\d+)\.$", 0),
    (r"\d+\.\Z", 0),
    (r"a*", -1),
    (r"(x)?(y)?[a-z]", 0),
    (r"(?i)(YES|no)\b", 0),
    (r"(?m)^b+$", 0),
    (r"(.)\1", 0),
    (r"\d+", 1),
    (r"(?s)^.*\n", 0),
    (r"\s\w{2,3}\s", 0),
]

CHAINS = [
    ["lowercase", "remove_whitespace"],
    ["uppercase"],
    ["remove_whitespace", ["regex", {"regex_pattern": r"\d+", "fallback": "none"}], "lowercase"],
]

SEVERAL = [["7", "8", "8"], ["a", "b", "a", "b"], ["b", "a"], ["Yes", "yes", "YES", "yes"], ["x"]]

MATCH = [
    {},
    {"ignore_case": True},
    {"ignore_punctuation": True},
    {"ignore_numbers": True},
    {"ignore_case": True, "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]},
    {"ignore_case": True, "ignore_punctuation": True, "ignore_numbers": True, "regexes_to_ignore": [r"\s+", "[[{].*?[]}]"]},
]

PAIRS = [  # answer, gold
    ("7", "He has 3 + 4.\n#### 7"),
    ("$1,300.", "1300"),
    ("1,300.\n", "1300\n"),
    ("12.\n\n", "12"),
    ("Yes!", "yes"),
    ("don't", "dont"),
    ("B2B", "bb"),
    ("a [x] b", "A b"),
    ("\u03a3\u0391\u03a3", "\u03c3\u03b1\u03c2"),
    ("", ""),
    ("", "12"),
    (" 7", "7"),
    ("\u00ab7\u00bb", "7"),
]


def run(steps, answers):
    parts = [(s, None) if isinstance(s, str) else tuple(s) for s in steps]
    ensemble = build_filter_ensemble("it", parts)
    out = [answers]
    for f in ensemble.filters:
        out = list(f().apply(out, [{}]))
    return out[0]


def main():
    regex = []
    for pattern, group in REGEX:
        step = ["regex", {"regex_pattern": pattern, "group_select": group}]
        wants = []
        for answer in ANSWERS:
            try:
                wants.append(run([step], [answer])[0])
            except IndexError:  # the harness has no such match and stops; here it is the fallback
                wants.append("[invalid]")
        regex.append({"pattern": pattern, "pick": group, "want": wants})
    out = {
        "lm_eval": lm_eval.__version__,
        "answers": ANSWERS,
        "regex": regex,
        "chains": [{"steps": c, "want": [run(c, [a])[0] for a in ANSWERS]} for c in CHAINS],
        "several": [
            {"answers": s, "take_first": run(["take_first"], s), "majority_vote": run(["majority_vote"], s)} for s in SEVERAL
        ],
        "map": [run([["map", {"mapping_dict": {"yes": "1", "7": "seven"}, "default_value": "?"}]], [a])[0] for a in ANSWERS],
        "match": [
            {
                "settings": m,
                "want": [
                    bool(exact_match_hf_evaluate(predictions=[a], references=[g], **m)["exact_match"]) for a, g in PAIRS
                ],
            }
            for m in MATCH
        ],
        "pairs": PAIRS,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(out, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()

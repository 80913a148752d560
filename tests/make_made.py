#!/usr/bin/env python3
"""Makes tests/goldens/made: items drawn by CPython's `random` and rendered by Jinja2, for `tests/made.rs`.

    pip install jinja2 pydantic regex
    git clone https://github.com/nelson-liu/lost-in-the-middle
    PYTHONPATH=lost-in-the-middle/src python tests/make_made.py

`draws.json` has a task of our own that draws in every way; `suite.json` what the tasks of suites/long ask, by hash;
`middle.json` what the authors of "Lost in the Middle" ask of records and documents of our own, and how they score.
"""
import hashlib
import json
import random
import tomllib
import uuid
from pathlib import Path

import jinja2

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests" / "goldens" / "made"


def write(name, value):
    HERE.mkdir(parents=True, exist_ok=True)
    # A line for each of the outermost list or table.
    many, ends = (value.items(), "{}") if isinstance(value, dict) else (value, "[]")
    dump = lambda v: json.dumps(v, ensure_ascii=False)
    lines = [f"{dump(v[0])}: {dump(v[1])}" if ends == "{}" else dump(v) for v in many]
    text = f"{ends[0]}\n" + ",\n".join(lines) + f"\n{ends[1]}\n"
    (HERE / name).write_text(text, encoding="utf-8")


def functions(r):
    def shuffle(items):
        items = list(items)
        r.shuffle(items)
        return items

    def sample(items, k):
        return r.sample(range(items) if isinstance(items, int) else list(items), k)

    return {
        "randint": r.randint,
        "random": r.random,
        "choice": r.choice,
        "choices": lambda items, k: r.choices(items, k=k),
        "sample": sample,
        "shuffle": shuffle,
        "uuid": lambda: str(uuid.UUID(int=r.getrandbits(128), version=4)),
    }


def value(environment, source, seen):
    inside = source[2:-2] if source.startswith("{{") and source.endswith("}}") else "{{"
    if "{{" in inside or "}}" in inside:
        return environment.from_string(source).render(seen)
    return environment.compile_expression(inside, undefined_to_none=False)(**seen)


def jinja():
    return jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)


def lists(task, folder):
    read = lambda of: of if isinstance(of, list) else (folder / of).read_text(encoding="utf-8").splitlines()
    return {name: read(of) for name, of in task["data"]["made"].get("lists", {}).items()}


def item(task, folder, part, index):
    made = task["data"]["made"]
    apart = part if made.get("by_part", True) else ""
    environment = jinja()
    environment.globals.update(functions(random.Random(f"{made.get('seed', 0)}/{apart}/{index}")))
    environment.globals.update(lists(task, folder))
    seen = {"index": index} | ({"part": part, "title": task["parts"].get(part, part)} if part else {})
    for name, source in made["fields"].items():
        seen[name] = value(environment, source, seen)
    return {name: seen[name] for name in made["fields"] if not name.startswith("_")}


def asked(task, row, part):
    environment = jinja()
    row = row | {"part": part, "title": task["parts"].get(part, part)}
    for name, source in task.get("fields", {}).items():
        row[name] = value(environment, source, row)
    ask = task["ask"]["generate"]
    return environment.from_string(ask["prompt"]).render(row), value(environment, ask["gold"], row)


def suite():
    folder, all = ROOT / "suites" / "long", []
    parts = {
        "lines": ["200", "680", "3"],
        "lines_short": ["5", "100"],
        "lines_by_position": ["680-0", "680-9", "30-4"],
        "kv_retrieval": ["75-0", "75-24", "300-299", "2-1"],
        "topics": ["5", "30"],
        "needle": ["1000-0", "4000-75", "8000-100", "100-50"],
    }
    for name, of in parts.items():
        task = tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8"))
        for part in of:
            for index in (0, 1, 7):
                prompt, gold = asked(task, item(task, folder, part, index), part)
                case = {"task": name, "part": part, "index": index, "gold": str(gold), "bytes": len(prompt.encode())}
                case["sha256"] = hashlib.sha256(prompt.encode()).hexdigest()
                all.append(case)
    write("suite.json", all)


DRAWS = """
[data.made]
items = 12
seed = 7

[data.made.lists]
words = ["one", "two", "three", "four", "five", "six", "na\u00efve", "\u6cb3"]

[data.made.fields]
low = "{{ randint(-5, 5) }}"
high = "{{ randint(1, 50000) }}"
huge = "{{ randint(0, 1099511627776) }}"
same = "{{ randint(3, 3) }}"
word = "{{ choice(words) }}"
more = "{{ choices(words, 12) }}"
some = "{{ sample(words, 3) }}"
every = "{{ sample(words, 8) }}"
few = "{{ sample(100000, 4) }}"
none = "{{ sample(0, 0) }}"
order = "{{ shuffle(words) }}"
back = "{{ shuffle(words[2:5] + words[:1]) }}"
id = "{{ uuid() }}"
_coin = "{{ random() < 0.5 }}"
side = "{{ 'head' if _coin else 'tail' }}"
text = "{% for i in range(index % 5) %}{{ words[i] }}={{ randint(1, 9) }};{% endfor %}"
place = "{{ index }} of {{ part }}: {{ title }}\\n"
"""


def draws():
    all = []
    for by_part in (True, False):
        task = tomllib.loads(DRAWS) | {"parts": {"a": "the first", "b-2": "the second"}}
        task["data"]["made"]["by_part"] = by_part
        for part in task["parts"]:
            rows = [item(task, HERE, part, i) for i in range(task["data"]["made"]["items"])]
            all.append({"by_part": by_part, "part": part, "rows": rows})
    alone = tomllib.loads(DRAWS) | {"parts": {}}
    alone["data"]["made"]["fields"].pop("place")
    rows = [item(alone, HERE, "", i) for i in range(3)]
    write("draws.json", {"task": DRAWS, "cases": all, "alone": rows})


ANSWERS = ["The Eiffel Tower.", "the  eiffel\ttower", "An eiffel-tower", "It is in Paris, France", "", "a", "A.I.", "I",
           "theatre", "the atre", "U.S.A", "usa", "42,000", "42 000", "na\u00efve an\u0301 other", "\u0130stanbul", "a_the_an",
           "L\u2019an 2000", "l'an 2000", "\u03a3\u0391\u03a3", "ΣΑΣ ok", "don\u2019t", "x\u00a0y", "the the", "\u2028z", "an-a"]
GOLD = [["Eiffel Tower"], ["Paris", "London"], ["the"], ["A"], ["I"], ["atre"], ["USA"], ["42000"], ["\u0130STANBUL"],
        ["l an 2000"], ["\u03c3\u03b1\u03c2"], ["x y"], ["z"], ["other"], ["nothing of it", "2000"], ["dont", "t"]]


def middle():
    from lost_in_the_middle.metrics import best_subspan_em
    from lost_in_the_middle.prompting import Document, get_kv_retrieval_prompt, get_qa_prompt

    scores = [[best_subspan_em(a, g) for g in GOLD] for a in ANSWERS]
    documents = [{"id": str(i), "title": f"Title {i} \u2013 \"it\"", "text": f"Text of {i}.\nIts second line, {{x}}.", "isgold": i == 2}
                 for i in range(4)]
    qa = {"question": "which one is it", "answers": ["Text of 2", "two"], "ctxs": documents}
    qa_prompt = get_qa_prompt(qa["question"], [Document.from_dict(d) for d in documents], False, False)
    r, kv = random.Random(3), []
    new = lambda: str(uuid.UUID(int=r.getrandbits(128), version=4))
    for n in (2, 5):
        records = [[new(), new()] for _ in range(n)]
        key, gold = records[1]
        for at in range(n):
            moved = [x for x in records if x[0] != key]
            moved.insert(at, [key, gold])
            row = {"ordered_kv_records": records, "key": key, "value": gold}
            kv.append({"part": f"{n}-{at}", "row": row, "prompt": get_kv_retrieval_prompt(moved, key)})
    write("middle.json", {"answers": ANSWERS, "gold": GOLD, "scores": scores, "kv": kv, "qa": {"row": qa, "prompt": qa_prompt}})


if __name__ == "__main__":
    draws()
    suite()
    middle()

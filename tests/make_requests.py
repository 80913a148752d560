#!/usr/bin/env python3
"""Makes tests/goldens/requests: what lm-evaluation-harness asks, and Python's random numbers, for `tests/requests.rs`.

    pip install lm-eval
    python tests/make_requests.py

`random.json` needs nothing but Python. `harness.json` has the requests of the harness's own tasks on documents of our
own, written to be tricky; its tasks are loaded as they are, and only the download is replaced.
"""
import ast
import itertools
import json
import os
import random
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

HERE = Path(__file__).resolve().parent / "goldens" / "requests"


def write(name, value):
    HERE.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


SEEDS = [0, 1, 1234, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**64 - 1, "", "a", "I walked home.", "na\u00efve", "\u6cb3",
         "long " * 40]


def numbers():
    cases = []
    for seed in SEEDS:
        r = random.Random(seed)
        case = {"seed": str(seed), "text": isinstance(seed, str)}
        case["bits"] = [[k, str(r.getrandbits(k))] for k in (1, 5, 31, 32, 33, 40, 64)]
        case["unit"] = [r.random() for _ in range(4)]
        case["below"] = [[str(n), str(r._randbelow(n))] for n in (1, 2, 3, 1000, 2**32, 2**33 + 7)]
        case["between"] = [[a, b, r.randint(a, b)] for a, b in ((-3, 3), (0, 355000), (7, 7))]
        # Around where `sample` goes from a list to a set.
        pairs = [(0, 0), (1, 1), (21, 5), (22, 5), (84, 6), (85, 6), (86, 6), (12, 12), (300, 22), (7473, 6)]
        case["sample"] = [[n, k, r.sample(range(n), k)] for n, k in pairs]
        deck = list(range(20))
        r.shuffle(deck)
        case["shuffle"] = deck
        case["choices"] = [[n, r.choices(range(n), k=9)] for n in (1, 7, 1000)]
        # Past one block of the generator's state.
        for _ in range(700):
            r.random()
        case["later"] = r.random()
        cases.append(case)
    return cases


CAPITALS = ["", "he STARTS to. Go", "\u00dfa", "\ufb01n", "\u01c6x", "\u01c4X", "\u01f3", "\u0130stanbul", "\u0399\u03a3",
            "\u03b1\u03a3 \u03a3", "\u1f84x", "\u1fb3", "\u1fbc", "\u1fb2", "\u1fb7x", "\u10d0\u10d1", "\u0149a", "\u00e9COLE",
            "\u6cb3A", " a", "1ABC", "\u0587A", "\u1e96b", "\u01f0c", "\u1f50D"]
STRIPS = ["\u00a0a\u2003", "\x1ca\x1f", "\u200ba\u200b", "\x85a", "\t\n a \r\v\f", "\u180ea"]
LITERALS = ["[]", "()", "(1,)", "(1)", "{'a': [1, 2.5, -3], \"b\": (True, None)}", "'it\\'s' \"two\"", "'\\x41\\u00e9\\U0001f600\\n'",
            "[{'question': 'a  _  .', 'options': [\"b's\", 'c\"d']}, ]", " [ 1 , 2 ] \n", "'\u6cb3'"]


def strings():
    return {
        "capitalize": [[s, s.capitalize()] for s in CAPITALS],
        "strip": [[s, s.strip()] for s in STRIPS],
        "split": [[s, s.split()] for s in ["a\x1cb  c\u2003d", " ", "x"]],
        "literal": [[s, ast.literal_eval(s)] for s in LITERALS],
    }


def documents():
    """Ours, by task and split: twins of a question among its examples, white space, brackets, quotes, other scripts."""
    endings = [["[step] opens  the door .", "sings [title] Then sleeps", " waits", "a   b    c"],
               ["[title] runs", "[unclosed runs", "x]y", " [a]b"], ["one", "two [a] [b]", "three[title]", "\u6cb3 [x]"]]
    seconds = ["", "she WAITS. Then", "\u00e9T\u00c9 begins", "[step] he turns", "\u01c6eli \u0399\u03a3"]
    swag = [dict(activity_label=["Baking", " Rowing ", "[x] Tea"][i % 3], ctx_a=f"A cook [header] stirs  bowl {i} [title] How",
                 ctx_b=seconds[i % 5], endings=endings[i % 3] + endings[(i + 1) % 3][:0], label=str(i % 4)) for i in range(9)]
    gap = [dict(sentence=f"The lamp {i} was moved  from the desk as _ was too bright_ .  " if i % 2 else f"_ fell {i}.",
                option1="the lamp", option2=["the  desk", "\u6cb3", "it_"][i % 3], answer=str(1 + i % 2)) for i in range(9)]
    exam = []
    for i in range(5):
        problems = [dict(question=q, answer=a, options=[f"o{i}", "it's", 'say "x"', "a \\\\ b\\n"]) for q, a in
                    [(f"Who is {i}?", "A"), ("He thinks  _  .", "B"), ("  _  .", "C"), ("It is  _  . ", "D"),
                     ("Last  _  ." if i % 2 else "Which?", "ABCD"[i % 4])][i % 3:]]
        exam.append(dict(article=f"Article {i}.\nA line.  ", problems=repr(problems)))
    deed = [dict(activity=f"I fed {i} ducks.", baseline=[f"I fed {i} ducks.", "I fed none.", "\u6cb3"][i % 3]) for i in range(9)]
    tools = [dict(goal=f"open jar {i % 4}", sol1="  turn it", sol2="don\u2019t\n", label=i % 2) for i in range(9)]
    truth = [dict(question=f"Is {i} odd? ", mc1_targets=dict(choices=["Yes", "No"], labels=[1, 0]),
                  mc2_targets=dict(choices=["Yes", "Yes ", "No", "It's not"], labels=[1, i % 2, 0, 0])) for i in range(9)]
    counts = [dict(question=f"Ann had {i % 5}  pens, and\nlost one?  " if i % 3 else f"{i} - 1? ",
                   answer=f"She has <<{i}-1={i - 1}>>{i - 1}.\n\nSo:\n#### {i - 1},000" + "\n" * (i % 2)) for i in range(9)]
    whys = [dict(context=["Ann  fell. ", "Bo's \"cat\" ran"][i % 2], question=f"Why {i % 4}?", answerA=" To rest", answerB="It's late\n",
                 answerC="\u6cb3", label=str(1 + i % 3)) for i in range(9)]
    pairs = [dict(sentence1=f"A  lamp stood there {i % 4}. ", sentence2=["It stood.\n", "No lamp."][i % 2], label=i % 2, idx=i % 4)
             for i in range(9)]
    words = [dict(text=t) for t in ["He went to the  river", "one", " two", "ends with space ", "a\nb c\u00a0d"]]
    return {
        "hellaswag": dict(train=swag, validation=swag[4:8]),
        "winogrande": dict(train=gap, validation=gap[3:7]),
        "race": dict(test=exam),
        "ethics_utilitarianism": dict(train=deed, test=deed[2:7]),
        "piqa": dict(train=tools, validation=tools[2:7]),
        "truthfulqa_mc2": dict(validation=truth[:4]),
        "lambada_openai": dict(test=words),
        "gsm8k": dict(train=counts, test=counts[2:6]),
        "social_iqa": dict(train=whys, validation=whys[2:6]),
        "rte": dict(train=pairs, validation=pairs[3:7]),
        FIXED["task"]: dict(test=counts[2:6]),
    }


# A task of our own: examples written out in it, in words of their own.
FIXED = {
    "task": "fixed_examples",
    "dataset_path": "ours",
    "output_type": "generate_until",
    "test_split": "test",
    "description": "Sums.\n",
    "doc_to_text": "Q: {{ question }}\nA:",
    "doc_to_target": "{{ answer.split('#### ')[1].strip() }}",
    "target_delimiter": "\n",
    "fewshot_delimiter": "\n---\n",
    "fewshot_config": {
        "sampler": "first_n",
        "doc_to_text": "Q: {{ asked }}\nThinking:",
        "doc_to_target": "{{ why }} That is {{ n }}.",
        "target_delimiter": "  ",
        "samples": [
            {"asked": "One and one? ", "why": " It is\n2.", "n": 2},
            {"asked": "\"Two\"?", "why": "", "n": -7},
            {"asked": "\u6cb3?", "why": "x", "n": 10},
        ],
    },
    "generation_kwargs": {"until": ["\n"]},
    "metric_list": [{"metric": "exact_match"}],
}


def harness():
    import lm_eval
    import lm_eval.api.task as api
    from datasets import Dataset, DatasetDict
    from lm_eval.tasks import TaskManager, get_task_dict

    splits = {}

    def ours(self, dataset_kwargs=None, **_):
        self.dataset = DatasetDict({name: Dataset.from_list(rows) for name, rows in splits.items()})

    api.ConfigurableTask.download = ours
    folder = Path(tempfile.mkdtemp())
    (folder / "ours.yaml").write_text(json.dumps(FIXED))
    manager = TaskManager(include_path=str(folder))
    out = {"made_with": f"lm-eval {lm_eval.__version__}", "tasks": {}}
    for name, data in documents().items():
        splits = data
        asked = {}
        for n in (0, 2) if "truthful" in name else (0, 3) if name == FIXED["task"] else (0, 2, 4):
            task = get_task_dict([name], manager)[name]
            task.set_config(key="num_fewshot", value=n)
            task.set_fewshot_seed(seed=1234)
            task.build_all_requests(rank=0, world_size=1)
            # A context once, with all that is asked after it.
            groups = itertools.groupby(task.instances, key=lambda i: (i.doc_id, i.args[0]))
            # Of an answer that is to be written: the right one.
            after = lambda i: i.args[1] if isinstance(i.args[1], str) else task.doc_to_target(i.doc)
            asked[str(n)] = [[*key, [after(i) for i in group]] for key, group in groups]
        items = data.get("test") or data["validation"]
        pool = FIXED["fewshot_config"]["samples"] if name == FIXED["task"] else data.get("train")
        out["tasks"][name] = {"items": items, "pool": pool, "asked": asked}
    return out


if __name__ == "__main__":
    write("random.json", {"numbers": numbers(), "strings": strings()})
    try:
        import lm_eval  # noqa: F401
    except ImportError as e:
        raise SystemExit(f"harness.json is left as it is: {e}")
    write("harness.json", harness())

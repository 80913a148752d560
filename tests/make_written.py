#!/usr/bin/env python3
"""Makes tests/goldens/written: what OpenCompass and qllm-eval ask, and what OpenCompass's scorers make of answers, for
`tests/written.rs`.

    python tests/make_written.py OPENCOMPASS QLLM_EVAL

Both are clones. OpenCompass is read as it stood in February 2024, when "Evaluating Quantized Large Language Models" used
it; of its files only prompts and scoring functions are taken, so nothing of it need be installed. Documents and answers
are our own. Of a prompt the sha256 is kept: some hold examples of a page's length.
"""
import ast
import hashlib
import json
import re
import string
import subprocess
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent / "goldens" / "written"
BEFORE = "2024-02-01"


def text_of(repo, path, before=None):
    git = ["git", "-C", repo]
    commit = "HEAD"
    if before:
        log = [*git, "log", "-1", f"--before={before}", "--format=%H"]
        commit = subprocess.run(log, check=True, capture_output=True, text=True).stdout.strip()
    return subprocess.run([*git, "show", f"{commit}:{path}"], check=True, capture_output=True, text=True).stdout


def functions(source, *names):
    """Functions of a file by name, without what decorates them, and a class's `score`."""
    found = {"re": re, "string": string, "Optional": None, "Union": None, "Callable": None}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            node.decorator_list = []
            exec(compile(ast.Module([node], []), "it", "exec"), found)
    return found


def rounds(source):
    """What a config's prompt says, turn by turn: without a chat template a line each."""
    turns = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dict":
            keys = {k.arg: k.value for k in node.keywords}
            if "role" in keys and "prompt" in keys:
                turns.append((node.lineno, ast.literal_eval(keys["prompt"])))
    return "\n".join(text for _, text in sorted(turns))


def filled(prompt, row):
    for key, value in row.items():
        prompt = prompt.replace("{" + key + "}", str(value))
    return hashlib.sha256(prompt.encode()).hexdigest()


NUMBERS = [
    "He has 3 + 4 = 7.\nThe answer is 7\n\nQuestion: 12?",
    "So it is $1,300.50.",
    "-5",
    "x=12/4=3 apples",
    "The answer is\n42",
    "no digits",
    "",
    "\n\n7",
    "4.\n",
    "first 1 then\t2 3b4 end",
    "7th of 8 ",
    "It is 10 000",
]

WORDS = [
    "Hamsters are prey.\nSo the answer is yes\n",
    "So the answer is no\n\nQuestion: x? So the answer is yes",
    "The answer is not known. So the answer is Yes.",
    "The answer is yes. No, wait: the answer is maybe",
    "Nobody knows",
    "YES",
    "the answer is ",
    "The answer is yes. So the answer is ",
    "",
    "\n\nyes",
    "Thus, it floats.",
    "I know eyes; yesterday",
    "the Answer is no and yes",
]

ENDS = [  # answer, right word
    (" river.", "river"),
    ("\n\nriver", "river"),
    ("River", "river"),
    ("the river", "the"),
    ("a", "the"),
    ("it's late", "it"),
    ("it's late", "it's"),
    ("rivers", "river"),
    ("river\nbank", "river"),
    ("river-bank", "river"),
    ("", "river"),
    ("...", ""),
    (" caf\u00e9!", "caf\u00e9"),
    ("\u00abriver\u00bb now", "river"),
    ("back\\slash", "backslash"),
    ("tab\tbed here", "tab bed"),
    ("mr.", "mr."),
    ("\u2014river", "river"),
    ("under_score", "under"),
]

OPTIONS = [
    "A", "B.", "C. no", " A. yes", "(B) no", "The answer is B. no", "The correct answer is A. The answer is B.",
    "The answer is option C", "the answer to the question is B", "Answer: A", "I would say yes.", "", "B: because A",
    "1. B", "1. yes\n2. A", "1 A or B", "So,A", "AB", "BANANA", "Because: B", "Both A and C are.", "yes (A)", "maybe\nB\n",
    "C\n", "A B C", "The answer is a", "It is B$ or A.", "10 B", "no.\n\nA. yes", "-A-", "x C", "1", "21 ABBA 1C",
    "The correct answer is option B, not A", "B, A.", "A?", "CAB: B:", "Answer\tC\tB.",
]


def main(opencompass, qllm):
    def oc(path):
        return text_of(opencompass, path, BEFORE)

    post = oc("opencompass/utils/text_postprocessors.py")
    number = functions(oc("opencompass/datasets/gsm8k.py"), "gsm8k_postprocess")["gsm8k_postprocess"]
    word = functions(oc("opencompass/datasets/strategyqa.py"), "strategyqa_pred_postprocess")["strategyqa_pred_postprocess"]
    option = functions(post, "first_option_postprocess")["first_option_postprocess"]
    ends = functions(oc("opencompass/datasets/lambada.py"), "score")
    ends.update(functions(post, "general_postprocess"))
    scores = {
        "gsm8k_opencompass": [[a, number(a)] for a in NUMBERS],
        "strategyqa": [[a, word(a)] for a in WORDS],
        "lambada_generated": [[a, g, ends["score"](None, [a], [g])["accuracy"] == 100.0] for a, g in ENDS],
        "options": {o: [[a, option(a, options=o)] for a in OPTIONS] for o in ("AB", "ABC")},
    }
    config = "configs/datasets/"
    ours = {
        "gsm8k_opencompass": (config + "gsm8k/gsm8k_gen_1d7fe4.py", {"question": "Ann has 2  pens?  ", "answer": "1,2\n#### 1,234"}),
        "strategyqa": (config + "strategyqa/strategyqa_gen_1180a7.py", {"question": "Is \"snow\" black?", "answer": False}),
        "lambada_generated": (config + "lambada/lambada_gen_217e11.py", {"text": "He went to the  river"}),
    }
    pair = {"label": 1, "original_premise": "A lamp  stood.", "original_hypothesis": None}
    attacks = {
        "sst2": {"sentence": "it 's awfull", "original_sentence": "it 's awful", "label": 0},
        "qqp": {"question1": "Who?", "question2": "What?", "original_question2": "Who ?", "label": 1},
        "mnli": {"premise": "A lapm stood.", "hypothesis": "It fell. ", **pair},
        "mnli_mm": {"premise": "A lapm  stood.", "hypothesis": "It fell.", **pair},
        "qnli": {"question": "Who \"is\" it?", "sentence": "It 's me .", "original_sentence": "It is me.", "label": 1},
        "rte": {"sentence1": "One.", "sentence2": "Two?", "original_sentence1": "Won.", "label": 0},
    }
    asked = {}
    for name, (path, row) in ours.items():
        seen = dict(row, prompt=" ".join(row["text"].split(" ")[:-1])) if "text" in row else row
        asked[name] = {"row": row, "prompt": filled(rounds(oc(path)), seen)}
    for name, row in attacks.items():
        path = f"{config}adv_glue/adv_glue_{name}/"
        path += {"sst2": "adv_glue_sst2_gen_ee8d3b.py", "qqp": "adv_glue_qqp_gen_cdc277.py",
                 "qnli": "adv_glue_qnli_gen_0b7326.py", "rte": "adv_glue_rte_gen_8cc547.py"}.get(name, f"adv_glue_{name}_gen_bd8ef0.py")
        was = dict(row)
        for key, value in row.items():
            if key.startswith("original_") and value:
                was[key.removeprefix("original_")] = value
        prompt = rounds(oc(path))
        asked[f"advglue_{name}"] = {"row": row, "prompt": filled(prompt, row), "before": filled(prompt, was),
                                    "gold": chr(ord("A") + row["label"])}
    prompt = functions(text_of(qllm, "qllm_eval/evaluation/q_ethic/main.py"), "get_qa_prompt")["get_qa_prompt"]
    deeds = {
        "cm": ("commonsense", {"input": "I fed  the ducks.", "label": 0}),
        "deontology": ("deontology", {"scenario": "Why \"not\"?", "excuse": "I slept. \n", "label": 1}),
        "justice": ("justice", {"scenario": "I {fed} them.", "label": 0}),
        "virtue": ("virtue", {"scenario": "Bo gave all.", "trait": "kind", "label": 1}),
    }
    answers = {"commonsense": ["no", "yes"], "virtue": ["no", "yes"]}
    for name, (task, row) in deeds.items():
        asked[f"ethics_{name}_generated"] = {
            "row": row, "prompt": hashlib.sha256(prompt(row, task).encode()).hexdigest(),
            "gold": answers.get(task, ["unreasonable", "reasonable"])[row["label"]],
        }
    idiom = {"content": "\u6cb3#idiom#\u3002#idiom#", "candidates": ["\u4e00", "\u4e8c", "\u4e09", "\u56db", "\u4e94", "\u516d", "\u4e03"], "answer": 4}
    # Its template stands in a loop over seven options.
    turns = re.findall(r"""prompt=f?['"](.*?)['"]\)""", oc(config + "FewCLUE_chid/FewCLUE_chid_ppl_8f2872.py"))
    turns = [t.replace("\\n", "\n") for t in turns]
    chid = [turns[0].replace("{{content{i}}}", idiom["content"].replace("#idiom#", c)) for c in idiom["candidates"]]
    asked["chid"] = {"row": idiom, "prompts": chid, "after": "\n" + turns[1]}
    OUT.mkdir(parents=True, exist_ok=True)
    out = json.dumps({"scores": scores, "asked": asked}, ensure_ascii=False, indent=1, sort_keys=True)
    (OUT / "study.json").write_text(out + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])

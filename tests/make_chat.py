#!/usr/bin/env python3
"""Makes `tests/goldens/chat/chat.json`: what transformers' `apply_chat_template` makes of templates and conversations.

    pip install torch transformers jinja2
    python tests/make_chat.py [FOLDER of tokenizers]

The templates in `goldens/chat/*.jinja` are written for this test. Each uses, in its own format, what a family of published
templates uses. With a folder of real tokenizers, hashes of what their own templates give are added; without one, those that
are there stay.
"""

import datetime
import hashlib
import json
import sys
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

OUT = Path(__file__).resolve().parent / "goldens" / "chat"
DATE = datetime.datetime(2025, 3, 9)


class Frozen(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return DATE


chat_template_utils.datetime = Frozen

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def turns(*said, system=None):
    roles = ["user", "assistant"]
    out = [{"role": "system", "content": system}] if system is not None else []
    return out + [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]


CONVERSATIONS = {
    "one": turns("How many legs has a spider?"),
    "three": turns("Hello", "Good day. What is it?", "A question"),
    "system": turns("Hello", system="Answer in one word."),
    "system and three": turns("Hello", "Yes", "Why?", system="  Answer in one word.\n"),
    "answered": turns("2 + 2?", "4"),
    "unicode": turns("Größe? 你好 🙂 e\u0301 \u00a0\u2028x", "naïve — “ok”", "\ufeffend", system="Ünï"),
    "empty": turns("", "", ""),
    "empty system": turns("x", system=""),
    "white space": turns("  a  b \n\n", "\t c\r\n", "\x1c d \x1f\x0b"),
    "markup": turns("<b>&amp; {{ x }} {% if %} 'q' \"d\" \\ \\n", "</s><s>[/INST]", "<think>no</think>"),
    "thought": turns("Why?", "<think>\nBecause of that.\n</think>\n\nSo.", "And?"),
    "two of the user": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "assistant first": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}],
    "system last": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}],
    "another role": [{"role": "user", "content": "a"}, {"role": "tool", "content": "{\"b\": 1}"}],
    "long": turns(*[f"turn {i} " * (i + 1) for i in range(9)], system="Long."),
}


def tokenizer(template, special):
    words = {t: i for i, t in enumerate(dict.fromkeys(["<unk>", *special.values()]))}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    made.chat_template = template
    return made


def rendered(template, special):
    made = tokenizer(template, special)
    out = []
    for name, messages in CONVERSATIONS.items():
        for prompt in (False, True):
            case = {"conversation": name, "prompt": prompt}
            try:
                case["text"] = made.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            except Exception as e:
                case["error"] = str(e)
            out.append(case)
    return out


def main():
    path = OUT / "chat.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    ours = {}
    for file in sorted(OUT.glob("*.jinja")):
        ours[file.stem] = rendered(file.read_text(), SPECIAL)
        fine = sum("text" in case for case in ours[file.stem])
        print(f"{file.stem}: {fine} of {len(ours[file.stem])} rendered", {c.get("error", "")[:60] for c in ours[file.stem]})
        assert fine >= 6, file
    shared = before.get("shared", {})
    for folder in sorted(Path(sys.argv[1]).iterdir()) if len(sys.argv) > 1 else []:
        config = folder / "tokenizer_config.json"
        if not config.exists():
            continue
        config = json.loads(config.read_text())
        if config.get("chat_template") is None:
            continue
        special = {k: v for k, v in config.items() if k in [*SPECIAL, "sep_token", "cls_token", "mask_token"]}
        shared[folder.name] = []
        for case in rendered(config["chat_template"], {k: v for k, v in special.items() if isinstance(v, str)}):
            case["sha256"] = hashlib.sha256(case.pop("text").encode()).hexdigest()
            shared[folder.name].append(case)
    made = {
        "transformers": transformers.__version__,
        "date": [DATE.year, DATE.month, DATE.day],
        "special": SPECIAL,
        "conversations": CONVERSATIONS,
        "ours": ours,
        "shared": shared,
    }
    path.write_text(json.dumps(made, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()

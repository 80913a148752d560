#!/usr/bin/env python3
"""Makes tests/goldens/generate/*.json for `tests/generate.rs`.

    pip install torch transformers lm_eval
    python tests/make_generate.py

`tokens.json`: what transformers' own greedy `generate` writes on some of the families' fixtures, and how sure it was:
the least distance between the likeliest token and the next, so that no golden hangs on a rounding.
`answers.json`: what lm-evaluation-harness's `generate_until` makes of prompts on `fixtures/scores/model`, stop texts
across tokens and prompts that are too long among them.
"""
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import make

OUT = Path(__file__).resolve().parent / "goldens" / "generate"
FIXTURES = [
    "llama/gqa-tied", "mistral/window", "gemma2/2b", "bloom/heads-6", "opt/350m", "gpt2/plain", "mamba/130m-hf",
    "mixtral/8x7b",
]
MARGIN = 1e-3

PROMPTS = [
    "The cat sat on the",
    "The cat sat on the ",
    "Where does the river end?\n",
    "caf\u00e9 \u6cb3",
    "count to twelve, " * 20 + "said the",
    "Name the drink",
]


def tokens():
    out = {}
    for name in FIXTURES:
        folder = make.FIXTURES / name
        if not folder.exists():
            print("no fixture", name)
            continue
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **make.EAGER).eval()
        all_tokens = load_file(folder / "expected.safetensors")["tokens"].tolist()
        cases = []
        for prompt in (all_tokens[:3], all_tokens[1:2], all_tokens[2:9]):
            with torch.no_grad():
                made = model.generate(
                    torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                    max_new_tokens=12, do_sample=False, num_beams=1, eos_token_id=None, pad_token_id=0,
                    output_scores=True, return_dict_in_generate=True,
                )
            margin = min((s[0].topk(2).values[0] - s[0].topk(2).values[1]).item() for s in made.scores)
            written = made.sequences[0, len(prompt):].tolist()
            print(f"{name:20} {len(prompt)} margin {margin:.1e} {written}")
            if margin > MARGIN:
                cases.append({"prompt": prompt, "want": written})
        assert cases, name
        out[name] = cases
    return out


def answers():
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=str(make.FIXTURES / "scores" / "model"), dtype="float32", batch_size=1, device="cpu")

    def ask(prompt, stop, limit):
        kwargs = {"until": list(stop), "max_gen_toks": limit, "do_sample": False}
        return lm.generate_until([Instance("generate_until", {}, (prompt, kwargs), 0)], disable_tqdm=True)[0]

    cases = []
    for prompt in PROMPTS:
        whole = ask(prompt, [], 16)
        cases.append({"prompt": prompt, "stop": [], "limit": 16, "want": whole})
        # Stop texts taken from the answer itself: of every length, so that some begin and end inside tokens.
        for at, n in [(3, 2), (5, 4), (2, 7), (8, 1)]:
            stop = whole[at:at + n]
            if stop and "\ufffd" not in stop:
                stops = [stop, "never there", whole[at + 1:at + 3] or "x"]
                cases.append({"prompt": prompt, "stop": stops, "limit": 16, "want": ask(prompt, stops, 16)})
    return cases


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    import lm_eval

    versions = {"transformers": transformers.__version__, "torch": torch.__version__, "lm_eval": lm_eval.__version__}
    for name, made in (("tokens", tokens()), ("answers", answers())):
        text = json.dumps({"versions": versions, name: made}, indent=None, ensure_ascii=True)
        (OUT / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes tests/fixtures/scores: what lm-evaluation-harness gives on a tiny random LLaMA, for `tests/scores.rs`.

    pip install torch transformers lm-eval
    python tests/make_scores.py

The questions and texts are our own, chosen for the traps of tokenization: white space at a prompt's end, an ending that
merges with its prompt, an empty prompt, a prompt longer than the context, characters of several bytes. Two profiles:
what the tokenizer itself adds (the harness since 0.4.9.2), and nothing (`add_bos_token=False`, as up to 0.4.9.1).
"""
import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import make

HERE = make.FIXTURES / "scores"
MODEL = HERE / "model"
CONTEXT = 48

CORPUS = [
    "The cat sat on the mat and the dog ran to the old mill by the river.",
    "Which of the two is heavier, a stone or a feather? A stone is heavier.",
    "She said: no, the answer is not there; look again, and count to twelve.",
    "In the morning the baker opens his shop, and in the evening he closes it.",
    "Where does the river end? It ends in the sea, said the old man.",
] * 4

QUESTIONS = [  # prompt, delimiter, endings, gold
    ("The cat sat on the", " ", ["mat", "river", "sea"], 0),
    ("The cat sat on the ", "", ["mat", "river", "old mill"], 1),
    ("Where does the river end?\n", "", ["It ends in the sea", "In the mill"], 0),
    ("A stone is  ", " ", ["heavier", "a feather"], 1),
    ("", " ", ["the dog", "the cat", "a stone", "no"], 2),
    ("", "", ["<s>the dog", "the cat"], 1),
    ("The dog", " ", ["  ran", "ran"], 0),
    ("The ans", "", ["wer is no", "wer"], 1),
    ("Name the drink", " ", ["caf\u00e9", "coffee", "th\u00e9"], 0),
    ("\u6cb3", "", ["\u6d41\u5165\u5927\u6d77", "\u6d41", "sea"], 0),
    ("Smile", " ", ["\U0001f600\U0001f680", "no", "\U0001f600"], 2),
    ("count to twelve, " * 20 + "said the", " ", ["baker", "old man", "cat sat on the mat"], 1),
    ("In the evening he", " ", ["closes", "closes it", "closes it again", "ends", "opens"], 1),
    ("look again\u00a0", " ", ["and count", "no"], 0),
]

TEXTS = [
    "a",
    "The cat sat on the mat.",
    "  two spaces first, and a newline last\n",
    "In the morning the baker opens his shop, and in the evening he closes it. " * 6,
    "caf\u00e9 \u6cb3\u6d41 \U0001f600 the old man",
    "count to twelve, count to twelve; \n\n no, look again. " * 3,
]


def tokenizer():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tok.train_from_iterator(CORPUS, trainer)
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tok.save(str(MODEL / "tokenizer.json"))
    keys = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "model_max_length": CONTEXT}
    (MODEL / "tokenizer_config.json").write_text(json.dumps(keys, indent=1) + "\n")
    return tok.get_vocab_size()


def model(vocab):
    config = make.llama(vocab_size=vocab, max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=1)
    (MODEL / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    built = make.build(config)
    make.fill(built, "scores", torch.float32)
    tensors = {n: t.contiguous() for n, t in built.state_dict().items()}
    if config.get("tie_word_embeddings"):
        tensors.pop("lm_head.weight", None)
    make.save_file(tensors, MODEL / "model.safetensors", metadata={"format": "pt"})


def main():
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    import lm_eval

    MODEL.mkdir(parents=True, exist_ok=True)
    model(tokenizer())
    out = {"versions": {"lm_eval": lm_eval.__version__, "transformers": transformers.__version__, "torch": torch.__version__}}
    out["questions"] = [dict(zip(("prompt", "delimiter", "endings", "gold"), q)) for q in QUESTIONS]
    out["texts"] = TEXTS
    for profile, bos in [("lm-eval-0.4.9.2", None), ("lm-eval-0.4.0", False)]:
        lm = HFLM(pretrained=str(MODEL), dtype="float32", batch_size=1, device="cpu", **({} if bos is None else {"add_bos_token": bos}))
        requests = [(p, d + e) for p, d, endings, _ in QUESTIONS for e in endings]
        scores = lm.loglikelihood([Instance("loglikelihood", {}, r, i) for i, r in enumerate(requests)], disable_tqdm=True)
        rolled = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (t,), i) for i, t in enumerate(TEXTS)], disable_tqdm=True)
        scores = iter(scores)
        choice = [[list(next(scores)) for _ in endings] for _, _, endings, _ in QUESTIONS]
        out[profile] = {"choice": choice, "rolling": rolled}
        print(profile, "max_length", lm.max_length, "prefix", lm.prefix_token_id)
    (HERE / "expected.json").write_text(json.dumps(out, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()

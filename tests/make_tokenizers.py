#!/usr/bin/env python3
"""Makes what `tests/tokenizers.rs` holds `src/model/tokenizer/` to: tiny tokenizers and their originals' ids.

    tests/goldens/tokenizers/
        *.model            sentencepiece models, trained on the text below
        vocab.json, merges.txt            byte-level BPE, trained on the same text
        texts.json         what is encoded
        cases.json         a case: its vocabulary's files, its settings' files, the ids of every text
        shared.json        models that are not ours, by their path in ../shared: sha256 of the ids (u32, little-endian)
                           of whole files, of texts.json's texts, and of the merges (a line each) that transformers
                           derives

Run (some seconds on one core, no network):

    pip install sentencepiece protobuf 'transformers==4.57.*'
    python tests/make_tokenizers.py

transformers 5 has no Python tokenizers any more, so 4.57 is the reference. Ids are those of the *Python* ("slow")
tokenizer of a class, which calls sentencepiece, but for `legacy = false` and `add_prefix_space`, where the fast one,
which is what `AutoTokenizer` gives, treats a text that begins with a space in another way. Where the two differ
although both were asked, the script prints the text.
"""

import hashlib
import io
import json
import os
import struct
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AddedToken,
    AutoTokenizer,
    GemmaTokenizer,
    GemmaTokenizerFast,
    GPT2Tokenizer,
    GPT2TokenizerFast,
    LlamaTokenizer,
    LlamaTokenizerFast,
    PreTrainedTokenizer,
    Qwen2Tokenizer,
    Qwen2TokenizerFast,
)

OUT = Path(__file__).resolve().parent / "goldens" / "tokenizers"
SHARED = Path(__file__).resolve().parents[2] / "shared"

# What the models are trained on. Ours, and plain.
CORPUS = """
The bit width is small and the model is large. The weights are rounded, and the rounding costs something.
How much does it cost? That is what we measure, again and again, in every model and at every width.
She sells seashells by the seashore; the shells she sells are surely seashells, I'm sure. It isn't so.
In 2024 there were 1024 layers, 4096 rows and 65536 numbers: 3.14159, 2.71828, 1,000,000.
A small boat on a small lake in the small hours of the night. The night was dark and the boat was light.
def measure(model, width=4):\n    for layer in model.layers:\n        layer.round(width)\n    return model.score()
if (x == 0) { return 1; } else { return x * factorial(x - 1); }\n\treturn 0;\n\n\n
for i in range(10):\n\tprint(i, end=\" \")\n\nclass Grid:\n    pass\n
Größe und Länge der Brücke überraschen; die Straße führt über den Fluß. Äpfel, Öl und Übermut.
Les élèves français mangent où l'été est passé; ça a été très agréable, n'est-ce pas, à côté de la forêt.
El niño pequeño comió una manzana en la montaña mañana por la mañana. ¿Qué año es? ¡Señor!
Zażółć gęślą jaźń. Příliš žluťoučký kůň úpěl ďábelské ódy. Łódź, Kraków, Wrocław.
Маленькая лодка плывёт по большой реке. Сколько стоит округление весов модели? Мы измеряем это снова и снова.
今天的天气很好,我们去公园散步。模型的权重被量化为四位整数,精度下降了多少?我们来测量。
量化的代价是什么?小模型和大模型不同。今天天气好,明天天气也好。
今日は天気がいいので、公園を散歩しましょう。モデルの重みを四ビットに丸めると、どれだけ精度が落ちますか。
カタカナとひらがなと漢字。東京タワーは高いです。猫が好きです。
오늘은 날씨가 좋아서 공원을 산책합니다. 모델의 가중치를 네 비트로 양자화하면 정확도가 얼마나 떨어집니까?
الطقس جميل اليوم ونحن نمشي في الحديقة. كم تكلف عملية التقريب؟ نقيس ذلك مرة بعد مرة.
आज मौसम अच्छा है और हम बगीचे में टहलते हैं। मॉडल के भार को गोल करने की कीमत क्या है?
วันนี้อากาศดี เราไปเดินเล่นในสวน น้ำหนักของโมเดลถูกปัดเศษ
היום מזג האוויר נעים. כמה עולה העיגול? Σήμερα ο καιρός είναι καλός.
😀 😀 👍 👍🏽 ❤️ 🎉 👩‍💻 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 🇯🇵 → ← ≤ ≥ ± × ÷ ∑ √ ∞
== Title == \n = = Section = = \n @-@ @,@ <unk> the end . \n
""".replace("\\n", "\n")

TEXTS = [
    "",
    " ",
    "   ",
    "\n",
    "a",
    "The bit width is small.",
    " The bit  width   is    small. ",
    "      seven spaces       and then some        ",
    "I'm sure it's NOT so, they've said; we'll see what you'd do: don't.",
    "In 2025, 10,000 numbers: -3.14e-10, 0xFF, 1/2, 99.9%.",
    "def f(x):\n    if x:\n\t\treturn x ** 2\n\n\n    return None  # done\r\n",
    "\tx\t\ty\t\t\tz",
    "Straße, Größe, ÄÖÜ; où l'été, ça; ¿mañana? Zażółć gęślą jaźń.",
    "e\u0301te\u0301 and u\u0308ber, n\u0303; ﬁne ½ ① Ａ１ ™ … №",
    "Маленькая лодка, ЁЛКА и ёжик.",
    "今天天气很好。量化的代价是什么?龘",
    "今日は公園を散歩しました。ｶﾀｶﾅ ヷ",
    "오늘은 날씨가 좋습니다. 뷁",
    "كم تكلف العملية؟ ١٢٣ السَّلَامُ",
    "आज मौसम कैसा है? क्षत्रिय १२३",
    "วันนี้อากาศดี น้ำ กำลัง",
    "היום Σήμερα ქართული አማርኛ",
    "👩‍💻👨‍👩‍👧‍👦 🏳️‍🌈🇩🇪 👍🏽❤️ 🫠",
    "a\u0000b\u0001c\u0007d\u001b[0m\u007f",
    "nb\u00a0sp thin\u2009sp zero\u200bwidth \u200fRTL\u200e \ufeffBOM \u3000wide \u2028line",
    "\u2581literal \u2581\u2581 sign\u2581",
    "\U000e0001\ufffd\ufffe\uffff private \ue000",
    "a <s> b</s>c <unk> <s>",
    "<s>The end</s>",
    "aaaa aaaaaaa ======= ----- !!!!??? ....",
    "<sep>one<sep> two <sep>three<mark><mark>><",
    "philosophy [gMASK]sop<|user|>\n hi <|assistant|>",
    "<|endoftext|>new text<|endoftext|> and <0x0A> <pad>",
    "<new>word <new> word<NEW>",
    "http://a.b/c?d=e&f=%20#g user@host C:\\dir\\file.txt",
    "x\n\ny\n\n\n\nz \n \n",
    "seashellsseashellssmallsmallnightlightmodelmodels",
]


def train(name, **options):
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as dir:
        if "rules" in options:
            tsv = Path(dir) / "rules.tsv"
            tsv.write_text("".join(
                " ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n"
                for a, b in options.pop("rules").items()
            ))
            options["normalization_rule_tsv"] = str(tsv)
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS.split("\n") * 3), model_writer=model, minloglevel=2,
            num_threads=1, hard_vocab_limit=False, **options,
        )
    proto = pb.ModelProto.FromString(model.getvalue())
    # Machine paths and options that only a trainer reads are of no use here.
    spec = pb.TrainerSpec()
    ids = ("unk_id", "bos_id", "eos_id", "pad_id")
    for key in ("model_type", "byte_fallback", "unk_piece", "bos_piece", "eos_piece", *ids):
        setattr(spec, key, getattr(proto.trainer_spec, key))
    proto.trainer_spec.CopyFrom(spec)
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    (OUT / name).write_bytes(proto.SerializeToString())


class ChatGLM(PreTrainedTokenizer):
    """What remote code of ChatGLM2 and 3 does, in our words: sentencepiece, tokens behind it, two before a text."""

    SPECIAL = [
        "[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    ]

    def __init__(self, vocab_file, **keys):
        self.sp = spm.SentencePieceProcessor(model_file=str(vocab_file))
        self.behind = {token: self.sp.get_piece_size() + i for i, token in enumerate(self.SPECIAL)}
        super().__init__(**keys)

    @property
    def vocab_size(self):
        return self.sp.get_piece_size() + len(self.behind)

    def get_vocab(self):
        return {self.sp.id_to_piece(i): i for i in range(self.sp.get_piece_size())} | self.behind

    def _tokenize(self, text):
        return self.sp.encode(text, out_type=str)

    def _convert_token_to_id(self, token):
        return self.behind[token] if token in self.behind else self.sp.piece_to_id(token)

    def _convert_id_to_token(self, id):
        return self.sp.id_to_piece(id)

    def build_inputs_with_special_tokens(self, ids, _=None):
        return [self.behind["[gMASK]"], self.behind["sop"]] + ids


class Bare:
    """sentencepiece and nothing else."""

    def __init__(self, file):
        self.sp = spm.SentencePieceProcessor(model_file=str(file))

    def encode(self, text):
        return self.sp.encode(text)


CASES = []


def case(name, files, original, other=None, skip=(), **settings):
    """`files`: by the name that a repository has. `other`: a second tokenizer that should agree, but for `skip`."""
    ids = []
    for text in TEXTS:
        if text in skip:
            ids.append(None)
            continue
        ids.append(original.encode(text))
        if other is not None and (b := other.encode(text)) != ids[-1]:
            print(f"{name}: {text!r}\n    kept  {ids[-1]}\n    other {b}")
    CASES.append({"name": name, "files": files, "settings": {k + ".json": v for k, v in settings.items()}, "ids": ids})


def loaded(slow, fast, files, **settings):
    """Both tokenizers of a class, from a folder such as a repository is."""
    with tempfile.TemporaryDirectory() as dir:
        for name, source in files.items():
            (Path(dir) / name).write_bytes((OUT / source).read_bytes())
        for name, value in settings.items():
            (Path(dir) / f"{name}.json").write_text(json.dumps(value))
        return slow.from_pretrained(dir), fast.from_pretrained(dir)


def token(content, special=True, **flags):
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False} | flags
    return {"content": content, "special": special, **flags}


def make():
    OUT.mkdir(parents=True, exist_ok=True)
    llama = dict(
        normalization_rule_name="identity", remove_extra_whitespaces=False, byte_fallback=True, split_digits=True,
        allow_whitespace_only_pieces=True, character_coverage=0.98,
    )
    train("llama.model", model_type="bpe", vocab_size=820, **llama)
    train(
        "gemma.model", model_type="bpe", vocab_size=820, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
        pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
        user_defined_symbols=["<mask>", "\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "▁▁▁▁", "<sep>"], **llama,
    )
    train(
        "symbols.model", model_type="bpe", vocab_size=720, control_symbols=["<mark>"],
        user_defined_symbols=["<sep>", "\t", "▁▁", "the", "small"], **llama,
    )
    rules = {
        "\t": " ", "\n": " ", "\u00a0": " ", "\u3000": " ", "\u200b": "", "e\u0301": "é", "u\u0308": "ü",
        "ﬁ": "fi", "½": "1/2", "①": "1", "Ａ": "A", "１": "1", "™": "TM", "…": "...", "ｶ": "カ", "ﾀ": "タ", "ﾅ": "ナ",
    }
    train("unigram.model", model_type="unigram", vocab_size=560, character_coverage=0.98, rules=rules,
          user_defined_symbols=["<sep>", "\t\t", "Ａ１"])
    train("unigram-bytes.model", model_type="unigram", vocab_size=800, add_dummy_prefix=False, **llama)
    bytes_ = ByteLevelBPETokenizer()
    bytes_.train_from_iterator([CORPUS] * 3, vocab_size=620, show_progress=False,
                               special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<|endoftext|>"])
    bytes_.save_model(str(OUT))

    files = {"tokenizer.model": "llama.model"}
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    pair = loaded(LlamaTokenizer, LlamaTokenizerFast, files, tokenizer_config=config)
    case("llama", files, *pair, tokenizer_config=config)
    case("llama without settings", files, *pair)
    first = {"tokenizer_class": "LLaMATokenizer", "bos_token": "", "eos_token": "", "unk_token": ""}
    case("llama, its first conversion", files, *pair, tokenizer_config=first)
    ends = config | {"add_bos_token": False, "add_eos_token": True}
    case("llama, EOS for BOS", files, *loaded(LlamaTokenizer, LlamaTokenizerFast, files, tokenizer_config=ends),
         tokenizer_config=ends)
    first = config | {"legacy": False}
    slow, fast = loaded(LlamaTokenizer, LlamaTokenizerFast, files, tokenizer_config=first)
    case("llama, legacy = false", files, fast, tokenizer_config=first)
    n = slow.vocab_size
    added = config | {
        "pad_token": "<pad>",
        "added_tokens_decoder": {
            "0": token("<unk>"), "1": token("<s>"), "2": token("</s>", rstrip=True),
            str(n): token("<new>", special=False, lstrip=True), str(n + 1): token("<pad>"),
        },
    }
    case("llama, added tokens", files, *loaded(LlamaTokenizer, LlamaTokenizerFast, files, tokenizer_config=added),
         tokenizer_config=added)
    older = {
        "tokenizer_config": {"tokenizer_class": "LlamaTokenizer"},
        "special_tokens_map": {"bos_token": token("<s>"), "pad_token": "<pad>", "unk_token": token("<unk>")},
        "added_tokens": {"<pad>": n},
    }
    pair = loaded(LlamaTokenizer, LlamaTokenizerFast, files, **older)
    case("llama, added tokens, older files", files, *pair, **older)

    files = {"tokenizer.model": "gemma.model"}
    config = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>",
              "pad_token": "<pad>"}
    case("gemma", files, *loaded(GemmaTokenizer, GemmaTokenizerFast, files, tokenizer_config=config),
         tokenizer_config=config)

    bare = {"tokenizer_config": {"tokenizer_class": "OwnTokenizer", "add_bos_token": False}}
    special = {text for text in TEXTS if any(t in text for t in ("<s>", "</s>", "<unk>", "<mark>"))}
    for name in ("symbols", "unigram", "unigram-bytes"):
        file = f"{name}.model"
        # Two ways in which `tokenizers` differs from sentencepiece in a Unigram model: it finds bytes by their names
        # in text, and adds scores in f64, not f32, which decides between splits of equal score (one space and three).
        odd = {text for text in TEXTS if name == "unigram-bytes" and ("<0x0A>" in text or "seven spaces" in text)}
        case(name, {"tokenizer.model": file}, Bare(OUT / file), skip=special | odd, **bare)

    files = {"tokenizer.model": "llama.model"}
    config = {"tokenizer_class": "ChatGLMTokenizer", "auto_map": {"AutoTokenizer": ["x.ChatGLMTokenizer", None]}}
    case("chatglm2", files, ChatGLM(OUT / "llama.model"), tokenizer_config=config)
    declared = {
        str(n + 1): token("[gMASK]", special=False, normalized=True),
        str(n + 3): token("sop", special=False, normalized=True),
        str(n + 6): token("<|user|>", special=False, normalized=True),
    }
    keys = {int(i): AddedToken(**t) for i, t in declared.items()}
    case("chatglm3", files, ChatGLM(OUT / "llama.model", added_tokens_decoder=keys),
         tokenizer_config=config | {"added_tokens_decoder": declared})

    files = {"vocab.json": "vocab.json", "merges.txt": "merges.txt"}
    config = {"tokenizer_class": "GPT2Tokenizer"}
    case("gpt2", files, *loaded(GPT2Tokenizer, GPT2TokenizerFast, files, tokenizer_config=config),
         tokenizer_config=config)
    opt = {
        "tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": False, "errors": "replace",
        "bos_token": {"__type": "AddedToken", **token("</s>", normalized=True)},
        "eos_token": {"__type": "AddedToken", **token("</s>", normalized=True)},
        "unk_token": {"__type": "AddedToken", **token("</s>", normalized=True)},
        "pad_token": {"__type": "AddedToken", **token("<pad>", normalized=True)},
    }
    case("opt", files, *loaded(GPT2Tokenizer, GPT2TokenizerFast, files, tokenizer_config=opt), tokenizer_config=opt)
    spaced = config | {"add_prefix_space": True}
    _, fast = loaded(GPT2Tokenizer, GPT2TokenizerFast, files, tokenizer_config=spaced)
    case("gpt2, add_prefix_space", files, fast, tokenizer_config=spaced)
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    case("qwen2", files, *loaded(Qwen2Tokenizer, Qwen2TokenizerFast, files, tokenizer_config=config),
         tokenizer_config=config)

    def dump(name, value, indent=None):
        (OUT / name).write_text(json.dumps(value, ensure_ascii=True, indent=indent, separators=(",", ":")) + "\n")

    dump("texts.json", TEXTS, 0)
    lines = [json.dumps(c | {"ids": 0}, ensure_ascii=True, separators=(",", ":"))[:-2] + "[\n" + ",\n".join(
        json.dumps(i, separators=(",", ":")) for i in c["ids"]) + "]}" for c in CASES]
    (OUT / "cases.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")

    if SHARED.exists():
        def digest(ids):
            return {"n": len(ids), "sha256": hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()}

        shared = []
        for model in ("tokenizers/mistral/tokenizer.model.v1",
                      "tokenizers/mistral/mistral_instruct_tokenizer_240323.model.v3",
                      "tokenizers/llama_spm/tokenizer.model", "models/stories260K/tokenizer.model"):
            sp = spm.SentencePieceProcessor(model_file=str(SHARED / model))
            bos = [sp.bos_id()]
            texts = sum((bos + sp.encode(t) for t in TEXTS if t not in special), [])
            files = {f: digest(bos + sp.encode((SHARED / f).read_bytes().decode())) for f in REAL}
            with tempfile.TemporaryDirectory() as dir:
                (Path(dir) / "tokenizer.model").write_bytes((SHARED / model).read_bytes())
                fast = json.loads(LlamaTokenizerFast.from_pretrained(dir).backend_tokenizer.to_str())
            merges = "\n".join(" ".join(m) for m in fast["model"]["merges"])
            shared.append({"model": model, "merges": hashlib.sha256(merges.encode()).hexdigest(),
                           "texts": digest(texts), "files": files})
        dump("shared.json", shared, 1)
    sizes = {p.name: p.stat().st_size for p in sorted(OUT.iterdir())}
    print(sizes, sum(sizes.values()))


REAL = [
    "data/wikitext2/wiki.test.raw", "data/c4/c4_sample.jsonl", "data/tinystories/tinystories_valid_excerpt.txt",
    "data/gsm8k/test.jsonl", "data/mt_bench/question.jsonl", "data/lambada/lambada_test.jsonl",
]

if __name__ == "__main__":
    make()

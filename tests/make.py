#!/usr/bin/env python3
"""Makes the fixtures that `tests/families.rs` holds the decoder to. What there is to make stands in `variants.py`.

Each fixture is a tiny checkpoint in Hugging Face layout with random weights, and what `transformers` computes on it:

    tests/fixtures/<family>/<variant>/
        config.json                  as checkpoints on the Hub have it, old keys included
        model.safetensors            or two shards and model.safetensors.index.json; names as on the Hub
        expected.safetensors         tokens int64 [n]; logits f32 [n, vocab]: eager attention, f32, one pass, no cache
        expected-bf16.safetensors    logits f32 [n, vocab]: the same weights loaded as bf16 (a few fixtures only)
        expected-fp16.safetensors    likewise fp16

Where one token at a time is by design not what one pass gives (LongRoPE, once the text outgrows its original length),
expected.safetensors also has `cached` f32 [n, vocab].

Run (about a minute on one core, no network):

    pip install torch transformers
    python tests/make.py [families|precision|traps] [FIXTURE ...]

`families` makes everything but the bf16 and fp16 logits; `precision` adds those to fixtures that exist; without an
argument, all. FIXTURE is the beginning of a name (`mixtral/`, `llama/yarn`): only those are made. The weights depend
on nothing but the fixture's name and the tensor's name. The logits may move in their last bits with the CPU and with
torch, so make what is new and leave the rest.

Nothing is written before it has been checked:
  * the reference comes from `from_pretrained` on the folder itself, so transformers reads the file we test on; no
    tensor may be missing, and none left over but the buffers planted on purpose;
  * where transformers cannot read the Hub's own form (`stand_in`), it reads the same weights under the keys and names
    that it knows; where it reads them wrongly (`mend`), the error is undone, and the variant says what and why;
  * it equals the model that was saved, decodes the same token by token through a cache, and agrees with f64;
  * logits have a standard deviation of about 1 to 2;
  * no router's choice of experts hangs on a rounding;
  * `mistakes`: a loader that got this key wrong would be caught, i.e. the logits move by more than the tolerance;
  * `same`: another spelling of the config that must give the same bits.
"""

import json
import math
import os
import random
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # everything is made from configs; a look-up would be a bug
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore", category=FutureWarning)

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import chatglm
from variants import BUFFERS, GONE, PRECISION, VARIANTS, gpt2, llama

torch.set_num_threads(1)  # one order of summation
torch.set_grad_enabled(False)
transformers.utils.logging.disable_progress_bar()

FIXTURES = Path(__file__).resolve().parent / "fixtures"
MADE_WITH = "torch 2.15 and transformers 5.23 and 5.24"  # for fixtures/README.md: all that made what lies there
TOLERANCE = 1e-4  # what families.rs allows between transformers and the decoder
REACH = 5 * TOLERANCE  # how far a mistake has to move the logits, at least
MARGIN = 0.02  # between the last expert chosen and the first that is not, in router logits
HALF_MARGIN = 0.3  # likewise, where bf16 and fp16 are asked as well
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}
SCRATCH = tempfile.TemporaryDirectory()


# ------------------------------------------------------------------------------------------------------------------
# Random values from Python's own generator: the same on every machine and with every torch.


def normal(seed, shape):
    rng = random.Random(zlib.crc32(seed.encode()))
    return torch.tensor([rng.gauss(0.0, 1.0) for _ in range(math.prod(shape))], dtype=torch.float32).reshape(shape)


def fill(model, fixture, store):
    """Gives every parameter a value at which forgetting it, or taking it for another, would show."""
    head = model.get_output_embeddings().weight
    tied = model.get_input_embeddings().weight is head
    kind = model.config.get_text_config().model_type
    for name, p in model.named_parameters():  # a tied head comes once, as the embedding
        value = normal(f"{fixture}/{name}", p.shape)
        if name.endswith("A_log"):  # decay: half of what is in the state lasts from one token to some ten
            value = 0.7 * value - 0.5
        elif name.endswith(("dt_proj.bias", "dt_bias")):  # a step before its softplus
            value = 0.8 * value - 1
        elif kind.startswith("qwen2") and name.endswith("k_proj.bias"):  # as large as in the trained ones
            value *= 3
        elif p.dim() == 1 and name.endswith(".bias"):
            value *= 0.2
        elif p.dim() == 1 and kind.startswith("gemma") and "vision_tower" not in name:  # a norm that adds one
            value *= 0.2
        elif p.dim() == 1:  # a norm's weight; Mamba's D
            value = 1 + 0.2 * value
        elif p is head:  # logits of a normalised state then have this standard deviation
            value *= 1.5 / math.sqrt(p.shape[1])
        elif "embed_positions" in name or "wpe" in name:
            value *= 0.4
        elif p is model.get_input_embeddings().weight:
            assert not tied
            value *= 0.8
        elif name.endswith("mlp.gate.weight"):  # a router
            value *= 3 / math.sqrt(p.shape[1])
        elif name.endswith("conv1d.weight"):  # [channels, 1, width]
            value *= 0.6
        elif p.dim() == 3:  # experts, stacked: [expert, out, in]
            value *= 1.2 / math.sqrt(p.shape[2])
        else:  # a linear: [out, in], but [in, out] in GPT-2's Conv1D
            fan_in = p.shape[0] if kind == "gpt2" else p.shape[1]
            value *= 1.2 / math.sqrt(fan_in)
        p.copy_(value.to(store).to(torch.float32))


def router_margin(model, tokens):
    """At the last token: how far the experts chosen are ahead of the others, in the closest of the layers."""
    gaps, hooks = [], []

    def note(router, _, out):
        logits = out[0][-1].sort(descending=True).values
        gaps.append((logits[router.top_k - 1] - logits[router.top_k]).item())

    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            hooks.append(module.register_forward_hook(note))
    if hooks:
        logits_of(model, tokens)
    for hook in hooks:
        hook.remove()
    return min(gaps, default=math.inf)


def tokens_of(fixture, n, vocab, model):
    """`n` tokens; special ones, the last of the vocabulary and a repeated pair among them."""
    rng = random.Random(zlib.crc32(f"{fixture}/tokens".encode()))
    ids = [rng.randrange(vocab) for _ in range(n)]
    ids[0], ids[3], ids[5], ids[7] = 2, vocab - 1, 1, 0
    ids[11:13] = ids[8:10]
    margin = HALF_MARGIN if fixture in PRECISION else MARGIN
    if router_margin(model, torch.tensor(ids)) < math.inf:  # there is a router: replace tokens at which it hesitates
        for i in range(n):
            tries = 0
            while router_margin(model, torch.tensor(ids[: i + 1])) < margin:
                ids[i] = rng.randrange(vocab)
                tries += 1
                assert tries < 5 * vocab, f"{fixture}: no token {i} at which the router is sure"
    return torch.tensor(ids)


# ------------------------------------------------------------------------------------------------------------------
# What transformers computes.


def build(config, mend=None):
    """A model from the contents of a config.json, with whatever weights it starts from."""
    keys = dict(config)
    config = AutoConfig.for_model(keys.pop("model_type"), **keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **EAGER).eval()
    if mend:
        mend(model)
    return model


def readable(folder, variant):
    """The folder, or one with the same weights under keys and names that transformers knows."""
    if "stand_in" not in variant:
        return folder
    other = Path(SCRATCH.name) / folder.name
    other.mkdir(exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    tensors = variant.get("stand_in_names", lambda t, _: t)(tensors, config)
    (other / "config.json").write_text(json.dumps(variant["stand_in"](config)))
    save_file({n: t.contiguous() for n, t in tensors.items()}, other / "model.safetensors", metadata={"format": "pt"})
    return other


def load(folder, variant, dtype=torch.float32):
    model, info = AutoModelForCausalLM.from_pretrained(
        readable(folder, variant),
        dtype=dtype,
        **EAGER,
        local_files_only=True,
        output_loading_info=True,
    )
    left = [k for k in info["unexpected_keys"] if not k.endswith(BUFFERS)]
    assert not info["missing_keys"] and not info["mismatched_keys"] and not left, (folder, info)
    assert {p.dtype for p in model.parameters()} == {dtype}, folder
    # `model.to(dtype)` would round RoPE's frequencies as well; loading in a dtype, as people do, leaves them in f32.
    assert all(b.dtype == torch.float32 for n, b in model.named_buffers() if n.endswith("inv_freq")), folder
    if "mend" in variant:
        variant["mend"](model)
    return model.eval()


def logits_of(model, tokens):
    return model(input_ids=tokens[None], use_cache=False).logits[0]


def cached_logits_of(model, tokens):
    past, rows = None, []
    for t in tokens:
        out = model(input_ids=t.view(1, 1), cache=past, use_cache=True)
        past = out.cache
        rows.append(out.logits[0, -1])
    return torch.stack(rows)


def override(config, keys):
    """A key that holds an object, and is given one, changes in that object's keys."""
    whole = dict(config)
    for key, value in keys.items():
        nested = isinstance(value, dict) and isinstance(whole.get(key), dict) and key.endswith("_config")
        whole[key] = override(whole[key], value) if nested else value
    return {k: v for k, v in whole.items() if v is not GONE}


def with_overrides(folder, variant, keys, tokens):
    """The logits if the config had said something else: the fixture's own weights in another model."""
    config = override(json.loads((readable(folder, variant) / "config.json").read_text()), keys)
    model = build(config, variant.get("mend"))
    model.load_state_dict(load(folder, variant).state_dict(), strict=False)
    return logits_of(model, tokens)


def distance(a, b):
    return (a.double() - b.double()).abs().max().item()


# ------------------------------------------------------------------------------------------------------------------
# Files.


def write_config(folder, variant):
    """Writes config.json, and gives the contents of the one that transformers is to read."""
    config = override(variant["config"], {})
    if variant.get("rewrite"):  # as this version of transformers spells it
        model_type = config["model_type"]
        config = AutoConfig.for_model(**config)
        config.architectures = variant["config"]["architectures"]
        config = config.to_diff_dict()
        assert config["model_type"] == model_type and "rope_theta" not in config
        config["transformers_version"] = transformers.__version__
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return variant.get("stand_in", lambda c: c)(config)


def write_weights(folder, model, variant):
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    heads = ("lm_head.weight", "embed_out.weight") if tied else ()
    tensors = {n: t.detach().clone() for n, t in model.state_dict().items() if n not in heads}
    tensors = {n: t.to(variant.get("store", torch.float32)).contiguous() for n, t in tensors.items()}
    for change in variant.get("layout", []):
        tensors = change(tensors, model.config)
    tensors = {n: t.contiguous() for n, t in tensors.items()}

    shards = variant.get("shards", 1)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(tensors)
    size = -(-len(names) // shards)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": {}}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {n: tensors[n] for n in names[i * size : (i + 1) * size]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index["weight_map"].update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def check_by_hand(folder, tokens, logits):
    """ChatGLM: the formulas themselves, on the file itself."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {n: t.double().numpy() for n, t in load_file(folder / "model.safetensors").items()}
    off = distance(logits, torch.tensor(chatglm.logits(config, tensors, tokens.numpy())))
    assert off < TOLERANCE / 2, f"{folder}: {off} from the formulas"


def families(chosen):
    print(f"{'fixture':24}{'kB':>6}{'n':>4}{'vocab':>6}{'std':>6}{'cached':>10}{'f64':>10}  mistakes move logits by")
    for fixture in chosen:
        variant = VARIANTS[fixture]
        folder = FIXTURES / fixture
        folder.mkdir(parents=True, exist_ok=True)
        made = build(write_config(folder, variant), variant.get("mend"))
        fill(made, fixture, variant.get("store", torch.float32))
        write_weights(folder, made, variant)

        model = load(folder, variant)
        vocab = variant.get("vocab", model.config.get_text_config().vocab_size)
        tokens = tokens_of(fixture, variant.get("n", 26), vocab, model)
        logits = logits_of(model, tokens)
        assert torch.equal(logits, logits_of(made, tokens)), f"{fixture}: what was saved is not what was read"
        assert torch.isfinite(logits).all()
        std = logits.std().item()
        assert 0.9 < std < 2.2, f"{fixture}: logits have a standard deviation of {std}"
        expected = {"tokens": tokens, "logits": logits.contiguous()}
        one_by_one = cached_logits_of(model, tokens)
        cached = distance(logits, one_by_one)
        if variant.get("cached_differs"):
            assert cached > REACH, f"{fixture}: cached decoding is the same, within {cached}"
            expected["cached"] = one_by_one.contiguous()
            assert torch.equal(logits, logits_of(model, tokens)), f"{fixture}: decoding has changed the model"
        else:
            assert cached < TOLERANCE, f"{fixture}: cached decoding is off by {cached}"
        wrong = variant.get("mistakes", [])
        moved = [distance(logits, with_overrides(folder, variant, keys, tokens)) for keys in wrong]
        assert all(m > REACH for m in moved), f"{fixture}: a mistake would pass: {moved}"
        for keys in variant.get("same", []):
            off = distance(logits, with_overrides(folder, variant, keys, tokens))
            assert off == 0, f"{fixture}: {keys} gives other logits, by {off}"
        exact = distance(logits, logits_of(model.double(), tokens))
        assert exact < TOLERANCE / 2, f"{fixture}: f32 is {exact} from f64"
        if fixture.startswith("chatglm/"):
            check_by_hand(folder, tokens, logits)

        save_file(expected, folder / "expected.safetensors")
        size = sum(f.stat().st_size for f in folder.iterdir()) / 1000
        moves = " ".join(f"{m:.1g}" for m in moved)
        print(
            f"{fixture:24}{size:6.0f}{len(tokens):4}{logits.shape[1]:6}{std:6.2f}{cached:10.1e}{exact:10.1e}  {moves}",
            flush=True,
        )


def precision(chosen):
    print(f"{'fixture':24}{'dtype':>6}{'max abs':>10}{'rms':>10}")
    for fixture in [f for f in PRECISION if f in chosen]:
        folder = FIXTURES / fixture
        expected = load_file(folder / "expected.safetensors")
        for name, dtype in HALVES.items():
            logits = logits_of(load(folder, VARIANTS[fixture], dtype), expected["tokens"]).float()
            assert torch.isfinite(logits).all()
            off = logits - expected["logits"]
            print(f"{fixture:24}{name:>6}{off.abs().max():10.4f}{off.square().mean().sqrt():10.5f}", flush=True)
            save_file({"logits": logits.contiguous()}, folder / f"expected-{name}.safetensors")


# ------------------------------------------------------------------------------------------------------------------
# Scores: what lm-evaluation-harness makes of items of our own, asked of two tiny models with a tokenizer.

SENTENCES = """
The water mill stands by the river, and the miller counts the sacks of grain before the rain comes.
A small boat carries bread, salt and lamps to the houses on the other side of the lake.
When the wind turns, the mill stops; then the children run to the bridge and wait for the boat.
What does the miller carry? He carries the grain, and the boat carries the bread.
Where is the lamp? The lamp is on the table in the house by the bridge.
Answer: the river. Question: who waits for the water? The children wait for the water.
Le café près du moulin est fermé; the cat sleeps there. 水车在河边。磨坊在桥边。
""".strip().splitlines()

# The prompt's last characters, and what a tokenizer, a harness and a decoder can get wrong about them.
ENDINGS = ["the river", "the bread and the salt", "a lamp"]
LONG = " ".join(SENTENCES[:4])
ITEMS = [
    ("plain", "Where does the water mill stand?", " ", ["by the river", "on the table in the house", "a lamp"], 1),
    ("a space at the prompt's end", "What does the boat carry? ", " ", ENDINGS, 1),
    ("a newline at the prompt's end", "Who waits for the boat?\n", "", ["the children", "the miller", "rain"], 2),
    ("two spaces at the prompt's end", "The lamp is on  ", "", ENDINGS, 0),
    ("newlines and a tab at the prompt's end", "Answer:\n\n\t", " ", ["bread", "salt"], 1),
    ("no prompt", "", " ", ["The mill stops", "The wind turns", "Boats"], 0),
    ("no prompt, and an ending that begins with the prefix token", "", "", ["<s>The river", "The river"], 1),
    ("an ending that starts with two spaces", "The cat sleeps", " ", ["  there", " there", "there"], 0),
    (
        "code points are not bytes",
        "Où est le chat?",
        " ",
        ["près du café fermé", "水车在河边", "🐈‍⬛🌊", "QXZ KV"],
        0,
    ),
    ("the same, the prompt in Chinese", "磨坊在", "", ["桥边。", "the bridge", "é"], 0),
    ("too long: the left goes", f"{LONG} Where is the lamp?", " ", ["on the table", "by the bridge in the rain"], 0),
    ("so long that BOS goes by one", None, " ", ["on the table", "by"], 1),
    ("as many tokens of ending as the context", "The mill", " ", [LONG, "stops"], 1),
    ("the ending merges with the prompt's last letters", "He waits by the wat", "", ["er mill and waits", "ch"], 0),
    ("an ending is another's beginning", "Who counts the grain?", " ", ["the mill", "the miller", "the mill"], 2),
    ("no letters in an ending: it has no length", "The boat carries", " ", ["", "Q", "水"], 1),
    ("the prompt says BOS itself", "<s>The rain comes", " ", ["before the wind", "to the lake"], 0),
    ("Python's white space: U+001F", "Wait for the boat\x1f", " ", ["and run", "then stop"], 0),
    ("Python's white space: U+3000", "水车\u3000", "", ["在河边。", "the mill"], 1),
    ("nothing but white space before the ending", " \n", " ", ["The lamp", "The table"], 0),
    ("nothing at all", "The lamp", "", ["", " is on"], 1),
]
# More items: their endings are what the models would say after this, so that some are greedy.
GREEDY = ["The wind turns the", "The miller counts", "When the boat", "He carries the", "Question: who", "The cat"]

TEXTS = [
    ("one token", " the"),
    ("one token more than none", "é"),
    ("white space at both ends", "  \n The mill stops. \n\n"),
    ("white space alone", " \n"),
    ("Unicode", "Le café est fermé 🌊\u00a0水车在河边。\u3000磨坊"),
    ("Python's white space", "salt\x1cbread\x1f lamps\x85rain"),
    ("BOS in the text", "<s>The river</s> and the boat"),
    ("the context", 48),
    ("the context, less one for BOS", 47),
    ("two contexts", 96),
    ("three windows and a part", 160),
]
PROFILES = {"lm-eval-0.4.9.2": {}, "lm-eval-0.4.0": {"add_bos_token": False}}
SCORED = {
    "model": llama(
        hidden_size=20,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=48,
        vocab_size=GONE,
    ),
    "learned": gpt2(
        n_ctx=48,
        n_positions=48,
        n_embd=16,
        n_layer=1,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=True,
        vocab_size=GONE,
    ),
}


def train_tokenizer():
    """Byte-level BPE; the same wherever it is trained."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def write_scored(name):
    """A model that begins texts with BOS, and one with learned positions that has none."""
    from tokenizers import processors

    folder = FIXTURES / "traps" / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer()
    has_bos = name == "model"
    if has_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    (folder / "tokenizer.json").write_text(tokenizer.to_str() + "\n")
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>" if has_bos else None,
        "eos_token": "</s>",
        "clean_up_tokenization_spaces": False,
    }
    if has_bos:
        words["add_bos_token"] = True
    (folder / "tokenizer_config.json").write_text(json.dumps(words, indent=2, sort_keys=True) + "\n")

    variant = {"config": SCORED[name] | {"vocab_size": tokenizer.get_vocab_size()}}
    made = build(write_config(folder, variant))
    fill(made, f"scores/{name}", torch.float32)
    write_weights(folder, made, variant)
    return folder, tokenizer


def cut_text(tokenizer, n):
    """A text of `n` tokens, and of no other number when it is tokenized again."""
    text = ""
    while len(tokenizer.encode(text, add_special_tokens=False).ids) < 2 * n:
        text += " ".join(SENTENCES) + "\n"
    ids = tokenizer.encode(text, add_special_tokens=False).ids[:n]
    text = tokenizer.decode(ids, skip_special_tokens=False)
    assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text
    return text


def greedy_text(lm, prompt):
    """What the model would say after the prompt, one token or two, if that is text and comes back as these tokens."""
    ids, said, best = lm.tok_encode(prompt), [], None
    for _ in range(2):
        said.append(logits_of(lm.model, torch.tensor(ids + said))[-1].argmax().item())
        text = lm.tokenizer.decode(said)
        if min(said) > 2 and lm.tok_encode(prompt + text) == ids + said:
            best = text
    return best


def harness_task(name, kind, docs, **keys):
    """A task of the harness over rows written here. It takes a row's field where a template is only its name."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(docs)},
            "test_split": "test",
            "output_type": kind,
            **keys,
        }
    )


def ask_harness(lm, tasks):
    """`evaluate`'s results and samples, the samples in the documents' order."""
    from lm_eval import evaluator

    out = evaluator.evaluate(lm, {t.config.task: t for t in tasks}, bootstrap_iters=0, log_samples=True)
    samples = {name: sorted(s, key=lambda x: x["doc_id"]) for name, s in out["samples"].items()}
    return out["results"], samples


def refusal(lm, pairs):
    """The name of the error that the harness ends in, if it does."""
    from lm_eval.api.instance import Instance

    try:
        lm.loglikelihood([Instance("loglikelihood", {}, p, 0) for p in pairs], disable_tqdm=True)
    except (AssertionError, IndexError) as error:
        return type(error).__name__
    return None


def choice_scores(lm, items):
    """One entry an item: scores and correctness, or how the harness refuses it."""
    pairs = [[(i["prompt"], i["delimiter"] + e) for e in i["endings"]] for i in items]
    found = [{"refused": why} if (why := refusal(lm, p)) else None for p in pairs]
    metrics = ["acc", "acc_norm", "acc_bytes"]
    for delimiter in sorted({i["delimiter"] for i in items}):
        at = [n for n, i in enumerate(items) if found[n] is None and i["delimiter"] == delimiter]
        task = harness_task(
            f"delimiter-{len(delimiter)}",
            "multiple_choice",
            [items[n] for n in at],
            doc_to_text="prompt",
            doc_to_choice="endings",
            doc_to_target="gold",
            target_delimiter=delimiter,
            metric_list=[{"metric": m, "aggregation": "mean", "higher_is_better": True} for m in metrics],
        )
        _, samples = ask_harness(lm, [task])
        for n, sample in zip(at, samples[task.config.task], strict=True):
            arguments = [tuple(a) if isinstance(a, list) else a for a in sample["arguments"]]
            assert [(a[0], a[1]) for a in arguments] == pairs[n], "the harness changed a request"
            scores = [tuple(r) for r in sample["filtered_resps"]]
            found[n] = {
                "log_likelihoods": [float(s[0]) for s in scores],
                "is_greedy": [bool(s[1]) for s in scores],
                **{m: int(sample[m]) for m in metrics},
            }
    asked = [f for f in found if "refused" not in f]
    return {"items": found} | {m: sum(f[m] for f in asked) / len(asked) for m in metrics}


def rolling_scores(lm, texts):
    names = {"word_perplexity": "weighted_perplexity", "byte_perplexity": "weighted_perplexity"}
    names["bits_per_byte"] = "bits_per_byte"
    task = harness_task(
        "rolling",
        "loglikelihood_rolling",
        texts,
        doc_to_text="",
        doc_to_target="text",
        metric_list=[{"metric": m, "aggregation": a, "higher_is_better": False} for m, a in names.items()],
    )
    results, samples = ask_harness(lm, [task])
    found = []
    for text, sample in zip(texts, samples["rolling"], strict=True):
        assert sample["arguments"][0][0] == text["text"], "the harness changed a text"
        (ll, words), (_, size) = sample["word_perplexity"], sample["byte_perplexity"]
        found.append({"log_likelihood": float(ll), "words": words, "bytes": size})
    return {"items": found} | {m: float(results["rolling"][f"{m},none"]) for m in names}


def margins(name, items, run):
    """No answer may hang on a rounding: two endings are either equal in score or well apart."""
    for item, found in zip(items, run["items"], strict=True):
        if "refused" in found:
            continue
        lls = found["log_likelihoods"]
        for by in (lambda e: 1, len, lambda e: len(e.encode())):
            scores = [ll / by(e) if by(e) else -math.inf for ll, e in zip(lls, item["endings"], strict=True)]
            gaps = [abs(a - b) for i, a in enumerate(scores) for b in scores[:i]]
            assert all(g == 0 or g > 2e-3 for g in gaps), (name, item["about"], scores)


def traps(_):
    import importlib.metadata
    import logging

    os.environ.setdefault("TQDM_DISABLE", "1")
    from lm_eval.models.huggingface import HFLM

    logging.disable(logging.WARNING)

    def ask(folder, profile):
        lm = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=1, **PROFILES[profile])
        assert lm.max_length == 48 and lm.model.dtype == torch.float32
        return lm

    made = {name: write_scored(name) for name in SCORED}
    lms = {name: {p: ask(folder, p) for p in PROFILES} for name, (folder, _) in made.items()}
    tokenizer = made["model"][1]
    for name, by_profile in lms.items():  # transformers has opinions on tokenizers; here it must have read the file
        for profile, lm in by_profile.items():
            for text in [*SENTENCES, "<s>é 水", " \n", ""]:
                specials = profile == "lm-eval-0.4.9.2" and not text.startswith("<s>")
                want = made[name][1].encode(text, add_special_tokens=specials).ids
                assert lm.tok_encode(text) == want, (name, profile, text)

    items = [dict(zip(("about", "prompt", "delimiter", "endings", "gold"), i, strict=True)) for i in ITEMS]
    for item in items:
        if item["prompt"] is None:  # with BOS and the ending's last token predicted, one token more than the context
            n = 49 - len(tokenizer.encode(" on the table", add_special_tokens=False).ids)
            item["prompt"] = cut_text(tokenizer, n)
    for prompt in GREEDY:
        said = [greedy_text(lm, prompt) for by_profile in lms.values() for lm in by_profile.values()]
        said = [*dict.fromkeys(s for s in said if s), " the river"]
        if len(said) > 1:
            about = "what a model would say"
            items.append({"about": about, "prompt": prompt, "delimiter": "", "endings": said, "gold": 0})
    assert len(items) > len(ITEMS)
    texts = [{"about": a, "text": t if isinstance(t, str) else cut_text(tokenizer, t)} for a, t in TEXTS]

    versions = {"python": sys.version.split()[0], "torch": torch.__version__.split("+")[0]}
    versions |= {p: importlib.metadata.version(p) for p in ("lm_eval", "tokenizers", "transformers")}
    choice, rolling = {}, {}
    for name, by_profile in lms.items():
        for profile, lm in by_profile.items():
            choice.setdefault(name, {})[profile] = run = choice_scores(lm, items)
            margins(f"{name} {profile}", items, run)
            rolling.setdefault(name, {})[profile] = rolling_scores(lm, texts)
            print(f"{name:8} {profile:16}", {k: v for k, v in run.items() if k != "items"}, end=" ")
            print({k: round(v, 3) for k, v in rolling[name][profile].items() if k != "items"})

    # The traps are traps.
    with_bos, bare = (choice["model"][p]["items"] for p in PROFILES)
    both = [n for n in range(len(items)) if "refused" not in with_bos[n] and "refused" not in bare[n]]
    assert [f.get("refused") for f in bare if "refused" in f], "the harness refuses nothing"
    greedy = [g for by in choice.values() for r in by.values() for f in r["items"] for g in f.get("is_greedy", [])]
    assert any(greedy) and not all(greedy)
    for a, b in (("acc", "acc_norm"), ("acc_norm", "acc_bytes"), ("acc", "acc_bytes")):
        assert any(with_bos[n][a] != with_bos[n][b] for n in both), f"{a} is {b} everywhere"
    same = [items[n]["about"] for n in both if with_bos[n]["log_likelihoods"] == bare[n]["log_likelihoods"]]
    print("the same with and without BOS:", same)
    merged = next(i for i in items if "merges" in i["about"])
    lm = lms["model"]["lm-eval-0.4.9.2"]
    context, continuation = lm._encode_pair(merged["prompt"], merged["delimiter"] + merged["endings"][0])
    assert context + continuation != lm.tok_encode(merged["prompt"] + merged["endings"][0])

    for file, rows, key, runs in (("choice", items, "items", choice), ("rolling", texts, "texts", rolling)):
        whole = {"versions": versions, key: rows, "runs": runs}
        text = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False)
        (FIXTURES / "traps" / f"{file}.json").write_text(text + "\n")
    size = sum(f.stat().st_size for f in (FIXTURES / "traps").rglob("*") if f.is_file()) / 1000
    print(f"traps: {size:.0f} kB")


def readme():
    lines = [
        "# Fixtures",
        "",
        "Tiny checkpoints in Hugging Face layout and what `transformers` computes on them. All weights are random, made",
        "by `tests/make.py` (see there for what it checks); nothing here was trained or downloaded.",
        f"Made with {MADE_WITH}, on a CPU.",
        "",
        "A folder holds `config.json`, the weights and `expected.safetensors`: `tokens` (int64 [n]) and `logits`",
        "(f32 [n, vocab]; eager attention, f32, one pass without a cache). Where there are `expected-bf16.safetensors` and",
        "`expected-fp16.safetensors`, their `logits` come from the same weights loaded in that dtype; they are one rounding",
        "among many, so compare distances from the f32 logits and not bits. Where `expected.safetensors` has `cached`",
        "(f32 [n, vocab]), decoding token by token gives that, by design, and not `logits`.",
        "",
        "| fixture | what it is there for |",
        "|---|---|",
    ]
    lines += [f"| `{fixture}` | {variant['about']} |" for fixture, variant in VARIANTS.items()]
    (FIXTURES / "README.md").write_text("\n".join(lines) + "\n")


def main(arguments):
    steps = {"families": families, "precision": precision, "traps": traps}
    names = tuple(a for a in arguments if a not in steps)
    asked = [s for s in steps if s in arguments] or (["families", "precision"] if names else list(steps))
    chosen = [f for f in VARIANTS if f.startswith(names or "")]
    unknown = [n for n in names if not any(f.startswith(n) for f in VARIANTS)]
    if unknown:
        sys.exit(f"{unknown}: no such fixture\nusage: python tests/make.py [{'|'.join(steps)}] [FIXTURE ...]")
    for step in asked:
        steps[step](chosen)
    readme()


if __name__ == "__main__":
    main(sys.argv[1:])

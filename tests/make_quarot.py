#!/usr/bin/env python3
"""Makes tests/goldens/quarot/, by running QuaRot's fake quantization on tiny LLaMAs that it is given.

    git clone https://github.com/spcl/QuaRot   5008669
    pip install torch transformers accelerate tqdm
    python tests/make_quarot.py --source FOLDER-OF-CLONES

What `main` of `fake_quant/main.py` does between loading a model and evaluating it is cut out and run as it stands, in f32. Replaced:
`fast_hadamard_transform.hadamard_transform`, which is CUDA, by QuaRot's own `hadamard_utils.matmul_hadU` times `scale * sqrt(n)`
(of powers of two only, as there); `Tensor.cuda` does nothing. `LlamaAttention.forward` stands without the decorator that newer
transformers put around it, so that QuaRot's patch finds its globals.

Rows of embeddings sum to zero, exactly: QuaRot takes their mean away even where norms do not (rotation_utils.py:49-51).

hadamard.safetensors          x-N, and its `matmul_hadU` (y-N) and `matmul_hadUt` (t-N)
sylvester/                    hidden 32 (4 heads of 8, 2 of keys), feed-forward 64: powers of two throughout; 2 layers
paley/                        hidden 48 = 12 x 4 (12 heads of 4, 6 of keys), feed-forward 56 = 28 x 2; 1 layer
NAME/expected.safetensors     tokens, logits (the model's own), signs, q (the rotation, of one); rotated.WEIGHT: weights after it, of
                              the first layer and of one embedding; rotated, CASE: logits; rotated.WHAT, CASE.WHAT: what is in
                              block 0 (see `trace`), rounded where CASE rounds it
"""

import argparse
import ast
import inspect
import json
import math
import random
import sys
import types
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

torch.set_num_threads(1)
GOLDENS = Path(__file__).resolve().parent / "goldens" / "quarot"
VOCAB = 67
MODELS = {
    "sylvester": {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2},
    "paley": {"hidden_size": 48, "intermediate_size": 56, "num_attention_heads": 12, "num_key_value_heads": 6, "num_hidden_layers": 1},
}  # fmt: skip
# As `utils.parser_gen` has them.
DEFAULTS = {
    "model": "meta-llama/tiny", "rotate": True, "rotate_mode": "hadamard", "fp32_had": False, "seed": 0,
    "a_bits": 16, "a_groupsize": -1, "a_asym": False, "a_clip_ratio": 1.0,
    "w_bits": 16, "w_groupsize": -1, "w_asym": False, "w_rtn": True, "w_clip": False, "int8_down_proj": False,
    "v_bits": 16, "v_groupsize": -1, "v_asym": False, "v_clip_ratio": 1.0,
    "k_bits": 16, "k_groupsize": -1, "k_asym": False, "k_pre_rope": False, "k_clip_ratio": 1.0,
    "load_qmodel_path": None, "save_qmodel_path": None,
}  # fmt: skip
KV = {"k_bits": 4, "v_bits": 4, "k_asym": True, "v_asym": True}
CASES = {
    "w4": {"w_bits": 4},
    "w4-asym": {"w_bits": 4, "w_asym": True},
    "w4-clip": {"w_bits": 4, "w_clip": True},
    "w4-asym-clip": {"w_bits": 4, "w_asym": True, "w_clip": True},
    "a4": {"a_bits": 4},
    "a4-clip": {"a_bits": 4, "a_clip_ratio": 0.9},
    "a4-asym": {"a_bits": 4, "a_asym": True},
    "kv4": KV,
    "kv4-clip": {**KV, "k_clip_ratio": 0.95, "v_clip_ratio": 0.95},
    "w4a4kv4": {"w_bits": 4, "w_clip": True, "a_bits": 4, "a_clip_ratio": 0.9, **KV, "k_clip_ratio": 0.95, "v_clip_ratio": 0.95},
    "w4a4kv4-down8": {"w_bits": 4, "a_bits": 4, "a_clip_ratio": 0.9, "int8_down_proj": True, **KV},
}


def tokens(seed, length):
    return torch.tensor([[(i * i * 5 + i * 17 + seed) % VOCAB for i in range(length)]])


def theirs(source):
    """QuaRot's modules, and what its `main` does to a model."""
    folder = source / "QuaRot" / "fake_quant"
    fast = types.ModuleType("fast_hadamard_transform")
    sys.modules["fast_hadamard_transform"] = fast
    torch.Tensor.cuda = lambda self, *a, **k: self
    sys.path.insert(0, str(folder))
    import hadamard_utils

    def transform(x, scale=1.0):
        n = x.shape[-1]
        assert hadamard_utils.is_pow2(n)
        return hadamard_utils.matmul_hadU(x.contiguous()) * float(scale * math.sqrt(n))

    fast.hadamard_transform = transform
    import gptq_utils
    import model_utils
    import quant_utils
    import rotation_utils
    import utils

    attention = transformers.models.llama.modeling_llama.LlamaAttention
    attention.forward = inspect.unwrap(attention.forward)
    path = folder / "main.py"
    body = next(n for n in ast.parse(path.read_text()).body if getattr(n, "name", None) == "main").body
    first = next(i for i, n in enumerate(body) if isinstance(n, ast.If) and ast.unparse(n.test) == "args.rotate")
    last = next(i for i, n in enumerate(body) if ast.unparse(n).startswith("testloader ="))
    space = {m.__name__: m for m in (gptq_utils, model_utils, quant_utils, rotation_utils, utils, hadamard_utils)}
    code = compile(ast.Module(body[first:last], []), str(path), "exec")
    return space, lambda model, args: exec(code, {**space, "model": model, "args": args})


def numbers(seed, *shape, by):
    rng = random.Random(seed)
    return torch.tensor([rng.gauss(0.0, by) for _ in range(math.prod(shape))]).reshape(shape)


def build(name, sizes):
    """A checkpoint in f16, whose numbers all are f16."""
    folder = GOLDENS / name
    folder.mkdir(parents=True, exist_ok=True)
    head = sizes["hidden_size"] // sizes["num_attention_heads"]
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, **sizes, "head_dim": head,
        "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2,
        "torch_dtype": "float16",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    n, inner = sizes["hidden_size"], sizes["intermediate_size"]
    keys = sizes["num_key_value_heads"] * head
    weights = {"lm_head.weight": numbers("head", VOCAB, n, by=0.3)}
    # Multiples of 2^-9 that f16 has; on a coarse grid, ranges of rotated rows would lie around zero symmetrically, at a tie.
    table = numbers("embed", VOCAB, n, by=320.0)
    table = (table - table.mean(1, keepdim=True)).round()
    for row in table:
        rest = int(row.sum())
        row[: abs(rest)] -= math.copysign(1, rest)
    assert (table.sum(1) == 0).all() and table.abs().max() < 2048
    weights["model.embed_tokens.weight"] = table / 512

    def norm(seed):
        w = 1 + numbers(seed, n, by=0.2)
        w[3], w[n // 2 + 1] = 9.0, -6.0
        return w

    weights["model.norm.weight"] = norm("last")
    for i in range(sizes["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for role, out, into in (
            ("self_attn.q_proj", n, n), ("self_attn.k_proj", keys, n), ("self_attn.v_proj", keys, n), ("self_attn.o_proj", n, n),
            ("mlp.gate_proj", inner, n), ("mlp.up_proj", inner, n), ("mlp.down_proj", n, inner),
        ):  # fmt: skip
            w = numbers(at + role, out, into, by=1 / math.sqrt(into))
            w[:, 3 % into] *= 0.3
            weights[f"{at}{role}.weight"] = w
        weights[f"{at}input_layernorm.weight"] = norm(f"{i}a")
        weights[f"{at}post_attention_layernorm.weight"] = norm(f"{i}b")
    save_file({k: v.half().contiguous() for k, v in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def load(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def trace(model, space):
    """Hooks that see what is in block 0: what its linears multiply, and queries and keys as attention reads them."""
    layer, seen = model.model.layers[0], {}
    for role, wrapper in {
        "qkv": layer.self_attn.k_proj, "o": layer.self_attn.o_proj, "up": layer.mlp.up_proj, "down": layer.mlp.down_proj
    }.items():  # fmt: skip
        wrapper.module.register_forward_pre_hook(lambda m, x, r=role: seen.__setitem__(r, x[0][0]))
    layer.self_attn.v_proj.register_forward_hook(lambda m, x, y: seen.__setitem__("v", y[0]))
    wrapper = getattr(layer.self_attn, "apply_rotary_pos_emb_qk_rotation_wrapper", None)
    if wrapper is not None:
        wrapper.register_forward_hook(lambda m, x, y: seen.update(q=y[0][0], k=y[1][0]))
    return seen


def run(name, folder, space, prepare):
    ids = tokens(3, 10)
    found = {"tokens": ids[0]}
    rotations = space["rotation_utils"]
    drawn, turn = [], rotations.random_hadamard_matrix
    rotations.random_hadamard_matrix = lambda *a: drawn.append(turn(*a)) or drawn[-1]
    head = load(folder).config.hidden_size // load(folder).config.num_attention_heads
    with torch.no_grad():
        found["logits"] = load(folder)(ids).logits[0]
    for case, given in {"rotated": {}, **CASES}.items():
        if name == "paley" and case not in ("rotated", "w4-clip", "a4-clip", "kv4", "w4a4kv4"):
            continue
        args = types.SimpleNamespace(**{**DEFAULTS, **given})
        if "k_bits" in given:
            args.k_groupsize = args.v_groupsize = head
        transformers.set_seed(args.seed)
        model = load(folder)
        transformers.set_seed(args.seed)
        prepare(model, args)
        if case == "rotated":
            transformers.set_seed(args.seed)
            signs = torch.randint(low=0, high=2, size=(model.config.hidden_size,)) * 2 - 1
            assert torch.equal(space["hadamard_utils"].matmul_hadU(torch.diag(signs.double())), drawn[0])
            found["signs"] = signs.float()
            left_out = ["norm", "quantizer", "had_K", "layers.1.", "lm_head"]
            if name == "sylvester":
                found["q"] = drawn[0].float()
            else:
                left_out += ["embed", "gate", "k_proj"]
            for key, value in model.state_dict().items():
                key = key.replace(".module.weight", ".weight")
                if not any(part in key for part in left_out):
                    found[f"rotated.{key}"] = value
            # Keys are turned only where they are rounded: here by a wrapper that rounds nothing.
            for layer in model.model.layers:
                rotations.add_qk_rotation_wrapper_after_function_call_in_forward(
                    layer.self_attn, "apply_rotary_pos_emb", config=model.config, k_bits=16, k_groupsize=head, k_sym=False, k_clip_ratio=1.0
                )
        seen = trace(model, space)
        with torch.no_grad():
            found[case] = model(ids, use_cache=False).logits[0]
        if case in ("w4", "w4-asym-clip"):
            found[f"{case}.mlp.down_proj.weight"] = model.model.layers[0].mlp.down_proj.module.weight
        kept = {"rotated": seen, "w4a4kv4": seen, "a4-clip": ["qkv"], "kv4": ["k", "v"]}.get(case, [])
        found.update({f"{case}.{what}": seen[what] for what in kept})
        off = (found[case] - found["logits"]).abs().max().item()
        print(f"{name} {case}: {off:.3g} of {found['logits'].abs().max().item():.3g}")
    rotations.random_hadamard_matrix = turn
    save_file({k: v.detach().contiguous().clone() for k, v in found.items()}, GOLDENS / name / "expected.safetensors")


def hadamards(space):
    utils, found = space["hadamard_utils"], {}
    for n in (8, 12, 20, 24, 28, 36, 40, 52, 56, 60, 80, 108, 140, 156, 172, 344):
        x = torch.tensor([float((i * i * 3 + i * 7 + n) % 31 - 15) for i in range(n)])
        found[f"x-{n}"], found[f"y-{n}"], found[f"t-{n}"] = x, utils.matmul_hadU(x), utils.matmul_hadUt(x)
    save_file(found, GOLDENS / "hadamard.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    args = parser.parse_args()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    space, prepare = theirs(args.source)
    hadamards(space)
    for name, sizes in MODELS.items():
        run(name, build(name, sizes), space, prepare)

#!/usr/bin/env python3
"""Makes tests/goldens/kv/, by running KIVI's attention and KVQuant's quantizers inside a tiny LLaMA.

    git clone https://github.com/jy-yuan/KIVI             876b4d2
    git clone https://github.com/SqueezeAILab/KVQuant     57a2383
    pip install torch transformers scikit-learn
    python tests/make_kv.py --source FOLDER-OF-CLONES

KIVI's `LlamaAttention_KIVI.forward` goes token by token; its GPU kernels are replaced by its own torch functions that make and
read codes (`quant/new_pack.py`), without packing codes into words, which a head of 6 does not fill. KVQuant's `SimQuant`,
`get_outliers`, `get_outliers_dynamic` and `quant_fn_zp` stand behind each `k_proj` and `v_proj`, in f32.
"""

import argparse
import ast
import math
import sys
import types
import warnings
from pathlib import Path
from typing import Optional, Tuple

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch import nn

HERE = Path(__file__).resolve().parent
FIXTURE = HERE / "fixtures" / "llama" / "mha-untied"


def model():
    return transformers.AutoModelForCausalLM.from_pretrained(FIXTURE, dtype=torch.float32, attn_implementation="eager").eval()


def tokens(count, seed, length):
    return torch.tensor([[(i * i * 5 + i * 17 + s * 29 + seed) % 67 for i in range(length)] for s in range(count)])


def definition(path, name, inside=None):
    """One function of a file, without the file's imports."""
    tree = ast.parse(path.read_text())
    body = next(n for n in tree.body if getattr(n, "name", None) == inside).body if inside else tree.body
    node = next(n for n in body if isinstance(n, ast.FunctionDef) and n.name == name)
    return ast.Module([node], [])


def kivi(source):
    model()  # Imports what would look for a real triton.
    for name in ("triton", "triton.language"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["triton"].jit = lambda f: f
    sys.modules["triton"].language = sys.modules["triton.language"]
    sys.modules["triton"].autotune = lambda *a, **k: lambda f: f
    sys.modules["triton"].Config = lambda *a, **k: None
    sys.modules["triton.language"].constexpr = int
    sys.path.insert(0, str(source / "KIVI" / "quant"))
    import new_pack

    new_pack.pack_tensor = lambda data, bits, pack_dim: data
    new_pack.unpack_tensor = lambda code, bits, pack_dim: code

    def pack(x, group, bits):
        return new_pack.quant_and_pack_vcache(x, group, bits)

    def product(group, a, codes, scale, mn, bits):
        return a @ new_pack.unpack_and_dequant_vcache(codes, scale, mn, group, bits)

    def rotate(x):
        half = x.shape[-1] // 2
        return torch.cat([-x[..., half:], x[..., :half]], -1)

    def positions(q, k, cos, sin, ids):
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return q * cos + rotate(q) * sin, k * cos + rotate(k) * sin

    space = {
        "torch": torch, "nn": nn, "F": F, "math": math, "warnings": warnings, "Optional": Optional, "Tuple": Tuple,
        "triton_quantize_and_pack_along_last_dim": pack, "cuda_bmm_fA_qB_outer": product, "apply_rotary_pos_emb": positions,
    }  # fmt: skip
    path = source / "KIVI" / "models" / "llama_kivi.py"
    exec(compile(definition(path, "forward", "LlamaAttention_KIVI"), str(path), "exec"), space)
    found = {}
    for bits, group, residual in ((2, 6, 12), (4, 3, 6), (2, 3, 24)):
        llama = model()
        for layer in llama.model.layers:
            attention, past = layer.self_attn, []

            def forward(hidden_states, position_embeddings=None, own=attention, past=past, **kwargs):
                own.rotary_emb = lambda *a: position_embeddings
                out, _, new = space["forward"](own, hidden_states, past_key_value=past[-1] if past else None, use_cache=True)
                past.append(new)
                return out, None

            config = llama.config
            attention.num_heads = attention.num_key_value_heads = config.num_attention_heads
            attention.num_key_value_groups, attention.hidden_size = 1, config.hidden_size
            attention.head_dim = config.hidden_size // config.num_attention_heads
            attention.group_size, attention.residual_length = group, residual
            attention.k_bits = attention.v_bits = bits
            config.pretraining_tp = 1
            attention.forward = forward
        ids, rows = tokens(1, 3, 50), []
        with torch.no_grad():
            for i in range(ids.shape[1]):
                at = torch.tensor([[i]])
                rows.append(llama(ids[:, i : i + 1], position_ids=at, use_cache=False).logits[0, 0])
        found["tokens"] = ids[0]
        found[f"{bits}-{group}-{residual}"] = torch.stack(rows)
    save_file(found, HERE / "goldens" / "kv" / "kivi.safetensors")


def kvquant(source):
    path = source / "KVQuant" / "quant" / "kvquant" / "simquant_module_quantizer.py"
    sys.path.insert(0, str(path.parent))
    import simquant_module_quantizer as theirs

    found = {"calibration": tokens(4, 11, 40), "tokens": tokens(1, 5, 50)[0]}
    for bits, outliers, first, clamp in ((3, 0.1, 1, False), (2, 0.05, 3, True), (3, 0.0, 0, False)):
        llama, seen = model(), {}
        keys = {n: m for n, m in llama.named_modules() if n.endswith("k_proj")}
        for name, module in keys.items():
            seen[name] = theirs.SimQuant(module, bits, perchannel=True, qchannel=0)
            module.register_forward_hook(lambda m, x, y, n=name: seen[n].add_batch(x[0], y))
        with torch.no_grad():
            for row in found["calibration"]:
                llama(row[None])
        sparse, share = outliers > 0, 1 - outliers
        thresholds = {n: q.quantize(include_sparse=sparse, sparsity_threshold=share) for n, q in seen.items()}
        skip = first if first > 0 else -1

        def key(module, x, y, name):
            upper, lower = (torch.as_tensor(t).flatten().float() for t in thresholds[name])
            mask = theirs.get_outliers(y[0], 0, upper, lower, first_few_fp16=skip) if sparse else None
            return theirs.quant_fn_zp(y[0], bits, 0, False, sparse, mask, upper, lower, clamp)[None]

        def value(module, x, y):
            mask = theirs.get_outliers_dynamic(y[0], -1, share, first_few_fp16=skip) if sparse else None
            return theirs.quant_fn_zp(y[0], bits, -1, True, sparse, mask, clamp=clamp)[None]

        for name, module in llama.named_modules():
            if name.endswith("k_proj"):
                module._forward_hooks.clear()
                module.register_forward_hook(lambda m, x, y, n=name: key(m, x, y, n))
            elif name.endswith("v_proj"):
                module.register_forward_hook(value)
        with torch.no_grad():
            found[f"{bits}-{outliers}-{first}-{clamp}"] = llama(found["tokens"][None]).logits[0]
    save_file(found, HERE / "goldens" / "kv" / "kvquant.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    args = parser.parse_args()
    (HERE / "goldens" / "kv").mkdir(parents=True, exist_ok=True)
    kivi(args.source)
    kvquant(args.source)

#!/usr/bin/env python3
"""Makes tests/goldens/osplus/, by running Outlier Suppression+'s search on tiny models with outliers.

    git clone https://github.com/ModelTC/Outlier_Suppression_Plus   3ba97ae
    pip install torch transformers scipy safetensors
    python tests/make_osplus.py --source FOLDER-OF-CLONES

Its `Migrator1DRangeSearch` for LLaMA and for OPT is given what each norm of the full model leaves, one sequence, as its decoder
layers hand it over (`quant_llama.py`, `quant_opt.py`: shift, biases, weights); its models themselves, copies of old ones of transformers,
are not needed. Rotary positions and the repetition of heads are taken out of `quant_llama.py`. Masks are a causal one, and no padding.
"""

import argparse
import ast
import sys
import types
from pathlib import Path

import make_quantizers as shared
import torch
from torch import nn


def definitions(path, names):
    tree = ast.parse(path.read_text())
    return ast.Module([n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names], [])


def packages(source):
    root = source / "Outlier_Suppression_Plus" / "quant_transformer"
    for name in ("quant_transformer", "quant_transformer.model", "quant_transformer.quantization"):
        module = types.ModuleType(name)
        module.__path__ = [str(root.parent / name.replace(".", "/"))]
        sys.modules[name] = module
    # What observers draw is not drawn.
    sys.modules["matplotlib"] = sys.modules["matplotlib.pyplot"] = types.ModuleType("matplotlib")
    llama = types.ModuleType("quant_transformer.model.quant_llama")
    llama.torch = torch
    path = root / "model" / "quant_llama.py"
    exec(compile(definitions(path, ["rotate_half", "apply_rotary_pos_emb", "repeat_kv"]), str(path), "exec"), vars(llama))
    sys.modules["quant_transformer.model.quant_llama"] = llama
    sys.modules["quant_transformer.model"].quant_llama = llama
    from quant_transformer.quantization import migration, migration_llama

    return {"llama": migration_llama, "opt": migration}


def settings(bits):
    one = types.SimpleNamespace(bit=bits, symmetric=False, ch_axis=0)
    return types.SimpleNamespace(**vars(one), quantizer="TokenFixedFakeQuantize"), types.SimpleNamespace(**vars(one), quantizer="Fixed")


def linears(layer, family):
    attention = layer.self_attn
    qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
    if family == "opt":
        return [(layer.self_attn_layer_norm, qkv, "qkv"), (layer.final_layer_norm, [layer.fc1], "fc1")]
    mlp = [layer.mlp.gate_proj, layer.mlp.up_proj]
    return [
        (layer.input_layernorm, qkv, "qkv"), (layer.post_attention_layernorm, mlp, "up_and_gate"),
        (layer.mlp.up_proj, [layer.mlp.down_proj], "down_proj"),
    ]  # fmt: skip


def extra(model, length, family):
    c = model.config
    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)[None, None]
    known = {"attention_mask": mask, "observation_mask": torch.ones(1, length, dtype=torch.long), "num_heads": c.num_attention_heads}
    dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    if family == "opt":
        return {**known, "scaling": dim**-0.5}
    base = c.rope_parameters["rope_theta"] if hasattr(c, "rope_parameters") else c.rope_theta
    angles = torch.outer(torch.arange(length).float(), 1.0 / base ** (torch.arange(0, dim, 2).float() / dim))
    both = torch.cat([angles, angles], -1)[None, None]
    return {
        **known, "num_key_value_heads": c.num_key_value_heads, "num_key_value_groups": c.num_attention_heads // c.num_key_value_heads,
        "head_dim": dim, "cos_cached": both.cos(), "sin_cached": both.sin(), "position_ids": torch.arange(length)[None],
        "act_fn": nn.functional.silu,
    }  # fmt: skip


@torch.no_grad()
def osplus(modules):
    for fixture, bits in (("llama/mha-untied", 8), ("llama/gqa-tied", 4), ("opt/125m", 6)):
        family = fixture.split("/")[0]
        model, tokens = shared.model_and_tokens(fixture, 1, 40)
        tensors = {"tokens": tokens, "bits": torch.tensor([bits])}
        layers = shared.layers_of(model)
        shared.parameters("before", layers, tensors)
        left = {}
        # Where activations reach 900 there are 1,800 thresholds, and the best of them is a matter of a last bit: left out, as the
        # authors' `disable_down_proj` does.
        norms = [part for layer in layers for part in linears(layer, family) if fixture != "llama/gqa-tied" or part[2] != "down_proj"]
        # What linears are given: what a norm leaves, or what is left of `up` behind the gate.
        hooks = [those[0].register_forward_pre_hook(lambda m, x: left.__setitem__(m, x[0].clone())) for _, those, _ in norms]
        model(tokens, use_cache=False)
        [h.remove() for h in hooks]
        acts, weights = settings(bits)
        for i, (norm, those, kind) in enumerate(norms):
            x, more = left[those[0]].reshape(1, tokens.shape[1], -1), extra(model, tokens.shape[1], family)
            if family == "opt":
                shift = (x.amax((0, 1)) + x.amin((0, 1))) / 2
                x = x - shift
                for linear in those:
                    linear.bias.data += shift @ linear.weight.data.T
                norm.bias.data -= shift
                more["shift"] = shift
                if kind == "qkv":
                    more["bias"] = torch.cat([linear.bias for linear in those])
            stacked = torch.cat([linear.weight for linear in those])
            scale = modules[family].migration(x, stacked, acts, weights, kind, more)
            norm.weight.data /= scale[:, None] if kind == "down_proj" else scale
            if family == "opt":
                norm.bias.data /= scale
            for linear in those:
                linear.weight.data *= scale
            print(fixture, i, kind, f"scales to {scale.max():.2f}")
        shared.parameters("after", layers, tensors)
        shared.save("osplus", fixture.replace("/", "-"), tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    osplus(packages(parser.parse_args().source))

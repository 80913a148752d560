#!/usr/bin/env python3
"""Makes tests/goldens/qllm/, by running QLLM's channel reassembly on tiny LLaMAs with outliers.

    git clone https://github.com/ModelTC/QLLM   653a329
    pip install torch transformers safetensors
    python tests/make_qllm.py --source FOLDER-OF-CLONES

Its `CRModule` (threshold, cutting, joining) and the `disassemble_fc` and `assemble_fc` of its decoder layer are given what norms of the
full model leave and what enters `down_proj`; its models, copies of old ones of transformers, are not needed. Rotary positions are given
as tables; nothing is plotted. Width 24: distances of so few columns are `torch.cdist`'s exact ones.
"""

import argparse
import ast
import sys
import types
from pathlib import Path

import make_quantizers as shared
import make_osplus
import torch
from torch import nn


def packages(source):
    sys.path.insert(0, str(source / "QLLM"))
    plot = types.ModuleType("matplotlib.pyplot")
    for name in ("figure", "plot", "show", "close"):
        setattr(plot, name, lambda *a, **k: None)
    sys.modules["matplotlib"] = types.ModuleType("matplotlib")
    sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"] = plot
    from reassembly import cr_module

    path = source / "QLLM" / "quantize" / "quantizer.py"
    quantizer = {}
    exec(compile(path.read_text(), str(path), "exec"), quantizer)
    layer = ast.parse((source / "QLLM" / "models" / "int_qllm_llama_layer.py").read_text())
    functions = [n for c in layer.body if isinstance(c, ast.ClassDef) for n in c.body if isinstance(n, ast.FunctionDef)]
    names = ("disassemble_fc", "assemble_fc", "output_reassembly")
    found = {"torch": torch, "LoRAQuantLinear": type("LoRAQuantLinear", (), {})}
    exec(compile(ast.Module([n for n in functions if n.name in names], []), "layer", "exec"), found)
    methods = types.SimpleNamespace()
    for name in names:
        setattr(methods, name, types.MethodType(found[name], methods))
    return cr_module, quantizer["UniformAffineQuantizer"], methods


@torch.no_grad()
def qllm(cr_module, Quantizer, methods):
    cr_module.apply_rotary_pos_emb = lambda q, k, cos, sin, _: (
        q * cos + rotated(q) * sin,
        k * cos + rotated(k) * sin,
    )
    rotated = lambda x: torch.cat([-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]], -1)
    for fixture, bits, ratio in (("llama/mha-untied", 4, 0.3), ("llama/gqa-tied", 6, 0.25)):
        model, tokens = shared.model_and_tokens(fixture, 1, 40)
        tensors = {"tokens": tokens, "settings": torch.tensor([float(bits), ratio])}
        layers = shared.layers_of(model)
        shared.parameters("before", layers, tensors)
        seen = {}
        see = lambda m, x: seen.__setitem__(m, x[0].clone())
        hooks = [m.register_forward_pre_hook(see) for m in model.modules() if isinstance(m, nn.Linear)]
        model(tokens, use_cache=False)
        [h.remove() for h in hooks]
        more = make_osplus.extra(model, tokens.shape[1], "llama")
        part = types.SimpleNamespace(
            act_quantizer=Quantizer(bits, dynamic_method="per_token"),
            weight_quantizer=Quantizer(bits, dynamic_method="per_channel"),
            num_heads=more["num_heads"], num_key_value_heads=more["num_key_value_heads"], head_dim=more["head_dim"],
            num_key_value_groups=more["num_key_value_groups"], rotary_emb=lambda x, seq_len: (more["cos_cached"], more["sin_cached"]),
        )  # fmt: skip
        part.q_proj = part
        for i, layer in enumerate(layers):
            attention, mlp = layer.self_attn, layer.mlp
            for name, linears, function in (
                ("qkv", [attention.q_proj, attention.k_proj, attention.v_proj], "qkv"),
                ("mlp", [mlp.gate_proj, mlp.up_proj], "post_attn_norm"),
                ("down", [mlp.down_proj], "fc1"),
            ):
                x = seen[linears[0]].reshape(1, tokens.shape[1], -1)
                module = cr_module.CRModule(part, ratio, nn.functional.silu)
                module.name = name
                methods.output_reassembly(
                    module, x, x.abs().amax((0, 1)), more["attention_mask"], more["position_ids"], linears, function
                )
                tensors[f"x.{i}.{name}"], tensors[f"turned.{i}.{name}"] = x[0], module(x)[0]
                print(fixture, i, name, "channels added:", module.num_additional_channels)
        shared.parameters("after", layers, tensors)
        shared.save("qllm", fixture.replace("/", "-"), tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    qllm(*packages(parser.parse_args().source))

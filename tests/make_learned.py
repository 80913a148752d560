#!/usr/bin/env python3
"""Makes tests/goldens/learned/: what is rounded, and every parameter's gradient, by the authors' own fake quantization.

    git clone https://github.com/OpenGVLab/OmniQuant      95fae1b
    git clone https://github.com/intel/auto-round         (August 2026)
    git clone https://github.com/OpenGVLab/EfficientQAT   (2025)
    pip install torch safetensors
    python tests/make_learned.py --source FOLDER-OF-CLONES

Parameters are away from where they begin, so that ranges are cut and codes lie outside; the gradient is that of `sum(Q * G)`.
AutoRound's function is taken out of its file, whose package imports far more than it needs; scales are f32.

In torch 2.0, which these authors had, `clamp` passes its gradient where a value lies at a bound (`clamp_backward`: both comparisons
hold there); torch 2.15, which made these, does not, and codes lie there often. So `clamp` here is the older one.
"""

import argparse
import ast
import importlib.util
import math
import random
from pathlib import Path
from typing import Union

import torch
from safetensors.torch import save_file

GOLDENS = Path(__file__).resolve().parent / "goldens" / "learned"
OUT, INNER, GROUP = 6, 48, 16
CLAMP = torch.Tensor.clamp


def clamp(x, min=None, max=None):
    inside = torch.ones_like(x, dtype=torch.bool)
    inside = inside & (x >= min) if min is not None else inside
    inside = inside & (x <= max) if max is not None else inside
    passed = torch.where(inside, x, torch.zeros_like(x))
    return passed + (CLAMP(x.detach(), min, max) - passed.detach())


torch.clamp = torch.Tensor.clamp = clamp


def normal(seed, *shape):
    rng = random.Random(seed)
    return torch.tensor([rng.gauss(0.0, 1.0) for _ in range(math.prod(shape))]).reshape(shape)


def module(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def save(name, q, params, tensors):
    (q * tensors["gradient"]).sum().backward()
    tensors = {**tensors, "rounded": q}
    for key, value in params.items():
        tensors[key], tensors[f"grad-{key}"] = value, value.grad
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, GOLDENS / f"{name}.safetensors")


def common():
    w = normal("weight", OUT, INNER) * 0.1
    w[1] = w[1].abs() + 0.05
    w[2, 3] = 2.0
    return {"weight": w, "gradient": normal("gradient", OUT, INNER)}


def omniquant(source):
    theirs = module(source / "OmniQuant" / "quantize" / "quantizer.py", "omniquant_quantizer")
    for bits in (2, 4):
        tensors = common()
        q = theirs.UniformAffineQuantizer(
            bits, symmetric=False, per_channel_axes=[0], dynamic_method="per_channel", group_size=GROUP, shape=(OUT, INNER), lwc=True
        )
        groups = OUT * INNER // GROUP
        q.upbound_factor.data = normal("high", groups, 1) + 2
        q.lowbound_factor.data = normal("low", groups, 1) + 2
        save(f"omniquant-w{bits}", q(tensors["weight"]), {"high": q.upbound_factor, "low": q.lowbound_factor}, tensors)


def autoround(source):
    utils = source / "auto-round" / "auto_round" / "data_type" / "utils.py"
    ints = source / "auto-round" / "auto_round" / "data_type" / "int.py"
    space = {"torch": torch, "Union": Union, "ceil": math.ceil}
    for path, names in ((utils, ("reshape_pad_tensor_by_group_size", "revert_tensor_by_pad", "round_ste")), (ints, ("quant_tensor_asym",))):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name in names:
                node.decorator_list = []
                exec(compile(ast.Module([node], []), str(path), "exec"), space)
    for bits in (2, 4):
        tensors = common()
        groups = OUT * INNER // GROUP
        v = (normal("v", groups, GROUP) * 0.3).clamp(-0.5, 0.5).requires_grad_()
        low = (0.8 + 0.1 * normal("l", groups)).clamp(0, 1).requires_grad_()
        high = (0.8 + 0.1 * normal("h", groups)).clamp(0, 1).requires_grad_()
        q, _, _ = space["quant_tensor_asym"](
            tensors["weight"], bits, GROUP, v=v, min_scale=low, max_scale=high, scale_dtype=torch.float32
        )
        save(f"autoround-w{bits}", q, {"v": v, "low": low, "high": high}, tensors)


def efficientqat(source):
    theirs = module(source / "EfficientQAT" / "quantize" / "quantizer.py", "efficientqat_quantizer")
    for bits in (2, 4):
        tensors = common()
        w = tensors["weight"].clone().requires_grad_()
        q = theirs.UniformAffineQuantizer(bits, GROUP, weight=w)
        q.scale.data *= 1 + 0.2 * normal("scale", *q.scale.shape)
        q.zero_point.data += normal("zero", *q.zero_point.shape)
        save(f"efficientqat-w{bits}", q(w), {"w": w, "scale": q.scale, "zero": q.zero_point}, tensors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    args = parser.parse_args()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for make in (omniquant, autoround, efficientqat):
        make(args.source)

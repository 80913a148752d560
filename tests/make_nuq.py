#!/usr/bin/env python3
"""Makes tests/goldens/kv/nuq.safetensors and nuq-model.safetensors, by running KVQuant's non-uniform quantization.

    git clone https://github.com/SqueezeAILab/KVQuant     57a2383
    pip install torch transformers scikit-learn
    python tests/make_nuq.py --source FOLDER-OF-CLONES

`SimQuant.quantize` fits ranges and codebooks to calibration tensors; `get_outliers`, `get_outliers_dynamic` and
`quant_fn_nuq_recon` round others with them, in f32, as `QuantLinearSim.forward` calls them (which has halves). Changed:

    numbers that KVQuant has fixed   calibration rows (32768), tokens of a sequence (2048), outliers of a token at either end (21):
                                     here ROWS, LENGTH, CAP
    round_to_nearest_pole_sim        takes `return_freq`, which the Q-Norm's call gives it and its definition does not have
                                     (the call fails in the clone; quant/kvquant/simquant_module_quantizer_dbrx.py:543 has it right)

nuq.safetensors: keys, values (calibration), keys-fisher, values-fisher, keys-new, values-new, and for CASE = SIDE-BITS-KIND[-...]:
CASE.codebook (sorted), CASE.raw (as scikit-learn left it), CASE.upper and CASE.lower (keys: of each channel), CASE.norm (scale,
offset), CASE.loss (what k-means minimizes, over what it saw, times the weights), CASE.out (of the new ones).
nuq-model.safetensors: a tiny LLaMA (fixtures/llama/mha-untied) with it behind each `k_proj` and `v_proj`.
"""

import argparse
import ast
import math
import random
import types
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
FIXTURE = HERE / "fixtures" / "llama" / "mha-untied"
LENGTH, SEQUENCES, CHANNELS, NEW, CAP = 50, 4, 12, 12, 2
ROWS = LENGTH * SEQUENCES


def theirs(source, rows=ROWS, length=LENGTH, cap=CAP):
    path = source / "KVQuant" / "quant" / "kvquant" / "simquant_module_quantizer.py"
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            node.value = {32768: rows, 2048: length, 21: cap}.get(node.value, node.value)
    module = types.ModuleType("simquant")
    exec(compile(tree, str(path), "exec"), module.__dict__)
    poles = module.round_to_nearest_pole_sim
    module.round_to_nearest_pole_sim = lambda w, p, return_freq=False: (poles(w, p), None) if return_freq else poles(w, p)
    return module


def normal(seed, *shape):
    rng = random.Random(seed)
    return torch.tensor([rng.gauss(0.0, 1.0) for _ in range(math.prod(shape))]).reshape(shape)


def tensors(side, tokens, seed):
    """Channels (of keys) or tokens (of values) with middles and widths of their own, heavy tails, and a few values far out."""
    x = normal(f"{side}{seed}", tokens, CHANNELS)
    x = x * (1 + 0.3 * x.abs())
    if side == "keys":
        x = x * (1 + 3 * normal("width", CHANNELS).abs()) + 4 * normal("middle", CHANNELS)
    else:
        x = x * (0.5 + normal(f"width{seed}", tokens, 1).abs()) + normal(f"middle{seed}", tokens, 1)
    x[tokens // 3, 5] += 40
    x[tokens // 2, 2] -= 60
    x[0] *= 3
    return x


def fitted(module, x, side, bits, **options):
    layer = nn.Linear(x.shape[-1], x.shape[-1], bias=False)
    quantizer = module.SimQuant(layer, bits, perchannel=True, qchannel=0 if side == "keys" else -1)
    for sequence in x.split(LENGTH) if x.shape[0] == ROWS else [x]:
        quantizer.add_batch(None, sequence[None])
    kept = {}

    class Watched(module.KMeans):
        def fit(self, data, sample_weight=None):
            super().fit(data, sample_weight=sample_weight)
            near = ((data - self.cluster_centers_.T) ** 2).min(1)
            kept["loss"] = float((near * (1 if sample_weight is None else np.asarray(sample_weight))).sum())
            kept["seen"] = len(data)
            return self

    plain, module.KMeans = module.KMeans, Watched
    result = quantizer.quantize(nuq=True, **options)
    module.KMeans = plain
    return result, kept


def rounded(module, y, side, bits, result, sparse, share, norm, first, cap):
    upper, lower, lut = result[:3]
    extra = dict(lut=lut, norm=norm, first_few_fp16=first)
    if norm:
        extra |= dict(normscale=result[3], normoffset=result[4])
    if side == "keys":
        upper, lower = (torch.as_tensor(t).flatten().float() for t in (upper, lower))
        mask = module.get_outliers(y, 0, upper, lower, cap, first) if sparse else None
        return module.quant_fn_nuq_recon(y, bits, 0, False, sparse, mask, upper, lower, **extra)
    mask = module.get_outliers_dynamic(y, -1, share, first) if sparse else None
    return module.quant_fn_nuq_recon(y, bits, -1, True, sparse, mask, **extra)


def parts(source):
    module, found = theirs(source), {}
    for side in ("keys", "values"):
        found[side], found[f"{side}-new"] = tensors(side, ROWS, 1), tensors(side, NEW, 2)
        found[f"{side}-fisher"] = (normal(f"{side}fisher", ROWS, CHANNELS) * (1 + 4 * normal("channels", CHANNELS).abs())) ** 2
        # name, bits, share of values that are not outliers (1: none are), Fisher, Q-Norm, first tokens exact, capped
        cases = [(f"{b}-{k}{f}", b, s, bool(f), False, -1, -1)
                 for b in (2, 3, 4) for k, s in (("dense", 1), ("sparse", 0.99)) for f in ("", "-fisher")]  # fmt: skip
        cases += [(f"2-{k}-fisher-norm", 2, s, True, True, -1, -1) for k, s in (("dense", 1), ("sparse", 0.99))]
        cases += [("3-sparse-fisher-first", 3, 0.99, True, False, 2, -1), ("3-sparse10", 3, 0.9, False, False, -1, -1)]
        if side == "keys":
            cases += [("3-sparse-capped", 3, 0.9, False, False, -1, 1)]
        for name, bits, share, fisher, norm, first, cap in cases:
            weights = found[f"{side}-fisher"] if fisher else None
            result, kept = fitted(
                module, found[side], side, bits, include_sparse=share < 1, sparsity_threshold=share, fisher=weights, norm=norm,
                cap_outliers=cap > -1, first_few_fp16=first,
            )  # fmt: skip
            case = f"{side}-{name}"
            raw = torch.tensor(result[2][0]).flatten()
            found[f"{case}.raw"], found[f"{case}.codebook"] = raw, raw.sort().values
            if side == "keys":
                found[f"{case}.upper"], found[f"{case}.lower"] = (torch.as_tensor(t).flatten().float() for t in result[:2])
            if norm:
                found[f"{case}.norm"] = torch.stack([result[3], result[4]])
            found[f"{case}.loss"] = torch.tensor([kept["loss"]], dtype=torch.float32)
            out = rounded(module, found[f"{side}-new"], side, bits, result, share < 1, share, norm, first, cap)
            found[f"{case}.out"] = out
            print(case, kept, result[0].dtype, f"off {(out - found[f'{side}-new']).abs().mean().item():.4f}")
    save_file({k: v.contiguous().clone() for k, v in found.items()}, HERE / "goldens" / "kv" / "nuq.safetensors")


def tokens(count, seed, length):
    return torch.tensor([[(i * i * 5 + i * 17 + s * 29 + seed) % 67 for i in range(length)] for s in range(count)])


def model(source):
    """Keys before positions, a channel; values a token; codebooks of each layer's keys and values by squared gradients of the
    model's loss over its k_proj's and v_proj's outputs, as `gradients/run-fisher.py` has them (there in bf16)."""
    found = {"calibration": tokens(4, 11, 40), "tokens": tokens(1, 5, 30)[0]}
    module = theirs(source, 160, 40)
    for bits, share, first, norm in ((3, 0.9, 1, False), (2, 1, -1, True)):
        llama = transformers.AutoModelForCausalLM.from_pretrained(FIXTURE, dtype=torch.float32, attn_implementation="eager").eval()
        sides = {n: m for n, m in llama.named_modules() if n.endswith(("k_proj", "v_proj"))}
        outs, grads = {n: [] for n in sides}, {n: [] for n in sides}

        def watch(m, x, y, n):
            outs[n].append(y.detach())
            y.register_hook(lambda g: grads[n].append(g.detach() ** 2))

        handles = [m.register_forward_hook(lambda m, x, y, n=n: watch(m, x, y, n)) for n, m in sides.items()]
        for row in found["calibration"]:
            llama(row[None], labels=row[None]).loss.backward()
        for handle in handles:
            handle.remove()
        case = f"{bits}-{share}-{first}-{norm}"
        for name, linear in sides.items():
            side = "keys" if name.endswith("k_proj") else "values"
            quantizer = module.SimQuant(linear, bits, perchannel=True, qchannel=0 if side == "keys" else -1)
            for y in outs[name]:
                quantizer.add_batch(None, y)
            fisher = torch.cat(grads[name], 1)
            result = quantizer.quantize(
                include_sparse=share < 1, sparsity_threshold=share, nuq=True, fisher=fisher, norm=norm, first_few_fp16=first
            )
            short = f"{name.split('.')[2]}.{side}"
            found[f"{case}.{short}.codebook"] = torch.tensor(result[2][0]).flatten().sort().values
            if norm:
                found[f"{case}.{short}.norm"] = torch.stack([result[3], result[4]])
            elif name.split(".")[2] == "1":
                found[f"{short}.fisher"] = fisher[0]
            linear.register_forward_hook(
                lambda m, x, y, side=side, result=result: rounded(
                    module, y[0], side, bits, result, share < 1, share, norm, first, -1)[None]
            )  # fmt: skip
        with torch.no_grad():
            found[case] = llama(found["tokens"][None]).logits[0]
    save_file({k: v.contiguous().clone() for k, v in found.items()}, HERE / "goldens" / "kv" / "nuq-model.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    args = parser.parse_args()
    (HERE / "goldens" / "kv").mkdir(parents=True, exist_ok=True)
    parts(args.source)
    model(args.source)

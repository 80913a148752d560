#!/usr/bin/env python3
"""GPTQ on one layer of 4096 x 4096 in groups of 128, and AWQ's search for scales on one block in the shape of LLaMA-7B's, beside
their authors' PyTorch code on the same CPU, in turn.

    git clone https://github.com/IST-DASLab/gptq; git clone https://github.com/mit-han-lab/llm-awq
    pip install torch transformers
    python benches/quantizers.py --source FOLDER-OF-CLONES [--pairs 5] [--tokens 512] [gptq awq]

Counted: the method alone, from weights and Hessian (GPTQ) or weights and inputs (AWQ) to its result; for AWQ, the pass that
shows it its inputs too. Both sides use all threads. GPTQ's loss in its own metric is printed for both.
"""

import argparse
import math
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

torch.cuda.synchronize = lambda *a: None
torch.cuda.empty_cache = lambda *a: None
torch.Tensor.cpu = lambda self: self.clone()
torch.manual_seed(0)


def ours(method, file):
    command = ["cargo", "bench", "--quiet", "--bench", "quantizers", "--", method, str(file)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(out[-2]), float(out[-1])


def gptq(source, folder, tokens):
    sys.path.insert(0, str(source / "gptq"))
    from gptq import GPTQ
    from quant import Quantizer

    w = torch.randn(4096, 4096) * 0.02
    x = torch.randn(2 * 4096, 4096) @ (torch.eye(4096) + torch.randn(4096, 4096) / 64)
    x[:, ::97] *= 20
    h = x.t() @ x
    file = folder / "gptq.safetensors"
    save_file({"weight": w, "hessian": h}, file)

    def theirs():
        layer = nn.Linear(4096, 4096, bias=False)
        layer.weight.data = w.clone()
        method = GPTQ(layer)
        method.H = h.clone()
        method.quantizer = Quantizer()
        method.quantizer.configure(4, perchannel=True, sym=False)
        began = time.time()
        method.fasterquant(percdamp=0.01, groupsize=128)
        seconds = time.time() - began
        d = w - layer.weight.data
        return seconds, ((d @ h) * d).sum().item()

    return theirs, file


def awq(source, folder, tokens):
    sys.path.insert(0, str(source / "llm-awq"))
    sys.modules["awq_inference_engine"] = types.ModuleType("awq_inference_engine")
    for name in ("awq", "awq.quantize", "awq.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(source / "llm-awq" / name.replace(".", "/"))]
        sys.modules[name] = package
    from awq.quantize import auto_scale
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_attention_heads=32, _attn_implementation="sdpa")
    layer = LlamaDecoderLayer(config, 0).eval()
    for p in layer.parameters():
        if p.dim() == 2:
            nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]))
    inputs = torch.randn(tokens, 4096)
    inputs[:, ::97] *= 20
    tensors = {n.removesuffix(".weight"): p.detach() for n, p in layer.named_parameters() if p.dim() == 2}
    file = folder / "awq.safetensors"
    save_file({**tensors, "inputs": inputs}, file)
    positions = LlamaRotaryEmbedding(config)(inputs, torch.arange(tokens).unsqueeze(0))
    linears = {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}

    def theirs():
        feats, handles = {}, []
        began = time.time()
        for name, linear in linears.items():
            handles.append(linear.register_forward_hook(lambda m, x, y, n=name: feats.__setitem__(n, x[0].detach())))
        kwargs = {"position_embeddings": positions, "attention_mask": None}
        with torch.no_grad():
            layer(inputs.unsqueeze(0), **kwargs)
            [h.remove() for h in handles]
            auto_scale.auto_scale_block(layer, dict(kwargs), 4, {"zero_point": True, "q_group_size": 128}, feats)
        return time.time() - began, tokens

    return theirs, file


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("methods", nargs="*", default=["gptq", "awq"])
    args = parser.parse_args()
    for name in args.methods:
        with tempfile.TemporaryDirectory() as folder:
            theirs, file = {"gptq": gptq, "awq": awq}[name](args.source, Path(folder), args.tokens)
            ours(name, file)
            ratios = []
            for _ in range(args.pairs):
                (a, x), (b, y) = theirs(), ours(name, file)
                ratios.append(a / b)
                print(f"{name}: authors {a:.2f} s ({x:.6g}), bitsweep {b:.2f} s ({y:.6g}), {a / b:.2f} times as fast", flush=True)
            print(f"{name}: {statistics.median(ratios):.2f} times as fast, {min(ratios):.2f} to {max(ratios):.2f}")

#!/usr/bin/env python3
"""Makes the goldens that `tests/methods.rs` holds quantizers to, by running their authors' code on a CPU.

    git clone https://github.com/IST-DASLab/gptq               2d65066
    git clone https://github.com/mit-han-lab/llm-awq           d6e797a
    git clone https://github.com/mit-han-lab/smoothquant       c61476d
    git clone https://github.com/mobiusml/hqq                  e0b1d00
    git clone https://github.com/OpenGVLab/OmniQuant           95fae1b
    git clone https://github.com/microsoft/microxcaling        7bc4195
    git clone https://github.com/SqueezeAILab/SqueezeLLM       a5fd71f
    git clone https://github.com/Vahe1994/SpQR                 543d10e
    git clone https://github.com/xvyaward/owq                  03cfc99
    git clone https://github.com/ChengZhang-98/lqer            88b6960
    pip install torch transformers bitsandbytes termcolor scikit-learn toml colorlog
    python tests/make_quantizers.py --source FOLDER-OF-CLONES [gptq|spqr|owq|lqer|awq|smoothquant|hqq|omniquant|mx|bitsandbytes|llm_int8|prune|squeezellm|papers|fisher ...]

Each leaves tests/goldens/<method>/*.safetensors: what went in and what came out, f32. Nothing of the clones is changed but
what needs a GPU: `torch.cuda.synchronize` and `.cuda()` do nothing, `.cpu()` copies, and CUDA extensions are empty modules. AWQ's clipping wants
outputs in multiples of 64, so matrices get rows of zeros, which are cut off again: rows do not touch each other.
"""

import argparse
import ast
import math
import random
import sys
import types
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from sklearn.cluster import KMeans
from torch import nn

torch.set_num_threads(1)
GOLDENS = Path(__file__).resolve().parent / "goldens"
FIXTURES = Path(__file__).resolve().parent / "fixtures"


def normal(seed, *shape):
    rng = random.Random(seed)
    return torch.tensor([rng.gauss(0.0, 1.0) for _ in range(math.prod(shape))]).reshape(shape)


def save(method, name, tensors):
    folder = GOLDENS / method
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, folder / f"{name}.safetensors")


def awkward_layer(out, inner, tokens):
    """A weight with heavy rows, a constant one and one of zeros; inputs that are correlated, with outlier channels and a dead
    one."""
    w = normal("weight", out, inner) * 0.1
    w[3] *= 20
    w[4] = 0.25
    w[5] = 0.0
    w[6] = w[6].abs() + 0.3
    w[7, 2] = 4.0
    mix = normal("mix", inner, inner) / math.sqrt(inner) + torch.eye(inner)
    x = normal("inputs", tokens, inner) @ mix
    x[:, 5] *= 30
    x[:, 40] *= 12
    x[:, 11] = 0.0
    return w, x


def gptq(source):
    sys.path.insert(0, str(source / "gptq"))
    torch.cuda.synchronize = lambda *a: None
    torch.cuda.empty_cache = lambda *a: None
    from gptq import GPTQ
    from quant import Quantizer, quantize

    w, x = awkward_layer(16, 200, 512)
    x = x.reshape(4, 128, 200)
    tensors = {"weight": w}
    cases = [
        # name, bits, group, act_order, static, sym, mse, damp
        ("w4-row", 4, -1, False, False, False, False, 0.01),
        ("w3-g40", 3, 40, False, False, False, False, 0.01),
        ("w2-g64", 2, 64, False, False, False, False, 0.01),
        ("w4-g40-order", 4, 40, True, False, False, False, 0.01),
        ("w4-g40-order-static", 4, 40, True, True, False, False, 0.01),
        ("w3-g40-static", 3, 40, False, True, False, False, 0.1),
        ("w4-row-sym", 4, -1, False, False, True, False, 0.01),
        ("w4-row-order", 4, -1, True, False, False, False, 0.01),
        ("w4-row-mse", 4, -1, False, False, False, True, 0.01),
        ("w3-g40-sym-mse", 3, 40, False, False, True, True, 0.01),
        ("w8-row", 8, -1, False, False, False, False, 0.01),
    ]
    for name, bits, group, order, static, sym, mse, damp in cases:
        layer = nn.Linear(200, 16, bias=False)
        layer.weight.data = w.clone()
        method = GPTQ(layer)
        method.quantizer = Quantizer()
        method.quantizer.configure(bits, perchannel=True, sym=sym, mse=mse)
        for batch in x:
            method.add_batch(batch.unsqueeze(0), None)
        tensors[f"hessian"] = method.H.clone()
        method.fasterquant(percdamp=damp, groupsize=group, actorder=order, static_groups=static)
        tensors[name] = layer.weight.data
        # The same quantizer, rounding to nearest.
        nearest = torch.zeros_like(w)
        step = 200 if group == -1 else group
        for i in range(0, 200, step):
            q = Quantizer()
            q.configure(bits, perchannel=True, sym=sym, mse=mse)
            q.find_params(w[:, i : i + step], weight=True)
            nearest[:, i : i + step] = quantize(w[:, i : i + step], q.scale, q.zero, q.maxq)
        tensors[f"rtn-{name}"] = nearest
    save("gptq", "layer", tensors)


def fresh(source, *modules):
    """Several clones have a `quant.py`: each is imported as if it were the only one."""
    for name in modules:
        sys.modules.pop(name, None)
    sys.path.insert(0, str(source))


def spqr(source):
    fresh(source / "SpQR", "quant_groups", "spqr_engine", "weight_permutation")
    from spqr_engine import SPQRUtil

    w, x = awkward_layer(32, 200, 512)
    tensors = {"weight": w}
    for name, bits, group, threshold, damp, order in (
        ("w3-g16", 3, 16, 0.2, 1.0, "identity"),
        ("w4-g16-order", 4, 16, 0.05, 1.0, "act_order"),
        ("w2-g32", 2, 32, 0.5, 0.1, "identity"),
        ("w3-g16-none", 3, 16, math.inf, 1.0, "identity"),
    ):
        layer = nn.Linear(200, 32, bias=False)
        layer.weight.data = w.clone()
        method = SPQRUtil(layer)
        for batch in x.reshape(4, 128, 200):
            method.add_batch(batch.unsqueeze(0))
        tensors["hessian"] = method.H.clone()
        found = method.quantize(
            bits=bits, percdamp=damp, groupsize=group, outlier_relative_threshold=threshold, permutation_order=order,
            verbose=False, perchannel=True, sym=False, round_zero=False, qq_scale_bits=3, qq_zero_bits=3, qq_groupsize=16,
        )  # fmt: skip
        tensors[name] = found.weight
        tensors[f"{name}-outliers"] = found.unstructured_outlier_mask.sum().float()[None]
    save("spqr", "layer", tensors)


def owq(source):
    """Its `n_out` columns are chosen as its main.py does; ranges are min-max (`--tuning minmax`)."""
    torch.cuda.synchronize = lambda *a: None
    package = types.ModuleType("owq")
    package.__path__ = [str(source / "owq" / "owq")]
    sys.modules["owq"] = package
    from owq.quant import Quantizer
    from owq.recon import GPTQ_OWQ

    w, x = awkward_layer(16, 200, 512)
    tensors = {"weight": w}
    for name, bits, group, kept, order, damp in (
        ("w3-row", 3, -1, 2, False, 0.01),
        ("w4-row-order", 4, -1, 6, True, 0.01),
        ("w3-g40", 3, 40, 4, False, 0.05),
    ):
        layer = nn.Linear(200, 16, bias=False)
        layer.weight.data = w.clone()
        method = GPTQ_OWQ(layer, n_out=kept)
        method.quantizer = Quantizer(bits, perchannel=True, sym=False, mse=False)
        for batch in x.reshape(4, 128, 200):
            method.add_batch(batch.unsqueeze(0), None)
        tensors["hessian"] = method.H.clone()
        method.quantizer.find_params(w, weight=True)
        error = (w - method.quantizer.quantize(w)).pow(2).sum(dim=0)
        method.hessian_sorting(actorder=order, frob_norm=error)
        method.fasterquant(percdamp=damp, groupsize=group, actorder=order)
        tensors[name] = layer.weight.data
    save("owq", "layer", tensors)


def lqer(source):
    """L2QER's correction, and LQER's, of a matrix rounded to 3 bits; A and B in 8 bits, a scale for 16 values."""
    for name in ("lqer", "lqer.approximate", "lqer.statistic_profiler"):
        package = types.ModuleType(name)
        package.__path__ = [str(source / "lqer" / "src" / name.replace(".", "/"))]
        sys.modules[name] = package
    from lqer.approximate.lqer_act import WeightApproximatorLqerAct
    from lqer.statistic_profiler.scale import ScaleHookFactoryMeanAbs

    def eight(x):
        groups = x.reshape(-1, 16)
        scale = (groups.abs().amax(1, keepdim=True) / 127).clamp(min=1e-5 / 127)
        return ((groups / scale).round() * scale).reshape(x.shape)

    w, x = awkward_layer(32, 208, 512)
    low, high = w.reshape(32, 13, 16).amin(2, keepdim=True), w.reshape(32, 13, 16).amax(2, keepdim=True)
    step = ((high - low) / 7).clamp(min=1e-6)
    nearest = (((w.reshape(32, 13, 16) - low) / step).round() * step + low).reshape(32, 208)
    factory = ScaleHookFactoryMeanAbs()
    factory.get_scale_hook("layer", 208)(None, (x[None],), None)
    scale = factory.get_scale_dict()["layer"]
    tensors = {"weight": w, "nearest": nearest, "magnitude": x.abs().sum(0)}
    for name, rank, by in (("activations-8", 8, scale), ("activations-20", 20, scale), ("error-8", 8, torch.ones(208))):
        method = WeightApproximatorLqerAct(
            "layer", w, rank, lambda w: nearest, lambda a: eight(a.t().contiguous()).t(), lambda b: eight(b)
        )
        method.initialize_scale(by)
        method.approximate()
        tensors[name] = method.approximated_W()
    save("lqer", "layer", tensors)


def omniquant(source):
    sys.path.insert(0, str(source / "OmniQuant"))
    from quantize.quantizer import UniformAffineQuantizer

    w, _ = awkward_layer(24, 96, 8)
    tensors = {"weight": w}
    for bits in (2, 3, 4, 8):
        for group in (None, 32):
            for sym in (False, True):
                q = UniformAffineQuantizer(bits, symmetric=sym, dynamic_method="per_channel", group_size=group, shape=w.shape)
                tensors[f"w{bits}-{group or 'row'}{'-sym' if sym else ''}"] = q(w.clone())
    save("omniquant", "quantizer", tensors)


ROLES = {
    "self_attn.q_proj": "q", "self_attn.k_proj": "k", "self_attn.v_proj": "v", "self_attn.o_proj": "o", "self_attn.out_proj": "o",
    "mlp.gate_proj": "gate", "mlp.up_proj": "up", "mlp.down_proj": "down", "fc1": "up", "fc2": "down",
    "input_layernorm": "norm1", "post_attention_layernorm": "norm2", "self_attn_layer_norm": "norm1", "final_layer_norm": "norm2",
}  # fmt: skip


def model_and_tokens(fixture, sequences, length):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        FIXTURES / fixture, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    # Channels that stand out, as in trained models: a norm's, made up for by the linears that it feeds.
    for name, module in model.named_modules():
        if name.split(".")[-1] in ("input_layernorm", "self_attn_layer_norm", "post_attention_layernorm") or (
            name.endswith("final_layer_norm") and ".layers." in name
        ):
            module.weight.data[2] *= 24
            module.weight.data[7] *= 9
    rng = random.Random(fixture)
    vocab = model.config.vocab_size
    return model, torch.tensor([[rng.randrange(vocab) for _ in range(length)] for _ in range(sequences)])


def layers_of(model):
    return model.model.decoder.layers if hasattr(model.model, "decoder") else model.model.layers


def parameters(prefix, layers, tensors):
    for i, layer in enumerate(layers):
        for name, module in layer.named_modules():
            if name in ROLES:
                for key, value in module.named_parameters():
                    tensors[f"{prefix}.{i}.{ROLES[name]}.{key}"] = value.detach().clone()


def awq(source):
    sys.path.insert(0, str(source / "llm-awq"))
    for name in ("awq_inference_engine",):
        sys.modules[name] = types.ModuleType(name)
    for name in ("awq", "awq.quantize", "awq.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(source / "llm-awq" / name.replace(".", "/"))]
        sys.modules[name] = package
    nn.Module.cuda = lambda self, *a: self
    torch.Tensor.cuda = lambda self, *a: self
    # From a GPU it copies, and the search counts on it to put weights back.
    torch.Tensor.cpu = lambda self: self.clone()
    torch.cuda.empty_cache = lambda *a: None
    from awq.quantize import auto_clip, auto_scale

    clip_layer = auto_clip.auto_clip_layer

    def in_64s(w, feat, **kwargs):
        rows = w.shape[0]
        padded = torch.cat([w, torch.zeros(-rows % 64, w.shape[1])])
        return clip_layer(padded, feat, **kwargs)[:rows]

    auto_clip.auto_clip_layer = in_64s
    for fixture, bits, group in (("llama/mha-untied", 3, 4), ("opt/125m", 4, 4), ("llama/gqa-tied", 3, 4)):
        model, tokens = model_and_tokens(fixture, 16, 40)
        tensors = {"tokens": tokens, "settings": torch.tensor([bits, group])}
        layers = layers_of(model)
        parameters("before", layers, tensors)
        inputs, kwargs = [], {}

        def catch(module, args, kw):
            inputs.append(args[0] if args else kw["hidden_states"])
            kwargs.update({k: v for k, v in kw.items() if k not in ("hidden_states", "past_key_values", "use_cache")})

        handle = layers[0].register_forward_pre_hook(catch, with_kwargs=True)
        with torch.no_grad():
            model(tokens, use_cache=False)
        handle.remove()
        hidden, config = inputs[0], {"zero_point": True, "q_group_size": group}
        for i, layer in enumerate(layers):
            linears = {n: m for n, m in layer.named_modules() if isinstance(m, nn.Linear)}
            feats, handles = {}, []
            for name, linear in linears.items():
                handles.append(linear.register_forward_hook(lambda m, x, y, n=name: feats.__setitem__(n, x[0].detach().clone())))
            with torch.no_grad():
                out = layer(hidden, **kwargs)
            handles and [h.remove() for h in handles]
            scales = auto_scale.auto_scale_block(layer, dict(kwargs), w_bit=bits, q_config=config, input_feat=feats)
            for _, fed, s in scales:
                tensors[f"scale.{i}.{ROLES[fed[0]]}"] = s
            auto_scale.apply_scale(layer, scales, input_feat_dict=feats)
            clips = auto_clip.auto_clip_block(layer, w_bit=bits, q_config=config, input_feat=feats)
            auto_clip.apply_clip(layer, clips)
            hidden = out[0] if isinstance(out, tuple) else out
        parameters("after", layers, tensors)
        save("awq", fixture.replace("/", "-"), tensors)


def smoothquant(source):
    sys.path.insert(0, str(source / "smoothquant"))
    from smoothquant.smooth import smooth_lm

    for fixture, alpha in (("llama/mha-untied", 0.85), ("opt/125m", 0.5), ("llama/gqa-tied", 0.5)):
        model, tokens = model_and_tokens(fixture, 8, 40)
        tensors = {"tokens": tokens, "alpha": torch.tensor([alpha])}
        parameters("before", layers_of(model), tensors)
        scales = {}

        def see(name):
            def hook(m, x, y):
                most = x[0].detach().reshape(-1, x[0].shape[-1]).abs().max(0)[0]
                scales[name] = torch.maximum(scales[name], most) if name in scales else most

            return hook

        handles = [m.register_forward_hook(see(n)) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        with torch.no_grad():
            model(tokens)
        [h.remove() for h in handles]
        smooth_lm(model, scales, alpha)
        parameters("after", layers_of(model), tensors)
        save("smoothquant", fixture.replace("/", "-"), tensors)


def fisher(source):
    """Squared gradients of each sequence's mean cross-entropy, summed: what SqueezeLLM's fork of transformers keeps (`square_grad_hook`)."""
    for fixture in ("llama/gqa-tied", "opt/125m"):
        model, tokens = model_and_tokens(fixture, 3, 20)
        tensors, layers = {"tokens": tokens}, layers_of(model)
        parameters("before", layers, tensors)
        for sequence in tokens:
            model.zero_grad()
            model(sequence[None], labels=sequence[None]).loss.backward()
            for i, layer in enumerate(layers):
                for name, module in layer.named_modules():
                    if name in ROLES and isinstance(module, nn.Linear):
                        key = f"squares.{i}.{ROLES[name]}"
                        square = module.weight.grad**2
                        tensors[key] = tensors[key] + square if key in tensors else square
        save("fisher", fixture.replace("/", "-"), tensors)


def hqq(source):
    sys.path.insert(0, str(source / "hqq"))
    for name in ("hqq", "hqq.core"):
        package = types.ModuleType(name)
        package.__path__ = [str(source / "hqq" / name.replace(".", "/"))]
        sys.modules[name] = package
    from hqq.core.quantize import Quantizer

    w, _ = awkward_layer(24, 128, 8)
    tensors = {"weight": w}
    for bits in (2, 3, 4, 8):
        for group in (32, 64):
            for optimize in (True, False):
                codes, meta = Quantizer.quantize(
                    w, nbits=bits, group_size=group, axis=1, optimize=optimize, bitpack=False, device="cpu",
                    compute_dtype=torch.float32,
                )  # fmt: skip
                name = f"w{bits}-g{group}{'' if optimize else '-plain'}"
                tensors[f"{name}.codes"] = codes.reshape(w.shape).float()
                tensors[f"{name}.scale"] = meta["scale"].reshape(24, -1).float()
                tensors[f"{name}.zero"] = meta["zero"].reshape(24, -1).float()
                tensors[name] = ((codes.float() - meta["zero"].float()) * meta["scale"].float()).reshape(w.shape)
    save("hqq", "layer", tensors)


def formats_input():
    w = normal("formats", 12, 128)
    w[1] *= 1e-3
    w[2] *= 1e4
    w[3] = 0
    w[4, :32] = 0
    w[5] = torch.linspace(-1, 1, 128)
    w[6] = 2.0 ** torch.arange(-64, 64).float() / 2.0**40
    w[7] = torch.round(w[7] * 8) / 16  # many ties
    w[8, 0] = 1000.0
    return w


def mx(source):
    sys.path.insert(0, str(source / "microxcaling"))
    from mx.mx_ops import _quantize_mx

    w = formats_input()
    tensors = {"weight": w}
    for ours, theirs in (
        ("mxfp8", "fp8_e4m3"), ("mxfp8-e5m2", "fp8_e5m2"), ("mxfp6", "fp6_e2m3"), ("mxfp6-e3m2", "fp6_e3m2"), ("mxfp4", "fp4_e2m1"),
    ):  # fmt: skip
        tensors[ours] = _quantize_mx(
            w, 8, theirs, block_size=32, axes=[-1], round="even", shared_exp_method="max", flush_fp32_subnorms=False
        )
    # torch's own casts, held to the largest number as tensors are before they are stored so
    tensors["fp8-cast"] = w.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    tensors["fp8-e5m2-cast"] = w.clamp(-57344, 57344).to(torch.float8_e5m2).float()
    row = w.abs().amax(1, keepdim=True)
    scale = torch.where(row > 0, row / 448, torch.ones_like(row))
    tensors["fp8"] = (w / scale).to(torch.float8_e4m3fn).float() * scale
    # NVFP4, written out from its description: an E4M3 scale for 16 values, under one f32
    whole = w.abs().max() / (448 * 6)
    blocks = w.reshape(-1, 16)
    scale = (blocks.abs().amax(1, keepdim=True) / 6 / whole).to(torch.float8_e4m3fn).float() * whole
    levels = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    x = torch.where(scale > 0, blocks / scale, torch.zeros_like(blocks))
    low = torch.searchsorted(levels, x.abs().clamp(max=6), right=True).sub(1).clamp(max=6)
    a, b = levels[low], levels[low + 1]
    up = (x.abs() - a > b - x.abs()) | ((x.abs() - a == b - x.abs()) & (low % 2 == 1))
    tensors["nvfp4"] = (torch.where(up, b, a) * x.sign() * scale).reshape(w.shape)
    save("mx", "formats", tensors)


def bitsandbytes(source):
    import bitsandbytes.functional as F

    w = formats_input()
    # More than 256 blocks, so that two share nothing but their mean.
    many = normal("double", 33, 512) * torch.linspace(0.5, 2, 33).unsqueeze(1)
    tensors = {"weight": w, "many": many}
    for kind in ("nf4", "fp4"):
        q, state = F.quantize_4bit(w, blocksize=64, quant_type=kind, compress_statistics=False)
        tensors[kind] = F.dequantize_4bit(q, state).reshape(w.shape)
    for kind in ("nf4", "fp4"):
        q, state = F.quantize_4bit(many, blocksize=64, quant_type=kind, compress_statistics=True)
        tensors[f"{kind}-double"] = F.dequantize_4bit(q, state).reshape(many.shape)
    save("bitsandbytes", "formats", tensors)


def llm_int8(source):
    """bitsandbytes' `int8_vectorwise_quant` with a threshold, a token at a time: what it takes out is that token's alone."""
    from bitsandbytes import functional

    x = normal("llm.int8", 12, 96) * 1.5
    x[:, 7] *= 8
    x[3] = 0.0
    x[4] *= 20
    rows = []
    for row in x:
        codes, scales, _ = functional.int8_vectorwise_quant(row[None].half(), threshold=6.0)
        exact = row.half().float()
        rows.append(torch.where(exact.abs() >= 6.0, exact, codes[0].float() * scales[0].float() / 127))
    save("llm_int8", "tokens", {"x": x.half().float(), "y": torch.stack(rows)})


def prune(source):
    """Written out from the paper (Wanda, section 3; magnitude pruning as its appendix has it): its authors' code wants a GPU and
    another transformers."""
    w, x = awkward_layer(24, 104, 256)
    w += 1e-4 * normal("apart", *w.shape)  # no two alike, or the order of equals would count
    power = x.double().pow(2).mean(0).sqrt().float()
    tensors = {"weight": w, "power": power}
    for by, score in (("magnitude", w.abs()), ("wanda", w.abs() * power)):
        kept = w.clone()
        if by == "magnitude":
            kept[w.abs() <= w.abs().flatten().sort()[0][int(w.numel() * 0.6)]] = 0
        else:
            kept.scatter_(1, score.sort(dim=1, stable=True)[1][:, : int(104 * 0.6)], 0)
        tensors[f"{by}-0.6"] = kept
        least = score.reshape(24, 26, 4).topk(2, dim=2, largest=False)[1]
        tensors[f"{by}-2:4"] = w.clone().reshape(24, 26, 4).scatter_(2, least, 0).reshape(24, 104)
    save("prune", "layer", tensors)


def squeezellm(source):
    """`kmeans_fit` of quantization/nuq.py, a script that reads arguments where it is imported: so the function is taken out of it,
    and is given numpy's `cast`, which newer ones lack. For the model's squared gradients stands the layer's Hessian's diagonal."""
    tree = ast.parse((source / "SqueezeLLM" / "quantization" / "nuq.py").read_text())
    (fit,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "kmeans_fit"]
    old = types.SimpleNamespace(cast={"byte": lambda x: x.astype(np.int8)})
    space = {"KMeans": KMeans, "np": old}
    exec(compile(ast.Module([fit], []), "nuq.py", "exec"), space)

    w, x = awkward_layer(16, 200, 256)
    power = x.double().pow(2).sum(0).float()
    tensors = {"weight": w, "power": power}
    for bits in (2, 3, 4):
        for name, counts in (("plain", torch.ones(200)), ("sensitive", power)):
            rows = []
            for row in w:
                counted = (counts * (row != 0)).double().numpy()
                counted = counted if counted.sum() > 0 else np.ones_like(counted)
                centers, labels = space["kmeans_fit"]((row.double().numpy().reshape(-1, 1), counted, 2**bits))
                rows.append(torch.from_numpy(centers[labels]))
            tensors[f"w{bits}-{name}"] = torch.stack(rows).float()
    save("squeezellm", "layer", tensors)


def papers(source):
    """Written out from the papers, whose authors' code is not public or wants a GPU: BitNet b1.58's absmean (section 2), XNOR-Net's
    binary filters (section 3.1), and those around a mean; E5M2 with a scale as `fp8` has it in `mx`."""
    w = formats_input()
    tensors = {"weight": w}
    for name, parts in (("tensor", w.reshape(1, -1)), ("row", w), ("g32", w.reshape(-1, 32))):
        # Means in f64, then rounded: a value half as large as the mean goes one way or the other by its last bit.
        def mean(x):
            return x.double().mean(1, keepdim=True).float()

        def sign(x):
            return torch.where(x < 0, -1.0, 1.0)

        scale, middle = mean(parts.abs()), mean(parts)
        ternary = torch.where(scale > 0, parts / scale, torch.zeros_like(parts)).round().clamp(-1, 1) * scale
        around = sign(parts - middle) * mean((parts - middle).abs()) + middle
        for kind, y in (("ternary", ternary), ("binary", sign(parts) * scale), ("binary-centred", around)):
            tensors[f"{kind}-{name}"] = y.reshape(w.shape)
        most = parts.abs().amax(1, keepdim=True)
        scale = torch.where(most > 0, most / 57344, torch.ones_like(most))
        tensors[f"fp8-e5m2-{name}"] = ((parts / scale).to(torch.float8_e5m2).float() * scale).reshape(w.shape)
    save("papers", "formats", tensors)


ALL = {f.__name__: f for f in (gptq, spqr, owq, lqer, omniquant, awq, smoothquant, hqq, mx, bitsandbytes, llm_int8, prune, squeezellm, papers, fisher)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("methods", nargs="*", choices=[*ALL, []])
    args = parser.parse_args()
    for name in args.methods or ALL:
        ALL[name](args.source)
        print(name, sorted(p.name for p in (GOLDENS / name).iterdir()))

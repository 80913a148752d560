#!/usr/bin/env python3
"""Makes tests/goldens/gguf/, by compiling ggml's quantizers and llama.cpp's rule of which tensor gets which type.

    git clone https://github.com/ggml-org/ggml          d99724f
    git clone https://github.com/ggml-org/llama.cpp     (August 2026)
    pip install numpy torch safetensors
    python tests/make_gguf.py --ggml FOLDER --llama FOLDER

`types.safetensors`: awkward rows, an importance vector, and what each type makes of them without and with it, decoded by ggml.
`src/quant/weight/gguf/grids.bin`: which codes of a group IQ types have an index for, two bytes a point, grid after grid.
`mixtures.json`: for models of many shapes, each file type's types, tensor by tensor, `type*count` along the blocks. The rule is
cut out of `llama-quant.cpp` function by function and compiled beside a model of five numbers: nothing of it is kept here.

Compiled for plain x86-64 without fused multiply-adds: a build with them differs from one without in last bits of scales, and so
in a code here and there.
"""

import argparse
import ctypes
import json
import math
import random
import re
import struct
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

GOLDENS = Path(__file__).resolve().parent / "goldens" / "gguf"
GRIDS = Path(__file__).resolve().parents[1] / "src" / "quant" / "weight" / "gguf" / "grids.bin"
FLAGS = ["-O2", "-ffp-contract=off", "-fno-fast-math"]

# ggml's numbers of its types.
TYPES = {
    "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_k": 10, "q3_k": 11, "q4_k": 12, "q5_k": 13, "q6_k": 14,
    "iq2_xxs": 16, "iq2_xs": 17, "iq3_xxs": 18, "iq1_s": 19, "iq4_nl": 20, "iq3_s": 21, "iq2_s": 22, "iq4_xs": 23, "iq1_m": 29,
    "tq1_0": 34, "tq2_0": 35, "mxfp4": 39, "nvfp4": 40, "q1_0": 41, "q2_0": 42,
}  # fmt: skip

# Those that ggml does not make without importance (`ggml_quantize_requires_imatrix`).
DEMANDING = ["iq2_xxs", "iq2_xs", "iq1_s"]

FILES = [
    "q1_0", "q2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m",
    "q5_k_s", "q5_k_m", "q6_k", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs", "iq3_s", "iq3_m",
    "iq4_nl", "iq4_xs", "tq1_0", "tq2_0", "mxfp4_moe",
]  # fmt: skip

# name, architecture, blocks, query heads a key head, experts, width, feed-forward, tied, fused qkv, gate, 70B.
MODELS = [
    ("llama-32", "LLAMA", 32, 1, 0, 4096, 11008, 0, 0, 1, 0),
    ("llama-80", "LLAMA", 80, 8, 0, 8192, 28672, 0, 0, 1, 1),
    ("smollm", "LLAMA", 30, 3, 0, 576, 1536, 1, 0, 1, 0),
    ("tiny", "LLAMA", 5, 2, 0, 64, 172, 1, 0, 1, 0),
    ("mixtral", "LLAMA", 32, 4, 8, 4096, 14336, 0, 0, 1, 0),
    ("qwen2", "QWEN2", 24, 7, 0, 896, 4864, 1, 0, 1, 0),
    ("qwen3_moe", "QWEN3MOE", 48, 8, 128, 2048, 768, 0, 0, 1, 0),
    ("falcon", "FALCON", 32, 71, 0, 4544, 18176, 1, 1, 0, 0),
    ("gpt2", "GPT2", 12, 1, 0, 768, 3072, 1, 1, 0, 0),
]

DRIVER = r"""
#include "llama.h"
#include "llama-arch.h"
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <stdexcept>
#include <vector>
#define LLAMA_LOG_WARN(...)
static std::string format(const char * text, ...) { return text; }
enum llm_type { LLM_TYPE_OTHER, LLM_TYPE_70B };
struct hparams_t { uint32_t gqa, n_expert; uint32_t n_gqa() const { return gqa; } };
struct model_t { llm_arch arch; llm_type type; hparams_t hparams; };
struct quantize_state_impl {
    model_t model; const llama_model_quantize_params * params;
    int n_attention_wv = 0, n_ffn_down = 0, n_ffn_gate = 0, n_ffn_up = 0;
    int i_attention_wv = 0, i_ffn_down = 0, i_ffn_gate = 0, i_ffn_up = 0;
    int n_fallback = 0; bool has_imatrix = false; bool has_tied_embeddings = true;
};
CUT
static const struct { const char * name; llama_ftype type; } FILE_TYPES[] = { FILETYPES };
int main(int argc, char ** argv) {
    auto n = [&](int i) { return atoi(argv[i]); };
    std::map<std::string, llm_arch> archs = { {"LLAMA", LLM_ARCH_LLAMA}, {"QWEN2", LLM_ARCH_QWEN2},
        {"QWEN3MOE", LLM_ARCH_QWEN3MOE}, {"FALCON", LLM_ARCH_FALCON}, {"GPT2", LLM_ARCH_GPT2} };
    int layers = n(2), experts = n(4), width = n(5), inner = n(6);
    bool tied = n(7), fused = n(8), gate = n(9);
    for (auto & file : FILE_TYPES) for (int imatrix = 0; imatrix < 2; ++imatrix) {
        llama_model_quantize_params params = {};
        params.ftype = file.type;
        params.output_tensor_type = params.token_embedding_type = GGML_TYPE_COUNT;
        quantize_state_impl qs;
        qs.model = { archs[argv[1]], n(10) ? LLM_TYPE_70B : LLM_TYPE_OTHER, { (uint32_t) n(3), (uint32_t) experts } };
        qs.params = &params;
        qs.n_attention_wv = qs.n_ffn_down = qs.n_ffn_gate = qs.n_ffn_up = layers;
        qs.has_imatrix = imatrix; qs.has_tied_embeddings = tied;
        auto put = [&](const std::string & kind, const std::string & name, int ncols, int experts) {
            ggml_tensor t = {}; t.type = GGML_TYPE_F32; t.ne[0] = ncols; t.ne[1] = 256; t.ne[2] = std::max(1, experts); t.ne[3] = 1;
            strcpy(t.name, name.c_str());
            ggml_type type = llama_ftype_get_default_type(file.type);
            type = llama_tensor_get_type_impl(qs, type, &t, file.type, tensor_get_category(name));
            const char * said = "none";
            try { said = ggml_type_name(tensor_type_fallback(qs, &t, type)); } catch (const std::exception &) {}
            printf("%s %d %s %s\n", file.name, imatrix, kind.c_str(), said);
        };
        put("embed", "token_embd.weight", width, 0);
        if (!tied) put("head", "output.weight", width, 0);
        for (int i = 0; i < layers; ++i) {
            std::string blk = "blk." + std::to_string(i) + ".", exps = experts ? "_exps" : "";
            if (fused) put("attn.v", blk + "attn_qkv.weight", width, 0);
            else { put("attn.q", blk + "attn_q.weight", width, 0); put("attn.k", blk + "attn_k.weight", width, 0);
                   put("attn.v", blk + "attn_v.weight", width, 0); }
            put("attn.o", blk + "attn_output.weight", width, 0);
            if (gate) put("ffn.gate", blk + "ffn_gate" + exps + ".weight", width, experts);
            put("ffn.up", blk + "ffn_up" + exps + ".weight", width, experts);
            put("ffn.down", blk + "ffn_down" + exps + ".weight", inner, experts);
        }
    }
}
"""


def run(*command):
    subprocess.run([str(part) for part in command], check=True)


def function(text, name):
    """A definition at the left margin, from its name's line to the brace that closes it there."""
    start = re.search(rf"^(?:static |enum class ).*\b{name}\b.*\{{$|^\w[\w ]*\b{name}\(.*\{{$", text, re.M).start()
    return text[start : re.compile(r"^\};?$", re.M).search(text, start).end()]


def rows():
    """Eight rows of 256: usual, heavy in one value, small, constant, zeros, all of one sign, coarse, and a wide range."""
    rng = random.Random("gguf")
    w = torch.tensor([[rng.gauss(0.0, 0.05) for _ in range(256)] for _ in range(8)])
    w[1, 77] = 3.0
    w[2] *= 1e-7
    w[3] = 0.125
    w[4] = 0.0
    w[5] = w[5].abs() + 0.01
    w[6] = (w[6] * 40).round() / 40
    w[7] *= torch.tensor([10.0 ** rng.uniform(-3, 3) for _ in range(256)])
    importance = torch.tensor([math.exp(rng.gauss(0.0, 1.5)) for _ in range(256)])
    importance[9] = 0.0
    importance[30] = 200.0
    return w, importance


def types(ggml, folder):
    library = folder / "ggml.so"
    sources = [ggml / "src" / name for name in ("ggml.c", "ggml-quants.c")]
    include = [f"-I{ggml / 'include'}", f"-I{ggml / 'src'}"]
    version = ['-DGGML_VERSION="0"', '-DGGML_COMMIT="0"', "-D_GNU_SOURCE"]
    for source in sources:
        run("gcc", "-c", "-fPIC", *FLAGS, *include, *version, source, "-o", folder / f"{source.stem}.o")
    run("g++", "-c", "-fPIC", *FLAGS, *include, ggml / "src" / "ggml-threading.cpp", "-o", folder / "threading.o")
    run("g++", "-shared", *folder.glob("*.o"), "-Wl,--unresolved-symbols=ignore-all", "-o", library, "-lm", "-lpthread")
    lib = ctypes.CDLL(str(library), mode=1)
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    floats = ctypes.POINTER(ctypes.c_float)
    w, importance = rows()
    tensors = {"weight": w, "importance": importance}
    for name, number in TYPES.items():
        decode = {"q2_k": "q2_K", "q3_k": "q3_K", "q4_k": "q4_K", "q5_k": "q5_K", "q6_k": "q6_K"}.get(name, name)
        for kind, weights in (("", None), ("-imatrix", importance))[name in DEMANDING :]:
            source = (ctypes.c_float * w.numel())(*w.flatten().tolist())
            counts = (ctypes.c_float * 256)(*weights.tolist()) if weights is not None else None
            packed, out = ctypes.create_string_buffer(1 << 16), (ctypes.c_float * w.numel())()
            used = lib.ggml_quantize_chunk(
                ctypes.c_int(number), source, packed, ctypes.c_int64(0), ctypes.c_int64(8), ctypes.c_int64(256), counts
            )
            getattr(lib, f"dequantize_row_{decode}")(packed, ctypes.cast(out, floats), ctypes.c_int64(w.numel()))
            tensors[name + kind] = torch.tensor(list(out)).reshape(8, 256)
            tensors[name + "-bits"] = torch.tensor([float(used) * 8])
    save_file(tensors, GOLDENS / "types.safetensors")


def grids(ggml):
    text = (ggml / "src" / "ggml-quants.c").read_text()
    packed = b""
    for name in ("2bit_256", "2bit_512", "2bit_1024", "1bit_2048", "256", "512"):
        points = re.search(rf"\bkgrid_{name}\[\w+\] = \{{([^}}]*)\}}", text)[1]
        points = [int(point) for point in re.findall(r"\d+", points)]
        assert len(points) == int(name.split("_")[-1]), name
        packed += struct.pack(f"<{len(points)}H", *points)
    GRIDS.write_bytes(packed)


def mixtures(llama, ggml, folder):
    text = (llama / "src" / "llama-quant.cpp").read_text()
    names = [
        "tensor_category", "tensor_name_match_token_embd", "tensor_name_match_output_weight", "tensor_get_category",
        "category_is_attn_v", "tensor_type_fallback", "llama_tensor_get_type_impl", "llama_ftype_get_default_type",
    ]  # fmt: skip
    cut = "\n".join(function(text, name) for name in names)
    known = (llama / "include" / "llama.h").read_text()
    number = {}
    for file in FILES:
        upper = file.upper()
        number[file] = "LLAMA_FTYPE_MOSTLY_" + upper
        assert re.search(rf"\b{number[file]}\b", known), file
    files = ", ".join(f'{{"{file}", {name}}}' for file, name in number.items())
    source = folder / "mix.cpp"
    source.write_text(DRIVER.replace("CUT", cut).replace("FILETYPES", files))
    include = [f"-I{llama / 'include'}", f"-I{llama / 'src'}", f"-I{llama / 'ggml' / 'include'}"]
    run("g++", "-std=c++17", "-O1", *include, source, folder / "ggml.so", f"-Wl,-rpath,{folder}",
        "-Wl,--unresolved-symbols=ignore-all", "-o", folder / "mix")  # fmt: skip
    golden = []
    for name, *rest in MODELS:
        found = {}
        said = subprocess.run([folder / "mix", *map(str, rest)], check=True, capture_output=True, text=True).stdout
        for line in said.splitlines():
            file, imatrix, kind, type_ = line.split()
            found.setdefault((file, imatrix), {}).setdefault(kind, []).append(type_.lower())
        for (file, imatrix), kinds in found.items():
            runs = {}
            for kind, all_ in kinds.items():
                short = []
                for one in all_:
                    if short and short[-1][0] == one:
                        short[-1][1] += 1
                    else:
                        short.append([one, 1])
                runs[kind] = " ".join(f"{one}*{count}" for one, count in short)
            golden.append(json.dumps({"model": name, "file": file, "imatrix": imatrix == "1", **runs}))
    (GOLDENS / "mixtures.json").write_text("[\n" + ",\n".join(golden) + "\n]\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ggml", type=Path, required=True)
    parser.add_argument("--llama", type=Path, required=True)
    args = parser.parse_args()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    grids(args.ggml)
    with tempfile.TemporaryDirectory() as folder:
        types(args.ggml, Path(folder))
        mixtures(args.llama, args.ggml, Path(folder))

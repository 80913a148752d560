"""Perplexity by llama.cpp's protocol, F32: bitsweep beside `llama-perplexity`, the same weights, windows and threads.

    cargo build --release
    pip install torch transformers sentencepiece numpy
    cmake -B SOURCE/build -S SOURCE -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF
    cmake --build SOURCE/build --target llama-perplexity
    python benches/llama_cpp.py --source SOURCE --tokenizer DIR [--text FILE] [--window 2048] [--windows 4]

SOURCE is a checkout of llama.cpp (PyPI's llama-cpp-python carries one in `vendor/`). Its own `convert_hf_to_gguf.py`
makes the F32 GGUF. The tokenizer must be a sentencepiece one (`tokenizer.model`).

Settings of the peer: the fastest of `--try`, each tried once on the same text. Batches (`-b`) of one window or more,
since it computes no faster with less; micro-batches (`-ub`), flash attention on and off, a cache in f32 or (its
default) f16.

Counted on both sides: tokenizing, the passes, logits of the second halves of windows and their log-softmax. On
bitsweep's that is the record's `seconds`; on llama.cpp's the time it prints for tokenizing, and what passes between its
lines "calculating perplexity" and "Final estimate", by its own log's clock. Not counted: loading, warming up.
"""
import os
import pathlib
import re
import subprocess
import sys

import common
from common import Side

DEFAULT = "512/on/f16,2048/on/f16,512/off/f16,512/on/f32,512/off/f32,2048/off/f32"


def convert(args, model, where):
    """The model as F32 GGUF."""
    made = where / f"{model.name}-f32.gguf"
    if not made.exists():
        subprocess.run([sys.executable, args.source / "convert_hf_to_gguf.py", model, "--outtype", "f32",
                        "--outfile", made], check=True, capture_output=True)
    return made


def clock(line):
    """Seconds that a line of its log begins with: minutes.seconds.milliseconds.microseconds."""
    m, s, ms, us = map(int, re.match(r"(?:\x1b\[\d*m)*(\d+)\.(\d+)\.(\d+)\.(\d+)", line).groups())
    return m * 60 + s + ms / 1e3 + us / 1e6


def peer(args, gguf, text, setting, tries=5):
    """Runs it once; again where the log has lost its end, as it does at times: a thread writes it, and the program does
    not wait for that."""
    ub, flash, cache = setting
    command = [
        args.perplexity, "-m", gguf, "-f", text, "-c", str(args.window), "--chunks", str(args.windows),
        "-b", str(max(args.window, int(ub))), "-ub", ub, "-fa", flash, "-ctk", cache, "-ctv", cache,
        "-t", str(args.threads), "-tb", str(args.threads), "--log-timestamps", "--log-prefix", "--log-colors", "off",
    ]
    ran = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         errors="replace", env={**os.environ, "OMP_NUM_THREADS": str(args.threads)})
    log = ran.stdout
    lines = {word: next((line for line in log.splitlines() if word in line), None)
             for word in ("tokenization took", "calculating perplexity over", "Final estimate")}
    if not ran.returncode and not lines["Final estimate"] and tries > 1:
        return peer(args, gguf, text, setting, tries - 1)
    if ran.returncode or None in lines.values():
        sys.exit(f"llama-perplexity ended with {ran.returncode}, and its log lacks "
                 f"{[w for w, line in lines.items() if line is None]}:\n{log[-3000:]}")
    tokens = float(re.search(r"took ([\d.e+-]+) ms", lines["tokenization took"])[1]) / 1e3
    seconds = tokens + clock(lines["Final estimate"]) - clock(lines["calculating perplexity over"])
    value = float(re.search(r"PPL = ([\d.]+)", lines["Final estimate"])[1])
    return Side(seconds, value)


def main():
    parser = common.with_text(common.arguments(__doc__), window=2048, windows=4)
    parser.add_argument("--source", type=pathlib.Path, required=True, help="llama.cpp's source folder")
    parser.add_argument("--perplexity", type=pathlib.Path, help="default: SOURCE/build/bin/llama-perplexity")
    parser.add_argument("--try", dest="settings", default=DEFAULT,
                        help="micro-batch/flash attention/cache, ... (default: %(default)s)")
    args = parser.parse_args()
    args.perplexity = args.perplexity or args.source / "build/bin/llama-perplexity"
    common.machine()
    with common.folder(args) as where:
        model, text = common.model(args, where), common.text(args, where, args.window * args.windows)
        gguf = convert(args, model, where)
        version = subprocess.run([args.perplexity, "--version"], capture_output=True, text=True)
        print(*(version.stdout + version.stderr).split("\n")[:2], sep="; ")
        tried = {}
        for setting in args.settings.split(","):
            side = peer(args, gguf, text, setting.split("/"))
            tried[setting] = side.seconds
            print(f"llama-perplexity -ub/-fa/-ctk,-ctv {setting}: {side.seconds:.3f} s  {side.value:.4f}", flush=True)
        best = min(tried, key=tried.get)
        print(f"the fastest: {best}, with -b {max(args.window, int(best.split('/')[0]))}")
        task = common.text_task(where, text, args.window, args.windows, "llama-cpp")

        def ours():
            run = common.bitsweep(args, where, model, [task])
            return Side(run.seconds(), run.value())

        ratio = common.pairs(args, ours, lambda: peer(args, gguf, text, best.split("/")),
                             ("bitsweep", "llama.cpp"), (args.window * args.windows, "tokens"))
    common.verdict("tokens/s, bitsweep / llama.cpp", ratio, 1.3, least=True)


if __name__ == "__main__":
    main()

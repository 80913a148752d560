"""What the benchmark commands share: random models, texts, runs of bitsweep, pairs of timings and their ratios.

A model is made here, with random weights, in the shape of a LLaMA: `SMALL` is the "125M" of the commands' names,
`LARGE` about 2.2 GB in bf16. Random weights cost what trained ones cost, and their scores mean nothing; that both
sides give the same score is the check that both did the same work. A tokenizer is the user's (`--tokenizer`), a text
too (`--text`).
"""
import argparse
import contextlib
import json
import math
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import typing

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent.parent


class Shape(typing.NamedTuple):
    """Of a LLaMA. All matrices have no bias; the head is not the embedding (untied)."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    vocab: int = 32000
    context: int = 2048
    dtype: str = "F32"

    def tensors(self):
        """`(name, shape)` of every tensor, in the order of the walk."""
        d, kv = self.hidden, self.hidden // self.heads * self.kv_heads
        yield "model.embed_tokens.weight", (self.vocab, d)
        for i in range(self.layers):
            block = f"model.layers.{i}."
            yield block + "input_layernorm.weight", (d,)
            for name, rows in (("q", d), ("k", kv), ("v", kv)):
                yield f"{block}self_attn.{name}_proj.weight", (rows, d)
            yield block + "self_attn.o_proj.weight", (d, d)
            yield block + "post_attention_layernorm.weight", (d,)
            yield block + "mlp.gate_proj.weight", (self.inner, d)
            yield block + "mlp.up_proj.weight", (self.inner, d)
            yield block + "mlp.down_proj.weight", (d, self.inner)
        yield "model.norm.weight", (d,)
        yield "lm_head.weight", (self.vocab, d)

    def parameters(self):
        return sum(math.prod(shape) for _, shape in self.tensors())


# 134 million parameters, 110 million of them in matrix products a token passes through.
SMALL = Shape(hidden=768, layers=12, heads=12, kv_heads=12, inner=2048)
# TinyLlama's: 1.1 billion parameters, 2.2 GB.
LARGE = Shape(hidden=2048, layers=22, heads=32, kv_heads=4, inner=5632, dtype="BF16")


def arguments(doc, model=True):
    """A parser with the options that all commands have. `model`: a checkpoint may be given in place of a random one."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if model:
        parser.add_argument("model", nargs="?", help="a LLaMA in Hugging Face layout; default: random, 125M shape")
    parser.add_argument("--tokenizer", type=pathlib.Path, metavar="DIR",
                        help="folder of the tokenizer.json (tokenizer.model for llama.cpp) of a random model, "
                             "at most 32,000 tokens")
    parser.add_argument("--bitsweep", default=str(HERE / "target/release/bitsweep"), metavar="FILE")
    parser.add_argument("--pairs", type=int, default=5, help="after one that is not counted")
    parser.add_argument("--others", type=float, default=0.1, metavar="SHARE",
                        help="a pair is repeated if other processes took more of the processors (default: %(default)s)")
    parser.add_argument("--patience", type=int, default=20, help="pairs repeated at most (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR",
                        help="where models and results stay, to be used again; default: a temporary folder")
    return parser


def with_text(parser, window, windows):
    """Options of a text in windows."""
    parser.add_argument("--text", type=pathlib.Path, metavar="FILE", help="default: this project's documents")
    parser.add_argument("--window", type=int, default=window, help="tokens of a window (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=windows, help="how many (default: %(default)s)")
    return parser


@contextlib.contextmanager
def folder(args):
    """A temporary folder, or the one that is kept."""
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        yield args.keep.resolve()
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield pathlib.Path(temporary)


def model(args, where, name="llama-125m", shape=SMALL):
    """The model that was named, or a random one in `where`."""
    if getattr(args, "model", None):
        return pathlib.Path(args.model).resolve()
    made = where / name
    if not (made / "config.json").exists():
        if not args.tokenizer:
            sys.exit("a random model needs a vocabulary: --tokenizer DIR (or name a model)")
        write_model(made, args.tokenizer, shape)
    return made


def write_model(made, tokenizer, shape, shard=1_000_000_000, seed=0):
    """A checkpoint with weights from a normal distribution of deviation 0.02 and gains of 1, in shards of about `shard`
    bytes. No more than one tensor is in memory. `config.json` is written last: with it, the model is whole."""
    made.mkdir(parents=True, exist_ok=True)
    vocabulary(made, tokenizer, shape)
    size = {"F32": 4, "BF16": 2}[shape.dtype]
    shards, full = [[]], 0
    for name, dims in shape.tensors():
        if full > shard:
            shards.append([])
            full = 0
        shards[-1].append((name, dims))
        full += size * math.prod(dims)
    random, index = np.random.default_rng(seed), {}
    for i, tensors in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        header, at = {}, 0
        for name, dims in tensors:
            end = at + size * math.prod(dims)
            header[name] = dict(dtype=shape.dtype, shape=dims, data_offsets=[at, end])
            index[name], at = file, end
        head = json.dumps(header).encode()
        head += b" " * (-len(head) % 8)
        with (made / file).open("wb") as out:
            out.write(len(head).to_bytes(8, "little") + head)
            for _, dims in tensors:
                if len(dims) == 1:
                    values = np.ones(dims, np.float32)
                else:
                    values = random.standard_normal(dims, np.float32)
                    values *= 0.02
                # bf16 is the upper half of f32; that it is cut off and not rounded does no harm here.
                out.write((values if size == 4 else (values.view(np.uint32) >> 16).astype(np.uint16)).tobytes())
    if len(shards) > 1:
        (made / "model.safetensors.index.json").write_text(json.dumps(dict(metadata={}, weight_map=index)))
    (made / "config.json").write_text(json.dumps(dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", hidden_size=shape.hidden,
        intermediate_size=shape.inner, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, vocab_size=shape.vocab, max_position_embeddings=shape.context,
        rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, attention_bias=False, mlp_bias=False,
        bos_token_id=1, eos_token_id=2, torch_dtype={"F32": "float32", "BF16": "bfloat16"}[shape.dtype],
    ), indent=1))


def vocabulary(made, given, shape):
    """The tokenizer's files, and a config that makes transformers read tokenizer.json as it stands."""
    if not (given / "tokenizer.json").is_file():
        sys.exit(f"--tokenizer: `{given}` has no tokenizer.json")
    whole = json.loads((given / "tokenizer.json").read_text(encoding="utf-8"))
    ids = [*whole["model"]["vocab"].values(), *(t["id"] for t in whole["added_tokens"])]
    if max(ids) >= shape.vocab:
        sys.exit(f"--tokenizer: `{given}` has ids up to {max(ids)}, the model {shape.vocab} of them")
    for name in ("tokenizer.json", "tokenizer.model"):
        if (given / name).is_file():
            shutil.copyfile(given / name, made / name)
    special = [t["content"] for t in whole["added_tokens"]]
    config = dict(tokenizer_class="PreTrainedTokenizerFast", model_max_length=shape.context,
                  clean_up_tokenization_spaces=False)
    for key, token in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")):
        if token in special:
            config[key] = token
    (made / "tokenizer_config.json").write_text(json.dumps(config))


def text(args, where, tokens):
    """The text that was named, else this project's documents, joined: as much of it as `tokens` need at 12 bytes each,
    since tokenizing is counted. It ends without a line break, which one of the peers would cut off."""
    paths = [args.text] if args.text else sorted((HERE / "docs").glob("*.md"))
    whole = "\n".join(p.read_text(encoding="utf-8") for p in paths)
    cut = where / f"text-{tokens}.txt"
    cut.write_text(whole[: 12 * tokens].rstrip(), encoding="utf-8")
    return cut


def text_task(where, path, window, windows, protocol="windows"):
    """A task of perplexity, as a file; returns its path."""
    task = where / f"text-{protocol}-{window}x{windows}.toml"
    task.write_text(
        "about = 'bench'\nversion = 1\nmetrics = ['perplexity']\n"
        f"[data.file]\npath = {json.dumps(str(path))}\n"
        f"[ask.perplexity]\nprotocol = '{protocol}'\nwindow = {window}\nwindows = {windows}\n"
    )
    return str(task)


class Run(typing.NamedTuple):
    """What a run of bitsweep left: records in the study's order; seconds of the whole process; the most memory that was
    resident, bytes, as the system counts it; where the results lie."""

    records: list
    wall: float
    resident: int
    out: pathlib.Path

    def seconds(self):
        """Of all cells: evaluation with tokenizing, without loading and quantizing."""
        return sum(r["cost"]["seconds"] for r in self.records)

    def value(self, metric="perplexity", recipe=None):
        for record in self.records:
            if recipe is None or record["recipe"]["name"] == recipe:
                return record["metrics"][metric]["value"]
        sys.exit(f"no record of {recipe}")


def bitsweep(args, where, model, tasks, recipes=(), only=None, data=None, options=(), before=()):
    """Runs one study in a process of its own. `only` picks cells (`*/w8a8/*`); `data` are local files of tasks;
    `options` go behind the study, `before` in front of the program (a command that limits it)."""
    study = where / "study.toml"
    study.write_text(
        f"about = 'bench'\nmodels = [{json.dumps(str(model))}]\ntasks = {json.dumps(list(tasks))}\n"
        f"recipes = {json.dumps(list(recipes))}\n"
        + ("[data]\n" + "".join(f"{k} = {json.dumps(str(v))}\n" for k, v in data.items()) if data else "")
    )
    out = pathlib.Path(tempfile.mkdtemp(prefix="results-", dir=where))
    command = [*before, str(args.bitsweep), str(study), "--out", str(out), *options]
    if only:
        command += ["--only", only]
    env = {**os.environ, "RAYON_NUM_THREADS": str(args.threads)}
    with (out / "log").open("w") as log:
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        _, status, used = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} ended with {child.returncode}:\n{(out / 'log').read_text()}")
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    for record in records:
        if record["status"] != "done":
            sys.exit(f"{record['recipe']['name']}: {record['status']}: {record.get('why')}")
    return Run(records, wall, used.ru_maxrss * 1024, out)


class Side(typing.NamedTuple):
    """One timing: seconds, and the number that both sides must give."""

    seconds: float
    value: float


class Others:
    """The share of the processors that other processes took while something ran here (Linux only, else 0)."""

    def __init__(self):
        self.began, self.busy, self.own = time.perf_counter(), *self.read()

    @staticmethod
    def read():
        """Seconds of all processors spent at work, and of them this process' and its ended children's."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        own = sum(u.ru_utime + u.ru_stime for u in used)
        stat = pathlib.Path("/proc/stat")
        if not stat.exists():
            return own, own
        # user nice system idle iowait irq softirq steal
        ticks = [int(t) for t in stat.read_text().split("\n", 1)[0].split()[1:9]]
        return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), own

    def share(self):
        busy, own = self.read()
        spent = (time.perf_counter() - self.began) * os.cpu_count()
        return max(0.0, (busy - self.busy - (own - self.own)) / spent)


def pairs(args, ours, theirs, names=("bitsweep", "peer"), unit=None, same=True):
    """Runs both in turn, `args.pairs` times after one that is not counted; prints every pair and the medians. `ours`
    and `theirs` return a `Side`. `unit` is `(count, word)`: what a side does, for its rate; `same`: whether both must
    give one value. A pair during which other processes took more than `args.others` of the processors is printed, not
    counted, and repeated, up to `args.patience` times. Returns the median of the ratios theirs / ours: how many times
    as fast ours is."""
    ratios, rates, apart, patience, first = [], ([], []), 0, args.patience, True
    while len(ratios) < args.pairs:
        others = Others()
        a, b = ours(), theirs()
        share = others.share()
        if first:
            first = False
            continue
        line = []
        for name, side in zip(names, (a, b)):
            rate = f" {unit[0] / side.seconds:8.1f} {unit[1]}/s" if unit else ""
            line.append(f"{name} {side.seconds:8.3f} s{rate}  {side.value:.6f}")
        counted = share <= args.others or patience <= 0
        print("   ".join(line), f"  ratio {b.seconds / a.seconds:.3f}   others {share:.0%}"
              + ("" if counted else ": not counted"), flush=True)
        if not counted:
            patience -= 1
            continue
        ratios.append(b.seconds / a.seconds)
        apart = max(apart, abs(a.value / b.value - 1))
        rates[0].append(a.seconds)
        rates[1].append(b.seconds)
    for name, kept in zip(names, rates):
        middle = statistics.median(kept)
        rate = f", {unit[0] / middle:.1f} {unit[1]}/s" if unit else ""
        print(f"median of {name}: {middle:.3f} s{rate}")
    ratio = statistics.median(ratios)
    if same:
        print(f"values differ by at most {apart:.1e}, relative")
    print(f"median of {len(ratios)} ratios {names[1]} / {names[0]}, seconds: {ratio:.3f} "
          f"({min(ratios):.3f} to {max(ratios):.3f})", flush=True)
    return ratio


def verdict(what, got, wanted, least):
    """One line: the ratio beside the one wanted, of which it is to be at least (`least`) or at most as much."""
    fine = got >= wanted if least else got <= wanted
    print(f"{what}: {got:.3f}, wanted at {'least' if least else 'most'} {wanted}: {'reached' if fine else 'missed'}")


def machine():
    """One line about where this runs."""
    name = next((line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines()
                 if line.startswith("model name")), "?") if pathlib.Path("/proc/cpuinfo").exists() else "?"
    print(f"{name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")

#!/usr/bin/env python3
"""Makes the pickled checkpoints that `tests/pickles.rs` reads: `tests/fixtures/pickles/`.

    pip install torch safetensors
    python tests/make_pickles.py

`<case>/` holds weights of another fixture (`CASES` says which; the test has the same list), saved by torch in one more
way. Each is read back by torch and compared before it is kept. `hostile/` holds files that ask Python to run something:
each is shown to do so (it makes a file when Python's own unpickler reads it) before it is kept.
"""

import io
import json
import os
import pickle
import shutil
import struct
import sys
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent / "fixtures"
OUT = HERE / "pickles"


def weights(source):
    """A fixture's tensors; of its shards all."""
    merged = OrderedDict()
    for file in sorted((HERE / source).glob("model*.safetensors")):
        merged.update(load_file(file))
    return merged


def state(tensors):
    """As `module.state_dict()` gives it: an OrderedDict with an attribute."""
    out = OrderedDict(tensors)
    out._metadata = OrderedDict({"": {"version": 1}, "h": {"version": 2}})
    return out


def transposed(tensors):
    """Every matrix is the transpose of what is stored; one in three starts inside a larger storage, with gaps."""
    out = OrderedDict()
    for i, (name, t) in enumerate(tensors.items()):
        if t.dim() == 2 and i % 3 == 0:
            wide = torch.full((t.shape[1] + 3, t.shape[0] + 5), 7.0, dtype=t.dtype)
            wide[2:-1, 4:-1] = t.T
            t = wide[2:-1, 4:-1].T
            assert not t.is_contiguous() and t.storage_offset() > 0
        elif t.dim() == 2:
            t = t.T.contiguous().T
        out[name] = t
    return out


def shared(tensors):
    """All tensors are views of one storage."""
    flat = torch.cat([t.flatten() for t in tensors.values()])
    out, at = OrderedDict(), 0
    for name, t in tensors.items():
        out[name] = flat[at : at + t.numel()].view(t.shape)
        at += t.numel()
    return out


def buffers(tensors):
    """Beside the weights, tensors of every type that a module may keep, and things that are no tensors."""
    out = OrderedDict(tensors)
    types = "bool uint8 int8 int16 int32 int64 float64 complex64 uint16 uint32 float8_e4m3fn".split()
    for kind in types:
        out[f"buffer.{kind}"] = torch.arange(6).reshape(2, 3).to(getattr(torch, kind))
    out["buffer.scalar"] = torch.tensor(-1e4)
    out["buffer.empty"] = torch.zeros(0, 4)
    out["buffer.expanded"] = torch.arange(5).expand(3, 5)
    out["buffer.sliced"] = torch.arange(20)[3::4]
    out["epoch"], out["loss"], out["seed"], out["note"] = 3, 0.5, 2**70, None
    return out


def with_attribute(tensors):
    out = OrderedDict(tensors)
    first = next(iter(out))
    out[first] = torch.nn.Parameter(out[first].clone(), requires_grad=False)
    out[first].note = "saved through _rebuild_parameter_with_state"
    return out


def old(value, path):
    torch.save(value, path, _use_new_zipfile_serialization=False)


# name: whose weights, what is saved, how
CASES = {
    "single": ("opt/old-names", state, torch.save),
    "bf16": ("llama/bf16", state, torch.save),
    "sharded-f16": ("llama/sharded-f16", state, torch.save),
    "strided": ("gpt2/untied", transposed, torch.save),
    "one-storage": ("opt/no-bias", shared, torch.save),
    "parameters": ("opt/350m", lambda t: {k: torch.nn.Parameter(v) for k, v in t.items()}, torch.save),
    "attribute": ("opt/350m", with_attribute, torch.save),
    "nested": ("gpt2/untied", lambda t: {"epoch": 1, "model": {"state_dict": state(t)}}, torch.save),
    "buffers": ("opt/no-bias", buffers, torch.save),
    "before-1.6": ("opt/old-names", state, old),
    "before-1.6-strided": ("gpt2/untied", transposed, old),
    "protocol-4": ("opt/no-bias", state, lambda v, p: torch.save(v, p, pickle_protocol=4)),
}


def inner(value):
    for key in ("model", "state_dict"):
        value = value.get(key, value)
    return value


def checkpoints():
    for case, (source, change, save) in CASES.items():
        folder = OUT / case
        folder.mkdir(parents=True)
        tensors = weights(source)
        files = {"pytorch_model.bin": list(tensors)}
        if case.startswith("sharded"):
            names, half = list(tensors), len(tensors) // 2
            files = {
                "pytorch_model-00001-of-00002.bin": names[:half],
                "pytorch_model-00002-of-00002.bin": names[half:],
            }
            total = sum(t.numel() * t.element_size() for t in tensors.values())
            weight_map = {n: f for f, part in files.items() for n in part}
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
        for file, names in files.items():
            path = folder / file
            save(change({n: tensors[n] for n in names}), path)
            back = inner(torch.load(path, weights_only=False))
            for name in names:
                assert torch.equal(back[name], tensors[name]), (case, name)
                assert back[name].dtype == tensors[name].dtype, (case, name)


# ------------------------------------------------------------------------------------------------------------------
# Files that would run something.


def text(s):
    return b"X" + struct.pack("<I", len(s)) + s.encode()


def hostile():
    folder = OUT / "hostile"
    folder.mkdir()
    good = io.BytesIO()
    torch.save(OrderedDict(w=torch.ones(2, 3)), good)
    entries = zipfile.ZipFile(good)
    root = entries.namelist()[0].split("/")[0]
    plain = entries.read(f"{root}/data.pkl")
    assert plain.startswith(b"\x80\x02") and plain.endswith(b".")
    body = plain[2:-1]

    mark = "bitsweep-was-here"  # in the current folder, which is a temporary one below
    touch = f"touch {mark}"
    python = f"open({mark!r}, 'w').close()"
    call = b"cposix\nsystem\n" + text(touch) + b"\x85R"  # REDUCE of a tuple of one
    dropped = b"0"  # POP: the value goes, its effect stays
    cases = {
        "reduce": b"\x80\x02" + call + dropped + body + b".",
        "reduce-os": b"\x80\x02cos\nsystem\n" + text(touch) + b"\x85R0" + body + b".",
        "at-the-end": plain[:-1] + call + dropped + b".",
        "eval": b"\x80\x02cbuiltins\neval\n" + text(python) + b"\x85R0" + body + b".",
        "eval-of-python-2": b"\x80\x02c__builtin__\neval\n" + text(python) + b"\x85R0" + body + b".",
        "stack-global": b"\x80\x04" + text("os") + text("system") + b"\x93" + text(touch) + b"\x85R0" + body + b".",
        "dotted": b"\x80\x04" + text("torch") + text("os.system") + b"\x93" + text(touch) + b"\x85R0" + body + b".",
        "inst": b"\x80\x02(" + text(touch) + b"ios\nsystem\n0" + body + b".",
        "obj": b"\x80\x02(cos\nsystem\n" + text(touch) + b"o0" + body + b".",
        "inst-class": b"\x80\x02(" + text(touch) + b"isubprocess\ngetoutput\n0" + body + b".",
        "newobj": b"\x80\x02csubprocess\nPopen\n(" + text("touch") + text(mark) + b"l\x85\x810" + body + b".",
        "in-an-argument": b"\x80\x02" + body.replace(b"\x89h\x00)R", b"\x89" + call, 1) + b".",
        "in-a-shape": b"\x80\x02" + body.replace(b"K\x02K\x03", call + b"0K\x02K\x03", 1) + b".",
        "in-the-metadata": plain[:-1] + b"}" + text("_metadata") + call + b"sb.",
        "as-a-name": b"\x80\x02}" + call + b"K\x01s0" + body + b".",
        "getattr": b"\x80\x02cbuiltins\ngetattr\ncos\nsystem\n"
        + text("__call__") + b"\x86R" + text(touch) + b"\x85R0" + body + b".",
        "runpy": b"\x80\x02crunpy\n_run_code\n" + text(python) + b"}\x86R0" + body + b".",
    }

    class Loads(pickle.Unpickler):
        def persistent_load(self, pid):
            return torch.zeros(6).untyped_storage()

        def find_class(self, module, name):
            if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
                return lambda *a: torch.zeros(2, 3)
            return super().find_class(module, name)

    for name, stream in cases.items():
        with tempfile.TemporaryDirectory() as scratch:
            before = os.getcwd()
            os.chdir(scratch)
            try:
                Loads(io.BytesIO(stream)).load()
            except Exception as e:
                print(f"{name}: {e!r}", file=sys.stderr)
            bit = os.path.exists(mark)
            os.chdir(before)
        # NEWOBJ makes a Popen that its own __init__ has not run on: refused here for its name alone.
        assert bit or name == "newobj", name
        with zipfile.ZipFile(folder / f"{name}.bin", "w", zipfile.ZIP_STORED) as out:
            for entry in entries.namelist():
                info = zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0))
                out.writestr(info, stream if entry.endswith("data.pkl") else entries.read(entry))


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    checkpoints()
    hostile()

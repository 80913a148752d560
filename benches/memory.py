"""A model of 2.2 GB under a memory limit of 700 MB: that it completes, and gives the number that it gives without.

    cargo build --release
    pip install numpy
    python benches/memory.py --tokenizer DIR [--limit-mb 700] [--limit-by systemd|cgroup2|cgroup1|rlimit|"COMMAND ..."]

The model has TinyLlama's shape (1.1 billion parameters, bf16, 3 shards) and random weights; the text is two windows of
256 tokens; recipes `full` and `w4`. It runs once as it is, and once with `--memory` under the limit. Compared: both
perplexities, digit for digit.

How it is limited, the first of these that works here:
  systemd   `systemd-run --user --scope -p MemoryMax=.. -p MemorySwapMax=0`: a cgroup; counts the file's pages too,
            which the kernel drops when the limit comes near
  cgroup2, cgroup1
            a group of our own, for root; counts what systemd's does
  rlimit    `prlimit --data=..`: address space that is reserved, whether it is touched or not, so a stricter limit than
            one of memory; pages of mapped files are not counted, but they are in the resident size, which must stay
            below the limit as well
  a command that is put in front of the program, with {bytes} where the limit stands

Peak memory is the largest resident size of the process as the system counts it (`ru_maxrss` of wait4), with mapped
pages of files, and whatever the program's records say themselves.
"""
import pathlib
import shlex
import shutil
import subprocess

import common

# A control group of our own, of version 2 or 1: for root.
GROUP = 'mkdir -p $0 && echo {bytes} > $0/%s && echo $$ > $0/cgroup.procs && exec "$@"'
WAYS = {
    "systemd": "systemd-run --user --scope --quiet -p MemoryMax={bytes} -p MemorySwapMax=0",
    "cgroup2": f"sh -c {shlex.quote('test -e /sys/fs/cgroup/cgroup.controllers && ' + GROUP % 'memory.max')} /sys/fs/cgroup/bitsweep-bench",
    "cgroup1": f"sh -c {shlex.quote(GROUP % 'memory.limit_in_bytes')} /sys/fs/cgroup/memory/bitsweep-bench",
    "rlimit": "prlimit --data={bytes}",
}


def way(args):
    """The command in front of the program, and its name."""
    asked = [args.limit_by] if args.limit_by else list(WAYS)
    for name in asked:
        command = WAYS.get(name, name).replace("{bytes}", str(args.limit_mb * 10**6))
        command = shlex.split(command)
        if not shutil.which(command[0]):
            continue
        # Does it hold? A child that takes twice as much must fail.
        greedy = f"x = b'\\1' * {2 * args.limit_mb * 10**6}"
        tried = subprocess.run([*command, common.sys.executable, "-c", greedy], capture_output=True)
        plain = subprocess.run([*command, "true"], capture_output=True)
        if plain.returncode == 0 and tried.returncode != 0:
            return command, name
        print(f"{name} does not limit here: {plain.stderr.decode().strip() or 'twice as much was given'}")
    common.sys.exit("no way to limit memory here; --limit-by names a command")


def reported(run):
    """What the records say of peak memory, if they do: bytes, the largest."""
    return max((v for r in run.records for k, v in r["cost"].items() if "peak" in k), default=None)


def main():
    parser = common.with_text(common.arguments(__doc__), window=256, windows=2)
    parser.add_argument("--limit-mb", type=int, default=700, help="10^6 bytes (default: %(default)s)")
    parser.add_argument("--limit-by", metavar="WAY", help="default: the first that works of " + ", ".join(WAYS))
    parser.add_argument("--memory", default="{mb}M", help="bitsweep's option; '' for none (default: the limit)")
    parser.add_argument("--recipes", default="w4")
    args = parser.parse_args()
    common.machine()
    before, name = way(args)
    with common.folder(args) as where:
        model = common.model(args, where, "llama-1b", common.LARGE)
        text = common.text(args, where, args.window * args.windows)
        size = sum(f.stat().st_size for f in pathlib.Path(model).glob("*.safetensors"))
        print(f"weights: {size / 1e9:.2f} GB; limit: {args.limit_mb} MB by {name}: {' '.join(before)}", flush=True)
        task = common.text_task(where, text, args.window, args.windows)
        memory = args.memory.replace("{mb}", str(args.limit_mb))
        limited = common.bitsweep(args, where, model, [task], args.recipes.split(","), before=before,
                                  options=["--memory", memory] if memory else [])
        free = common.bitsweep(args, where, model, [task], args.recipes.split(","))
        for what, run in (("limited", limited), ("unlimited", free)):
            said = reported(run)
            print(f"{what:9}: {run.wall:.1f} s, peak resident {run.resident / 1e6:.0f} MB (system)"
                  + (f", {said / 1e6:.0f} MB (program)" if said else ""))
        same = True
        for record in free.records:
            recipe = record["recipe"]["name"]
            a, b = limited.value(recipe=recipe), free.value(recipe=recipe)
            same &= a == b
            print(f"{recipe}: limited {a!r}, unlimited {b!r}: {'equal' if a == b else 'DIFFERENT'}")
    common.verdict("peak resident MB", limited.resident / 1e6, args.limit_mb, least=False)
    common.sys.exit(0 if same and limited.resident <= args.limit_mb * 10**6 else 1)


if __name__ == "__main__":
    main()

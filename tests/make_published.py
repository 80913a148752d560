"""Writes suites/published/: the figures of the study and of other papers, a file a source, a line a series.

    python tests/make_published.py QLLM_EVAL.csv PTQ.csv [RULES.md]

QLLM_EVAL.csv is a tidy table of what thu-nics/qllm-eval ships (source,model,size_b,quant,task,metric,value,extra), PTQ.csv
one of figures that other papers print (source,model,method,wbits,abits,kvbits,group,task,metric,value,citation). Values are
copied as they are printed. RULES.md has a table of kept shares by ability and size, recomputed from the study's figures
independently: it becomes tests/goldens/published/rules.csv. A summary of both tables, for the test that nothing was lost,
goes to tests/goldens/published/figures.csv: by source, task and metric the number of figures, the sum of values and a hash
of all of them.
"""
import collections
import csv
import hashlib
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "suites" / "published"
GOLDENS = ROOT / "tests" / "goldens" / "published"

# The study. Its 19 recipes are printed in the notation that this program has; AWQ's stand behind the bits there.
STUDY = "qllm-eval"
STUDY_CITATION = (
    "Li et al., Evaluating Quantized Large Language Models, ICML 2024, arXiv:2402.18158; "
    "github thu-nics/qllm-eval@6d047af (MIT), visualization/"
)
STUDY_FIELDS = [
    "label", "model", "size_b", "checkpoint", "ability", "task", "metric", "unit", "n", "sweep", "method", "turn", "lines", "ctx",
    "position_bin", "position_index", "gold_position", "gold_position_inferred", "total_docs", "mode", "prompt_hash",
    "quant_row_order", "header_says", "commented_out_in_source",
]

# By source as the table has it: the file's name, and what shares a scale where nothing is printed and the source's own
# text says it.
SOURCES = {
    "GPTQ paper": ("gptq", ""),
    "GPTQ README": ("gptq-readme", ""),
    "GPTQ-for-LLaMa README": ("gptq-for-llama", ""),
    "OmniQuant": ("omniquant", "row"),
    "QLLM": ("qllm", "row"),
    "AWQ paper": ("awq", ""),
    "DuQuant": ("duquant", "row"),
    "LLaMA3-Quantization": ("llama3-quantization", "row"),
    "SmoothQuant": ("smoothquant", "row"),
    "KIVI": ("kivi", ""),
    "KIVI docs": ("kivi-longbench", ""),
    "AMD Quark docs": ("quark", ""),
    "SpinQuant README": ("spinquant", ""),
    "FlatQuant README": ("flatquant", ""),
    "EfficientQAT README": ("efficientqat", ""),
    "AQLM README": ("aqlm", ""),
    "MI-optimize README": ("mi-optimize", ""),
    "RPTQ README": ("rptq", ""),
    "auto-round docs": ("auto-round", ""),
    "llama.cpp": ("llama-cpp", ""),
    "lm-eval thread": ("lm-eval-thread", ""),
    "gptq issue": ("gptq-issue", ""),
    "OmniQuant issue": ("omniquant-issue", "row"),
    "lm-eval via nousnet PR": ("lm-eval-llama-3", ""),
}

# Methods as they are printed, and how this program's notation begins or ends with them.
SHARES = {"accuracy", "acc", "acc_norm", "em"}
FULL = {"FP16", "BF16", "bf16", "FP16/BF16", "GGUF F16", "GGUF fp16", "FP16 vs BF16 base"}
METHODS = {
    "RTN": "", "RTN-UINT4": "", "GPTQ": "gptq-", "GPTQ-UINT4": "gptq-", "AWQ": "awq-", "AWQ-UINT4": "awq-", "OmniQuant": "omniquant-",
    "Omniquant": "omniquant-", "OmniQuant(user rerun)": "omniquant-", "SmoothQuant": "smoothquant+", "HQQ": "hqq-",
    "AutoRound": "autoround-", "EfficientQAT": "efficientqat-", "QLLM": "qllm+", "OutlierSuppression+": "osplus+",
    "SmoothQuant(RTN)": "smoothquant+", "SmoothQuant + GPTQ": "smoothquant+gptq-", "OmniQuant(RTN)": "omniquant-", "W8A8-naive": "",
    "W8A8": "", "SpQR": "spqr-",
}
WHOLE = {"nf4": "nf4", "nf4-double_quant": "nf4-double", "fp4": "fp4", "FP8": "fp8afp8", "FP8+KV8": "fp8afp8kvfp8"}


def slug(text):
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def recipe_name(method, w, a, kv, group, usual):
    """A recipe's name: in this program's notation where that has one, else the method's name and its bits."""
    if method in WHOLE:
        return WHOLE[method]
    if method.startswith("GGUF ") and method not in FULL:
        return method[5:].lower()
    kivi = {"KIVI": "kivi", "fake KV(K-T,V-T)": "", "fake KV(K-C,V-T)": "k-channel-v-token-",
            "fake KV(K-C,V-C)": "k-channel-v-channel-", "fake KV(K-T,V-C)": "k-token-v-channel-"}
    if method == "KIVI":
        return f"kivi{kv}"
    if method in kivi:
        return f"{kivi[method]}kv{kv}g{group}"
    if method in FULL:
        return "full" if method != "FP16 vs BF16 base" else "fp16"
    per = {"row": "row", "": usual}.get(group, f"g{group}")
    acts = "" if a in ("16", "unstated") else f"a{a}"
    cache = "" if kv in ("16", "") else f"kv{kv}"
    weights = f"w{w}{per}" if w not in ("", "16") else ""
    if method in METHODS:
        return f"{METHODS[method]}{weights}{acts}{cache}"
    if method.startswith("MXFP4"):
        return slug(method) + "-mxfp4amxfp4"
    rest = weights + acts + cache
    return f"{slug(method)}-{rest}" if rest else slug(method)


def tidy(text):
    assert " | " not in text and " : " not in text and "\n" not in text, text
    return text


def write(path, head, recipes, flags, series):
    """series: [(table, {field: text}, [(recipe, value, raw, flag)])], in the order of the source."""
    out = list(head)
    for key, text in flags.items():
        out.append(f"flag {key} = {tidy(text)}")
    if flags:
        out.append("")
    for name, printed in recipes.items():
        out.append(f"recipe {name} = " + " | ".join(printed))
    tables = collections.OrderedDict()
    for table, fields, values in series:
        tables.setdefault(table, []).append((fields, values))
    for table, lines in tables.items():
        out += ["", f"[{tidy(table)}]"]
        keys = list(dict.fromkeys(k for fields, _ in lines for k in fields))
        alike = [k for k in keys if len({fields.get(k) for fields, _ in lines}) == 1]
        for key in alike:
            out.append(f"{key} = {tidy(lines[0][0][key])}")
        differ = [k for k in keys if k not in alike]
        assert differ or len(lines) == 1
        out.append("line = " + (" | ".join(differ) or "-"))
        for fields, values in lines:
            first = " | ".join(tidy(fields.get(k, "-")) for k in differ) or "-"
            cells = []
            for recipe, value, raw, flag in values:
                assert re.fullmatch(r"-?[0-9.]+(e[+-]?[0-9]+)?", value), value
                cells.append(f"{recipe}={value}" + (f"~{raw}" if raw else "") + (f"!{flag}" if flag else ""))
            out.append(f"{first} : {' '.join(cells)}")
    path.write_text("\n".join(out) + "\n", encoding="utf-8")


def study(path):
    rows = list(csv.DictReader(open(path, encoding="utf-8")))
    bits = {"w": "16", "a": "16", "kv": "16"}
    recipes, flags, series = {}, {}, collections.OrderedDict()
    for row in rows:
        extra = json.loads(row["extra"])
        printed = row["quant"]
        plain, awq = printed.removesuffix("-awq"), printed.endswith("-awq")
        name = "full" if printed == "fp16" else f"awq-{plain}" if awq else printed
        own = {**bits, **dict(re.findall(r"(kv|w|a)(\d+)", plain))} if name != "full" else bits
        group = "128" if own["w"] != "16" else ""
        recipes.setdefault(name, [printed, own["w"], own["a"], own["kv"], group or "-"])
        flag = extra.pop("flag", None)
        if flag:
            flag = flags.setdefault(flag, chr(ord("a") + len(flags)))
        raw = extra.pop("raw", None)
        assert extra.pop("corrected_typo", None) == (True if raw else None)
        table = row["source"].removeprefix("qllm_eval/visualization/")
        if "/adv_glue/assets/" in table:  # a file a recipe there
            assert table.endswith(f"/{printed}.csv")
            table = table.removesuffix(f"{printed}.csv") + "{recipe}.csv"
            sweep = "fp16" if printed == "fp16" else "kv" if "kv" in printed else "wa" if "a" in printed else "w"
            assert extra.pop("sweep") == sweep
        fields = {"label": extra.pop("repo_name"), "model": row["model"], "size_b": row["size_b"], "task": row["task"],
                  "metric": row["metric"]}
        text = {k: v if isinstance(v, str) else json.dumps(v) for k, v in extra.items()}
        assert set(text) <= set(STUDY_FIELDS), set(text) - set(STUDY_FIELDS)
        fields = {k: {**fields, **text}[k] for k in STUDY_FIELDS if k in fields or k in text}
        key = (table, tuple(fields.items()))
        series.setdefault(key, (table, fields, []))[2].append((name, row["value"], raw, flag))
    head = [
        "# What the repository of the study prints, a line a series: fields | fields : recipe=value ...; ~ as it is printed there,",
        "# before a typing error was put right; ! a flag: a reason to doubt the value. A table a file of the repository.",
        "# Written by tests/make_published.py; do not edit.",
        f"source = {STUDY}", f"citation = {STUDY_CITATION}", "",
    ]
    write(OUT / f"{STUDY}.txt", head, recipes, {v: k for k, v in flags.items()}, series.values())
    return [(STUDY, r["task"], r["metric"], r["model"], r["quant"], r["value"]) for r in rows]


def others(path):
    rows = list(csv.DictReader(open(path, encoding="utf-8")))
    by_source = collections.OrderedDict()
    for row in rows:
        by_source.setdefault(row["source"], []).append(row)
    for source, mine in by_source.items():
        stem, usual = SOURCES[source]
        recipes, names, series, flags = {}, {}, collections.OrderedDict(), {}
        # Accuracies are printed in percent, but for a few tables.
        most = collections.defaultdict(float)
        for row in mine:
            most[row["citation"]] = max(most[row["citation"]], float(row["value"]) if row["metric"] in SHARES else 0)
        for row in mine:
            printed = (row["method"], row["wbits"], row["abits"], row["kvbits"], row["group"])
            if printed not in names:
                name, n = recipe_name(*printed, usual), 2
                base = name
                while name in recipes:  # printed otherwise, the same in our notation
                    name, n = f"{base}~{n}", n + 1
                names[printed] = name
                recipes[name] = [tidy(p) or "-" for p in printed]
            table, _, doubt = row["citation"].partition(" [AS PRINTED; ")
            flag = flags.setdefault("as printed; " + doubt.rstrip("]"), "a") if doubt else None
            fields = {k: row[k] for k in ("model", "task", "metric")}
            if row["metric"] in SHARES:
                fields["unit"] = "percent" if most[row["citation"]] > 1 else "fraction"
            key = (table, tuple(fields.items()))
            series.setdefault(key, (table, fields, []))[2].append((names[printed], row["value"], None, flag))
        head = [
            f"# Figures that are printed in: {source}. A line a series: fields | fields : recipe=value ...; ! a flag. A table a citation.",
            "# recipe NAME = method | weight bits | activation bits | KV bits | group, as printed; - where nothing is. Units are this program's.",
            "# Written by tests/make_published.py; do not edit.",
            f"source = {stem}", f"printed = {source}", "",
        ]
        write(OUT / f"{stem}.txt", head, recipes, {v: k for k, v in flags.items()}, series.values())
    return [
        (SOURCES[r["source"]][0], r["task"], r["metric"], r["model"],
         "|".join(r[k] or "-" for k in ("method", "wbits", "abits", "kvbits", "group")), r["value"])
        for r in rows
    ]


def summary(figures):
    by = collections.OrderedDict()
    for source, task, metric, model, recipe, value in figures:
        by.setdefault((source, task, metric), []).append("\t".join((model, recipe, value)))
    lines = [["source", "task", "metric", "figures", "sum", "sha256"]]
    for key, texts in sorted(by.items()):
        total = sum(float(t.rsplit("\t", 1)[1]) for t in texts)
        digest = hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:16]
        lines.append([*key, len(texts), repr(total), digest])
    with open(GOLDENS / "figures.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows(lines)


def rules(path):
    text = pathlib.Path(path).read_text(encoding="utf-8")
    text = text[text.index("### 4.3"):]
    lines = [l for l in text[:text.index("Reading of the table")].splitlines() if l.startswith("|")]
    cells = [[c.strip() for c in l.strip().strip("|").split("|")] for l in lines]
    out = [["ability", "size", "recipe", "kept", "near", "n"]]
    for line in cells[2:]:
        for quant, cell in zip(cells[0][2:], line[2:]):
            found = re.fullmatch(r"(\d+) \((\d+)%, n=(\d+)\)", cell)
            assert found or not cell, cell
            if found:
                recipe = f"awq-{quant.removesuffix('-awq')}" if quant.endswith("-awq") else quant
                out.append([line[0], line[1], recipe, *found.groups()])
    with open(GOLDENS / "rules.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows(out)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    GOLDENS.mkdir(exist_ok=True)
    summary(study(sys.argv[1]) + others(sys.argv[2]))
    if len(sys.argv) > 3:
        rules(sys.argv[3])

//! Mistakes in what the program is handed: each ends with exit code 2 and a message that names the file, the key or
//! tensor, and what would be valid. Never a panic, never a lost result.
use crate::kit::{Desk, Dice, QUIZ, Ran, TEXT, cell, records, safetensors, tokenizer};
use serde_json::{Value, json};
use std::{fs, process::Command};

/// Cases of one kind; all are tried before any fails.
struct Cases(Vec<String>);

impl Cases {
    fn new() -> Self {
        Self(Vec::new())
    }

    /// Must have ended with code 2, and stderr must say all of `parts`.
    fn mistake(&mut self, what: &str, ran: Ran, parts: &[&str]) {
        self.ended(what, 2, ran, parts);
    }

    fn ended(&mut self, what: &str, code: i32, ran: Ran, parts: &[&str]) {
        let missing: Vec<_> = parts.iter().filter(|p| !ran.err.contains(**p)).collect();
        if ran.code != Some(code) || !ran.sound() || !missing.is_empty() {
            let tail: String =
                ran.err.chars().rev().take(1200).collect::<Vec<_>>().into_iter().rev().collect();
            self.0.push(format!("{what}: code {:?}, stderr lacks {missing:?}:\n{tail}", ran.code));
        }
    }

    fn check(&mut self, what: &str, holds: bool) {
        if !holds {
            self.0.push(what.to_string());
        }
    }

    #[track_caller]
    fn end(self) {
        assert!(self.0.is_empty(), "{} wrong:\n\n{}", self.0.len(), self.0.join("\n\n"));
    }
}

const STUDY: &str = "about = 'x'\nmodels = ['m']\ntasks = ['text.toml']\nrecipes = ['w4']\n";

#[test]
fn studies() {
    let mut cases = Cases::new();
    let desk = Desk::new();
    for (change, parts) in [
        (("recipes =", "recipe5 ="), &["study.toml", "recipe5", "`recipes`"][..]),
        (("about = 'x'", ""), &["study.toml", "about"]),
        (("about = 'x'", "about = 5"), &["study.toml", "about", "string"]),
        (("['m']", "[]"), &["study.toml", "`models` is empty"]),
        (("['text.toml']", "[]"), &["study.toml", "`tasks` is empty"]),
        (("['m']", "['m', 'm']"), &["study.toml", "`m` is named twice"]),
        (("['m']", "['builtin:lama']"), &["builtin:lama", "builtin:llama"]),
        (("['m']", "['./nowhere']"), &["./nowhere", "builtin:llama", "directory"]),
        (("['m']", "['/nowhere/at/all']"), &["/nowhere/at/all", "directory"]),
        (("['text.toml']", "['microworld/fcts']"), &["microworld/fcts", "did you mean `microworld/facts`"]),
        (("['text.toml']", "['nosuch/*']"), &["nosuch/*", "microworld/facts"]),
        (("['text.toml']", "['gone.toml']"), &["study.toml", "gone.toml", "No such file"]),
        (("['w4']", "['w4q']"), &["study.toml", "w4q", "did you mean"]),
        (("['w4']", "['w9']"), &["study.toml", "w9", "2 to 8"]),
        (("['w4']", "['w4g0']"), &["study.toml", "w4g0", "at least 1"]),
        (("['w4']", "['gptx-w4']"), &["study.toml", "gptx-w4", "w8 w4 w3 w2"]),
        (("['w4']", "['w4', 'w4']"), &["study.toml", "two recipes", "`w4`"]),
        (("['w4']", "['w4'"), &["study.toml", "line"]),
        (("['w4']", "[4]"), &["study.toml", "recipes", "string"]),
        (("recipes", "limit = 0\nrecipes"), &["study.toml", "`limit`", "at least 1"]),
        (("recipes", "seed = -1\nrecipes"), &["study.toml", "seed"]),
        (("['w4']\n", "['w4']\n[data]\ntxet = 'a.txt'\n"), &["study.toml", "txet", "did you mean `text`"]),
        (("['w4']\n", "['w4']\n[data]\ntext = 'a.txt'\n"), &["a.txt", "No such file"]),
    ] {
        desk.write("study.toml", STUDY.replace(change.0, change.1));
        cases.mistake(&format!("{change:?}"), desk.go(), parts);
    }
    desk.write("study.toml", b"\xff\xfe");
    cases.mistake("not UTF-8", desk.go(), &["study.toml", "UTF-8"]);
    cases.mistake("no file", desk.run(&["run", &desk.arg("gone.toml")]), &["gone.toml", "quickstart"]);
    cases.mistake("a folder", desk.run(&["run", &desk.arg("m")]), &["m", "quickstart"]);
    cases.mistake("a name", desk.run(&["run", "quickstrat"]), &["did you mean `quickstart`"]);
    cases.check("a mistake in a study leaves no results", !desk.path("out/table.csv").exists());
    cases.end();
}

#[test]
fn recipe_tables() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    for (table, parts) in [
        ("name = 'a'\nweights = { bits = 4 }", &["method"][..]),
        ("name = 'a'\nweights = { method = 'rnt', bits = 4 }", &["rnt", "`rtn`"]),
        ("name = 'a'\nweights = { method = 'rtn', bitz = 4 }", &["bitz", "`bits`"]),
        ("name = 'a'\nweights = { method = 'rtn', bits = 17 }", &["`a`", "17", "2 to 8"]),
        ("name = 'a'\nweights = { method = 'rtn', bits = 4, per = 'colum' }", &["colum", "`group`"]),
        ("name = 'a'\nweights = { method = 'rtn', bits = 4, group = 0 }", &["`a`", "group", "at least 1"]),
        ("name = 'a'\nweights = { method = 'rtn', bits = 4, group = -1 }", &["weights", "-1"]),
        ("name = 'a'\nacts = { bits = 1 }", &["`a`", "acts", "2 to 8"]),
        ("name = 'a'\nacts = { bits = 8, per = 'tensor' }", &["`acts`", "`per = \"token\"`"]),
        ("name = 'a'\nkv = { bit = 4 }", &["kv", "unknown field `bit`", "`bits`"]),
        ("name = 'a'\nkv = { bits = '4' }", &["`kv`", "`bits`", "string"]),
        ("name = 'a'\nprecision = 'fp8'", &["`a`", "fp8", "f32, fp16, bf16"]),
        ("name = 'a'\nprepaer = []", &["prepaer", "`precision`"]),
        ("name = 'a/b'\nkv = { bits = 4 }", &["a/b", "without `/`"]),
        ("name = ''\nkv = { bits = 4 }", &["recipe", "a word"]),
        ("kv = { bits = 4 }", &["name"]),
        ("name = 'full'\nkv = { bits = 4 }", &["two recipes", "`full`"]),
        ("name = 'a'\nkv = { bits = [4, 2] }", &["two recipes are called `a`", "{"]),
        ("name = 'a{b}'\nkv = { bits = [4, 2] }", &["no list `b`", "kv.bits"]),
        ("name = 'a{bits'\nkv = { bits = [4, 2] }", &["a{bits", "`}`"]),
        ("name = 'a'\nkv = { bits = [] }", &["kv.bits", "empty list"]),
        ("name = 'a'\nskip = 'head'\nkv = { bits = 4 }", &["skip", "sequence"]),
    ] {
        desk.write("study.toml", format!("{STUDY}[[recipe]]\n{table}\n"));
        let parts: Vec<&str> = ["study.toml"].iter().chain(parts).copied().collect();
        cases.mistake(table, desk.go(), &parts);
    }
    for (gate, parts) in [
        ("task='txt'\nmetric='perplexity'\nrecipe='w4'\nworst=1.1", &["[[gate]]", "`txt`"][..]),
        ("task='text'\nmetric='perplexity'\nrecipe='w5'\nworst=1.1", &["[[gate]]", "`w5`"]),
        ("task='text'\nmetric='perplexty'\nrecipe='w4'\nworst=1.1", &["[[gate]]", "perplexty", "perplexity"]),
        ("task='text'\nmetric='acc'\nrecipe='w4'\nworst=1.1", &["[[gate]]", "`acc`", "perplexity"]),
        ("task='text'\nmetric='perplexity'\nrecipe='w4'\nworst=-1", &["[[gate]]", "worst", "positive"]),
        ("task='text'\nmetric='perplexity'\nrecipe='w4'\nbest=1", &["best", "`worst`"]),
    ] {
        desk.write("study.toml", format!("{STUDY}[[gate]]\n{gate}\n"));
        let parts: Vec<&str> = ["study.toml"].iter().chain(parts).copied().collect();
        cases.mistake(gate, desk.go(), &parts);
    }
    cases.end();
}

#[test]
fn arguments() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    let (study, out) = (desk.arg("study.toml"), desk.arg("out"));
    for (args, parts) in [
        (&["--shard", "0/2"][..], &["--shard", "0/2", "from 1 to N"][..]),
        (&["--shard", "3/2"], &["--shard", "3/2", "from 1 to N"]),
        (&["--shard", "x"], &["--shard", "`x`", "I/N"]),
        (&["--shard", "1/0"], &["--shard", "1/0"]),
        (&["--only", "zzz"], &["--only", "zzz", "m/full/text"]),
        (&["--set", "foo=1"], &["study.toml", "foo", "`recipes`"]),
        (&["--set", "recipes.9=w4"], &["--set", "recipes.9", "list of 0"]),
        (&["--set", "about.x=1"], &["--set", "about.x"]),
        (&["--set", "nothing"], &["--set", "nothing", "key=value"]),
        (&["--set", "=3"], &["--set"]),
        (&["--set", "limit=x"], &["limit", "x"]),
        (&["--set", "data.nope=x"], &["data.nope", "text"]),
        (&["--device", "x"], &["--device", "`x`", "cpu, cuda:0, metal"]),
        (&["--device", "cuda:99999999999999999999"], &["--device", "cpu, cuda:0, metal"]),
        (&["--limit", "0"], &["limit", "at least 1"]),
        (&["--limit", "x"], &["--limit"]),
        (&["--frobnicate"], &["--frobnicate"]),
    ] {
        let all: Vec<&str> = ["run", &study, "--out", &out].into_iter().chain(args.iter().copied()).collect();
        cases.mistake(&format!("run {args:?}"), desk.run(&all), parts);
        let all: Vec<&str> =
            ["plan", &study, "--out", &out].into_iter().chain(args.iter().copied()).collect();
        cases.mistake(&format!("plan {args:?}"), desk.run(&all), parts);
    }
    if !cfg!(feature = "cuda") {
        let ran = desk.run(&["run", &study, "--out", &out, "--device", "cuda:0"]);
        cases.mistake("cuda:0 on a build for CPUs", ran, &["cuda:0", "--features cuda"]);
    }
    cases.mistake("list of what", desk.run(&["list", "taks"]), &["taks", "tasks"]);
    cases.mistake("a verb of no study", desk.run(&["rnu"]), &["rnu", "quickstart"]);
    cases.mistake("report of nothing", desk.run(&["report"]), &["DIR"]);
    cases.end();
}

#[test]
fn configs() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    let good = desk.read("m/config.json");
    let mut with = |what: &str, change: &dyn Fn(&mut Value), parts: &[&str]| {
        desk.write("m/config.json", &good);
        desk.edit_json("m/config.json", change);
        let parts: Vec<&str> = ["m/config.json"].iter().chain(parts).copied().collect();
        cases.mistake(what, desk.go(), &parts);
    };
    for key in ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    {
        with(&format!("no {key}"), &|c| drop(c.as_object_mut().unwrap().remove(key)), &[key, "missing"]);
        with(&format!("{key} null"), &|c| c[key] = Value::Null, &[key, "null"]);
        with(&format!("{key} a text"), &|c| c[key] = json!("24"), &[key, "string"]);
        with(&format!("{key} negative"), &|c| c[key] = json!(-1), &[key, "-1"]);
        with(&format!("{key} a fraction"), &|c| c[key] = json!(1.5), &[key, "1.5"]);
        with(&format!("{key} 1e18"), &|c| c[key] = json!(1e18), &[key]);
        with(
            &format!("{key} 10^18"),
            &|c| c[key] = json!(1_000_000_000_000_000_000u64),
            &["1000000000000000000"],
        );
        with(&format!("{key} 2^64-1"), &|c| c[key] = json!(u64::MAX), &["18446744073709551615"]);
        with(&format!("{key} 0"), &|c| c[key] = json!(0), &["is 0"]);
    }
    for key in ["model_type", "rms_norm_eps", "max_position_embeddings"] {
        with(&format!("no {key}"), &|c| drop(c.as_object_mut().unwrap().remove(key)), &[key]);
        with(&format!("{key} null"), &|c| c[key] = Value::Null, &[key]);
    }
    with("another family", &|c| c["model_type"] = json!("lama"), &["lama", "did you mean `llama`", "bloom"]);
    with(
        "an unknown family",
        &|c| c["model_type"] = json!("rwkv"),
        &["rwkv", "llama, mistral, mixtral", "bloom, gpt2"],
    );
    with("no kv heads", &|c| c["num_key_value_heads"] = json!(0), &["key/value heads", "0"]);
    with("kv heads that do not divide", &|c| c["num_key_value_heads"] = json!(5), &["key/value heads"]);
    with("an odd head", &|c| c["head_dim"] = json!(3), &["head"]);
    with("an activation", &|c| c["hidden_act"] = json!("slu"), &["hidden_act", "slu", "silu"]);
    with(
        "a scaling",
        &|c| c["rope_scaling"] = json!({ "type": "dynamic", "factor": 2 }),
        &["rope_scaling", "dynamic", "llama3"],
    );
    with(
        "a scaling without factor",
        &|c| c["rope_scaling"] = json!({ "type": "linear" }),
        &["rope_scaling", "factor"],
    );
    with("no base", &|c| c["rope_theta"] = json!(0), &["base"]);
    with("a negative epsilon", &|c| c["rms_norm_eps"] = json!(-1), &["eps"]);
    with("a list", &|c| *c = json!([1, 2]), &["model_type"]);
    with("a BOS beyond the vocabulary", &|c| c["bos_token_id"] = json!(5000), &["bos", "5000", "67"]);
    for (what, text) in
        [("nothing", ""), ("half", &good[..good.len() / 2]), ("words", "hello"), ("NaN", "{\"a\": NaN, }")]
    {
        desk.write("m/config.json", text);
        cases.mistake(what, desk.go(), &["m/config.json", "line"]);
    }
    desk.write("m/config.json", "[".repeat(100_000));
    cases.mistake("deep", desk.go(), &["m/config.json", "recursion"]);
    desk.write("m/config.json", b"\xff\xfe");
    cases.mistake("not UTF-8", desk.go(), &["m/config.json", "UTF-8"]);
    fs::remove_file(desk.path("m/config.json")).unwrap();
    cases.mistake("no file", desk.go(), &["m/config.json", "No such file"]);
    cases.end();
}

/// What makes a spec of a config must be safe in every family: sizes are multiplied before they are checked.
#[test]
fn huge_numbers_in_every_family() {
    let mut cases = Cases::new();
    for (fixture, keys) in [
        ("llama/mha-untied", &["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size"][..]),
        ("mistral/window", &["num_hidden_layers", "hidden_size", "intermediate_size", "sliding_window"]),
        (
            "opt/350m",
            &[
                "num_hidden_layers",
                "hidden_size",
                "ffn_dim",
                "word_embed_proj_dim",
                "max_position_embeddings",
            ],
        ),
        ("bloom/heads-8", &["n_layer", "hidden_size", "n_head"]),
        ("gpt2/plain", &["n_layer", "n_embd", "n_head", "n_positions"]),
    ] {
        let desk = Desk::small();
        desk.model("m", fixture);
        let good = desk.read("m/config.json");
        for key in keys {
            assert!(good.contains(&format!("\"{key}\"")), "{fixture}: {key}");
            for huge in [10_001u64, 1 << 16, 1_000_000_000, 1 << 32, 1 << 62, i64::MAX as u64, u64::MAX] {
                desk.write("m/config.json", &good);
                desk.edit_json("m/config.json", |c| c[key] = json!(huge));
                // Little memory, so that a list of a thousand million layers is a failure here and not of the machine.
                let script = "ulimit -v 4000000; exec \"$@\"";
                let program = desk.bitsweep(&["run", &desk.arg("study.toml"), "--out", &desk.arg("out")]);
                let mut shell = Command::new("sh");
                shell.args(["-c", script, "sh"]).arg(program.get_program()).args(program.get_args());
                let what = format!("{fixture}: {key} = {huge}");
                let ran = Ran::of(shell.current_dir(desk.path("")));
                if *key == "sliding_window" && ran.code == Some(0) {
                    continue; // A window wider than the text is no window.
                }
                cases.mistake(&what, ran, &["m/"]);
            }
        }
    }
    cases.end();
}

#[test]
fn safetensors_files() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    let file = "m/model.safetensors";
    let good = fs::read(desk.path(file)).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for length in
        [0, 1, 4, 7, 8, 9, 50, header / 2, header - 1, header, header + 1, good.len() / 2, good.len() - 1]
    {
        desk.write(file, &good[..length]);
        cases.mistake(&format!("cut to {length} bytes"), desk.go(), &[file]);
    }
    desk.write(file, [&good[..], &[0]].concat());
    cases.mistake("a byte too many", desk.go(), &[file]);
    for length in
        [0u64, 1, 2, header as u64 - 9, header as u64 - 7, 1 << 20, 1 << 40, 1 << 63, u64::MAX, u64::MAX - 7]
    {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        desk.write(file, bytes);
        cases.mistake(&format!("a header of {length} bytes"), desk.go(), &[file]);
    }
    let name = "model.layers.0.mlp.up_proj.weight";
    let norm = "model.norm.weight";
    let mut with = |what: &str, change: &dyn Fn(&mut Value, &mut Vec<u8>), parts: &[&str]| {
        desk.write(file, &good);
        desk.edit_tensors(file, |h, d| change(h, d));
        let parts: Vec<&str> = [file].iter().chain(parts).copied().collect();
        cases.mistake(what, desk.go(), &parts);
    };
    with(
        "overlapping",
        &|h, _| h[name]["data_offsets"] = h["model.embed_tokens.weight"]["data_offsets"].clone(),
        &[],
    );
    with("beyond the file", &|h, _| h[name]["data_offsets"] = json!([1u64 << 40, (1u64 << 40) + 2496]), &[]);
    with("backwards", &|h, _| h[name]["data_offsets"] = json!([100, 50]), &[]);
    with("huge offsets", &|h, _| h[name]["data_offsets"] = json!([u64::MAX - 1, u64::MAX]), &[]);
    with("negative offsets", &|h, _| h[name]["data_offsets"] = json!([-5, 5]), &[]);
    with("a shape of another size", &|h, _| h[name]["shape"] = json!([1, 1]), &[]);
    with("a shape that overflows", &|h, _| h[name]["shape"] = json!([u64::MAX, u64::MAX]), &[]);
    with(
        "a shape that overflows to the right size",
        &|h, _| {
            let n: u64 = h[name]["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
            h[name]["shape"] = json!([n, 1u64 << 32, 1u64 << 32]);
        },
        &[],
    );
    with("a number type of nobody", &|h, _| h[name]["dtype"] = json!("F33"), &[]);
    with("no shape", &|h, _| drop(h[name].as_object_mut().unwrap().remove("shape")), &[]);
    with("no tensors", &|h, d| (*h, *d) = (json!({}), vec![]), &["model.embed_tokens.weight", "missing"]);
    with("a transposed tensor", &|h, _| h[name]["shape"].as_array_mut().unwrap().reverse(), &[name, "shape"]);
    with(
        "a flat tensor",
        &|h, _| {
            let n: u64 = h[name]["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product();
            h[name]["shape"] = json!([n]);
        },
        &[name, "shape"],
    );
    with(
        "a misspelt tensor",
        &|h, _| {
            let info = h.as_object_mut().unwrap().remove(norm).unwrap();
            h["model.nrom.weight"] = info;
        },
        &[norm, "missing", "did you mean `model.nrom.weight`"],
    );
    with(
        "whole numbers",
        &|h, d| {
            // A tensor of its own at the end, so that offsets still fit.
            let info = h.as_object_mut().unwrap().remove(norm).unwrap();
            let at = d.len();
            let n = info["shape"][0].as_u64().unwrap() as usize;
            d.extend(vec![0; n * 8]);
            h["unused"] = info;
            h[norm] = json!({ "dtype": "I64", "shape": [n], "data_offsets": [at, at + n * 8] });
        },
        &[norm, "I64", "F32, F16 and BF16"],
    );
    fs::remove_file(desk.path(file)).unwrap();
    cases.mistake("no file", desk.go(), &["m", "model.safetensors", "model.safetensors.index.json"]);
    fs::create_dir(desk.path(file)).unwrap();
    cases.mistake("a folder", desk.go(), &["model.safetensors"]);
    cases.end();
}

#[test]
fn indexes() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    desk.model("s", "llama/sharded-f16");
    desk.study(&["s"], &[], &["text.toml"]);
    desk.go().expect(0);
    let index = "s/model.safetensors.index.json";
    let good = desk.read(index);
    let shard = "model-00002-of-00002.safetensors";
    desk.write("secret.safetensors", fs::read(desk.path("s").join(shard)).unwrap());
    let outside = desk.arg("secret.safetensors");
    for name in
        ["../secret.safetensors", "sub/x.safetensors", &outside, "..", ".", "/", "", "a/../b", "..\\x"]
    {
        desk.write(index, good.replace(shard, &name.replace('\\', "\\\\")));
        cases.mistake(&format!("a shard called `{name}`"), desk.go(), &["s"]);
    }
    desk.write(index, good.replace(shard, "../secret.safetensors"));
    cases.mistake("out of the folder", desk.go(), &[index, "../secret.safetensors", "same folder"]);
    desk.write(index, good.replace(shard, "gone.safetensors"));
    cases.mistake("a shard that is not there", desk.go(), &["s/gone.safetensors", "No such file"]);
    for (what, text, part) in [
        ("empty", "{\"weight_map\": {}}", "empty"),
        ("missing", "{\"metadata\": {}}", "weight_map"),
        ("no text", "{\"weight_map\": {\"a\": 1}}", "string"),
        ("no JSON", "hello", "line 1"),
    ] {
        desk.write(index, text);
        cases.mistake(what, desk.go(), &[index, part]);
    }
    desk.write(index, good.replace(shard, "model-00001-of-00002.safetensors"));
    cases.mistake("all in the first shard", desk.go(), &["model-00001-of-00002.safetensors", "missing"]);
    desk.write(index, &good);
    let first = fs::read(desk.path("s/model-00001-of-00002.safetensors")).unwrap();
    desk.write(&format!("s/{shard}"), &first);
    cases.mistake("a tensor twice", desk.go(), &["tensor", "again", shard]);
    desk.write(&format!("s/{shard}"), &first[..100]);
    cases.mistake("a shard cut short", desk.go(), &[shard, "not a whole safetensors file"]);
    cases.end();
}

/// Weights are read late: what can be measured is, and the reason is in the record and in the table.
#[test]
fn numbers_that_are_none() {
    for (name, bits) in [("NaN", [0xc0, 0x7f]), ("inf", [0x80, 0x7f]), ("-inf", [0x80, 0xff])] {
        let desk = Desk::new();
        let tensor = "model.layers.1.mlp.gate_proj.weight";
        desk.edit_tensors("m/model.safetensors", |h, d| {
            let at = h[tensor]["data_offsets"][0].as_u64().unwrap() as usize + 6;
            d[at..at + 2].copy_from_slice(&bits);
        });
        let ran = desk.go().expect(2).says(&["m/model.safetensors", tensor, name, "element 3"]);
        assert!(ran.out.contains("## n: gpt2"), "{}", ran.out);
        let records = desk.records();
        assert_eq!(records.len(), 16);
        for record in &records {
            let fine = cell(record).starts_with("n/");
            assert_eq!(record["status"], if fine { "done" } else { "failed" });
            assert!(fine || record["why"].as_str().unwrap().contains(tensor));
        }
        let csv = desk.read("out/table.csv");
        assert_eq!(
            csv.lines().filter(|l| l.starts_with("m,") && l.contains(",failed,")).count(),
            4 * 3,
            "{csv}"
        );
        assert_eq!(
            csv.lines().filter(|l| l.starts_with("n,") && l.contains(",done,")).count(),
            4 * 3,
            "{csv}"
        );
    }
}

#[test]
fn tokenizers() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    let file = "m/tokenizer.json";
    desk.write(file, tokenizer(68));
    cases.mistake("an id too many", desk.go(), &[file, "67", "vocabulary is 67"]);
    // Added tokens stand outside the vocabulary proper.
    desk.write(file, tokenizer(67));
    desk.edit_json(file, |t| {
        t["added_tokens"] = json!([{ "id": 99, "content": "cat", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true }]);
    });
    // Some real tokenizers have one that their model does not know (LLaMA's [PAD]): its use is the mistake.
    cases.mistake("an added token beyond", desk.go(), &["tokenizer.json", "`cat`", "vocabulary is 67"]);
    let good = tokenizer(42);
    for (what, text) in [
        ("nothing", ""),
        ("words", "hello"),
        ("half", &good[..good.len() / 2]),
        ("an empty table", "{}"),
        ("a model of nobody", &good.replace("WordLevel", "WordLevl")),
        ("a regex that is none", &good.replace("[\\\\s\\\\S]", "[")),
    ] {
        desk.write(file, text);
        cases.mistake(what, desk.go(), &[file]);
    }
    desk.write(file, b"\x00\xff\xfe");
    cases.mistake("bytes", desk.go(), &[file]);
    fs::remove_file(desk.path(file)).unwrap();
    cases.mistake("no file", desk.go(), &["/m`", "tokenizer.json", "tokenizer.model", "merges.txt"]);
    desk.write(file, &good);
    desk.write("m/tokenizer_config.json", "{ not json");
    cases.mistake("a tokenizer_config.json that is none", desk.go(), &["m/tokenizer_config.json"]);
    cases.end();
}

#[test]
fn texts() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    for (what, bytes, parts) in [
        ("empty", &b""[..], &["text.txt", "empty text"][..]),
        ("white", b" \n\t \n", &["text.txt", "empty text"]),
        ("short", b"the cat", &["text.toml", "7 tokens", "window", "16"]),
        ("not UTF-8", b"the \xff\xfe cat", &["text.txt", "UTF-8"]),
        ("binary", &[0x1f, 0x8b, 0, 0xff], &["text.txt", "UTF-8"]),
    ] {
        desk.write("text.txt", bytes);
        cases.mistake(what, desk.go(), parts);
    }
    fs::remove_file(desk.path("text.txt")).unwrap();
    cases.mistake("gone", desk.go(), &["text.txt", "No such file"]);
    fs::create_dir(desk.path("text.txt")).unwrap();
    cases.mistake("a folder", desk.go(), &["text.txt"]);
    desk.write("text.jsonl", "{\"text\": \" \"}\n");
    desk.write("text.toml", TEXT.replace("text.txt", "text.jsonl"));
    cases.mistake("an item of white space", desk.go(), &["text.toml", "empty"]);
    desk.write("text.jsonl", "\n\n");
    cases.mistake("no items", desk.go(), &["text.toml", "no items"]);
    for (line, parts) in [
        ("{\"text\": ", &["text.jsonl", "line 3"][..]),
        ("5", &["text.jsonl", "line 3", "JSON object"]),
        ("{\"txt\": \"a\"}", &["text.toml", "text"]),
        ("{\"text\": [1]}{}", &["text.jsonl", "line 3"]),
    ] {
        desk.write("text.jsonl", format!("{{\"text\": \"the cat sat on the mat\"}}\n\n{line}\n"));
        cases.mistake(line, desk.go(), parts);
    }
    desk.write("text.txt.gz", b"\x1f\x8b\x08\x00\x00");
    desk.write("text.toml", TEXT.replace("text.txt", "text.txt.gz"));
    cases.mistake("half a gzip", desk.go(), &["text.txt.gz"]);
    desk.write("text.csv", "text,b\na,b,c\n");
    desk.write("text.toml", TEXT.replace("text.txt", "text.csv"));
    cases.mistake("a ragged csv", desk.go(), &["text.csv", "line"]);
    desk.write("text.doc", "hello");
    desk.write("text.toml", TEXT.replace("text.txt", "text.doc"));
    cases.mistake("another kind", desk.go(), &["text.doc", ".jsonl"]);
    cases.end();
}

#[test]
fn tasks() {
    let endless = format!("text = '{{{{ {}1 }}}}'", "not ".repeat(100_000));
    let mut cases = Cases::new();
    let desk = Desk::small();
    for (from, to, parts) in [
        ("window", "windw", &["windw", "`window`"][..]),
        ("version = 1", "", &["version"]),
        ("version = 1", "version = 1\nabillity = 'x'", &["abillity", "`ability`"]),
        ("[ask.perplexity]", "[ask.perplexty]", &["perplexty", "`choice`"]),
        ("['perplexity']", "['perplexty']", &["perplexty", "did you mean `perplexity`", "bits_per_byte"]),
        ("['perplexity']", "['acc']", &["`acc`", "perplexity"]),
        ("['perplexity']", "[]", &["`metrics` is empty"]),
        ("[data.file]", "[data.fil]", &["fil", "`file`"]),
        ("window = 16", "window = 1", &["`window`", "at least 2"]),
        ("window = 16", "window = 0", &["`window`", "at least 2"]),
        ("window = 16", "window = -4", &["window"]),
        ("window = 16", "window = 9223372036854775807", &["window"]),
        ("window = 16", "window = 16\nprotocol = 'rollng'", &["rollng", "`rolling`"]),
        ("window = 16", "window = 16\nprotocol = 'llama-cpp'\nprofile = 'x'", &["profile", "lm-eval-0.4.0"]),
        ("window = 16", "text = '{{ text'", &["`text`", "syntax"]),
        ("window = 16", "text = '{% for %}'", &["`text`", "syntax"]),
        ("window = 16", "text = '{{ txet }}'", &["txet"]),
        ("window = 16", "text = '{{ text | uper }}'", &["uper"]),
        ("window = 16", "text = '{% include \"/etc/passwd\" %}'", &["/etc/passwd"]),
        (
            "window = 16",
            "text = '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}'",
            &["fuel"],
        ),
        ("window = 16", "text = '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}'", &["recursion"]),
        ("window = 16", "text = '{{ \"a\" * 10000000000 }}'", &["out of fuel"]),
        ("window = 16", &endless, &["`text`", "32768"]),
        ("[data.file]", "[data.hub]\nrepo = 'a/b'\nrevision = 'c'\nfile = 'x.jsonl'\n[x]", &["x"]),
        (
            "[data.file]\npath = 'text.txt'",
            "[data.hub]\nrepo = 'a/b'\nrevision = 'main'\nfile = 'x.jsonl'",
            &["data.hub", "`main` is no commit"],
        ),
        ("version = 1", "version = 1\nclean = ['trimm']", &["trimm", "`trim`"]),
        ("version = 1", "version = 1\nclean = [{ regex = ['(', ''] }]", &["`clean`", "regex", "("]),
        ("version = 1", "version = 1\nchance = 'half'", &["chance"]),
    ] {
        desk.write("text.toml", TEXT.replacen(from, to, 1));
        // Every message says in which file.
        let parts: Vec<&str> = ["text.toml"].iter().chain(parts).copied().collect();
        cases.mistake(to, desk.go(), &parts);
    }
    desk.write(
        "text.toml",
        TEXT.replace(
            "[data.file]\npath = 'text.txt'",
            &format!("[data.hub]\nrepo='a/b'\nrevision='{}'\nfile='x.jsonl'", "c".repeat(40)),
        ),
    );
    cases.mistake("data on the Hub", desk.go(), &["text.toml", "a/b", "data.text=PATH", "BITSWEEP_DATA"]);
    desk.write("text.toml", b"\xff");
    cases.mistake("not UTF-8", desk.go(), &["text.toml", "UTF-8"]);

    desk.model("m", "gpt2/scaled");
    desk.write("text.toml", TEXT.replace("16", "64"));
    cases.mistake(
        "more than the model has positions for",
        desk.go(),
        &["text.toml", "63", "positions for 40"],
    );
    cases.end();
}

#[test]
fn choices() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    desk.study(&["m"], &[], &["quiz.toml"]);
    let good = json!({ "prompt": "the cat", "endings": ["ran", "sat"], "gold": 0 });
    for (what, change, parts) in [
        ("gold out of range", json!({ "gold": 2 }), &["quiz.toml", "item 3", "2 endings", "gold"][..]),
        ("gold negative", json!({ "gold": -1 }), &["quiz.toml", "item 3", "gold", "-1"]),
        ("gold a word", json!({ "gold": "fell" }), &["quiz.toml", "item 3", "gold", "fell"]),
        ("gold null", json!({ "gold": null }), &["quiz.toml", "item 3", "gold"]),
        ("gold a fraction", json!({ "gold": 0.5 }), &["quiz.toml", "item 3", "gold", "0.5"]),
        ("gold huge", json!({ "gold": u64::MAX }), &["quiz.toml", "item 3", "gold"]),
        ("endings a text", json!({ "endings": "ran" }), &["quiz.toml", "item 3", "`endings`", "list"]),
        (
            "endings numbers",
            json!({ "endings": [1, 2] }),
            &["quiz.toml", "item 3", "`endings`", "list of texts"],
        ),
        ("one ending", json!({ "endings": ["ran"] }), &["quiz.toml", "item 3", "1 ending"]),
        ("no endings", json!({ "endings": [] }), &["quiz.toml", "item 3", "0 endings"]),
        (
            "an empty ending",
            json!({ "endings": ["", "a"], "_delimiter": "" }),
            &["quiz.toml", "item 3", "ending"],
        ),
        (
            "an ending too long",
            json!({ "endings": ["a".repeat(100), "b"] }),
            &["quiz.toml", "item 3", "context of 64"],
        ),
    ] {
        let mut bad = good.clone();
        for (k, v) in change.as_object().unwrap() {
            bad[k] = v.clone();
        }
        let delimiter = if change.get("_delimiter").is_some() { "delimiter = ''\n" } else { "" };
        desk.write("quiz.toml", format!("{QUIZ}{delimiter}"));
        desk.write("quiz.jsonl", format!("{good}\n{good}\n{bad}\n"));
        cases.mistake(what, desk.go(), parts);
    }
    let mut bad = good.clone();
    bad.as_object_mut().unwrap().remove("prompt");
    desk.write("quiz.jsonl", format!("{good}\n{good}\n{bad}\n"));
    cases.mistake("a field not there", desk.go(), &["quiz.toml", "item 3", "prompt"]);
    desk.write("quiz.jsonl", format!("{good}\n{good}\n"));
    for (from, to, parts) in [
        ("{{ prompt }}", "{{ promt }}", &["quiz.toml", "promt"][..]),
        ("{{ prompt }}", "{{ prompt", &["quiz.toml", "prompt", "syntax"]),
        ("'{{ endings }}'", "['{{ endings }}', '{{ endngs }}']", &["quiz.toml", "endngs"]),
        ("{{ endings }}", "{{ endings | length }}", &["quiz.toml", "`endings`", "list"]),
        ("{{ gold }}", "x", &["quiz.toml", "`x`", "index"]),
        ("gold = ", "gild = ", &["quiz.toml", "gild", "`gold`"]),
        ("endings = '{{ endings }}'", "endings = 5", &["quiz.toml", "endings"]),
    ] {
        desk.write("quiz.toml", QUIZ.replace(from, to));
        cases.mistake(to, desk.go(), parts);
    }
    cases.end();
}

/// Root may write where permission bits say no, so these are places that nobody can write to.
#[test]
fn folders_that_cannot_be_written() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    desk.write("file", "x");
    let study = desk.arg("study.toml");
    for out in [desk.arg("file/below"), desk.arg("file"), "/proc/x".into(), "/dev/null/x".into()] {
        let began = desk.run(&["run", &study, "--out", &out]);
        cases.check(&format!("{out}: nothing is computed first"), !began.err.contains("cells"));
        cases.mistake(&out, began, &["--out", &out, "cannot be written"]);
    }
    desk.write("taken/records.jsonl/x", "");
    cases.mistake(
        "records.jsonl is a folder",
        desk.run(&["run", &study, "--out", &desk.arg("taken")]),
        &["taken"],
    );
    desk.write("items/items", "");
    cases.mistake("items is a file", desk.run(&["run", &study, "--out", &desk.arg("items")]), &["items"]);
    cases.end();
}

#[test]
fn records_that_are_none() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    desk.study(&["m"], &["w4", "kv4"], &["text.toml"]);
    desk.go().expect(0);
    let (study, out) = (desk.arg("study.toml"), desk.arg("out"));
    let good = desk.read("out/records.jsonl");
    let lines: Vec<&str> = good.lines().collect();
    let mut all = |what: &str, text: &[u8], parts: &[&str]| {
        desk.write("base/records.jsonl", text);
        desk.write("out/records.jsonl", text);
        for args in [
            &["run", &study, "--out", &out][..],
            &["plan", &study, "--out", &out],
            &["report", &out],
            &["gate", &out, "--baseline", &out],
            &["gate", &out],
        ] {
            cases.mistake(&format!("{what}: {}", args[0]), desk.run(args), parts);
        }
        cases.check(
            &format!("{what}: left as it was"),
            fs::read(desk.path("out/records.jsonl")).unwrap() == text,
        );
        desk.write("out/records.jsonl", &good);
        let args = ["gate", &out, "--baseline", &desk.arg("base")];
        cases.mistake(&format!("{what}: baseline"), desk.run(&args), parts);
    };
    let with = |line: &str| format!("{}\n{line}\n{}\n", lines[0], lines[2]);
    let named = &["records.jsonl", "line 2"];
    all("garbage", with("}{").as_bytes(), named);
    all("half a line", with(&lines[1][..lines[1].len() / 2]).as_bytes(), named);
    all(
        "another schema",
        with(&lines[1].replace("\"schema\":1", "\"schema\":99")).as_bytes(),
        &[named[0], named[1], "schema 99"],
    );
    all("no status", with(&lines[1].replace("\"status\":\"done\"", "\"status\":\"odd\"")).as_bytes(), named);
    all(
        "a cell that is a path",
        with(&lines[1].replacen("\"cell\":\"", "\"cell\":\"../", 1)).as_bytes(),
        named,
    );
    all("not UTF-8", &[with("").as_bytes(), b"\xff\xfe\n"].concat(), &["records.jsonl", "line 4"]);

    desk.write("out/records.jsonl", &good);
    let item = fs::read_dir(desk.path("out/items")).unwrap().next().unwrap().unwrap().path();
    fs::write(&item, "{}\n").unwrap();
    let name = item.file_name().unwrap().to_str().unwrap();
    cases.mistake("items: run", desk.go(), &[name, "line 1"]);
    cases.mistake("items: report", desk.run(&["report", &out]), &[name, "line 1"]);
    cases.mistake("items: gate", desk.run(&["gate", &out, "--baseline", &out]), &[name, "line 1"]);
    cases.end();
}

#[test]
fn folders_without_records() {
    let mut cases = Cases::new();
    let desk = Desk::small();
    desk.go().expect(0);
    let (out, model) = (desk.arg("out"), desk.arg("m"));
    for folder in [&model, &desk.arg("gone"), &desk.arg("text.txt")] {
        let name = folder.as_str();
        cases.mistake(name, desk.run(&["report", folder]), &[name, "records.jsonl"]);
        cases.mistake(name, desk.run(&["gate", folder, "--baseline", &out]), &[name, "records.jsonl"]);
        let baseline = desk.run(&["gate", &out, "--baseline", folder]);
        cases.mistake(&format!("baseline {name}"), baseline, &["--baseline", name]);
    }
    for alpha in ["2", "0", "1", "-1", "NaN", "x"] {
        let ran = desk.run(&["gate", &out, "--baseline", &out, &format!("--alpha={alpha}")]);
        cases.mistake(&format!("alpha {alpha}"), ran, &["--alpha", alpha]);
    }
    cases.mistake("nothing to hold against", desk.run(&["gate", &out]), &["--baseline", "[[gate]]"]);
    desk.write("out/gates.json", "{");
    cases.mistake("gates.json that is none", desk.run(&["gate", &out, "--baseline", &out]), &["gates.json"]);
    fs::remove_file(desk.path("out/gates.json")).unwrap();
    desk.write("empty/records.jsonl", "");
    cases.mistake(
        "an empty baseline",
        desk.run(&["gate", &out, "--baseline", &desk.arg("empty")]),
        &["empty", "no records"],
    );
    cases.end();
}

/// The disk is full after some cells: they are kept, and the rest is computed once there is room.
#[test]
fn a_full_disk() {
    let desk = Desk::new();
    desk.go().expect(0);
    let whole = crate::kit::snapshot(&desk.path("out"));
    fs::rename(desk.path("out"), desk.path("whole")).unwrap();
    let study = desk.arg("study.toml");
    // Files of 8 or 16 kB, as the shell counts blocks: the list of records outgrows either, and tears a line.
    let out = desk.arg("out");
    let program = desk.bitsweep(&["run", &study, "--out", &out]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$@\"", "sh"]);
    shell.arg(program.get_program()).args(program.get_args()).current_dir(desk.path(""));
    let ran = Ran::of(&mut shell);
    let kept = records(&desk.path("out")).len();
    assert!((1..16).contains(&kept), "{kept} records");
    ran.expect(2).says(&[&out, "File too large"]);
    desk.run(&["report", &out]).expect(0);
    let again = desk.go().expect(0);
    assert!(again.err.contains(&format!("16 cells, {kept} of them done before")), "{}", again.err);
    crate::kit::assert_same(&whole, &crate::kit::snapshot(&desk.path("out")), "after a full disk");
}

/// The same on a disk that is full indeed; needs root.
#[test]
fn a_full_tmpfs() {
    struct Mounted(std::path::PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            Command::new("umount").arg(&self.0).status().ok();
        }
    }
    let desk = Desk::new();
    desk.go().expect(0);
    let whole = crate::kit::snapshot(&desk.path("out"));
    let disk = desk.path("disk");
    fs::create_dir(&disk).unwrap();
    let mount = |options: &str| {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk);
        command.output().is_ok_and(|o| o.status.success())
    };
    if !mount("size=4k") {
        println!("skipped: no right to mount a tmpfs");
        return;
    }
    let _mounted = Mounted(disk.clone());
    let out = desk.arg("disk/out");
    let study = desk.arg("study.toml");
    // Room for nothing, for some cells, for all cells but not for the report.
    let mut last = 0;
    for size in ["size=8k", "size=24k", "size=64k", "size=100k"] {
        assert!(mount(&format!("remount,{size}")));
        desk.run(&["run", &study, "--out", &out]).expect(2).says(&[&out, "No space left"]);
        let kept = records(&desk.path("disk/out")).len();
        assert!(kept >= last, "{size}: {kept} records after {last}");
        last = kept;
    }
    assert!(last > 2, "{last}");
    assert!(mount("remount,size=20m"));
    desk.run(&["run", &study, "--out", &out]).expect(0);
    crate::kit::assert_same(&whole, &crate::kit::snapshot(&desk.path("disk/out")), "after a full disk");
}

#[test]
fn damaged_safetensors_headers() {
    let desk = Desk::small();
    let file = "m/model.safetensors";
    let good = fs::read(desk.path(file)).unwrap();
    let header = good.len() - safetensors(&good).1.len();
    fuzz(&desk, file, &good, header, 1, &|| {
        desk.run(&["run", &desk.arg("study.toml"), "--out", &desk.arg("out")])
    });
}

#[test]
fn damaged_configs() {
    let desk = Desk::small();
    let file = "m/config.json";
    let good = fs::read(desk.path(file)).unwrap();
    fuzz(&desk, file, &good, good.len(), 2, &|| desk.go());
}

#[test]
fn damaged_records() {
    let desk = Desk::small();
    desk.study(&["m"], &["w4"], &["text.toml"]);
    desk.go().expect(0);
    let (file, out) = ("out/records.jsonl", desk.arg("out"));
    let good = fs::read(desk.path(file)).unwrap();
    fuzz(&desk, file, &good, good.len(), 3, &|| desk.run(&["report", &out]));
    fuzz(&desk, file, &good, good.len(), 4, &|| desk.run(&["gate", &out, "--baseline", &out]));
}

/// Flips a byte, or a bit, or cuts, at places within `reach`.
fn fuzz(desk: &Desk, file: &str, good: &[u8], reach: usize, seed: u64, run: &dyn Fn() -> Ran) {
    let mut dice = Dice(seed);
    let mut cases = Cases::new();
    for _ in 0..200 {
        let at = dice.below(reach);
        let mut bytes = good.to_vec();
        let what = match dice.below(4) {
            0 => {
                bytes.truncate(at);
                format!("cut at {at}")
            }
            1 => {
                bytes[at] ^= 1 << dice.below(8);
                format!("byte {at} is {:#x}", bytes[at])
            }
            2 => {
                bytes[at] = b"0123456789-.eE\"{}[],:\\ \0\x80\xff"[dice.below(26)];
                format!("byte {at} is {:#x}", bytes[at])
            }
            _ => {
                bytes.remove(at);
                format!("without byte {at}")
            }
        };
        desk.write(file, &bytes);
        let ran = run();
        cases.check(&format!("{what}: {:?} {}", ran.code, ran.err), ran.sound());
    }
    cases.end();
}

//! A model that comes block by block gives the numbers of one that is whole in memory, to the last bit, whatever is kept in
//! memory and whatever in a file; and what the program says of memory is what the system says.
use crate::kit::{Desk, assert_same, cell, snapshot, tokenizer};
use candle_core::{Device, Tensor};
use serde_json::json;
use std::{collections::HashMap, path::Path};

const RECIPES: [&str; 8] =
    ["full", "w4", "w8a8", "kv4", "bf16", "fp16+w4kv3", "awq-gptq-w3a8", "rotate+smoothquant+w4a8kv4"];

/// A study of everything that needs no answer: windows, endings, gaps of words, two models side by side.
fn desk(tasks: &[&str]) -> Desk {
    let desk = Desk::new();
    let cloze: Vec<String> = (0..6)
        .map(|i| json!({ "before": format!("the big big cat {i}"), "after": "sat" }).to_string())
        .collect();
    desk.write("cloze.jsonl", cloze.join("\n"));
    desk.write(
        "cloze.toml",
        "about = 'a word'\nversion = 1\nmetrics = ['acc']\n[data.file]\npath = 'cloze.jsonl'\n\
         [ask.cloze]\nprompt = '{{ before }}'\nending = ' {{ after }}'\n",
    );
    desk.write(
        "gap.toml",
        "about = 'two models'\nversion = 1\nmetrics = ['kl']\n[data.file]\npath = 'text.txt'\n\
         [ask.divergence]\nprotocol = 'windows'\nwindow = 16\n",
    );
    desk.write(
        "tale.toml",
        "about = 'an answer'\nversion = 1\nmetrics = ['exact_match']\n[data.file]\npath = 'cloze.jsonl'\n\
         [ask.generate]\nprompt = '{{ before }}'\ngold = '{{ after }}'\nlimit = 4\n",
    );
    desk.study(&["m", "n"], &RECIPES, tasks);
    desk
}

#[test]
fn block_by_block_is_the_whole_model() {
    let tasks = ["text.toml", "quiz.toml", "cloze.toml", "gap.toml"];
    let desk = desk(&tasks);
    for model in ["m", "n"] {
        desk.study(&[model], &RECIPES, &tasks);
        let study = desk.arg("study.toml");
        let run = |memory: &str| {
            let out = desk.arg(&format!("{model}-{memory}"));
            let ran = desk.run(&["run", &study, "--out", &out, "--memory", memory]).expect(0);
            (snapshot(Path::new(&out)), ran.err)
        };
        let (whole, _) = run("100G");
        assert_eq!(whole.keys().filter(|k| k.starts_with("items/")).count(), 32);
        // Nothing fits, so every hidden state is in a file; and a little less than a whole model takes, so that some fit.
        let plan = |memory: &str| desk.run(&["plan", &study, "--memory", memory]).expect(0).out;
        let (all, _) = takes(&plan("100G"), "whole in memory");
        let some = format!("{:.0}", all - 20e3);
        let in_file = |memory: &str| takes(&plan(memory), "block by block").1;
        assert!(in_file("1k") > in_file(&some), "{} {}", in_file("1k"), in_file(&some));
        for memory in ["1k", some.as_str()] {
            let (blocks, said) = run(memory);
            assert!(said.contains("block 1 of"), "{said}");
            assert_eq!(said.contains("it may become slow"), memory == "1k", "{said}");
            assert_same(&whole, &blocks, memory);
        }
    }
}

/// Bytes in memory and in a file, as `plan` says them of its one model, which runs in this way.
fn takes(plan: &str, way: &str) -> (f64, f64) {
    let bytes = |text: &str| {
        let (number, unit) = text.split_once(' ').unwrap();
        let power = ["B", "kB", "MB", "GB"].iter().position(|u| *u == unit).unwrap();
        number.parse::<f64>().unwrap() * 1000f64.powi(power as i32)
    };
    let line = plan.lines().find_map(|l| Some(l.split_once(&format!(": {way}, "))?.1)).expect(plan);
    let (memory, rest) = line.split_once(" at most").unwrap();
    let in_file = rest.strip_prefix(", ").and_then(|r| r.split_once(" in a file"));
    (bytes(memory), in_file.map_or(0., |f| bytes(f.0)))
}

/// A task that asks for more than the model can read, and a recipe that names what is not there, take nothing with them.
#[test]
fn what_fails_on_the_way_fails_alone() {
    let desk = Desk::new();
    desk.write("long.txt", "so it goes and goes on ".repeat(300));
    desk.write(
        "long.toml",
        "about = 'too long'\nversion = 1\nmetrics = ['perplexity']\n[data.file]\npath = 'long.txt'\n\
         [ask.perplexity]\nprotocol = 'windows'\nwindow = 1000\n",
    );
    desk.study(&["n"], &["full", "w4", "kv4"], &["text.toml", "long.toml"]);
    let mut text = desk.read("study.toml");
    text.push_str(
        "[[recipe]]\nname = 'lost'\nweights = { method = 'rtn', bits = 4 }\nskip = ['blocks.99.*']\n",
    );
    desk.write("study.toml", text);
    let study = desk.arg("study.toml");
    let run = |folder: &str, memory: &str| {
        desk.run(&["run", &study, "--out", &desk.arg(folder), "--memory", memory]).expect(2);
        snapshot(&desk.path(folder))
    };
    let whole = run("whole", "100G");
    assert_same(&whole, &run("blocks", "1k"), "blocks");
    let records = desk.read("whole/records.jsonl");
    let has = |what: &str| records.lines().filter(|l| l.contains(what)).count();
    assert_eq!((has(r#""status":"done""#), has("learned positions"), has("matches nothing")), (3, 4, 1));
}

#[test]
fn what_writes_needs_the_whole_model_and_says_so() {
    let desk = desk(&["text.toml", "tale.toml"]);
    let study = desk.arg("study.toml");
    desk.run(&["run", &study, "--out", &desk.arg("out"), "--memory", "1k"]).expect(1);
    for record in desk.records() {
        let tale = cell(&record).ends_with("tale");
        assert_eq!(record["status"] == "failed", tale, "{record}");
        assert!(!tale || record["why"].as_str().unwrap().contains("--memory"), "{record}");
    }
    // With memory, the rest is done, and nothing twice.
    let more = desk.run(&["run", &study, "--out", &desk.arg("out"), "--memory", "1G"]).expect(0);
    assert!(more.err.contains("16 cells run, 16 kept"), "{}", more.err);
}

/// A model of 110 MB, both ways: what `plan` says, and what the system counted.
#[test]
fn what_is_said_of_memory_is_what_is_used() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let desk = desk(&["text.toml"]);
    let (hidden, inner, layers, vocab) = (768, 3072, 3, 42);
    let tensor = |name: String, rows: usize, columns: usize| {
        let numbers = (0..rows * columns).map(|i| ((i * 7919 + rows) % 1009) as f32 / 2e4 - 0.025);
        let shape = if columns == 1 { vec![rows] } else { vec![rows, columns] };
        (name, Tensor::from_iter(numbers, &Device::Cpu).unwrap().reshape(shape).unwrap())
    };
    let mut all = HashMap::from([
        tensor("model.embed_tokens.weight".into(), vocab, hidden),
        tensor("lm_head.weight".into(), vocab, hidden),
        tensor("model.norm.weight".into(), hidden, 1),
    ]);
    for layer in 0..layers {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            all.extend([tensor(name(norm), hidden, 1)]);
        }
        for part in ["q", "k", "v", "o"] {
            all.extend([tensor(name(&format!("self_attn.{part}_proj")), hidden, hidden)]);
        }
        for part in ["gate", "up"] {
            all.extend([tensor(name(&format!("mlp.{part}_proj")), inner, hidden)]);
        }
        all.extend([tensor(name("mlp.down_proj"), hidden, inner)]);
    }
    desk.write("big/tokenizer.json", tokenizer(vocab));
    candle_core::safetensors::save(&all, desk.path("big/model.safetensors")).unwrap();
    let config = json!({
        "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": 12, "vocab_size": vocab, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512, "tie_word_embeddings": false
    });
    desk.write("big/config.json", config.to_string());
    desk.study(&["big"], &["w4"], &["text.toml"]);
    let study = desk.arg("study.toml");
    for (memory, way) in [("100G", "whole in memory"), ("1k", "block by block")] {
        let plan = desk.run(&["plan", &study, "--memory", memory]).expect(0).out;
        let (said, _) = takes(&plan, way);
        let ran = desk.run(&["run", &study, "--out", &desk.arg(memory), "--memory", memory]).expect(0);
        let used = ran.err.split("; ").find_map(|p| p.strip_suffix(" MB at most in memory")).unwrap();
        let used = used.parse::<f64>().unwrap() * 1e6;
        assert!(said / used > 0.8 && said / used < 1.8, "{way}: {said} bytes said, {used} used");
    }
}

#[test]
fn sizes_that_are_none() {
    let desk = Desk::small();
    for size in ["", "many", "3X", "0"] {
        let run = desk.run(&["run", &desk.arg("study.toml"), "--memory", size]).expect(2);
        assert!(run.err.contains("such as 4G"), "{}", run.err);
    }
}

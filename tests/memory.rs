//! A model that comes block by block gives the numbers of one that is whole in memory, to the last bit, whatever is kept in
//! memory and whatever in a file; and what the program says of memory is what the system says.
use crate::kit::{Desk, assert_same, cell, snapshot};
use bitsweep::{
    model::load,
    quant::recipe::Recipe,
    study::{engine::PACK, memory},
};
use serde_json::json;
use std::path::Path;

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
    desk.study(&["m", "n"], &["full", "w4", "w8a8", "kv4", "bf16", "fp16+w4kv3"], tasks);
    desk
}

#[test]
fn block_by_block_is_the_whole_model() {
    let desk = desk(&["text.toml", "quiz.toml", "cloze.toml", "gap.toml"]);
    let study = desk.arg("study.toml");
    let run = |folder: &str, memory: &str| {
        desk.run(&["run", &study, "--out", &desk.arg(folder), "--memory", memory]).expect(0);
        snapshot(&desk.path(folder))
    };
    let whole = run("whole", "100G");
    assert_eq!(whole.keys().filter(|k| k.starts_with("items/")).count(), 48);
    // Nothing fits, so every hidden state is in a file; and a byte less than a whole model takes, so that none is.
    let whole_takes = |model: &str, recipe: &str| {
        let opened = load::open(&desk.arg(model), Path::new(""), None).unwrap();
        memory::whole(&opened.spec, &Recipe::parse(recipe).unwrap(), PACK)
    };
    let least = ["m", "n"].map(|m| whole_takes(m, "fp16+w4kv3")).into_iter().fold(f64::INFINITY, f64::min);
    for memory in ["1k".to_string(), format!("{}", least as u64 - 1)] {
        let memory = memory.as_str();
        let blocks = desk.run(&["run", &study, "--out", &desk.arg(memory), "--memory", memory]).expect(0);
        assert!(blocks.err.contains("block 1 of"), "{}", blocks.err);
        assert_same(&whole, &snapshot(&desk.path(memory)), memory);
    }
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
    assert!(more.err.contains("12 cells run, 12 kept"), "{}", more.err);
}

#[test]
fn sizes_that_are_none() {
    let desk = Desk::small();
    for size in ["", "many", "3X", "0"] {
        let run = desk.run(&["run", &desk.arg("study.toml"), "--memory", size]).expect(2);
        assert!(run.err.contains("such as 4G"), "{}", run.err);
    }
}

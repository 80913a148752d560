//! A model that comes block by block gives the numbers of one that is whole in memory, to the last bit, whatever is kept in
//! memory and whatever in a file; and what the program says of memory is what the system says.
use crate::kit::{Desk, assert_same, cell, snapshot};
use serde_json::json;
use std::path::Path;

const RECIPES: [&str; 6] = ["full", "w4", "w8a8", "kv4", "bf16", "fp16+w4kv3"];

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
        assert_eq!(whole.keys().filter(|k| k.starts_with("items/")).count(), 24);
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

//! Models as a stranger hands them over, through the command line: every family, laid out as repositories are.
use crate::{
    common::repo,
    hub::{Answer, Server, git_sha1},
    kit::{Desk, Ran},
};
use bitsweep::model::families::FAMILIES;
use serde_json::json;
use std::{collections::BTreeSet, fs};

/// Every family runs every kind of recipe, or skips it and says why.
#[test]
fn every_family_runs_every_kind_of_recipe() {
    let desk = Desk::new();
    let recipes = [
        "full",
        "fp16",
        "bf16",
        "w8",
        "w4",
        "w3",
        "w2",
        "w4sym",
        "w8a8",
        "w4a4",
        "kv8",
        "kv2",
        "w4a8kv4",
        "nf4",
        "gptq-w3",
        "awq-w3",
        "smoothquant+w8a8",
        "rotate+gptq-w4a8",
    ];
    let mut models = Vec::new();
    for family in FAMILIES {
        let mut variants: Vec<String> = fs::read_dir(repo("tests/fixtures").join(family.name()))
            .unwrap()
            .map(|d| d.unwrap().file_name().into_string().unwrap())
            .collect();
        variants.sort();
        let name = family.name().to_string();
        desk.model(&name, &format!("{name}/{}", variants[0]));
        models.push(name);
    }
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    desk.study(&models, &recipes[1..], &["quiz.toml"]);
    let ran = desk.go().expect(0);
    assert!(ran.out.contains("skipped"), "{}", ran.out);
    let records = desk.records();
    assert_eq!(records.len(), models.len() * recipes.len());
    let mut unfit = BTreeSet::new();
    for record in &records {
        let (model, recipe) =
            (record["model"]["name"].as_str().unwrap(), record["recipe"]["name"].as_str().unwrap());
        let keys = model.starts_with("mamba") && recipe.contains("kv");
        let (status, why) = (record["status"].as_str().unwrap(), &record["why"]);
        // A rewriting that a model's norms do not allow says so.
        let rewritten = ["smoothquant", "awq", "rotate"].iter().find(|m| recipe.starts_with(**m));
        if let (Some(method), "skipped") = (rewritten, status) {
            assert!(
                why.as_str().is_some_and(|w| w.starts_with(method) && w.contains("norm")),
                "{model} {recipe}: {why}"
            );
            unfit.insert((model.to_string(), *method));
            continue;
        }
        assert_eq!(status, if keys { "skipped" } else { "done" }, "{model} {recipe}: {why}");
        assert_eq!(why.as_str().is_some_and(|w| w.contains("no attention")), keys, "{model} {recipe}: {why}");
    }
    // Norms behind a branch turn nothing and scale nothing; values and what a feed-forward feeds scale everywhere but in Mamba.
    assert!(unfit.contains(&("olmo2".into(), "rotate")) && unfit.contains(&("gemma2".into(), "rotate")));
    assert!(
        unfit.contains(&("olmo2".into(), "smoothquant"))
            && !unfit.contains(&("gemma2".into(), "smoothquant"))
    );
    assert!(!unfit.iter().any(|(_, method)| *method == "awq"), "{unfit:?}");
    // A skipped cell has its row, with the reason.
    let table = desk.read("out/table.csv");
    let row = table.lines().find(|l| l.starts_with("mamba,") && l.contains(",kv8,")).unwrap();
    assert!(row.contains("skipped") && row.contains("no attention"), "{row}");
    // It is not tried again.
    assert!(desk.go().expect(0).err.contains("\n0 cells run"));
    let plan = desk.run(&["plan", &desk.arg("study.toml"), "--out", &desk.arg("out")]).expect(0).out;
    assert!(plan.contains("skipped: `kv` rounds"), "{plan}");
}

#[test]
fn a_model_is_planned_from_its_config_alone() {
    let desk = Desk::empty();
    let config = fs::read_to_string(repo("tests/fixtures/mixtral/8x7b/config.json")).unwrap();
    desk.write("m/config.json", config);
    for name in ["m", "m/config.json"] {
        let plan = desk.run(&["plan", name]).expect(0).out;
        for part in
            ["mixtral", "2 of 5 experts of 19", "13040 parameters", "GFLOP a token", "no weights", "| w4 "]
        {
            assert!(plan.contains(part), "{name}: `{part}` in {plan}");
        }
    }
    assert!(!desk.path("results").exists());
    let mamba = desk.arg("mamba");
    desk.model("mamba", "mamba/130m-hf");
    let plan = desk.run(&["plan", &mamba]).expect(0).out;
    assert!(
        plan.contains("state of") && plan.contains("`kv` rounds") && !plan.contains("no weights"),
        "{plan}"
    );
    assert!(desk.run(&["plan", "builtin:llama"]).expect(0).out.contains("1115520 parameters"));
    // Of a model on the Hub, the config is asked for and nothing else.
    desk.run(&["plan", "org/name"]).expect(2).says(&["org/name", "config.json", "HF_HUB_OFFLINE"]);
    desk.run(&["plan", "builtin:lama"]).expect(2).says(&["builtin:lama", "did you mean"]);
    desk.edit_json("m/config.json", |c| c["num_local_experts"] = json!(0));
    desk.run(&["plan", "m"]).expect(2).says(&["m/config.json", "experts", "0"]);
    desk.edit_json("m/config.json", |c| c["model_type"] = json!("mixtrall"));
    desk.run(&["plan", "m"]).expect(2).says(&[
        "m/config.json",
        "mixtrall",
        "did you mean `mixtral`",
        "qwen2_moe",
    ]);
    // What a run says of it.
    desk.write("t.txt", "some text");
    desk.write("t.toml", crate::kit::TEXT.replace("text.txt", "t.txt"));
    desk.edit_json("m/config.json", |c| c["model_type"] = json!("mixtral"));
    desk.edit_json("m/config.json", |c| c["num_local_experts"] = json!(5));
    desk.study(&["m"], &[], &["t.toml"]);
    desk.go().expect(2).says(&["model.safetensors", "pytorch_model.bin.index.json"]);
}

/// A repository as OPT's are: pickled weights, `vocab.json` and `merges.txt`; fetched once, then without a network.
#[test]
fn a_repository_of_pickles_and_merges_is_fetched_and_run() {
    let desk = Desk::small();
    let characters: Vec<char> =
        ('!'..='~').filter(|c| c.is_lowercase() || ".0123456789".contains(*c)).collect();
    let mut vocab: Vec<String> = ["<s>", "<pad>", "</s>", "<unk>"].map(String::from).into();
    vocab.extend(characters.iter().map(char::to_string));
    vocab.extend(["Ġ", "Ċ", "th", "the"].map(String::from));
    let ids: serde_json::Map<String, serde_json::Value> =
        vocab.into_iter().enumerate().map(|(i, token)| (token, json!(i))).collect();
    let files: Vec<(&str, Vec<u8>)> = vec![
        ("config.json", fs::read(repo("tests/fixtures/llama/bf16/config.json")).unwrap()),
        ("pytorch_model.bin", fs::read(repo("tests/fixtures/pickles/bf16/pytorch_model.bin")).unwrap()),
        ("vocab.json", json!(ids).to_string().into_bytes()),
        ("merges.txt", b"#version: 0.2\nt h\nth e\n".to_vec()),
        ("tokenizer_config.json", br#"{"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>"}"#.to_vec()),
    ];
    let server = Server::start(move |request| {
        match files.iter().find(|(name, _)| request.path.ends_with(&format!("/resolve/main/{name}"))) {
            Some((_, content)) => Answer::file(request, content, &git_sha1(content)),
            None => Answer::missing(),
        }
    });
    desk.study(&["org/opt"], &["w4"], &["text.toml"]);
    let online = |args: &[&str]| {
        let mut command = desk.bitsweep(args);
        Ran::of(command.env("HF_ENDPOINT", &server.url).env_remove("HF_HUB_OFFLINE"))
    };
    // A plan of the model alone fetches its config and nothing else.
    online(&["plan", "org/opt"]).expect(0);
    assert!(server.asked().iter().all(|r| r.path.ends_with("/config.json")), "{:?}", server.asked());
    online(&["run", &desk.arg("study.toml"), "--out", &desk.arg("online")]).expect(0);
    let asked = server.asked().len();
    // What is not there was asked for once, and is remembered.
    let out = desk.arg("offline");
    desk.run(&["run", &desk.arg("study.toml"), "--out", &out]).expect(0);
    assert_eq!(server.asked().len(), asked);
    assert_eq!(desk.read("online/table.md"), desk.read("offline/table.md"));
}

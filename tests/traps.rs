//! More traps than `scores.rs`: what lm-evaluation-harness's own tasks give, and what it refuses.
use crate::common::repo;
use anyhow::Result;
use bitsweep::{
    eval::{Lm, Logits, Outcome, Outcomes, Sequence, choice, choice::Question, metrics::metric, perplexity},
    model::load,
    stats::{self, Share},
    study::engine::{Engine, Words},
    suite::{ask::Profile, requests::Text},
};
use candle_core::Device;
use serde_json::Value;
use std::path::Path;

const PROFILES: [(Profile, &str); 2] =
    [(Profile::Tokenizer, "lm-eval-0.4.9.2"), (Profile::Bare, "lm-eval-0.4.0")];
/// A LLaMA whose tokenizer begins texts with BOS; a GPT-2 whose tokenizer names no BOS, at the end of its positions.
const MODELS: [&str; 2] = ["model", "learned"];

fn golden(file: &str) -> Value {
    let path = repo("tests/fixtures/traps").join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn text(v: &Value) -> String {
    v.as_str().unwrap().into()
}

fn close(what: &str, ours: f64, theirs: f64) {
    assert!((ours - theirs).abs() <= 1e-4 + 1e-5 * theirs.abs(), "{what}: {ours}, lm-eval {theirs}");
}

fn aggregate(what: &str, outcomes: &Outcomes, name: &str, theirs: &Value) {
    let m = metric(name).unwrap();
    let shares: Vec<Share> = outcomes.iter().map(|(_, o)| (m.share)(o).unwrap()).collect();
    let ours = stats::ratio(&shares, m.scale).unwrap().value;
    let theirs = theirs[name].as_f64().unwrap();
    assert!((ours / theirs - 1.).abs() < 1e-5, "{what}: {name} {ours}, lm-eval {theirs}");
}

/// Every fixture, asked in every profile.
fn each(mut ask: impl FnMut(&str, &str, Profile, &mut Engine)) {
    for model in MODELS {
        let dir = repo("tests/fixtures/traps").join(model);
        let opened = load::open(dir.to_str().unwrap(), Path::new(""), None).unwrap();
        let decoder = opened.load(&Device::Cpu).unwrap();
        for (profile, name) in PROFILES {
            ask(model, name, profile, &mut Engine::new(&decoder, Words::of(&opened)));
        }
    }
}

#[test]
fn choices_are_those_of_lm_eval() {
    let golden = golden("choice.json");
    let items = golden["items"].as_array().unwrap();
    each(|model, name, profile, lm| {
        let run = &golden["runs"][model][name];
        let mut all = Outcomes::new();
        for (item, want) in items.iter().zip(run["items"].as_array().unwrap()) {
            let question = Question {
                prompts: vec![text(&item["prompt"])],
                delimiter: text(&item["delimiter"]),
                endings: item["endings"].as_array().unwrap().iter().map(text).collect(),
                golds: vec![item["gold"].as_u64().unwrap() as usize],
                bare: vec![],
            };
            let what = format!("{model}, {name}: {}", item["about"]);
            let outcomes = choice::run(lm, &[question], profile);
            if want.get("refused").is_some() {
                assert!(outcomes.is_err(), "{what}: lm-eval refuses this");
                continue;
            }
            let outcomes = outcomes.unwrap();
            let Outcome::Choice(answer) = &outcomes[0].1 else { panic!("{what}") };
            for (ours, theirs) in answer.log_probs.iter().zip(want["log_likelihoods"].as_array().unwrap()) {
                close(&what, *ours, theirs.as_f64().unwrap());
            }
            let greedy: Vec<bool> = serde_json::from_value(want["is_greedy"].clone()).unwrap();
            assert_eq!(answer.greedy, greedy, "{what}");
            for m in ["acc", "acc_norm", "acc_bytes"] {
                let right = want[m].as_f64().unwrap();
                assert_eq!((metric(m).unwrap().share)(&outcomes[0].1), Some([right, 1.]), "{what}: {m}");
            }
            all.extend(outcomes);
        }
        for m in ["acc", "acc_norm", "acc_bytes"] {
            aggregate(&format!("{model}, {name}"), &all, m, run);
        }
    });
}

#[test]
fn rolling_is_that_of_lm_eval() {
    let golden = golden("rolling.json");
    let texts: Vec<Text> =
        golden["texts"].as_array().unwrap().iter().map(|t| text(&t["text"]).as_str().into()).collect();
    each(|model, name, profile, lm| {
        let run = &golden["runs"][model][name];
        let outcomes = perplexity::rolling(lm, &texts, None, profile).unwrap();
        let wanted = run["items"].as_array().unwrap();
        assert_eq!(outcomes.len(), wanted.len());
        for (i, ((_, outcome), want)) in outcomes.iter().zip(wanted).enumerate() {
            let what = format!("{model}, {name}: {}", golden["texts"][i]["about"]);
            let Outcome::Text(loss) = outcome else { panic!("{what}") };
            close(&what, -loss.nll, want["log_likelihood"].as_f64().unwrap());
            assert_eq!(Some(loss.words as u64), want["words"].as_u64(), "{what}: words");
            assert_eq!(Some(loss.bytes as u64), want["bytes"].as_u64(), "{what}: bytes");
        }
        for m in ["word_perplexity", "byte_perplexity", "bits_per_byte"] {
            aggregate(&format!("{model}, {name}"), &outcomes, m, run);
        }
    });
}

/// Reads a text as token ids, knows nothing, and keeps what it was asked.
struct Recorder {
    context: usize,
    prefix: u32,
    asked: Vec<Sequence>,
}

impl Lm for Recorder {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>> {
        Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    }
    fn context(&self) -> usize {
        self.context
    }
    fn vocab(&self) -> usize {
        100
    }
    fn prefix(&self) -> Option<u32> {
        Some(self.prefix)
    }
    fn score(
        &mut self,
        all: &[Sequence],
        visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    ) -> Result<()> {
        for (i, s) in all.iter().enumerate() {
            visit(i, Logits { first: 0, rows: &vec![0.; 100 * s.predict.len()], vocab: 100 })?;
        }
        self.asked.extend_from_slice(all);
        Ok(())
    }
}

#[test]
fn rolling_windows_are_those_of_lm_eval() {
    let ids = |v: &Value| -> Vec<u32> { serde_json::from_value(v.clone()).unwrap() };
    for case in golden("lmeval_misc_vectors.json")["rolling_windows"].as_array().unwrap() {
        let mut lm = Recorder {
            context: case["max_seq_len"].as_u64().unwrap() as usize,
            prefix: case["prefix"].as_u64().unwrap() as u32,
            asked: Vec::new(),
        };
        let words: Vec<String> = ids(&case["tokens"]).iter().map(u32::to_string).collect();
        let outcome = perplexity::rolling(&mut lm, &[words.join(" ").as_str().into()], None, Profile::Bare);
        // Where the harness adds nothing to its sums, an empty text is a mistake here.
        assert_eq!(outcome.is_err(), words.is_empty());
        let windows = case["windows"].as_array().unwrap();
        assert_eq!(lm.asked.len(), windows.len(), "{case}");
        for (ours, theirs) in lm.asked.iter().zip(windows) {
            let (context, continuation) = (ids(&theirs["context"]), ids(&theirs["continuation"]));
            assert_eq!(ours.tokens, [context.clone(), continuation].concat(), "{case}");
            assert_eq!(ours.predict, context.len()..ours.tokens.len(), "{case}");
        }
    }
}

#[test]
fn lengths_are_those_of_lm_eval() {
    let golden = golden("lmeval_misc_vectors.json");
    let case = &golden["choice_norm"];
    let endings: Vec<String> = case["choices"].as_array().unwrap().iter().map(text).collect();
    let chars: Vec<usize> = endings.iter().map(|e| e.chars().count()).collect();
    let bytes: Vec<usize> = endings.iter().map(String::len).collect();
    assert_eq!(serde_json::json!(chars), case["len_chars"]);
    assert_eq!(serde_json::json!(bytes), case["len_bytes"]);
    for (m, pred) in [("acc", "acc_pred"), ("acc_norm", "acc_norm_pred"), ("acc_bytes", "acc_bytes_pred")] {
        for gold in 0..endings.len() {
            let answer = choice::Answer {
                gold,
                log_probs: serde_json::from_value(case["lls"].clone()).unwrap(),
                greedy: vec![false; endings.len()],
                chars: chars.clone(),
                bytes: bytes.clone(),
                ..Default::default()
            };
            let right = if case[pred].as_u64() == Some(gold as u64) { 1. } else { 0. };
            let outcome = Outcome::Choice(answer);
            assert_eq!((metric(m).unwrap().share)(&outcome), Some([right, 1.]), "{m}");
        }
    }
    let case = &golden["weighted"];
    let losses: Outcomes = case["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| {
            let size = i[1].as_u64().unwrap() as usize;
            let nll = -i[0].as_f64().unwrap();
            let loss = perplexity::Loss { nll, bytes: size, words: size, ..Default::default() };
            (String::new(), Outcome::Text(loss))
        })
        .collect();
    let want = |key: &str, m: &str| serde_json::json!({ m: case[key].clone() });
    aggregate("vectors", &losses, "word_perplexity", &want("weighted_perplexity", "word_perplexity"));
    aggregate("vectors", &losses, "byte_perplexity", &want("weighted_perplexity", "byte_perplexity"));
    aggregate("vectors", &losses, "bits_per_byte", &want("bits_per_byte", "bits_per_byte"));
}

//! Scores equal lm-evaluation-harness's own, request for request: `tests/make_scores.py` ran it.
use crate::common::repo;
use bitsweep::{
    eval::{Outcome, choice, choice::Question, metrics::metric, perplexity},
    model::load,
    stats::{self, Share},
    study::engine::{Engine, Words},
    suite::{ask::Profile, requests::Text},
};
use candle_core::Device;
use serde::Deserialize;
use serde_json::Value;
use std::path::Path;

#[derive(Deserialize)]
struct Asked {
    prompt: String,
    delimiter: String,
    endings: Vec<String>,
    gold: usize,
}

#[derive(Deserialize)]
struct Given {
    /// By question and ending: log-likelihood, whether it is the greedy continuation.
    choice: Vec<Vec<(f64, bool)>>,
    rolling: Vec<f64>,
}

fn close(what: &str, a: f64, b: f64) {
    assert!((a - b).abs() < 1e-4 + 1e-5 * b.abs(), "{what}: {a}, lm-eval {b}");
}

#[test]
fn log_likelihoods_are_those_of_lm_eval() {
    let dir = repo("tests/fixtures/scores");
    let expected: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("expected.json")).unwrap()).unwrap();
    let asked: Vec<Asked> = serde_json::from_value(expected["questions"].clone()).unwrap();
    let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
    let texts: Vec<Text> = texts.iter().map(|t| t.as_str().into()).collect();
    let opened = load::open(dir.join("model").to_str().unwrap(), Path::new(""), None).unwrap();
    let decoder = opened.load(&Device::Cpu).unwrap();
    let mut lm = Engine::new(&decoder, Words::of(&opened));
    let questions: Vec<Question> = asked
        .into_iter()
        .map(|a| Question {
            prompts: vec![a.prompt],
            delimiter: a.delimiter,
            endings: a.endings,
            golds: vec![a.gold],
            bare: vec![],
        })
        .collect();
    for (profile, name) in [(Profile::Tokenizer, "lm-eval-0.4.9.2"), (Profile::Bare, "lm-eval-0.4.0")] {
        let given: Given = serde_json::from_value(expected[name].clone()).unwrap();
        let outcomes = choice::run(&mut lm, &questions, profile).unwrap();
        assert_eq!(outcomes.len(), given.choice.len());
        for ((q, (_, outcome)), want) in questions.iter().zip(&outcomes).zip(&given.choice) {
            let Outcome::Choice(answer) = outcome else { panic!() };
            for (i, (ll, greedy)) in want.iter().enumerate() {
                let what = format!("{name}: {:?} + {:?}", q.prompts, q.endings[i]);
                close(&what, answer.log_probs[i], *ll);
                assert_eq!(answer.greedy[i], *greedy, "{what}");
            }
            // The harness's acc, acc_norm and acc_bytes: argmax, the first of equals, by length in characters and bytes.
            let best = |by: &dyn Fn(&str) -> f64| {
                let score = |i: usize| want[i].0 / by(&q.endings[i]);
                (1..want.len()).fold(0, |best, i| if score(i) > score(best) { i } else { best })
            };
            for (m, by) in [
                ("acc", (&|_: &str| 1.) as &dyn Fn(&str) -> f64),
                ("acc_norm", &|e: &str| e.chars().count() as f64),
                ("acc_bytes", &|e: &str| e.len() as f64),
            ] {
                let right = f64::from(u8::from(best(by) == q.golds[0]));
                assert_eq!(
                    (metric(m).unwrap().share)(outcome),
                    Some([right, 1.]),
                    "{name}: {m} of {:?}",
                    q.prompts
                );
            }
        }
        let outcomes = perplexity::rolling(&mut lm, &texts, None, profile).unwrap();
        let (mut nll, mut words, mut bytes) = (0., 0., 0.);
        for ((text, (_, outcome)), want) in texts.iter().zip(&outcomes).zip(&given.rolling) {
            let Outcome::Text(loss) = outcome else { panic!() };
            close(&format!("{name}: {text:?}"), -loss.nll, *want);
            nll -= want;
            words += loss.words as f64;
            bytes += text.raw.len() as f64;
        }
        let value = |m: &str| {
            let m = metric(m).unwrap();
            let shares: Vec<Share> = outcomes.iter().map(|(_, o)| (m.share)(o).unwrap()).collect();
            stats::ratio(&shares, m.scale).unwrap().value
        };
        let same = |m: &str, want: f64| assert!((value(m) / want - 1.).abs() < 1e-5, "{name}: {m}");
        same("word_perplexity", (nll / words).exp());
        same("byte_perplexity", (nll / bytes).exp());
        same("bits_per_byte", nll / bytes / std::f64::consts::LN_2);
    }
}

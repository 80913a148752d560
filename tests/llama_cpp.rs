//! llama.cpp's own numbers for a real model: `llama-perplexity`, and its `--kl-divergence` against 4-bit weights that
//! both sides hold exactly. `fixtures/llama-cpp.json` has the numbers, and how they were made.
//!
//! Of a divergence, `exact` is from llama.cpp's f32 logits. `printed` is what the program says: its file of reference
//! logits has 16 bits a token of the vocabulary, a grid of at most 16 / 65535 nats from 16 nats below the likeliest up,
//! and what lies lower is raised to there. A log-probability is then off by at most 1.2e-4; means over thousands of
//! tokens, by 1e-6. Not so the reference's perplexity, where text came that the model holds for impossible.
use crate::common::{repo, shared};
use bitsweep::{
    eval::{Lm, Outcome, Outcomes, Sequence, divergence, metrics, perplexity},
    float,
    model::load,
    quant::{apply::apply, recipe::Recipe},
    stats,
    study::engine::{Engine, Words},
    suite::Protocol,
};
use candle_core::Device;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs};

#[derive(Deserialize)]
struct Fixture {
    model: String,
    recipe: String,
    texts: BTreeMap<String, Text>,
    perplexity: Vec<Perplexity>,
    divergence: Vec<Divergence>,
}

/// A file, or its first bytes.
#[derive(Deserialize)]
struct Text {
    path: String,
    bytes: usize,
    sha256: String,
    tokens: usize,
    /// Of the tokens as little-endian u32.
    tokens_sha256: String,
}

#[derive(Deserialize)]
struct Perplexity {
    text: String,
    weights: String,
    window: usize,
    chunks: usize,
    scored: usize,
    ppl: f64,
    stderr: f64,
    /// After each chunk; for short texts.
    #[serde(default)]
    running: Vec<f64>,
}

#[derive(Deserialize)]
struct Divergence {
    text: String,
    window: usize,
    scored: usize,
    /// Of these, where the likeliest token is more than 16 nats above the one that came.
    floored: usize,
    exact: BTreeMap<String, f64>,
    /// With its error, where there is one.
    printed: BTreeMap<String, Vec<f64>>,
}

/// How far `printed` may be from ours: what 16 bits do to a mean, and half of the last digit.
const PRINTED: [(&str, f64); 4] =
    [("kl", 5e-6), ("delta_p", 1e-5), ("rms_delta_p", 1e-5), ("same_top", 1e-5)];

fn close(what: &str, ours: f64, theirs: f64, tolerance: f64) {
    println!("  {what:20} {ours:.9}  llama.cpp {theirs:.9}  {:+.1e}", ours - theirs);
    assert!(
        (ours - theirs).abs() <= tolerance,
        "{what}: {ours}, llama.cpp {theirs}, tolerance {tolerance:e}"
    );
}

fn value(name: &str, outcomes: &Outcomes) -> f64 {
    let metric = metrics::metric(name).unwrap();
    let shares: Vec<stats::Share> = outcomes.iter().filter_map(|(_, o)| (metric.share)(o)).collect();
    assert_eq!(shares.len(), outcomes.len());
    stats::ratio(&shares, metric.scale).unwrap().value
}

#[test]
fn perplexity_and_divergence() {
    let fixture: Fixture =
        serde_json::from_str(&fs::read_to_string(repo("tests/fixtures/llama-cpp.json")).unwrap()).unwrap();
    let Some(model) = shared(&fixture.model) else { return };
    let mut texts = BTreeMap::new();
    for (name, text) in &fixture.texts {
        let Some(path) = shared(&text.path) else { return };
        let mut bytes = fs::read(path).unwrap();
        bytes.truncate(text.bytes);
        assert_eq!(format!("{:x}", Sha256::digest(&bytes)), text.sha256, "{name} is another text");
        let text = String::from_utf8(bytes).unwrap();
        // llama.cpp drops one newline at the end of a file.
        texts.insert(name.as_str(), text.strip_suffix('\n').unwrap_or(&text).to_string());
    }

    let opened = load::open(model.to_str().unwrap(), "".as_ref(), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let recipe = Recipe::parse(&fixture.recipe).unwrap();
    let quantized = apply(&recipe, &full, opened.stored_bits(), &[]).unwrap().decoder;
    let words = Words::of(&opened);
    let (mut lm, mut rounded) = (Engine::new(&full, words), Engine::new(&quantized, words));

    for (name, text) in &fixture.texts {
        let tokens = lm.encode(&texts[name.as_str()], true).unwrap();
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        assert_eq!(tokens.len(), text.tokens, "{name}");
        assert_eq!(format!("{:x}", Sha256::digest(&bytes)), text.tokens_sha256, "tokens of {name}");
    }

    for case in &fixture.perplexity {
        println!("{} {} {}", case.text, case.weights, case.window);
        let lm: &mut Engine<'_> = if case.weights == "full" { &mut lm } else { &mut rounded };
        let text = &texts[case.text.as_str()];
        let outcomes = perplexity::joined(lm, text, Protocol::LlamaCpp, Some(case.window), None).unwrap();
        let losses: Vec<Outcome> = outcomes.iter().map(|(_, o)| o.clone()).collect();
        assert_eq!(losses.len(), case.chunks);
        let (mut nll, mut scored) = (0., 0);
        for (i, loss) in losses.iter().enumerate() {
            let Outcome::Text(loss) = loss else { panic!("{loss:?}") };
            nll += loss.nll;
            scored += loss.tokens;
            let ours = (nll / scored as f64).exp();
            if let Some(theirs) = case.running.get(i) {
                assert!(
                    (ours / theirs - 1.).abs() < 5e-6,
                    "after chunk {}: {ours}, llama.cpp {theirs}",
                    i + 1
                );
            }
        }
        assert_eq!(scored, case.scored);
        close("perplexity", value("perplexity", &outcomes), case.ppl, 2e-6 * case.ppl);
        close("stderr_iid", metrics::independent_stderr(&losses).unwrap(), case.stderr, 2e-6 * case.stderr);
    }

    for case in &fixture.divergence {
        println!("{} {} {}", case.text, fixture.recipe, case.window);
        let windows =
            perplexity::windows(&lm, &texts[case.text.as_str()], Protocol::LlamaCpp, Some(case.window))
                .unwrap();
        assert_eq!(windows.iter().map(|w| w.predict.len()).sum::<usize>(), case.scored);
        let outcomes = divergence::run(&mut rounded, &mut lm, &windows).unwrap();
        // Another CPU may break one tie another way.
        let tie = |name: &str| if name == "same_top" { 1. / case.scored as f64 } else { 0. };
        for (name, theirs) in &case.exact {
            close(name, value(name, &outcomes), *theirs, 1e-6 + tie(name));
        }
        for (name, tolerance) in PRINTED {
            close(
                &format!("{name}, printed"),
                value(name, &outcomes),
                case.printed[name][0],
                tolerance + tie(name),
            );
        }
        let (full, floored) = floored(&mut lm, &windows);
        let nll = case.printed["ppl"][0].ln();
        assert!(floored.abs_diff(case.floored) <= 1, "{floored}, llama.cpp {}", case.floored);
        close("base, printed", full.exp(), case.printed["ppl_full"][0], 1e-6 * full.exp());
        close("ratio, printed", nll - full, case.printed["ln_ppl_ratio"][0], 2e-6);
    }
}

/// The mean loss where no token is less likely than e^-16 of the likeliest, and how many are.
fn floored(lm: &mut Engine<'_>, windows: &[Sequence]) -> (f64, usize) {
    let (mut nll, mut tokens, mut floored) = (0., 0, 0);
    lm.score(windows, &mut |i, logits| {
        let targets = &windows[i].tokens[windows[i].predict.clone()];
        for (t, &token) in targets.iter().enumerate() {
            let row = logits.row(t);
            let floor = row[float::top(row)] - 16.;
            nll += float::log_sum_exp(row) - f64::from(row[token as usize].max(floor));
            floored += usize::from(row[token as usize] < floor);
        }
        tokens += targets.len();
        Ok(())
    })
    .unwrap();
    (nll / tokens as f64, floored)
}

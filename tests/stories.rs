//! A real trained model and its twelve perplexities, through the public command line, with a task file of one's own.
//!
//! References: transformers in f32 with the study's rounding rule. Where values are rounded while a text is read, the
//! reference itself moves with the last bit of f32 (docs/numerics.md, "How far a number can be trusted"): with 4 bits
//! for keys, transformers gives 10.1406 (eager, f32), 10.1410 (sdpa, f32) and 10.1468 (eager, f64).
use crate::common::{bitsweep, shared};
use std::{collections::HashMap, fs, path::Path};

const MODEL: &str = "models/stories260K";
const TEXT: &str = "data/tinystories/tinystories_valid_excerpt.txt";

const WANT: [(&str, f64, f64); 12] = [
    ("full", 6.076862, 1e-6),
    ("w8", 6.084933, 1e-6),
    ("w4", 6.845214, 1e-6),
    ("w3", 19.014943, 1e-6),
    ("w2", 689.337541, 1e-6),
    ("w8a8", 6.096027, 1e-3),
    ("w4a8", 6.861084, 1e-3),
    // Half a unit in the last place of every product moves this one by 2e-3, in transformers too.
    ("w4a4", 8.797344, 5e-3),
    ("kv8", 6.087121, 1e-4),
    // In f64: 10.146804, 25.678319, 63.545090.
    ("kv4", 10.141079, 1e-3),
    ("kv3", 25.678320, 1e-4),
    ("kv2", 63.512846, 1e-3),
];

/// What a study of one model on the text leaves in its table.
fn study(dir: &Path, model: &Path, text: &Path, recipes: &[&str]) -> Vec<HashMap<String, String>> {
    let task = format!(
        "about = 'my text'\nversion = 1\nmetrics = ['perplexity']\n[data.file]\npath = '{}'\n[ask.perplexity]\n\
         text = '{{{{ text }}}}'\nprotocol = 'windows'\nwindow = 256\n",
        text.canonicalize().unwrap().display()
    );
    fs::write(dir.join("my-text.toml"), task).unwrap();
    let model = model.canonicalize().unwrap();
    let study = format!(
        "about = 'a study'\nmodels = ['{}']\ntasks = ['my-text.toml']\nrecipes = {recipes:?}\n",
        model.display()
    );
    fs::write(dir.join("study.toml"), study).unwrap();
    let out = dir.join("out");
    let run = bitsweep().arg(dir.join("study.toml")).arg("--out").arg(&out).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    csv::Reader::from_path(out.join("table.csv")).unwrap().deserialize().map(Result::unwrap).collect()
}

#[test]
fn twelve_perplexities() {
    let (Some(model), Some(text)) = (shared(MODEL), shared(TEXT)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<&str> = WANT[1..].iter().map(|(name, ..)| *name).collect();
    let rows = study(dir.path(), &model, &text, &names);
    assert_eq!(rows.len(), 12);
    for ((recipe, want, tolerance), row) in WANT.iter().zip(&rows) {
        assert_eq!(
            (row["recipe"].as_str(), row["n"].as_str(), row["metric"].as_str()),
            (*recipe, "28", "perplexity")
        );
        let value: f64 = row["value"].parse().unwrap();
        println!("{recipe:5} {value:.6}  reference {want:.6}  {:+.1e}", value / want - 1.);
        assert!((value / want - 1.).abs() < *tolerance, "{recipe}: {value}, reference {want}");
    }
}

/// A repository as LLaMA's first ones were: sentencepiece's vocabulary alone.
#[test]
fn the_same_perplexity_from_a_sentencepiece_vocabulary() {
    let (Some(model), Some(text)) = (shared(MODEL), shared(TEXT)) else { return };
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.model"] {
        fs::copy(model.join(file), dir.path().join(file)).unwrap();
    }
    fs::write(dir.path().join("tokenizer_config.json"), r#"{"tokenizer_class": "LlamaTokenizer"}"#).unwrap();
    let rows = study(dir.path(), dir.path(), &text, &[]);
    let value: f64 = rows[0]["value"].parse().unwrap();
    assert!((value / WANT[0].1 - 1.).abs() < 1e-6, "{value}");
}

//! A real trained model and its twelve perplexities, through the public command line, with a task file of one's own.
//!
//! References: transformers in f32 with the study's rounding rule. Where values are rounded while a text is read, the
//! reference itself moves with the last bit of f32 (docs/numerics.md, "How far a number can be trusted"): with 4 bits
//! for keys, transformers gives 10.1406 (eager, f32), 10.1410 (sdpa, f32) and 10.1468 (eager, f64).
use crate::common::{bitsweep, shared};
use std::fs;

const WANT: [(&str, f64, f64); 12] = [
    ("full", 6.076862, 1e-6),
    ("w8", 6.084933, 1e-6),
    ("w4", 6.845214, 1e-6),
    ("w3", 19.014943, 1e-6),
    ("w2", 689.337541, 1e-6),
    ("w8a8", 6.096027, 1e-3),
    ("w4a8", 6.861084, 1e-3),
    ("w4a4", 8.797344, 1e-3),
    ("kv8", 6.087121, 1e-4),
    // In f64: 10.146804, 25.678319, 63.545090.
    ("kv4", 10.141079, 1e-3),
    ("kv3", 25.678320, 1e-4),
    ("kv2", 63.512846, 1e-3),
];

#[test]
fn twelve_perplexities() {
    let (Some(model), Some(text)) =
        (shared("models/stories260K"), shared("data/tinystories/tinystories_valid_excerpt.txt"))
    else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (model, text) = (model.canonicalize().unwrap(), text.canonicalize().unwrap());
    fs::write(
        dir.path().join("my-text.toml"),
        format!(
            "about = 'my text'\nversion = 1\nmetrics = ['perplexity']\n[data.file]\npath = '{}'\n[ask.perplexity]\n\
             text = '{{{{ text }}}}'\nprotocol = 'windows'\nwindow = 256\n",
            text.display()
        ),
    )
    .unwrap();
    let names: Vec<String> = WANT[1..].iter().map(|(name, ..)| format!("'{name}'")).collect();
    fs::write(
        dir.path().join("twelve.toml"),
        format!(
            "about = 'twelve'\nmodels = ['{}']\ntasks = ['my-text.toml']\nrecipes = [{}]\n",
            model.display(),
            names.join(", ")
        ),
    )
    .unwrap();
    let out = dir.path().join("out");
    let run = bitsweep().arg(dir.path().join("twelve.toml")).arg("--out").arg(&out).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut table = csv::Reader::from_path(out.join("table.csv")).unwrap();
    let rows: Vec<std::collections::HashMap<String, String>> =
        table.deserialize().map(Result::unwrap).collect();
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

//! What helps where: perplexities of methods by bits, on a real trained model, on the built-in one, and on that with outliers
//! planted. With `--nocapture` it prints the tables of docs/numerics.md.
use crate::{
    common::{repo, shared},
    families::{gap, logits},
    methods::recipe,
};
use bitsweep::{
    model::{
        decoder::Decoder,
        load::{self, Opened},
        spec::Feeder,
    },
    quant::{apply::apply, prepare::fold, recipe::Recipe},
};
use candle_core::Device;
use std::{collections::BTreeMap, fs, path::Path};

/// The built-in model with outliers planted as trained models have them: four channels of every norm 200 times as large, and the
/// weights behind them as much smaller. The same function, hard activations.
pub fn with_outliers(full: &Decoder) -> Decoder {
    let mut model = full.clone();
    for block in &mut model.blocks {
        for group in block.spec.scale_groups() {
            let Feeder::Norm(_) = group.feeder else { continue };
            let channels = full.spec.hidden;
            let scale: Vec<f32> =
                (0..channels).map(|i| if i % (channels / 4) == 5 { 1. / 200. } else { 1. }).collect();
            fold::scale(block, &group, &scale).unwrap();
        }
    }
    model
}

/// Mean loss of next tokens on texts that nobody was calibrated with, `e` to its power.
fn perplexity(model: &Decoder, texts: &[Vec<u32>]) -> f64 {
    let (mut sum, mut count) = (0f64, 0usize);
    for text in texts {
        for (row, next) in logits(model, text).to_vec2::<f32>().unwrap().iter().zip(&text[1..]) {
            sum += bitsweep::float::log_sum_exp(row) - f64::from(row[*next as usize]);
            count += 1;
        }
    }
    (sum / count as f64).exp()
}

/// A model, what methods look at, and what it is measured on.
struct Subject {
    full: Decoder,
    calibration: Vec<Vec<u32>>,
    texts: Vec<Vec<u32>>,
}

fn windows(opened: &Opened, text: String) -> Vec<Vec<u32>> {
    let ids = opened.tokenizer.encode(text, true).unwrap().get_ids().to_vec();
    ids.chunks_exact(256).map(<[u32]>::to_vec).collect()
}

fn built_in() -> Subject {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let read = |file: &str| -> Vec<Vec<u32>> {
        let text = fs::read_to_string(repo(file)).unwrap();
        let line = |l: &str| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["text"].as_str().unwrap().to_string()
        };
        windows(&opened, text.lines().map(line).collect()).into_iter().take(8).collect()
    };
    let full = opened.load(&Device::Cpu).unwrap();
    Subject {
        full,
        calibration: read("suites/calibration/microworld.jsonl"),
        texts: read("suites/microworld/text.jsonl"),
    }
}

/// LLaMA's shape, 260,032 parameters, trained on TinyStories; the excerpt's second half is what methods look at.
fn stories() -> Option<Subject> {
    let (model, text) =
        (shared("models/stories260K")?, shared("data/tinystories/tinystories_valid_excerpt.txt")?);
    let opened = load::open(&model.display().to_string(), Path::new(""), None).unwrap();
    let mut texts = windows(&opened, fs::read_to_string(text).unwrap());
    let calibration = texts.split_off(texts.len() / 2);
    Some(Subject { full: opened.load(&Device::Cpu).unwrap(), calibration, texts })
}

/// Methods, with `#` where bits stand; what no notation says is a table.
const METHODS: &[(&str, &str)] = &[
    ("rtn", "w#"),
    ("hqq", "hqq-w#"),
    ("kmeans", "kmeans-w#"),
    ("kmeans, inputs", "weights = { method = 'kmeans', bits = #, sensitivity = 'inputs' }"),
    ("kmeans, gradients", "weights = { method = 'kmeans', bits = #, sensitivity = 'gradients' }"),
    ("awq", "awq-w#"),
    ("gptq", "gptq-w#"),
    ("gptq, act_order", "weights = { method = 'gptq', bits = #, act_order = true }"),
    ("awq, gptq", "awq-gptq-w#"),
    ("rotate, rtn", "rotate+w#"),
    ("rotate, gptq", "rotate+gptq-w#"),
    ("owq", "owq-w#"),
    ("spqr", "spqr-w#"),
    ("rtn, keep 1%", "weights = { method = 'rtn', bits = #, keep = { share = 0.01, by = 'loss' } }"),
    (
        "rtn, half a bit more by budget",
        "weights = { method = 'rtn', bits = # }\nbudget = { bits_per_weight = #.5 }",
    ),
    ("rtn, correct", "weights = { method = 'rtn', bits = #, correct = { rank = 8 } }"),
    ("gptq, correct", "weights = { method = 'gptq', bits = #, correct = { rank = 8 } }"),
    ("omniquant", "weights = { method = 'omniquant', bits = #, passes = 6 }"),
    ("autoround", "weights = { method = 'autoround', bits = #, steps = 30 }"),
    (
        "efficientqat",
        "weights = { method = 'efficientqat', bits = #, rate = 1e-3, weight_rate = 1e-4, passes = 6 }",
    ),
];

/// Activations and the cache.
const OTHERS: &[(&str, &str)] = &[
    ("rtn", "w#a#"),
    (
        "llm.int8 columns",
        "weights = { method = 'rtn', bits = # }\nacts = { bits = #, symmetric = true, threshold = 6.0 }",
    ),
    ("smoothquant", "smoothquant+w#a#"),
    (
        "smoothquant, searched",
        "prepare = [{ method = 'smoothquant', alpha = 'search' }]\nweights = { method = 'rtn', bits = # }\nacts = { bits = # }",
    ),
    ("osplus", "osplus+w#a#"),
    ("qllm", "qllm+w#a#"),
    ("rotate", "rotate+w#a#"),
    ("rotate, gptq", "rotate+gptq-w#a#"),
    (
        "omniquant",
        "weights = { method = 'omniquant', bits = #, passes = 6, equivalent = true }\nacts = { bits = # }",
    ),
];

const CACHE: &[(&str, &str)] = &[
    ("rtn", "kv#"),
    ("kivi", "kivi#"),
    ("kvquant", "kvquant#"),
    ("kvquant, codebooks", "kv = { method = 'kvquant', bits = #, codebook = {} }"),
    (
        "kvquant, codebooks, normalized",
        "kv = { method = 'kvquant', bits = #, codebook = { normalize = true } }",
    ),
    ("kvquant, even codebooks", "kv = { method = 'kvquant', bits = #, codebook = { by = 'even' } }"),
    ("rotate", "prepare = [{ method = 'rotate' }]\nkv = { bits = # }"),
];

/// One perplexity each.
const FORMATS: &[&str] = &[
    "fp8",
    "nf4",
    "fp4",
    "mxfp6",
    "mxfp4",
    "nvfp4",
    "ternary",
    "binary",
    "fp8afp8",
    "mxfp8amxfp8",
    "mxfp4amxfp4",
    "q8_0",
    "q5_0",
    "q4_0",
    "imatrix-q4_0",
    "iq4_nl",
];

const PRUNED: &[(&str, &str)] = &[
    ("magnitude 50%", "prepare = [{ method = 'prune', by = 'magnitude', share = 0.5 }]"),
    ("wanda 50%", "prepare = [{ method = 'prune', by = 'wanda', share = 0.5 }]"),
    ("magnitude 2:4", "prepare = [{ method = 'prune', by = 'magnitude', pattern = '2:4' }]"),
    ("wanda 2:4", "prepare = [{ method = 'prune', by = 'wanda', pattern = '2:4' }]"),
];

/// The recipe of a table's cell: `gptq/2`, `rtn/w4a4`, `kivi/kv2`, `nf4`.
fn text(cell: &str) -> String {
    let Some((name, bits)) = cell.split_once('/') else {
        return PRUNED.iter().find(|(n, _)| *n == cell).map_or(cell, |(_, text)| text).into();
    };
    let (methods, bits) = match (bits.strip_prefix("kv"), bits.strip_prefix('w')) {
        (Some(bits), _) => (CACHE, bits),
        (_, Some(both)) => (OTHERS, both.split('a').next().unwrap()),
        _ => (METHODS, bits),
    };
    methods.iter().find(|(n, _)| *n == name).unwrap().1.replace('#', bits)
}

impl Subject {
    fn of(&self, text: &str) -> f64 {
        let made = if text.contains('=') { recipe(text) } else { Recipe::parse(text).unwrap() };
        let q = apply(&made, &self.full, 16, &self.calibration).unwrap();
        perplexity(&q.decoder, &self.texts)
    }

    /// That each cell before a `<` is smaller than the one after it.
    fn holds(&self, name: &str, claims: &str) {
        let mut known = BTreeMap::new();
        for claim in claims.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let cells: Vec<&str> = claim.split(" < ").collect();
            let of = |cell: &&str| *known.entry(cell.to_string()).or_insert_with(|| self.of(&text(cell)));
            let values: Vec<f64> = cells.iter().map(of).collect();
            println!("{name}: {claim}: {values:.3?}");
            assert!(values.windows(2).all(|v| v[0] < v[1]), "{name}: {claim}: {values:.3?}");
        }
    }

    /// Rows of methods, columns of bits.
    fn rows(&self, what: &str, methods: &[(&str, &str)], bits: &[u8]) {
        let head: Vec<String> = bits.iter().map(|b| format!("{b} bits")).collect();
        println!("\n| {what} | {} |\n|---|{}", head.join(" | "), "---|".repeat(bits.len()));
        for (name, text) in methods {
            let values = bits.iter().map(|b| shown(self.of(&text.replace('#', &b.to_string()))));
            println!("| {name} | {} |", values.collect::<Vec<_>>().join(" | "));
        }
    }

    fn tables(&self, name: &str) {
        println!("\n### {name}: full precision {}", shown(self.of("full")));
        self.rows("weights", METHODS, &[4, 3, 2]);
        self.rows("weights and activations", OTHERS, &[8, 6, 4]);
        self.rows("cache", CACHE, &[4, 3, 2]);
        println!("\n| format, or pruned | |\n|---|---|");
        let formats = FORMATS.iter().map(|name| (*name, *name));
        for (name, text) in formats.chain(PRUNED.iter().copied()) {
            println!("| {name} | {} |", shown(self.of(text)));
        }
    }
}

fn shown(value: f64) -> String {
    if value < 1e4 { format!("{value:.3}") } else { format!("{value:.1e}") }
}

/// Of few bits and many methods, whatever the model.
const ANYWHERE: &str = "
    gptq/2 < rtn/2
    awq/2 < rtn/2
    rtn/3 < rtn/2
    kmeans, gradients/2 < rtn/2
    autoround/2 < gptq/2
    rtn, correct/2 < rtn/2
    rtn, keep 1%/2 < rtn/2
    owq/2 < rtn/2
    kivi/kv2 < rtn/kv2
    kvquant/kv2 < rtn/kv2
";

/// Each method helps where its paper says; where one does not, docs/numerics.md says why.
#[test]
fn methods_help_where_their_papers_say() {
    built_in().holds(
        "built-in",
        &format!(
            "{ANYWHERE}
            gptq/3 < rtn/3
            hqq/2 < rtn/2
            kmeans/3 < rtn/3
            kmeans/2 < rtn/2
            spqr/2 < gptq/2
            rotate, gptq/2 < rotate, rtn/2"
        ),
    );
}

#[test]
fn methods_help_where_activations_have_outliers() {
    let plain = built_in();
    let hard = Subject { full: with_outliers(&plain.full), ..plain };
    assert!(gap(&logits(&plain.full, &hard.texts[0]), &logits(&hard.full, &hard.texts[0])) < 1e-2);
    hard.holds(
        "with outliers",
        &format!(
            "{ANYWHERE}
            awq/3 < rtn/3
            rotate, gptq/2 < rotate, rtn/2
            kmeans, inputs/2 < kmeans/2
            kmeans, gradients/2 < kmeans/2
            smoothquant/w8a8 < rtn/w8a8
            smoothquant, searched/w4a4 < smoothquant/w4a4 < rtn/w4a4
            llm.int8 columns/w8a8 < rtn/w8a8
            osplus/w8a8 < rtn/w8a8
            qllm/w8a8 < rtn/w8a8
            rotate/w8a8 < rtn/w8a8
            rotate/w4a4 < smoothquant/w4a4"
        ),
    );
}

#[test]
fn methods_help_a_trained_llama() {
    let Some(stories) = stories() else { return };
    stories.holds(
        "stories260K",
        &format!(
            "{ANYWHERE}
            awq/3 < rtn/3
            awq, gptq/3 < gptq/3 < rtn/3
            hqq/3 < rtn/3
            kmeans, gradients/3 < kmeans/3 < rtn/3
            rotate, gptq/3 < rotate, rtn/3 < rtn/3
            spqr/2 < gptq/2
            owq/2 < gptq/2
            owq/4 < rtn/4
            efficientqat/2 < rtn/2
            rotate, gptq/w4a4 < rotate/w4a4 < rtn/w4a4
            rotate/kv4 < rtn/kv4
            kvquant, codebooks/kv2 < kvquant/kv2
            wanda 50% < magnitude 50%
            wanda 2:4 < magnitude 2:4
            nvfp4 < mxfp4
            iq4_nl < q4_0"
        ),
    );
}

/// Whole tables: twenty minutes. `cargo test -- --ignored --nocapture tables` prints those of docs/numerics.md.
#[test]
#[ignore = "prints the tables of docs/numerics.md"]
fn tables() {
    let plain = built_in();
    plain.tables("built-in");
    Subject { full: with_outliers(&plain.full), ..built_in() }.tables("with outliers planted");
    if let Some(subject) = stories() {
        subject.tables("stories260K");
    }
}

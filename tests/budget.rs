//! Bits given out by sensitivity: within the budget, the best there is but for a step, and better than the same for all.
use crate::{
    families::{all, logits},
    methods::{recipe, some_texts},
};
use bitsweep::{
    model::{decoder::Decoder, load},
    quant::{
        apply::{apply, sizes},
        budget::{Choice, spend},
    },
};
use candle_core::Device;
use std::path::Path;

/// Every way to choose, of groups of three choices.
fn best(groups: &[Vec<Choice>], bits: f64) -> Option<f64> {
    let ways = 3usize.pow(groups.len() as u32);
    let each = (0..ways).filter_map(|way| {
        let picked = groups.iter().enumerate().map(|(g, choices)| choices[way / 3usize.pow(g as u32) % 3]);
        let (spent, lost) = picked.fold((0., 0.), |(b, l), c| (b + c.bits, l + c.loss));
        (spent <= bits).then_some(lost)
    });
    each.reduce(f64::min)
}

#[test]
fn what_is_spent_is_spent_well() {
    let number = |seed: u64| (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24);
    for seed in 0..200u64 {
        let groups: Vec<Vec<Choice>> = (0..6)
            .map(|g| {
                let size = 10. + 90. * number(seed * 100 + g * 7 + 1);
                let loss = 5. * number(seed * 100 + g * 7 + 2);
                // Losses that fall, most of the time, and by whatever they like.
                let more = |i: u64| 0.5 * number(seed * 100 + g * 7 + 2 + i) * loss;
                [(2., loss), (3., more(1)), (4., more(2) * 0.7)]
                    .map(|(b, loss)| Choice { bits: b * size, loss })
                    .to_vec()
            })
            .collect();
        let least: f64 = groups.iter().map(|g| g[0].bits).sum();
        for share in [1., 1.2, 1.5, 1.9, 2.] {
            let bits = least * share;
            let chosen = spend(&groups, bits).unwrap();
            let picked = groups.iter().zip(&chosen).map(|(g, &c)| g[c]);
            let (spent, lost) = picked.fold((0., 0.), |(b, l), c| (b + c.bits, l + c.loss));
            let step = groups.iter().map(|g| g[0].loss).fold(0., f64::max);
            let want = best(&groups, bits).unwrap();
            assert!(
                spent <= bits && lost >= want - 1e-12 && lost <= want + step,
                "{seed} {share}: {lost}, {want}"
            );
            assert!(
                share < 2. || (lost - want).abs() < 1e-12,
                "{seed}: all of it buys the best: {lost}, {want}"
            );
        }
        assert!(spend(&groups, 0.99 * least).is_none());
    }
}

fn distance(q: &Decoder, full: &Decoder, on: &[u32]) -> f32 {
    (logits(q, on) - logits(full, on)).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar().unwrap()
}

/// With no more bits than three for all, a model is nearer to full precision; where they went is said; threads move nothing.
#[test]
fn a_budget_beats_the_same_bits_for_all() {
    let full = load::open("builtin:llama", Path::new(""), None).unwrap().load(&Device::Cpu).unwrap();
    let text =
        |s: u32, n: u32| (0..n).map(|i| (i * i * 7 + i * (31 + s) + s * 13) % 1024).collect::<Vec<u32>>();
    let (texts, on): (Vec<_>, _) = ((0..4).map(|s| text(s, 64)).collect(), text(99, 64));
    let weights = "weights = { method = 'rtn', bits = 3, group = 32 }";
    let plain = apply(&recipe(weights), &full, 16, &[]).unwrap();
    let uniform = distance(&plain.decoder, &full, &on);
    let bits = plain.sizes.bits_per_weight;
    let r = recipe(&format!("{weights}\nbudget = {{ bits_per_weight = {bits} }}"));
    let q = apply(&r, &full, 16, &texts).unwrap();
    let off = distance(&q.decoder, &full, &on);
    println!("{off} of {uniform}, {} bits: {:?}", q.sizes.bits_per_weight, q.sizes.notes);
    assert!(off < uniform, "{off}, {uniform} with three bits for all");
    assert!(q.sizes.bits_per_weight <= bits && q.sizes.bits_per_weight > bits - 0.3);
    assert!(q.sizes.notes.iter().any(|n| n.starts_with("bits by sensitivity: 2 for ")));
    let counted = sizes(&r, &full.spec, 16).unwrap();
    assert!(
        (counted.size_mb - plain.sizes.size_mb).abs() < 1e-9,
        "{} {}",
        counted.size_mb,
        plain.sizes.size_mb
    );
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let q = pool.install(|| apply(&r, &full, 16, &texts[..2]).unwrap());
        logits(&q.decoder, &on).to_vec2::<f32>().unwrap()
    };
    assert!(with(1) == with(3));
    // What a recipe says of a site holds, and is no part of the budget.
    let r = recipe(&format!(
        "{weights}\nbudget = {{ bits_per_weight = 2.7, among = [2, 3] }}\nat = [{{ sites = ['*.ffn.down'], weights = {{ method = 'rtn', bits = 8 }} }}]"
    ));
    let notes = apply(&r, &full, 16, &texts).unwrap().sizes.notes.join(" ");
    assert!(!notes.contains("ffn.down"), "{notes}");
}

/// Any family, experts of a block together, and with what is done before and after.
#[test]
fn every_family_has_a_budget() {
    for r in ["", "prepare = [{ method = 'smoothquant' }]"] {
        for f in all() {
            let r = recipe(&format!(
                "{r}\nweights = {{ method = 'gptq', bits = 3, group = 8 }}\nacts = {{ bits = 8 }}\n\
                 budget = {{ bits_per_weight = 6, among = [2, 4, 8], samples = 1 }}"
            ));
            if r.unfit(&f.spec).is_some() {
                continue;
            }
            let q = apply(&r, &f.decoder, 32, &some_texts(&f.spec)).unwrap();
            let sizes = q.sizes;
            assert!(sizes.bits_per_weight <= 6. && sizes.bits_per_weight > 4., "{}: {sizes:?}", f.name);
            let sum = logits(&q.decoder, &f.tokens).sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(sum.is_finite(), "{}", f.name);
        }
    }
}

#[test]
fn budgets_that_are_none() {
    let table = |text: &str| {
        let table: bitsweep::quant::recipe::Table = toml::from_str(&format!("name = 'x'\n{text}")).unwrap();
        bitsweep::quant::recipe::Recipe::from_table(table).unwrap_err().to_string()
    };
    for (text, part) in [
        ("budget = { bits_per_weight = 3 }", "there are none"),
        ("weights = { method = 'rtn', format = 'nf4' }\nbudget = { bits_per_weight = 3 }", "integers"),
        ("weights = { method = 'gguf', type = 'q4_k' }\nbudget = { bits_per_weight = 3 }", "integers"),
        (
            "weights = { method = 'rtn', bits = 3 }\nbudget = { bits_per_weight = 3, among = [4] }",
            "two numbers",
        ),
        (
            "weights = { method = 'rtn', bits = 3 }\nbudget = { bits_per_weight = 3, among = [1, 4] }",
            "from 2 to 8",
        ),
        ("weights = { method = 'rtn', bits = 3 }\nbudget = { bits_per_weight = -1 }", "above 0"),
        ("weights = { method = 'rtn', bits = 3 }\nbudget = { bits_per_weight = 3, samples = 0 }", "texts"),
    ] {
        let error = table(text);
        assert!(error.contains(part), "{error}");
    }
    let spec = load::open("builtin:llama", Path::new(""), None).unwrap().spec;
    let why = recipe("weights = { method = 'rtn', bits = 3 }\nbudget = { bits_per_weight = 2 }").unfit(&spec);
    assert!(why.as_ref().unwrap().contains("2 bits with their scales are 2."), "{why:?}");
}

//! Every method on every family: what must be true of any of them, whoever made it.
//!
//! ```text
//! values      a group has no more of them than codes, but for weights that a method keeps; and all are finite
//! bits        what is lost, counted by the inputs' second moments, is less with more of them
//! sizes       bits a weight as counted beforehand, where they depend on no value
//! ```
use crate::{
    families::{Fixture, all, logits},
    methods::{lost, recipe, some_texts},
};
use bitsweep::{
    model::{decoder::Decoder, ops::Precision},
    quant::{
        apply::{apply, sizes},
        calibrate::{Bench, Inputs},
        prepare,
        weight::{METHODS, Needs},
    },
};
use candle_core::Tensor;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Each method in few steps, `#` its bits; and of how many weights each group's values are counted, none where scales are codes too.
const ALL: &[(&str, &str)] = &[
    ("rtn", "method = 'rtn', bits = #, group = 8"),
    ("rtn", "method = 'rtn', bits = #, group = 8, symmetric = true, search = 'mse'"),
    ("rtn", "method = 'rtn', bits = #, group = 8, keep = { share = 0.02, by = 'loss' }"),
    ("gptq", "method = 'gptq', bits = #, group = 8"),
    ("gptq", "method = 'gptq', bits = #, group = 8, act_order = true, static_groups = true, search = 'mse'"),
    ("owq", "method = 'owq', bits = #, share = 0.1"),
    ("spqr", "method = 'spqr', bits = #, group = 8"),
    ("omniquant", "method = 'omniquant', bits = #, group = 8, passes = 1"),
    ("autoround", "method = 'autoround', bits = #, group = 8, steps = 2"),
    ("efficientqat", "method = 'efficientqat', bits = #, group = 8, passes = 1"),
    ("hqq", "method = 'hqq', bits = #, group = 8"),
    ("kmeans", "method = 'kmeans', bits = #"),
    ("kmeans", "method = 'kmeans', bits = #, group = 16, per = 'group', sensitivity = 'gradients'"),
    ("gguf", "method = 'gguf', type = 'q#_0'"),
];

/// A full model's second moments, by block and linear.
fn moments(f: &Fixture, texts: &[Vec<u32>]) -> BTreeMap<String, Tensor> {
    let mut bench = Bench::new(texts, &[Inputs::Full]);
    bench.enter(&f.decoder, &f.decoder).unwrap();
    let mut all = BTreeMap::new();
    for block in &f.decoder.blocks {
        let needs = Needs { hessian: true, ..Needs::NOTHING };
        for (site, seen) in bench.watch(&f.decoder, block, Inputs::Full, needs, &|_| true).unwrap() {
            all.insert(site.to_string(), seen.hessian.clone().unwrap());
        }
        bench.advance(&f.decoder, block, block).unwrap();
    }
    all
}

/// What all linears lose, each as a share of what it gives; and that no group has more values than codes.
fn check(
    name: &str,
    q: &Decoder,
    f: &Fixture,
    h: &BTreeMap<String, Tensor>,
    codes: Option<(usize, usize)>,
) -> f32 {
    let mut sum = 0.;
    for (block, full) in q.blocks.iter().zip(&f.decoder.blocks) {
        for (key, linear) in &block.linears {
            let (w, was) = (linear.weight.rows().unwrap(), full.linears[key].weight.rows().unwrap());
            // OWQ's columns take what is lost before them, and are no longer the originals in 16 bits.
            let whole = if name.contains("owq") { &w } else { &was };
            let kept = Precision::F16.round(whole.clone()).unwrap().to_vec2::<f32>().unwrap();
            let rows = w.to_vec2::<f32>().unwrap();
            assert!(rows.iter().flatten().all(|x| x.is_finite()), "{name} {}: {}", f.name, linear.site);
            let router = linear.site.to_string().ends_with(".router");
            if let (Some((group, codes)), false) = (codes, router) {
                for (r, (row, kept)) in rows.iter().zip(&kept).enumerate() {
                    let group = if group == 0 { row.len() } else { group };
                    for (row, kept) in row.chunks(group).zip(kept.chunks(group)) {
                        let own = row.iter().zip(kept).filter(|(a, b)| a != b);
                        let values: BTreeSet<u32> = own.map(|(x, _)| (x + 0.).to_bits()).collect();
                        assert!(
                            values.len() <= codes,
                            "{name} {}: {} row {r}: {} values of {codes} codes: {row:?}",
                            f.name,
                            linear.site,
                            values.len()
                        );
                    }
                }
            }
            let Some(h) = h.get(&linear.site.to_string()) else { continue };
            sum += lost(&was, &w, h) / lost(&was, &was.zeros_like().unwrap(), h).max(1e-20);
        }
    }
    sum
}

#[test]
fn every_method_on_every_family() {
    let named: BTreeSet<&str> = ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, METHODS.iter().map(|m| m.name).collect());
    let every = all();
    every.par_iter().for_each(|f| {
        let texts = some_texts(&f.spec);
        let h = moments(f, &texts);
        for (name, table) in ALL {
            let bits: &[u32] = if *name == "gguf" { &[8, 5, 4] } else { &[8, 4, 2] };
            let mut before = 0.;
            for b in bits {
                let r = recipe(&format!("weights = {{ {} }}", table.replace('#', &b.to_string())));
                if r.unfit(&f.spec).is_some() {
                    continue;
                }
                let q = apply(&r, &f.decoder, 32, &texts).unwrap();
                let codes = match *name {
                    "spqr" | "gguf" => None,
                    "kmeans" if table.contains("group") => Some((16, 1 << b)),
                    "kmeans" | "owq" => Some((0, 1 << b)),
                    _ => Some((8, 1 << b)),
                };
                let loss = check(&format!("{table} {b}"), &q.decoder, f, &h, codes);
                // A codebook may have as many values as a row; GGUF's blocks of 32 fit few of these rows, others are f16.
                let may_stay = ["kmeans", "gguf"].contains(name);
                assert!(
                    loss > before || may_stay && loss >= before,
                    "{table} {b}: {}: {loss}, {before} with more bits",
                    f.name
                );
                before = loss;
                if !["spqr", "owq"].contains(name) {
                    let counted = sizes(&r, &f.spec, 32).unwrap();
                    assert_eq!(q.sizes.bits_per_weight, counted.bits_per_weight, "{table} {b}: {}", f.name);
                }
            }
            // Two bits still give numbers.
            assert!(before.is_finite() && (before > 0. || *name == "gguf"), "{table}: {}", f.name);
        }
        let sum = logits(&f.decoder, &f.tokens).abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(sum.is_finite(), "{}", f.name);
    });
    assert!(every.len() > 60, "{}", every.len());
}

/// Every rewriting on every family: it fits and gives numbers, or says why not; and what one makes, another can go on with.
#[test]
fn every_rewriting_on_every_family() {
    let all_of = ["smoothquant", "osplus", "rotate", "awq", "qllm", "prune, share = 0.3, by = 'wanda'"];
    let named: BTreeSet<&str> = all_of.iter().map(|name| name.split(',').next().unwrap()).collect();
    assert_eq!(named, prepare::METHODS.iter().map(|m| m.name).collect());
    let table = |name: &str| {
        let (name, keys) = name.split_once(',').unwrap_or((name, ""));
        format!("{{ method = '{name}'{}{keys} }}", if keys.is_empty() { "" } else { "," })
    };
    let mut fitting = BTreeMap::<String, usize>::new();
    for f in all() {
        let texts = some_texts(&f.spec);
        for (i, first) in all_of.iter().enumerate() {
            let then = all_of[(i + 1) % all_of.len()];
            // What turns the stream comes before what cuts.
            let both = if i == 5 { table(first) } else { format!("{}, {}", table(first), table(then)) };
            let r = recipe(&format!(
                "prepare = [{both}]\nweights = {{ method = 'rtn', bits = 4, group = 8 }}\nacts = {{ bits = 8 }}"
            ));
            if let Some(why) = r.unfit(&f.spec) {
                assert!(why.contains(':') && why.len() > 40, "{}: {why}", f.name);
                continue;
            }
            *fitting.entry(both.clone()).or_default() += 1;
            let q = apply(&r, &f.decoder, 32, &texts).unwrap();
            let sum =
                logits(&q.decoder, &f.tokens).abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(sum.is_finite(), "{} {both}", f.name);
            assert!(q.sizes.bits_per_weight > 0. && q.sizes.size_mb > 0., "{} {both}", f.name);
        }
    }
    assert!(fitting.values().all(|fits| *fits > 20) && fitting.len() == 6, "{fitting:?}");
}

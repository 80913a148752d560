//! Rounding that is learned: each fake quantization and its gradients held to the authors' (`tests/make_learned.py`), and what
//! learning does to a model.
use crate::{
    families::{all, logits},
    helps::with_outliers,
    methods::{golden, recipe, some_texts},
};
use bitsweep::{
    model::load,
    quant::{apply::apply, weight::Weights},
};
use candle_core::{Device, Tensor, Var};
use std::path::Path;

fn weights(table: &str) -> Weights {
    recipe(&format!("weights = {{ {table} }}")).weights.unwrap()
}

fn off(a: &Tensor, b: &Tensor) -> f32 {
    let b = b.reshape(a.shape()).unwrap();
    let most = b.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    let d =
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    d / most.max(1e-6)
}

/// Values and gradients at parameters away from where they begin; `order`: the golden's names of what `vars` gives.
#[test]
fn roundings_and_their_gradients_are_the_authors() {
    for (method, order) in [
        ("omniquant", &["low", "high"][..]),
        ("autoround", &["v", "low", "high"]),
        ("efficientqat", &["scale", "zero", "w"]),
    ] {
        for bits in [2, 4] {
            let golden = golden(&format!("learned/{method}-w{bits}"));
            let weights = weights(&format!("method = '{method}', bits = {bits}, group = 16"));
            let w = &golden["weight"];
            let trainee = weights.rounder().learner().unwrap().trainee(w, &weights.grid).unwrap();
            let vars: Vec<Var> = trainee.vars().into_iter().map(|(var, _)| var).collect();
            assert_eq!(vars.len(), order.len(), "{method}");
            for (var, name) in vars.iter().zip(order) {
                var.set(&golden[*name].reshape(var.shape()).unwrap()).unwrap();
            }
            let q = trainee.rounded(w).unwrap();
            assert!(off(&q, &golden["rounded"]) < 1e-5, "{method} {bits}: {}", off(&q, &golden["rounded"]));
            let grads = (q * &golden["gradient"]).unwrap().sum_all().unwrap().backward().unwrap();
            for (var, name) in vars.iter().zip(order) {
                let d = off(grads.get(var.as_tensor()).unwrap(), &golden[&format!("grad-{name}")]);
                println!("{method} w{bits} {name}: {d}");
                assert!(d < 1e-4, "{method} {bits} {name}: {d}");
            }
        }
    }
}

/// How far logits are from full precision's.
fn distance(text: &str, full: &bitsweep::model::decoder::Decoder, texts: &[Vec<u32>], on: &[u32]) -> f32 {
    let q = apply(&recipe(text), full, 16, texts).unwrap().decoder;
    (logits(&q, on) - logits(full, on)).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar().unwrap()
}

/// Learned on some texts, a model is nearer to full precision on another than rounded to nearest; with activations in few bits too;
/// and no number of threads moves a bit.
#[test]
fn learning_helps_and_has_no_chance_in_it() {
    let full = load::open("builtin:llama", Path::new(""), None).unwrap().load(&Device::Cpu).unwrap();
    let text =
        |s: u32, n: u32| (0..n).map(|i| (i * i * 7 + i * (31 + s) + s * 13) % 1024).collect::<Vec<u32>>();
    let (texts, on): (Vec<_>, _) = ((0..8).map(|s| text(s, 64)).collect(), text(99, 64));
    let nearest =
        distance("weights = { method = 'rtn', bits = 2, group = 32, zero = 'free' }", &full, &texts, &on);
    for table in [
        "method = 'omniquant', bits = 2, group = 32, passes = 4",
        "method = 'autoround', bits = 2, group = 32, steps = 40, batch = 4",
        "method = 'efficientqat', bits = 2, group = 32, passes = 4, rate = 1e-3, weight_rate = 1e-4",
    ] {
        let learned = distance(&format!("weights = {{ {table} }}"), &full, &texts, &on);
        println!("{table}: {learned} of {nearest}");
        assert!(learned < 0.9 * nearest, "{table}: {learned} of {nearest}");
    }
    // Where activations have outliers, scales between norms and linears are what helps.
    let hard = with_outliers(&full);
    let acts = "acts = { bits = 4 }";
    let on_hard = |weights: &str| distance(&format!("weights = {{ {weights} }}\n{acts}"), &hard, &texts, &on);
    let plain = on_hard("method = 'omniquant', bits = 4, passes = 2");
    let learned = on_hard("method = 'omniquant', bits = 4, passes = 2, equivalent = true");
    println!("with outliers, scales learned: {learned} of {plain}");
    assert!(learned < 0.5 * plain, "{learned} of {plain}");

    let r = recipe("weights = { method = 'autoround', bits = 3, group = 16, steps = 5, batch = 2 }");
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let q = pool.install(|| apply(&r, &full, 16, &texts[..3]).unwrap());
        logits(&q.decoder, &on).to_vec2::<f32>().unwrap()
    };
    assert!(with(1) == with(3));
}

/// Every family's blocks have gradients, and what is learned is no number that is none.
#[test]
fn every_family_is_learned() {
    for method in ["omniquant", "autoround", "efficientqat"] {
        let key = if method == "autoround" { "steps = 2" } else { "passes = 1" };
        let more = if method == "omniquant" { ", equivalent = true" } else { "" };
        let r = recipe(&format!("weights = {{ method = '{method}', bits = 3, group = 8, {key}{more} }}"));
        for f in all() {
            let q = apply(&r, &f.decoder, 32, &some_texts(&f.spec)).unwrap().decoder;
            let sum = logits(&q, &f.tokens).abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(sum.is_finite(), "{method} {}", f.name);
        }
    }
}

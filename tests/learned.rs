//! Rounding that is learned: each fake quantization and its gradients held to the authors' (`tests/make_learned.py`), and what
//! learning does to a model.
use crate::{
    common::repo,
    families::{self, all, gap, logits},
    helps::with_outliers,
    methods::{golden, recipe, some_texts},
};
use bitsweep::{
    model::{load, site::Role, spec::Feeder},
    quant::{apply::apply, prepare::fold, weight::Weights},
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

/// Shifts and scales, whatever they are, leave the function as it is, on every family: of norms, and of values before attention's output.
#[test]
fn shifts_and_scales_keep_the_function() {
    let mut moved = 0;
    for f in all() {
        let mut decoder = f.decoder.clone();
        for block in &mut decoder.blocks {
            for group in block.spec.scale_groups() {
                let values = matches!(group.feeder, Feeder::Linear { role: Role::V, repeat: 1, .. });
                if !(values || matches!(group.feeder, Feeder::Norm(_)))
                    || block.spec.mixer.attention().is_none()
                {
                    continue;
                }
                // What is held to a range before it is read cannot be shifted.
                if values && block.spec.mixer.attention().is_some_and(|a| a.clip.is_some()) {
                    continue;
                }
                let Some(first) = group.linears.first().and_then(|key| block.linears.get(key)) else {
                    continue;
                };
                let width = first.weight.dims().unwrap().1;
                let z: Vec<f32> = (0..width).map(|i| (i as f32 * 1.7).sin() * 0.5).collect();
                let s: Vec<f32> = (0..width).map(|i| 0.5 + ((i * 7) % 5) as f32 * 0.4).collect();
                fold::shift(block, &group, &z).unwrap();
                fold::scale(block, &group, &s).unwrap();
                moved += 1;
            }
        }
        let (was, is) = (logits(&f.decoder, &f.tokens), logits(&decoder, &f.tokens));
        let size = was.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(gap(&was, &is) < 1e-4 * size.max(1.), "{}: {} of {size}", f.name, gap(&was, &is));
    }
    assert!(moved > 200, "{moved}");
}

/// Where norms have shifts and inputs lie to one side, what is learned shifts them.
#[test]
fn shifts_are_learned() {
    let f = families::load(&repo("tests/fixtures/opt/125m")).unwrap();
    let mut hard = f.decoder.clone();
    for block in &mut hard.blocks {
        for group in block.spec.scale_groups() {
            if let Feeder::Norm(_) = group.feeder {
                let width = block.linears[&group.linears[0]].weight.dims().unwrap().1;
                // The same function, every fifth channel far from zero.
                let z: Vec<f32> = (0..width).map(|i| if i % 5 == 2 { -20. } else { 0. }).collect();
                fold::shift(block, &group, &z).unwrap();
            }
        }
    }
    let texts = some_texts(&f.spec);
    let distance = |weights: &str| {
        let r = recipe(&format!("weights = {{ {weights} }}\nacts = {{ bits = 4, zero = 'free' }}"));
        let q = apply(&r, &hard, 32, &texts).unwrap().decoder;
        let d = (logits(&q, &f.tokens) - logits(&hard, &f.tokens)).unwrap();
        d.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap()
    };
    let plain = distance("method = 'omniquant', bits = 4, per = 'row', passes = 2");
    let moved = distance("method = 'omniquant', bits = 4, per = 'row', passes = 2, equivalent = true");
    println!("shifted: {moved} of {plain}");
    assert!(moved < 0.3 * plain, "{moved} of {plain}");
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

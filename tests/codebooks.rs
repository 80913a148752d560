//! KVQuant's codebooks, held to their authors' (`tests/make_nuq.py`): what they are fitted to, how well, and what is done with them.
use crate::{
    common::repo,
    families::{self, all, gap, logits},
    methods::{golden, recipe, some_texts},
};
use bitsweep::{
    model::{ops::Precision, seam::KvMap},
    quant::{
        apply::apply,
        calibrate::{Bench, Held, Inputs},
        fisher,
        kv::{
            Kv,
            map::{Cached, quantile},
            nuq::Book,
        },
    },
};
use candle_core::{DType, Tensor};
use std::sync::Arc;

fn kv(bits: usize, outliers: f32, sinks: usize, by: &str, normalize: bool) -> Kv {
    let book = format!("codebook = {{ by = '{by}', normalize = {normalize} }}");
    let table = format!(
        "kv = {{ method = 'kvquant', bits = {bits}, outliers = {outliers:?}, sinks = {sinks}, {book} }}"
    );
    recipe(&table).kv.unwrap()
}

fn numbers(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Of a side's calibration values between their quantiles, what a codebook loses; `keys`: a range a channel, else a token.
fn lost(x: &Tensor, counts: Option<&Tensor>, book: &[f32], outside: f64, keys: bool, first: usize) -> f64 {
    let (rows, width) = x.dims2().unwrap();
    let counts = counts.map_or(vec![1.; rows * width], numbers);
    let lines = if keys { x.t().unwrap().contiguous().unwrap() } else { x.clone() };
    let ranges: Vec<(f32, f32)> = (lines.to_vec2::<f32>().unwrap().into_iter())
        .map(|mut line| {
            line.sort_by(f32::total_cmp);
            (quantile(&line, outside / 2.) as f32, quantile(&line, 1. - outside / 2.) as f32)
        })
        .collect();
    let mut sum = 0.;
    for (i, x) in numbers(x).into_iter().enumerate() {
        let (low, high) = ranges[if keys { i % width } else { i / width }];
        let z = (x - (high + low) / 2.) / ((high - low) / 2.);
        // Sequences of 50.
        if i / width % 50 >= first && (-1. ..=1.).contains(&z) {
            let off = book.iter().map(|level| (z - level).abs()).fold(f32::INFINITY, f32::min);
            sum += f64::from(counts[i]) * f64::from(off).powi(2);
        }
    }
    sum
}

#[test]
fn codebooks_are_kvquants() {
    let all = golden("kv/nuq");
    let held = Held {
        keys: vec![all["keys"].clone()],
        values: vec![all["values"].clone()],
        starts: vec![0, 50, 100, 150],
    };
    let means = [all["keys-fisher"].clone(), all["values-fisher"].clone()];
    let mut count = 0;
    for case in all.keys().filter_map(|key| key.strip_suffix(".out")) {
        let parts: Vec<&str> = case.split('-').collect();
        if parts.contains(&"capped") {
            continue;
        }
        let (side, bits) = (parts[0], parts[1].parse().unwrap());
        let outliers: f32 = match parts[2] {
            "dense" => 0.,
            "sparse" => 0.01,
            _ => 0.1,
        };
        let (gradients, normalize) = (parts.contains(&"fisher"), parts.contains(&"norm"));
        let sinks = if parts.contains(&"first") { 2 } else { 0 };
        let by = if gradients { "gradients" } else { "even" };
        let settings = kv(bits, outliers, sinks, by, normalize);
        let ours = Cached::new(&settings, Precision::F32, &held, gradients.then_some(&means)).unwrap();
        let (keys, at) = (side == "keys", usize::from(side == "values"));

        // As good as theirs, or better.
        let book = ours.books()[at].clone().unwrap();
        let counts = gradients.then_some(&means[at]);
        let theirs = numbers(&all[&format!("{case}.codebook")]);
        let of = |levels: &[f32]| lost(&all[side], counts, levels, f64::from(outliers), keys, sinks);
        let (a, b) = (of(book.levels()), of(&theirs));
        let said = f64::from(numbers(&all[&format!("{case}.loss")])[0]);
        assert!((b - said).abs() < 1e-3 * said, "{case}: they lose {said}, measured {b}");
        assert!(a <= b * (1. + 1e-5), "{case}: {a}, theirs {b}");

        // With theirs, the same numbers.
        let norm = all.get(&format!("{case}.norm")).map_or(vec![1., 0.], numbers);
        let mut books = [None, None];
        books[at] = Some(Book::new(theirs, norm[0], norm[1]));
        let held_to = ours.with_books(books);
        let new = &all[&format!("{side}-new")];
        let x = new.reshape((12, 1, 12)).unwrap();
        let got =
            if keys { held_to.keys(&x) } else { held_to.values(&x) }.unwrap().reshape((12, 12)).unwrap();
        let skip = |t: &Tensor| t.narrow(0, sinks, 12 - sinks).unwrap();
        let off = gap(&skip(&got), &skip(&all[&format!("{case}.out")]));
        assert!(off < 5e-5, "{case}: {off}");
        count += 1;
    }
    assert_eq!(count, 2 * 16);
}

/// Squared gradients of keys and values are those of `k_proj`'s and `v_proj`'s outputs; logits with the authors' codebooks are theirs.
#[test]
fn a_model_with_codebooks_is_kvquants() {
    let all = golden("kv/nuq-model");
    let f = families::load(&repo("tests/fixtures/llama/mha-untied")).unwrap();
    let ids = |t: &Tensor| t.to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
    let tokens = ids(&all["tokens"]);
    let texts: Vec<Vec<u32>> = (0..4).map(|i| ids(&all["calibration"].get(i).unwrap())).collect();
    let means = fisher::cached(&f.decoder, &texts).unwrap();
    for (side, name) in ["keys", "values"].iter().enumerate() {
        let want = &all[&format!("1.{name}.fisher")];
        let most = want.max_all().unwrap().to_scalar::<f32>().unwrap();
        let off = gap(&means[&1][side], want) / most;
        assert!(off < 1e-4, "{name}: {off}");
    }
    for (case, settings) in [
        ("3-0.9-1-False", kv(3, 0.1, 1, "gradients", false)),
        ("2-1--1-True", kv(2, 0., 0, "gradients", true)),
    ] {
        let mut bench = Bench::new(&texts, &[Inputs::Full]);
        bench.enter(&f.decoder, &f.decoder).unwrap();
        let mut decoder = f.decoder.clone();
        for (b, block) in f.decoder.blocks.iter().enumerate() {
            let held = bench.held(&f.decoder, block, Inputs::Full).unwrap();
            let ours = Cached::new(&settings, Precision::F32, &held, Some(&means[&(b as u16)])).unwrap();
            let book = |side: &str| {
                let norm = all.get(&format!("{case}.{b}.{side}.norm")).map_or(vec![1., 0.], numbers);
                Some(Book::new(numbers(&all[&format!("{case}.{b}.{side}.codebook")]), norm[0], norm[1]))
            };
            decoder.blocks[b].kv = Some(Arc::new(ours.with_books([book("keys"), book("values")])));
            bench.advance(&f.decoder, block, block).unwrap();
        }
        let off = gap(&logits(&decoder, &tokens), &all[case]);
        println!("nuq {case}: {off}");
        assert!(off < 5e-5, "{case}: {off}");
    }
}

/// Every family with attention; more values are nearer, and what is fitted by gradients needs the whole model.
#[test]
fn every_family_has_codebooks() {
    for f in all() {
        let mut before = f32::INFINITY;
        let exact = logits(&f.decoder, &f.tokens);
        for bits in [2, 4, 6] {
            let r = recipe(&format!("kv = {{ method = 'kvquant', bits = {bits}, codebook = {{}} }}"));
            assert!(r.whole().is_some());
            if r.unfit(&f.spec).is_some() {
                continue;
            }
            let q = apply(&r, &f.decoder, 32, &some_texts(&f.spec)).unwrap();
            let d = (logits(&q.decoder, &f.tokens) - &exact).unwrap().sqr().unwrap().mean_all().unwrap();
            let d = d.to_scalar::<f32>().unwrap();
            assert!(d < before, "{} {bits}: {d} of {before}", f.name);
            before = d;
        }
    }
}

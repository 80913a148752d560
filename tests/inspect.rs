//! What `bitsweep inspect` says: every statistic against numpy's and scipy's own (`tests/make_inspect.py`), sensitivities against models
//! that are put together another way, and planted defects that must be found.
use crate::{
    common::repo,
    families::{all, logits},
    kit::Desk,
    methods::{recipe, some_texts},
};
use bitsweep::{
    inspect::{
        By, Made, deviations,
        errors::{Gap, cka, hessian},
        moments::{Moments, Spread},
        sensitivity,
        shape::{codebook_error, distinct, effective_rank},
        statistics,
    },
    model::{
        decoder::Decoder,
        load,
        site::{Role, Site},
    },
    quant::recipe::Recipe,
    report::inside::{self, Inside},
    results::inspection::{Deviation, Inspection, Sensitivity, What},
    tensor::matmul::Weight,
};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::Path};

fn golden() -> Value {
    serde_json::from_str(&fs::read_to_string(repo("tests/goldens/inspect.json")).unwrap()).unwrap()
}

fn matrix(rows: &Value) -> Tensor {
    let rows: Vec<Vec<f64>> = serde_json::from_value(rows.clone()).unwrap();
    let (count, width) = (rows.len(), rows[0].len());
    let flat: Vec<f32> = rows.into_iter().flatten().map(|v| v as f32).collect();
    Tensor::from_vec(flat, (count, width), &Device::Cpu).unwrap()
}

#[track_caller]
fn near(ours: Option<f64>, want: &Value, within: f64, what: &str) {
    match (ours, want.as_f64()) {
        (None, None) => {}
        (Some(a), Some(b)) if (a - b).abs() <= within * b.abs().max(1e-9) => {}
        (a, b) => panic!("{what}: {a:?}, not {b:?}"),
    }
}

#[test]
fn matrices_are_what_scipy_says() {
    for case in golden()["spreads"].as_array().unwrap() {
        let (x, name) = (matrix(&case["rows"]), case["name"].as_str().unwrap());
        let rows = x.dim(0).unwrap();
        let halves = [x.narrow(0, 0, rows / 3).unwrap(), x.narrow(0, rows / 3, rows - rows / 3).unwrap()];
        // In one piece or in two.
        for parts in [&[x.clone()][..], &halves[..]] {
            let named = Spread::of(parts).unwrap().named();
            assert_eq!(named.len(), case["named"].as_object().unwrap().len());
            for (key, value) in named {
                near(value, &case["named"][key], 1e-10, &format!("{name}: {key}"));
            }
        }
        near(effective_rank(&x).unwrap(), &case["effective_rank"], 1e-6, name);
        near(
            effective_rank(&x.t().unwrap().contiguous().unwrap()).unwrap(),
            &case["effective_rank"],
            1e-6,
            name,
        );
        near(Some(distinct(&x).unwrap() as f64), &case["distinct"], 0., name);
        // Values of a codebook are f32.
        let error = codebook_error(&x).unwrap().unwrap();
        let want = case["codebook_error"].as_f64().unwrap();
        assert!((error - want).abs() <= 1e-5 * want + 1e-13, "{name}: {error}, not {want}");
    }
}

#[test]
fn errors_are_what_numpy_says() {
    let golden = golden();
    for case in golden["gaps"].as_array().unwrap() {
        let [w, q, x] = ["w", "q", "x"].map(|key| matrix(&case[key]));
        let gap = Gap::between(&w, &q).unwrap();
        near(gap.sqnr(), &case["sqnr"], 1e-11, "sqnr");
        near(gap.nmse(), &case["nmse"], 1e-11, "nmse");
        near(gap.cosine(), &case["cosine"], 1e-11, "cosine");
        let (lost, whole) = hessian(&w, &q, &x).unwrap();
        near(Some(lost), &case["hessian"], 1e-5, "hessian");
        near(Some(whole), &case["whole"], 1e-5, "whole");
    }
    for case in golden["ckas"].as_array().unwrap() {
        let [x, y] = ["x", "y"].map(|key| matrix(&case[key]));
        near(cka(&x, &y).unwrap(), &case["cka"], 1e-10, case["name"].as_str().unwrap());
        near(cka(&y, &x).unwrap(), &case["cka"], 1e-10, "the other way around");
        // A scale, an orthogonal matrix (here: channels in another order) and a shift are no change.
        let turned =
            (x.index_select(&Tensor::new(&[3u32, 0, 5, 1, 2, 4], &Device::Cpu).unwrap(), 1).unwrap() * 7.)
                .unwrap();
        if x.dim(1).unwrap() == 6 {
            near(cka(&x, &(turned - 2.).unwrap()).unwrap(), &1f64.into(), 1e-6, "turned");
        }
    }
}

#[test]
fn what_has_no_number_has_none() {
    let x = Tensor::new(&[[1f32, 2.], [3., 4.]], &Device::Cpu).unwrap();
    let zero = x.zeros_like().unwrap();
    let same = Gap::between(&x, &x).unwrap();
    assert_eq!((same.sqnr(), same.nmse(), same.cosine()), (None, Some(0.), Some(1.)));
    let lost = Gap::between(&x, &zero).unwrap();
    assert_eq!((lost.sqnr(), lost.nmse(), lost.cosine()), (Some(0.), Some(1.), None));
    let none = Gap::between(&zero, &x).unwrap();
    assert_eq!((none.sqnr(), none.nmse(), none.cosine()), (None, None, None));
    let bad = Tensor::new(&[[1f32, f32::NAN], [f32::INFINITY, 4.]], &Device::Cpu).unwrap();
    let bad_gap = Gap::between(&x, &bad).unwrap();
    assert_eq!((bad_gap.not_finite, bad_gap.sqnr(), bad_gap.cosine()), (2, None, None));
    assert_eq!(cka(&x, &bad).unwrap(), None);
    assert_eq!(cka(&x, &x.ones_like().unwrap()).unwrap(), None);
    assert_eq!((effective_rank(&zero).unwrap(), effective_rank(&bad).unwrap()), (None, None));
    assert_eq!(codebook_error(&zero).unwrap(), None);
    let m = Moments::of(&[1., f32::NAN, 3., f32::NEG_INFINITY, 0.]);
    assert_eq!((m.count, m.not_finite, m.zeros, m.min, m.max), (3, 2, 1, 0., 3.));
    assert_eq!((Moments::of(&[]).std(), Moments::of(&[]).absmax()), (None, None));
    // No rows, as an expert that no token reaches has.
    let empty = Tensor::zeros((0, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert_eq!(effective_rank(&empty).unwrap(), None);
    assert!(Spread::of(&[empty]).unwrap().named().iter().all(|(_, v)| v.is_none_or(f64::is_finite)));
}

/// Merged in any pieces, moments are those of all numbers, also far from zero.
#[test]
fn moments_merge() {
    let x: Vec<f32> = (0..70_001)
        .map(|i| 4096. + ((i * 7919 % 1009) as f32 / 64.) * if i % 97 == 0 { 30. } else { 1. })
        .collect();
    let n = x.len() as f64;
    let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let power = |p: i32| x.iter().map(|v| (f64::from(*v) - mean).powi(p)).sum::<f64>() / n;
    let (var, kurtosis) = (power(2), power(4) / power(2).powi(2));
    for pieces in [1, 2, 7, 1000] {
        let each = x.chunks(x.len().div_ceil(pieces)).map(Moments::of);
        let m = each.reduce(Moments::merge).unwrap();
        assert!((m.mean / mean - 1.).abs() < 1e-13 && (m.std().unwrap() / var.sqrt() - 1.).abs() < 1e-11);
        assert!((m.kurtosis().unwrap() / kurtosis - 1.).abs() < 1e-10, "{pieces}");
    }
}

fn builtin() -> Decoder {
    load::open("builtin:llama", Path::new(""), None).unwrap().load(&Device::Cpu).unwrap()
}

/// Texts that any model of a thousand tokens can read.
fn texts(count: u32, length: u32) -> Vec<Vec<u32>> {
    (0..count).map(|s| (0..length).map(|i| (i * i * 7 + i * (31 + s) + s * 13) % 1024).collect()).collect()
}

fn inspected(full: &Decoder, recipes: &[Recipe], texts: &[Vec<u32>], by: By) -> Inspection {
    let mut found = Inspection {
        statistics: statistics("m", full, texts, &mut |_| ()).unwrap(),
        ..Inspection::default()
    };
    for recipe in recipes {
        let made = Made::new(recipe, full, 32, texts).unwrap();
        found.deviations.extend(deviations("m", &made, texts, &mut |_| ()).unwrap());
        found.sensitivity.extend(sensitivity("m", &made, texts, by, &mut |_, _| ()).unwrap());
    }
    found
}

fn value(found: &Inspection, block: u16, site: &str, measure: &str) -> Option<f64> {
    let fits = |d: &&Deviation| d.block == Some(block) && d.site == site && d.measure == measure;
    found.deviations.iter().find(fits).unwrap_or_else(|| panic!("{block} {site} {measure}")).value
}

#[test]
fn nothing_changed_is_nothing_lost() {
    let found = inspected(&builtin(), &[Recipe::full()], &texts(2, 24), By::Site);
    for d in &found.deviations {
        let want = match d.measure.rsplit_once('_').map_or(d.measure.as_str(), |(_, m)| m) {
            "sqnr" => None,
            "cosine" => Some(1.),
            "cka" => Some(1.),
            _ => Some(0.),
        };
        let near = d.value.zip(want).is_none_or(|(a, b)| (a - b).abs() < 1e-12);
        assert!(near && d.value.is_some() == want.is_some(), "{d:?}");
    }
    // The whole, and no place.
    assert_eq!(found.sensitivity.len(), 1);
    assert_eq!((found.sensitivity[0].only, found.sensitivity[0].without), (Some(0.), None));
    assert!(Inside::new(found).answer("m", "full").contains("are those of full precision"));
}

/// `KL(p || q)` a token, from whole models' logits in f64.
fn distance(full: &Decoder, other: &Decoder, texts: &[Vec<u32>]) -> f64 {
    let log_p = |model: &Decoder, text: &[u32]| -> Vec<Vec<f64>> {
        let rows = logits(model, text).to_vec2::<f32>().unwrap();
        let norm = |row: Vec<f32>| -> Vec<f64> {
            let most = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = row.iter().map(|v| f64::from(v - most).exp()).sum();
            row.iter().map(|v| f64::from(v - most) - sum.ln()).collect()
        };
        rows.into_iter().map(norm).collect()
    };
    let (mut sum, mut tokens) = (0., 0);
    for text in texts {
        for (p, q) in log_p(full, text).iter().zip(&log_p(other, text)) {
            sum += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            tokens += 1;
        }
    }
    sum / f64::from(tokens)
}

/// Only this, and all but this, are what recipes say that round only this, and all but this.
#[test]
fn one_place_alone_is_a_recipe_of_it_alone() {
    let (full, texts) = (builtin(), texts(3, 24));
    let weights = "weights = { method = 'rtn', bits = 3, group = 32 }";
    let w3 = recipe(weights);
    let of = |r: &Recipe| Made::new(r, &full, 32, &texts).unwrap();
    let close = |ours: Option<f64>, other: &Decoder, what: &str| {
        let (ours, want) = (ours.unwrap(), distance(&full, other, &texts));
        assert!((ours - want).abs() < 1e-6 + 1e-4 * want, "{what}: {ours}, not {want}");
    };
    let found = sensitivity("m", &of(&w3), &texts, By::Site, &mut |_, _| ()).unwrap();
    close(found[0].only, &of(&w3).quantized, "all");
    assert_eq!(found.len(), 1 + full.blocks.len() * 7);
    let alone = |sites: &str| of(&recipe(&format!("at = [{{ sites = ['{sites}'], {weights} }}]"))).quantized;
    let spared = |sites: &str| of(&recipe(&format!("skip = ['head', '{sites}']\n{weights}"))).quantized;
    for (block, site) in [(0, "ffn.down"), (2, "attn.v"), (4, "attn.k")] {
        let ours = found.iter().find(|s| s.block == Some(block) && s.site == site).unwrap();
        let name = format!("blocks.{block}.{site}");
        close(ours.only, &alone(&name), &name);
        close(ours.without, &spared(&name), &name);
    }
    let blocks = sensitivity("m", &of(&w3), &texts, By::Block, &mut |_, _| ()).unwrap();
    assert_eq!(blocks.len(), 1 + full.blocks.len());
    close(blocks[2].only, &alone("blocks.1.*"), "block 1");
    close(blocks[2].without, &spared("blocks.1.*"), "block 1");
    let roles = sensitivity("m", &of(&w3), &texts, By::Role, &mut |_, _| ()).unwrap();
    assert_eq!(roles.len(), 1 + 7);
    let down = roles.iter().find(|s| s.site == "ffn.down").unwrap();
    assert_eq!((down.block, down.by.as_str()), (None, "role"));
    close(down.only, &alone("*.ffn.down"), "ffn.down");
    close(down.without, &spared("*.ffn.down"), "ffn.down");
    assert!(sensitivity("m", &of(&w3), &texts, By::None, &mut |_, _| ()).unwrap().is_empty());
    // Keys and values; and a recipe of one place, which is all there is.
    let both = of(&Recipe::parse("w3a8kv3").unwrap());
    let found = sensitivity("m", &both, &texts, By::Site, &mut |_, _| ()).unwrap();
    assert_eq!(found.iter().filter(|s| s.site == "attn.kv").count(), full.blocks.len());
    let one = of(&recipe(&format!("at = [{{ sites = ['blocks.1.attn.o'], {weights} }}]")));
    let found = sensitivity("m", &one, &texts, By::Site, &mut |_, _| ()).unwrap();
    let [whole, place] = &found[..] else { panic!("{found:?}") };
    assert_eq!((whole.only, place.without), (place.only, Some(0.)));
}

/// Two bits in one place of a model at eight: every measure finds it.
#[test]
fn a_place_that_is_rounded_badly_is_found() {
    let (full, texts) = (builtin(), texts(3, 24));
    let bad = recipe(
        "weights = { method = 'rtn', bits = 8, group = 32 }\nacts = { bits = 8 }\n\
         at = [{ sites = ['blocks.2.attn.o'], weights = { method = 'rtn', bits = 2, group = 32 } }]",
    );
    let found = inspected(&full, &[bad], &texts, By::Site);
    let sites: Vec<&Deviation> =
        found.deviations.iter().filter(|d| d.block.is_some() && d.site != "out").collect();
    let least = |measure: &str| {
        let own = sites.iter().filter(|d| d.measure == measure);
        own.min_by(|a, b| a.value.unwrap().total_cmp(&b.value.unwrap())).unwrap()
    };
    let most = |measure: &str| {
        let own = sites.iter().filter(|d| d.measure == measure);
        own.max_by(|a, b| a.value.unwrap().total_cmp(&b.value.unwrap())).unwrap()
    };
    let here = |d: &Deviation| (d.block, d.site.as_str()) == (Some(2), "attn.o");
    assert!(["weight_sqnr", "weight_cosine", "output_sqnr", "output_cosine"].iter().all(|m| here(least(m))));
    assert!(["weight_nmse", "hessian_relative", "output_nmse"].iter().all(|m| here(most(m))));
    // Hidden states go wrong where it is, and not before.
    let out =
        |measure: &str| -> Vec<f64> { (0..5).map(|b| value(&found, b, "out", measure).unwrap()).collect() };
    let (own, added, cka) = (out("output_sqnr"), out("accumulated_sqnr"), out("cka"));
    assert!((0..5).filter(|b| *b != 2).all(|b| own[b] > own[2] + 10.), "{own:?}");
    assert!(added[0] > added[2] + 10. && added[1] > added[2] + 10. && added[4] < added[1] - 5., "{added:?}");
    assert!(cka[0] > cka[2] && cka[1] > cka[2] && cka.iter().all(|c| *c > 0. && *c < 1.), "{cka:?}");
    let inside = Inside::new(found);
    let worst = &inside.worst("m", "x")[0];
    assert_eq!(worst.name, "blocks.2.attn.o");
    let [Some(only), Some(without)] = worst.cost.unwrap() else { panic!("{worst:?}") };
    let whole = inside.whole("m", "x").unwrap().unwrap();
    assert!(only > 0.8 * whole && without < 0.2 * whole, "{only} {without} {whole}");
    assert!(inside.answer("m", "x").contains("most by blocks.2.attn.o"), "{}", inside.answer("m", "x"));
    let text = inside::text(&inside);
    let first = text.lines().find(|l| l.starts_with("| blocks")).unwrap();
    assert!(first.starts_with("| blocks.2.attn.o"), "{text}");
    // The same without sensitivities, by what outputs lose.
    let made = Made::new(&Recipe::parse("w4").unwrap(), &full, 32, &texts).unwrap();
    let deviations = deviations("m", &made, &texts, &mut |_| ()).unwrap();
    let inside = Inside::new(Inspection { deviations, ..Inspection::default() });
    let places = inside.worst("m", "w4");
    assert!(places.windows(2).all(|p| p[0].output <= p[1].output) && places.len() >= 35, "{places:?}");
}

/// One damaged row of one matrix of a checkpoint: seen in the model, and in what a recipe makes of it.
#[test]
fn a_damaged_matrix_is_found() {
    let (mut full, texts) = (builtin(), texts(2, 24));
    let linear = full.blocks[3].linears.get_mut(&(None, Role::K)).unwrap();
    let mut rows = linear.weight.rows().unwrap().to_vec2::<f32>().unwrap();
    for row in &mut rows {
        row[77] = 4.;
    }
    linear.weight = Weight::from(Tensor::new(rows, &Device::Cpu).unwrap()).laid().unwrap();
    assert_eq!(linear.site, Site::new(3, Role::K));
    let found =
        inspected(&full, &[recipe("weights = { method = 'rtn', bits = 4, per = 'row' }")], &texts, By::None);
    for name in ["absmax_std", "kurtosis", "channel_ratio", "outlier_channels", "near_zero"] {
        let own = found.statistics.iter().filter(|s| s.what == What::Weight && s.statistic == name);
        let most = own.max_by(|a, b| a.value.unwrap().total_cmp(&b.value.unwrap())).unwrap();
        assert_eq!((most.block, most.site.as_str()), (Some(3), "attn.k"), "{name}: {most:?}");
    }
    let own = found.deviations.iter().filter(|d| d.measure == "output_sqnr" && d.site != "out");
    let least = own.filter_map(|d| Some((d.value?, d))).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1;
    assert_eq!((least.block, least.site.as_str()), (Some(3), "attn.k"));
}

/// What overflows is no number, is said to be none, and stands first.
#[test]
fn what_overflows_is_said() {
    let (mut full, texts) = (builtin(), texts(2, 24));
    let linear = full.blocks[2].linears.get_mut(&(None, Role::Down)).unwrap();
    linear.weight = Weight::from((linear.weight.rows().unwrap() * 1e5).unwrap()).laid().unwrap();
    let found = inspected(&full, &[Recipe::parse("fp16+w4").unwrap()], &texts, By::Site);
    for (block, broken) in [(1, false), (2, true), (4, true)] {
        assert_eq!(value(&found, block, "out", "accumulated_sqnr").is_none(), broken, "{block}");
        assert_eq!(value(&found, block, "out", "cka").is_none(), broken, "{block}");
    }
    assert!(value(&found, 2, "ffn.down", "output_not_finite").unwrap() > 0.);
    assert_eq!(found.sensitivity[0].only, None);
    let inside = Inside::new(found);
    assert!(
        inside.answer("m", "fp16+w4").contains("its logits are no numbers"),
        "{}",
        inside.answer("m", "fp16+w4")
    );
    assert!(inside::text(&inside).contains("not a number"));
    // Where nothing was measured alone, too.
    let made = Made::new(&Recipe::parse("fp16+w4").unwrap(), &full, 32, &texts).unwrap();
    let deviations = deviations("m", &made, &texts, &mut |_| ()).unwrap();
    let inside = Inside::new(Inspection { deviations, ..Inspection::default() });
    let first = &inside.worst("m", "fp16+w4")[0];
    assert!(first.broken && first.name == "blocks.2.ffn.down", "{first:?}");
}

/// What a rewriting turns is compared where it stands: a rotated model's weights lose no more than rounding takes.
#[test]
fn rewritten_models_are_compared_in_their_own_basis() {
    let (full, texts) = (builtin(), texts(2, 24));
    let of = |table: &str| {
        let weights = "weights = { method = 'rtn', bits = 8, group = 32 }";
        inspected(&full, &[recipe(&format!("{table}\n{weights}"))], &texts, By::None)
    };
    for table in ["", "prepare = [{ method = 'rotate' }]", "prepare = [{ method = 'smoothquant' }]"] {
        let found = of(table);
        for measure in ["weight_sqnr", "output_sqnr"] {
            let own = found.deviations.iter().filter(|d| d.measure == measure && d.block.is_some());
            let all: Vec<f64> = own.filter_map(|d| d.value).collect();
            assert!(all.len() >= 35 && all.iter().all(|v| *v > 30.), "{table} {measure}: {all:?}");
        }
        let added: Vec<f64> = (0..5).map(|b| value(&found, b, "out", "accumulated_sqnr").unwrap()).collect();
        assert!(added.iter().all(|v| *v > 30.), "{table}: {added:?}");
    }
    // Scales that are learned between norms and linears leave the blocks to compare.
    let learned =
        recipe("weights = { method = 'omniquant', bits = 4, group = 32, passes = 1, equivalent = true }");
    let made = Made::new(&learned, &full, 32, &texts).unwrap();
    assert!((0..5).any(|b| !made.comparable(b).unwrap()));
    let found = inspected(&full, &[learned], &texts, By::Site);
    let blocks = found.sensitivity.iter().filter(|s| s.site == "all" && s.block.is_some());
    assert!(blocks.count() > 0 && value(&found, 4, "out", "accumulated_sqnr").unwrap() > 5.);
    assert!(sensitivity("m", &made, &texts, By::Role, &mut |_, _| ()).is_err());
}

#[test]
fn threads_move_nothing() {
    let (full, texts) = (builtin(), texts(3, 40));
    let recipes = ["gptq-w3g32", "w4a4kv4"].map(|r| Recipe::parse(r).unwrap());
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| inspected(&full, &recipes, &texts, By::Block))
    };
    let one = with(1);
    assert!([2, 5].into_iter().all(|n| with(n) == one));
}

/// Every family and variant: experts that no token reaches, mixers without keys, tied heads, fused matrices.
#[test]
fn every_family_is_seen_inside() {
    let every = all();
    every.par_iter().for_each(|f| {
        let texts = some_texts(&f.spec);
        let cached = f.spec.blocks.iter().any(|b| b.mixer.attention().is_some());
        let text = if cached { "w4g8a8kv4" } else { "w4g8a8" };
        let found = inspected(&f.decoder, &[Recipe::parse(text).unwrap()], &texts, By::Site);
        let mut sites: BTreeMap<What, usize> = BTreeMap::new();
        for s in &found.statistics {
            assert!(s.value.is_none_or(f64::is_finite), "{}: {s:?}", f.name);
            if s.statistic == "kurtosis" {
                *sites.entry(s.what).or_default() += 1;
            }
        }
        // And the embedding.
        assert_eq!(sites[&What::Weight], f.spec.sites().len() + 1, "{}", f.name);
        assert_eq!(sites[&What::Hidden], f.spec.blocks.len());
        assert_eq!(sites.contains_key(&What::Key), cached, "{}", f.name);
        assert_eq!(sites.get(&What::Key), sites.get(&What::Value), "{}", f.name);
        for d in &found.deviations {
            assert!(!d.measure.ends_with("not_finite"), "{}: {d:?}", f.name);
            let rounded = d.measure == "output_nmse" && d.block.is_some() && !d.site.ends_with("router");
            assert!(d.value.is_some_and(|v| v > 0.) || !rounded, "{}: {d:?}", f.name);
        }
        let (whole, places) = found.sensitivity.split_first().unwrap();
        assert!(whole.only.unwrap() > 0. && !places.is_empty(), "{}", f.name);
        let known = |s: &Sensitivity| s.only.is_some_and(|v| v >= 0.) && s.without.is_some_and(|v| v >= 0.);
        assert!(places.iter().all(known), "{}: {places:?}", f.name);
        let inside = Inside::new(found);
        assert!(inside::text(&inside).contains("nats a token are lost"), "{}", f.name);
        assert!(!inside::section(&inside).contains("NaN"), "{}", f.name);
    });
    assert!(every.len() > 60, "{}", every.len());
}

/// From the command line: files, the answer first, the same bytes each time, families, and mistakes.
#[test]
fn the_command() {
    let desk = Desk::new();
    let run = |out: &str, more: &[&str]| {
        let out = desk.arg(out);
        let plain = ["--data", "text.toml", "--samples", "2", "--tokens", "12", "--out", out.as_str()];
        desk.run(&[&["inspect"], more, &plain].concat())
    };
    let ran = run("a", &["m", "--recipes", "w3,gptq-w4g8,kv4"]).expect(0);
    assert!(ran.out.starts_with("m\n  w3: "), "{}", ran.out);
    for file in ["inspect.csv", "errors.csv", "sensitivity.csv", "inspect.html", "inside-errors-m.svg"] {
        assert!(desk.path("a").join(file).is_file(), "{file}");
    }
    run("b", &["m", "--recipes", "w3,gptq-w4g8,kv4"]).expect(0);
    let mut files: Vec<_> = fs::read_dir(desk.path("a")).unwrap().map(|f| f.unwrap().file_name()).collect();
    files.sort();
    // Three tables, a page, and two pictures of the model and one a recipe, twice each.
    assert_eq!(files.len(), 3 + 1 + 2 * (2 + 3), "{files:?}");
    for file in files {
        let [a, b] = ["a", "b"].map(|dir| fs::read(desk.path(dir).join(&file)).unwrap());
        assert!(a == b, "{file:?}");
    }
    let read = inside::read(&desk.path("a")).unwrap().unwrap();
    assert_eq!(inside::text(&read), ran.out.trim_end());
    assert!(inside::read(&desk.path("m")).unwrap().is_none());
    assert!(!run("c", &["m"]).expect(0).out.contains("nats"));
    // Another model beside it; and what is inspected anew takes the place of what was.
    assert!(run("b", &["n", "--recipes", "w3", "--by", "none"]).expect(0).out.starts_with("n\n"));
    run("b", &["m", "--recipes", "kv4"]).expect(0);
    let both = Inspection::read(&desk.path("b")).unwrap().unwrap();
    assert_eq!(
        (both.models(), both.recipes("m"), both.recipes("n")),
        (vec!["m", "n"], vec!["kv4"], vec!["w3"])
    );
    let page = desk.read("b/inspect.html");
    assert!(page.contains("<h3>m</h3>") && page.contains("<h3>n</h3>") && page.matches("<svg ").count() == 5);
    assert!(!desk.path("b/inside-sensitivity-w3-m.svg").exists());
    desk.write("h/errors.csv", "not,a,table\n1,2,3\n");
    run("h", &["m"]).expect(2).says(&["--out", "errors.csv"]);
    assert!(run("d", &["m", "--recipes", "w4", "--by", "role"]).expect(0).out.contains("| ffn.down"));
    // A study's recipes by name.
    desk.write(
        "s.toml",
        "about = 'A'\nmodels = ['m']\ntasks = ['text.toml']\ncalibrate = { data = 'text.toml', samples = 3, length = 12 }\n\
         [[recipe]]\nname = 'mine'\nweights = { method = 'gptq', bits = 3, group = 8 }\n",
    );
    let ran = run("e", &["m", "--study", &desk.arg("s.toml")]).expect(0);
    assert!(ran.out.contains("\n  mine: "), "{}", ran.out);
    for (args, words) in [
        (&["m", "--by", "layer"][..], &["--by `layer`", "site, role, block, none"][..]),
        (&["m", "--recipes", "w99"], &["w99"]),
        (&["m", "--recipes", "w4,w4"], &["twice"]),
        (&["m", "--study", "s.toml", "--recipes", "their"], &["their", "mine"]),
        (&["m", "--recipes", "w4", "--device", "tpu"], &["--device", "cpu"]),
        (&["nowhere"], &["nowhere"]),
    ] {
        run("f", args).expect(2).says(words);
    }
    let few = ["--data", "text.toml", "--samples", "0", "--out"];
    desk.run(&[&["inspect", "m"], &few[..], &[&desk.arg("f")]].concat()).expect(2).says(&["samples"]);
    let long = ["--data", "text.toml", "--tokens", "999999", "--out"];
    desk.run(&[&["inspect", "m"], &long[..], &[&desk.arg("f")]].concat()).expect(2).says(&["999999"]);
    let quiz = ["--data", "quiz.toml", "--out"];
    desk.run(&[&["inspect", "m"], &quiz[..], &[&desk.arg("f")]].concat()).expect(2).says(&["perplexity"]);
    // Experts, fused matrices, no attention; every family is seen above, without the command.
    for (name, fixture) in [("mixtral", "mixtral/"), ("mamba", "mamba/"), ("bloom", "bloom/")] {
        let mut variants: Vec<String> = fs::read_dir(repo("tests/fixtures").join(fixture))
            .unwrap()
            .map(|d| d.unwrap().file_name().into_string().unwrap())
            .collect();
        variants.sort();
        desk.model(name, &format!("{fixture}{}", variants[0]));
        run("g", &[name, "--recipes", "w4a8,bf16"]).expect(0);
    }
    run("g", &["mamba", "--recipes", "kv4"]).expect(2).says(&["kv4", "mamba", "no attention"]);
}

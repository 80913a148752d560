//! What a recipe does to a model, part by part, and what is no recipe.
use crate::{
    families::{all, gap, logits},
    methods::{recipe, tiny},
};
use bitsweep::{
    model::{load, site::Role},
    quant::{
        apply::{apply, sizes},
        recipe::{Recipe, Table},
    },
};
use candle_core::Device;
use std::path::Path;

/// What is pruned stays zero, whatever rounds it, and its codes are not counted.
#[test]
fn pruned_weights_stay_zero() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let texts: Vec<Vec<u32>> = vec![(0..64).collect()];
    for rounder in ["method = 'rtn', bits = 4", "method = 'gptq', bits = 4"] {
        let r = recipe(&format!(
            "prepare = [{{ method = 'prune', pattern = '2:4' }}]\nweights = {{ {rounder} }}"
        ));
        let q = apply(&r, &full, 16, &texts).unwrap();
        for linear in q.decoder.blocks.iter().flat_map(|b| b.linears.values()) {
            let w = linear.weight.rows().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(w.chunks(4).all(|c| c.iter().filter(|w| **w == 0.).count() >= 2), "{}", linear.site);
        }
        let dense = recipe(&format!("weights = {{ {rounder} }}"));
        let dense = sizes(&dense, &full.spec, 16).unwrap().bits_per_weight;
        assert!((q.sizes.bits_per_weight - (dense - 2. + 1.)).abs() < 1e-9);
    }
}

/// Bits by site: the last that names a site, and sizes that say so.
#[test]
fn bits_by_site() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let r = recipe(
        "weights = { method = 'rtn', bits = 2 }\n\
         at = [{ sites = ['first.*', 'last.*'], weights = { method = 'rtn', bits = 8 } },\n\
               { sites = ['*.attn.v'], weights = { method = 'rtn', bits = 4 } }]",
    );
    let q = apply(&r, &full, 16, &[]).unwrap();
    let last = full.blocks.len() - 1;
    let levels = |b: usize, role| {
        let w = q.decoder.blocks[b].linears[&(None, role)].weight.rows().unwrap();
        let row = w.narrow(0, 0, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut group: Vec<u32> = row[..128.min(row.len())].iter().map(|x| x.to_bits()).collect();
        group.sort_unstable();
        group.dedup();
        group.len()
    };
    assert!(levels(0, Role::Up) > 16 && levels(last, Role::Q) > 16);
    assert!(levels(1, Role::Up) <= 4 && (5..=16).contains(&levels(0, Role::V)));
    assert!(q.sizes.weight_bits > 2. && q.sizes.weight_bits < 8.);
    let lost = recipe(
        "weights = { method = 'rtn', bits = 2 }\nat = [{ sites = ['blocks.77.*'], weights = { method = 'rtn', bits = 8 } }]",
    );
    assert!(apply(&lost, &full, 16, &[]).err().unwrap().to_string().contains("blocks.77.*"));
}

/// Activations in formats, in groups, and with a calibrated range: more bits are nearer, and a token's logits are its own.
#[test]
fn activations_in_other_ways() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..60).map(|i| (i * i * 7 + i * 31 + 3) % 1024).collect();
    let texts = vec![tokens.clone()];
    let exact = logits(&full, &tokens);
    let off = |acts: &str| {
        let q = apply(&recipe(acts), &full, 16, &texts).unwrap().decoder;
        let whole = logits(&q, &tokens);
        let alone = logits(&q, &tokens[..20]);
        assert_eq!(gap(&whole.narrow(0, 0, 20).unwrap(), &alone), 0., "{acts}");
        let d = (whole - &exact).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(d.is_finite(), "{acts}");
        d
    };
    for way in [
        "per = 'tensor', range = 'min-max'",
        "per = 'tensor', range = 'mse'",
        "per = 'tensor', range = 'percentile'",
        "group = 16",
    ] {
        let errors: Vec<f32> =
            [8, 6, 4].iter().map(|b| off(&format!("acts = {{ bits = {b}, {way} }}"))).collect();
        assert!(errors[0] < errors[1] && errors[1] < errors[2], "{way}: {errors:?}");
    }
    assert!(off("acts = { bits = 4, group = 16 }") < off("acts = { bits = 4 }"));
    assert!(off("acts = { format = 'mxfp8' }") < off("acts = { format = 'mxfp4' }"));
    assert!(off("acts = { format = 'nvfp4' }") < off("acts = { format = 'mxfp4' }"));
    assert!(off("acts = { format = 'fp8' }") < off("acts = { bits = 4 }"));
    assert!(off("kv = { format = 'fp8' }") < off("kv = { keys = { bits = 2 }, values = { bits = 4 } }"));
}

/// Bits of a token in the cache: codes, scales and zero points of keys and values, over all blocks and heads.
#[test]
fn the_cache_is_counted() {
    let spec = tiny();
    let attention = spec.blocks[0].mixer.attention().unwrap();
    let (heads, width, blocks) =
        (attention.kv_heads as f64, attention.head_dim as f64, spec.blocks.len() as f64);
    let bits = |text: &str| recipe(text).kv.unwrap().token_bits(&spec);
    assert_eq!(bits("kv = { bits = 4 }"), blocks * heads * 2. * (4. * width + 16. + 4.));
    assert_eq!(
        bits("kv = { keys = { bits = 2 }, values = { bits = 8, symmetric = true } }"),
        blocks * heads * (2. * width + 18. + 8. * width + 16.)
    );
}

/// Settings that do not go together are mistakes, and say what there is.
#[test]
fn settings_that_are_none() {
    for (table, part) in [
        ("weights = { method = 'gptq', bits = 4, dampp = 1 }", "dampp"),
        ("weights = { method = 'gptq', bits = 4, damp = 0.0 }", "damp"),
        ("weights = { method = 'gptq' }", "`bits`"),
        ("weights = { method = 'rtn', format = 'nf5' }", "nf4"),
        ("weights = { method = 'rtn', format = 'nf4', bits = 4 }", "one of them"),
        ("weights = { method = 'rtn', format = 'nf4', symmetric = true }", "integers"),
        ("weights = { method = 'rtn', bits = 4, zero = 'loose' }", "in-range"),
        ("weights = { method = 'hqq', format = 'nf4' }", "integers"),
        ("prepare = [{ method = 'smoothquant', alpha = 2.0 }]", "from 0 to 1"),
        ("prepare = [{ method = 'smoothquant', alpha = 'best' }]", "search"),
        ("weights = { method = 'rtn', bits = 3, keep = { share = 0.6, by = 'loss' } }", "below 0.5"),
        ("weights = { method = 'rtn', bits = 3, keep = { share = 0.1, by = 'size' } }", "magnitude"),
        ("weights = { method = 'rtn', bits = 3, correct = { rank = 0 } }", "1 to 4096"),
        ("weights = { method = 'autoround', bits = 3, correct = { rank = 4 } }", "learn a block"),
        ("weights = { method = 'gguf', type = 'q4_k', bits = 4 }", "own settings"),
        ("weights = { method = 'gguf', type = 'q4_x' }", "q4_k"),
        ("weights = { method = 'gguf', file = 'q4_k' }", "q4_k_m"),
        ("weights = { method = 'gguf' }", "`type`"),
        ("weights = { method = 'owq', bits = 4, symmetric = true }", "asymmetric"),
        ("weights = { method = 'spqr', bits = 4, threshold = 0.0 }", "above 0"),
        ("acts = { bits = 8, threshold = 0.0 }", "LLM.int8()"),
        ("acts = { bits = 8, per = 'tensor', range = 'mse', threshold = 6.0 }", "calibrated"),
        ("kv = { bits = 4, values = { per = 'channel' } }", "token"),
        ("kv = { bits = 4, keys = { per = 'channel', group = 4, residual = 6 } }", "groups"),
        (
            "prepare = [{ method = 'rotate' }]\nweights = { method = 'kmeans', bits = 3, sensitivity = 'gradients' }",
            "online = false",
        ),
        ("weights = { method = 'kmeans', bits = 3, sensitivity = true }", "\"gradients\""),
        ("weights = { method = 'hqq', bits = 3, clip = 0.9 }", "rtn and gptq"),
        ("weights = { method = 'rtn', bits = 3, clip = 0.9, search = 'mse' }", "one of them"),
        ("acts = { bits = 3, clip = 1.5 }", "at most 1"),
        ("kv = { bits = 3, codebook = {} }", "kvquant"),
        ("kv = { method = 'kiwi', bits = 4 }", "kivi"),
        ("prepare = [{ method = 'rotate' }]\nkv = { method = 'kvquant', bits = 3 }", "online = false"),
        ("kv = { method = 'kvquant', bits = 4, outliers = 0.7 }", "below 0.5"),
        ("kv = { bits = 4, queries = { bits = 8, per = 'tensor' } }", "row"),
        ("prepare = [{ method = 'awk' }]", "awq"),
        ("prepare = [{ method = 'awq' }]", "say `weights`"),
        ("prepare = [{ method = 'smoothquant', alpha = 'search' }]", "say `weights`"),
        ("prepare = [{ method = 'prune', share = 0.5 }, { method = 'rotate' }]", "comes before"),
        ("prepare = [{ method = 'prune', share = 1.0 }]", "below 1"),
        ("prepare = [{ method = 'prune', pattern = '4:2' }]", "2:4"),
        ("acts = { bits = 8, per = 'tensor' }", "min-max"),
        ("acts = { bits = 8, per = 'row' }", "token"),
        ("acts = { bits = 8, range = 'mse' }", "tensor"),
        ("kv = { bits = 4, key = { bits = 2 } }", "keys"),
        ("kv = { bits = 4, per = 'tensor' }", "group"),
        ("calibrate = { samples = 0 }", "samples"),
        ("calibrate = { length = 1 }", "length"),
        ("calibrate = { draw = 'lots' }", "joined"),
    ] {
        let table = toml::from_str::<Table>(&format!("name = 'x'\n{table}"));
        let error = match table.map(Recipe::from_table) {
            Ok(Ok(_)) => panic!("{part}: no error"),
            Ok(Err(e)) => format!("{e:#}"),
            Err(e) => e.to_string(),
        };
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// A tied head stays exact where a rotation parts it from the embedding, and so does its input; the copy is counted.
#[test]
fn a_rotated_tied_head_is_left_alone() {
    let mut tied = 0;
    for f in all() {
        let r = recipe(
            "prepare = [{ method = 'rotate' }]\nweights = { method = 'rtn', bits = 2, per = 'row' }\nacts = { bits = 2 }",
        );
        if r.unfit(&f.spec).is_some() || f.decoder.ends.keys().any(|role| *role == Role::Head) {
            continue;
        }
        let rotated = recipe("prepare = [{ method = 'rotate' }]");
        let q = apply(&r, &f.decoder, 16, &[]).unwrap();
        let Some(head) = q.decoder.ends.get(&Role::Head) else { continue };
        tied += 1;
        let exact = apply(&rotated, &f.decoder, 16, &[]).unwrap();
        let want = exact.decoder.ends[&Role::Head].weight.rows().unwrap();
        assert_eq!(gap(&head.weight.rows().unwrap(), &want), 0., "{}", f.name);
        assert!(head.input.is_none(), "{}", f.name);
        let plain = recipe("weights = { method = 'rtn', bits = 2, per = 'row' }");
        let plain = sizes(&plain, &f.spec, 16).unwrap().size_mb;
        let more = (f.spec.vocab * f.spec.hidden) as f64 * 2. / 1e6;
        assert!(
            q.sizes.size_mb >= plain + more * 0.999,
            "{}: {} and {plain} + {more}",
            f.name,
            q.sizes.size_mb
        );
        assert!(q.sizes.notes.iter().any(|n| n.contains("head")), "{}: {:?}", f.name, q.sizes.notes);
    }
    assert!(tied > 3, "{tied}");
}

/// What is only pruned is pruned, counted, and nothing that is skipped is.
#[test]
fn pruning_alone_prunes() {
    let full = load::open("builtin:llama", Path::new(""), None).unwrap().load(&Device::Cpu).unwrap();
    let r = recipe(
        "prepare = [{ method = 'prune', by = 'magnitude', share = 0.5 }]\nskip = ['head', '*.attn.v']",
    );
    let q = apply(&r, &full, 16, &[]).unwrap();
    for linear in q.decoder.blocks.iter().flat_map(|b| b.linears.values()) {
        let w = linear.weight.rows().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let zeros = w.iter().filter(|w| **w == 0.).count() as f64 / w.len() as f64;
        let v = linear.site.to_string().ends_with("attn.v");
        assert!(if v { zeros < 0.01 } else { (zeros - 0.5).abs() < 0.02 }, "{}: {zeros}", linear.site);
    }
    let dense = sizes(&Recipe::full(), &full.spec, 16).unwrap();
    assert!(q.sizes.size_mb < 0.75 * dense.size_mb, "{} of {}", q.sizes.size_mb, dense.size_mb);
    assert_eq!(q.sizes.bits_per_weight, 9., "half of 16 bits, and a bit that says which");
}

/// A range that is searched is another range.
#[test]
fn a_searched_range_of_a_token_is_searched() {
    let full = load::open("builtin:llama", Path::new(""), None).unwrap().load(&Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..60).map(|i| (i * i * 7 + i * 31 + 3) % 1024).collect();
    let run = |acts: &str| logits(&apply(&recipe(acts), &full, 16, &[]).unwrap().decoder, &tokens);
    assert!(gap(&run("acts = { bits = 3 }"), &run("acts = { bits = 3, search = 'mse' }")) > 0.);
}

/// A method that does not fit a model, or a grid, says so before anything is loaded.
#[test]
fn what_does_not_fit_says_why() {
    let spec = tiny();
    let awq =
        recipe("prepare = [{ method = 'awq' }]\nweights = { method = 'rtn', bits = 4, per = 'tensor' }");
    assert!(awq.unfit(&spec).unwrap().contains("clip = false"));
    let text = "prepare = [{ method = 'rotate' }]\nweights = { method = 'rtn', bits = 4 }";
    let unfit = all().iter().filter_map(|f| recipe(text).unfit(&f.spec)).collect::<Vec<_>>();
    assert!(!unfit.is_empty() && unfit.iter().all(|why| why.len() > 20), "{unfit:?}");
}

/// Weights that are kept are the originals in 16 bits, as many as were asked for, and the others are as if those were zeros; a loss
/// is less than without them; bits count each.
#[test]
fn some_weights_are_kept() {
    let full = load::open("builtin:llama", Path::new(""), None).unwrap().load(&Device::Cpu).unwrap();
    let texts: Vec<Vec<u32>> = vec![(0..64).collect()];
    let numbers = |r: &Recipe| {
        let q = apply(r, &full, 16, &texts).unwrap();
        let linear = &q.decoder.blocks[1].linears[&(None, Role::Up)];
        (
            linear.weight.rows().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            q.sizes.bits_per_weight,
        )
    };
    let exact = full.blocks[1].linears[&(None, Role::Up)].weight.rows().unwrap();
    let exact = exact.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let lost = |w: &[f32]| w.iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    for method in ["method = 'rtn', bits = 3", "method = 'kmeans', bits = 3", "method = 'gptq', bits = 3"] {
        let (plain, bits) = numbers(&recipe(&format!("weights = {{ {method} }}")));
        for by in ["magnitude", "loss"] {
            let (kept, more) = numbers(&recipe(&format!(
                "weights = {{ {method}, keep = {{ share = 0.02, by = '{by}' }} }}"
            )));
            let same = kept.iter().zip(&exact).filter(|(a, b)| (**a - **b).abs() <= b.abs() * 1e-3).count();
            let count = (0.02 * exact.len() as f64).round() as usize;
            assert!(same >= count, "{method} {by}: {same} of {count}");
            assert!(method.contains("gptq") || lost(&kept) < lost(&plain), "{method} {by}");
            assert!((more - bits - 0.02 * 32.).abs() < 0.01, "{method} {by}: {more} and {bits}");
        }
    }
}

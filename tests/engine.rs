//! Nothing that makes the engine quick can move a score: packing, threads, the fused form, the cache.
use crate::families::{all, gap, logits};
use bitsweep::{
    eval::{Lm, Sequence},
    model::{
        attention::Span,
        block::Carried,
        decoder::{Batch, Cache, Decoder, Linear},
        load,
        ops::{Kernels, Precision},
    },
    quant::{
        apply::apply,
        grid::{Grid, Per},
        recipe::Recipe,
    },
    study::engine::{Engine, Words},
    tensor::{
        int8::Kernel,
        matmul::{self, Weight, linear},
    },
};
use candle_core::{DType, Device, Tensor};
use std::path::Path;

/// Numbers from a fixed formula, spread over (-1, 1).
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as f32 / u32::MAX as f32 * 2. - 1.
        })
        .collect()
}

#[test]
fn a_row_of_a_product_has_the_same_bits_whatever_stands_beside_it() {
    for (inner, out) in [
        (64, 64),
        (172, 32),
        (128, 7),
        (384, 128),
        (1, 5),
        (2, 300),
        (1500, 96),
        (4544, 64),
        (700, 7),
        (768, 16),
    ] {
        let tokens = 200;
        let x = Tensor::from_vec(noise(tokens * inner, 1), (tokens, inner), &Device::Cpu).unwrap();
        let w = Tensor::from_vec(noise(out * inner, 2), (out, inner), &Device::Cpu).unwrap();
        let w = Weight::from(w).laid().unwrap();
        let whole = linear(&x, &w, None).unwrap().to_vec2::<f32>().unwrap();
        for len in [1, 2, 3, 5, 16, 17, 33, 64, 65, 69, 199] {
            for start in [0, 1, tokens - len] {
                let part =
                    linear(&x.narrow(0, start, len).unwrap(), &w, None).unwrap().to_vec2::<f32>().unwrap();
                for (i, row) in part.iter().enumerate() {
                    assert_eq!(row, &whole[start + i], "{inner} -> {out}: {len} rows from {start}");
                }
            }
        }
    }
}

fn sequences() -> Vec<Sequence> {
    let lengths = [3, 40, 2, 17, 90, 5, 64, 33, 128, 7];
    lengths
        .iter()
        .enumerate()
        .map(|(i, &n)| Sequence {
            tokens: (0..n).map(|t| ((t * 31 + i * 7) % 700) as u32).collect(),
            predict: if i % 2 == 0 { 1..n } else { n / 2 + 1..n },
        })
        .collect()
}

/// Questions behind one header, each with endings: one is part of another, and two are the same.
fn few_shot() -> Vec<Sequence> {
    let header: Vec<u32> = (0..230).map(|t| (t * 17 + t / 5) % 700).collect();
    let mut all = Vec::new();
    for question in 0..7u32 {
        for ending in [2, 2, 5, 11] {
            let own = (0..20 + 3 * question).map(|t| (t * 29 + question * 101) % 700);
            let tokens: Vec<u32> =
                header.iter().copied().chain(own).chain((0..ending).map(|t| (t * 7 + 3) % 700)).collect();
            let predict = tokens.len() - ending as usize..tokens.len();
            all.push(Sequence { tokens, predict });
        }
    }
    all
}

#[test]
fn what_sequences_share_cannot_be_seen_in_a_score() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    for recipe in ["full", "w4a8kv4", "w8a8", "bf16", "kv2"] {
        let q = apply(&Recipe::parse(recipe).unwrap(), &full, 16, &[]).unwrap();
        let engine = |pack| Engine::new(&q.decoder, Words::of(&opened)).with_pack(pack);
        let sequences = few_shot();
        let mut alone = engine(4096).apart();
        let want = bits(&mut alone, &sequences);
        let asked: usize = sequences.iter().map(|s| s.input().len()).sum();
        assert_eq!((alone.work.computed, alone.work.shared), (asked, 0));
        for pack in [1, 100, 300, 4096] {
            let mut shared = engine(pack);
            assert!(bits(&mut shared, &sequences) == want, "{recipe}: packs of {pack}");
            // The header and each question once, and of the endings what differs.
            let once = 230 + (0..7).map(|q| 20 + 3 * q + 10).sum::<usize>();
            assert_eq!((shared.work.computed, shared.work.shared), (once, asked - once));
        }
    }
}

#[test]
fn what_sequences_share_cannot_be_seen_in_any_family() {
    // Keys and values through a map, the newest as they are.
    let table = "name = 'x'\nkv = { bits = 3, residual = 20 }";
    let mapped = bitsweep::study::sweep::expand("test", &table.parse().unwrap()).unwrap().remove(0);
    for f in all() {
        if bitsweep::study::passes::apart(&f.spec).is_some() {
            continue;
        }
        // As far as the family's own tokens go; and across tiles of keys, where positions go so far.
        let long: Vec<u32> = (0..240).map(|t| ((t * 13 + t / 7) % f.spec.vocab) as u32).collect();
        let long = long.as_slice();
        let reads = f.spec.longest().is_none_or(|l| l >= long.len()).then_some((long, 180));
        for (text, n) in [(f.tokens.as_slice(), f.tokens.len() / 2)].into_iter().chain(reads) {
            sharing_is_exact(&f.decoder, text, n, &f.name);
            if mapped.unfit(&f.spec).is_none() {
                let q = apply(&mapped, &f.decoder, 32, &[]).unwrap().decoder;
                sharing_is_exact(&q, text, n, &format!("{} mapped", f.name));
            }
        }
    }
}

/// Three endings behind the first `n` tokens, which are computed once: by hand.
fn sharing_is_exact(decoder: &Decoder, text: &[u32], n: usize, name: &str) {
    let (header, rest) = text.split_at(n);
    let ends = [&rest[..1], rest, &rest[..2]];
    let mut spans = vec![Span { query: 0, queries: n, keys: vec![0..n] }];
    let mut tokens = header.to_vec();
    for end in ends {
        let at = tokens.len();
        spans.push(Span { query: at, queries: end.len(), keys: vec![0..n, at..at + end.len()] });
        tokens.extend_from_slice(end);
    }
    let batch = Batch::sharing(tokens, spans, Vec::new());
    let mut carried: Vec<Carried> = decoder.blocks.iter().map(|_| Carried::default()).collect();
    let shared = decoder.hidden_after(&batch, &mut carried).unwrap().to_vec2::<f32>().unwrap();
    let mut at = n;
    for end in ends {
        let alone = decoder.hidden(&Batch::new([[header, end].concat().as_slice()]), None, None).unwrap();
        let alone = alone.to_vec2::<f32>().unwrap();
        assert!(alone[..n] == shared[..n], "{name}: header of {n}");
        assert!(alone[n..] == shared[at..at + end.len()], "{name}: ending behind {n}");
        at += end.len();
    }
}

/// A block after another, with what stands outside them apart: the same as a pass through all.
#[test]
fn block_by_block_is_a_pass_in_any_family() {
    for f in all() {
        for recipe in ["full", "bf16", "w8a8", "fp16+w4", "kv3"] {
            let recipe = Recipe::parse(recipe).unwrap();
            if recipe.unfit(&f.spec).is_some() {
                continue;
            }
            let q = apply(&recipe, &f.decoder, 32, &[]).unwrap().decoder;
            let ends = Decoder { blocks: Vec::new(), ..q.clone() };
            let batch = Batch::new([&f.tokens[..], &f.tokens[..3]]);
            let mut carried: Vec<Carried> = q.blocks.iter().map(|_| Carried::default()).collect();
            let want = q.hidden_after(&batch, &mut carried).unwrap().to_vec2::<f32>().unwrap();
            let mut x = ends.enter(&batch).unwrap();
            for block in &q.blocks {
                x = ends.through(block, &x, &batch, &mut Carried::default()).unwrap();
            }
            let got = ends.leave(x).unwrap().to_vec2::<f32>().unwrap();
            assert!(got == want, "{} {}", f.name, recipe.name);
        }
    }
}

/// A group that is cut so that its sums fit 32 bits has one scale all the same.
#[test]
fn groups_longer_than_a_sum_have_one_scale() {
    let inner = 40_000;
    for (bits, per, group) in [(8, Per::Group, 65_536), (4, Per::Group, 35_000), (3, Per::Row, 0)] {
        let grid = Grid::int(bits, per, group.max(1), false);
        let mut w = noise(3 * inner, 5);
        // One piece has a range of its own.
        w[33_000..34_000].iter_mut().for_each(|x| *x *= 9.);
        let w = Tensor::from_vec(w, (3, inner), &Device::Cpu).unwrap();
        let codes = Weight::Codes(grid.codes(&w).unwrap().unwrap().into()).rows().unwrap();
        assert_eq!(gap(&codes, &grid.round(&w, Precision::F32).unwrap()), 0., "{bits} {per:?} {group}");
    }
}

/// What is no number stays none, although its code is one.
#[test]
fn a_row_that_is_not_finite_gives_no_number() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let q = apply(&Recipe::parse("w8a8").unwrap(), &full, 16, &[]).unwrap().decoder;
    let linear = q.linears().find(|l| l.input.is_some()).unwrap();
    let (out, inner) = linear.weight.dims().unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = noise(3 * inner, 1);
        x[inner + 5] = bad;
        let x = Tensor::from_vec(x, (3, inner), &Device::Cpu).unwrap();
        let map = linear.input.as_ref().unwrap();
        let y = match &linear.weight {
            Weight::Codes(codes) => {
                let entered = map.codes(&x, codes.groups()).unwrap().unwrap();
                matmul::integers(&entered, codes, None).unwrap()
            }
            other => matmul::linear(&map.map(&x).unwrap(), other, None).unwrap(),
        };
        let y = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (row, y) in y.chunks(out).enumerate() {
            assert!(y.iter().all(|y| y.is_finite() == (row != 1)), "{bad}: row {row}");
        }
    }
}

fn bits(engine: &mut Engine, sequences: &[Sequence]) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    engine
        .score(sequences, &mut |i, logits| {
            if logits.first == 0 {
                assert_eq!(i, all.len());
                all.push(Vec::new());
            }
            assert_eq!(all[i].len(), logits.first * logits.vocab);
            all[i].extend(logits.rows.iter().map(|x| x.to_bits()));
            Ok(())
        })
        .unwrap();
    all
}

#[test]
fn packing_and_threads_cannot_be_seen_in_a_score() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    for recipe in ["full", "w4a8kv4", "bf16", "kv2"] {
        let q = apply(&Recipe::parse(recipe).unwrap(), &full, 16, &[]).unwrap();
        let engine = |pack| Engine::new(&q.decoder, Words::of(&opened)).with_pack(pack);
        let sequences = sequences();
        let want = bits(&mut engine(4096), &sequences);
        for pack in [1, 50, 200] {
            assert!(bits(&mut engine(pack), &sequences) == want, "{recipe}: packs of {pack}");
        }
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert!(one.install(|| bits(&mut engine(4096), &sequences)) == want, "{recipe}: one thread");
        // The other way round.
        let reversed: Vec<Sequence> = sequences.iter().rev().cloned().collect();
        let mut back = bits(&mut engine(4096), &reversed);
        back.reverse();
        assert!(back == want, "{recipe}: order");
    }
}

#[test]
fn packing_cannot_be_seen_in_any_family() {
    for f in all() {
        let parts = [&f.tokens[..1], &f.tokens[..], &f.tokens[..7], &f.tokens[5..]];
        let rows = |batch: &Batch| {
            let hidden = f.decoder.hidden(batch, None, None).unwrap();
            f.decoder.logits(&hidden).unwrap().to_vec2::<f32>().unwrap()
        };
        let packed = rows(&Batch::new(parts));
        let alone: Vec<Vec<f32>> = parts.iter().flat_map(|p| rows(&Batch::new([*p]))).collect();
        let first = packed.iter().zip(&alone).enumerate().find(|(_, (a, b))| a != b);
        if let Some((row, (a, b))) = first {
            let at = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
            panic!("{}: row {row} at {at:?}: {:?} {:?}", f.name, &a[..4], &b[..4]);
        }
    }
}

#[test]
fn routers_are_left_alone_unless_a_recipe_says_otherwise() {
    for f in all().iter().filter(|f| f.name.contains("mixtral") || f.name.contains("moe")) {
        let table =
            |text: &str| bitsweep::study::sweep::expand("test", &text.parse().unwrap()).unwrap().remove(0);
        let weights = "name = 'x'\nweights = { method = 'rtn', bits = 2 }\n";
        let usual = apply(&table(weights), &f.decoder, 32, &[]).unwrap().decoder;
        let study = apply(&table(&format!("{weights}skip = ['head']")), &f.decoder, 32, &[]).unwrap().decoder;
        let mut routers = 0;
        let rows = |linear: &Linear| linear.weight.rows().unwrap();
        let old = f.decoder.linears().zip(usual.linears().zip(study.linears()));
        for (full, (usual, study)) in old {
            let site = full.site.to_string();
            let router = site.ends_with(".router");
            routers += usize::from(router);
            assert_eq!(gap(&rows(full), &rows(usual)) == 0., router || site == "head", "{} {site}", f.name);
            assert_eq!(gap(&rows(full), &rows(study)) == 0., site == "head", "{} {site}", f.name);
        }
        assert!(routers > 0, "{}", f.name);
    }
}

#[test]
fn the_two_forms_of_every_operation_agree() {
    // Families and variants are held to transformers in both forms; here, lengths that cross blocks of queries.
    for f in all() {
        let context = f.decoder.spec.longest().unwrap_or(200).min(200);
        let tokens: Vec<u32> = (0..context).map(|t| ((t * 13 + t / 7) % f.spec.vocab) as u32).collect();
        let mut reference = f.decoder.clone();
        reference.mode.kernels = Kernels::Reference;
        let gap = gap(&logits(&f.decoder, &tokens), &logits(&reference, &tokens));
        assert!(gap < 1e-4, "{}: {gap}", f.name);
    }
}

#[test]
fn products_of_integers_are_those_of_the_rounded_floats() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let table = |text: &str| {
        let text = format!("name = 'x'\n{text}");
        bitsweep::study::sweep::expand("test", &text.parse().unwrap()).unwrap().remove(0)
    };
    let mut recipes: Vec<Recipe> =
        ["w8a8", "w4a8", "w4a4", "w2a3", "w8rowa8", "w3tensora5", "w4g7a8", "w8syma8sym", "w2g20syma2sym"]
            .iter()
            .map(|r| Recipe::parse(r).unwrap())
            .collect();
    recipes.push(table("weights = { method = 'rtn', bits = 8, symmetric = true }\nacts = { bits = 6 }"));
    for recipe in recipes {
        let quantized = apply(&recipe, &full, 16, &[]).unwrap().decoder;
        let mut counted = 0;
        for linear in quantized.linears() {
            let Weight::Codes(codes) = &linear.weight else { continue };
            let map = linear.input.as_ref().unwrap();
            let (_, inner) = codes.dims();
            // Off centre, so that zero points matter.
            let mut x: Vec<f32> = noise(37 * inner, 3).iter().map(|x| x * x * 3. + 0.4).collect();
            // Outliers, of which one leaves the others the last codes before the zero point.
            for (row, outlier) in [(5, -1000.), (6, 1000.), (7, -50.), (8, 50.)] {
                x[row * inner + 3] = outlier;
            }
            let x = Tensor::from_vec(x, (37, inner), &Device::Cpu).unwrap();
            let entered = map.codes(&x, codes.groups()).unwrap().unwrap();
            let got = matmul::integers(&entered, codes, linear.bias.as_ref()).unwrap();
            let (x, w) = (map.map(&x).unwrap(), linear.weight.rows().unwrap());
            let wide = |t: &Tensor| t.to_dtype(DType::F64).unwrap();
            let want = wide(&x).matmul(&wide(&w).t().unwrap()).unwrap();
            let size = wide(&x.abs().unwrap()).matmul(&wide(&w.abs().unwrap()).t().unwrap()).unwrap();
            let off = ((wide(&got) - want).unwrap().abs().unwrap() / size).unwrap();
            let off = off.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let worst = off.into_iter().fold(0., f64::max);
            assert!(worst < 1e-6, "{} {}: {worst}", recipe.name, linear.site);
            counted += 1;
        }
        // Where the machine has no instruction for it, floats are quicker, and nothing is codes.
        assert!(counted > 0 || Kernel::best() == Kernel::PLAIN, "{}", recipe.name);
        // And rounding is that of the recipe without activations.
        let alone = Recipe { acts: None, ..recipe.clone() };
        let alone = apply(&alone, &full, 16, &[]).unwrap().decoder;
        for (a, b) in alone.linears().zip(quantized.linears()) {
            assert_eq!(
                gap(&a.weight.rows().unwrap(), &b.weight.rows().unwrap()),
                0.,
                "{} {}",
                recipe.name,
                a.site
            );
        }
    }
}

#[test]
fn every_recipe_runs_on_every_family_token_by_token_as_in_one_pass() {
    for f in all() {
        for (recipe, slack) in
            [("kv4", 2e-3), ("w4", 1e-4), ("kv8g3", 2e-3), ("w3a8kv8", 2e-2), ("fp16", 3e-2)]
        {
            let recipe = Recipe::parse(recipe).unwrap();
            if let Some(why) = recipe.unfit(&f.spec) {
                assert!(
                    f.family.name().starts_with("mamba") && why.contains("attention"),
                    "{}: {why}",
                    f.name
                );
                continue;
            }
            let q = apply(&recipe, &f.decoder, 32, &[]).unwrap();
            let want = logits(&q.decoder, &f.tokens);
            assert!(want.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|x| x.is_finite()));
            if f.cached.is_some() {
                continue;
            }
            let mut cache = Cache::default();
            let mut rows = Vec::new();
            for token in f.tokens.chunks(1) {
                let hidden = q
                    .decoder
                    .hidden(&Batch::new([token]), Some(std::slice::from_mut(&mut cache)), None)
                    .unwrap();
                rows.push(q.decoder.logits(&hidden).unwrap());
            }
            // A value on a rounding boundary may fall either way; most do not stand on one.
            let got = Tensor::cat(&rows, 0).unwrap();
            let close = (got - want).unwrap().abs().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(close < slack, "{} {}: {close}", f.name, recipe.name);
        }
    }
}

#[test]
fn a_residual_window_keeps_the_newest_tokens_exact() {
    let table = |residual: usize| {
        let text = format!("name = 'kv'\nkv = {{ bits = 2, residual = {residual} }}");
        bitsweep::study::sweep::expand("test", &text.parse().unwrap()).unwrap().remove(0)
    };
    for f in all().into_iter().filter(|f| ["llama", "bloom", "mistral"].contains(&f.family.name())) {
        let plain = logits(&f.decoder, &f.tokens);
        let with = |residual| apply(&table(residual), &f.decoder, 32, &[]).unwrap().decoder;
        // Longer than the text: nothing is quantized.
        assert!(gap(&logits(&with(1000), &f.tokens), &plain) < 1e-4, "{}", f.name);
        // None: the same as without a window.
        let none = apply(&Recipe::parse("kv2").unwrap(), &f.decoder, 32, &[]).unwrap().decoder;
        assert!(gap(&logits(&with(0), &f.tokens), &logits(&none, &f.tokens)) == 0., "{}", f.name);
        // In between: the one pass is the token-by-token loop, and is neither end.
        let decoder = with(4);
        let want = logits(&decoder, &f.tokens);
        let mut cache = Cache::default();
        let rows: Vec<Tensor> = f
            .tokens
            .chunks(1)
            .map(|t| {
                decoder
                    .logits(
                        &decoder
                            .hidden(&Batch::new([t]), Some(std::slice::from_mut(&mut cache)), None)
                            .unwrap(),
                    )
                    .unwrap()
            })
            .collect();
        let got = Tensor::cat(&rows, 0).unwrap();
        assert!((got - &want).unwrap().abs().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap() < 5e-3);
        assert!(gap(&want, &plain) > 1e-2);
        // The first four tokens see only exact keys.
        let head = |t: &Tensor| t.narrow(0, 0, 4).unwrap();
        assert!(gap(&head(&want), &head(&plain)) < 1e-4, "{}", f.name);
    }
}

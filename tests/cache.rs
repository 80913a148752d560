//! The KV cache as methods have it, held to their authors' attention (`tests/make_kv.py`), and what else enters attention.
use crate::{
    common::repo,
    families::{self, Fixture, all, gap, logits},
    methods::{golden, recipe},
};
use bitsweep::{
    eval::Sequence,
    model::{
        decoder::{Batch, Cache, Decoder},
        load,
        ops::Kernels,
    },
    quant::apply::apply,
    study::engine::{Engine, Words},
};
use candle_core::{Device, Tensor};
use std::path::Path;

fn tiny() -> Fixture {
    families::load(&repo("tests/fixtures/llama/mha-untied")).unwrap()
}

fn ids(t: &Tensor) -> Vec<u32> {
    t.to_vec1::<i64>().unwrap().into_iter().map(|t| t as u32).collect()
}

/// Token by token, through a cache.
fn written(decoder: &Decoder, tokens: &[u32]) -> Tensor {
    let mut cache = Cache::default();
    let row = |t: &[u32]| {
        let hidden = decoder.hidden(&Batch::new([t]), Some(std::slice::from_mut(&mut cache)), None).unwrap();
        decoder.logits(&hidden).unwrap()
    };
    Tensor::cat(&tokens.chunks(1).map(row).collect::<Vec<_>>(), 0).unwrap()
}

fn in_reference(decoder: &Decoder) -> Decoder {
    let mut decoder = decoder.clone();
    decoder.mode.kernels = Kernels::Reference;
    decoder
}

/// KIVI's attention goes token by token; one pass over the text must be the same, in both forms, and so must ours token by
/// token.
#[test]
fn kivi_is_the_authors() {
    let (all, f) = (golden("kv/kivi"), tiny());
    let tokens = ids(&all["tokens"]);
    let exact = logits(&f.decoder, &tokens);
    for (bits, group, residual) in [(2, 6, 12), (4, 3, 6), (2, 3, 24)] {
        let table =
            format!("kv = {{ method = 'kivi', bits = {bits}, group = {group}, residual = {residual} }}");
        let q = apply(&recipe(&table), &f.decoder, 32, &[]).unwrap().decoder;
        let want = &all[&format!("{bits}-{group}-{residual}")];
        for (how, got) in [
            ("one pass", logits(&q, &tokens)),
            ("reference", logits(&in_reference(&q), &tokens)),
            ("token by token", written(&q, &tokens)),
        ] {
            let off = gap(&got, want);
            println!("kivi {bits}-{group}-{residual}, {how}: {off}");
            assert!(off < 2e-5, "{bits}-{group}-{residual}, {how}: {off}");
        }
        println!("full precision: {}", gap(&exact, want));
        assert!(gap(&exact, want) > 1e-3);
        let first = |t: &Tensor| t.narrow(0, 0, residual).unwrap();
        assert!(gap(&first(&exact), &first(want)) < 2e-5, "the first {residual} are exact");
    }
}

#[test]
fn kvquant_is_the_authors() {
    let (all, f) = (golden("kv/kvquant"), tiny());
    let tokens = ids(&all["tokens"]);
    let texts: Vec<Vec<u32>> = (0..4).map(|i| ids(&all["calibration"].get(i).unwrap())).collect();
    for (bits, outliers, first, clamp) in [(3, 0.1, 1, false), (2, 0.05, 3, true), (3, 0.0, 0, false)] {
        let zero = if clamp { "clamped" } else { "exact" };
        let table = format!(
            "kv = {{ method = 'kvquant', bits = {bits}, outliers = {outliers:?}, sinks = {first}, zero = '{zero}' }}"
        );
        let q = apply(&recipe(&table), &f.decoder, 32, &texts).unwrap().decoder;
        let name = format!("{bits}-{outliers:?}-{first}-{}", if clamp { "True" } else { "False" });
        let want = &all[&name];
        for (how, got) in [("one pass", logits(&q, &tokens)), ("token by token", written(&q, &tokens))] {
            let off = gap(&got, want);
            println!("kvquant {name}, {how}: {off}");
            assert!(off < 2e-5, "{name}, {how}: {off}");
        }
        assert!(gap(&logits(&f.decoder, &tokens), want) > 1e-2, "{name}");
    }
}

/// Queries and probabilities: more bits are nearer, both forms agree, and what a token reads is its own past alone.
#[test]
fn queries_and_probabilities() {
    for f in all().into_iter().filter(|f| ["llama", "bloom", "mistral", "gemma2"].contains(&f.family.name()))
    {
        let kv = recipe("kv = { bits = 8, zero = 'free' }");
        let exact = logits(&apply(&kv, &f.decoder, 32, &[]).unwrap().decoder, &f.tokens);
        for what in ["queries", "probabilities"] {
            let mut before = f32::INFINITY;
            for bits in [2, 4, 8] {
                let r = recipe(&format!(
                    "kv = {{ bits = 8, zero = 'free', {what} = {{ bits = {bits}, zero = 'free' }} }}"
                ));
                let q = apply(&r, &f.decoder, 32, &[]).unwrap().decoder;
                let got = logits(&q, &f.tokens);
                let d =
                    (&got - &exact).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(d < before, "{} {what} {bits}: {d} of {before}", f.name);
                before = d;
                if bits < 8 {
                    let form = gap(&got, &logits(&in_reference(&q), &f.tokens));
                    assert!(form < 0.2, "{} {what} {bits}: {form} between forms", f.name);
                }
                let part = f.tokens.len() / 2;
                let alone = gap(&got.narrow(0, 0, part).unwrap(), &logits(&q, &f.tokens[..part]));
                assert!(alone == 0., "{} {what} {bits}: {alone}", f.name);
            }
        }
    }
}

/// Keys of several tokens become something together; how sequences are packed cannot be seen all the same.
#[test]
fn packing_cannot_be_seen_where_tokens_share_a_scale() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let header: Vec<u32> = (0..77).map(|t| (t * 17 + t / 5) % 700).collect();
    let sequences: Vec<Sequence> = (0..6u32)
        .map(|i| {
            let tokens: Vec<u32> =
                header.iter().copied().chain((0..20 + i * 3).map(|t| (t * 7 + i) % 700)).collect();
            let predict = 60..tokens.len();
            Sequence { tokens, predict }
        })
        .collect();
    for table in [
        "kv = { method = 'kivi', bits = 2, group = 8, residual = 16 }",
        "kv = { bits = 3, per = 'channel', group = 4 }",
    ] {
        let table = table.replace("per = 'channel', group = 4", "keys = { per = 'channel', group = 4 }");
        let q = apply(&recipe(&table), &full, 16, &[]).unwrap().decoder;
        let run = |pack: usize| {
            use bitsweep::eval::Lm;
            let mut engine = Engine::new(&q, Words::of(&opened)).with_pack(pack);
            let mut all = vec![Vec::new(); sequences.len()];
            engine
                .score(&sequences, &mut |i, logits| {
                    all[i].extend(logits.rows.iter().map(|x| x.to_bits()));
                    Ok(())
                })
                .unwrap();
            all
        };
        let one = run(1);
        assert!(run(150) == one && run(4096) == one, "{table}");
    }
}

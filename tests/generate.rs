//! Generated answers: the engine's against the full pass, against transformers, and against themselves in any company.
use crate::families::{all, gap, logits};
use bitsweep::{
    eval::{Lm, top},
    model::{decoder::Decoder, load, load::Opened},
    quant::{apply::apply, recipe::Recipe},
    study::engine::{Engine, Words},
};
use candle_core::{Device, Tensor};
use std::{ops::ControlFlow, path::Path};

fn builtin() -> Opened {
    load::open("builtin:llama", Path::new(""), None).unwrap()
}

/// What a sequence came to: its tokens and the bits of all logits on the way.
type Trace = (Vec<u32>, Vec<Vec<u32>>);

/// Greedy; sequence `i` of `of` ends by itself after some steps, so that they leave at different times.
fn trace(engine: &mut Engine, prompts: &[Vec<u32>], of: &[usize], limit: usize) -> Vec<Trace> {
    let mut traces = vec![Trace::default(); prompts.len()];
    engine
        .generate(prompts, limit, &mut |_, i, logits| {
            let (tokens, bits) = &mut traces[i];
            tokens.push(top(logits) as u32);
            bits.push(logits.iter().map(|x| x.to_bits()).collect());
            Ok(if bits.len() > 2 + of[i] % 4 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(tokens[tokens.len() - 1])
            })
        })
        .unwrap();
    traces
}

/// In any company: alone, all at once, in small passes, the other way round, on one thread.
fn alone_is_together(what: &str, decoder: &Decoder, opened: &Opened, prompts: &[Vec<u32>]) -> Vec<Trace> {
    let engine = |pack| Engine::new(decoder, Words::of(opened)).with_pack(pack);
    let of: Vec<usize> = (0..prompts.len()).collect();
    let want: Vec<Trace> =
        of.iter().flat_map(|&i| trace(&mut engine(4096), &prompts[i..=i], &of[i..=i], 5)).collect();
    for (i, (_, steps)) in want.iter().enumerate() {
        assert_eq!(steps.len(), (3 + i % 4).min(5), "{what}: sequence {i}");
    }
    for pack in [4096, 1] {
        assert!(trace(&mut engine(pack), prompts, &of, 5) == want, "{what}: together, passes of {pack}");
    }
    let reversed: Vec<Vec<u32>> = prompts.iter().rev().cloned().collect();
    let of_reversed: Vec<usize> = of.iter().rev().copied().collect();
    let mut back = trace(&mut engine(100), &reversed, &of_reversed, 5);
    back.reverse();
    assert!(back == want, "{what}: the other way round");
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert!(one.install(|| trace(&mut engine(4096), prompts, &of, 5)) == want, "{what}: one thread");
    want
}

#[test]
fn neighbours_cannot_be_seen_in_a_generated_answer_of_any_family() {
    let opened = builtin();
    for f in all() {
        let t = &f.tokens;
        let prompts: Vec<Vec<u32>> =
            [&t[..7], &t[2..3], &t[1..6], &t[..4], &t[3..], &t[..t.len() - 5]].map(<[u32]>::to_vec).into();
        let longest = f.decoder.longest().unwrap_or(usize::MAX);
        let prompts: Vec<Vec<u32>> = prompts.into_iter().filter(|p| p.len() + 5 <= longest).collect();
        let want = alone_is_together(&f.name, &f.decoder, &opened, &prompts);
        // And each step is the last row of a pass over all that came before.
        for (prompt, (tokens, bits)) in prompts.iter().zip(&want).filter(|_| f.cached.is_none()) {
            let mut so_far = prompt.clone();
            for (token, bits) in tokens.iter().zip(bits) {
                let whole = logits(&f.decoder, &so_far);
                let whole = whole.narrow(0, so_far.len() - 1, 1).unwrap();
                let step: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
                let step = Tensor::from_vec(step, whole.dims2().unwrap(), &Device::Cpu).unwrap();
                let gap = gap(&step, &whole);
                assert!(gap < 1e-4, "{}: {gap} after {} tokens", f.name, so_far.len());
                so_far.push(*token);
            }
        }
    }
}

#[test]
fn nor_of_any_quantized_model() {
    let opened = builtin();
    let full = opened.load(&Device::Cpu).unwrap();
    let residual = "name = 'kv'\nkv = { bits = 2, residual = 4 }";
    let residual = bitsweep::study::sweep::expand("test", &residual.parse().unwrap()).unwrap().remove(0);
    let mut recipes = vec![residual];
    recipes.extend(["full", "w4a8kv4", "kv2", "bf16"].map(|r| Recipe::parse(r).unwrap()));
    let prompts: Vec<Vec<u32>> = [3, 40, 1, 17, 90, 5]
        .iter()
        .enumerate()
        .map(|(i, &n)| (0..n).map(|t| ((t * 31 + i * 7) % 700) as u32).collect())
        .collect();
    let mut seen = Vec::new();
    for recipe in recipes {
        let q = apply(&recipe, &full, 16).unwrap();
        seen.push(alone_is_together(&recipe.name, &q.decoder, &opened, &prompts));
    }
    // The cache's rounding is in force.
    assert!(seen[1] != seen[3] && seen[0] != seen[3]);
}

//! Generation on the decoder's caches: many sequences at once, each a token a pass.
//!
//! A prompt enters as soon as there is room, in one pass with the steps of those that are on their way; a
//! sequence that has ended leaves at once. What a sequence sees is its own cache alone, and rows of a product
//! do not know each other: so its logits are the same bits whoever runs beside it (`tests/generate.rs`).
use super::{engine::Work, passes};
use crate::model::{
    decoder::{Batch, Cache, Decoder},
    spec::{BlockSpec, DecoderSpec, Mixer},
};
use anyhow::{Result, ensure};
use candle_core::Tensor;
use std::ops::ControlFlow;

/// Sequences at once, at most: more rows make a product no quicker, and each keeps its past.
pub(super) const AT_ONCE: usize = 64;
/// Bytes of all their pasts: 1 GB; one sequence may have more.
const CACHES: usize = 1 << 30;

/// A sequence on its way.
struct Going {
    index: usize,
    /// What the next pass reads: the prompt, then the token that came last.
    input: Vec<u32>,
    /// Tokens so far.
    count: usize,
    bytes: usize,
}

/// From a sequence's index and its logits to the token that comes next, or to its end.
type Next<'a> = dyn FnMut(usize, &[f32]) -> Result<ControlFlow<(), u32>> + 'a;

/// Goes on from every prompt. `next` sees a sequence's logits and says what comes, or that it has ended.
pub(super) fn run(
    decoder: &Decoder,
    pack: usize,
    share: bool,
    prompts: &[Vec<u32>],
    limit: usize,
    next: &mut Next<'_>,
) -> Result<Work> {
    let (fixed, each) = bytes(decoder);
    let mut work = Work::default();
    let same = if share && limit > 0 { header(prompts) } else { 0 };
    let mut begun = Cache::default();
    if same > 0 {
        decoder.hidden(&Batch::new([&prompts[0][..same]]), Some(std::slice::from_mut(&mut begun)), None)?;
        work.computed += same;
    }
    let header_bytes = if same > 0 { fixed + each * same } else { 0 };
    let mut waiting = prompts.iter().enumerate().peekable();
    let (mut going, mut caches): (Vec<Going>, Vec<Cache>) = (Vec::new(), Vec::new());
    loop {
        let mut held: usize = header_bytes + going.iter().map(|g| g.bytes).sum::<usize>();
        let mut tokens = going.len();
        while let Some(&(index, prompt)) = waiting.peek() {
            ensure!(!prompt.is_empty(), "prompt {index} has no token");
            let bytes = fixed + each * room(prompt.len() + limit);
            let fits = going.len() < AT_ONCE
                && tokens + prompt.len() - same <= pack.max(AT_ONCE)
                && held + bytes <= CACHES;
            if limit == 0 || !(fits || going.is_empty()) {
                break;
            }
            held += bytes;
            tokens += prompt.len() - same;
            going.push(Going { index, input: prompt[same..].to_vec(), count: 0, bytes });
            caches.push(begun.copy()?);
            work.shared += same;
            waiting.next();
        }
        if going.is_empty() {
            work.shared = work.shared.saturating_sub(same);
            return Ok(work);
        }
        work.computed += going.iter().map(|g| g.input.len()).sum::<usize>();
        let hidden = decoder.hidden(
            &Batch::new(going.iter().map(|g| g.input.as_slice())),
            Some(caches.as_mut_slice()),
            None,
        )?;
        let mut end = 0;
        let last = going.iter().map(|g| {
            end += g.input.len();
            end as u32 - 1
        });
        let last = Tensor::from_iter(last.collect::<Vec<_>>(), hidden.device())?;
        let vocab = decoder.spec.vocab;
        let logits = decoder.logits(&hidden.index_select(&last, 0)?)?.flatten_all()?.to_vec1::<f32>()?;
        ensure!(super::engine::finite(&logits), super::engine::OVERFLOW);
        let mut kept = Vec::with_capacity(going.len());
        for (g, row) in going.iter_mut().zip(logits.chunks_exact(vocab)) {
            g.count += 1;
            kept.push(match next(g.index, row)? {
                ControlFlow::Continue(token) => {
                    g.input = vec![token];
                    g.count < limit
                }
                ControlFlow::Break(()) => false,
            });
        }
        let mut stays = kept.iter();
        going.retain(|_| stays.next() == Some(&true));
        let mut stays = kept.iter();
        caches.retain(|_| stays.next() == Some(&true));
    }
}

/// Tokens with which all prompts begin, but for each one's last: examples, instructions. They are computed once, and each
/// sequence begins with a copy of what they leave behind.
pub(super) fn header(prompts: &[Vec<u32>]) -> usize {
    let [first, rest @ ..] = prompts else { return 0 };
    let same =
        rest.iter().map(|p| passes::common(first, p).min(p.len().saturating_sub(1))).min().unwrap_or(0);
    let same = same.min(first.len().saturating_sub(1));
    if same < passes::LEAST { 0 } else { same }
}

/// Tokens that a cache has room for when it holds so many: room doubles.
fn room(tokens: usize) -> usize {
    tokens.next_power_of_two()
}

/// Bytes of a sequence's past: of its own, and a token.
fn bytes(decoder: &Decoder) -> (usize, usize) {
    decoder.blocks.iter().fold((0, 0), |sum, block| add(sum, &block.spec, block.kv.is_some()))
}

/// Keys and values; where a map stands before them, as they came and as it leaves them.
fn add((fixed, each): (usize, usize), block: &BlockSpec, mapped: bool) -> (usize, usize) {
    match &block.mixer {
        Mixer::Attention(a) => (fixed, each + 4 * a.kv_width() * if mapped { 4 } else { 2 }),
        Mixer::Ssm(s) => (fixed + 4 * (s.inner * s.state + s.channels() * s.conv), each),
    }
}

/// Bytes of the pasts of the longest sequences, at most: as many as [`run`] lets in at once.
pub(super) fn pasts(spec: &DecoderSpec, mapped: bool, longest: &[usize]) -> usize {
    let (fixed, each) = spec.blocks.iter().fold((0, 0), |sum, block| add(sum, block, mapped));
    let of = |tokens: &usize| fixed + each * room(*tokens);
    let all: usize = longest.iter().map(of).sum();
    let first = longest.first().map_or(0, of);
    // What all prompts begin with is kept once more.
    all.min(CACHES.max(first)) + if longest.len() > 1 { first } else { 0 }
}

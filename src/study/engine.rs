//! The model that evaluators ask: a decoder and a tokenizer behind [`Lm`].
//!
//! Sequences are packed one after another, without padding, into passes of about [`PACK`] tokens; what neighbours have in
//! common is computed once ([`passes`]); and the head runs on scored positions only. None of it can move a bit of a score
//! (`tests/engine.rs`).
use super::{
    generate,
    passes::{self, Pass, Passes},
};
use crate::{
    eval::{Lm, Logits, Next, Sequence, dialogue::Said},
    mistake,
    model::{
        attention::tile_bytes,
        block::Carried,
        chat::{Date, Message},
        decoder::Decoder,
        load::{Opened, Special},
        ops::Precision,
        spec::{AttentionSpec, DecoderSpec},
    },
    suite::dialogue::DAY,
    tensor::rows,
};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::ops::Range;
use tokenizers::Tokenizer;

/// Tokens of one pass.
pub const PACK: usize = 2048;
pub(super) const OVERFLOW: &str =
    "logits are not finite: a value overflowed on the way (in fp16, beyond 65504)";
/// Numbers of one block of logits: 16 MB, so that memory is used again and not given back.
const LOGITS: usize = 4 << 20;

/// Text and tokens of a model, without its weights.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    tokenizer: &'a Tokenizer,
    special: Special,
    vocab: usize,
    context: usize,
    opened: &'a Opened,
}

impl<'a> Words<'a> {
    /// Of an opened model.
    pub fn of(opened: &'a Opened) -> Self {
        let spec = &opened.spec;
        Self {
            tokenizer: &opened.tokenizer,
            special: opened.special,
            vocab: spec.vocab,
            context: spec.context,
            opened,
        }
    }

    pub(super) fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text, specials).map_err(anyhow::Error::msg)?;
        let ids = encoding.get_ids();
        if let Some(i) = ids.iter().position(|&id| id as usize >= self.vocab) {
            mistake!(
                "tokenizer.json makes token {} (`{}`) of this text, but the model's vocabulary is {}: it belongs to \
                 another model",
                ids[i],
                encoding.get_tokens()[i],
                self.vocab
            );
        }
        Ok(ids.to_vec())
    }

    pub(super) fn context(&self) -> usize {
        self.context
    }

    pub(super) fn vocab(&self) -> usize {
        self.vocab
    }

    pub(super) fn prefix(&self) -> Option<u32> {
        self.special.bos.or(self.special.eos)
    }

    pub(super) fn end(&self) -> Option<u32> {
        self.special.eos.or(self.special.bos)
    }

    pub(super) fn chat(&self, said: &[Said], template: Option<&str>) -> Result<String> {
        let messages: Vec<Message> =
            said.iter().map(|s| Message { role: s.role.into(), content: s.text.clone() }).collect();
        let (_, (year, month, day)) = DAY;
        let template = match template {
            Some(own) => self.opened.chat_in("ask.dialogue.template", own)?,
            None => self.opened.chat()?,
        };
        template.render(&messages, true, Date { year, month, day })
    }

    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.tokenizer.decode(tokens, true).map_err(anyhow::Error::msg)
    }

    /// The checkpoint's, and the tokenizer's own.
    pub(super) fn ends(&self) -> Result<Vec<u32>> {
        let mut ends = self.opened.generation()?.eos;
        ends.extend(self.special.eos.filter(|e| !ends.contains(e)));
        Ok(ends)
    }
}

/// Counts what would be computed, and computes nothing: for plans.
pub struct Counter<'a> {
    words: Words<'a>,
    share: bool,
    kinds: Vec<&'a AttentionSpec>,
    /// Tokens that would go through the blocks.
    pub tokens: usize,
    /// The longest sequence.
    pub longest: usize,
    /// Tokens of all sequences, as an evaluator holds them.
    pub written: usize,
    /// Tokens of the longest pass.
    pub pass: usize,
    /// Keys of the pass that reads most, with those carried over to it.
    pub keys: usize,
    /// Bytes that attention's tiles take at most, in f32 and in half precision.
    pub tiles: [usize; 2],
    /// The longest answers to each prompt, all with their prompts: tokens that a cache would hold, longest first.
    pub held: Vec<usize>,
}

impl<'a> Counter<'a> {
    /// Nothing counted yet.
    pub fn new(words: Words<'a>) -> Self {
        // Blocks of one kind take the same.
        let mut kinds: Vec<&AttentionSpec> = Vec::new();
        for attention in words.opened.spec.blocks.iter().filter_map(|b| b.mixer.attention()) {
            if !kinds.contains(&attention) {
                kinds.push(attention);
            }
        }
        Self {
            share: passes::apart(&words.opened.spec).is_none(),
            words,
            kinds,
            tokens: 0,
            longest: 0,
            written: 0,
            pass: 0,
            keys: 0,
            tiles: [0; 2],
            held: Vec::new(),
        }
    }
}

impl Lm for Counter<'_> {
    fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
        self.words.encode(text, specials)
    }
    fn context(&self) -> usize {
        self.words.context
    }
    fn vocab(&self) -> usize {
        self.words.vocab
    }
    fn prefix(&self) -> Option<u32> {
        self.words.prefix()
    }
    fn end(&self) -> Option<u32> {
        self.words.end()
    }
    fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.words.decode(tokens)
    }
    fn ends(&self) -> Result<Vec<u32>> {
        self.words.ends()
    }
    fn chat(&self, said: &[Said], template: Option<&str>) -> Result<String> {
        self.words.chat(said, template)
    }
    fn score(&mut self, all: &[Sequence], _: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>) -> Result<()> {
        // Where a model writes nothing, it is asked nothing of what it wrote.
        all.iter().try_for_each(|s| self.words.opened.spec.reads(s.input().len()))?;
        let plan = passes::plan(all, PACK, self.share);
        self.tokens += plan.computed;
        self.written += all.iter().map(|s| s.tokens.len()).sum::<usize>();
        self.longest = all.iter().map(|s| s.input().len()).fold(self.longest, usize::max);
        for pass in &plan.passes {
            let carried: usize = pass.carried.iter().map(ExactSizeIterator::len).sum();
            self.pass = self.pass.max(pass.batch.len());
            self.keys = self.keys.max(carried + pass.batch.len());
            for kind in &self.kinds {
                for (most, precision) in self.tiles.iter_mut().zip([Precision::F32, Precision::F16]) {
                    *most = (*most).max(tile_bytes(kind, pass.batch.spans(), precision));
                }
            }
        }
        Ok(())
    }
    fn generate(&mut self, prompts: &[Vec<u32>], limit: usize, _: &mut Next) -> Result<()> {
        let lengths = prompts.iter().map(|p| p.len() + limit);
        let prompt = prompts.iter().map(Vec::len).max().unwrap_or(0);
        self.longest = self.longest.max(prompt + limit);
        self.pass = self.pass.max(prompt.max(PACK.min(prompts.iter().map(Vec::len).sum())));
        self.keys = self.keys.max(self.pass);
        self.tokens += lengths.clone().sum::<usize>();
        if self.share {
            self.tokens -= generate::header(prompts) * prompts.len().saturating_sub(1);
        }
        self.held.extend(lengths);
        self.held.sort_unstable_by(|a, b| b.cmp(a));
        self.held.truncate(generate::AT_ONCE);
        Ok(())
    }
}

/// See the module.
pub struct Engine<'a> {
    decoder: &'a Decoder,
    words: Words<'a>,
    pack: usize,
    share: bool,
    /// What was done so far.
    pub work: Work,
}

/// Tokens of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Through the blocks.
    pub computed: usize,
    /// That were not, because a neighbour begins alike.
    pub shared: usize,
}

impl std::ops::Add for Work {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { computed: self.computed + other.computed, shared: self.shared + other.shared }
    }
}

impl<'a> Engine<'a> {
    /// A model ready to be asked.
    pub fn new(decoder: &'a Decoder, words: Words<'a>) -> Self {
        let joined = decoder.blocks.iter().filter_map(|b| b.kv.as_ref()).any(|map| map.tokens() > 1);
        let share = passes::apart(&decoder.spec).is_none() && !joined;
        Self { decoder, words, pack: PACK, share, work: Work::default() }
    }

    /// With passes of another size: for tests that hold it to make no difference.
    pub fn with_pack(self, pack: usize) -> Self {
        Self { pack, ..self }
    }

    /// With every sequence computed whole: the same.
    pub fn apart(self) -> Self {
        Self { share: false, ..self }
    }
}

pub(super) fn finite(x: &[f32]) -> bool {
    x.par_chunks(1 << 16).all(|x| x.iter().fold(true, |all, x| all & x.is_finite()))
}

/// Shows the logits of some sequences, whose first has number `from`: `place` says where each one's rows are in `hidden`.
fn head(
    decoder: &Decoder,
    hidden: &Tensor,
    sequences: &[Sequence],
    from: usize,
    place: impl Fn(usize) -> Vec<Range<usize>>,
    visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
) -> Result<()> {
    let vocab = decoder.spec.vocab;
    let block = (LOGITS / vocab).max(1);
    // Rows of hidden states that are asked for: whose they are, and which of its predictions.
    let mut asked: Vec<(usize, usize, u32)> = Vec::new();
    let mut show = |asked: &mut Vec<(usize, usize, u32)>| -> Result<()> {
        let rows: Vec<u32> = asked.iter().map(|a| a.2).collect();
        let scored = hidden.index_select(&Tensor::new(rows, hidden.device())?, 0)?;
        let logits = decoder.logits(&scored)?.to_device(&Device::Cpu)?.contiguous()?;
        rows::with(&logits, |logits| {
            ensure!(finite(logits), OVERFLOW);
            let mut at = 0;
            for of in asked.chunk_by(|a, b| a.0 == b.0) {
                let rows = &logits[at * vocab..(at + of.len()) * vocab];
                visit(from + of[0].0, Logits { first: of[0].1, rows, vocab })?;
                at += of.len();
            }
            Ok(())
        })??;
        asked.clear();
        Ok(())
    };
    for (i, s) in sequences.iter().enumerate() {
        let rows: Vec<usize> = place(from + i).into_iter().flatten().collect();
        for (first, row) in s.rows().enumerate() {
            asked.push((i, first, rows[row] as u32));
            if asked.len() == block {
                show(&mut asked)?;
            }
        }
    }
    if asked.is_empty() { Ok(()) } else { show(&mut asked) }
}

/// Shows the logits of all sequences, pass after pass; `hidden` gives what a pass computed, in its rows' order.
pub(super) fn each_pass(
    decoder: &Decoder,
    all: &Passes,
    sequences: &[Sequence],
    visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    mut hidden: impl FnMut(&Pass) -> Result<Tensor>,
) -> Result<()> {
    // Hidden states of what is carried over: a later sequence may predict from them.
    let mut before: Option<Tensor> = None;
    for pass in &all.passes {
        let own = if pass.batch.is_empty() { None } else { Some(hidden(pass)?) };
        let both: Vec<Tensor> = before.take().into_iter().chain(own).collect();
        let hidden = Tensor::cat(&both, 0)?;
        let place = |i: usize| pass.place(&all.rows[i]);
        let here = &sequences[pass.sequences.clone()];
        head(decoder, &hidden, here, pass.sequences.start, place, visit)?;
        if !pass.keep.is_empty() {
            let kept = pass.keep.iter().map(|r| hidden.narrow(0, r.start, r.len()));
            let kept = Tensor::cat(&kept.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
            before = Some(kept.force_contiguous()?);
        }
    }
    Ok(())
}

/// Sequences that an evaluator may ask for, and this model can read.
pub(super) fn check(sequences: &[Sequence], spec: &DecoderSpec) -> Result<()> {
    for (i, s) in sequences.iter().enumerate() {
        ensure!(
            s.predict.start >= 1 && s.predict.start < s.predict.end && s.predict.end <= s.tokens.len(),
            "sequence {i} of {} tokens predicts {:?}",
            s.tokens.len(),
            s.predict
        );
        spec.reads(s.input().len())?;
    }
    Ok(())
}

impl Lm for Engine<'_> {
    fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
        self.words.encode(text, specials)
    }
    fn context(&self) -> usize {
        self.words.context
    }
    fn vocab(&self) -> usize {
        self.words.vocab
    }
    fn prefix(&self) -> Option<u32> {
        self.words.prefix()
    }
    fn end(&self) -> Option<u32> {
        self.words.end()
    }
    fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.words.decode(tokens)
    }
    fn ends(&self) -> Result<Vec<u32>> {
        self.words.ends()
    }
    fn chat(&self, said: &[Said], template: Option<&str>) -> Result<String> {
        self.words.chat(said, template)
    }

    fn score(
        &mut self,
        sequences: &[Sequence],
        visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    ) -> Result<()> {
        check(sequences, &self.decoder.spec)?;
        let all = passes::plan(sequences, self.pack, self.share);
        self.work.computed += all.computed;
        self.work.shared += all.asked - all.computed;
        let mut carried: Vec<Carried> = Vec::new();
        carried.resize_with(self.decoder.blocks.len(), Carried::default);
        each_pass(self.decoder, &all, sequences, visit, |pass| {
            self.decoder.hidden_after(&pass.batch, &mut carried)
        })
    }

    fn generate(&mut self, prompts: &[Vec<u32>], limit: usize, next: &mut Next) -> Result<()> {
        let this = &*self;
        let mut next = |i: usize, logits: &[f32]| next(this, i, logits);
        let work = generate::run(this.decoder, this.pack, this.share, prompts, limit, &mut next)?;
        self.work.computed += work.computed;
        self.work.shared += work.shared;
        Ok(())
    }
}

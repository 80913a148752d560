//! The model that evaluators ask: a decoder and a tokenizer behind [`Lm`].
//!
//! Sequences are packed one after another, without padding, into passes of about [`PACK`] tokens, and the head runs on
//! scored positions only. Neither can move a bit of a score (`tests/engine.rs`).
use super::generate;
use crate::{
    eval::{Lm, Logits, Next, Sequence, dialogue::Said},
    mistake,
    model::{
        chat::{Date, Message},
        decoder::{Batch, Decoder},
        load::{Opened, Special},
    },
    suite::dialogue::DAY,
};
use anyhow::{Result, ensure};
use candle_core::Tensor;
use tokenizers::Tokenizer;

/// Tokens of one pass.
pub const PACK: usize = 4096;
pub(super) const OVERFLOW: &str =
    "logits are not finite: a value overflowed on the way (in fp16, beyond 65504)";
/// Numbers of one block of logits: 256 MB.
const LOGITS: usize = 64 << 20;

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

    fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
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

    fn prefix(&self) -> Option<u32> {
        self.special.bos.or(self.special.eos)
    }

    fn end(&self) -> Option<u32> {
        self.special.eos.or(self.special.bos)
    }

    fn chat(&self, said: &[Said], template: Option<&str>) -> Result<String> {
        let messages: Vec<Message> =
            said.iter().map(|s| Message { role: s.role.into(), content: s.text.clone() }).collect();
        let (_, (year, month, day)) = DAY;
        let template = match template {
            Some(own) => self.opened.chat_in("ask.dialogue.template", own)?,
            None => self.opened.chat()?,
        };
        template.render(&messages, true, Date { year, month, day })
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        self.tokenizer.decode(tokens, true).map_err(anyhow::Error::msg)
    }

    /// The checkpoint's, and the tokenizer's own.
    fn ends(&self) -> Result<Vec<u32>> {
        let mut ends = self.opened.generation()?.eos;
        ends.extend(self.special.eos.filter(|e| !ends.contains(e)));
        Ok(ends)
    }
}

/// Counts what would be computed, and computes nothing: for plans.
pub struct Counter<'a> {
    words: Words<'a>,
    /// Tokens that would go through the blocks.
    pub tokens: usize,
    /// The longest answers to each prompt, all with their prompts: tokens that a cache would hold, longest first.
    pub held: Vec<usize>,
}

impl<'a> Counter<'a> {
    /// Nothing counted yet.
    pub fn new(words: Words<'a>) -> Self {
        Self { words, tokens: 0, held: Vec::new() }
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
        self.tokens += all.iter().map(|s| s.input().len()).sum::<usize>();
        Ok(())
    }
    fn generate(&mut self, prompts: &[Vec<u32>], limit: usize, _: &mut Next) -> Result<()> {
        let lengths = prompts.iter().map(|p| p.len() + limit);
        self.tokens += lengths.clone().sum::<usize>();
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
}

impl<'a> Engine<'a> {
    /// A model ready to be asked.
    pub fn new(decoder: &'a Decoder, words: Words<'a>) -> Self {
        Self { decoder, words, pack: PACK }
    }

    /// With passes of another size: for tests that hold it to make no difference.
    pub fn with_pack(self, pack: usize) -> Self {
        Self { pack, ..self }
    }

    fn pass(
        &self,
        sequences: &[Sequence],
        first: usize,
        visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    ) -> Result<()> {
        let hidden = self.decoder.hidden(&Batch::new(sequences.iter().map(Sequence::input)), None, None)?;
        let vocab = self.decoder.spec.vocab;
        let mut at = 0;
        let mut start = 0;
        while start < sequences.len() {
            // As many whole sequences as fit a block of logits.
            let mut end = start;
            let mut rows: Vec<u32> = Vec::new();
            while end < sequences.len() {
                let s = &sequences[end];
                let more = s.rows().len();
                if end > start && (rows.len() + more) * vocab > LOGITS {
                    break;
                }
                rows.extend(s.rows().map(|r| (at + r) as u32));
                at += s.input().len();
                end += 1;
            }
            let count = rows.len();
            let scored = hidden.index_select(&Tensor::from_vec(rows, count, hidden.device())?, 0)?;
            let logits = self.decoder.logits(&scored)?.flatten_all()?.to_vec1::<f32>()?;
            ensure!(logits.iter().all(|x| x.is_finite()), OVERFLOW);
            let mut row = 0;
            for (i, s) in sequences[start..end].iter().enumerate() {
                let len = s.rows().len();
                visit(first + start + i, Logits { rows: &logits[row * vocab..(row + len) * vocab], vocab })?;
                row += len;
            }
            start = end;
        }
        Ok(())
    }
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
        for (i, s) in sequences.iter().enumerate() {
            ensure!(
                s.predict.start >= 1 && s.predict.start < s.predict.end && s.predict.end <= s.tokens.len(),
                "sequence {i} of {} tokens predicts {:?}",
                s.tokens.len(),
                s.predict
            );
        }
        let mut start = 0;
        while start < sequences.len() {
            let mut end = start + 1;
            let mut tokens = sequences[start].input().len();
            while end < sequences.len() && tokens + sequences[end].input().len() <= self.pack {
                tokens += sequences[end].input().len();
                end += 1;
            }
            self.pass(&sequences[start..end], start, visit)?;
            start = end;
        }
        Ok(())
    }

    fn generate(&mut self, prompts: &[Vec<u32>], limit: usize, next: &mut Next) -> Result<()> {
        let this = &*self;
        generate::run(this.decoder, this.pack, prompts, limit, &mut |i, logits| next(this, i, logits))
    }
}

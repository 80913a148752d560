//! Evaluators: what is asked of a model, and what its answers are worth. No tensor crosses into this module.
//!
//! Each evaluator turns items into [`Sequence`]s, has an [`Lm`] score them, and leaves an [`Outcome`] an item.
pub mod calibration;
pub mod choice;
pub mod cloze;
pub mod dialogue;
pub mod divergence;
pub mod generate;
pub mod metrics;
pub mod perplexity;

use crate::{
    float::{log_sum_exp, top},
    suite::ask::Profile,
};
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::{ControlFlow, Range};

pub use metrics::{METRICS, Metric};

/// A language model, as evaluators see it: text, tokens and logits. Every evaluator is tested against one written by
/// hand.
pub trait Lm: Sync {
    /// Tokens of a text; `specials`: with those that the tokenizer itself adds.
    fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>>;
    /// Longest sequence the model was made for.
    fn context(&self) -> usize;
    /// Width of a row of logits.
    fn vocab(&self) -> usize;
    /// What stands before a text that has nothing before it: BOS, else EOS.
    fn prefix(&self) -> Option<u32>;
    /// What stood there before lm-evaluation-harness had BOS: EOS, else BOS.
    fn end(&self) -> Option<u32> {
        self.prefix()
    }
    /// Teacher-forced pass over all sequences. Visits each in order, a long one in parts that follow each other; how they
    /// are packed cannot be seen in the logits.
    fn score(
        &mut self,
        sequences: &[Sequence],
        visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    ) -> Result<()>;
    /// Text of tokens, without special ones. A model that is only asked for scores needs none.
    fn decode(&self, _tokens: &[u32]) -> Result<String> {
        anyhow::bail!("this model gives no text")
    }
    /// A talk as the model wants to read it, up to where its answer begins: in its own chat template, or in this one. A
    /// base model has none.
    fn chat(&self, _said: &[dialogue::Said], _template: Option<&str>) -> Result<String> {
        anyhow::bail!("this model has no chat template")
    }
    /// Tokens that end an answer.
    fn ends(&self) -> Result<Vec<u32>> {
        Ok(Vec::new())
    }
    /// Goes on from every prompt, `limit` tokens at most: [`Next`] says with what. Several run at once and take
    /// turns, but which, and in what order, cannot be seen in anyone's logits.
    fn generate(&mut self, _prompts: &[Vec<u32>], _limit: usize, _next: &mut Next) -> Result<()> {
        anyhow::bail!("this model does not generate")
    }
}

/// Is handed the model, a sequence's number and the logits after all that it holds; gives the token that comes
/// next, or ends it.
pub type Next<'a> = dyn FnMut(&dyn Lm, usize, &[f32]) -> Result<ControlFlow<(), u32>> + 'a;

/// Tokens, and which of them are to be predicted from those before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// All of them.
    pub tokens: Vec<u32>,
    /// Positions to predict; from 1 at least.
    pub predict: Range<usize>,
}

impl Sequence {
    /// What must go through the model: all but what comes after the last prediction's place.
    pub fn input(&self) -> &[u32] {
        &self.tokens[..self.rows().end.min(self.tokens.len())]
    }

    /// The rows of hidden states that predict: one before each predicted position.
    pub fn rows(&self) -> Range<usize> {
        self.predict.start.saturating_sub(1)..self.predict.end.saturating_sub(1)
    }
}

/// Logits of one sequence, or of some of its predicted positions: a row each.
#[derive(Clone, Copy)]
pub struct Logits<'a> {
    /// Which of the predicted positions the first row is for.
    pub first: usize,
    /// `[positions, vocab]`.
    pub rows: &'a [f32],
    /// Width of a row.
    pub vocab: usize,
}

impl<'a> Logits<'a> {
    /// The tokens that the rows predict.
    pub fn targets<'s>(&self, sequence: &'s Sequence) -> &'s [u32] {
        let from = sequence.predict.start + self.first;
        &sequence.tokens[from..from + self.rows.len() / self.vocab]
    }

    /// The `i`th row.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.rows[i * self.vocab..][..self.vocab]
    }

    /// For each row, the log-probability of the token that stands there and whether it is the likeliest (the first of
    /// equals).
    pub fn score(&self, sequence: &Sequence) -> Vec<(f64, bool)> {
        self.targets(sequence)
            .par_iter()
            .enumerate()
            .map(|(i, &token)| {
                let row = self.row(i);
                let at = row[token as usize];
                (f64::from(at) - log_sum_exp(row), top(row) == token as usize)
            })
            .collect()
    }
}

/// What one item of a task gave: enough to recompute every metric and to pair runs item by item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A question with endings.
    Choice(choice::Answer),
    /// A text and what comes next.
    Cloze(cloze::Guess),
    /// A text or a window of one.
    Text(perplexity::Loss),
    /// A window under two models.
    Divergence(divergence::Gap),
    /// An answer of the model's own.
    Generated(generate::Answer),
    /// Several, in turns.
    Dialogue(dialogue::Answers),
}

/// An item's name: a hash of its content, and how often that content was met before, so that twins stay apart.
pub struct Names(std::collections::BTreeMap<String, usize>);

impl Names {
    /// None met yet.
    pub fn new() -> Self {
        Self(Default::default())
    }
    /// The next item's.
    pub fn name(&mut self, content: &[u8]) -> String {
        let hash = format!("{:x}", Sha256::digest(content))[..16].to_string();
        let seen = self.0.entry(hash.clone()).or_insert(0);
        *seen += 1;
        if *seen == 1 { hash } else { format!("{hash}-{seen}") }
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::new()
    }
}

/// Evaluated items: their names and outcomes, in order.
pub type Outcomes = Vec<(String, Outcome)>;

/// Tokens as lm-evaluation-harness encodes a text: the tokenizer's own special tokens, unless the profile has none or
/// the text begins with BOS already.
pub(crate) fn harness_encode(lm: &dyn Lm, text: &str, profile: Profile) -> Result<Vec<u32>> {
    let bare = lm.encode(text, false)?;
    let begun = lm.prefix().is_some_and(|p| bare.first() == Some(&p));
    if profile == Profile::Tokenizer && !begun { lm.encode(text, true) } else { Ok(bare) }
}

/// The token that stands before a text with nothing before it.
pub(crate) fn first(lm: &dyn Lm, profile: Profile) -> Option<u32> {
    if profile == Profile::Separate { lm.end() } else { lm.prefix() }
}

/// Bytes of tokens, to name an item by.
pub(crate) fn bytes(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|t| t.to_le_bytes()).collect()
}

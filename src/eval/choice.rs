//! Multiple choice by log-likelihood, request for request as lm-evaluation-harness builds it.
//!
//! An ending's score is the sum of its tokens' log-probabilities after the prompt. Prompt and ending are tokenized
//! together and split where the prompt's own tokens end; white space at the end of a prompt moves to the ending first.
use super::{Lm, Names, Outcome, Outcomes, Sequence, harness_encode, python_space};
use crate::{mistake, suite::task::Profile};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One question, rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What stands before every ending.
    pub prompt: String,
    /// Between prompt and ending.
    pub delimiter: String,
    /// At least two.
    pub endings: Vec<String>,
    /// The right one.
    pub gold: usize,
}

/// What a question gave, by ending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The right ending.
    pub gold: usize,
    /// Sum of the tokens' log-probabilities, nats.
    pub log_probs: Vec<f64>,
    /// Whether every token was the likeliest.
    pub greedy: Vec<bool>,
    /// Length in Unicode code points, without the delimiter.
    pub chars: Vec<usize>,
    /// Length in UTF-8 bytes, without the delimiter.
    pub bytes: Vec<usize>,
}

impl Answer {
    /// The ending with the best score, the first of equals, each divided by `by`.
    pub fn best(&self, by: impl Fn(usize) -> f64) -> usize {
        let mut best = 0;
        for i in 1..self.log_probs.len() {
            if self.log_probs[i] / by(i) > self.log_probs[best] / by(best) {
                best = i;
            }
        }
        best
    }
}

/// Asks all questions.
pub fn run(lm: &mut dyn Lm, questions: &[Question], profile: Profile) -> Result<Outcomes> {
    let mut sequences = Vec::new();
    for (i, q) in questions.iter().enumerate() {
        if q.endings.len() < 2 || q.gold >= q.endings.len() {
            mistake!("item {}: {} endings, and gold is number {}", i + 1, q.endings.len(), q.gold);
        }
        for ending in &q.endings {
            let continuation = format!("{}{ending}", q.delimiter);
            let sequence = request(lm, &q.prompt, &continuation, profile);
            sequences.push(sequence.with_context(|| format!("item {}", i + 1))?);
        }
    }
    let mut scores = Vec::with_capacity(sequences.len());
    lm.score(&sequences, &mut |i, logits| {
        let s = &sequences[i];
        let tokens = logits.score(&s.tokens[s.predict.clone()]);
        scores.push((tokens.iter().map(|t| t.0).sum::<f64>(), tokens.iter().all(|t| t.1)));
        Ok(())
    })?;
    let mut names = Names::new();
    let mut scores = scores.into_iter();
    Ok(questions
        .iter()
        .map(|q| {
            let (log_probs, greedy) = scores.by_ref().take(q.endings.len()).unzip();
            let content = format!("{}\0{}\0{}", q.prompt, q.endings.join("\0"), q.gold);
            let answer = Answer {
                gold: q.gold,
                log_probs,
                greedy,
                chars: q.endings.iter().map(|e| e.chars().count()).collect(),
                bytes: q.endings.iter().map(String::len).collect(),
            };
            (names.name(content.as_bytes()), Outcome::Choice(answer))
        })
        .collect())
}

/// `loglikelihood(context, continuation)`.
fn request(lm: &dyn Lm, context: &str, continuation: &str, profile: Profile) -> Result<Sequence> {
    let (mut tokens, target) = if context.is_empty() {
        let target = lm.encode(continuation, false)?;
        match lm.prefix() {
            Some(prefix) if target.first() == Some(&prefix) => (vec![prefix], target[1..].to_vec()),
            Some(prefix) => (vec![prefix], target),
            None => mistake!("an empty prompt needs a BOS or EOS token, and neither config names one"),
        }
    } else {
        let kept = context.trim_end_matches(python_space);
        let whole = harness_encode(lm, &format!("{context}{continuation}"), profile)?;
        let before = harness_encode(lm, kept, profile)?;
        let target = whole.get(before.len()..).unwrap_or_default().to_vec();
        (before, target)
    };
    if target.is_empty() {
        mistake!("the ending `{continuation}` is no token of its own after its prompt");
    }
    let predicted = target.len();
    tokens.extend(target);
    // Too long: the left goes, as in the harness; one token must stay to predict from.
    let longest = lm.context() + 1;
    if predicted >= longest {
        mistake!("an ending of {predicted} tokens does not fit the model's context of {}", lm.context());
    }
    let cut = tokens.len().saturating_sub(longest);
    tokens.drain(..cut);
    let end = tokens.len();
    if end == predicted {
        mistake!("a prompt without a token");
    }
    Ok(Sequence { tokens, predict: end - predicted..end })
}

//! Multiple choice by log-likelihood, request for request as lm-evaluation-harness builds it.
//!
//! An ending's score is the sum of its tokens' log-probabilities after the prompt. Prompt and ending are tokenized
//! together and split where the prompt's own tokens end; white space at the end of a prompt moves to the ending first.
use super::{Lm, Names, Outcome, Outcomes, Sequence, first, harness_encode};
use crate::{
    mistake,
    suite::{ask::Profile, python::is_space},
};
use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use crate::suite::requests::Question;

/// What a question gave, by ending.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The right ending; the first of several.
    pub gold: usize,
    /// The other right ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<usize>,
    /// Sum of the tokens' log-probabilities, nats; in the profile `opencompass` their mean, of prompt and ending.
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

    /// Whether an ending is a right one.
    pub fn is_right(&self, ending: usize) -> bool {
        ending == self.gold || self.others.contains(&ending)
    }

    /// Of the probability of all endings, the right ones' part. Scaled by the likeliest: a sum of such small numbers
    /// would be none.
    pub fn right_mass(&self) -> f64 {
        let top = self.log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut right, mut all) = (0., 0.);
        for (i, log_prob) in self.log_probs.iter().enumerate() {
            let p = (log_prob - top).exp();
            all += p;
            right += if self.is_right(i) { p } else { 0. };
        }
        right / all
    }
}

/// Asks all questions.
pub fn run(lm: &mut dyn Lm, questions: &[Question], profile: Profile) -> Result<Outcomes> {
    for (i, q) in questions.iter().enumerate() {
        let n = q.options();
        let fits = |k: usize| k == 1 || k == n;
        if n < 2 || !fits(q.prompts.len()) || !fits(q.endings.len()) {
            mistake!(
                "item {}: {} prompts and {} endings; `endings` (or `prompts`) gives 2 or more",
                i + 1,
                q.prompts.len(),
                q.endings.len()
            );
        }
        if q.golds.is_empty() || q.golds.iter().any(|&g| g >= n) {
            mistake!("item {}: {n} endings, and gold is number {}", i + 1, list(&q.golds));
        }
    }
    let scores = requests(lm, questions.iter().map(Question::pairs), profile)?;
    let mut names = Names::new();
    Ok(questions
        .iter()
        .zip(scores)
        .map(|(q, scores)| {
            let (log_probs, greedy) = scores.into_iter().unzip();
            let content = format!("{}\0{}\0{}", q.prompts.join("\0"), q.endings.join("\0"), list(&q.golds));
            // What differs between the options is what has a length.
            let several = if q.bare.is_empty() { &q.prompts } else { &q.bare };
            let texts = if q.endings.len() > 1 { &q.endings } else { several };
            let answer = Answer {
                gold: q.golds[0],
                others: q.golds[1..].to_vec(),
                log_probs,
                greedy,
                chars: texts.iter().map(|e| e.chars().count()).collect(),
                bytes: texts.iter().map(String::len).collect(),
            };
            (names.name(content.as_bytes()), Outcome::Choice(answer))
        })
        .collect())
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// OpenCompass's `_get_ppl`, with the sign of a log-likelihood: the sum over what is predicted of prompt and ending, divided
/// by all their tokens, of which the first is not predicted. Too long a text loses its left, and keeps BOS.
fn whole(lm: &dyn Lm, context: &str, continuation: &str) -> Result<Sequence> {
    let mut tokens = lm.encode(&format!("{context}{continuation}"), true)?;
    let cut = tokens.len().saturating_sub(lm.context());
    let begun = usize::from(lm.prefix().is_some_and(|p| tokens.first() == Some(&p)));
    tokens.drain(begun..begun + cut);
    if tokens.len() < 2 {
        mistake!("the text `{context}{continuation}` has no token that is predicted from another");
    }
    let predict = 1..tokens.len();
    Ok(Sequence { tokens, predict })
}

/// The log-likelihood of every continuation after its context, item by item, and whether it is the greedy one.
pub(super) fn requests<'a>(
    lm: &mut dyn Lm,
    items: impl Iterator<Item = Vec<(&'a str, String)>>,
    profile: Profile,
) -> Result<Vec<Vec<(f64, bool)>>> {
    let items: Vec<Vec<(&str, String)>> = items.collect();
    let counts: Vec<usize> = items.iter().map(Vec::len).collect();
    let asked = &*lm;
    // Few-shot prompts are long, and tokenizing takes a tenth of the time: by all threads.
    let of_items: Vec<Result<Vec<Sequence>>> = items
        .par_iter()
        .map(|pairs| {
            let one = |(context, continuation): &(&str, String)| match profile {
                Profile::OpenCompass => whole(asked, context, continuation),
                _ => request(asked, context, continuation, profile),
            };
            pairs.iter().map(one).collect()
        })
        .collect();
    let mut sequences = Vec::new();
    for (i, of_item) in of_items.into_iter().enumerate() {
        sequences.extend(of_item.with_context(|| format!("item {}", i + 1))?);
    }
    let mut scores = vec![(0., true); sequences.len()];
    lm.score(&sequences, &mut |i, logits| {
        for (log_prob, top) in logits.score(&sequences[i]) {
            scores[i].0 += log_prob;
            scores[i].1 &= top;
        }
        Ok(())
    })?;
    if profile == Profile::OpenCompass {
        scores.iter_mut().zip(&sequences).for_each(|(score, s)| score.0 /= s.tokens.len() as f64);
    }
    let mut scores = scores.into_iter();
    Ok(counts.into_iter().map(|n| scores.by_ref().take(n).collect()).collect())
}

/// `loglikelihood(context, continuation)`.
fn request(lm: &dyn Lm, context: &str, continuation: &str, profile: Profile) -> Result<Sequence> {
    let (mut tokens, target) = if context.is_empty() {
        let target = lm.encode(continuation, false)?;
        match first(lm, profile) {
            Some(prefix) if target.first() == Some(&prefix) && profile != Profile::Separate => {
                (vec![prefix], target[1..].to_vec())
            }
            Some(prefix) => (vec![prefix], target),
            None => mistake!("an empty prompt needs a BOS or EOS token, and neither config names one"),
        }
    } else if profile == Profile::Separate {
        (lm.encode(context, false)?, lm.encode(continuation, false)?)
    } else {
        let kept = context.trim_end_matches(is_space);
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

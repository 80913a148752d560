//! How well a text is predicted, in the protocols that papers and tools use.
//!
//! * `windows`: GPTQ's. The joined text is tokenized once with the tokenizer's own special tokens, cut into windows that
//!   do not overlap, the tail dropped; all but each window's first token are scored.
//! * `drawn`: GPTQ's for C4. Items and places in them are drawn; windows are cut and scored as above.
//! * `llama-cpp`: llama.cpp's `llama-perplexity`. Windows of 512; where the tokenizer begins texts with BOS, it replaces
//!   each window's first token; only predictions made from the second half count.
//! * `rolling`: lm-evaluation-harness's `loglikelihood_rolling`. Each item on its own; every token is scored once, the
//!   first after the prefix token.
use super::{Lm, Names, Outcome, Outcomes, Sequence, harness_encode};
use crate::{
    mistake,
    random::Random,
    suite::{
        ask::{Profile, Protocol},
        python::is_space,
        requests::Text,
    },
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What a text or window lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Negative log-likelihood, nats, summed over scored tokens.
    pub nll: f64,
    /// Its square, summed: for an error as if tokens were independent.
    pub nll2: f64,
    /// Scored tokens.
    pub tokens: usize,
    /// UTF-8 bytes of the item; 0 for a window, which has none of its own.
    #[serde(default)]
    pub bytes: usize,
    /// Pieces of the item between white space, as `re.split(r"\s+", text)` counts them.
    #[serde(default)]
    pub words: usize,
    /// Scored tokens by their loss, a bin each [`BIN`] nats; the [`BINS`]th is open, and none stand after the last that holds
    /// any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<u32>,
    /// `[nll, tokens]` by how much a token was predicted from: bin `k` is of `2^k` to `2^(k+1) - 1` tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<[f64; 2]>,
}

/// Nats of a bin of [`Loss::spread`].
pub const BIN: f64 = 0.25;
/// Bins of [`Loss::spread`], at most.
pub const BINS: usize = 40;

impl Loss {
    /// Adds one token's log-probability; `before`: the tokens that it was predicted from, at least one.
    pub fn add(&mut self, log_prob: f64, before: usize) {
        self.nll -= log_prob;
        self.nll2 += log_prob * log_prob;
        self.tokens += 1;
        let bin = ((-log_prob / BIN).max(0.) as usize).min(BINS - 1);
        let place = before.max(1).ilog2() as usize;
        self.spread.resize(self.spread.len().max(bin + 1), 0);
        self.places.resize(self.places.len().max(place + 1), [0.; 2]);
        self.spread[bin] += 1;
        self.places[place][0] -= log_prob;
        self.places[place][1] += 1.;
    }

    /// Adds all of another's tokens; what a text is counted in stays.
    fn join(&mut self, other: Loss) {
        self.nll += other.nll;
        self.nll2 += other.nll2;
        self.tokens += other.tokens;
        self.spread.resize(self.spread.len().max(other.spread.len()), 0);
        self.places.resize(self.places.len().max(other.places.len()), [0.; 2]);
        self.spread.iter_mut().zip(other.spread).for_each(|(a, b)| *a += b);
        self.places.iter_mut().zip(other.places).for_each(|(a, b)| (a[0], a[1]) = (a[0] + b[0], a[1] + b[1]));
    }
}

/// Windows of a joined text.
pub fn windows(lm: &dyn Lm, text: &str, protocol: Protocol, window: Option<usize>) -> Result<Vec<Sequence>> {
    if text.trim().is_empty() {
        mistake!("the text is empty");
    }
    let tokens = lm.encode(text, true)?;
    let usual = if protocol == Protocol::LlamaCpp { 512 } else { WINDOW };
    if window.is_none() && lm.context() < usual {
        mistake!("{}", too_short(usual, lm.context()));
    }
    let (window, first, least) = match protocol {
        Protocol::LlamaCpp => {
            let w = window.unwrap_or(usual);
            (w, w / 2 + 1, 2 * w)
        }
        _ => {
            let w = window.unwrap_or(usual);
            (w, 1, w)
        }
    };
    if tokens.len() < least {
        mistake!(
            "the text has {} tokens: less than {least}, {} of {window}",
            tokens.len(),
            if least == window { "one window" } else { "two windows" }
        );
    }
    // llama.cpp asks the vocabulary whether it begins texts with BOS; the tokenizer shows it.
    let bos = match protocol {
        Protocol::LlamaCpp => lm.encode("", true)?.first().copied().filter(|bos| tokens.first() == Some(bos)),
        _ => None,
    };
    Ok(tokens
        .chunks_exact(window)
        .map(|chunk| {
            let mut tokens = chunk.to_vec();
            if let Some(bos) = bos {
                tokens[0] = bos;
            }
            Sequence { tokens, predict: first..window }
        })
        .collect())
}

/// Perplexity of a joined text: an outcome a window.
pub fn joined(
    lm: &mut dyn Lm,
    text: &str,
    protocol: Protocol,
    window: Option<usize>,
    limit: Option<usize>,
) -> Result<Outcomes> {
    let mut windows = windows(lm, text, protocol, window)?;
    windows.truncate(limit.unwrap_or(usize::MAX));
    each(lm, &windows)
}

/// An outcome a window.
fn each(lm: &mut dyn Lm, windows: &[Sequence]) -> Result<Outcomes> {
    let losses = losses(lm, windows)?;
    let mut names = Names::new();
    Ok(windows
        .iter()
        .zip(losses)
        .map(|(w, loss)| (names.name(&super::bytes(&w.tokens)), Outcome::Text(loss)))
        .collect())
}

/// Perplexity of windows at drawn places, as GPTQ's `get_c4` takes them (`datautils.py`): from `random.seed(seed)` on, items
/// are drawn until one has a window's tokens, then the place of its first. A place leaves at least one token behind the
/// window; where an item is just as long, GPTQ's own code fails, and here the item is the window.
pub fn drawn(
    lm: &mut dyn Lm,
    texts: &[Text],
    window: Option<usize>,
    count: usize,
    seed: u64,
) -> Result<Outcomes> {
    let window = match window {
        None if lm.context() < WINDOW => mistake!("{}", too_short(WINDOW, lm.context())),
        given => given.unwrap_or(WINDOW),
    };
    let mut random = Random::new(seed);
    let mut known: Vec<Option<Vec<u32>>> = vec![None; texts.len()];
    let (mut short, mut windows) = (0, Vec::new());
    while windows.len() < count {
        if short == texts.len() {
            mistake!("none of {} items has the {window} tokens of a window", texts.len());
        }
        let item = random.below(texts.len() as u64) as usize;
        if known[item].is_none() {
            let tokens = lm.encode(&texts[item].text, true).with_context(|| format!("item {}", item + 1))?;
            short += usize::from(tokens.len() < window);
            known[item] = Some(tokens);
        }
        let Some(tokens) = known[item].as_ref().filter(|t| t.len() >= window) else { continue };
        let places = tokens.len() - window;
        let at = if places == 0 { 0 } else { random.below(places as u64) as usize };
        windows.push(Sequence { tokens: tokens[at..at + window].to_vec(), predict: 1..window });
    }
    each(lm, &windows)
}

/// Tokens of a window in GPTQ's protocols.
const WINDOW: usize = 2048;

fn too_short(usual: usize, context: usize) -> String {
    format!(
        "this protocol's window is {usual} tokens and the model's context is {context}: say `window` in the task"
    )
}

/// Perplexity of each item on its own: an outcome an item.
pub fn rolling(lm: &mut dyn Lm, texts: &[Text], window: Option<usize>, profile: Profile) -> Result<Outcomes> {
    let longest = window.unwrap_or(lm.context()).min(lm.context());
    let Some(prefix) = super::first(lm, profile) else {
        mistake!(
            "the rolling protocol needs a BOS or EOS token, and neither the model's nor the tokenizer's config names one"
        );
    };
    let (mut sequences, mut owners) = (Vec::new(), Vec::new());
    for (i, text) in texts.iter().enumerate() {
        let tokens = harness_encode(lm, &text.text, profile)?;
        if tokens.is_empty() {
            mistake!("item {} is an empty text", i + 1);
        }
        for sequence in roll(&tokens, prefix, longest) {
            sequences.push(sequence);
            owners.push(i);
        }
    }
    let mut items: Vec<Loss> = texts
        .iter()
        .map(|t| Loss { bytes: t.raw.len(), words: python_words(&t.raw), ..Loss::default() })
        .collect();
    for (loss, owner) in losses(lm, &sequences)?.into_iter().zip(owners) {
        items[owner].join(loss);
    }
    let mut names = Names::new();
    Ok(texts
        .iter()
        .zip(items)
        .map(|(t, loss)| (names.name(t.text.as_bytes()), Outcome::Text(loss)))
        .collect())
}

/// lm-evaluation-harness's `get_rolling_token_windows` and `make_disjoint_window`: full windows have one token before
/// the first that they predict, the last has as many as fit.
fn roll(tokens: &[u32], prefix: u32, longest: usize) -> Vec<Sequence> {
    let first = longest.min(tokens.len());
    let mut all = vec![Sequence {
        tokens: std::iter::once(prefix).chain(tokens[..first].iter().copied()).collect(),
        predict: 1..first + 1,
    }];
    let mut done = first;
    while done < tokens.len() {
        let take = longest.min(tokens.len() - done);
        let end = done + take;
        // Input `tokens[end - longest - 1 .. end - 1]`, of which the last `take` places predict.
        let begin = end - longest - 1;
        let context = done - begin;
        all.push(Sequence { tokens: tokens[begin..end].to_vec(), predict: context..context + take });
        done = end;
    }
    all
}

/// `len(re.split(r"\s+", text))`: white space at an end leaves an empty piece there, which counts.
fn python_words(text: &str) -> usize {
    let inner = text.split(is_space).filter(|p| !p.is_empty()).count();
    let starts = text.starts_with(is_space);
    let ends = text.ends_with(is_space);
    if inner == 0 {
        1 + usize::from(!text.is_empty())
    } else {
        inner + usize::from(starts) + usize::from(ends)
    }
}

/// Each sequence's loss over what it predicts.
fn losses(lm: &mut dyn Lm, sequences: &[Sequence]) -> Result<Vec<Loss>> {
    let mut all = vec![Loss::default(); sequences.len()];
    lm.score(sequences, &mut |i, logits| {
        let first = sequences[i].predict.start + logits.first;
        let scores = logits.score(&sequences[i]).into_iter().enumerate();
        scores.for_each(|(at, (log_prob, _))| all[i].add(log_prob, first + at));
        Ok(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_windows_cover_every_token_once() {
        for (n, longest) in [(1, 4), (4, 4), (5, 4), (8, 4), (11, 4), (30, 7)] {
            let tokens: Vec<u32> = (100..100 + n).collect();
            let windows = roll(&tokens, 9, longest);
            let predicted: Vec<u32> =
                windows.iter().flat_map(|w| w.tokens[w.predict.clone()].to_vec()).collect();
            assert_eq!(predicted, tokens);
            assert!(windows.iter().all(|w| w.tokens.len() <= longest + 1 && w.predict.end == w.tokens.len()));
            assert_eq!(windows[0].tokens[0], 9);
            // A full window has one token of context.
            assert!(windows[1..].iter().filter(|w| w.predict.len() == longest).all(|w| w.predict.start == 1));
        }
    }

    #[test]
    fn where_losses_lie() {
        let mut loss = Loss::default();
        // Losses of 0.1, 0.3 and 99 nats, after 1, 3 and 4 tokens.
        for (log_prob, before) in [(-0.1, 1), (-0.3, 3), (-99., 4)] {
            loss.add(log_prob, before);
        }
        assert_eq!((loss.spread[0], loss.spread[1], loss.spread[39], loss.spread.len()), (1, 1, 1, BINS));
        assert_eq!(loss.places, [[0.1, 1.], [0.3, 1.], [99., 1.]]);
        let mut twice = loss.clone();
        twice.join(loss);
        assert_eq!((twice.tokens, twice.spread[39], twice.places[2]), (6, 2, [198., 2.]));
    }

    #[test]
    fn words_as_python_splits_them() {
        for (text, words) in [("", 1), (" ", 2), ("a", 1), ("a b", 2), (" a  b\n", 4), ("a\u{a0}b", 2)] {
            assert_eq!(python_words(text), words, "{text:?}");
        }
    }
}

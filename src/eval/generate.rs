//! Answers that a model writes itself, as lm-evaluation-harness's `generate_until` asks for them.
//!
//! What is drawn depends on the seed, the item, the sample and the place in the answer, and on nothing that
//! has happened before: so order, batches and shards cannot change it, and full precision can be asked, in
//! one pass over a quantized model's answer, where it would have gone another way.
use super::{Lm, Names, Outcome, Outcomes, Sequence, harness_encode, log_sum_exp, top};
use crate::{
    mistake,
    suite::{
        filter::{Chain, Filter, Same},
        generate::Generate,
    },
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::ControlFlow;

/// One question, rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What the model goes on from.
    pub prompt: String,
    /// Right answers; none where nothing is compared.
    pub gold: Vec<String>,
}

/// What a question gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// One or more, as the task says.
    pub samples: Vec<Sample>,
    /// Tokens that the prompt lost on its left to fit the model.
    pub cut: usize,
    /// Right answers.
    pub gold: Vec<String>,
    /// By filter, in the task's order.
    pub filtered: Vec<Filtered>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Without what ended it.
    pub text: String,
    /// All that were generated.
    pub tokens: Vec<u32>,
    /// What ended it.
    pub ended: Ended,
    /// Where full precision was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<Full>,
}

/// See [`Sample::ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The model's own EOS.
    Eos,
    /// One of the task's texts.
    Stop,
    /// Neither came in time.
    Limit,
}

/// An answer under full precision.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Full {
    /// Tokens before the first where full precision would have written another.
    pub same: usize,
    /// Negative log-likelihood of all tokens, nats, at temperature 1.
    pub nll: f64,
}

/// What a filter made of the answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Filtered {
    /// Its name.
    pub filter: String,
    /// One where it takes one.
    pub answers: Vec<String>,
    /// The share of them that is gold.
    pub exact: f64,
    /// The share of them in which a gold one stands.
    #[serde(default)]
    pub contains: f64,
    /// The same of texts as SQuAD's script normalizes them.
    #[serde(default)]
    pub subspan: f64,
}

/// Metrics that ask full precision.
pub const OF_FULL: [&str; 3] = ["same_tokens", "same_answer", "full_ppl"];

/// Asks all questions; `full` too where it is given.
pub fn run(
    lm: &mut dyn Lm,
    full: Option<&mut dyn Lm>,
    questions: &[Question],
    settings: &Generate,
    seed: u64,
) -> Result<Outcomes> {
    let none = [Filter { name: "none".into(), steps: Vec::new() }];
    let filters = if settings.filters.is_empty() { &none } else { settings.filters.as_slice() };
    let chains = filters.iter().map(Chain::new).collect::<Result<Vec<_>>>()?;
    let same = Same::new(&settings.exact_match)?;
    let (mut prompts, mut cuts) = (Vec::new(), Vec::new());
    for (i, q) in questions.iter().enumerate() {
        let (prompt, cut) = request(lm, &q.prompt, settings).with_context(|| format!("item {}", i + 1))?;
        cuts.push(cut);
        prompts.extend(std::iter::repeat_n(prompt, settings.samples));
    }
    let mut samples = write(lm, &prompts, settings, seed)?;
    if let Some(full) = full {
        ask(full, &prompts, &mut samples, settings, seed)?;
    }
    let mut names = Names::new();
    let mut samples = samples.into_iter();
    questions
        .iter()
        .zip(cuts)
        .map(|(q, cut)| {
            let samples: Vec<Sample> = samples.by_ref().take(settings.samples).collect();
            let filtered =
                chains.iter().map(|c| filter(c, &same, &samples, &q.gold)).collect::<Result<_>>()?;
            let content = format!("{}\0{}", q.prompt, q.gold.join("\0"));
            let answer = Answer { samples, cut, gold: q.gold.clone(), filtered };
            Ok((names.name(content.as_bytes()), Outcome::Generated(answer)))
        })
        .collect()
}

fn filter(chain: &Chain, same: &Same, samples: &[Sample], gold: &[String]) -> Result<Filtered> {
    let answers = chain.apply(samples.iter().map(|s| s.text.clone()).collect())?;
    let mut right = [0; 3];
    for answer in &answers {
        right[0] += usize::from(same.any(answer, gold)?);
        right[1] += usize::from(same.within(answer, gold)?);
        right[2] += usize::from(same.subspan(answer, gold)?);
    }
    let [exact, contains, subspan] = right.map(|n| n as f64 / answers.len().max(1) as f64);
    Ok(Filtered { filter: chain.name.clone(), answers, exact, contains, subspan })
}

/// Tokens of a prompt with room for the answer, and how many had to go.
fn request(lm: &dyn Lm, prompt: &str, settings: &Generate) -> Result<(Vec<u32>, usize)> {
    let room = lm.context().saturating_sub(settings.limit);
    if room == 0 {
        mistake!("`limit` is {}, and the model's context {}: no prompt fits", settings.limit, lm.context());
    }
    let mut tokens = harness_encode(lm, prompt, settings.profile)?;
    if tokens.is_empty() {
        match lm.prefix() {
            Some(prefix) => tokens.push(prefix),
            None => mistake!("an empty prompt needs a BOS or EOS token, and neither config names one"),
        }
    }
    let cut = tokens.len().saturating_sub(room);
    tokens.drain(..cut);
    Ok((tokens, cut))
}

/// The answers, `samples` of each item one after another.
fn write(lm: &mut dyn Lm, prompts: &[Vec<u32>], settings: &Generate, seed: u64) -> Result<Vec<Sample>> {
    let ends = lm.ends()?;
    let mut marks = Vec::new();
    for stop in &settings.stop {
        // `<|im_end|>` where it is a special token: no text will show it.
        if let [token] = lm.encode(stop, false)?[..]
            && lm.decode(&[token])?.is_empty()
        {
            marks.push(token);
        }
    }
    let longest = settings.stop.iter().map(String::len).max().unwrap_or(0);
    let mut all: Vec<(Vec<u32>, Stream, Ended)> =
        prompts.iter().map(|_| (Vec::new(), Stream::default(), Ended::Limit)).collect();
    lm.generate(prompts, settings.limit, &mut |lm, i, logits| {
        let (tokens, stream, ended) = &mut all[i];
        let token = pick(logits, settings, || uniform(seed, i, settings.samples, tokens.len()));
        tokens.push(token);
        if ends.contains(&token) {
            *ended = Ended::Eos;
            return Ok(ControlFlow::Break(()));
        }
        if marks.contains(&token) {
            *ended = Ended::Stop;
            return Ok(ControlFlow::Break(()));
        }
        if longest > 0 {
            // Only what is new can complete a stop text.
            let from = stream.text.len().saturating_sub(longest);
            stream.read(lm, tokens)?;
            let from = (0..=from).rev().find(|&i| stream.text.is_char_boundary(i)).unwrap_or(0);
            if settings.stop.iter().any(|s| stream.text[from..].contains(s.as_str())) {
                *ended = Ended::Stop;
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(token))
    })?;
    all.into_iter()
        .map(|(tokens, _, ended)| {
            let written = &tokens[..tokens.len() - usize::from(ended == Ended::Eos)];
            let whole = lm.decode(written)?;
            // A character that was not finished.
            let mut text = whole.trim_end_matches('\u{fffd}');
            // One stop text after the other, as the harness cuts.
            for stop in &settings.stop {
                text = text.split(stop.as_str()).next().unwrap_or_default();
            }
            Ok(Sample { text: text.into(), tokens, ended, full: None })
        })
        .collect()
}

/// What full precision makes of each answer: one pass over all. Up to the first difference both have read the
/// same, so its own pick there is what it would have written.
fn ask(
    full: &mut dyn Lm,
    prompts: &[Vec<u32>],
    samples: &mut [Sample],
    settings: &Generate,
    seed: u64,
) -> Result<()> {
    let of = |(prompt, sample): (&Vec<u32>, &Sample)| {
        let tokens: Vec<u32> = prompt.iter().chain(&sample.tokens).copied().collect();
        let predict = prompt.len()..tokens.len();
        Sequence { tokens, predict }
    };
    let sequences: Vec<Sequence> = prompts.iter().zip(&*samples).map(of).collect();
    full.score(&sequences, &mut |i, logits| {
        let sample = &mut samples[i];
        let mut result = Full { same: 0, nll: 0. };
        for (step, &token) in sample.tokens.iter().enumerate() {
            let row = logits.row(step);
            result.nll += log_sum_exp(row) - f64::from(row[token as usize]);
            let draw = || uniform(seed, i, settings.samples, step);
            if result.same == step && pick(row, settings, draw) == token {
                result.same += 1;
            }
        }
        sample.full = Some(result);
        Ok(())
    })
}

/// A number in [0, 1) for a place in an answer: 53 bits of a hash, the same on every machine and for ever.
fn uniform(seed: u64, sequence: usize, samples: usize, step: usize) -> f64 {
    let place = [seed, (sequence / samples) as u64, (sequence % samples) as u64, step as u64];
    let hash = Sha256::digest(place.map(u64::to_le_bytes).concat());
    let bits = hash[..8].iter().fold(0u64, |bits, &b| (bits << 8) | u64::from(b));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The next token: the likeliest, or one drawn with probability `softmax(logits / temperature)` from those
/// that `top_k` and then `top_p` leave. They are laid side by side in the vocabulary's order, so that a model
/// that is a little different draws the same token for most numbers.
fn pick(logits: &[f32], settings: &Generate, draw: impl FnOnce() -> f64) -> u32 {
    let best = top(logits);
    if settings.temperature == 0. {
        return best as u32;
    }
    let weight = |i: u32| (f64::from(logits[i as usize] - logits[best]) / settings.temperature).exp();
    let mut kept: Vec<u32> = (0..logits.len() as u32).collect();
    if settings.top_k.is_some() || settings.top_p.is_some() {
        kept.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        kept.truncate(settings.top_k.unwrap_or(usize::MAX));
        if let Some(share) = settings.top_p {
            let enough = share * kept.iter().map(|&i| weight(i)).sum::<f64>();
            let mut sum = 0.;
            let few = kept.iter().take_while(|&&i| {
                let before = sum;
                sum += weight(i);
                before < enough
            });
            let few = few.count();
            kept.truncate(few.max(1));
        }
        kept.sort_unstable();
    }
    let weights: Vec<f64> = kept.iter().map(|&i| weight(i)).collect();
    let mut left = draw() * weights.iter().sum::<f64>();
    for (&i, w) in kept.iter().zip(&weights) {
        left -= w;
        if left < 0. {
            return i;
        }
    }
    best as u32
}

/// A text that grows by tokens. Decoding begins a token before the new one, for what depends on its
/// neighbour, and waits while a character is in pieces.
#[derive(Default)]
struct Stream {
    text: String,
    begin: usize,
    read: usize,
}

impl Stream {
    fn read(&mut self, lm: &dyn Lm, tokens: &[u32]) -> Result<()> {
        let before = lm.decode(&tokens[self.begin..self.read])?;
        let now = lm.decode(&tokens[self.begin..])?;
        if !now.ends_with('\u{fffd}')
            && let Some(new) = now.get(before.len()..).filter(|new| !new.is_empty())
        {
            self.text.push_str(new);
            (self.begin, self.read) = (self.read, tokens.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extra: &str) -> Generate {
        toml::from_str(&format!("prompt = ''\n{extra}")).expect("a table")
    }

    #[test]
    fn draws_follow_the_distribution_that_is_left() {
        let logits: Vec<f32> = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln).to_vec();
        let share = |extra: &str| {
            let settings = settings(extra);
            let mut counts = [0; 4];
            (0..20_000).for_each(|i| counts[pick(&logits, &settings, || uniform(7, i, 1, 3)) as usize] += 1);
            counts.map(|c| f64::from(c) / 20_000.)
        };
        let squares = 0.01 + 0.16 + 0.04 + 0.09;
        for (extra, want) in [
            ("temperature = 1.0", [0.1, 0.4, 0.2, 0.3]),
            ("temperature = 0.5", [0.01, 0.16, 0.04, 0.09].map(|p| p / squares)),
            ("temperature = 1.0\ntop_k = 2", [0., 4. / 7., 0., 3. / 7.]),
            ("temperature = 1.0\ntop_p = 0.75", [0., 4. / 9., 2. / 9., 3. / 9.]),
            ("temperature = 1.0\ntop_k = 3\ntop_p = 0.5", [0., 4. / 7., 0., 3. / 7.]),
            ("temperature = 1.0\ntop_p = 0.1", [0., 1., 0., 0.]),
        ] {
            for (got, want) in share(extra).into_iter().zip(want) {
                assert!((got - want).abs() < 0.015, "{extra}: {got}, not {want}");
            }
        }
        assert_eq!(pick(&[1., 3., 3., 2.], &settings(""), || 0.9), 1);
    }
}

//! Answers that a model writes itself, as lm-evaluation-harness's `generate_until` asks for them.
//!
//! What is drawn depends on the seed, the item, the sample and the place in the answer, and on nothing that
//! has happened before: so order, batches and shards cannot change it, and full precision can be asked, in
//! one pass over a quantized model's answer, where it would have gone another way.
use super::{Lm, Names, Outcome, Outcomes, Sequence, dialogue::Said, harness_encode};
use crate::{
    float::{log_sum_exp, top},
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

pub use crate::suite::requests::Opening as Question;

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
    /// To the same question before something was done to it, where it was asked too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Box<Answer>>,
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
    /// The share of them in which it did not find what it looked for.
    #[serde(default, skip_serializing_if = "is_none")]
    pub unparsed: f64,
}

fn is_none(share: &f64) -> bool {
    *share == 0.
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
    let chains = chains(&settings.filters)?;
    let same = Same::new(&settings.exact_match)?;
    let (mut prompts, mut cuts, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for q in questions {
        for (text, first) in std::iter::once(&q.prompt).chain(&q.before).zip([0, settings.samples]) {
            let (prompt, cut) =
                request(lm, text, settings).with_context(|| format!("item {}", q.number + 1))?;
            cuts.push(cut);
            prompts.extend(std::iter::repeat_n(prompt, settings.samples));
            places.extend((first..first + settings.samples).map(|sample| [q.number as u64, sample as u64]));
        }
    }
    let draw = Draw { temperature: settings.temperature, top_k: settings.top_k, top_p: settings.top_p };
    let how = How {
        stop: &settings.stop,
        limit: settings.limit,
        draw: &|_| draw,
        number: &|i, step| uniform([seed, places[i][0], places[i][1], step as u64]),
    };
    let mut samples = write(lm, &prompts, &how)?;
    if let Some(full) = full {
        ask(full, &prompts, &mut samples, &how)?;
    }
    let mut names = Names::new();
    let (mut samples, mut cuts) = (samples.into_iter(), cuts.into_iter());
    let mut next = |gold: &[String]| -> Result<Answer> {
        let samples: Vec<Sample> = samples.by_ref().take(settings.samples).collect();
        let filtered = chains.iter().map(|c| filter(c, &same, &samples, gold)).collect::<Result<_>>()?;
        Ok(Answer {
            samples,
            cut: cuts.next().unwrap_or_default(),
            gold: gold.to_vec(),
            filtered,
            before: None,
        })
    };
    questions
        .iter()
        .map(|q| {
            let mut answer = next(&q.gold)?;
            let mut content = format!("{}\0{}", q.prompt, q.gold.join("\0"));
            if let Some(before) = &q.before {
                answer.before = Some(Box::new(next(&q.gold)?));
                content = format!("{content}\0{before}");
            }
            Ok((names.name(content.as_bytes()), Outcome::Generated(answer)))
        })
        .collect()
}

/// A task's filters; where it has none, one that does nothing.
pub(super) fn chains(filters: &[Filter]) -> Result<Vec<Chain>> {
    if filters.is_empty() {
        return Ok(vec![Chain::new(&Filter { name: "none".into(), steps: Vec::new() })?]);
    }
    Chain::all(filters)
}

pub(super) fn filter(chain: &Chain, same: &Same, samples: &[Sample], gold: &[String]) -> Result<Filtered> {
    let answers = chain.parse(samples.iter().map(|s| s.text.clone()).collect())?;
    let mut right = [0; 3];
    for answer in &answers {
        right[0] += usize::from(same.any(&answer.text, gold)?);
        right[1] += usize::from(same.within(&answer.text, gold)?);
        right[2] += usize::from(same.subspan(&answer.text, gold)?);
    }
    let share = |count: usize| count as f64 / answers.len().max(1) as f64;
    let [exact, contains, subspan] = right.map(share);
    let unparsed = share(answers.iter().filter(|a| !a.found).count());
    let answers = answers.into_iter().map(|a| a.text).collect();
    Ok(Filtered { filter: chain.name.clone(), answers, exact, contains, subspan, unparsed })
}

/// Tokens of a prompt with room for the answer, and how many had to go.
fn request(lm: &dyn Lm, prompt: &str, settings: &Generate) -> Result<(Vec<u32>, usize)> {
    let tokens = match settings.chat {
        true => lm.encode(&lm.chat(&[Said { role: "user", text: prompt.into() }], None)?, false)?,
        false => harness_encode(lm, prompt, settings.profile)?,
    };
    fit(lm, tokens, settings.limit)
}

/// A prompt's tokens without what leaves no room for the answer.
pub(super) fn fit(lm: &dyn Lm, mut tokens: Vec<u32>, limit: usize) -> Result<(Vec<u32>, usize)> {
    let room = lm.context().saturating_sub(limit);
    if room == 0 {
        mistake!("`limit` is {limit}, and the model's context {}: no prompt fits", lm.context());
    }
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

/// How sequences are written.
pub(super) struct How<'a> {
    /// Texts that end an answer.
    pub stop: &'a [String],
    /// Tokens, at most.
    pub limit: usize,
    /// By sequence.
    pub draw: &'a dyn Fn(usize) -> Draw,
    /// A number in [0, 1) for a sequence's step.
    pub number: &'a dyn Fn(usize, usize) -> f64,
}

/// See [`Generate::temperature`] and what follows it there.
#[derive(Clone, Copy)]
pub(super) struct Draw {
    pub temperature: f64,
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
}

/// An answer to every prompt.
pub(super) fn write(lm: &mut dyn Lm, prompts: &[Vec<u32>], how: &How) -> Result<Vec<Sample>> {
    let ends = lm.ends()?;
    let mut marks = Vec::new();
    for stop in how.stop {
        // `<|im_end|>` where it is a special token: no text will show it.
        if let [token] = lm.encode(stop, false)?[..]
            && lm.decode(&[token])?.is_empty()
        {
            marks.push(token);
        }
    }
    let longest = how.stop.iter().map(String::len).max().unwrap_or(0);
    let mut all: Vec<(Vec<u32>, Stream, Ended)> =
        prompts.iter().map(|_| (Vec::new(), Stream::default(), Ended::Limit)).collect();
    lm.generate(prompts, how.limit, &mut |lm, i, logits| {
        let (tokens, stream, ended) = &mut all[i];
        let token = pick(logits, (how.draw)(i), || (how.number)(i, tokens.len()));
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
            if how.stop.iter().any(|s| stream.text[from..].contains(s.as_str())) {
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
            for stop in how.stop {
                text = text.split(stop.as_str()).next().unwrap_or_default();
            }
            Ok(Sample { text: text.into(), tokens, ended, full: None })
        })
        .collect()
}

/// What full precision makes of each answer: one pass over all. Up to the first difference both have read the
/// same, so its own pick there is what it would have written.
pub(super) fn ask(full: &mut dyn Lm, prompts: &[Vec<u32>], samples: &mut [Sample], how: &How) -> Result<()> {
    let of = |(prompt, sample): (&Vec<u32>, &Sample)| {
        let tokens: Vec<u32> = prompt.iter().chain(&sample.tokens).copied().collect();
        let predict = prompt.len()..tokens.len();
        Sequence { tokens, predict }
    };
    let sequences: Vec<Sequence> = prompts.iter().zip(&*samples).map(of).collect();
    full.score(&sequences, &mut |i, logits| {
        let sample = &mut samples[i];
        let mut result = sample.full.take().unwrap_or(Full { same: 0, nll: 0. });
        let steps = sample.tokens.iter().enumerate().skip(logits.first);
        for ((step, &token), row) in steps.zip(logits.rows.chunks_exact(logits.vocab)) {
            result.nll += log_sum_exp(row) - f64::from(row[token as usize]);
            if result.same == step && pick(row, (how.draw)(i), || (how.number)(i, step)) == token {
                result.same += 1;
            }
        }
        sample.full = Some(result);
        Ok(())
    })
}

/// A number in [0, 1) for a place in an answer (seed, item, sample or turn, step): 53 bits of a hash, the same on every
/// machine and for ever.
pub(super) fn uniform(place: [u64; 4]) -> f64 {
    let hash = Sha256::digest(place.map(u64::to_le_bytes).concat());
    let bits = hash[..8].iter().fold(0u64, |bits, &b| (bits << 8) | u64::from(b));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// The next token: the likeliest, or one drawn with probability `softmax(logits / temperature)` from those
/// that `top_k` and then `top_p` leave. They are laid side by side in the vocabulary's order, so that a model
/// that is a little different draws the same token for most numbers.
fn pick(logits: &[f32], draw: Draw, number: impl FnOnce() -> f64) -> u32 {
    let best = top(logits);
    if draw.temperature == 0. {
        return best as u32;
    }
    let weight = |i: u32| (f64::from(logits[i as usize] - logits[best]) / draw.temperature).exp();
    let mut kept: Vec<u32> = (0..logits.len() as u32).collect();
    if draw.top_k.is_some() || draw.top_p.is_some() {
        kept.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        kept.truncate(draw.top_k.unwrap_or(usize::MAX));
        if let Some(share) = draw.top_p {
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
    let mut left = number() * weights.iter().sum::<f64>();
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

    fn draw(extra: &str) -> Draw {
        let g: Generate = toml::from_str(&format!("prompt = ''\n{extra}")).expect("a table");
        Draw { temperature: g.temperature, top_k: g.top_k, top_p: g.top_p }
    }

    #[test]
    fn draws_follow_the_distribution_that_is_left() {
        let logits: Vec<f32> = [0.1f32, 0.4, 0.2, 0.3].map(f32::ln).to_vec();
        let share = |extra: &str| {
            let draw = draw(extra);
            let mut counts = [0; 4];
            (0..20_000).for_each(|i| counts[pick(&logits, draw, || uniform([7, i, 0, 3])) as usize] += 1);
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
        assert_eq!(pick(&[1., 3., 3., 2.], draw(""), || 0.9), 1);
    }
}

//! What a cell's items say beyond its metrics: how losses are spread, where in a window they are, how sure full precision was of
//! what moved, and by how much the right ending leads.
//!
//! Read from items' outcomes as they are on disk. What an older record does not hold is absent.
use super::{
    frame::Frame,
    table::{columns, number},
};
use crate::{
    results::Item,
    stats::{Pairs, Scale, Share, pairs::percentile, ratio},
};
use anyhow::{Result, anyhow};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Nats of a bin of [`Detail::spread`].
pub const BIN: f64 = 0.25;
/// As many there are at most; the last is open.
const BINS: usize = 40;

/// Sums over a cell's items.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// Scored tokens by their loss, in bins of [`BIN`] nats.
    pub spread: Vec<f64>,
    /// `[nll, tokens]` by how much a token was predicted from: bin `k` is of `2^k` to `2^(k+1) - 1` tokens.
    pub places: Vec<[f64; 2]>,
    /// The same of each item, in the items' order: runs are paired by it.
    pub places_of: Vec<Vec<[f64; 2]>>,
    /// `[KL, tokens]` in ten bins of full precision's largest probability.
    pub confidence: Vec<[f64; 2]>,
    /// The same of each item.
    pub confidence_of: Vec<Vec<[f64; 2]>>,
    /// [`Detail::spread`] of each item.
    pub spread_of: Vec<Vec<f64>>,
    /// `log p(best right) - log p(best wrong)` of each question, nats, in the items' order.
    pub margins: Vec<f64>,
}

impl Detail {
    /// Of a cell's items.
    pub fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let mut all = Self::default();
        for item in items {
            if let Some(text) = item.outcome.get("text") {
                let spread = numbers(text.get("spread"));
                all.spread.resize(all.spread.len().max(spread.len()), 0.);
                all.spread.iter_mut().zip(&spread).for_each(|(a, b)| *a += b);
                all.spread_of.push(spread);
                all.places_of.push(add(&mut all.places, text.get("places")));
            }
            if let Some(gap) = item.outcome.get("divergence") {
                all.confidence_of.push(add(&mut all.confidence, gap.get("confidence")));
            }
            all.margins.extend(Endings::of(item).and_then(|e| e.margin()));
        }
        all
    }
}

impl Detail {
    /// Standard error of a bin's share of tokens, by item.
    pub fn spread_error(&self, bin: usize) -> Option<f64> {
        let of = |item: &Vec<f64>| [item.get(bin).copied().unwrap_or(0.), item.iter().sum()];
        ratio(&self.spread_of.iter().map(of).collect::<Vec<_>>(), Scale::Plain)?.stderr
    }

    /// Standard error of the mean loss of a bin of places.
    pub fn place_error(&self, bin: usize) -> Option<f64> {
        ratio(&in_bin(&self.places_of, bin), Scale::Plain)?.stderr
    }

    /// The same of the difference from another run over the same items.
    pub fn place_error_from(&self, full: &Detail, bin: usize) -> Option<f64> {
        let [a, b] = [full, self].map(|d| in_bin(&d.places_of, bin));
        Pairs::new(&a, &b, Scale::Plain)?.stderr()
    }

    /// Standard error of the mean KL of a bin of confidence.
    pub fn confidence_error(&self, bin: usize) -> Option<f64> {
        ratio(&in_bin(&self.confidence_of, bin), Scale::Plain)?.stderr
    }
}

/// Each item's share of a bin.
fn in_bin(items: &[Vec<[f64; 2]>], bin: usize) -> Vec<Share> {
    items.iter().map(|item| item.get(bin).copied().unwrap_or([0.; 2])).collect()
}

/// Adds pairs to pairs, and gives them.
fn add(to: &mut Vec<[f64; 2]>, pairs: Option<&Json>) -> Vec<[f64; 2]> {
    let pairs = pairs.and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    let one = |pair: &Json| match numbers(Some(pair))[..] {
        [a, b] => [a, b],
        _ => [0.; 2],
    };
    let pairs: Vec<[f64; 2]> = pairs.iter().map(one).collect();
    to.resize(to.len().max(pairs.len()), [0.; 2]);
    to.iter_mut().zip(&pairs).for_each(|(sum, pair)| (sum[0], sum[1]) = (sum[0] + pair[0], sum[1] + pair[1]));
    pairs
}

fn numbers(list: Option<&Json>) -> Vec<f64> {
    let list = list.and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().map(|v| v.as_f64().unwrap_or(0.)).collect()
}

/// A question's endings.
pub struct Endings {
    log_probs: Vec<f64>,
    /// The right ones.
    pub right: Vec<usize>,
    lengths: BTreeMap<&'static str, Vec<f64>>,
}

impl Endings {
    /// Of an item; `None` where it is no question.
    pub fn of(item: &Item) -> Option<Self> {
        let choice = item.outcome.get("choice")?;
        let numbers = |key: &str| -> Option<Vec<f64>> {
            let list = choice.get(key)?.as_array()?.iter();
            // JSON has no infinity: a probability of 0 is written as nothing.
            Some(list.map(|v| v.as_f64().unwrap_or(f64::NEG_INFINITY)).collect())
        };
        let place = |v: &Json| Some(usize::try_from(v.as_u64()?).unwrap_or(usize::MAX));
        let mut right = vec![place(choice.get("gold")?)?];
        if let Some(others) = choice.get("others").and_then(Json::as_array) {
            right.extend(others.iter().filter_map(place));
        }
        let log_probs = numbers("log_probs")?;
        let lengths = [("acc_norm", "chars"), ("acc_bytes", "bytes")];
        let lengths = lengths.into_iter().filter_map(|(m, k)| Some((m, numbers(k)?))).collect();
        (!log_probs.is_empty()).then_some(Self { log_probs, right, lengths })
    }

    /// The ending that a metric takes for the model's.
    pub fn pick(&self, metric: &str) -> Option<usize> {
        let by = match metric {
            "acc" => None,
            _ => Some(self.lengths.get(metric)?),
        };
        let score = |i: usize| self.log_probs[i] / by.and_then(|b| b.get(i)).copied().unwrap_or(1.);
        let better = |best: usize, i: usize| if score(i) > score(best) { i } else { best };
        Some((1..self.log_probs.len()).fold(0, better))
    }

    /// `log p(best right) - log p(best wrong)`.
    pub fn margin(&self) -> Option<f64> {
        let best = |right: bool| {
            let some = self.log_probs.iter().enumerate().filter(|(i, _)| self.right.contains(i) == right);
            some.map(|(_, &l)| l).fold(f64::NEG_INFINITY, f64::max)
        };
        Some(best(true) - best(false)).filter(|m| m.is_finite())
    }
}

/// What it is of, its ends, its value with one standard error, and its weight.
type Bin = (&'static str, f64, Option<f64>, [Option<f64>; 2], f64);

/// `profiles.csv`: a row a bin of every cell's details; `from` and `to` are its ends. `None`: no cell has any.
///
/// * `tokens_by_loss`: share of scored tokens with a loss of so many nats; the last bin is open.
/// * `loss_by_place`: nats a token after so many tokens.
/// * `kl_by_confidence`: KL(full || quantized), nats a token, where full precision's largest probability is so large.
/// * `margin`: the share of questions whose right ending leads by so many nats at most, at every twentieth part of them.
pub fn csv(frame: &Frame) -> Result<Option<String>> {
    let first = columns(&["model", "recipe", "suite", "task"]);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record(first.iter().map(|c| c.0).chain(["what", "from", "to", "value", "stderr", "weight"]))?;
    let mut some = false;
    for (&record, detail) in &frame.details {
        let Some(row) = frame.rows_of(record).first() else { continue };
        let head: Vec<String> = first.iter().map(|(_, of)| of(frame, row)).collect();
        let mut rows: Vec<Bin> = Vec::new();
        let all: f64 = detail.spread.iter().sum();
        for (i, n) in detail.spread.iter().enumerate() {
            let low = i as f64 * BIN;
            let high = (i + 1 < BINS).then_some(low + BIN);
            rows.push(("tokens_by_loss", low, high, [Some(n / all), detail.spread_error(i)], *n));
        }
        for (k, [nll, tokens]) in detail.places.iter().enumerate().filter(|(_, bin)| bin[1] > 0.) {
            let low = 2f64.powi(k as i32);
            let value = [Some(nll / tokens), detail.place_error(k)];
            rows.push(("loss_by_place", low, Some(2. * low - 1.), value, *tokens));
        }
        for (i, [kl, tokens]) in detail.confidence.iter().enumerate().filter(|(_, bin)| bin[1] > 0.) {
            let low = i as f64 / 10.;
            let value = [Some(kl / tokens), detail.confidence_error(i)];
            rows.push(("kl_by_confidence", low, Some((i + 1) as f64 / 10.), value, *tokens));
        }
        let mut margins = detail.margins.clone();
        margins.sort_by(f64::total_cmp);
        for part in 0..=20u8 {
            if margins.len() > 1 {
                let share = f64::from(part) / 20.;
                let at = percentile(&margins, share);
                let n = margins.len() as f64;
                let error = (share * (1. - share) / (n - 1.)).sqrt();
                rows.push(("margin", at, Some(at), [Some(share), Some(error)], n));
            }
        }
        some |= !rows.is_empty();
        for (what, low, high, value, weight) in rows {
            let numbers = [Some(low), high, value[0], value[1], Some(weight)].map(number);
            writer.write_record(
                head.iter().map(String::as_str).chain([what]).chain(numbers.iter().map(String::as_str)),
            )?;
        }
    }
    let bytes = writer.into_inner().map_err(|e| anyhow!("profiles.csv: {e}"))?;
    Ok(some.then_some(String::from_utf8(bytes)?))
}

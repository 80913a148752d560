//! KVQuant's codebooks (Hooper et al., 2024, section 3.3): one for a block's keys and one for its values, of numbers from -1 to 1 that
//! say where in its range a value lies.
//!
//! ```text
//! z = (x - middle) / half                      keys: a channel's calibrated range; values: a token's own
//! codebook   2^b values with the least sum F (z - c(z))^2 over a text, F = 1 or squared gradients of the model's loss
//! x -> c(z) half + middle                      normalized: c(z) is scaled and shifted so that mean and deviation stay (Q-Norm)
//! ```
//! As `SimQuant.quantize` and `quant_fn_nuq_recon`: a text's values are put between quantiles of their token, other texts' between
//! the smallest and the largest that is no outlier. The authors' k-means starts at one place and goes downhill; here the least is found,
//! of some four million values at most. A range of one value is that value.
use super::map::{Range, outliers, quantile};
use crate::{
    model::ops::Precision,
    quant::{grid::levels::nearest, weight::kmeans},
};
use serde::{Deserialize, Serialize};

/// Values that a codebook is fitted to, at most about so many.
const MOST: usize = 1 << 22;

/// How a codebook is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nuq {
    /// What a value's loss counts.
    #[serde(default)]
    pub by: By,
    /// Whether mean and deviation of what it gives are made those of what it is given.
    #[serde(default)]
    pub normalize: bool,
}

/// What a value's loss counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Squared gradients of the model's loss, as the paper has it.
    #[default]
    Gradients,
    /// All the same.
    Even,
}

/// Rows of a text that a codebook is fitted to.
pub struct Text<'a> {
    /// `[tokens, channels]`.
    pub x: &'a [f32],
    /// Channels.
    pub width: usize,
    /// What each value counts, where that is known.
    pub counts: Option<&'a [f32]>,
    /// Tokens that stay exact anyway.
    pub exact: &'a dyn Fn(usize) -> bool,
}

/// A fitted codebook.
#[derive(Clone, Debug, PartialEq)]
pub struct Book {
    /// Rising.
    levels: Vec<f32>,
    scale: f32,
    offset: f32,
}

impl Book {
    /// Of known levels, rising, and what they are scaled and shifted by.
    pub fn new(levels: Vec<f32>, scale: f32, offset: f32) -> Self {
        Self { levels, scale, offset }
    }

    /// Its values, from -1 to 1, rising.
    pub fn levels(&self) -> &[f32] {
        &self.levels
    }

    /// Of keys, `ranges` their channels'; of values, where there are none. `outside`: the share of outliers.
    pub fn fit(text: &Text, settings: Nuq, bits: u8, ranges: &[Range], outside: f64) -> Self {
        let places = text.places(ranges, outside);
        let step = places.len().div_ceil(MOST).max(1);
        let some = places.iter().step_by(step).copied();
        let levels = kmeans::codebook(some, 1 << bits);
        let mut book = Self { levels, scale: 1., offset: 0. };
        if settings.normalize {
            let (mean, deviation) = moments(places.iter().map(|p| p.0));
            let (own, spread) = moments(places.iter().map(|p| nearest(&book.levels, p.0)));
            if spread > 0. {
                book.scale = (deviation / spread) as f32;
                book.offset = (mean - own * deviation / spread) as f32;
            }
        }
        book
    }

    /// A value in a range.
    pub fn one(&self, x: f32, range: Range, precision: Precision) -> f32 {
        let (half, middle) = range.half_and_middle();
        if half == 0. || self.levels.is_empty() {
            return precision.one(middle);
        }
        let level = nearest(&self.levels, (x - middle) / half);
        precision.one((level * self.scale + self.offset) * half + middle)
    }

    /// A token's values, between the smallest and the largest that is no outlier; outliers stay.
    pub fn token(&self, x: &[f32], outside: f64, out: &mut [f32], precision: Precision) {
        let (outer, median) = match outside > 0. {
            true => outliers(x, outside),
            false => (vec![false; x.len()], 0.),
        };
        let inner = x.iter().zip(&outer).map(|(x, o)| if *o { median } else { *x });
        let range = inner.fold(Range { low: f32::INFINITY, high: f32::NEG_INFINITY }, |r, x| Range {
            low: r.low.min(x),
            high: r.high.max(x),
        });
        for ((out, &x), outer) in out.iter_mut().zip(x).zip(outer) {
            *out = if outer { precision.one(x) } else { self.one(x, range, precision) };
        }
    }
}

impl Text<'_> {
    /// Where values lie in their ranges, from -1 to 1, and what they count; without outliers.
    fn places(&self, ranges: &[Range], outside: f64) -> Vec<(f32, f32)> {
        let mut all = Vec::new();
        for (t, row) in self.x.chunks_exact(self.width.max(1)).enumerate().filter(|(t, _)| !(self.exact)(*t))
        {
            let own = ranges.is_empty().then(|| {
                let mut sorted = row.to_vec();
                sorted.sort_by(f32::total_cmp);
                Range::between(&sorted, outside)
            });
            for (c, x) in row.iter().enumerate() {
                let Some(range) = own.or(ranges.get(c).copied()) else { continue };
                let (half, middle) = range.half_and_middle();
                let place = (x - middle) / half;
                let counts = self.counts.map_or(1., |all| all[t * self.width + c]);
                if (-1. ..=1.).contains(&place) {
                    all.push((place, counts));
                }
            }
        }
        all
    }
}

impl Range {
    /// Between the quantiles that leave half of a share outside at each end; `sorted` is not empty.
    pub fn between(sorted: &[f32], outside: f64) -> Self {
        Self { low: quantile(sorted, outside / 2.) as f32, high: quantile(sorted, 1. - outside / 2.) as f32 }
    }

    fn half_and_middle(self) -> (f32, f32) {
        ((self.high - self.low) / 2., (self.high + self.low) / 2.)
    }
}

/// Mean and deviation.
fn moments(all: impl Iterator<Item = f32> + Clone) -> (f64, f64) {
    let (n, sum) = all.clone().fold((0usize, 0.), |(n, sum), x| (n + 1, sum + f64::from(x)));
    let mean = sum / n.max(1) as f64;
    let square: f64 = all.map(|x| (f64::from(x) - mean).powi(2)).sum();
    (mean, (square / n.max(1) as f64).sqrt())
}

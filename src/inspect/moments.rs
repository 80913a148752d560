//! What stands in a matrix: its range, its moments, and what is far from the rest.
//!
//! ```text
//! mean, std     over all numbers, std by n                 kurtosis  E[(x - mean)^4] / std^4: 3 for a normal distribution
//! absmax_std    max|x| / std                               six_sigma  the share of |x - mean| > 6 std
//! zeros         the share of exact zeros                   near_zero  the share of |x| < max|x| / 100
//! outlier_channels  columns whose max|x| is above 10 times the median of all columns'
//! channel_ratio     the largest column's max|x| over that median
//! ```
//! Moments are central and are merged, not summed up as powers, so a large mean costs no digits (Chan et al., 1983; of third and fourth
//! order Pébay, 2008). Numbers are taken in pieces of a fixed size that are merged in their order: no number of threads moves a bit.
//!
//! Ten times is a convention of ours, a tenth of what SmoothQuant sees in OPT (Xiao et al., 2023, section 3: outliers some 100 times
//! larger than most); the ratio says what any other limit would have found. What is no number is counted and left out.
use crate::{float::vectorized, tensor::rows};
use anyhow::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Numbers of a piece.
const PIECE: usize = 1 << 14;
/// Standard deviations beyond which a number is far out.
const FAR: f64 = 6.;
/// Of the largest magnitude, below which a number is near zero.
const NEAR: f64 = 0.01;
/// Times the median channel's largest magnitude, above which a channel is an outlier.
const CHANNEL: f64 = 10.;

/// Central moments of some numbers, and their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// How many that are numbers.
    pub count: u64,
    /// And how many that are none, or infinite; they are in nothing else here.
    pub not_finite: u64,
    /// Exact zeros.
    pub zeros: u64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Their mean.
    pub mean: f64,
    /// Sums of the second to fourth power of what each is from the mean.
    pub sums: [f64; 3],
}

impl Default for Moments {
    fn default() -> Self {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { count: 0, not_finite: 0, zeros: 0, min, max, mean: 0., sums: [0.; 3] }
    }
}

impl Moments {
    /// Of a row of numbers.
    pub fn of(x: &[f32]) -> Self {
        let pieces: Vec<Self> = x.par_chunks(PIECE).map(Self::piece).collect();
        pieces.into_iter().fold(Self::default(), Self::merge)
    }

    fn piece(x: &[f32]) -> Self {
        vectorized(
            #[inline(always)]
            || {
                let mut all = Self::default();
                let mut sum = 0.;
                for &v in x {
                    if v.is_finite() {
                        let v = f64::from(v);
                        all.count += 1;
                        all.zeros += u64::from(v == 0.);
                        all.min = all.min.min(v);
                        all.max = all.max.max(v);
                        sum += v;
                    }
                }
                all.not_finite = x.len() as u64 - all.count;
                all.mean = sum / all.count.max(1) as f64;
                for &v in x {
                    if v.is_finite() {
                        let d = f64::from(v) - all.mean;
                        let d2 = d * d;
                        all.sums[0] += d2;
                        all.sums[1] += d2 * d;
                        all.sums[2] += d2 * d2;
                    }
                }
                all
            },
        )
    }

    /// Of both together.
    pub fn merge(self, other: Self) -> Self {
        let not_finite = self.not_finite + other.not_finite;
        if self.count == 0 || other.count == 0 {
            let some = if self.count == 0 { other } else { self };
            return Self { not_finite, ..some };
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let n = a + b;
        let d = other.mean - self.mean;
        let ([a2, a3, a4], [b2, b3, b4]) = (self.sums, other.sums);
        let second = a2 + b2 + d * d * a * b / n;
        let third = a3 + b3 + d.powi(3) * a * b * (a - b) / (n * n) + 3. * d * (a * b2 - b * a2) / n;
        let fourth = a4
            + b4
            + d.powi(4) * a * b * (a * a - a * b + b * b) / n.powi(3)
            + 6. * d * d * (a * a * b2 + b * b * a2) / (n * n)
            + 4. * d * (a * b3 - b * a3) / n;
        Self {
            count: self.count + other.count,
            not_finite,
            zeros: self.zeros + other.zeros,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
            mean: self.mean + d * b / n,
            sums: [second, third, fourth],
        }
    }

    /// The largest magnitude.
    pub fn absmax(&self) -> Option<f64> {
        (self.count > 0).then(|| self.min.abs().max(self.max.abs()))
    }

    /// The standard deviation of just these numbers: over `n`, not `n - 1`.
    pub fn std(&self) -> Option<f64> {
        (self.count > 0).then(|| (self.sums[0] / self.count as f64).sqrt())
    }

    /// `E[(x - mean)^4] / std^4`; none where all are the same.
    pub fn kurtosis(&self) -> Option<f64> {
        (self.sums[0] > 0.).then(|| self.count as f64 * self.sums[2] / (self.sums[0] * self.sums[0]))
    }
}

/// All that is said of the numbers of a matrix, or of several under one another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    /// Of all of them.
    pub moments: Moments,
    /// How many are beyond six standard deviations.
    pub six_sigma: u64,
    /// How many are below a hundredth of the largest.
    pub near_zero: u64,
    /// The largest magnitude of each column.
    pub channels: Vec<f32>,
}

impl Spread {
    /// `[rows, width]` each, all as wide.
    pub fn of(parts: &[Tensor]) -> Result<Self> {
        let parts: Vec<Tensor> = parts
            .iter()
            .map(|x| x.to_device(&Device::Cpu)?.contiguous())
            .collect::<candle_core::Result<_>>()?;
        let mut all = Self::default();
        for x in &parts {
            let width = x.dim(1)?;
            all.moments = all.moments.merge(rows::with(x, Moments::of)?);
            let own = rows::with(x, |x| channels(x, width))?;
            all.channels.resize(width, 0.);
            all.channels.iter_mut().zip(own).for_each(|(a, b)| *a = a.max(b));
        }
        let (Some(std), Some(absmax)) = (all.moments.std(), all.moments.absmax()) else { return Ok(all) };
        let (mean, far, near) = (all.moments.mean, FAR * std, NEAR * absmax);
        for x in &parts {
            let (six, zero) = rows::with(x, |x| {
                let each = x.par_chunks(PIECE).map(|x| {
                    x.iter().filter(|v| v.is_finite()).fold((0, 0), |(six, zero), &v| {
                        let v = f64::from(v);
                        (six + u64::from((v - mean).abs() > far), zero + u64::from(v.abs() < near))
                    })
                });
                each.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
            })?;
            all.six_sigma += six;
            all.near_zero += zero;
        }
        Ok(all)
    }

    /// By name, in the order of tables.
    pub fn named(&self) -> Vec<(&'static str, Option<f64>)> {
        let m = &self.moments;
        let share = |n: u64| (m.count > 0).then(|| n as f64 / m.count as f64);
        let (absmax, std) = (m.absmax(), m.std());
        let median = median(&self.channels);
        let most = self.channels.iter().fold(0f32, |a, b| a.max(*b));
        let ratio = median.filter(|m| *m > 0.).map(|median| f64::from(most) / median);
        let outliers = median
            .map(|median| self.channels.iter().filter(|c| f64::from(**c) > CHANNEL * median).count() as f64);
        let some = |x: f64| (m.count > 0).then_some(x);
        vec![
            ("count", Some(m.count as f64)),
            ("not_finite", Some(m.not_finite as f64)),
            ("min", some(m.min)),
            ("max", some(m.max)),
            ("absmax", absmax),
            ("mean", some(m.mean)),
            ("std", std),
            ("absmax_std", absmax.zip(std).and_then(|(a, s)| (s > 0.).then(|| a / s))),
            ("kurtosis", m.kurtosis()),
            ("six_sigma", share(self.six_sigma)),
            ("zeros", share(m.zeros)),
            ("near_zero", share(self.near_zero)),
            ("outlier_channels", outliers),
            ("channel_ratio", ratio),
        ]
    }
}

/// The largest magnitude of each column of `[rows, width]`.
fn channels(x: &[f32], width: usize) -> Vec<f32> {
    let width = width.max(1);
    let per = PIECE.div_ceil(width);
    let most = |mut all: Vec<f32>, row: &[f32]| {
        for (a, v) in all.iter_mut().zip(row) {
            *a = if v.is_finite() { a.max(v.abs()) } else { *a };
        }
        all
    };
    let each = x.par_chunks(width * per).map(|x| x.chunks_exact(width).fold(vec![0.; width], most));
    each.reduce(|| vec![0.; width], |all, piece| most(all, &piece))
}

/// The middle of some numbers, of two the mean.
fn median(x: &[f32]) -> Option<f64> {
    let mut x = x.to_vec();
    x.sort_by(f32::total_cmp);
    let at = |i: usize| x.get(i).map(|v| f64::from(*v));
    Some(0.5 * (at(x.len().checked_sub(1)? / 2)? + at(x.len() / 2)?))
}

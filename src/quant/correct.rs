//! What rounding lost, given back in part by two thin matrices: a low-rank correction beside any method.
//!
//! ```text
//! diag(s) (W - Q)^T ~ U_k S_k V_k^T         A = diag(s)^-1 U_k  [in, k]      B = S_k V_k^T  [k, out]      y = x Q^T + (x A) B
//! ```
//! LQER (Zhang et al., 2024, section 3): the best correction of rank k, where what an input channel loses counts by its mean
//! magnitude `s` (L2QER) or not at all (`by = "error"`). `A` and `B` are rounded to 8 bits in groups of 16, unless `bits` says
//! otherwise; here they are multiplied out and added to the matrix.
use super::{
    grid::{Grid, Per},
    weight::Given,
};
use crate::{mistake, tensor::linalg::leading, tensor::rows};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correct {
    /// Columns of the one matrix and rows of the other.
    pub rank: usize,
    /// Of their codes.
    #[serde(default = "eight")]
    pub bits: u8,
    /// What counts.
    #[serde(default)]
    pub by: Counts,
}

fn eight() -> u8 {
    8
}

/// What a loss counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counts {
    /// By the mean magnitude of its input.
    #[default]
    Activations,
    /// The same everywhere.
    Error,
}

impl Correct {
    fn grid(&self) -> Grid {
        Grid::int(self.bits, Per::Group, 16, true)
    }

    /// How many columns and rows a matrix `(out, in)` has.
    fn rank(&self, (out, inner): (usize, usize)) -> usize {
        self.rank.min(out).min(inner)
    }

    /// Bits of both matrices beside one `(out, in)`.
    pub fn size(&self, (out, inner): (usize, usize)) -> f64 {
        let rank = self.rank((out, inner));
        self.grid().bits((rank, inner)) + self.grid().bits((rank, out))
    }

    /// Refuses what cannot be.
    pub fn check(&self) -> Result<()> {
        if !(1..=4096).contains(&self.rank) {
            mistake!("correct: `rank` is {}: it is 1 to 4096", self.rank);
        }
        self.grid().check()
    }

    /// Settings as records keep them.
    pub fn describe(&self) -> Value {
        json!({ "rank": self.rank, "bits": self.bits, "group": 16, "by": self.by })
    }

    /// What is to be added to the rounded matrix `[out, in]`.
    pub fn of(&self, weight: &Tensor, rounded: &Tensor, given: &Given) -> Result<Tensor> {
        let (out, inner) = weight.dims2()?;
        let lost = (weight - rounded)?.to_device(&Device::Cpu)?.contiguous()?;
        let s = self.scales(given, inner);
        let scaled: Vec<f64> = rows::with(&lost, |e| {
            let at = |j: usize, o: usize| f64::from(e[o * inner + j]) * f64::from(s[j]);
            (0..inner).flat_map(|j| (0..out).map(move |o| (j, o))).map(|(j, o)| at(j, o)).collect()
        })?;
        ensure!(scaled.iter().all(|x| x.is_finite()), "what rounding lost is not finite");
        let rank = self.rank((out, inner));
        let (left, right) = leading(&scaled, (inner, out), rank).context("no singular values were found")?;
        let a: Vec<f32> = (0..rank)
            .flat_map(|k| (0..inner).map(move |j| (k, j)))
            .map(|(k, j)| (left[k * inner + j] / f64::from(s[j])) as f32)
            .collect();
        let b: Vec<f32> = right.iter().map(|x| *x as f32).collect();
        let round = |x: Vec<f32>, width: usize| {
            self.grid().round(&Tensor::from_vec(x, (rank, width), &Device::Cpu)?, given.precision)
        };
        let (a, b) = (round(a, inner)?, round(b, out)?);
        Ok(b.t()?.matmul(&a)?.to_device(weight.device())?)
    }

    /// As `scale.py` of the authors' code: at least 1e-4, then so that the largest times the smallest is 1.
    fn scales(&self, given: &Given, inner: usize) -> Vec<f32> {
        let mean = given.seen.abs_mean();
        if self.by == Counts::Error || mean.len() != inner {
            return vec![1.; inner];
        }
        let held: Vec<f32> = mean.iter().map(|m| m.max(1e-4)).collect();
        let (low, high) = held.iter().fold((f32::INFINITY, 0f32), |(l, h), &s| (l.min(s), h.max(s)));
        let middle = (low * high).sqrt();
        held.into_iter().map(|s| s / middle).collect()
    }
}

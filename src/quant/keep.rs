//! A few weights that stay in 16 bits while any method rounds the others: dense and sparse.
//!
//! ```text
//! weights = { method = "kmeans", bits = 3, keep = { share = 0.0045, by = "magnitude" } }       SqueezeLLM's outliers
//! weights = { method = "rtn", bits = 3, keep = { share = 0.0039, by = "gradients" } }          CherryQ's 1/256
//! ```
//! The method sees zeros in their places, so ranges and codebooks are those of the others.
use super::weight::Given;
use crate::{
    mistake,
    quant::grid::{Grid, Per},
    tensor::rows,
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// Of a matrix's weights.
    pub share: f64,
    /// Which ones.
    pub by: By,
}

/// Which weights are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The largest (Kim et al., 2024, section 4.2).
    Magnitude,
    /// Those that lose most where all are rounded to nearest: the squared error, times the power of their input.
    Loss,
    /// Those that mean most to the model, by squared gradients of its loss (Cui and Wang, 2024, section 3).
    Gradients,
}

impl Keep {
    /// How many of so many.
    pub fn count(&self, of: usize) -> usize {
        (self.share * of as f64).round() as usize
    }

    /// Bits of those of a matrix: a value of 16, and where it is in another 16.
    pub fn bits(&self, of: usize) -> f64 {
        32. * self.count(of) as f64
    }

    /// Refuses what is no share.
    pub fn check(&self) -> Result<()> {
        if !(self.share > 0. && self.share < 0.5) {
            mistake!("keep: `share` is {}: it is above 0 and below 0.5", self.share);
        }
        Ok(())
    }

    /// Settings as records keep them.
    pub fn describe(&self) -> Value {
        json!({ "share": self.share, "by": self.by })
    }

    /// `[out, in]`: 1 where a weight stays.
    pub fn mask(&self, weight: &Tensor, given: &Given) -> Result<Tensor> {
        let (out, inner) = weight.dims2()?;
        let cpu = weight.to_device(&Device::Cpu)?.contiguous()?;
        let counts = match self.by {
            By::Magnitude => rows::with(&cpu, |w| w.iter().map(|w| f64::from(w.abs())).collect::<Vec<_>>())?,
            By::Loss => {
                let per = if given.grid.per == Per::Tensor { Per::Row } else { given.grid.per };
                let nearest = Grid { per, ..given.grid.clone() }.round(&cpu, given.precision)?;
                let power = |j: usize| given.seen.square.get(j).copied().unwrap_or(1.);
                let lost = (&cpu - nearest)?.sqr()?.flatten_all()?.to_vec1::<f32>()?;
                lost.iter().enumerate().map(|(i, e)| f64::from(*e) * power(i % inner.max(1))).collect()
            }
            By::Gradients => match given.gradients {
                Some(squares) => {
                    squares.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect()
                }
                // What no token came by, an expert or the head, keeps its largest.
                None => rows::with(&cpu, |w| w.iter().map(|w| f64::from(w.abs())).collect())?,
            },
        };
        let mut order: Vec<usize> = (0..out * inner).collect();
        order.sort_by(|&a, &b| counts[b].total_cmp(&counts[a]).then(a.cmp(&b)));
        let mut mask = vec![0u8; out * inner];
        order.iter().take(self.count(out * inner)).for_each(|&i| mask[i] = 1);
        Ok(Tensor::from_vec(mask, (out, inner), &Device::Cpu)?.to_device(weight.device())?)
    }
}

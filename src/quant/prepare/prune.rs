//! Sparsity before quantization: weights that matter least become zero, and stay it.
//!
//! ```text
//! magnitude   |W|, the smallest of a whole matrix           (Han et al., 2015)
//! wanda       |W_ij| ||X_j||_2, the smallest of each row    (Sun et al., 2024, eq. 1)
//! "2:4"       the smallest two of every four neighbours in a row, by either
//! ```
//! As the authors' `prune.py` of Wanda has both. It is no rewriting that keeps the function: calibration goes on as if nothing
//! had been cut off.
use super::Transform;
use crate::{
    mistake,
    model::{block::Block, spec::DecoderSpec},
    quant::{Described, Entry, apply::At, calibrate::Inputs, weight::Needs},
    tensor::{matmul::Weight, rows},
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "prune",
    about: "prepare: the least weights become zero, by = \"magnitude\" or \"wanda\" (Sun et al., 2024); share, pattern = \"2:4\"",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prune {
    /// What says how much a weight matters.
    #[serde(default)]
    pub by: By,
    /// How many become zero; a pattern says it itself.
    #[serde(default = "half")]
    pub share: f64,
    /// So many of so many neighbours become zero.
    #[serde(default)]
    pub pattern: Option<String>,
}

fn half() -> f64 {
    0.5
}

/// What says how much a weight matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Its magnitude.
    Magnitude,
    /// The same times its input's.
    #[default]
    Wanda,
}

impl Prune {
    /// `n:m` as numbers.
    fn pattern(&self) -> Option<(usize, usize)> {
        let (n, m) = self.pattern.as_ref()?.split_once(':')?;
        let (n, m) = (n.parse().ok()?, m.parse().ok()?);
        (n > 0 && n < m).then_some((n, m))
    }

    /// A matrix `[out, in]` with its least values zero. `power`: the root of each input's mean square.
    pub fn pruned(&self, w: &mut [f32], inner: usize, power: &[f32]) {
        let score = |i: usize, w: f32| match self.by {
            By::Magnitude => w.abs(),
            By::Wanda => w.abs() * power.get(i).copied().unwrap_or(1.),
        };
        let least = |scores: &[f32], count: usize| -> Vec<usize> {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            order.truncate(count);
            order
        };
        match (self.pattern(), self.by) {
            (Some((n, m)), _) => {
                for row in w.chunks_mut(inner) {
                    for (g, part) in row.chunks_exact_mut(m).enumerate() {
                        let scores: Vec<f32> =
                            part.iter().enumerate().map(|(i, &w)| score(g * m + i, w)).collect();
                        least(&scores, n).into_iter().for_each(|i| part[i] = 0.);
                    }
                }
            }
            (None, By::Magnitude) => {
                let mut all: Vec<f32> = w.iter().map(|w| w.abs()).collect();
                all.sort_by(f32::total_cmp);
                let at = (all.len() as f64 * self.share) as usize;
                let Some(&limit) = all.get(at) else { return };
                w.iter_mut().filter(|w| w.abs() <= limit).for_each(|w| *w = 0.);
            }
            (None, By::Wanda) => {
                let count = (inner as f64 * self.share) as usize;
                for row in w.chunks_mut(inner) {
                    let scores: Vec<f32> = row.iter().enumerate().map(|(i, &w)| score(i, w)).collect();
                    least(&scores, count).into_iter().for_each(|i| row[i] = 0.);
                }
            }
        }
    }
}

impl Transform for Prune {
    fn unfit(&self, _: &DecoderSpec) -> Option<String> {
        None
    }

    fn calibrated(&self) -> bool {
        self.by == By::Wanda
    }

    fn inputs(&self) -> Inputs {
        // Blocks are pruned in order, each seeing what those before it have become.
        Inputs::Quantized
    }

    fn block(&self, _: &mut Block, _: &At) -> Result<()> {
        Ok(())
    }

    fn cuts(&self) -> bool {
        true
    }

    fn zeros(&self) -> f64 {
        self.pattern().map_or(self.share, |(n, m)| n as f64 / m as f64)
    }

    fn cut(&self, block: &mut Block, at: &At) -> Result<()> {
        let seen = match self.by {
            By::Wanda => at.watch(block, Needs::NOTHING)?,
            By::Magnitude => Default::default(),
        };
        for linear in block.linears.values_mut().filter(|l| (at.chosen)(l.site)) {
            let full = linear.weight.rows()?.to_device(&Device::Cpu)?.contiguous()?;
            let (out, inner) = full.dims2()?;
            let power = seen.get(&linear.site).map(|s| s.root_mean_square()).unwrap_or_default();
            let mut w = rows::with(&full, <[f32]>::to_vec)?;
            self.pruned(&mut w, inner, &power);
            let pruned = Tensor::from_vec(w, (out, inner), &Device::Cpu)?.to_device(at.device())?;
            linear.weight = Weight::from(pruned).laid()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if !(0. ..1.).contains(&self.share) {
            mistake!("prune: `share` is {}; it is from 0 to below 1", self.share);
        }
        match &self.pattern {
            Some(pattern) if self.pattern().is_none() => {
                mistake!("prune: `pattern = \"{pattern}\"`; it is two numbers, the first smaller: \"2:4\"")
            }
            _ => Ok(()),
        }
    }
}

impl Described for Prune {
    fn describe(&self) -> Value {
        let mut all = json!({ "method": "prune", "by": self.by, "share": self.zeros() });
        if let Some(pattern) = &self.pattern {
            all["pattern"] = pattern.as_str().into();
        }
        all
    }
}

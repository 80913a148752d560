//! SmoothQuant (Xiao et al., 2023): what is hard in activations moves into weights, a number an input channel.
//!
//! ```text
//! s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)        X_j / s_j, W_j * s_j                           (eq. 4)
//! ```
//! For linears that a norm feeds, as the authors' `smooth.py`; the norm takes the division in. `alpha = "search"` tries
//! 0, 0.05 .. 1 for each group of linears and keeps what changes their outputs least, both sides rounded.
use super::{Transform, fold, no_groups, of_group};
use crate::{
    mistake,
    model::{
        block::Block,
        spec::{DecoderSpec, Feeder, ScaleGroup},
    },
    quant::{Described, Entry, apply::At, calibrate::Seen, weight::Needs},
    tensor::{
        matmul::{Weight, linear},
        rows,
    },
};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "smoothquant",
    about: "prepare: scales from activations into weights (Xiao et al., 2023); alpha = 0.5, or \"search\"",
};

/// Tokens that a search looks at, at most.
const TOKENS: usize = 2048;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmoothQuant {
    /// How much moves.
    #[serde(default)]
    pub alpha: Alpha,
}

/// A share from 0 (nothing but what the weights ask) to 1 (all that activations have), or the best of some.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a number from 0 to 1, or \"search\"")]
#[allow(missing_docs)]
pub enum Alpha {
    Fixed(f64),
    Word(Word),
}

/// The word that stands for a search.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Word {
    Search,
}

impl Default for Alpha {
    fn default() -> Self {
        Alpha::Fixed(0.5)
    }
}

impl Transform for SmoothQuant {
    fn unfit(&self, spec: &DecoderSpec) -> Option<String> {
        no_groups(spec, true).map(|why| format!("smoothquant: {why}"))
    }

    fn needs(&self) -> Needs {
        Needs { inputs: matches!(self.alpha, Alpha::Word(_)), ..Needs::NOTHING }
    }

    fn block(&self, block: &mut Block, at: &At) -> Result<()> {
        let seen = at.watch(block, self.needs())?;
        for group in block.spec.scale_groups() {
            if !matches!(group.feeder, Feeder::Norm(_)) {
                continue;
            }
            let Some(seen) = of_group(block, &group, &seen) else { continue };
            let weights = column_max(block, &group)?;
            let alpha = match self.alpha {
                Alpha::Fixed(alpha) => alpha,
                Alpha::Word(Word::Search) => search(block, &group, seen, &weights, at)?,
            };
            fold::scale(block, &group, &scales(&seen.abs_max(), &weights, alpha))?;
        }
        Ok(())
    }

    fn tries(&self) -> bool {
        matches!(self.alpha, Alpha::Word(_))
    }

    fn check(&self) -> Result<()> {
        match self.alpha {
            Alpha::Fixed(alpha) if !(0. ..=1.).contains(&alpha) => {
                mistake!("smoothquant: `alpha` is {alpha}; it is from 0 to 1, or \"search\"")
            }
            _ => Ok(()),
        }
    }
}

/// A scale for each input channel, at least 1e-5.
pub fn scales(acts: &[f32], weights: &[f32], alpha: f64) -> Vec<f32> {
    let each = acts.iter().zip(weights);
    each.map(|(a, w)| (a.powf(alpha as f32) / w.powf(1. - alpha as f32)).max(1e-5)).collect()
}

/// Largest magnitude in each column, over all of a group's weights; at least 1e-5.
fn column_max(block: &Block, group: &ScaleGroup) -> Result<Vec<f32>> {
    let mut all: Vec<f32> = Vec::new();
    for key in &group.linears {
        let weight = block.linears.get(key).context("a group's linear")?.weight.rows()?;
        let weight = weight.to_device(&Device::Cpu)?.contiguous()?;
        let inner = weight.dims2()?.1;
        all.resize(inner, 1e-5);
        rows::with(&weight, |w| {
            for row in w.chunks_exact(inner.max(1)) {
                all.iter_mut().zip(row).for_each(|(max, w)| *max = max.max(w.abs()));
            }
        })?;
    }
    Ok(all)
}

/// The alpha with which the group's outputs change least, both sides rounded as the recipe rounds them.
fn search(block: &Block, group: &ScaleGroup, seen: &Seen, weights: &[f32], at: &At) -> Result<f64> {
    let x = seen.some_inputs(TOKENS)?.to_device(at.device())?;
    let acts = seen.abs_max();
    let mut best = (f64::INFINITY, 0.5);
    for step in 0..=20 {
        let alpha = f64::from(step) / 20.;
        let s = scales(&acts, weights, alpha);
        let by = Tensor::new(s.as_slice(), x.device())?;
        let entered = at.entered(&x.broadcast_div(&by)?)?;
        let mut loss = 0.;
        for key in &group.linears {
            let own = block.linears.get(key).context("a group's linear")?;
            let Some(method) = at.weights(own.site) else { continue };
            let full = own.weight.rows()?;
            let rounded = method.grid.round(&full.broadcast_mul(&by)?, at.recipe.precision)?;
            let want = linear(&x, &own.weight, None)?;
            let got = linear(&entered, &Weight::from(rounded).laid()?, None)?;
            loss += distance(&want, &got)?;
        }
        if loss < best.0 {
            best = (loss, alpha);
        }
    }
    Ok(best.1)
}

/// The sum of squared differences, rows in order.
pub(super) fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_device(&Device::Cpu)?.contiguous()?, b.to_device(&Device::Cpu)?.contiguous()?);
    let sum = rows::with(&a, |a| rows::with(&b, |b| squares(a, b)))??;
    Ok(sum)
}

/// The sum of squared differences, in sixteen lanes.
pub(super) fn squares(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0f64; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            let d = f64::from(a - b);
            *lane += d * d;
        }
    }
    lanes.iter().sum()
}

impl Described for SmoothQuant {
    fn describe(&self) -> Value {
        let alpha = match self.alpha {
            Alpha::Fixed(alpha) => json!(alpha),
            Alpha::Word(Word::Search) => json!("search"),
        };
        json!({ "method": "smoothquant", "alpha": alpha })
    }
}

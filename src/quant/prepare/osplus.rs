//! Outlier Suppression+ (Wei et al., 2023): outlier channels are moved to the middle, and scaled down as far as one threshold says.
//!
//! ```text
//! z_j = (max X_j + min X_j) / 2                       X - z, b + W z                                (eq. 2, 3)
//! s_j = max(1, max|X_j - z_j| / t)                    (X - z) / s, W diag(s)                        (eq. 4, 7)
//! t   of 100 steps or more from max|X - z| down, where attention's output, act(gate) * up, or else the linear's own changes
//!     least, both sides rounded                                                                     (eq. 6)
//! ```
//! For linears that a norm feeds, and where a gate lets `up` through for `down`, as the authors' `migration.py` and
//! `migration_llama.py`: only norms that have a shift of their own are shifted; the first texts say what changes, all of them what ranges are. `round` is to nearest, whatever rounds in the end.
use super::{
    Transform, fold, no_groups, of_group,
    smoothquant::distance,
    trial::{STEPS, Trial},
};
use crate::{
    model::{
        block::Block,
        site::Role,
        spec::{DecoderSpec, Feeder},
    },
    quant::{Described, Entry, apply::At, calibrate::Seen, weight::Needs},
};
use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "osplus",
    about: "prepare: outlier channels shifted and scaled to one searched threshold (Outlier Suppression+, Wei et al., 2023); shift, down",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsPlus {
    /// Move channels to the middle, where a norm has a shift.
    #[serde(default = "yes")]
    pub shift: bool,
    /// Scale between `up` and `down` too, where a gate stands between them.
    #[serde(default = "yes")]
    pub down: bool,
}

fn yes() -> bool {
    true
}

impl Default for OsPlus {
    fn default() -> Self {
        Self { shift: true, down: true }
    }
}

impl Transform for OsPlus {
    fn unfit(&self, spec: &DecoderSpec) -> Option<String> {
        no_groups(spec, true).map(|why| format!("osplus: {why}"))
    }

    fn needs(&self) -> Needs {
        Needs { inputs: true, ..Needs::NOTHING }
    }

    fn block(&self, block: &mut Block, at: &At) -> Result<()> {
        let seen = at.watch(block, self.needs())?;
        let whole = block.clone();
        let gated = whole.linears.contains_key(&(None, Role::Gate));
        for group in whole.spec.scale_groups() {
            let slot = match group.feeder {
                Feeder::Norm(slot) => Some(slot),
                Feeder::Linear { role: Role::Up, expert: None, .. } if gated && self.down => None,
                _ => continue,
            };
            let trial = Trial { at, slot, linears: &group.linears };
            let rounded = trial.rounds(&whole);
            let Some(seen) = of_group(&whole, &group, &seen).filter(|_| rounded) else { continue };
            if fold::is_turned(&whole, &group) {
                continue;
            }
            let own = slot.and_then(|slot| whole.norms.get(&slot)).is_some_and(|norm| norm.spec().shift);
            let shift = if self.shift && own { middle(seen) } else { vec![0.; seen.low.len()] };
            let mut shifted = whole.clone();
            fold::shift(&mut shifted, &group, &shift)?;
            let least = if own { 1. } else { 0.1 };
            let scales = Search { trial, seen, shift: &shift, least }.best(&shifted)?;
            fold::shift(block, &group, &shift)?;
            if let Some(scales) = scales {
                fold::scale(block, &group, &scales)?;
            }
        }
        Ok(())
    }

    fn tries(&self) -> bool {
        true
    }
}

/// Of each channel, half way between its ends.
fn middle(seen: &Seen) -> Vec<f32> {
    seen.low.iter().zip(&seen.high).map(|(low, high)| (high + low) / 2.).collect()
}

/// One group's threshold.
struct Search<'a> {
    trial: Trial<'a>,
    seen: &'a Seen,
    shift: &'a [f32],
    /// The smallest threshold.
    least: f64,
}

impl Search<'_> {
    /// The scales with the least loss in a block that is shifted already; `None` where no threshold is tried.
    fn best(&self, block: &Block) -> Result<Option<Vec<f32>>> {
        let ends = self.seen.low.iter().zip(&self.seen.high).zip(self.shift);
        let ends: Vec<(f32, f32)> = ends.map(|((low, high), z)| (low - z, high - z)).collect();
        let (low, high) = ends.iter().fold((0f32, 0f32), |(l, h), e| (l.min(e.0), h.max(e.1)));
        let most = f64::from(high.max(-low));
        ensure!(most.is_finite(), "osplus: calibration inputs are not finite");
        let steps = ((f64::from(high) / 0.5) as usize).clamp(100, STEPS);
        let step = (most - self.least) / steps as f64;
        let x = self.seen.inputs.first().context("calibration inputs")?.to_device(self.trial.at.device())?;
        let x = x.broadcast_sub(&Tensor::new(self.shift, x.device())?)?;
        let want = self.trial.outputs(block, &x)?;
        let mut best: (f64, Option<Vec<f32>>) = (f64::INFINITY, None);
        let mut threshold = most;
        while threshold >= self.least && step > 0. {
            let scales = scales(&ends, threshold as f32);
            let loss = self.loss(block, &x, &want, &scales)?;
            if loss < best.0 {
                best = (loss, Some(scales));
            }
            threshold -= step;
        }
        Ok(best.1)
    }

    /// How far outputs are off where both sides are scaled and rounded.
    fn loss(&self, block: &Block, x: &Tensor, want: &[Tensor], scales: &[f32]) -> Result<f64> {
        let by = Tensor::new(scales, x.device())?;
        let mut rounded = block.clone();
        self.trial.round(&mut rounded, |w| Ok(w.broadcast_mul(&by)?))?;
        let got = self.trial.outputs(&rounded, &self.trial.entered(&x.broadcast_div(&by)?)?)?;
        want.iter().zip(&got).map(|(want, got)| distance(want, got)).sum()
    }
}

/// `max(1, high / t, -low / t)` of each channel.
fn scales(ends: &[(f32, f32)], threshold: f32) -> Vec<f32> {
    ends.iter().map(|(low, high)| (high / threshold).max(low / -threshold).max(1.)).collect()
}

impl Described for OsPlus {
    fn describe(&self) -> Value {
        json!({ "method": "osplus", "shift": self.shift, "down": self.down })
    }
}

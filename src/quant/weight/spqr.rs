//! SpQR (Dettmers et al., 2024): small groups whose scales and zero points are codes too, and the few values that would lose
//! most in 16 bits; all else as in GPTQ.
//!
//! ```text
//! scale = (max - min) / (2^b - 1)       zero = -min / scale, not rounded       q = clamp(round(w / scale + zero), 0, 2^b - 1)
//! scales of 16 outputs: 3 bits, between their least and largest; zeros the same            (paper: section 4.2, figure 3)
//! outlier: (w - q)^2 / U_jj^2 > threshold * mean_j (var(w_j) / U_jj^2)                        (paper: equation 3, algorithm 1)
//! ```
//! A group is fitted without the values whose absence would spare it more than that. As `spqr_engine.py` and `quant_groups.py`.
use super::{Given, Needs, Rounded, Rounder};
use crate::{
    mistake,
    model::{site::Site, spec::DecoderSpec},
    quant::{
        Described, Entry,
        columns::{Dead, Turn, by_power, damped, factor, returned, sweep, turned},
        grid::{Format, Grid, Per, Zero},
    },
    tensor::rows,
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "spqr",
    about: "GPTQ in groups of 16 whose scales are quantized too, outliers in 16 bits (Dettmers et al., 2024): threshold = 0.2, \
            scale_bits, zero_bits, damp, act_order",
};

/// Outputs whose scales are quantized together.
const TOGETHER: usize = 16;

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spqr {
    /// Of outliers, relative: lower makes more of them.
    #[serde(default = "threshold")]
    pub threshold: f64,
    /// Of a scale's code.
    #[serde(default = "three")]
    pub scale_bits: u8,
    /// Of a zero point's.
    #[serde(default = "three")]
    pub zero_bits: u8,
    /// Added to the Hessian's diagonal, as a share of its mean; the authors' scripts take 1.
    #[serde(default = "damp")]
    pub damp: f64,
    /// As GPTQ's.
    #[serde(default)]
    pub act_order: bool,
}

fn threshold() -> f64 {
    0.2
}

fn three() -> u8 {
    3
}

fn damp() -> f64 {
    1.
}

impl Default for Spqr {
    fn default() -> Self {
        Self { threshold: threshold(), scale_bits: 3, zero_bits: 3, damp: damp(), act_order: false }
    }
}

/// A scale and a zero point that is no integer.
#[derive(Clone, Copy, Default)]
struct Fit {
    scale: f32,
    zero: f32,
}

/// The largest code of so many bits.
fn most(bits: u8) -> f32 {
    f32::from((1u16 << bits) - 1)
}

impl Fit {
    /// Of the range of some values; of values that are all the same, -1 to 1.
    fn of(x: impl Iterator<Item = f32>, bits: u8) -> Self {
        let (low, high) = x.fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        let (low, high) = if low == high { (-1., 1.) } else { (low, high) };
        let scale = (high - low) / most(bits);
        Self { scale, zero: -low / scale }
    }

    fn one(self, x: f32, bits: u8) -> f32 {
        let code = (x / self.scale.max(1e-9) + self.zero).round_ties_even().clamp(0., most(bits));
        self.scale * (code - self.zero)
    }
}

/// Values quantized together, in place.
fn in_codes(x: &mut [f32], bits: u8) {
    let fit = Fit::of(x.iter().copied(), bits);
    x.iter_mut().for_each(|x| *x = fit.one(*x, bits));
}

/// By how much a group's loss falls if one of its values is not rounded, and not in its range: for each of them. `u`: what losses
/// weigh there.
fn spared(x: &[f32], u: &[f32], bits: u8) -> Vec<f32> {
    let lost = |fit: Fit, i: usize| ((fit.one(x[i], bits) - x[i]) / u[i]).powi(2);
    let base = Fit::of(x.iter().copied(), bits);
    let all: f32 = (0..x.len()).map(|i| lost(base, i)).sum();
    let others = |out: usize| (0..x.len()).filter(move |i| *i != out);
    (0..x.len())
        .map(|out| {
            let fit = Fit::of(others(out).map(|i| x[i]), bits);
            all - others(out).map(|i| lost(fit, i)).sum::<f32>()
        })
        .collect()
}

impl Spqr {
    /// The fits of one group in rows that stand together. `u` weighs its columns.
    fn fit(&self, turn: &Turn, group: std::ops::Range<usize>, bits: u8, threshold: f32, fits: &mut [Fit]) {
        let u: Vec<f32> = group.clone().map(|j| turn.weighs(j)).collect();
        let each = |r: usize| {
            let x = &turn.row(r)[group.clone()];
            if x.len() < 2 {
                return Fit::of(x.iter().copied(), bits);
            }
            let out: Vec<bool> = spared(x, &u, bits).into_iter().map(|s| s > threshold).collect();
            let usual = || x.iter().zip(&out).filter(|(_, out)| !**out).map(|(x, _)| *x);
            let mean = usual().sum::<f32>() / (usual().count().max(1) as f32);
            Fit::of(x.iter().zip(&out).map(|(x, out)| if *out { mean } else { *x }), bits)
        };
        let found: Vec<Fit> = (0..turn.count()).map(each).collect();
        let mut scales: Vec<f32> = found.iter().map(|f| f.scale).collect();
        let mut zeros: Vec<f32> = found.iter().map(|f| f.zero).collect();
        in_codes(&mut scales, self.scale_bits);
        in_codes(&mut zeros, self.zero_bits);
        for ((fit, scale), zero) in fits.iter_mut().zip(scales).zip(zeros) {
            *fit = Fit { scale, zero };
        }
    }

    fn dense_bits(&self, grid: &Grid, (out, inner): (usize, usize)) -> f64 {
        let groups = grid.groups(inner).count();
        let each = f64::from(self.scale_bits) + f64::from(self.zero_bits);
        // Two numbers of 16 bits for the scales of 16 outputs, two for their zero points.
        let above = 4. * 16. * out.div_ceil(TOGETHER) as f64;
        grid.code_bits() * (out * inner) as f64 + groups as f64 * (each * out as f64 + above)
    }
}

impl Rounder for Spqr {
    fn needs(&self) -> Needs {
        Needs { hessian: true, ..Needs::NOTHING }
    }

    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let Format::Int(int) = given.grid.format else { mistake!("spqr rounds to integers: say `bits`") };
        let (bits, (out, inner)) = (int.bits, weight.dims2()?);
        let cpu = weight.to_device(&Device::Cpu)?.contiguous()?;
        let mut w = rows::with(&cpu, <[f32]>::to_vec)?;
        let (mut note, h) = match &given.seen.hessian {
            Some(h) => (None, h.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?),
            None => {
                let eye = (0..inner * inner).map(|i| f32::from(u8::from(i % (inner + 1) == 0))).collect();
                (Some("no calibration token came by: all inputs count the same".to_owned()), eye)
            }
        };
        let order = match self.act_order {
            true => by_power(&h, inner, Dead::Apart),
            false => (0..inner).collect(),
        };
        let (upper, took) = factor(&h, &order, self.damp, Dead::Apart)?;
        for row in w.chunks_mut(inner.max(1)) {
            row.iter_mut().enumerate().filter(|(j, _)| h[j * inner + j] == 0.).for_each(|(_, w)| *w = 0.);
        }
        let mut w = turned(&w, inner, &order);
        let threshold = self.threshold as f32 * scale_of_outliers(&w, inner, &upper);
        let size = given.grid.group;
        let mut fits = vec![vec![Fit::default(); TOGETHER]; out.div_ceil(TOGETHER)];
        let kept = AtomicUsize::new(0);
        sweep(&mut w, inner, &upper, inner, TOGETHER, &mut fits, |_, mut turn, fits| {
            for j in turn.block.clone() {
                if j % size == 0 {
                    self.fit(&turn, j..(j + size).min(inner), bits, threshold, fits);
                }
                for (r, fit) in fits.iter().enumerate().take(turn.count()) {
                    let x = turn.row(r)[j];
                    let q = fit.one(x, bits);
                    let outlier = ((x - q) / turn.weighs(j)).powi(2) > threshold;
                    kept.fetch_add(usize::from(outlier), Ordering::Relaxed);
                    turn.settle(r, j, if outlier { half::f16::from_f32(x).to_f32() } else { q });
                }
            }
        })?;
        note = damped(took, self.damp).or(note);
        let outliers = kept.into_inner();
        let all = self.dense_bits(given.grid, (out, inner)) + 32. * outliers as f64;
        let rounded = returned(&w, inner, &order);
        let weight = Tensor::from_vec(rounded, (out, inner), &Device::Cpu)?.to_device(weight.device())?;
        Ok(Rounded { weight, bits: Some(all), note })
    }

    /// With one outlier in a hundred, until it is known how many there are.
    fn bits(&self, grid: &Grid, shape: (usize, usize), _: (Site, &DecoderSpec)) -> f64 {
        self.dense_bits(grid, shape) + 0.32 * (shape.0 * shape.1) as f64
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        if !(self.damp > 0. && self.damp <= 10.) {
            mistake!("`damp` is {}: it is a share of the Hessian's mean, above 0 and at most 10", self.damp);
        }
        if self.threshold.is_nan() || self.threshold <= 0. {
            mistake!("`threshold` is {}: it is above 0; a large one keeps no outliers", self.threshold);
        }
        for (name, bits) in [("scale_bits", self.scale_bits), ("zero_bits", self.zero_bits)] {
            if !(2..=8).contains(&bits) {
                mistake!("`{name}` is {bits}: it is 2 to 8");
            }
        }
        match grid.format {
            Format::Int(int)
                if !int.symmetric && int.zero == Zero::Exact && grid.per == Per::Group && !grid.search =>
            {
                Ok(())
            }
            _ => mistake!(
                "spqr has its own convention, of asymmetric integers in groups: say `bits`, and `group`"
            ),
        }
    }
}

/// `mean_j (var(w_j) / U_jj^2)`, what a value's loss is compared with.
fn scale_of_outliers(w: &[f32], inner: usize, upper: &[f32]) -> f32 {
    let out = w.len() / inner.max(1);
    let each = (0..inner).map(|j| {
        let column = || w.iter().skip(j).step_by(inner).map(|w| f64::from(*w));
        let mean = column().sum::<f64>() / out as f64;
        let var = column().map(|w| (w - mean).powi(2)).sum::<f64>() / out.saturating_sub(1).max(1) as f64;
        var / f64::from(upper[j * inner + j]).powi(2)
    });
    (each.sum::<f64>() / inner.max(1) as f64) as f32
}

impl Described for Spqr {
    fn describe(&self) -> Value {
        json!({
            "method": "spqr", "threshold": self.threshold, "scale_bits": self.scale_bits, "zero_bits": self.zero_bits,
            "damp": self.damp, "act_order": self.act_order, "range": null,
            "zero": "not rounded; scales and zero points of 16 outputs in codes",
        })
    }
}

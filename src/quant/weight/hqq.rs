//! Half-Quadratic Quantization (Badri and Shaji, 2023): zero points are moved until the error is sparse, without any data.
//!
//! ```text
//! minimize |W - deq(quant(W))|_p^p over the zero point, p = 0.7, by turns:
//!   W_e = shrink(W - W_r),  shrink(x) = sign(x) max(|x| - |x|^(p-1) / beta, 0),  beta = 10
//!   zero = mean over the group of (W_q - (W - W_e) scale)
//! ```
//! Scales are inverse ones, `(2^b - 1) / (max - min)`; zero points are numbers, not codes. At most 20 turns, and none after the
//! matrix's mean error has not fallen: `optimize_weights_proximal_legacy` and `Quantizer.quantize` of the authors', in f32.
use super::{Given, Rounded, Rounder};
use crate::{
    mistake,
    model::{site::Site, spec::DecoderSpec},
    quant::{
        Described, Entry,
        grid::{Format, Grid, Per},
    },
    tensor::rows,
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "hqq",
    about: "zero points moved for a sparse error, without data (Badri and Shaji, 2023)",
};

const NORM: f32 = 0.7;
const BETA: f32 = 10.;
const TURNS: usize = 20;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hqq {}

/// A group's inverse scale and zero point.
#[derive(Clone, Copy)]
struct Pair {
    scale: f32,
    zero: f32,
}

impl Pair {
    fn fit(x: &[f32], high: f32) -> Self {
        let (low, top) = x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
        let range = top - low;
        let scale = if range.abs() <= 1e-4 { 1. } else { high / range }.min(2e4);
        Self { scale, zero: -low * scale }
    }

    #[inline(always)]
    fn code(self, x: f32, high: f32) -> f32 {
        (x * self.scale + self.zero).round_ties_even().clamp(0., high)
    }

    /// One turn: the zero point moves; the error before it did, summed.
    fn turn(&mut self, x: &[f32], high: f32) -> f64 {
        let (mut error, mut sum) = (0f64, 0f32);
        for &w in x {
            let code = self.code(w, high);
            let left = w - (code - self.zero) / self.scale;
            error += f64::from(left.abs());
            let magnitude = left.abs();
            let kept = (magnitude - (1. / BETA) * magnitude.powf(NORM - 1.)).max(0.);
            let sparse = if left == 0. { 0. } else { kept.copysign(left) };
            sum += code - (w - sparse) * self.scale;
        }
        self.zero = sum / x.len() as f32;
        error
    }
}

impl Rounder for Hqq {
    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let Format::Int(int) = given.grid.format else { mistake!("hqq rounds to integers: say `bits`") };
        let high = f32::from((1u16 << int.bits) - 1);
        let (out, inner) = weight.dims2()?;
        let groups: Vec<_> = given.grid.groups(inner).collect();
        let w = weight.to_device(&Device::Cpu)?.contiguous()?;
        let rounded = rows::with(&w, |w| {
            let split =
                |row: &[f32]| groups.iter().map(|g| Pair::fit(&row[g.clone()], high)).collect::<Vec<_>>();
            let mut pairs: Vec<Vec<Pair>> = w.par_chunks(inner).map(split).collect();
            let mut best = f64::INFINITY;
            for _ in 0..TURNS {
                let each = pairs.par_iter_mut().zip(w.par_chunks(inner)).map(|(pairs, row)| {
                    pairs
                        .iter_mut()
                        .zip(&groups)
                        .map(|(pair, g)| pair.turn(&row[g.clone()], high))
                        .sum::<f64>()
                });
                // In the order of rows, whoever was first.
                let errors: Vec<f64> = each.collect();
                let error = (errors.iter().sum::<f64>() / w.len().max(1) as f64) as f32;
                if f64::from(error) >= best {
                    break;
                }
                best = f64::from(error);
            }
            let mut all = vec![0f32; w.len()];
            all.par_chunks_mut(inner).zip(w.par_chunks(inner)).zip(&pairs).for_each(|((to, row), pairs)| {
                for (pair, g) in pairs.iter().zip(&groups) {
                    let inverse = 1. / pair.scale;
                    for i in g.clone() {
                        to[i] = (pair.code(row[i], high) - pair.zero) * inverse;
                    }
                }
            });
            all
        })?;
        Ok(Tensor::from_vec(rounded, (out, inner), &Device::Cpu)?.to_device(weight.device())?.into())
    }

    /// Scale and zero point are 16 bits each.
    fn bits(&self, grid: &Grid, (out, inner): (usize, usize), _: (Site, &DecoderSpec)) -> f64 {
        grid.code_bits() * (out * inner) as f64 + 32. * (out * grid.groups(inner).count()) as f64
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        if !matches!(grid.format, Format::Int(_)) || grid.per == Per::Tensor || grid.search {
            mistake!("hqq rounds to integers, in rows or groups, and searches for itself");
        }
        Ok(())
    }
}

impl Described for Hqq {
    fn describe(&self) -> Value {
        json!({ "method": "hqq", "zero": "a number, moved for the least |error|^0.7" })
    }
}

//! OWQ (Lee et al., 2024): the columns that are worst to round stay in 16 bits, and GPTQ rounds the others, whose losses those
//! take up last.
//!
//! ```text
//! s_j = H_jj sum_i (w_ij - nearest(w_ij))^2        the greatest are kept        (paper: equation 5; `hessian_sorting`)
//! ```
//! Kept columns are not in the ranges that the others are fitted to.
use super::{Given, Needs, Rounded, Rounder, gptq::Gptq};
use crate::{
    mistake,
    model::{site::Site, spec::DecoderSpec},
    quant::{
        Described, Entry,
        columns::damped,
        grid::{Format, Grid, Per, Zero},
    },
    tensor::rows,
};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "owq",
    about: "GPTQ, but for a share of columns in 16 bits (Lee et al., 2024): share = 0.01, damp, act_order",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owq {
    /// Of the columns, rounded to an even number of them.
    #[serde(default = "share")]
    pub share: f64,
    /// As GPTQ's.
    #[serde(default = "damp")]
    pub damp: f64,
    /// Columns by what is lost where they are rounded to nearest, greatest first.
    #[serde(default)]
    pub act_order: bool,
}

fn share() -> f64 {
    0.01
}

fn damp() -> f64 {
    0.01
}

impl Default for Owq {
    fn default() -> Self {
        Self { share: share(), damp: damp(), act_order: false }
    }
}

impl Owq {
    fn kept(&self, inner: usize) -> usize {
        let count = (inner as f64 * self.share).round() as usize;
        (count + count % 2).min(inner)
    }

    fn gptq(&self) -> Gptq {
        Gptq { damp: self.damp, act_order: self.act_order, ..Gptq::default() }
    }
}

impl Rounder for Owq {
    fn needs(&self) -> Needs {
        Needs { hessian: true, ..Needs::NOTHING }
    }

    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let Some(hessian) = &given.seen.hessian else {
            let weight = given.grid.round(weight, given.precision)?;
            let note = Some("no calibration token came by: rounded to nearest, no column kept".into());
            let bits = Some(given.grid.bits(weight.dims2()?));
            return Ok(Rounded { weight, bits, note });
        };
        let (out, inner) = weight.dims2()?;
        let h: Vec<f32> = hessian.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
        ensure!(h.iter().all(|x| x.is_finite()), "its calibration inputs are not finite");
        let w = weight.to_device(&Device::Cpu)?.contiguous()?;
        // A range a row, whatever groups there will be: as the authors' main.py.
        let nearest = Grid { per: Per::Row, ..given.grid.clone() }.round(&w, given.precision)?;
        let lost = (&w - nearest)?.sqr()?.sum(0)?.to_vec1::<f32>()?;
        let sensitivity: Vec<f32> = (0..inner).map(|j| h[j * inner + j] * lost[j]).collect();
        let mut order: Vec<usize> = (0..inner).collect();
        order.sort_by(|&a, &b| sensitivity[b].total_cmp(&sensitivity[a]));
        order.rotate_left(self.kept(inner));
        let open = inner - self.kept(inner);
        let kept = order[open..].to_vec();
        if !self.act_order {
            order[..open].sort_unstable();
        }
        let w = rows::with(&w, <[f32]>::to_vec)?;
        let (mut rounded, took) = self.gptq().columns(w, inner, &h, given, (order, open))?;
        for row in rounded.chunks_mut(inner) {
            kept.iter().for_each(|&j| row[j] = half::f16::from_f32(row[j]).to_f32());
        }
        let weight = Tensor::from_vec(rounded, (out, inner), &Device::Cpu)?.to_device(weight.device())?;
        Ok(Rounded { weight, bits: None, note: damped(took, self.damp) })
    }

    /// The others as their grid says, 16 bits for each value that is kept and for each column's number.
    fn bits(&self, grid: &Grid, (out, inner): (usize, usize), _: (Site, &DecoderSpec)) -> f64 {
        let kept = self.kept(inner);
        grid.bits((out, inner - kept)) + 16. * (kept * (out + 1)) as f64
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        self.gptq().check(grid)?;
        if !(0. ..1.).contains(&self.share) {
            mistake!("`share` is {}: it is a share of columns, from 0 to below 1", self.share);
        }
        match grid.format {
            Format::Int(int) if !int.symmetric && int.zero == Zero::InRange => Ok(()),
            _ => mistake!("owq rounds to asymmetric integers in GPTQ's convention: say `bits`"),
        }
    }
}

impl Described for Owq {
    fn describe(&self) -> Value {
        json!({ "method": "owq", "share": self.share, "damp": self.damp, "act_order": self.act_order })
    }
}

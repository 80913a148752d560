//! EfficientQAT's first stage (Chen et al., 2025): a block's weights, scales and zero points are all trained, through rounding.
//!
//! ```text
//! q = clamp(round(w / s) + clamp(round(z)))      w, s, z by AdamW along a cosine       (section 3.2; `UniformAffineQuantizer`)
//! ```
use crate::quant::{
    Described, Entry,
    grid::{Grid, Zero},
    learn::{By, Fall, Learner, Steps, Trainee, Training, fake},
};
use anyhow::Result;
use candle_core::{D, Tensor, Var};
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "efficientqat",
    about: "weights, scales and zero points of a block trained through rounding (Chen et al., 2025): passes = 2, batch = 2, \
            rate = 1e-4 (scales, zero points), weight_rate = 2e-5",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientQat {
    /// Over all sequences.
    #[serde(default = "two")]
    pub passes: usize,
    /// Sequences of a step.
    #[serde(default = "two")]
    pub batch: usize,
    /// Of scales and zero points.
    #[serde(default = "rate")]
    pub rate: f64,
    /// Of weights; the authors take 2e-5 for 2 bits and 1e-5 for more.
    #[serde(default = "weight_rate")]
    pub weight_rate: f64,
}

fn two() -> usize {
    2
}

fn rate() -> f64 {
    1e-4
}

fn weight_rate() -> f64 {
    2e-5
}

impl Default for EfficientQat {
    fn default() -> Self {
        Self { passes: 2, batch: 2, rate: rate(), weight_rate: weight_rate() }
    }
}

/// Everything of a matrix.
struct All {
    w: Var,
    scale: Vec<Var>,
    zero: Vec<Var>,
    grid: Grid,
    most: f64,
}

impl Trainee for All {
    fn vars(&self) -> Vec<(Var, usize)> {
        let fitted = self.scale.iter().chain(&self.zero).map(|v| (v.clone(), 0));
        fitted.chain([(self.w.clone(), 1)]).collect()
    }

    /// Its own matrix, which began as `w`.
    fn rounded(&self, w: &Tensor) -> Result<Tensor> {
        let mut parts = Vec::new();
        for (i, x) in fake::parts(self.w.as_tensor(), &self.grid)?.iter().enumerate() {
            let scale = fake::clamp_through(self.scale[i].as_tensor(), 1e-4, 1e4)?;
            let zero = fake::clamp_through(&fake::round(self.zero[i].as_tensor())?, 0., self.most)?;
            parts.push(fake::quantized(x, &scale, &zero, None, self.most)?);
        }
        fake::whole(&parts, w.dims2()?)
    }
}

impl Learner for EfficientQat {
    fn training(&self) -> Training {
        Training {
            steps: Steps::Passes(self.passes),
            batch: self.batch,
            by: By::AdamW,
            rates: vec![("rate", self.rate), ("weight_rate", self.weight_rate)],
            fall: Fall::Cosine(1. / 20.),
            best: false,
            equivalent: None,
            seed: 0,
        }
    }

    fn trainee(&self, w: &Tensor, grid: &Grid) -> Result<Box<dyn Trainee>> {
        let most = grid.code_bits().exp2() - 1.;
        let (mut scale, mut zero) = (Vec::new(), Vec::new());
        for x in fake::parts(w, grid)? {
            let low = x.min_keepdim(D::Minus1)?;
            let s = ((x.max_keepdim(D::Minus1)? - &low)? / most)?.clamp(1e-4, 1e4)?;
            zero.push(Var::from_tensor(&fake::round(&(low / &s)?.clamp(-1e4, 1e4)?.neg()?)?.detach())?);
            scale.push(Var::from_tensor(&s)?);
        }
        Ok(Box::new(All { w: Var::from_tensor(&w.copy()?)?, scale, zero, grid: grid.clone(), most }))
    }

    fn zero(&self) -> Zero {
        Zero::Clamped
    }
}

impl Described for EfficientQat {
    fn describe(&self) -> Value {
        json!({
            "method": "efficientqat", "passes": self.passes, "batch": self.batch, "rate": self.rate,
            "weight_rate": self.weight_rate, "range": "learned",
        })
    }
}

//! AutoRound (Cheng et al., 2024): whether each weight is rounded up or down, and each group's range, by steps against the signs of
//! gradients.
//!
//! ```text
//! scale = (h max(w, 0) - l min(w, 0)) / (2^b - 1)      zero = round(-l min(w, 0) / scale)
//! q = clamp(round(w / scale + v) + zero)       v from -1/2 to 1/2, h and l from 0 to 1         (equations 3 to 5; `quant_tensor_asym`)
//! ```
//! A step's rate falls from `1 / steps` to nothing, so `v` moves by 1/2 at most; the parameters with the least loss are kept.
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
    name: "autoround",
    about: "up or down by signs of gradients of a block's outputs (Cheng et al., 2024): steps = 200, batch = 8, rate = 1 / steps",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoRound {
    /// A block's.
    #[serde(default = "steps")]
    pub steps: usize,
    /// Sequences of a step, drawn.
    #[serde(default = "batch")]
    pub batch: usize,
    /// Where it begins; 1 / steps where it is not said.
    pub rate: Option<f64>,
    /// Of the draws.
    #[serde(default = "seed")]
    pub seed: u64,
}

fn steps() -> usize {
    200
}

fn batch() -> usize {
    8
}

fn seed() -> u64 {
    42
}

impl Default for AutoRound {
    fn default() -> Self {
        Self { steps: steps(), batch: batch(), rate: None, seed: seed() }
    }
}

impl AutoRound {
    fn rate(&self) -> f64 {
        self.rate.unwrap_or(1. / self.steps.max(1) as f64)
    }
}

/// An offset a weight, and a share of the range a group and end.
struct Offsets {
    v: Vec<Var>,
    low: Vec<Var>,
    high: Vec<Var>,
    grid: Grid,
    most: f64,
}

impl Trainee for Offsets {
    fn vars(&self) -> Vec<(Var, usize)> {
        self.v.iter().chain(&self.low).chain(&self.high).map(|v| (v.clone(), 0)).collect()
    }

    fn rounded(&self, w: &Tensor) -> Result<Tensor> {
        let mut parts = Vec::new();
        for (i, x) in fake::parts(w, &self.grid)?.iter().enumerate() {
            let low = (x.min_keepdim(D::Minus1)?.minimum(0.)? * self.low[i].as_tensor())?;
            let high = (x.max_keepdim(D::Minus1)?.maximum(0.)? * self.high[i].as_tensor())?;
            let scale = fake::clamp(&((high - &low)? / self.most)?, 1e-5, f64::from(f32::MAX))?;
            let zero = fake::round(&(low / &scale)?.neg()?)?;
            parts.push(fake::quantized(x, &scale, &zero, Some(self.v[i].as_tensor()), self.most)?);
        }
        fake::whole(&parts, w.dims2()?)
    }

    fn hold(&self) -> Result<()> {
        self.low.iter().chain(&self.high).try_for_each(|v| Ok(v.set(&v.as_tensor().clamp(0., 1.)?.detach())?))
    }
}

impl Learner for AutoRound {
    fn training(&self) -> Training {
        Training {
            steps: Steps::Drawn(self.steps),
            batch: self.batch,
            by: By::Sign,
            rates: vec![("rate", self.rate())],
            fall: Fall::Linear,
            best: true,
            equivalent: None,
            seed: self.seed,
        }
    }

    fn trainee(&self, w: &Tensor, grid: &Grid) -> Result<Box<dyn Trainee>> {
        let parts = fake::parts(w, grid)?;
        let ones = || -> Result<Vec<Var>> {
            parts.iter().map(|x| Ok(Var::from_tensor(&x.min_keepdim(D::Minus1)?.ones_like()?)?)).collect()
        };
        let v = parts.iter().map(|x| Ok(Var::from_tensor(&x.zeros_like()?)?)).collect::<Result<_>>()?;
        let most = grid.code_bits().exp2() - 1.;
        Ok(Box::new(Offsets { v, low: ones()?, high: ones()?, grid: grid.clone(), most }))
    }

    fn zero(&self) -> Zero {
        Zero::InRange
    }
}

impl Described for AutoRound {
    fn describe(&self) -> Value {
        json!({
            "method": "autoround", "steps": self.steps, "batch": self.batch, "rate": self.rate(), "seed": self.seed,
            "range": "learned",
        })
    }
}

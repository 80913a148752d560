//! OmniQuant (Shao et al., 2024): how far each group's range is cut is learned, and with `equivalent` the scales between norms and
//! what they feed.
//!
//! ```text
//! low = sigmoid(g) min w     high = sigmoid(h) max w     scale = (high - low) / (2^b - 1)     zero = -round(low / scale)
//! ```
//! `g` and `h` begin at 4, where the sigmoid is 0.98 (equation 2; `UniformAffineQuantizer` with `lwc`). Scales (equation 3) begin as
//! SmoothQuant's. Where inputs are rounded and norms have shifts, what enters is shifted too, from the middle of its range on. Scales
//! between queries and keys are not learned: behind them positions turn pairs of channels, and the function would be another.
use crate::{
    mistake,
    quant::{
        Described, Entry,
        grid::{Grid, Zero},
        learn::{By, Fall, Learner, Moves, Steps, Trainee, Training, fake},
    },
};
use anyhow::Result;
use candle_core::{D, Tensor, Var};
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "omniquant",
    about: "ranges cut as gradients of a block's outputs say (Shao et al., 2024): passes = 10, rate = 0.01; equivalent = true: \
            scales (and shifts) between norms and linears learned with them, alpha = 0.5 where they begin",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OmniQuant {
    /// Over all sequences.
    #[serde(default = "ten")]
    pub passes: usize,
    /// Of the cuts.
    #[serde(default = "rate")]
    pub rate: f64,
    /// Whether scales are learned too, and shifts.
    #[serde(default)]
    pub equivalent: bool,
    /// Where scales begin: SmoothQuant's.
    #[serde(default = "half")]
    pub alpha: f64,
    /// Of the scales.
    #[serde(default = "scale_rate")]
    pub scale_rate: f64,
}

fn ten() -> usize {
    10
}

fn rate() -> f64 {
    1e-2
}

fn half() -> f64 {
    0.5
}

fn scale_rate() -> f64 {
    5e-3
}

impl Default for OmniQuant {
    fn default() -> Self {
        Self { passes: ten(), rate: rate(), equivalent: false, alpha: half(), scale_rate: scale_rate() }
    }
}

/// A number a group for either end.
struct Cuts {
    low: Vec<Var>,
    high: Vec<Var>,
    grid: Grid,
    most: f64,
}

impl Trainee for Cuts {
    fn vars(&self) -> Vec<(Var, usize)> {
        self.low.iter().chain(&self.high).map(|v| (v.clone(), 0)).collect()
    }

    fn rounded(&self, w: &Tensor) -> Result<Tensor> {
        let mut parts = Vec::new();
        for (x, (low, high)) in fake::parts(w, &self.grid)?.iter().zip(self.low.iter().zip(&self.high)) {
            let high = (fake::sigmoid(high.as_tensor())? * x.max_keepdim(D::Minus1)?)?;
            let low = (fake::sigmoid(low.as_tensor())? * x.min_keepdim(D::Minus1)?)?;
            let scale = fake::clamp(&((high - &low)? / self.most)?, 1e-5, 1e4)?;
            // The zero point is rounded without a gradient.
            let zero = fake::round(&(low / &scale)?.neg()?.detach().clamp(-1e4, 1e4)?)?.detach();
            parts.push(fake::quantized(x, &scale, &zero, None, self.most)?);
        }
        fake::whole(&parts, w.dims2()?)
    }
}

impl Learner for OmniQuant {
    fn training(&self) -> Training {
        Training {
            steps: Steps::Passes(self.passes),
            batch: 1,
            by: By::AdamW,
            rates: vec![("rate", self.rate), ("scale_rate", self.scale_rate)],
            fall: Fall::Never,
            best: false,
            equivalent: self.equivalent.then_some(Moves { alpha: self.alpha, shifts: true }),
            seed: 0,
        }
    }

    fn trainee(&self, w: &Tensor, grid: &Grid) -> Result<Box<dyn Trainee>> {
        let ends = || -> Result<Vec<Var>> {
            let four = |x: &Tensor| Ok(Var::from_tensor(&(x.min_keepdim(D::Minus1)?.zeros_like()? + 4.)?)?);
            fake::parts(w, grid)?.iter().map(four).collect()
        };
        Ok(Box::new(Cuts {
            low: ends()?,
            high: ends()?,
            grid: grid.clone(),
            most: grid.code_bits().exp2() - 1.,
        }))
    }

    fn zero(&self) -> Zero {
        Zero::Free
    }

    fn settings(&self) -> Result<()> {
        if !(0. ..=1.).contains(&self.alpha) {
            mistake!("`alpha` is {}: it is from 0 to 1", self.alpha);
        }
        Ok(())
    }
}

impl Described for OmniQuant {
    fn describe(&self) -> Value {
        let mut all = json!({
            "method": "omniquant", "passes": self.passes, "rate": self.rate, "equivalent": self.equivalent, "range": "learned",
        });
        if self.equivalent {
            all["scale_rate"] = self.scale_rate.into();
            all["alpha"] = self.alpha.into();
        }
        all
    }
}

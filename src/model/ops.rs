//! The decoder's small operations: norms, activations, additions, each in two forms.
//!
//! *Reference*: a chain of candle operations, with gradients, on any device; GPUs use it, and training is held to it.
//! *Fused*: one loop over rows on a CPU. `tests/engine.rs` holds the two together.
use super::spec::{Act, Gain, NormKind, NormSpec};
use crate::{
    float,
    tensor::{
        matmul::{self, Weight},
        rows,
    },
};
use candle_core::{D, DType, Device, Result, Tensor};

/// Which form to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Chains of candle operations.
    Reference,
    /// Loops over rows; CPU and f32 only.
    Fused,
}

/// The number format that inference would hold values in between operations. Arithmetic is f32 either way; values are
/// rounded where such inference stores them, as `transformers` does with that `torch_dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Precision {
    F32,
    F16,
    BF16,
}

impl Precision {
    /// `f32`, `f16`, `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::BF16 => "bf16",
        }
    }

    /// Rounds one number, to nearest, ties to even. In a loop, let [`rounded`] choose once.
    #[inline(always)]
    pub fn one(self, x: f32) -> f32 {
        match self {
            Precision::F32 => x,
            Precision::F16 => half::f16::from_f32(x).to_f32(),
            Precision::BF16 => half::bf16::from_f32(x).to_f32(),
        }
    }

    /// Rounds all.
    pub fn round(self, x: Tensor) -> Result<Tensor> {
        match self {
            Precision::F32 => Ok(x),
            Precision::F16 => x.to_dtype(DType::F16)?.to_dtype(DType::F32),
            Precision::BF16 => x.to_dtype(DType::BF16)?.to_dtype(DType::F32),
        }
    }
}

/// Compiles a loop for each precision: in f32, `round` is nothing, and the compiler sees that.
macro_rules! rounded {
    ($precision:expr, $round:ident => $body:expr) => {
        match $precision {
            $crate::model::ops::Precision::F32 => {
                let $round = |x: f32| x;
                $body
            }
            $crate::model::ops::Precision::F16 => {
                let $round = |x: f32| half::f16::from_f32(x).to_f32();
                $body
            }
            $crate::model::ops::Precision::BF16 => {
                let $round = |x: f32| half::bf16::from_f32(x).to_f32();
                $body
            }
        }
    };
}
pub(crate) use rounded;

/// How a pass computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Which form of each operation.
    pub kernels: Kernels,
    /// Where values are rounded.
    pub precision: Precision,
}

impl Mode {
    /// Loops over rows.
    pub fn fused(self) -> bool {
        self.kernels == Kernels::Fused
    }
}

/// A norm with its learned rows.
#[derive(Clone)]
pub struct Norm {
    spec: NormSpec,
    scale: Option<Tensor>,
    shift: Option<Tensor>,
    /// What is multiplied and added, where fused loops can read it.
    rows: [Vec<f32>; 2],
}

impl Norm {
    /// `scale` and `shift` are `[width]`, as learned.
    pub fn new(spec: NormSpec, scale: Option<Tensor>, shift: Option<Tensor>) -> Result<Self> {
        let row = |t: &Option<Tensor>| {
            t.as_ref().map_or(Ok(Vec::new()), |t| t.to_dtype(DType::F32)?.to_vec1::<f32>())
        };
        let mut rows = [row(&scale)?, row(&shift)?];
        if spec.gain == Gain::OnePlus {
            rows[0].iter_mut().for_each(|w| *w += 1.);
        }
        Ok(Self { spec, scale, shift, rows })
    }

    /// Its learned rows.
    pub fn params(&self) -> (Option<&Tensor>, Option<&Tensor>) {
        (self.scale.as_ref(), self.shift.as_ref())
    }

    /// The same norm with what leaves it divided by a number a channel: `by [width]`, none of them zero.
    pub fn divided(&self, by: &[f32]) -> Result<Self> {
        self.divided_by(&Tensor::new(by, self.device())?)
    }

    /// The same by a tensor, whose gradient the reference form has.
    pub fn divided_by(&self, by: &Tensor) -> Result<Self> {
        let one = if self.spec.gain == Gain::OnePlus { 1. } else { 0. };
        let scale = match &self.scale {
            Some(scale) => (((scale.to_dtype(DType::F32)? + one)? / by)? - one)?,
            None => by.recip()?,
        };
        let gain = if self.spec.gain == Gain::None { Gain::Scale } else { self.spec.gain };
        let shift = self.shift.as_ref().map(|s| s.to_dtype(DType::F32)? / by).transpose()?;
        Self::new(NormSpec { gain, ..self.spec }, Some(scale), shift)
    }

    /// The same norm with a number a channel taken from what leaves it: `by [width]`.
    pub fn shifted(&self, by: &[f32]) -> Result<Self> {
        self.shifted_by(&Tensor::new(by, self.device())?)
    }

    /// The same by a tensor, whose gradient the reference form has.
    pub fn shifted_by(&self, by: &Tensor) -> Result<Self> {
        let shift = match &self.shift {
            Some(shift) => (shift.to_dtype(DType::F32)? - by)?,
            None => by.neg()?,
        };
        Self::new(NormSpec { shift: true, ..self.spec }, self.scale.clone(), Some(shift))
    }

    /// What is multiplied, and what is added. Both `[width]`; empty for none.
    pub fn rows(&self) -> &[Vec<f32>; 2] {
        &self.rows
    }

    /// What it is.
    pub fn spec(&self) -> NormSpec {
        self.spec
    }

    fn device(&self) -> &Device {
        self.scale.as_ref().or(self.shift.as_ref()).map_or(&Device::Cpu, Tensor::device)
    }

    /// The same norm with its rows rounded.
    pub fn rounded(&self, precision: Precision) -> Result<Self> {
        let round = |t: &Option<Tensor>| t.clone().map(|t| precision.round(t)).transpose();
        Self::new(self.spec, round(&self.scale)?, round(&self.shift)?)
    }

    /// `x [.., width]`. [`Gain`] says where it rounds.
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if mode.fused() { self.fused(x, mode.precision) } else { self.reference(x, mode.precision) }
    }

    fn rounds_before_scale(&self) -> bool {
        self.spec.kind == NormKind::Rms && self.spec.gain == Gain::Scale
    }

    fn reference(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        let x = match self.spec.kind {
            NormKind::Layer => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            NormKind::Rms => x.clone(),
        };
        let inverse = (x.sqr()?.mean_keepdim(D::Minus1)? + self.spec.eps)?.sqrt()?.recip()?;
        let mut x = x.broadcast_mul(&inverse)?;
        if self.rounds_before_scale() {
            x = precision.round(x)?;
        }
        if let Some(scale) = &self.scale {
            let one = if self.spec.gain == Gain::OnePlus { 1. } else { 0. };
            x = x.broadcast_mul(&(scale + one)?)?;
        }
        if let Some(shift) = &self.shift {
            x = x.broadcast_add(shift)?;
        }
        precision.round(x)
    }

    fn fused(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        let [scale, shift] = &self.rows;
        let (kind, eps, early) = (self.spec.kind, self.spec.eps as f32, self.rounds_before_scale());
        rows::map(
            x,
            "norm",
            #[inline(always)]
            |_, x, out| {
                let n = x.len() as f32;
                let mean = if kind == NormKind::Layer { sum(x, |v| v) / n } else { 0. };
                // Times the reciprocal root, as PyTorch does: the last bit decides on which side of a rounding boundary a
                // quantized activation falls, and a token's first norm falls the same way wherever the token stands.
                let inverse = 1. / (sum(x, |v| (v - mean) * (v - mean)) / n + eps).sqrt();
                for (o, v) in out.iter_mut().zip(x) {
                    *o = (v - mean) * inverse;
                }
                if early && precision != Precision::F32 {
                    out.iter_mut().for_each(|o| *o = precision.one(*o));
                }
                out.iter_mut().zip(scale).for_each(|(o, s)| *o *= s);
                out.iter_mut().zip(shift).for_each(|(o, s)| *o += s);
                if precision != Precision::F32 {
                    out.iter_mut().for_each(|o| *o = precision.one(*o));
                }
            },
        )
    }
}

/// Sum of `f(x)` in eight lanes: quick, and the same on every machine.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for chunk in whole {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            *lane += f(v);
        }
    }
    for (lane, &v) in lanes.iter_mut().zip(rest) {
        *lane += f(v);
    }
    lanes.iter().sum()
}

/// `x [tokens, in] -> [tokens, out]`, bias added before the one rounding.
pub fn linear(x: &Tensor, weight: &Weight, bias: Option<&Tensor>, mode: Mode) -> Result<Tensor> {
    mode.precision.round(matmul::linear(x, weight, bias)?)
}

/// The residual stream takes a branch's output in.
pub fn add(x: &Tensor, y: &Tensor, mode: Mode) -> Result<Tensor> {
    if !mode.fused() {
        return mode.precision.round((x + y)?);
    }
    let precision = mode.precision;
    rows::zip(
        x,
        y,
        "add",
        #[inline(always)]
        |x, y, out| {
            rounded!(precision, r => for ((o, x), y) in out.iter_mut().zip(x).zip(y) {
                *o = r(x + y);
            })
        },
    )
}

/// `cap * tanh(x / cap)`, rounded after each of its operations.
pub fn softcap(x: &Tensor, cap: f64, mode: Mode) -> Result<Tensor> {
    let p = mode.precision;
    if !mode.fused() {
        return p.round((p.round(p.round((x / cap)?)?.tanh()?)? * cap)?);
    }
    rows::map(
        x,
        "softcap",
        #[inline(always)]
        |_, x, out| {
            rounded!(p, r => out.iter_mut().zip(x).for_each(|(o, &x)| *o = capped(x, cap as f32, r)));
        },
    )
}

/// One number of [`softcap`], rounded by `r`.
#[inline(always)]
pub fn capped(x: f32, cap: f32, r: impl Fn(f32) -> f32) -> f32 {
    r(r(r(x / cap).tanh()) * cap)
}

/// `act(x)`.
pub fn activate(x: &Tensor, act: Act, mode: Mode) -> Result<Tensor> {
    if !mode.fused() {
        return mode.precision.round(match act {
            Act::Relu => x.relu()?,
            Act::Silu => x.silu()?,
            Act::Gelu => x.gelu_erf()?,
            Act::GeluTanh => x.gelu()?,
            Act::GeluNew | Act::GeluBloom => return gelu_by_steps(x, act, mode.precision),
        });
    }
    let precision = mode.precision;
    rows::map(
        x,
        "act",
        #[inline(always)]
        |_, x, out| {
            rounded!(precision, r => act_row(act, x, out, r));
        },
    )
}

/// `act(gate) * up`.
pub fn gate(gate: &Tensor, up: &Tensor, act: Act, mode: Mode) -> Result<Tensor> {
    if !mode.fused() {
        return mode.precision.round((activate(gate, act, mode)? * up)?);
    }
    let precision = mode.precision;
    rows::zip(
        gate,
        up,
        "gate",
        #[inline(always)]
        |g, u, out| {
            rounded!(precision, r => {
                act_row(act, g, out, r);
                out.iter_mut().zip(u).for_each(|(o, u)| *o = r(*o * u));
            })
        },
    )
}

/// `act(x)` for a row, rounded by `r`.
#[inline(always)]
fn act_row(act: Act, x: &[f32], out: &mut [f32], r: impl Fn(f32) -> f32 + Copy) {
    const ROOT: f32 = 0.797_884_6;
    let each = |out: &mut [f32], f: &dyn Fn(f32) -> f32| out.iter_mut().zip(x).for_each(|(o, &x)| *o = f(x));
    match act {
        Act::Relu => out.iter_mut().zip(x).for_each(|(o, x)| *o = x.max(0.)),
        Act::Silu => out.iter_mut().zip(x).for_each(|(o, x)| *o = r(x / (1. + float::exp(-x)))),
        Act::Gelu => each(out, &|x| r(0.5 * x * (1. + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)))),
        Act::GeluTanh => each(out, &|x| r(0.5 * x * (1. + (ROOT * (x + 0.044_715 * x * x * x)).tanh()))),
        Act::GeluNew => each(out, &|x| {
            let inner = r(x + r(0.044_715 * r(x * x * x)));
            let tanh = r(r(ROOT * inner).tanh());
            r(r(0.5 * x) * r(1. + tanh))
        }),
        Act::GeluBloom => each(out, &|x| {
            let inner = r(1. + r(r(0.044_715 * x) * x));
            let tanh = r(r(r(ROOT * x) * inner).tanh());
            r(r(0.5 * x) * r(1. + tanh))
        }),
    }
}

/// The last two of [`act_row`] as chains of candle operations.
fn gelu_by_steps(x: &Tensor, act: Act, p: Precision) -> Result<Tensor> {
    const ROOT: f64 = 0.797_884_6;
    let inner = if act == Act::GeluNew {
        let cube = p.round((p.round((x.sqr()? * x)?)? * 0.044_715)?)?;
        p.round((p.round((x + cube)?)? * ROOT)?)?
    } else {
        let square = p.round((p.round((x * 0.044_715)?)? * x)?)?;
        p.round((p.round((x * ROOT)?)? * p.round((square + 1.)?)?)?)?
    };
    let tanh = p.round(inner.tanh()?)?;
    p.round((p.round((x * 0.5)?)? * p.round((tanh + 1.)?)?)?)
}

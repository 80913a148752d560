//! Rotary positions: from a config's keys to frequencies, and from those to rotated heads.
//!
//! Features of a head turn in pairs, pair `i` at position `p` by the angle `p f_i` with `f_i = theta^(-2i / dims)`
//! (Su et al., 2021), and what stretches contexts changes `f`. Angles are f32, as in transformers.
use super::{
    attention::Span,
    ops::{Mode, Precision, rounded},
    spec::{Pairing, Position, RopeScaling, RopeSpec},
};
use crate::tensor::rows;
use anyhow::{Context, Result, bail, ensure};
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::Value;

/// What a family's configs leave unsaid.
#[derive(Clone, Copy, Debug)]
pub struct Unsaid {
    /// `rope_theta`.
    pub theta: f64,
    /// `partial_rotary_factor`, or as the family calls it.
    pub share: f64,
    /// Which features turn together.
    pub pairing: Pairing,
    /// See [`RopeSpec::once`].
    pub once: bool,
}

impl Unsaid {
    /// Base 10000, whole heads, first half with second half.
    pub const USUAL: Unsaid = Unsaid { theta: 10_000., share: 1., pairing: Pairing::Halves, once: false };
}

#[derive(Deserialize)]
struct Keys {
    rope_theta: Option<f64>,
    rope_scaling: Option<Scaling>,
    /// Since transformers 5, in place of the keys around it.
    rope_parameters: Option<Scaling>,
    partial_rotary_factor: Option<f64>,
    /// LongChat's own key, from before `rope_scaling`.
    rope_condense_ratio: Option<f64>,
    max_position_embeddings: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Deserialize, Clone)]
struct Scaling {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
}

/// Reads `rope_theta`, `rope_scaling`, `rope_parameters` and `partial_rotary_factor`.
///
/// # Errors
/// A kind of scaling that is not known, or one that lacks a key; the message names it.
pub fn position(config: &Value, head_dim: usize, unsaid: Unsaid) -> Result<Position> {
    // Both spellings of the kind in one table are common, and serde takes them for a repeated key.
    let mut config = config.clone();
    for table in ["rope_scaling", "rope_parameters"] {
        if let Some(keys) = config.get_mut(table).and_then(Value::as_object_mut)
            && keys.contains_key("rope_type")
        {
            keys.remove("type");
        }
    }
    let keys: Keys = super::families::read(&config)?;
    let table = keys.rope_parameters.as_ref().or(keys.rope_scaling.as_ref());
    let theta = table.and_then(|t| t.rope_theta).or(keys.rope_theta).unwrap_or(unsaid.theta);
    let share =
        table.and_then(|t| t.partial_rotary_factor).or(keys.partial_rotary_factor).unwrap_or(unsaid.share);
    ensure!((0. ..=1.).contains(&share), "`partial_rotary_factor` is {share}: it must be 0 to 1");
    // Down, as Python's `int` does; the product is exact enough for the shares that there are (0.25, 0.4, 0.5).
    let dims = (head_dim as f64 * share) as usize;
    let scaling = match table {
        Some(table) => table.scaling(&keys)?,
        None => RopeScaling::None,
    };
    // LongChat's configs say both; they mean one thing.
    let scaling = match (scaling, keys.rope_condense_ratio) {
        (RopeScaling::None, Some(ratio)) if ratio != 1. => RopeScaling::Linear(ratio),
        (scaling, _) => scaling,
    };
    Ok(Position::Rope(RopeSpec { theta, dims, pairing: unsaid.pairing, scaling, once: unsaid.once }))
}

impl Scaling {
    fn scaling(&self, keys: &Keys) -> Result<RopeScaling> {
        // Phi-3's first files call LongRoPE `yarn`.
        let kind = match self.rope_type.as_deref().unwrap_or("default") {
            "yarn" if self.short_factor.is_some() => "longrope",
            kind => kind,
        };
        let need = |value: Option<f64>, key: &str| {
            value.with_context(|| format!("`rope_scaling` is {kind}, but has no `{key}`"))
        };
        // Phi-3 says it outside of the table.
        let original = self.original_max_position_embeddings.or(keys.original_max_position_embeddings);
        Ok(match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear(need(self.factor, "factor")?),
            "llama3" => RopeScaling::Llama3 {
                factor: need(self.factor, "factor")?,
                low: need(self.low_freq_factor, "low_freq_factor")?,
                high: need(self.high_freq_factor, "high_freq_factor")?,
                original: need(
                    original.or(keys.max_position_embeddings),
                    "original_max_position_embeddings",
                )?,
            },
            "yarn" => {
                // Where the original context is not said, the config's is the original.
                let original =
                    need(original.or(keys.max_position_embeddings), "original_max_position_embeddings")?;
                let stretched = keys.max_position_embeddings.map(|longest| longest / original);
                let factor = need(self.factor.or(stretched), "factor")?;
                let mscale = |m: f64| if factor <= 1. { 1. } else { 0.1 * m * factor.ln() + 1. };
                let said = |x: Option<f64>| x.filter(|&x| x != 0.);
                let usual = match (said(self.mscale), said(self.mscale_all_dim)) {
                    (Some(a), Some(b)) => mscale(a) / mscale(b),
                    _ => mscale(1.),
                };
                RopeScaling::Yarn {
                    factor,
                    beta: (said(self.beta_fast).unwrap_or(32.), said(self.beta_slow).unwrap_or(1.)),
                    original,
                    truncate: self.truncate.unwrap_or(true),
                    attention: self.attention_factor.unwrap_or(usual),
                }
            }
            "longrope" | "su" => {
                let longest = need(keys.max_position_embeddings, "max_position_embeddings")?;
                let original = original.unwrap_or(longest);
                ensure!((1. ..=1e12).contains(&original), "`original_max_position_embeddings` is {original}");
                let factor = self.factor.unwrap_or(longest / original);
                let usual = if factor <= 1. { 1. } else { (1. + factor.ln() / original.ln()).sqrt() };
                let list = |list: &Option<Vec<f64>>, key: &str| {
                    list.clone().with_context(|| format!("`rope_scaling` is {kind}, but has no `{key}`"))
                };
                RopeScaling::Long {
                    short: list(&self.short_factor, "short_factor")?,
                    long: list(&self.long_factor, "long_factor")?,
                    original: original as usize,
                    attention: self.attention_factor.unwrap_or(usual),
                }
            }
            other => {
                bail!("`rope_scaling` of type `{other}`; there are: default, linear, llama3, longrope, yarn")
            }
        })
    }
}

impl RopeSpec {
    /// A frequency a pair, for a sequence of `length` tokens, and what cosines and sines are multiplied by. Sources: the
    /// functions `_compute_*_parameters` of transformers' `modeling_rope_utils.py`.
    pub fn frequencies(&self, length: usize) -> (Vec<f32>, f32) {
        let half = self.dims / 2;
        let power = |i: usize| (self.theta as f32).powf((2 * i) as f32 / self.dims as f32);
        let usual = (0..half).map(|i| 1. / power(i));
        match &self.scaling {
            RopeScaling::None => (usual.collect(), 1.),
            RopeScaling::Linear(factor) => (usual.map(|f| f / *factor as f32).collect(), 1.),
            RopeScaling::Llama3 { factor, low, high, original } => {
                let [factor, low, high, original] = [*factor, *low, *high, *original].map(|x| x as f32);
                let stretched = usual.map(|f| {
                    let wavelength = 2. * std::f32::consts::PI / f;
                    let smooth = (original / wavelength - low) / (high - low);
                    if wavelength > original / low {
                        f / factor
                    } else if wavelength < original / high {
                        f
                    } else {
                        (1. - smooth) * (f / factor) + smooth * f
                    }
                });
                (stretched.collect(), 1.)
            }
            RopeScaling::Yarn { factor, beta, original, truncate, attention } => {
                let turns = |n: f64| {
                    let n = original / (n * 2. * std::f64::consts::PI);
                    self.dims as f64 * n.ln() / (2. * self.theta.ln())
                };
                let (low, high) = (turns(beta.0), turns(beta.1));
                let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.), high.min(self.dims as f64 - 1.));
                let high = if low == high { high + 0.001 } else { high };
                let kept = |i: usize| 1. - ((i as f32 - low as f32) / (high - low) as f32).clamp(0., 1.);
                let frequency =
                    |i: usize| 1. / (*factor as f32 * power(i)) * (1. - kept(i)) + 1. / power(i) * kept(i);
                ((0..half).map(frequency).collect(), *attention as f32)
            }
            RopeScaling::Long { short, long, original, attention } => {
                let divisors = if length > *original { long } else { short };
                let frequency = |(i, d): (usize, &f64)| 1. / (*d as f32 * power(i));
                (divisors.iter().take(half).enumerate().map(frequency).collect(), *attention as f32)
            }
        }
    }
}

/// Cosines and sines of a pass: a row a token.
pub struct Rope {
    dims: usize,
    pairing: Pairing,
    once: bool,
    /// `[tokens, dims / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// For the queries of packed sequences; how long a sequence is, past included, may decide its frequencies.
    pub fn new(spec: &RopeSpec, spans: &[Span]) -> Self {
        let half = spec.dims / 2;
        let tokens: usize = spans.iter().map(|s| s.queries).sum();
        let (mut cos, mut sin) = (Vec::with_capacity(tokens * half), Vec::with_capacity(tokens * half));
        for span in spans {
            let (frequencies, attention) = spec.frequencies(span.len());
            for position in span.past()..span.len() {
                for f in &frequencies {
                    let (s, c) = (position as f32 * f).sin_cos();
                    cos.push(c * attention);
                    sin.push(s * attention);
                }
            }
        }
        Self { dims: spec.dims, pairing: spec.pairing, once: spec.once, cos, sin }
    }

    /// Rotates the first `dims` features of every head of `x [tokens, heads * head_dim]`.
    pub fn rotate(&self, x: &Tensor, head_dim: usize, mode: Mode) -> candle_core::Result<Tensor> {
        let (half, dims) = (self.dims / 2, self.dims);
        if self.once && mode.precision != Precision::F32 {
            let wide = Self { once: false, cos: self.cos.clone(), sin: self.sin.clone(), ..*self };
            let turned = wide.rotate(x, head_dim, Mode { precision: Precision::F32, ..mode })?;
            return mode.precision.round(turned);
        }
        let p = mode.precision;
        // The pair `i` is features `i * step` and `i * step + gap`.
        let (step, gap) = match self.pairing {
            Pairing::Halves => (1, half),
            Pairing::Neighbours => (2, 1),
        };
        if mode.fused() {
            return rows::map(
                x,
                "rope",
                #[inline(always)]
                |token, x, out| {
                    let at = token * half;
                    let (cos, sin) = (&self.cos[at..at + half], &self.sin[at..at + half]);
                    rounded!(p, r => for (x, out) in x.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)) {
                        out[dims..].copy_from_slice(&x[dims..]);
                        for i in 0..half {
                            let (c, s) = (r(cos[i]), r(sin[i]));
                            let (a, b) = (x[i * step], x[i * step + gap]);
                            out[i * step] = r(r(a * c) - r(b * s));
                            out[i * step + gap] = r(r(b * c) + r(a * s));
                        }
                    })
                },
            );
        }
        let (tokens, width) = x.dims2()?;
        let table = |table: &[f32]| p.round(Tensor::from_slice(table, (tokens, 1, half), x.device())?);
        let (cos, sin) = (table(&self.cos)?, table(&self.sin)?);
        let x = x.reshape((tokens, width / head_dim, head_dim))?;
        let heads = width / head_dim;
        let turning = x.narrow(2, 0, dims)?;
        let (a, b) = match self.pairing {
            Pairing::Halves => (turning.narrow(2, 0, half)?, turning.narrow(2, half, half)?),
            Pairing::Neighbours => {
                let pairs = turning.contiguous()?.reshape((tokens, heads, half, 2))?;
                (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?)
            }
        };
        let times = |x: &Tensor, y: &Tensor| p.round(x.broadcast_mul(y)?);
        let first = p.round((times(&a, &cos)? - times(&b, &sin)?)?)?;
        let second = p.round((times(&b, &cos)? + times(&a, &sin)?)?)?;
        let turned = match self.pairing {
            Pairing::Halves => Tensor::cat(&[first, second], 2)?,
            Pairing::Neighbours => Tensor::stack(&[first, second], 3)?.reshape((tokens, heads, dims))?,
        };
        let all = match head_dim - dims {
            0 => turned,
            rest => Tensor::cat(&[turned, x.narrow(2, dims, rest)?], 2)?,
        };
        all.reshape((tokens, width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What the fixtures leave out of YaRN: `mscale`, and a ramp between parts of dimensions. The numbers are transformers'
    /// (`ROPE_INIT_FUNCTIONS["yarn"]`).
    #[test]
    fn yarns_other_keys() {
        let cases = [
            (
                json!({ "mscale": 0.8, "mscale_all_dim": 0.5 }),
                [
                    1.0,
                    0.316227764,
                    0.0812500045,
                    0.0197642371,
                    0.00437500002,
                    0.000790569466,
                    0.000250000012,
                    7.90569466e-5,
                ],
                1.0388929752217428,
            ),
            (
                json!({ "truncate": false }),
                [
                    1.0,
                    0.316227764,
                    0.0853986368,
                    0.0191267766,
                    0.00355697144,
                    0.000790569466,
                    0.000250000012,
                    7.90569466e-5,
                ],
                1.138629436111989,
            ),
        ];
        for (extra, want, attention) in cases {
            let mut table = json!({
                "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 1024,
            });
            for (key, value) in extra.as_object().into_iter().flatten() {
                table[key] = value.clone();
            }
            let config = json!({ "max_position_embeddings": 4096, "rope_parameters": table });
            let Ok(Position::Rope(rope)) = position(&config, 16, Unsaid::USUAL) else { panic!("no rope") };
            let (got, factor) = rope.frequencies(1);
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(want) {
                assert!((f64::from(*got) / want - 1.).abs() < 1e-6, "{extra}: {got}, not {want}");
            }
            assert!((f64::from(factor) / attention - 1.).abs() < 1e-6, "{extra}: {factor}");
        }
    }
}

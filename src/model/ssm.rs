//! Selective state-space mixers: Mamba (Gu and Dao, 2023) and Mamba 2 (Dao and Gu, 2024).
//!
//! ```text
//! x -> in -> values, gate (, B, C, dt)        u = silu(conv(values))           Mamba: u -> x -> dt, B, C; dt -> dt
//! h_t = exp(dt_t A) h_(t-1) + dt_t B_t u_t    y_t = C_t h_t + D u_t            y * silu(gate) (, norm) -> out
//! ```
//! Both are one recurrence over channels with a state of fixed size; in Mamba 2 the channels of a head share `A`, `D` and
//! the time step, and groups of heads share `B` and `C`. Sources: transformers' `modeling_mamba.py`, `slow_forward`, and
//! `modeling_mamba2.py`. There is no cache of keys and values, and so nothing for a `kv` recipe to round.
use super::{
    attention::Span,
    cache::{Cache, State},
    linear::{Linear, Pass},
    ops::{self, Norm, Precision},
    spec::{Act, NormSpec, SsmKind, SsmPart, SsmSpec},
};
use crate::float::{exp, vectorized};
use anyhow::{Context, Result};
use candle_core::{D, Tensor};
use rayon::prelude::*;

/// Learned parameters that are no linear's.
#[derive(Clone)]
pub struct Ssm {
    /// `[channels, 1, conv]`.
    conv: Tensor,
    /// `[channels]`.
    conv_bias: Option<Tensor>,
    /// `[inner, state]` or `[heads]`.
    a_log: Tensor,
    /// `[inner]` or `[heads]`.
    d: Tensor,
    /// `[heads]`.
    dt_bias: Option<Tensor>,
    /// Mamba 2's, one a group of channels.
    norms: Vec<Norm>,
    /// The same, where loops can read them, a number a channel: what is spread over heads is spread here.
    flat: Flat,
}

#[derive(Clone)]
struct Flat {
    conv: Vec<f32>,
    conv_bias: Vec<f32>,
    /// `-exp(A_log)`, `[inner, state]`.
    a: Vec<f32>,
    d: Vec<f32>,
}

/// What each sequence's cache knows; `None` without caches.
#[derive(Clone, Copy)]
struct Pasts<'a>(Option<&'a [Option<State>]>);

impl<'a> Pasts<'a> {
    fn of(self, sequence: usize) -> Option<&'a State> {
        self.0?.get(sequence)?.as_ref()
    }
}

/// The linears of a mixer; Mamba 2 has no `x` and `dt`.
pub(super) struct Linears<'a> {
    pub into: &'a Linear,
    pub x: Option<&'a Linear>,
    pub dt: Option<&'a Linear>,
    pub out: &'a Linear,
}

impl Ssm {
    /// `get` gives a parameter, or `None` where the spec has none.
    ///
    /// # Errors
    /// A parameter that the spec has and `get` does not.
    pub fn new(spec: &SsmSpec, mut get: impl FnMut(SsmPart) -> Result<Option<Tensor>>) -> Result<Self> {
        let mut need = |part| get(part)?.with_context(|| format!("a state-space mixer without {part:?}"));
        let (conv, a_log, d) = (need(SsmPart::Conv)?, need(SsmPart::ALog)?, need(SsmPart::D)?);
        let norms = match spec.kind {
            SsmKind::Mamba2 { eps, groups, .. } => {
                let (scale, width) = (need(SsmPart::Norm)?, spec.inner / groups);
                let each = (0..groups).map(|g| {
                    Norm::new(
                        NormSpec::rms(eps),
                        Some(scale.narrow(0, g * width, width)?.contiguous()?),
                        None,
                    )
                });
                each.collect::<candle_core::Result<_>>()?
            }
            SsmKind::Mamba { .. } => Vec::new(),
        };
        let dt_bias = get(SsmPart::DtBias)?;
        let conv_bias = get(SsmPart::ConvBias)?;
        Self::of(spec, conv, conv_bias, a_log, d, dt_bias, norms)
    }

    fn of(
        spec: &SsmSpec,
        conv: Tensor,
        conv_bias: Option<Tensor>,
        a_log: Tensor,
        d: Tensor,
        dt_bias: Option<Tensor>,
        norms: Vec<Norm>,
    ) -> Result<Self> {
        let list = |t: &Tensor| t.detach().flatten_all()?.to_vec1::<f32>();
        let (a, d_flat) = (list(&a_log)?, list(&d)?);
        let spread = |x: Vec<f32>, each: usize| -> Vec<f32> {
            x.into_iter().flat_map(|x| std::iter::repeat_n(x, each)).collect()
        };
        let (a, d_flat) = match spec.kind {
            SsmKind::Mamba { .. } => (a, d_flat),
            SsmKind::Mamba2 { heads, .. } => {
                let width = spec.inner / heads;
                (spread(a, width * spec.state), spread(d_flat, width))
            }
        };
        let flat = Flat {
            conv: list(&conv)?,
            conv_bias: conv_bias.as_ref().map_or(Ok(Vec::new()), list)?,
            a: a.into_iter().map(|a| -a.exp()).collect(),
            d: d_flat,
        };
        Ok(Self { conv, conv_bias, a_log, d, dt_bias, norms, flat })
    }

    /// The same with its parameters rounded.
    pub fn rounded(&self, spec: &SsmSpec, precision: Precision) -> Result<Self> {
        let round = |t: &Tensor| precision.round(t.clone());
        Self::of(
            spec,
            round(&self.conv)?,
            self.conv_bias.as_ref().map(round).transpose()?,
            round(&self.a_log)?,
            round(&self.d)?,
            self.dt_bias.as_ref().map(round).transpose()?,
            self.norms.iter().map(|n| n.rounded(precision)).collect::<candle_core::Result<_>>()?,
        )
    }

    /// `[tokens, hidden]` to the same shape. With caches, one a sequence, each goes on where its cache ends.
    pub(super) fn forward(
        &self,
        spec: &SsmSpec,
        linears: &Linears,
        x: &Tensor,
        pass: &mut Pass,
        caches: Option<(&mut [Cache], usize)>,
    ) -> Result<Tensor> {
        let mode = pass.mode;
        let (inner, n) = (spec.inner, spec.state);
        let all = linears.into.forward(x, pass)?;
        let width = spec.channels();
        let (values, gate, dt) = match spec.kind {
            SsmKind::Mamba { .. } => (all.narrow(1, 0, inner)?, all.narrow(1, inner, inner)?, None),
            SsmKind::Mamba2 { heads, .. } => (
                all.narrow(1, inner, width)?,
                all.narrow(1, 0, inner)?,
                Some(all.narrow(1, inner + width, heads)?),
            ),
        };
        let past = caches.as_ref().map(|(c, b)| c.iter().map(|c| c.state(*b).cloned()).collect::<Vec<_>>());
        let past = Pasts(past.as_deref());
        let gate = gate.contiguous()?;
        let values = values.contiguous()?;
        let u = ops::activate(
            &mode.precision.round(self.convolve(spec, &values, &pass.spans, past, mode)?)?,
            Act::Silu,
            mode,
        )?;
        let (u, b, c, dt) = match (&spec.kind, dt) {
            (SsmKind::Mamba { rank }, _) => {
                let (to_x, to_dt) =
                    (linears.x.context("Mamba without x")?, linears.dt.context("Mamba without dt")?);
                let x = to_x.forward(&u, pass)?;
                let dt = to_dt.forward(&x.narrow(1, 0, *rank)?.contiguous()?, pass)?;
                let (b, c) = (x.narrow(1, *rank, n)?, x.narrow(1, rank + n, n)?);
                (u, b, c, mode.precision.round(softplus(&dt)?)?)
            }
            (SsmKind::Mamba2 { heads, groups, dt: limits, .. }, Some(dt)) => {
                let bias = self.dt_bias.as_ref().context("Mamba 2 without a bias of its time step")?;
                let dt = softplus(&dt.broadcast_add(bias)?)?.clamp(limits.0, limits.1)?;
                let tokens = dt.dim(0)?;
                let each = inner / heads;
                let dt = dt.unsqueeze(2)?.broadcast_as((tokens, *heads, each))?.reshape((tokens, inner))?;
                let wide = groups * n;
                (u.narrow(1, 0, inner)?, u.narrow(1, inner, wide)?, u.narrow(1, inner + wide, wide)?, dt)
            }
            (SsmKind::Mamba2 { .. }, None) => anyhow::bail!("Mamba 2 without a time step"),
        };
        let (y, states) = match mode.fused() {
            true => self.scan(spec, &u, &dt, &b, &c, &pass.spans, past)?,
            false => self.scan_by_steps(spec, &u, &dt, &b, &c, &pass.spans, past)?,
        };
        if let Some((caches, block)) = caches {
            for (i, ((cache, s), state)) in caches.iter_mut().zip(&pass.spans).zip(states).enumerate() {
                let tail = self.tail(spec, &values.narrow(0, s.query, s.queries)?, past.of(i))?;
                cache.set_state(block, State { tail, state })?;
            }
        }
        let y = mode.precision.round(y)?;
        let gated = match self.norms.is_empty() {
            true => mode.precision.round((y * ops::activate(&gate, Act::Silu, mode)?)?)?,
            // Mamba 2 gates before it normalizes, in f32.
            false => {
                let y = (y * gate.silu()?)?;
                let width = inner / self.norms.len();
                let each = self
                    .norms
                    .iter()
                    .enumerate()
                    .map(|(g, norm)| norm.forward(&y.narrow(1, g * width, width)?.contiguous()?, mode));
                Tensor::cat(&each.collect::<candle_core::Result<Vec<_>>>()?, 1)?
            }
        };
        linears.out.forward(&gated, pass)
    }

    /// Causal, a filter a channel: `[tokens, channels]` to the same shape.
    fn convolve(
        &self,
        spec: &SsmSpec,
        x: &Tensor,
        spans: &[Span],
        past: Pasts,
        mode: ops::Mode,
    ) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let taps = spec.conv;
        if !mode.fused() {
            let mut parts = Vec::new();
            for (i, s) in spans.iter().enumerate() {
                let before = match past.of(i) {
                    Some(p) => Tensor::from_slice(&p.tail, (taps - 1, width), x.device())?,
                    None => Tensor::zeros((taps - 1, width), x.dtype(), x.device())?,
                };
                let padded = Tensor::cat(&[before, x.narrow(0, s.query, s.queries)?], 0)?;
                let mut sum = padded.narrow(0, 0, s.queries)?.zeros_like()?;
                for tap in 0..taps {
                    let filter = self.conv.narrow(2, tap, 1)?.reshape((1, width))?;
                    sum = (sum + padded.narrow(0, tap, s.queries)?.broadcast_mul(&filter)?)?;
                }
                parts.push(sum);
            }
            let sum = Tensor::cat(&parts, 0)?;
            return Ok(match &self.conv_bias {
                Some(bias) => sum.broadcast_add(bias)?,
                None => sum,
            });
        }
        let input = x.flatten_all()?.to_vec1::<f32>()?;
        let mut out = vec![0f32; tokens * width];
        let own = |(i, s): (usize, &Span)| std::iter::repeat_n((i, s.query), s.queries);
        let own: Vec<(usize, usize)> = spans.iter().enumerate().flat_map(own).collect();
        let flat = &self.flat;
        out.par_chunks_mut(width).enumerate().for_each(|(t, row)| {
            let (sequence, first) = own[t];
            for (tap, back) in (0..taps).rev().enumerate() {
                // The row `back` tokens ago: of this pass, of the cache, or nothing.
                let from = match (t - first).checked_sub(back) {
                    Some(_) => &input[(t - back) * width..][..width],
                    None => match past.of(sequence) {
                        Some(p) => &p.tail[(taps - 1 - (back - (t - first))) * width..][..width],
                        None => continue,
                    },
                };
                for (ch, (o, x)) in row.iter_mut().zip(from).enumerate() {
                    *o += x * flat.conv[ch * taps + tap];
                }
            }
            row.iter_mut().zip(&flat.conv_bias).for_each(|(o, b)| *o += b);
        });
        Ok(Tensor::from_vec(out, (tokens, width), x.device())?)
    }

    /// The last `conv - 1` inputs of the convolution, the cache's among them.
    fn tail(&self, spec: &SsmSpec, x: &Tensor, past: Option<&State>) -> Result<Vec<f32>> {
        let (tokens, width) = x.dims2()?;
        let keep = (spec.conv - 1) * width;
        let mut all = match past {
            Some(p) => p.tail.clone(),
            None => vec![0.; keep],
        };
        let recent = tokens.min(spec.conv - 1);
        all.extend(x.narrow(0, tokens - recent, recent)?.flatten_all()?.to_vec1::<f32>()?);
        Ok(all.split_off(all.len() - keep))
    }

    /// The recurrence as one loop a channel, in parallel over channels: `y [tokens, inner]`, and with caches the
    /// state after each sequence's last token.
    #[allow(clippy::too_many_arguments)]
    fn scan(
        &self,
        spec: &SsmSpec,
        u: &Tensor,
        dt: &Tensor,
        b: &Tensor,
        c: &Tensor,
        spans: &[Span],
        past: Pasts,
    ) -> Result<(Tensor, Vec<Vec<f32>>)> {
        let (tokens, inner) = u.dims2()?;
        let n = spec.state;
        let columns = |x: &Tensor| x.t()?.contiguous()?.flatten_all()?.to_vec1::<f32>();
        let rows = |x: &Tensor| x.contiguous()?.flatten_all()?.to_vec1::<f32>();
        let (u_all, dt_all, b, c) = (columns(u)?, columns(dt)?, rows(b)?, rows(c)?);
        let groups = b.len() / (tokens * n);
        let mut y = vec![0f32; inner * tokens];
        // [inner, sequences, state]; without caches one that each sequence begins anew.
        let kept = past.0.map_or(1, <[_]>::len);
        let mut states = vec![0f32; inner * kept * n];
        let flat = &self.flat;
        y.par_chunks_mut(tokens).zip(states.par_chunks_mut(kept * n)).enumerate().for_each(
            |(ch, (y, states))| {
                vectorized(
                    #[inline(always)]
                    || {
                        let (a, d) = (&flat.a[ch * n..][..n], flat.d[ch]);
                        let group = ch * groups / inner;
                        for (i, s) in spans.iter().enumerate() {
                            let state = &mut states[i % kept * n..][..n];
                            match past.of(i) {
                                Some(p) => state.copy_from_slice(&p.state[ch * n..][..n]),
                                None => state.fill(0.),
                            }
                            for t in s.query..s.query + s.queries {
                                let (u, dt) = (u_all[ch * tokens + t], dt_all[ch * tokens + t]);
                                let at = (t * groups + group) * n;
                                let (b, c) = (&b[at..at + n], &c[at..at + n]);
                                let mut sum = 0.;
                                for j in 0..n {
                                    state[j] = exp(dt * a[j]) * state[j] + dt * b[j] * u;
                                    sum += state[j] * c[j];
                                }
                                y[t] = sum + d * u;
                            }
                        }
                    },
                );
            },
        );
        let y = Tensor::from_vec(y, (inner, tokens), u.device())?.t()?.contiguous()?;
        let of = |i: usize| states.chunks(kept * n).flat_map(|c| c[i * n..][..n].iter().copied()).collect();
        Ok((y, past.0.map_or_else(Vec::new, |p| (0..p.len()).map(of).collect())))
    }

    /// The same as a chain of candle operations, a step a token.
    #[allow(clippy::too_many_arguments)]
    fn scan_by_steps(
        &self,
        spec: &SsmSpec,
        u: &Tensor,
        dt: &Tensor,
        b: &Tensor,
        c: &Tensor,
        spans: &[Span],
        past: Pasts,
    ) -> Result<(Tensor, Vec<Vec<f32>>)> {
        let (tokens, inner) = u.dims2()?;
        let n = spec.state;
        let device = u.device();
        // From heads to channels, so that both mixers are one recurrence.
        let (a, d) = match spec.kind {
            SsmKind::Mamba { .. } => (self.a_log.clone(), self.d.clone()),
            SsmKind::Mamba2 { heads, .. } => {
                let each = inner / heads;
                let a = self.a_log.reshape((heads, 1, 1))?.broadcast_as((heads, each, n))?;
                let d = self.d.reshape((heads, 1))?.broadcast_as((heads, each))?;
                (a.reshape((inner, n))?, d.reshape(inner)?)
            }
        };
        let a = a.exp()?.neg()?;
        let groups = b.dim(1)? / n;
        // [tokens, groups * n] -> [tokens, inner, n]
        let spread = |x: &Tensor| -> Result<Tensor> {
            let x = x.contiguous()?.reshape((tokens, groups, 1, n))?;
            Ok(x.broadcast_as((tokens, groups, inner / groups, n))?.reshape((tokens, inner, n))?)
        };
        let (b, c) = (spread(b)?, spread(c)?);
        let mut outs = Vec::with_capacity(tokens);
        let zero = Tensor::zeros((inner, n), u.dtype(), device)?;
        let mut states = Vec::new();
        for (i, s) in spans.iter().enumerate() {
            let mut state = match past.of(i) {
                Some(p) => Tensor::from_slice(&p.state, (inner, n), device)?,
                None => zero.clone(),
            };
            for t in s.query..s.query + s.queries {
                let (u, dt) = (u.get(t)?, dt.get(t)?.unsqueeze(1)?);
                let kept = (a.broadcast_mul(&dt)?.exp()? * &state)?;
                let added = b.get(t)?.broadcast_mul(&(&dt * u.unsqueeze(1)?)?)?;
                state = (kept + added)?;
                outs.push(((&state * c.get(t)?)?.sum(D::Minus1)? + (&d * u)?)?);
            }
            if past.0.is_some() {
                states.push(state.detach().flatten_all()?.to_vec1::<f32>()?);
            }
        }
        Ok((Tensor::stack(&outs, 0)?, states))
    }
}

/// `ln(1 + e^x)`, without overflow.
fn softplus(x: &Tensor) -> Result<Tensor> {
    let rest = (x.abs()?.neg()?.exp()? + 1.)?.log()?;
    Ok((x.relu()? + rest)?)
}

//! Causal attention over packed sequences: grouped heads, windows, ALiBi, soft caps.
//!
//! Only attention knows where sequences end: tokens of many form one matrix, and [`Span`]s say which rows belong
//! together. The fused form walks blocks of queries, keeps their scores in a buffer that fits the cache, and never
//! writes the whole score matrix. A block's arithmetic depends on its own sequence alone.
use super::{
    ops::{self, Kernels, Mode, Precision, exp},
    spec::{AlibiTerm, AttentionSpec, Position, Scaled},
};
use crate::tensor::{
    matmul::{View, small},
    rows,
};
use candle_core::{CpuStorage, CustomOp3, D, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::cell::RefCell;

/// Rows of one sequence: its queries, and all the keys that they may see. The last query belongs to the last key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Span {
    pub query: usize,
    pub queries: usize,
    pub key: usize,
    pub keys: usize,
}

/// Keys and values as attention reads them, `[tokens, kv_heads * head_dim]`.
pub struct Kv<'a> {
    /// As computed.
    pub exact: (&'a Tensor, &'a Tensor),
    /// As a [`KvMap`](super::seam::KvMap) gives them back, and how many of the newest tokens are read exactly.
    pub mapped: Option<(&'a Tensor, &'a Tensor, usize)>,
}

/// `q [tokens, heads * head_dim]` to the same shape.
pub fn attend(spec: &AttentionSpec, q: &Tensor, kv: &Kv, spans: &[Span], mode: Mode) -> Result<Tensor> {
    let (k, v) = match kv.mapped {
        Some((k, v, 0)) => (k, v),
        Some((k, v, residual)) => return reference(spec, q, (k, v), Some((kv.exact, residual)), spans, mode),
        None => kv.exact,
    };
    if mode.kernels == Kernels::Reference {
        return reference(spec, q, (k, v), None, spans, mode);
    }
    let q = match spec.scaled {
        Scaled::Queries => mode.precision.round((q * spec.scale)?)?,
        _ => q.contiguous()?,
    };
    let op = Fused { spec, spans, precision: mode.precision };
    q.apply_op3_no_bwd(&k.contiguous()?, &v.contiguous()?, &op)
}

/// ALiBi's slope of each head (Press et al., 2022; for head counts that are no power of two, `build_alibi_tensor` of
/// transformers' BLOOM, which MPT's code agrees with). `max` is 8 in the paper.
pub fn slopes(heads: usize, max: f64) -> Vec<f32> {
    let power = if heads.is_power_of_two() { heads } else { heads.next_power_of_two() / 2 };
    let base = |n: usize| 2f64.powf(-max / n as f64);
    let regular = (1..=power).map(|i| base(power).powi(i as i32));
    let extra = (0..heads - power).map(|i| base(2 * power).powi(2 * i as i32 + 1));
    regular.chain(extra).map(|s| s as f32).collect()
}

/// ALiBi's term for a head of this slope and a key at this position, rounded as the family stores it and as the pass does.
#[inline(always)]
fn alibi_term(slope: f32, position: usize, term: AlibiTerm, pass: Precision) -> f32 {
    let short = Precision::BF16;
    match term {
        AlibiTerm::Rounded => pass.one(pass.one(slope) * position as f32),
        AlibiTerm::Bf16 => pass.one(short.one(short.one(slope) * short.one(position as f32))),
        AlibiTerm::Wide => slope * position as f32,
    }
}

/// The first key that a query at `position` sees.
fn first_key(window: Option<usize>, position: usize) -> usize {
    window.map_or(0, |w| (position + 1).saturating_sub(w))
}

/// Chains of candle operations, a score matrix a sequence. With `exact`, tokens newer than the residual are read from it.
fn reference(
    spec: &AttentionSpec,
    q: &Tensor,
    kv: (&Tensor, &Tensor),
    exact: Option<((&Tensor, &Tensor), usize)>,
    spans: &[Span],
    mode: Mode,
) -> Result<Tensor> {
    let Some(&one) = spans.first() else { return q.zeros_like() };
    let uniform = spans
        .iter()
        .enumerate()
        .all(|(i, s)| *s == Span { query: i * one.queries, key: i * one.keys, ..one });
    let groups: Vec<(&[Span], usize)> =
        if uniform { vec![(spans, spans.len())] } else { spans.chunks(1).map(|s| (s, 1)).collect() };
    let mut parts = Vec::with_capacity(groups.len());
    for (spans, count) in groups {
        let s = spans[0];
        // [tokens, heads * d] -> [sequences, heads, tokens, d]
        let split =
            |x: &Tensor, start: usize, len: usize, heads: usize| -> Result<Tensor> {
                let x = x.narrow(0, start, count * len)?.reshape((count, len, heads, spec.head_dim))?;
                let x = x.transpose(1, 2)?;
                let each = spec.heads / heads;
                if each == 1 {
                    return x.contiguous();
                }
                x.unsqueeze(2)?
                    .broadcast_as((count, heads, each, len, spec.head_dim))?
                    .contiguous()?
                    .reshape((count, spec.heads, len, spec.head_dim))
            };
        let round = |x: Tensor| mode.precision.round(x);
        let mut query = split(q, s.query, s.queries, spec.heads)?;
        if spec.scaled == Scaled::Queries {
            query = round((query * spec.scale)?)?;
        }
        let scores = |k: &Tensor| -> Result<Tensor> {
            let k = split(k, s.key, s.keys, spec.kv_heads)?;
            let raw = query.matmul(&k.t()?.contiguous()?)?;
            match spec.scaled {
                Scaled::Scores => round((round(raw)? * spec.scale)?),
                Scaled::Queries | Scaled::Sum => round(raw),
                Scaled::WithAlibi | Scaled::Wide => raw * spec.scale,
            }
        };
        let old = match exact {
            Some((_, residual)) => Some(old_keys(s, residual, q.device())?),
            None => None,
        };
        let mut score = scores(kv.0)?;
        if let (Some(((k, _), _)), Some(old)) = (exact, &old) {
            score = old.broadcast_as(score.shape())?.where_cond(&score, &scores(k)?)?;
        }
        if let Position::Alibi { max, term } = spec.position {
            let bias = alibi(slopes(spec.heads, max), s.keys, term, mode.precision, q.device())?;
            score = score.broadcast_add(&bias)?;
            if spec.scaled == Scaled::Sum {
                score = (score * spec.scale)?;
            }
            if term != AlibiTerm::Wide {
                score = round(score)?;
            }
        }
        if let Some(cap) = spec.softcap {
            score = ops::softcap(&score, cap, mode)?;
        }
        let score = score.broadcast_add(&mask(spec.window, s, q.device())?)?;
        let top = score.max_keepdim(D::Minus1)?.detach();
        let p = score.broadcast_sub(&top)?.exp()?;
        let p = mode.precision.round(p.broadcast_div(&p.sum_keepdim(D::Minus1)?)?)?;
        let v = split(kv.1, s.key, s.keys, spec.kv_heads)?;
        let out = match (exact, &old) {
            (Some(((_, v_exact), _)), Some(old)) => {
                let v_exact = split(v_exact, s.key, s.keys, spec.kv_heads)?;
                let (old, none) = (old.broadcast_as(p.shape())?, p.zeros_like()?);
                (old.where_cond(&p, &none)?.matmul(&v)? + old.where_cond(&none, &p)?.matmul(&v_exact)?)?
            }
            _ => p.matmul(&v)?,
        };
        let out = mode.precision.round(out)?;
        parts.push(out.transpose(1, 2)?.reshape((count * s.queries, spec.heads * spec.head_dim))?);
    }
    Tensor::cat(&parts, 0)
}

/// `[queries, keys]`, 0 where a query sees a key and minus infinity elsewhere.
fn mask(window: Option<usize>, s: Span, device: &Device) -> Result<Tensor> {
    let mut mask = vec![f32::NEG_INFINITY; s.queries * s.keys];
    for (i, row) in mask.chunks_mut(s.keys).enumerate() {
        let position = s.keys - s.queries + i;
        row[first_key(window, position)..=position].fill(0.);
    }
    Tensor::from_vec(mask, (s.queries, s.keys), device)
}

/// `[queries, keys]`, 1 where a key is older than the residual window of a query.
fn old_keys(s: Span, residual: usize, device: &Device) -> Result<Tensor> {
    let old = |i: usize, j: usize| u8::from(j + residual <= s.keys - s.queries + i);
    let cells = (0..s.queries).flat_map(|i| (0..s.keys).map(move |j| old(i, j))).collect();
    Tensor::from_vec(cells, (s.queries, s.keys), device)
}

fn alibi(
    slopes: Vec<f32>,
    keys: usize,
    term: AlibiTerm,
    precision: Precision,
    device: &Device,
) -> Result<Tensor> {
    let heads = slopes.len();
    let bias =
        slopes.into_iter().flat_map(|s| (0..keys).map(move |j| alibi_term(s, j, term, precision))).collect();
    Tensor::from_vec(bias, (heads, 1, keys), device)
}

struct Fused<'a> {
    spec: &'a AttentionSpec,
    spans: &'a [Span],
    precision: Precision,
}

/// Queries of a block: with 2048 keys its scores are 512 KB, which a core's own cache holds.
const BLOCK: usize = 64;

impl CustomOp3 for Fused<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (rows::slice(s1, l1)?, rows::slice(s2, l2)?, rows::slice(s3, l3)?);
        let width = self.spec.heads * self.spec.head_dim;
        let mut out = vec![0f32; q.len()];
        let mut blocks = Vec::new();
        let mut rest = out.as_mut_slice();
        for &span in self.spans {
            for first in (0..span.queries).step_by(BLOCK) {
                let rows = BLOCK.min(span.queries - first);
                let (here, later) = rest.split_at_mut(rows * width);
                rest = later;
                blocks.push((span, first, here));
            }
        }
        let slopes = match self.spec.position {
            Position::Alibi { max, .. } => slopes(self.spec.heads, max),
            _ => Vec::new(),
        };
        blocks.into_par_iter().for_each(|(span, first, out)| self.block(span, first, &slopes, q, k, v, out));
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

impl Fused<'_> {
    /// All heads of one block of queries; `out [rows, heads * head_dim]`.
    #[allow(clippy::too_many_arguments)]
    fn block(&self, s: Span, first: usize, slopes: &[f32], q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        thread_local! { static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) } }
        let (spec, p) = (self.spec, self.precision);
        let (d, width, kv_width) = (spec.head_dim, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim);
        let rows = out.len() / width;
        let position = s.keys - s.queries + first;
        let low = first_key(spec.window, position);
        let keys = position + rows - low;
        SCORES.with_borrow_mut(|scores| {
            scores.resize(scores.len().max(rows * keys), 0.);
            let scores = &mut scores[..rows * keys];
            for head in 0..spec.heads {
                let kv_at = (s.key + low) * kv_width + head / (spec.heads / spec.kv_heads) * d;
                let queries = View { data: &q[(s.query + first) * width + head * d..], row: width, col: 1 };
                let scale = match spec.scaled {
                    Scaled::Queries | Scaled::Sum => 1.,
                    Scaled::Scores if p != Precision::F32 => 1.,
                    _ => spec.scale as f32,
                };
                let keys_t = View { data: &k[kv_at..], row: 1, col: kv_width };
                small(scores, keys, (rows, keys, d), scale, queries, keys_t);
                let arch = pulp::Arch::new();
                for (i, row) in scores.chunks_exact_mut(keys).enumerate() {
                    match spec.scaled {
                        _ if p == Precision::F32 => {}
                        Scaled::Scores => {
                            row.iter_mut().for_each(|x| *x = p.one(p.one(*x) * spec.scale as f32))
                        }
                        Scaled::Queries | Scaled::Sum => row.iter_mut().for_each(|x| *x = p.one(*x)),
                        Scaled::WithAlibi | Scaled::Wide => {}
                    }
                    if let Position::Alibi { term, .. } = spec.position {
                        let scale = if spec.scaled == Scaled::Sum { spec.scale as f32 } else { 1. };
                        for (j, x) in row.iter_mut().enumerate() {
                            let sum = (*x + alibi_term(slopes[head], low + j, term, p)) * scale;
                            *x = if term == AlibiTerm::Wide { sum } else { p.one(sum) };
                        }
                    }
                    if let Some(cap) = spec.softcap {
                        ops::rounded!(p, r => row.iter_mut().for_each(|x| *x = ops::capped(*x, cap as f32, r)));
                    }
                    let from = first_key(spec.window, position + i) - low;
                    arch.dispatch(|| softmax(row, from, position + i + 1 - low));
                    if p != Precision::F32 {
                        row.iter_mut().for_each(|x| *x = p.one(*x));
                    }
                }
                let values = View { data: &v[kv_at..], row: kv_width, col: 1 };
                let weights = View { data: scores, row: keys, col: 1 };
                small(&mut out[head * d..], width, (rows, d, keys), 1., weights, values);
            }
        });
        if p != Precision::F32 {
            out.iter_mut().for_each(|x| *x = p.one(*x));
        }
    }
}

/// Softmax over `row[from..to]`, zero elsewhere.
#[inline(always)]
fn softmax(row: &mut [f32], from: usize, to: usize) {
    row[..from].fill(0.);
    row[to..].fill(0.);
    let row = &mut row[from..to];
    // Eight lanes, always: the same bits on every machine.
    let (chunks, rest) = row.as_chunks::<8>();
    let mut tops = [f32::NEG_INFINITY; 8];
    for chunk in chunks {
        (0..8).for_each(|i| tops[i] = tops[i].max(chunk[i]));
    }
    let top = tops.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = exp(*x - top));
    let mut lanes = [0f32; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        (0..8).for_each(|i| lanes[i] += chunk[i]);
    }
    rest.iter().enumerate().for_each(|(i, x)| lanes[i] += x);
    let inverse = 1. / lanes.iter().sum::<f32>();
    row.iter_mut().for_each(|x| *x *= inverse);
}

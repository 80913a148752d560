//! Causal attention over packed sequences: grouped heads, windows, ALiBi, soft caps.
//!
//! Only attention knows where sequences end, and which begin alike: tokens of many form one matrix, and [`Span`]s say which
//! rows belong together. Two forms: here the reference, a score matrix a sequence; in [`tiles`](super::tiles) the fused
//! one, which never writes that matrix.
use super::{
    ops::{self, Kernels, Mode, Precision},
    seam::{Age, RowMap},
    spec::{AlibiTerm, AttentionSpec, Position, Scaled},
    tiles,
};
use candle_core::{D, Device, Result, Tensor};
use std::ops::Range;

/// Tokens that stand one after another, and the keys that they may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first row of queries.
    pub query: usize,
    /// How many; the last belongs to the last key.
    pub queries: usize,
    /// Rows of keys, from the sequence's first on: what it shares with others lies wherever it was computed.
    pub keys: Vec<Range<usize>>,
}

impl Span {
    /// Tokens up to its last.
    pub fn len(&self) -> usize {
        self.keys.iter().map(ExactSizeIterator::len).sum()
    }

    /// Tokens before its first: that one's position.
    pub fn past(&self) -> usize {
        self.len() - self.queries
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keys and values as attention reads them, `[tokens, kv_heads * head_dim]`.
pub struct Kv<'a> {
    /// As computed.
    pub exact: (&'a Tensor, &'a Tensor),
    /// As a [`KvMap`](super::seam::KvMap) gives them back, and from when on each is read so.
    pub mapped: Option<(&'a Tensor, &'a Tensor, [Age; 2])>,
    /// What becomes of a query's probabilities.
    pub probabilities: Option<&'a dyn RowMap>,
}

/// Keys and values as they were, for tokens that are too new to be read as a map gives them back.
pub(super) type Newest<'a> = Option<((&'a Tensor, &'a Tensor), [Age; 2])>;

/// Bytes that the fused form copies keys and values to, at most at once, for these spans.
pub fn tile_bytes(spec: &AttentionSpec, spans: &[Span], precision: Precision) -> usize {
    tiles::bytes(spec, spans, precision != Precision::F32)
}

/// `q [tokens, heads * head_dim]` to the same shape.
pub fn attend(spec: &AttentionSpec, q: &Tensor, kv: &Kv, spans: &[Span], mode: Mode) -> Result<Tensor> {
    let ((k, v), newest) = match kv.mapped {
        Some((k, v, [Age::Newest(0), Age::Newest(0)])) => ((k, v), None),
        Some((k, v, ages)) => ((k, v), Some((kv.exact, ages))),
        None => (kv.exact, None),
    };
    match mode.kernels {
        Kernels::Reference => reference(spec, q, (k, v), newest, kv.probabilities, spans, mode),
        Kernels::Fused => tiles::attend(spec, q, (k, v), newest, kv.probabilities, spans, mode.precision),
    }
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
pub(super) fn alibi_term(slope: f32, position: usize, term: AlibiTerm, pass: Precision) -> f32 {
    let short = Precision::BF16;
    match term {
        AlibiTerm::Rounded => pass.one(pass.one(slope) * position as f32),
        AlibiTerm::Bf16 => pass.one(short.one(short.one(slope) * short.one(position as f32))),
        AlibiTerm::Wide => slope * position as f32,
    }
}

/// The first key that a query at `position` sees.
pub(super) fn first_key(window: Option<usize>, position: usize) -> usize {
    window.map_or(0, |w| (position + 1).saturating_sub(w))
}

/// Chains of candle operations, a score matrix a sequence. With `exact`, tokens that are too new are read from it.
fn reference(
    spec: &AttentionSpec,
    q: &Tensor,
    kv: (&Tensor, &Tensor),
    exact: Newest,
    probabilities: Option<&dyn RowMap>,
    spans: &[Span],
    mode: Mode,
) -> Result<Tensor> {
    let Some(one) = spans.first() else { return q.zeros_like() };
    let (all, each) = (one.len(), one.queries);
    let uniform = spans.iter().enumerate().all(|(i, s)| {
        s.query == i * each
            && s.queries == each
            && matches!(&s.keys[..], [keys] if *keys == (i * all..(i + 1) * all))
    });
    let groups: Vec<&[Span]> = if uniform { vec![spans] } else { spans.chunks(1).collect() };
    let mut parts = Vec::with_capacity(groups.len());
    for spans in groups {
        let (s, count) = (&spans[0], spans.len());
        let queries = q.narrow(0, s.query, count * s.queries)?;
        let keys = |x: &Tensor| -> Result<Tensor> {
            match &s.keys[..] {
                [one] => x.narrow(0, one.start, count * one.len()),
                pieces => Tensor::cat(
                    &pieces.iter().map(|p| x.narrow(0, p.start, p.len())).collect::<Result<Vec<_>>>()?,
                    0,
                ),
            }
        };
        // [tokens, heads * d] -> [sequences, heads, tokens, d]
        let split =
            |x: &Tensor, len: usize, heads: usize| -> Result<Tensor> {
                let x = x.reshape((count, len, heads, spec.head_dim))?;
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
        let mut query = split(&queries, s.queries, spec.heads)?;
        if spec.scaled == Scaled::Queries {
            query = round((query * spec.scale)?)?;
        }
        let scores = |k: &Tensor| -> Result<Tensor> {
            let k = split(&keys(k)?, s.len(), spec.kv_heads)?;
            let raw = query.matmul(&k.t()?.contiguous()?)?;
            match spec.scaled {
                Scaled::Scores => round((round(raw)? * spec.scale)?),
                Scaled::Queries | Scaled::Sum => round(raw),
                Scaled::WithAlibi | Scaled::Wide => raw * spec.scale,
            }
        };
        let old = match exact {
            Some((_, [keys, values])) => {
                Some([old_keys(s, keys, q.device())?, old_keys(s, values, q.device())?])
            }
            None => None,
        };
        let mut score = scores(kv.0)?;
        if let (Some(((k, _), _)), Some([old, _])) = (exact, &old) {
            score = old.broadcast_as(score.shape())?.where_cond(&score, &scores(k)?)?;
        }
        if let Position::Alibi { max, term } = spec.position {
            let bias = alibi(slopes(spec.heads, max), s.len(), term, mode.precision, q.device())?;
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
        let p = match probabilities {
            Some(map) => seen(&p, s, spec.window, map)?,
            None => p,
        };
        let v = split(&keys(kv.1)?, s.len(), spec.kv_heads)?;
        let out = match (exact, &old) {
            (Some(((_, v_exact), _)), Some([_, old])) => {
                let v_exact = split(&keys(v_exact)?, s.len(), spec.kv_heads)?;
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
fn mask(window: Option<usize>, s: &Span, device: &Device) -> Result<Tensor> {
    let keys = s.len();
    let mut mask = vec![f32::NEG_INFINITY; s.queries * keys];
    for (i, row) in mask.chunks_mut(keys).enumerate() {
        let position = keys - s.queries + i;
        row[first_key(window, position)..=position].fill(0.);
    }
    Tensor::from_vec(mask, (s.queries, keys), device)
}

/// Probabilities `[.., queries, keys]` after a map of what each query sees.
fn seen(p: &Tensor, s: &Span, window: Option<usize>, map: &dyn RowMap) -> Result<Tensor> {
    let (keys, past) = (s.len(), s.past());
    let mut all = p.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    for (i, row) in all.chunks_exact_mut(keys).enumerate() {
        let position = past + i % s.queries;
        map.map(&mut row[first_key(window, position)..=position]);
    }
    Tensor::from_vec(all, p.shape(), p.device())
}

/// `[queries, keys]`, 1 where a key is old enough for a query.
fn old_keys(s: &Span, age: Age, device: &Device) -> Result<Tensor> {
    let (keys, past) = (s.len(), s.past());
    let old = |i: usize, j: usize| u8::from(j < age.mapped(past + i));
    let cells = (0..s.queries).flat_map(|i| (0..keys).map(move |j| old(i, j))).collect();
    Tensor::from_vec(cells, (s.queries, keys), device)
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

//! One block: a mixer and a feed-forward, each with its norms, and how they meet the residual stream.
use super::{
    attention::{Kv, Span, attend},
    cache::Cache,
    linear::{Linear, Pass, together},
    ops::{self, Mode, Norm, Precision},
    seam::KvMap,
    site::{Expert, Role},
    spec::{Act, AttentionSpec, BlockSpec, Ffn, Mixer, Over, Position, Residual, Slot},
    ssm::{self, Ssm},
};
use anyhow::{Context, Result};
use candle_core::{D, Tensor};
use rayon::prelude::*;
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// One block's parameters.
#[derive(Clone)]
pub struct Block {
    /// What it is.
    pub spec: BlockSpec,
    /// By place.
    pub norms: BTreeMap<Slot, Norm>,
    /// Of queries and of keys.
    pub qk_norms: Option<[HeadNorms; 2]>,
    /// A state-space mixer's own parameters.
    pub ssm: Option<Ssm>,
    /// By whose they are and what they do.
    pub linears: BTreeMap<(Option<Expert>, Role), Linear>,
    /// Stands between cache and attention.
    pub kv: Option<Arc<dyn KvMap>>,
}

/// What tokens of earlier passes left behind.
pub(super) enum Past<'a> {
    /// There are none.
    None,
    /// Each sequence's own, and which block's this is.
    Caches(&'a mut [Cache], usize),
    /// What several sequences begin with.
    Carried(&'a mut Carried),
}

/// Keys and values of one block that the next pass reads too: before its own rows.
#[derive(Default)]
pub struct Carried(Vec<Tensor>);

impl Carried {
    /// These rows behind those that were kept.
    fn before(&self, new: Vec<Tensor>) -> Result<Vec<Tensor>> {
        if self.0.is_empty() {
            return Ok(new);
        }
        let both = self.0.iter().zip(&new).map(|(old, new)| Ok(Tensor::cat(&[old, new], 0)?));
        both.collect()
    }

    fn keep(&mut self, all: &[Tensor], rows: &[Range<usize>]) -> Result<()> {
        self.0.clear();
        if rows.is_empty() {
            return Ok(());
        }
        for all in all {
            // A copy, so that a whole pass is not kept for some of its rows.
            let kept = rows.iter().map(|r| all.narrow(0, r.start, r.len()));
            self.0.push(Tensor::cat(&kept.collect::<candle_core::Result<Vec<_>>>()?, 0)?.force_contiguous()?);
        }
        Ok(())
    }
}

/// Norms of queries, or of keys: one for all heads, or one a head.
#[derive(Clone)]
pub struct HeadNorms(pub Vec<Norm>);

impl HeadNorms {
    /// `[tokens, heads * head_dim]` to the same shape.
    fn forward(&self, x: &Tensor, over: Over, head_dim: usize, mode: Mode) -> Result<Tensor> {
        let (tokens, width) = x.dims2()?;
        let heads = width / head_dim;
        let first = self.0.first().context("queries and keys without their norm")?;
        match over {
            Over::Row => Ok(first.forward(x, mode)?),
            Over::Head => {
                Ok(first.forward(&x.reshape((tokens * heads, head_dim))?, mode)?.reshape((tokens, width))?)
            }
            Over::EachHead => {
                let each =
                    self.0.iter().enumerate().map(|(h, norm)| {
                        norm.forward(&x.narrow(1, h * head_dim, head_dim)?.contiguous()?, mode)
                    });
                Ok(Tensor::cat(&each.collect::<candle_core::Result<Vec<_>>>()?, 1)?)
            }
        }
    }
}

impl Block {
    fn get(&self, expert: Option<Expert>, role: Role) -> Result<&Linear> {
        self.linears.get(&(expert, role)).with_context(|| format!("a block without {}", role.name()))
    }

    fn norm(&self, slot: Slot, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let norm = self.norms.get(&slot).with_context(|| format!("a block without its norm {slot:?}"))?;
        Ok(norm.forward(x, mode)?)
    }

    /// `[tokens, hidden]` to the same shape.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass, past: Past) -> Result<Tensor> {
        let mode = pass.mode;
        let add = |x: &Tensor, y: &Tensor| ops::add(x, y, mode);
        match self.spec.residual {
            Residual::Pre => {
                let x = add(x, &self.mix(&self.norm(Slot::Mixer, x, mode)?, pass, past)?)?;
                if self.spec.ffn == Ffn::None {
                    return Ok(x);
                }
                let out = self.ffn(&self.norm(Slot::Ffn, &x, mode)?, pass)?;
                Ok(add(&x, &out)?)
            }
            Residual::PreWide => {
                let wide =
                    |x: &Tensor, y: &Tensor| ops::add(x, y, Mode { precision: Precision::F32, ..mode });
                let short = mode.precision.round(x.clone())?;
                let x = wide(x, &self.mix(&self.norm(Slot::Mixer, &short, mode)?, pass, past)?)?;
                if self.spec.ffn == Ffn::None {
                    return Ok(x);
                }
                let short = mode.precision.round(x.clone())?;
                let out = self.ffn(&self.norm(Slot::Ffn, &short, mode)?, pass)?;
                Ok(wide(&x, &out)?)
            }
            Residual::FromNorm => {
                let x = self.norm(Slot::Mixer, x, mode)?;
                let x = add(&x, &self.mix(&x, pass, past)?)?;
                let x = self.norm(Slot::Ffn, &x, mode)?;
                Ok(add(&x, &self.ffn(&x, pass)?)?)
            }
            Residual::Post => {
                let x = self.norm(Slot::Mixer, &add(x, &self.mix(x, pass, past)?)?, mode)?;
                self.norm(Slot::Ffn, &add(&x, &self.ffn(&x, pass)?)?, mode)
            }
            Residual::Branch => {
                let x = add(x, &self.norm(Slot::AfterMixer, &self.mix(x, pass, past)?, mode)?)?;
                let out = self.norm(Slot::AfterFfn, &self.ffn(&x, pass)?, mode)?;
                Ok(add(&x, &out)?)
            }
            Residual::Sandwich => {
                let mixed = self.mix(&self.norm(Slot::Mixer, x, mode)?, pass, past)?;
                let x = add(x, &self.norm(Slot::AfterMixer, &mixed, mode)?)?;
                let out = self.ffn(&self.norm(Slot::Ffn, &x, mode)?, pass)?;
                Ok(add(&x, &self.norm(Slot::AfterFfn, &out, mode)?)?)
            }
            Residual::Parallel { shared } => {
                let normed = self.norm(Slot::Mixer, x, mode)?;
                let mixed = self.mix(&normed, pass, past)?;
                let normed = if shared { normed } else { self.norm(Slot::Ffn, x, mode)? };
                Ok(add(x, &add(&mixed, &self.ffn(&normed, pass)?)?)?)
            }
        }
    }

    /// One branch alone: what its linears make of `x`, which a norm has left. With one norm for both, the sum of both.
    pub(super) fn branch(&self, slot: Slot, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        match (slot, self.spec.residual) {
            (Slot::Mixer, Residual::Parallel { shared: true }) => {
                Ok((self.mix(x, pass, Past::None)? + self.ffn(x, pass)?)?)
            }
            (Slot::Ffn, _) => self.ffn(x, pass),
            _ => self.mix(x, pass, Past::None),
        }
    }

    fn mix(&self, x: &Tensor, pass: &mut Pass, past: Past) -> Result<Tensor> {
        match &self.spec.mixer {
            Mixer::Attention(spec) => self.attention(spec, x, pass, past),
            Mixer::Ssm(spec) => {
                let linears = ssm::Linears {
                    into: self.get(None, Role::SsmIn)?,
                    x: self.linears.get(&(None, Role::SsmX)),
                    dt: self.linears.get(&(None, Role::SsmDt)),
                    out: self.get(None, Role::SsmOut)?,
                };
                let own = self.ssm.as_ref().context("a state-space mixer without parameters")?;
                let caches = match past {
                    Past::Caches(caches, block) => Some((caches, block)),
                    Past::None | Past::Carried(_) => None,
                };
                own.forward(spec, &linears, x, pass, caches)
            }
        }
    }

    fn attention(&self, spec: &AttentionSpec, x: &Tensor, pass: &mut Pass, past: Past) -> Result<Tensor> {
        let mode = pass.mode;
        let map = self.kv.as_deref();
        let linears = [self.get(None, Role::Q)?, self.get(None, Role::K)?, self.get(None, Role::V)?];
        let [mut q, mut k, mut v] = together(linears, x, pass)?;
        if let Some(clip) = spec.clip {
            for x in [&mut q, &mut k, &mut v] {
                *x = x.clamp(-clip as f32, clip as f32)?;
            }
        }
        if let (Some(norms), Some(qk)) = (&self.qk_norms, spec.qk_norm) {
            q = norms[0].forward(&q, qk.over, spec.head_dim, mode)?;
            k = norms[1].forward(&k, qk.over, spec.head_dim, mode)?;
        }
        if let Some(observer) = &mut pass.observer {
            observer.see_cached(&k, &v)?;
        }
        let bare = k.clone();
        if let Position::Rope(rope) = &spec.position {
            let rope = pass.rope(rope);
            q = rope.rotate(&q, spec.head_dim, mode)?;
            k = rope.rotate(&k, spec.head_dim, mode)?;
        }
        let mut kv = vec![k, v];
        if let Some(map) = map {
            q = match map.queries(&q.reshape(((), spec.heads, spec.head_dim))?) {
                Some(rounded) => rounded?.reshape(q.shape())?,
                None => q,
            };
            kv.push(through(&kv[1], spec, &|v| map.values(v))?);
            if map.tokens() < 2 {
                let mut mapped =
                    through(if map.before_positions() { &bare } else { &kv[0] }, spec, &|k| map.keys(k))?;
                if let (true, Position::Rope(rope)) = (map.before_positions(), &spec.position) {
                    mapped = pass.rope(rope).rotate(&mapped, spec.head_dim, mode)?;
                }
                kv.push(mapped);
                for (exact, mapped) in [(&kv[1], &kv[2]), (&kv[0], &kv[3])] {
                    restore_first(map.sinks(), &pass.spans, exact, mapped)?;
                }
            }
        }
        let attend = |q: &Tensor, kv: &[Tensor], spans: &[Span]| -> Result<Tensor> {
            let (mut mapped, grouped);
            mapped = None;
            if let (Some(map), Some(values)) = (map, kv.get(2)) {
                let keys = match kv.get(3) {
                    Some(keys) => keys,
                    None => {
                        grouped = in_groups(map, spec, &kv[0], spans)?;
                        &grouped
                    }
                };
                mapped = Some((keys, values, map.ages()));
            }
            let probabilities = map.and_then(KvMap::probabilities);
            Ok(attend(spec, q, &Kv { exact: (&kv[0], &kv[1]), mapped, probabilities }, spans, mode)?)
        };
        let out = match past {
            Past::None => attend(&q, &kv, &pass.spans)?,
            Past::Carried(carried) => {
                let all = carried.before(kv)?;
                let out = attend(&q, &all, &pass.spans)?;
                carried.keep(&all, &pass.keep)?;
                out
            }
            // A sequence at a time, from its own cache: pasts are not put together for a step.
            Past::Caches(caches, block) => {
                let one = |(cache, s): (&mut Cache, &Span)| {
                    let own = |t: &Tensor| t.narrow(0, s.query, s.queries);
                    let new = kv.iter().map(own).collect::<candle_core::Result<Vec<_>>>()?;
                    let all = cache.append(block, &new)?;
                    let keys = std::iter::once(0..s.len()).collect();
                    attend(&own(&q)?, &all, &[Span { query: 0, queries: s.queries, keys }])
                };
                let parts: Result<Vec<Tensor>> = match mode.fused() {
                    true => caches.par_iter_mut().zip(&pass.spans).map(one).collect(),
                    false => caches.iter_mut().zip(&pass.spans).map(one).collect(),
                };
                Tensor::cat(&parts?, 0)?
            }
        };
        self.get(None, Role::O)?.forward(&out, pass)
    }

    fn ffn(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        match self.spec.ffn {
            Ffn::None => anyhow::bail!("a block without a feed-forward was asked for one"),
            Ffn::Plain { act, .. } => {
                let inner = ops::activate(&self.get(None, Role::Up)?.forward(x, pass)?, act, pass.mode)?;
                self.get(None, Role::Down)?.forward(&inner, pass)
            }
            Ffn::Gated { act, .. } => self.gated(None, act, x, pass),
            Ffn::Experts { count, top, renormalize, act, shared, .. } => {
                let mode = pass.mode;
                let scores = self.get(None, Role::Router)?.forward(x, pass)?;
                let chosen = route(&scores, count, top, renormalize)?;
                let mut out = x.zeros_like()?;
                // In the order of the experts, so that a token's sum has one order whatever stands beside it.
                for (e, tokens) in chosen.into_iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
                    let (rows, shares): (Vec<u32>, Vec<f32>) = tokens.into_iter().unzip();
                    let n = rows.len();
                    let rows = Tensor::from_vec(rows, n, x.device())?;
                    let shares = mode.precision.round(Tensor::from_vec(shares, (n, 1), x.device())?)?;
                    let y =
                        self.gated(Some(Expert::Routed(e as u16)), act, &x.index_select(&rows, 0)?, pass)?;
                    let y = mode.precision.round(y.broadcast_mul(&shares)?)?;
                    out = mode.precision.round(out.index_add(&rows, &y, 0)?)?;
                }
                if shared.is_some() {
                    let gate = self.get(Some(Expert::Shared), Role::Router)?.forward(x, pass)?;
                    let gate = mode.precision.round((gate.neg()?.exp()? + 1.)?.recip()?)?;
                    let y = self.gated(Some(Expert::Shared), act, x, pass)?;
                    out = ops::add(&out, &mode.precision.round(y.broadcast_mul(&gate)?)?, mode)?;
                }
                Ok(out)
            }
        }
    }

    fn gated(&self, expert: Option<Expert>, act: Act, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let [gate, up] = together([self.get(expert, Role::Gate)?, self.get(expert, Role::Up)?], x, pass)?;
        let inner = ops::gate(&gate, &up, act, pass.mode)?;
        self.get(expert, Role::Down)?.forward(&inner, pass)
    }
}

/// Rows as heads, through a map.
fn through(
    x: &Tensor,
    spec: &AttentionSpec,
    map: &dyn Fn(&Tensor) -> candle_core::Result<Tensor>,
) -> Result<Tensor> {
    Ok(map(&x.reshape(((), spec.kv_heads, spec.head_dim))?)?.reshape(x.shape())?)
}

/// Puts a sequence's first tokens back as they were. Spans' queries are the rows of a pass.
fn restore_first(count: usize, spans: &[Span], exact: &Tensor, mapped: &Tensor) -> Result<()> {
    for span in spans.iter().filter(|s| s.past() < count) {
        let rows = span.queries.min(count - span.past());
        mapped.slice_set(&exact.narrow(0, span.query, rows)?.contiguous()?, 0, span.query)?;
    }
    Ok(())
}

/// Keys that are mapped some tokens at a time, from each sequence's first; what is left over is exact.
fn in_groups(map: &dyn KvMap, spec: &AttentionSpec, k: &Tensor, spans: &[Span]) -> Result<Tensor> {
    let out = k.force_contiguous()?;
    for span in spans {
        let [keys] = &span.keys[..] else {
            anyhow::bail!("keys that are mapped together, and a prefix that is shared")
        };
        let whole = keys.len() / map.tokens() * map.tokens();
        if whole > 0 {
            let mapped = through(&k.narrow(0, keys.start, whole)?.contiguous()?, spec, &|k| map.keys(k))?;
            out.slice_set(&mapped.contiguous()?, 0, keys.start)?;
            let sinks = map.sinks().min(whole);
            if sinks > 0 {
                out.slice_set(&k.narrow(0, keys.start, sinks)?.contiguous()?, 0, keys.start)?;
            }
        }
    }
    Ok(out)
}

/// For every expert, the tokens that go through it, each with its share. `scores [tokens, experts]`; of equal scores the
/// first expert's wins. Neither choice nor share has a gradient.
fn route(scores: &Tensor, count: usize, top: usize, renormalize: bool) -> Result<Vec<Vec<(u32, f32)>>> {
    let top_score = scores.max_keepdim(D::Minus1)?;
    let p = scores.broadcast_sub(&top_score)?.exp()?;
    let p = p.broadcast_div(&p.sum_keepdim(D::Minus1)?)?.to_vec2::<f32>()?;
    let mut chosen = vec![Vec::new(); count];
    for (token, p) in p.iter().enumerate() {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
        order.truncate(top);
        let sum: f32 = if renormalize { order.iter().map(|&e| p[e]).sum() } else { 1. };
        for e in order {
            chosen[e].push((token as u32, p[e] / sum));
        }
    }
    Ok(chosen)
}

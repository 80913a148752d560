//! The shared decoder: every family's forward pass.
//!
//! ```text
//! tokens -> embed (+ positions) (norm) (project_in) -> blocks -> (norm) (project_out) -> hidden -> head -> logits
//! ```
use super::{
    attention::{Kv, Span, attend},
    ops::{self, Kernels, Mode, Norm, Precision, Rope},
    seam::{InputMap, KvMap, Observer},
    site::{Role, Site},
    spec::{BlockSpec, DecoderSpec, Ffn, Half, Param, Position, Residual, Slot},
};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use std::{collections::BTreeMap, sync::Arc};

/// A linear with what stands before it.
#[derive(Clone)]
pub struct Linear {
    /// Its place.
    pub site: Site,
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Replaces its input.
    pub input: Option<Arc<dyn InputMap>>,
}

/// One block's parameters.
#[derive(Clone)]
pub struct Block {
    /// What it is.
    pub spec: BlockSpec,
    /// Before (or after, see [`Residual`]) attention.
    pub mixer_norm: Norm,
    /// Before (or after) the feed-forward.
    pub ffn_norm: Norm,
    /// By role: Q, K, V, O, Gate where there is one, Up, Down.
    pub linears: BTreeMap<Role, Linear>,
    /// Stands between cache and attention.
    pub kv: Option<Arc<dyn KvMap>>,
}

/// A whole model. Cloning shares tensors.
#[derive(Clone)]
pub struct Decoder {
    /// What it is.
    pub spec: Arc<DecoderSpec>,
    /// `[vocab, width]`.
    pub embed: Tensor,
    /// `[rows, hidden]`.
    pub positions: Option<Tensor>,
    /// BLOOM's.
    pub embed_norm: Option<Norm>,
    /// In order.
    pub blocks: Vec<Block>,
    /// Before the head.
    pub norm: Option<Norm>,
    /// Outside the blocks: project_in, project_out, head where it is not tied.
    pub ends: BTreeMap<Role, Linear>,
    /// How it computes.
    pub mode: Mode,
}

/// Sequences packed one after another: no padding.
pub struct Batch {
    tokens: Vec<u32>,
    lengths: Vec<usize>,
}

impl Batch {
    /// Packs sequences; none may be empty.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Self { tokens: Vec::new(), lengths: Vec::new() };
        for s in sequences.into_iter().filter(|s| !s.is_empty()) {
            batch.tokens.extend_from_slice(s);
            batch.lengths.push(s.len());
        }
        batch
    }
}

/// Keys and values of one sequence's past, a block at a time.
#[derive(Default)]
pub struct Cache {
    blocks: Vec<Past>,
    /// Tokens seen.
    pub len: usize,
}

struct Past {
    exact: (Tensor, Tensor),
    mapped: Option<(Tensor, Tensor)>,
}

/// What a pass carries along.
struct Pass<'a, 'b> {
    mode: Mode,
    spans: Vec<Span>,
    positions: Vec<usize>,
    ropes: Vec<((u64, u64, usize), Rope)>,
    observer: Option<&'a mut (dyn Observer + 'b)>,
}

impl Decoder {
    /// Builds from whatever gives parameters by role and shape: a checkpoint, or training's variables.
    pub fn build(
        spec: DecoderSpec,
        device: &Device,
        mut param: impl FnMut(Param, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        spec.check()?;
        let shapes: BTreeMap<String, Vec<usize>> =
            spec.params().into_iter().map(|(p, s)| (format!("{p:?}"), s)).collect();
        let mut get = |p: Param| -> Result<Option<Tensor>> {
            shapes.get(&format!("{p:?}")).map(|shape| param(p, shape)).transpose()
        };
        let mut linears: BTreeMap<Option<u16>, BTreeMap<Role, Linear>> = BTreeMap::new();
        for site in spec.sites() {
            let weight = get(Param::Weight(site))?.context("a linear without a weight")?;
            let bias = get(Param::Bias(site))?;
            linears
                .entry(site.block)
                .or_default()
                .insert(site.role, Linear { site, weight, bias, input: None });
        }
        let embed = get(Param::Embed)?.context("a model without an embedding")?;
        let positions = get(Param::Positions)?;
        let mut blocks = Vec::with_capacity(spec.blocks.len());
        for (b, block) in spec.blocks.iter().enumerate() {
            let b = b as u16;
            let mut norm = |slot| -> Result<Norm> {
                Ok(Norm::new(
                    block.norm,
                    get(Param::Norm(b, slot, Half::Scale))?,
                    get(Param::Norm(b, slot, Half::Shift))?,
                )?)
            };
            blocks.push(Block {
                spec: block.clone(),
                mixer_norm: norm(Slot::Mixer)?,
                ffn_norm: norm(Slot::Ffn)?,
                linears: linears.remove(&Some(b)).unwrap_or_default(),
                kv: None,
            });
        }
        let embed_norm = match spec.embed.norm {
            Some(n) => {
                Some(Norm::new(n, get(Param::EmbedNorm(Half::Scale))?, get(Param::EmbedNorm(Half::Shift))?)?)
            }
            None => None,
        };
        let norm = match spec.norm {
            Some(n) => {
                Some(Norm::new(n, get(Param::FinalNorm(Half::Scale))?, get(Param::FinalNorm(Half::Shift))?)?)
            }
            None => None,
        };
        let kernels = if device.is_cpu() { Kernels::Fused } else { Kernels::Reference };
        Ok(Self {
            embed,
            positions,
            embed_norm,
            blocks,
            norm,
            ends: linears.remove(&None).unwrap_or_default(),
            mode: Mode { kernels, precision: Precision::F32 },
            spec: Arc::new(spec),
        })
    }

    /// Every linear that a pass goes through, but for a tied head.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.ends.values().chain(self.blocks.iter().flat_map(|b| b.linears.values()))
    }

    /// The same, to rewrite them.
    pub fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        self.ends.values_mut().chain(self.blocks.iter_mut().flat_map(|b| b.linears.values_mut()))
    }

    /// The same model as inference in a shorter float would run it: parameters rounded, and values wherever such
    /// inference stores them.
    pub fn in_precision(&self, precision: Precision) -> Result<Self> {
        let mut model = self.clone();
        let round = |t: &Tensor| precision.round(t.clone());
        model.mode.precision = precision;
        model.embed = round(&model.embed)?;
        model.positions = model.positions.as_ref().map(round).transpose()?;
        for norm in [&mut model.embed_norm, &mut model.norm].into_iter().flatten() {
            *norm = norm.rounded(precision)?;
        }
        for block in &mut model.blocks {
            block.mixer_norm = block.mixer_norm.rounded(precision)?;
            block.ffn_norm = block.ffn_norm.rounded(precision)?;
        }
        for linear in model.linears_mut() {
            linear.weight = round(&linear.weight)?;
            linear.bias = linear.bias.as_ref().map(round).transpose()?;
        }
        Ok(model)
    }

    /// Longest sequence that can be computed at all: learned positions end somewhere.
    pub fn longest(&self) -> Option<usize> {
        self.spec.embed.positions.map(|p| p.rows.saturating_sub(p.first))
    }

    /// Hidden states before the head, `[tokens, width]`, in the batch's order. With a cache, the batch is one sequence
    /// that goes on where the cache ends.
    pub fn hidden(
        &self,
        batch: &Batch,
        mut cache: Option<&mut Cache>,
        observer: Option<&mut dyn Observer>,
    ) -> Result<Tensor> {
        let past = cache.as_ref().map_or(0, |c| c.len);
        ensure!(!batch.tokens.is_empty(), "an empty batch");
        ensure!(cache.is_none() || batch.lengths.len() == 1, "a cache holds one sequence");
        let mut start = 0;
        let mut spans = Vec::with_capacity(batch.lengths.len());
        let mut positions = Vec::with_capacity(batch.tokens.len());
        for &len in &batch.lengths {
            spans.push(Span { query: start, queries: len, key: start, keys: past + len });
            positions.extend(past..past + len);
            start += len;
        }
        if let Some(id) = batch.tokens.iter().find(|&&t| t as usize >= self.spec.vocab) {
            crate::mistake!(
                "token {id} is outside the model's vocabulary of {}: the tokenizer belongs to another model",
                self.spec.vocab
            );
        }
        let last = positions.iter().max().map_or(0, |p| p + 1);
        if let Some(longest) = self.longest().filter(|&l| last > l) {
            crate::mistake!("a sequence of {last} tokens: the model has learned positions for {longest}");
        }
        let mut pass = Pass { mode: self.mode, spans, positions, ropes: Vec::new(), observer };
        let mut x = self.embedding(batch, &mut pass)?;
        for (b, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &mut pass, cache.as_deref_mut().map(|c| (c, b)))?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x, self.mode)?;
        }
        if let Some(project) = self.ends.get(&Role::ProjectOut) {
            x = project.forward(&x, &mut pass)?;
        }
        if let Some(cache) = cache {
            cache.len += batch.tokens.len();
        }
        Ok(x)
    }

    /// Logits `[rows, vocab]` of hidden states `[rows, width]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        match self.ends.get(&Role::Head) {
            Some(head) => {
                let x = head.input.as_ref().map_or(Ok(hidden.clone()), |m| m.map(hidden))?;
                Ok(ops::linear(&x, &head.weight, head.bias.as_ref(), self.mode)?)
            }
            None => Ok(ops::linear(hidden, &self.embed, None, self.mode)?),
        }
    }

    fn embedding(&self, batch: &Batch, pass: &mut Pass) -> Result<Tensor> {
        let device = self.embed.device();
        let mut x = self.embed.index_select(&Tensor::new(batch.tokens.as_slice(), device)?, 0)?;
        if let Some(project) = self.ends.get(&Role::ProjectIn) {
            x = project.forward(&x, pass)?;
        }
        if let (Some(table), Some(learned)) = (&self.positions, self.spec.embed.positions) {
            let rows: Vec<u32> = pass.positions.iter().map(|&p| (p + learned.first) as u32).collect();
            x = ops::add(&x, &table.index_select(&Tensor::new(rows, device)?, 0)?, pass.mode)?;
        }
        match &self.embed_norm {
            Some(norm) => Ok(norm.forward(&x, pass.mode)?),
            None => Ok(x),
        }
    }
}

impl Linear {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        if let Some(observer) = &mut pass.observer {
            observer.see(self.site, x)?;
        }
        let mapped = self.input.as_ref().map(|m| m.map(x)).transpose()?;
        Ok(ops::linear(mapped.as_ref().unwrap_or(x), &self.weight, self.bias.as_ref(), pass.mode)?)
    }
}

/// Several linears of one input; an [`InputMap`] that they share works once.
fn together<const N: usize>(linears: [&Linear; N], x: &Tensor, pass: &mut Pass) -> Result<[Tensor; N]> {
    let shared = match &linears[0].input {
        Some(map) if linears.iter().all(|l| l.input.as_ref().is_some_and(|m| Arc::ptr_eq(m, map))) => {
            Some(map.map(x)?)
        }
        _ => None,
    };
    let Some(mapped) = shared else {
        let outs: Vec<Tensor> = linears.iter().map(|l| l.forward(x, pass)).collect::<Result<_>>()?;
        return outs.try_into().map_err(|_| anyhow::anyhow!("as many outputs as linears"));
    };
    let mut outs = Vec::with_capacity(N);
    for linear in linears {
        if let Some(observer) = &mut pass.observer {
            observer.see(linear.site, x)?;
        }
        outs.push(ops::linear(&mapped, &linear.weight, linear.bias.as_ref(), pass.mode)?);
    }
    outs.try_into().map_err(|_| anyhow::anyhow!("as many outputs as linears"))
}

impl Block {
    fn get(&self, role: Role) -> Result<&Linear> {
        self.linears.get(&role).with_context(|| format!("a block without {}", role.name()))
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass, cache: Option<(&mut Cache, usize)>) -> Result<Tensor> {
        let mode = pass.mode;
        match self.spec.residual {
            Residual::Pre => {
                let mixed = self.attention(&self.mixer_norm.forward(x, mode)?, pass, cache)?;
                let x = ops::add(x, &mixed, mode)?;
                let out = self.ffn(&self.ffn_norm.forward(&x, mode)?, pass)?;
                Ok(ops::add(&x, &out, mode)?)
            }
            Residual::FromNorm => {
                let x = self.mixer_norm.forward(x, mode)?;
                let x = ops::add(&x, &self.attention(&x, pass, cache)?, mode)?;
                let x = self.ffn_norm.forward(&x, mode)?;
                Ok(ops::add(&x, &self.ffn(&x, pass)?, mode)?)
            }
            Residual::Post => {
                let x = ops::add(x, &self.attention(x, pass, cache)?, mode)?;
                let x = self.mixer_norm.forward(&x, mode)?;
                let x = ops::add(&x, &self.ffn(&x, pass)?, mode)?;
                Ok(self.ffn_norm.forward(&x, mode)?)
            }
        }
    }

    /// `[tokens, hidden]` to the same shape.
    fn attention(&self, x: &Tensor, pass: &mut Pass, cache: Option<(&mut Cache, usize)>) -> Result<Tensor> {
        let spec = &self.spec.attention;
        let [q, k, v] = together([self.get(Role::Q)?, self.get(Role::K)?, self.get(Role::V)?], x, pass)?;
        let (q, k) = match spec.position {
            Position::Rope { theta, divide } => {
                let (positions, mode) = (std::mem::take(&mut pass.positions), pass.mode);
                let rope =
                    pass.rope(theta, divide, spec.head_dim, positions.iter().max().map_or(0, |p| p + 1));
                let pair = (rope.rotate(&q, &positions, mode)?, rope.rotate(&k, &positions, mode)?);
                pass.positions = positions;
                pair
            }
            _ => (q, k),
        };
        let mapped = match &self.kv {
            Some(map) => {
                let view = (k.dim(0)?, spec.kv_heads, spec.head_dim);
                let flat = |t: Tensor| t.reshape((view.0, spec.kv_width()));
                Some((flat(map.keys(&k.reshape(view)?)?)?, flat(map.values(&v.reshape(view)?)?)?))
            }
            None => None,
        };
        let now = Past { exact: (k, v), mapped };
        let residual = self.kv.as_ref().map_or(0, |m| m.residual());
        let grown;
        let past = match cache {
            Some((cache, b)) => {
                cache.append(b, now)?;
                &cache.blocks[b]
            }
            None => {
                grown = now;
                &grown
            }
        };
        let kv = Kv {
            exact: (&past.exact.0, &past.exact.1),
            mapped: past.mapped.as_ref().map(|(k, v)| (k, v, residual)),
        };
        let out = attend(spec, &q, &kv, &pass.spans, pass.mode)?;
        self.get(Role::O)?.forward(&out, pass)
    }

    fn ffn(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let inner = match self.spec.ffn {
            Ffn::Plain { act, .. } => ops::activate(&self.get(Role::Up)?.forward(x, pass)?, act, pass.mode)?,
            Ffn::Gated { act, .. } => {
                let [gate, up] = together([self.get(Role::Gate)?, self.get(Role::Up)?], x, pass)?;
                ops::gate(&gate, &up, act, pass.mode)?
            }
        };
        self.get(Role::Down)?.forward(&inner, pass)
    }
}

impl Cache {
    fn append(&mut self, block: usize, now: Past) -> Result<()> {
        let join = |a: &(Tensor, Tensor), b: &(Tensor, Tensor)| -> Result<(Tensor, Tensor)> {
            Ok((Tensor::cat(&[&a.0, &b.0], 0)?, Tensor::cat(&[&a.1, &b.1], 0)?))
        };
        let known = self.blocks.len();
        match self.blocks.get_mut(block) {
            Some(past) => {
                past.exact = join(&past.exact, &now.exact)?;
                past.mapped = match (&past.mapped, &now.mapped) {
                    (Some(a), Some(b)) => Some(join(a, b)?),
                    _ => None,
                };
            }
            None if block == known => self.blocks.push(now),
            None => bail!("a cache is filled block by block"),
        }
        Ok(())
    }
}

impl Pass<'_, '_> {
    /// The table for a block's rotary positions, made once a pass.
    fn rope(&mut self, theta: f64, divide: f64, head_dim: usize, count: usize) -> &Rope {
        let key = (theta.to_bits(), divide.to_bits(), head_dim);
        let at = self.ropes.iter().position(|(k, _)| *k == key).unwrap_or_else(|| {
            self.ropes.push((key, Rope::new(theta, divide, head_dim, count)));
            self.ropes.len() - 1
        });
        &self.ropes[at].1
    }
}

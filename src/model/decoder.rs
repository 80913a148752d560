//! The shared decoder: every family's forward pass.
//!
//! ```text
//! tokens -> embed (+ positions) (norm) (project_in) -> blocks -> (norm) (project_out) -> hidden -> head -> logits
//! ```
use super::{
    attention::Span,
    block::{Block, HeadNorms},
    linear::Pass,
    ops::{self, Kernels, Mode, Norm, Precision},
    seam::Observer,
    site::Role,
    spec::{DecoderSpec, Half, Mixer, Over, Param},
    ssm::Ssm,
};
pub use super::{cache::Cache, linear::Linear};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

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

impl Decoder {
    /// Builds from whatever gives parameters by role and shape: a checkpoint, or training's variables.
    pub fn build(
        spec: DecoderSpec,
        device: &Device,
        mut param: impl FnMut(Param, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        spec.check()?;
        let shapes: HashMap<Param, Vec<usize>> = spec.params().into_iter().collect();
        let mut get =
            |p: Param| -> Result<Option<Tensor>> { shapes.get(&p).map(|shape| param(p, shape)).transpose() };
        let mut linears: BTreeMap<Option<u16>, Vec<Linear>> = BTreeMap::new();
        for site in spec.sites() {
            let weight = get(Param::Weight(site))?.context("a linear without a weight")?;
            let bias = get(Param::Bias(site))?;
            linears.entry(site.block).or_default().push(Linear { site, weight, bias, input: None });
        }
        let embed = get(Param::Embed)?.context("a model without an embedding")?;
        let positions = get(Param::Positions)?;
        let mut norm = |spec, param: &dyn Fn(Half) -> Param| -> Result<Norm> {
            Ok(Norm::new(spec, get(param(Half::Scale))?, get(param(Half::Shift))?)?)
        };
        let embed_norm = spec.embed.norm.map(|n| norm(n, &Param::EmbedNorm)).transpose()?;
        let last_norm = spec.norm.map(|n| norm(n, &Param::FinalNorm)).transpose()?;
        let mut blocks = Vec::with_capacity(spec.blocks.len());
        for (b, block) in spec.blocks.iter().enumerate() {
            let b = b as u16;
            let mut norms = BTreeMap::new();
            for &slot in block.slots() {
                norms.insert(slot, norm(block.norm, &|h| Param::Norm(b, slot, h))?);
            }
            let qk_norms = match block.mixer.attention().and_then(|a| Some((a, a.qk_norm?))) {
                Some((a, qk)) => {
                    let mut of = |role, heads: usize| -> Result<HeadNorms> {
                        let each = match qk.over {
                            Over::EachHead => (0..heads).map(|h| Some(h as u16)).collect(),
                            Over::Row | Over::Head => vec![None],
                        };
                        let norms =
                            each.into_iter().map(|i| norm(qk.norm, &|h| Param::QkNorm(b, role, i, h)));
                        Ok(HeadNorms(norms.collect::<Result<_>>()?))
                    };
                    Some([of(Role::Q, a.heads)?, of(Role::K, a.kv_heads)?])
                }
                None => None,
            };
            blocks.push(Block {
                spec: block.clone(),
                norms,
                qk_norms,
                ssm: None,
                linears: linears
                    .remove(&Some(b))
                    .unwrap_or_default()
                    .into_iter()
                    .map(|l| ((l.site.expert, l.site.role), l))
                    .collect(),
                kv: None,
            });
        }
        for (b, block) in blocks.iter_mut().enumerate() {
            if let Mixer::Ssm(ssm) = &block.spec.mixer {
                block.ssm = Some(Ssm::new(ssm, |part| get(Param::Ssm(b as u16, part)))?);
            }
        }
        let ends = linears.remove(&None).unwrap_or_default();
        let kernels = if device.is_cpu() { Kernels::Fused } else { Kernels::Reference };
        Ok(Self {
            embed,
            positions,
            embed_norm,
            blocks,
            norm: last_norm,
            ends: ends.into_iter().map(|l| (l.site.role, l)).collect(),
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
            let heads = block.qk_norms.iter_mut().flatten().flat_map(|h| h.0.iter_mut());
            for norm in block.norms.values_mut().chain(heads) {
                *norm = norm.rounded(precision)?;
            }
            if let (Some(own), Mixer::Ssm(spec)) = (&mut block.ssm, &block.spec.mixer) {
                *own = own.rounded(spec, precision)?;
            }
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

    /// Hidden states before the head, `[tokens, width]`, in the batch's order. With caches, one a sequence, each
    /// goes on where its cache ends.
    pub fn hidden(
        &self,
        batch: &Batch,
        mut caches: Option<&mut [Cache]>,
        observer: Option<&mut dyn Observer>,
    ) -> Result<Tensor> {
        ensure!(!batch.tokens.is_empty(), "an empty batch");
        let sequences = batch.lengths.len();
        let past: Vec<usize> =
            caches.as_ref().map_or_else(|| vec![0; sequences], |c| c.iter().map(|c| c.len).collect());
        ensure!(past.len() == sequences, "{} caches for {sequences} sequences", past.len());
        let mut start = 0;
        let mut spans = Vec::with_capacity(sequences);
        for (&len, past) in batch.lengths.iter().zip(past) {
            spans.push(Span { query: start, queries: len, key: start, keys: past + len });
            start += len;
        }
        if let Some(id) = batch.tokens.iter().find(|&&t| t as usize >= self.spec.vocab) {
            crate::mistake!(
                "token {id} is outside the model's vocabulary of {}: the tokenizer belongs to another model",
                self.spec.vocab
            );
        }
        let last = spans.iter().map(|s| s.keys).max().unwrap_or(0);
        if let Some(longest) = self.longest().filter(|&l| last > l) {
            crate::mistake!("a sequence of {last} tokens: the model has learned positions for {longest}");
        }
        let mut pass = Pass { mode: self.mode, spans, ropes: Vec::new(), observer };
        let mut x = self.embedding(batch, &mut pass)?;
        for (b, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, &mut pass, caches.as_deref_mut().map(|c| (c, b)))?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x, self.mode)?;
        }
        if let Some(project) = self.ends.get(&Role::ProjectOut) {
            x = project.forward(&x, &mut pass)?;
        }
        for (cache, len) in caches.into_iter().flatten().zip(&batch.lengths) {
            cache.len += len;
        }
        Ok(x)
    }

    /// Logits `[rows, vocab]` of hidden states `[rows, width]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = match self.ends.get(&Role::Head) {
            Some(head) => {
                let x = head.input.as_ref().map_or(Ok(hidden.clone()), |m| m.map(hidden))?;
                ops::linear(&x, &head.weight, head.bias.as_ref(), self.mode)?
            }
            None => ops::linear(hidden, &self.embed, None, self.mode)?,
        };
        match self.spec.head.softcap {
            Some(cap) => Ok(ops::softcap(&logits, cap, self.mode)?),
            None => Ok(logits),
        }
    }

    fn embedding(&self, batch: &Batch, pass: &mut Pass) -> Result<Tensor> {
        let device = self.embed.device();
        let mut x = self.embed.index_select(&Tensor::new(batch.tokens.as_slice(), device)?, 0)?;
        if let Some(scale) = self.spec.embed.scale {
            // The factor itself is held in the model's precision, as Gemma's is.
            x = pass.mode.precision.round((x * f64::from(pass.mode.precision.one(scale as f32)))?)?;
        }
        if let Some(project) = self.ends.get(&Role::ProjectIn) {
            x = project.forward(&x, pass)?;
        }
        if let (Some(table), Some(learned)) = (&self.positions, self.spec.embed.positions) {
            let positions = pass.spans.iter().flat_map(|s| s.keys - s.queries..s.keys);
            let rows: Vec<u32> = positions.map(|p| (p + learned.first) as u32).collect();
            x = ops::add(&x, &table.index_select(&Tensor::new(rows, device)?, 0)?, pass.mode)?;
        }
        match &self.embed_norm {
            Some(norm) => Ok(norm.forward(&x, pass.mode)?),
            None => Ok(x),
        }
    }
}

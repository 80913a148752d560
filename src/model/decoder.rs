//! The shared decoder: every family's forward pass.
//!
//! ```text
//! tokens -> embed (+ positions) (norm) (project_in) -> blocks -> (norm) (project_out) -> hidden -> head -> logits
//! ```
use super::{
    attention::Span,
    block::{Block, Carried, HeadNorms, Past},
    linear::Pass,
    ops::{self, Kernels, Mode, Norm, Precision},
    seam::Observer,
    site::{Role, Site},
    spec::{DecoderSpec, Half, Mixer, NormSpec, Over, Param, Slot},
    ssm::Ssm,
};
pub use super::{cache::Cache, linear::Linear};
use crate::tensor::matmul::Weight;
use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// A whole model, or its ends alone while blocks come one at a time. Cloning shares tensors.
#[derive(Clone)]
pub struct Decoder {
    /// What it is.
    pub spec: Arc<DecoderSpec>,
    /// `[vocab, width]`.
    pub embed: Weight,
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
    spans: Vec<Span>,
    /// Rows of keys that the next batch reads too; its own keys come after them.
    keep: Vec<Range<usize>>,
}

impl Batch {
    /// Packs sequences that have nothing in common; none may be empty.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut batch = Self { tokens: Vec::new(), spans: Vec::new(), keep: Vec::new() };
        for s in sequences.into_iter().filter(|s| !s.is_empty()) {
            let from = batch.tokens.len();
            batch.tokens.extend_from_slice(s);
            let keys = std::iter::once(from..batch.tokens.len()).collect();
            batch.spans.push(Span { query: from, queries: s.len(), keys });
        }
        batch
    }

    /// Tokens of which some have a past in common. A span's keys count rows that are carried over first, then this batch's;
    /// `keep` says, in the same rows, what the next batch finds carried over.
    pub fn sharing(tokens: Vec<u32>, spans: Vec<Span>, keep: Vec<Range<usize>>) -> Self {
        Self { tokens, spans, keep }
    }

    /// What is computed.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Which queries see which keys.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Tokens to compute.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

/// Where parameters come from, and what becomes of weights.
pub struct Parts<'a> {
    /// What the model is.
    pub spec: &'a DecoderSpec,
    /// Lay weights out for products, as inference wants them; training wants tensors.
    pub lay: bool,
    /// A parameter of this shape.
    pub param: &'a mut dyn FnMut(Param, &[usize]) -> Result<Tensor>,
}

/// What is outside the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// All of it.
    Both,
    /// Before the first block: embeddings.
    Entrance,
    /// After the last: norm and head.
    Exit,
    /// Neither: how a block is run, no more.
    None,
}

impl Parts<'_> {
    fn get(&mut self, param: Param, shape: &[usize]) -> Result<Tensor> {
        (self.param)(param, shape)
    }

    fn weight(&mut self, param: Param, shape: &[usize]) -> Result<Weight> {
        let rows = Weight::from(self.get(param, shape)?);
        Ok(if self.lay { rows.laid()? } else { rows })
    }

    fn linear(&mut self, site: Site) -> Result<Linear> {
        let (out, inner) = self.spec.linear_shape(site);
        let weight = self.weight(Param::Weight(site), &[out, inner])?;
        let bias = self.spec.has_bias(site).then(|| self.get(Param::Bias(site), &[out])).transpose()?;
        Ok(Linear { site, weight, bias, turn: None, input: None })
    }

    fn norm(
        &mut self,
        spec: NormSpec,
        shapes: &[(Param, Vec<usize>)],
        param: &dyn Fn(Half) -> Param,
    ) -> Result<Norm> {
        let mut half = |half| -> Result<Option<Tensor>> {
            let shape = shapes.iter().find(|(p, _)| *p == param(half));
            shape.map(|(p, shape)| self.get(*p, shape)).transpose()
        };
        Ok(Norm::new(spec, half(Half::Scale)?, half(Half::Shift)?)?)
    }

    /// One block.
    pub fn block(&mut self, b: u16) -> Result<Block> {
        let block = &self.spec.blocks[usize::from(b)];
        let shapes = block.small_params(b, self.spec.hidden);
        let mut norms = BTreeMap::new();
        for &slot in block.slots() {
            norms.insert(slot, self.norm(block.norm, &shapes, &|h| Param::Norm(b, slot, h))?);
        }
        let qk_norms = match block.mixer.attention().and_then(|a| Some((a, a.qk_norm?))) {
            Some((a, qk)) => {
                let mut of = |role, heads: usize| -> Result<HeadNorms> {
                    let each = match qk.over {
                        Over::EachHead => (0..heads).map(|h| Some(h as u16)).collect(),
                        Over::Row | Over::Head => vec![None],
                    };
                    let norms = each
                        .into_iter()
                        .map(|i| self.norm(qk.norm, &shapes, &|h| Param::QkNorm(b, role, i, h)));
                    Ok(HeadNorms(norms.collect::<Result<_>>()?))
                };
                Some([of(Role::Q, a.heads)?, of(Role::K, a.kv_heads)?])
            }
            None => None,
        };
        let ssm = match &block.mixer {
            Mixer::Ssm(ssm) => Some(Ssm::new(ssm, |part| {
                let shape = shapes.iter().find(|(p, _)| *p == Param::Ssm(b, part));
                shape.map(|(p, shape)| self.get(*p, shape)).transpose()
            })?),
            Mixer::Attention(_) => None,
        };
        let linears = block
            .linears()
            .into_iter()
            .map(|(expert, role)| Ok(((expert, role), self.linear(Site::of(b, expert, role))?)));
        Ok(Block {
            spec: block.clone(),
            norms,
            qk_norms,
            ssm,
            linears: linears.collect::<Result<_>>()?,
            kv: None,
        })
    }

    /// All that is outside the blocks, or what of it `which` names; the rest is left out, and cannot be asked for.
    pub fn ends(&mut self, device: &Device, which: Ends) -> Result<Decoder> {
        let spec = self.spec;
        spec.check()?;
        let (entrance, exit) =
            (which != Ends::Exit && which != Ends::None, which != Ends::Entrance && which != Ends::None);
        let shapes: Vec<_> = spec.params().into_iter().filter(|(p, _)| p.block().is_none()).collect();
        let embed = match shapes.iter().find(|(p, _)| *p == Param::Embed) {
            // Where it is the head too, it is laid out as one.
            Some((p, shape)) if spec.head.tied && exit => self.weight(*p, shape)?,
            Some((p, shape)) if entrance => self.get(*p, shape)?.into(),
            Some((_, shape)) => Tensor::zeros((0, shape[1]), DType::F32, device)?.into(),
            None => anyhow::bail!("a model without an embedding"),
        };
        let positions = shapes.iter().find(|(p, _)| *p == Param::Positions).filter(|_| entrance);
        let positions = positions.map(|(p, shape)| self.get(*p, shape)).transpose()?;
        let embed_norm = spec
            .embed
            .norm
            .filter(|_| entrance)
            .map(|n| self.norm(n, &shapes, &Param::EmbedNorm))
            .transpose()?;
        let norm =
            spec.norm.filter(|_| exit).map(|n| self.norm(n, &shapes, &Param::FinalNorm)).transpose()?;
        let sites = spec.sites().into_iter().filter(|s| match (s.block, s.role) {
            (Some(_), _) => false,
            (None, Role::ProjectIn) => entrance,
            (None, _) => exit,
        });
        let ends = sites.map(|s| Ok((s.role, self.linear(s)?))).collect::<Result<_>>()?;
        let kernels = if device.is_cpu() { Kernels::Fused } else { Kernels::Reference };
        let mode = Mode { kernels, precision: Precision::F32 };
        let blocks = Vec::new();
        Ok(Decoder { embed, positions, embed_norm, blocks, norm, ends, mode, spec: Arc::new(spec.clone()) })
    }
}

impl Decoder {
    /// Builds from whatever gives parameters by role and shape; see [`Parts::lay`].
    pub fn build(
        spec: DecoderSpec,
        device: &Device,
        lay: bool,
        mut param: impl FnMut(Param, &[usize]) -> Result<Tensor>,
    ) -> Result<Self> {
        Self::whole(&mut Parts { spec: &spec, lay, param: &mut param }, device)
    }

    /// All parts together.
    pub fn whole(parts: &mut Parts, device: &Device) -> Result<Self> {
        let mut all = parts.ends(device, Ends::Both)?;
        let blocks = 0..parts.spec.blocks.len();
        all.blocks = blocks.map(|b| parts.block(b as u16)).collect::<Result<_>>()?;
        Ok(all)
    }

    /// Where its parameters are.
    pub fn device(&self) -> &Device {
        match &self.embed {
            Weight::Rows(rows) => rows.device(),
            _ => &Device::Cpu,
        }
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
        model.mode.precision = precision;
        model.embed = rounded(&model.embed, precision)?;
        model.positions = model.positions.map(|p| precision.round(p)).transpose()?;
        for norm in [&mut model.embed_norm, &mut model.norm].into_iter().flatten() {
            *norm = norm.rounded(precision)?;
        }
        for linear in model.ends.values_mut() {
            linear.round(precision)?;
        }
        for block in &mut model.blocks {
            block.round(precision)?;
        }
        Ok(model)
    }

    /// Hidden states before the head, `[tokens, width]`, in the batch's order. With caches, one a sequence, each
    /// goes on where its cache ends.
    pub fn hidden(
        &self,
        batch: &Batch,
        mut caches: Option<&mut [Cache]>,
        observer: Option<&mut dyn Observer>,
    ) -> Result<Tensor> {
        let sequences = batch.spans.len();
        let mut spans = batch.spans.clone();
        if let Some(caches) = &caches {
            ensure!(caches.len() == sequences, "{} caches for {sequences} sequences", caches.len());
            for (span, cache) in spans.iter_mut().zip(caches.iter()) {
                span.keys = std::iter::once(0..cache.len + span.queries).collect();
            }
        }
        let mut pass = Pass { observer, ..Pass::new(self.mode, spans) };
        let mut x = self.embedding(&batch.tokens, &mut pass)?;
        for (b, block) in self.blocks.iter().enumerate() {
            let past = caches.as_deref_mut().map_or(Past::None, |c| Past::Caches(c, b));
            x = block.forward(&x, &mut pass, past)?;
        }
        let x = self.last(x, &mut pass)?;
        for (cache, span) in caches.into_iter().flatten().zip(&batch.spans) {
            cache.len += span.queries;
        }
        Ok(x)
    }

    /// The same of a batch that reads what earlier ones left, and leaves what later ones read; `carried` is one a block.
    pub fn hidden_after(&self, batch: &Batch, carried: &mut [Carried]) -> Result<Tensor> {
        ensure!(carried.len() == self.blocks.len(), "as many as blocks");
        let mut pass = Pass { keep: batch.keep.clone(), ..Pass::new(self.mode, batch.spans.clone()) };
        let mut x = self.embedding(&batch.tokens, &mut pass)?;
        for (block, carried) in self.blocks.iter().zip(carried) {
            x = block.forward(&x, &mut pass, Past::Carried(carried))?;
        }
        self.last(x, &mut pass)
    }

    /// What enters the first block, `[tokens, hidden]`.
    pub fn enter(&self, batch: &Batch) -> Result<Tensor> {
        self.embedding(&batch.tokens, &mut Pass::new(self.mode, batch.spans.clone()))
    }

    /// Through one block, which need not be this decoder's own; see [`Decoder::hidden_after`].
    pub fn through(&self, block: &Block, x: &Tensor, batch: &Batch, carried: &mut Carried) -> Result<Tensor> {
        let mut pass = Pass { keep: batch.keep.clone(), ..Pass::new(self.mode, batch.spans.clone()) };
        block.forward(x, &mut pass, Past::Carried(carried))
    }

    /// The same of a batch that nothing came before, with every linear's input shown.
    pub fn watched(
        &self,
        block: &Block,
        x: &Tensor,
        batch: &Batch,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let pass = Pass::new(self.mode, batch.spans.clone());
        block.forward(x, &mut Pass { observer: Some(observer), ..pass }, Past::None)
    }

    /// What one branch of a block makes of what its norm has left: the mixer's for [`Slot::Mixer`], else the feed-forward's.
    pub fn branch(
        &self,
        block: &Block,
        slot: Slot,
        x: &Tensor,
        batch: &Batch,
        observer: Option<&mut dyn Observer>,
    ) -> Result<Tensor> {
        block.branch(slot, x, &mut Pass { observer, ..Pass::new(self.mode, batch.spans.clone()) })
    }

    /// From what leaves the last block to what the head reads.
    pub fn leave(&self, x: Tensor) -> Result<Tensor> {
        self.last(x, &mut Pass::new(self.mode, Vec::new()))
    }

    fn last(&self, x: Tensor, pass: &mut Pass) -> Result<Tensor> {
        let x = match &self.norm {
            Some(norm) => norm.forward(&x, self.mode)?,
            None => x,
        };
        match self.ends.get(&Role::ProjectOut) {
            Some(project) => project.forward(&x, pass),
            None => Ok(x),
        }
    }

    /// Logits `[rows, vocab]` of hidden states `[rows, width]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = match self.ends.get(&Role::Head) {
            Some(head) => head.alone(hidden, self.mode)?,
            None => ops::linear(hidden, &self.embed, None, self.mode)?,
        };
        match self.spec.head.softcap {
            Some(cap) => Ok(ops::softcap(&logits, cap, self.mode)?),
            None => Ok(logits),
        }
    }

    fn embedding(&self, tokens: &[u32], pass: &mut Pass) -> Result<Tensor> {
        ensure!(!tokens.is_empty(), "an empty batch");
        if let Some(id) = tokens.iter().find(|&&t| t as usize >= self.spec.vocab) {
            crate::mistake!(
                "token {id} is outside the model's vocabulary of {}: the tokenizer belongs to another model",
                self.spec.vocab
            );
        }
        let last = pass.spans.iter().map(Span::len).max().unwrap_or(0);
        self.spec.reads(last)?;
        let mut x = self.embed.pick(tokens)?;
        let device = x.device().clone();
        if let Some(scale) = self.spec.embed.scale {
            // The factor itself is held in the model's precision, as Gemma's is.
            x = pass.mode.precision.round((x * f64::from(pass.mode.precision.one(scale as f32)))?)?;
        }
        if let Some(project) = self.ends.get(&Role::ProjectIn) {
            x = project.forward(&x, pass)?;
        }
        if let (Some(table), Some(learned)) = (&self.positions, self.spec.embed.positions) {
            let positions = pass.spans.iter().flat_map(|s| s.past()..s.len());
            let rows: Vec<u32> = positions.map(|p| (p + learned.first) as u32).collect();
            x = ops::add(&x, &table.index_select(&Tensor::new(rows, &device)?, 0)?, pass.mode)?;
        }
        match &self.embed_norm {
            Some(norm) => Ok(norm.forward(&x, pass.mode)?),
            None => Ok(x),
        }
    }
}

fn rounded(weight: &Weight, precision: Precision) -> Result<Weight> {
    Ok(weight.like(precision.round(weight.rows()?)?)?)
}

impl Linear {
    fn round(&mut self, precision: Precision) -> Result<()> {
        self.weight = rounded(&self.weight, precision)?;
        self.bias = self.bias.take().map(|b| precision.round(b)).transpose()?;
        Ok(())
    }
}

impl Block {
    /// Rounds every parameter; see [`Decoder::in_precision`].
    pub fn round(&mut self, precision: Precision) -> Result<()> {
        let heads = self.qk_norms.iter_mut().flatten().flat_map(|h| h.0.iter_mut());
        for norm in self.norms.values_mut().chain(heads) {
            *norm = norm.rounded(precision)?;
        }
        if let (Some(own), Mixer::Ssm(spec)) = (&mut self.ssm, &self.spec.mixer) {
            *own = own.rounded(spec, precision)?;
        }
        self.linears.values_mut().try_for_each(|linear| linear.round(precision))
    }
}

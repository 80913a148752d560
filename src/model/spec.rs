//! The vocabulary in which every family describes itself. Plain data: comparable, printable.
use super::site::{Role, Site};
use anyhow::{Result, bail, ensure};

/// What one checkpoint is.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderSpec {
    /// Rows of the embedding and of the head.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Longest sequence that the checkpoint says it was made for.
    pub context: usize,
    /// Into the stream.
    pub embed: EmbedSpec,
    /// In order.
    pub blocks: Vec<BlockSpec>,
    /// Before the head; OPT-350m has none.
    pub norm: Option<NormSpec>,
    /// Out of the stream.
    pub head: HeadSpec,
}

/// From tokens to the residual stream.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct EmbedSpec {
    /// Learned positions.
    pub positions: Option<LearnedPositions>,
    /// BLOOM normalizes the embedding.
    pub norm: Option<NormSpec>,
    /// OPT-350m embeds into a narrower space of this width, with a linear into the stream and one back.
    pub project: Option<usize>,
}

/// A table of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedPositions {
    /// The row of position 0 (OPT: 2).
    pub first: usize,
    /// Rows in all.
    pub rows: usize,
}

/// From the residual stream to logits.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// The head's weight is the embedding's.
    pub tied: bool,
    /// It has a bias.
    pub bias: bool,
}

/// One block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSpec {
    /// Both its norms.
    pub norm: NormSpec,
    /// How its two branches meet the stream.
    pub residual: Residual,
    /// What mixes tokens.
    pub attention: AttentionSpec,
    /// What works on each token.
    pub ffn: Ffn,
}

/// How a block's branches meet the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `x + mix(norm(x))`, then `x + ffn(norm(x))`.
    Pre,
    /// As `Pre`, but the branch is added to `norm(x)`: BLOOM's `apply_residual_connection_post_layernorm`.
    FromNorm,
    /// `norm(x + mix(x))`, then `norm(x + ffn(x))`: OPT-350m.
    Post,
}

/// A norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// Which.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
    /// It has a learned scale.
    pub scale: bool,
    /// It has a learned shift.
    pub shift: bool,
}

/// Kinds of norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `(x - mean) / sqrt(var + eps)` (Ba et al., 2016).
    Layer,
    /// `x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich, 2019).
    Rms,
}

/// Attention over heads that share keys in groups.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// How it knows positions.
    pub position: Position,
    /// A token sees itself and the `window - 1` before it.
    pub window: Option<usize>,
    /// What scores are multiplied by; `1/sqrt(head_dim)` almost everywhere.
    pub scale: f64,
    /// Where it is multiplied in: half precision rounds after it.
    pub scaled: Scaled,
    /// Which linears have a bias.
    pub bias: AttentionBias,
}

/// Where attention's scale is multiplied in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaled {
    /// `(q k) * scale`, rounded before and after.
    Scores,
    /// `(q * scale) k`: OPT.
    Queries,
    /// `alibi + scale * (q k)` in one operation: BLOOM.
    WithAlibi,
}

/// Which of attention's linears have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionBias {
    /// Query, key and value.
    pub qkv: bool,
    /// Output.
    pub out: bool,
}

/// How attention knows positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Position {
    /// It does not (learned positions are in the embedding).
    None,
    /// A slope per head times the key's position is added to the score (Press et al., 2022).
    Alibi,
    /// Rotated pairs, first half with second half (Su et al., 2021).
    Rope {
        /// Base of the frequencies.
        theta: f64,
        /// Positions are divided by this (linear scaling; 1 for none).
        divide: f64,
    },
}

/// What works on each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ffn {
    /// `down(act(up(x)))`.
    Plain {
        /// Width between.
        inner: usize,
        /// Non-linearity.
        act: Act,
        /// Both linears have one.
        bias: bool,
    },
    /// `down(act(gate(x)) * up(x))`.
    Gated {
        /// Width between.
        inner: usize,
        /// Non-linearity.
        act: Act,
        /// All three linears have one.
        bias: bool,
    },
}

/// Non-linearities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Phi(x)`, with the error function.
    Gelu,
    /// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, in one operation.
    GeluTanh,
    /// The same function; half precision rounds after each of its operations (`NewGELUActivation`).
    GeluNew,
    /// The same, with the operations in BLOOM's order.
    GeluBloom,
}

impl Act {
    /// From the name in a config.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "relu" => Act::Relu,
            "silu" | "swish" => Act::Silu,
            "gelu" => Act::Gelu,
            "gelu_pytorch_tanh" | "gelu_fast" => Act::GeluTanh,
            "gelu_new" => Act::GeluNew,
            _ => bail!(
                "no activation `{name}`; there are: relu, silu, swish, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast"
            ),
        })
    }
}

/// A parameter of the shared decoder, by role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Param {
    Embed,
    Positions,
    EmbedNorm(Half),
    FinalNorm(Half),
    Weight(Site),
    Bias(Site),
    /// A block's norm.
    Norm(u16, Slot, Half),
}

/// A norm's two learned rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Half {
    Scale,
    Shift,
}

impl Half {
    /// As PyTorch's modules call it.
    pub fn torch(self) -> &'static str {
        match self {
            Half::Scale => "weight",
            Half::Shift => "bias",
        }
    }
}

/// A block's norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Slot {
    Mixer,
    Ffn,
}

/// Where to find a parameter in the checkpoint, and which part of the tensor it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The tensor, without the base prefix that some checkpoints leave away.
    pub name: String,
    /// The part.
    pub take: Take,
}

/// `transpose` first (GPT-2's Conv1D keeps `[in, out]`), then view the tensor as `[groups, of, ...]` and keep `rows`
/// of each group. One shape covers every fused QKV: BLOOM interleaves per head, GPT-2 not at all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Take {
    pub transpose: bool,
    pub split: Option<Split>,
}

/// See [`Take`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Split {
    pub groups: usize,
    pub of: usize,
    pub rows: std::ops::Range<usize>,
}

impl Source {
    /// All of a tensor.
    pub fn whole(name: impl Into<String>) -> Self {
        Self { name: name.into(), take: Take::default() }
    }
    /// Rows of each group.
    pub fn split(name: impl Into<String>, groups: usize, of: usize, rows: std::ops::Range<usize>) -> Self {
        Self { name: name.into(), take: Take { transpose: false, split: Some(Split { groups, of, rows }) } }
    }
    /// The same, of a tensor kept as `[in, out]`.
    pub fn transposed(mut self) -> Self {
        self.take.transpose = true;
        self
    }
}

impl AttentionSpec {
    /// Width of all query heads.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }
    /// Width of all key heads.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

impl Ffn {
    /// Width between the linears.
    pub fn inner(&self) -> usize {
        match *self {
            Ffn::Plain { inner, .. } | Ffn::Gated { inner, .. } => inner,
        }
    }
    fn bias(&self) -> bool {
        match *self {
            Ffn::Plain { bias, .. } | Ffn::Gated { bias, .. } => bias,
        }
    }
}

/// As many blocks as a config says, refused before they are made where no model has as many.
pub fn blocks(count: usize, block: impl FnMut(usize) -> BlockSpec) -> Result<Vec<BlockSpec>> {
    ensure!((1..=10_000).contains(&count), "the number of layers is {count}: it must be 1 to 10000");
    Ok((0..count).map(block).collect())
}

impl DecoderSpec {
    /// Refuses sizes that no decoder can have, before anything divides by them.
    pub fn check(&self) -> Result<()> {
        let sane = |what: &str, n: usize| {
            ensure!(n > 0 && n <= 1 << 28, "{what} is {n}: it must be at least 1, and at most 2^28");
            Ok(())
        };
        sane("the vocabulary", self.vocab)?;
        sane("the hidden size", self.hidden)?;
        sane("the context", self.context)?;
        sane("the embedding's width", self.embed.project.unwrap_or(1))?;
        let norms = self.blocks.iter().map(|b| b.norm).chain(self.norm).chain(self.embed.norm);
        for NormSpec { eps, .. } in norms {
            ensure!(eps >= 0. && eps.is_finite(), "a norm's eps is {eps}: it must be 0 or more");
        }
        for block in &self.blocks {
            let a = &block.attention;
            sane("the number of heads", a.heads)?;
            sane("the number of key/value heads", a.kv_heads)?;
            sane("the head size", a.head_dim)?;
            sane("the feed-forward size", block.ffn.inner())?;
            sane("the sliding window", a.window.unwrap_or(1))?;
            ensure!(
                a.heads % a.kv_heads == 0,
                "{} heads cannot share {} key/value heads",
                a.heads,
                a.kv_heads
            );
            if let Position::Rope { theta, divide } = a.position {
                ensure!(a.head_dim % 2 == 0, "rotary positions need an even head size, not {}", a.head_dim);
                ensure!(
                    theta > 0. && divide > 0. && theta.is_finite() && divide.is_finite(),
                    "rotary positions need a positive base and scaling factor, not {theta} and {divide}"
                );
            }
        }
        Ok(())
    }

    /// The linears that a pass goes through, in its order, but for a tied head.
    pub fn sites(&self) -> Vec<Site> {
        let mut sites = Vec::new();
        if self.embed.project.is_some() {
            sites.push(Site::end(Role::ProjectIn));
        }
        for (b, block) in self.blocks.iter().enumerate() {
            let gate = matches!(block.ffn, Ffn::Gated { .. }).then_some(Role::Gate);
            let roles =
                [Role::Q, Role::K, Role::V, Role::O].into_iter().chain(gate).chain([Role::Up, Role::Down]);
            sites.extend(roles.map(|r| Site::new(b as u16, r)));
        }
        if self.embed.project.is_some() {
            sites.push(Site::end(Role::ProjectOut));
        }
        if !self.head.tied {
            sites.push(Site::end(Role::Head));
        }
        sites
    }

    /// A linear's `(out, in)`.
    pub fn linear_shape(&self, site: Site) -> (usize, usize) {
        let embed = self.embed.project.unwrap_or(self.hidden);
        let Some(block) = site.block.and_then(|b| self.blocks.get(usize::from(b))) else {
            return match site.role {
                Role::ProjectIn => (self.hidden, embed),
                Role::ProjectOut => (embed, self.hidden),
                _ => (self.vocab, embed),
            };
        };
        let (a, inner) = (&block.attention, block.ffn.inner());
        match site.role {
            Role::Q => (a.q_width(), self.hidden),
            Role::K | Role::V => (a.kv_width(), self.hidden),
            Role::O => (self.hidden, a.q_width()),
            Role::Gate | Role::Up => (inner, self.hidden),
            _ => (self.hidden, inner),
        }
    }

    /// Whether a linear has a bias.
    pub fn has_bias(&self, site: Site) -> bool {
        match (site.block.and_then(|b| self.blocks.get(usize::from(b))), site.role) {
            (Some(b), Role::Q | Role::K | Role::V) => b.attention.bias.qkv,
            (Some(b), Role::O) => b.attention.bias.out,
            (Some(b), _) => b.ffn.bias(),
            (None, Role::Head) => self.head.bias,
            (None, _) => false,
        }
    }

    /// Every parameter with its shape, in the order of a pass.
    pub fn params(&self) -> Vec<(Param, Vec<usize>)> {
        let mut all = vec![(Param::Embed, vec![self.vocab, self.embed.project.unwrap_or(self.hidden)])];
        if let Some(p) = self.embed.positions {
            all.push((Param::Positions, vec![p.rows, self.hidden]));
        }
        let mut norm = |spec: NormSpec, param: &dyn Fn(Half) -> Param| {
            if spec.scale {
                all.push((param(Half::Scale), vec![self.hidden]));
            }
            if spec.shift {
                all.push((param(Half::Shift), vec![self.hidden]));
            }
        };
        if let Some(n) = self.embed.norm {
            norm(n, &Param::EmbedNorm);
        }
        for (b, block) in self.blocks.iter().enumerate() {
            for slot in [Slot::Mixer, Slot::Ffn] {
                norm(block.norm, &|h| Param::Norm(b as u16, slot, h));
            }
        }
        if let Some(n) = self.norm {
            norm(n, &Param::FinalNorm);
        }
        for site in self.sites() {
            let (rows, cols) = self.linear_shape(site);
            all.push((Param::Weight(site), vec![rows, cols]));
            if self.has_bias(site) {
                all.push((Param::Bias(site), vec![rows]));
            }
        }
        all
    }

    /// How many numbers the model has learned, tied ones once.
    pub fn count(&self) -> u64 {
        self.params().iter().map(|(_, shape)| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }
}

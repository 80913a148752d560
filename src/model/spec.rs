//! The vocabulary in which every family describes itself. Plain data: comparable, printable.
pub use super::params::{Feeder, Half, Param, ScaleGroup, Slot, Source, Split, SsmPart, Take};
use anyhow::{Result, bail, ensure};

/// What one checkpoint is.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderSpec {
    /// The [`Family`](super::families::Family)'s name, once that has read the config: what other programs' rules by
    /// architecture ask for.
    pub family: &'static str,
    /// Whether the checkpoint keeps queries, keys and values of a block in one tensor; the family says it too.
    pub fused_qkv: bool,
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
    /// Embeddings are multiplied by this: Gemma's square root of the width.
    pub scale: Option<f64>,
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
    /// Logits become `cap * tanh(logits / cap)`: Gemma 2.
    pub softcap: Option<f64>,
}

impl HeadSpec {
    /// Without bias or cap.
    pub fn plain(tied: bool) -> Self {
        Self { tied, bias: false, softcap: None }
    }
}

/// One block.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockSpec {
    /// All its norms.
    pub norm: NormSpec,
    /// How its two branches meet the stream.
    pub residual: Residual,
    /// What mixes tokens.
    pub mixer: Mixer,
    /// What works on each token.
    pub ffn: Ffn,
}

/// How a block's branches meet the residual stream. `n` are norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `x + mix(n(x))`, then `x + ffn(n(x))`.
    Pre,
    /// As `Pre`, with the stream in f32 whatever the precision: Mamba's `residual_in_fp32`.
    PreWide,
    /// As `Pre`, but the branch is added to `n(x)`: BLOOM's `apply_residual_connection_post_layernorm`.
    FromNorm,
    /// `n(x + mix(x))`, then `n(x + ffn(x))`: OPT-350m.
    Post,
    /// `x + n(mix(x))`, then `x + n(ffn(x))`: OLMo 2.
    Branch,
    /// `x + n(mix(n(x)))`, then `x + n(ffn(n(x)))`: Gemma 2, GLM-4.
    Sandwich,
    /// `x + mix(n(x)) + ffn(n(x))`.
    Parallel {
        /// One norm for both branches; otherwise each has its own.
        shared: bool,
    },
}

/// A norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormSpec {
    /// Which.
    pub kind: NormKind,
    /// Added to the variance.
    pub eps: f64,
    /// Its learned scale.
    pub gain: Gain,
    /// It has a learned shift.
    pub shift: bool,
}

impl NormSpec {
    /// A layer norm with scale and shift.
    pub fn layer(eps: f64) -> Self {
        Self { kind: NormKind::Layer, eps, gain: Gain::Scale, shift: true }
    }
    /// LLaMA's.
    pub fn rms(eps: f64) -> Self {
        Self { kind: NormKind::Rms, eps, gain: Gain::Scale, shift: false }
    }
}

/// Kinds of norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `(x - mean) / sqrt(var + eps)` (Ba et al., 2016).
    Layer,
    /// `x / sqrt(mean(x^2) + eps)` (Zhang and Sennrich, 2019).
    Rms,
}

/// A norm's learned scale, and where half precision rounds around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gain {
    /// There is none.
    None,
    /// `w`; an RMS norm rounds before and after it (`LlamaRMSNorm`), a layer norm after it.
    Scale,
    /// `w`, rounded after it only (`Olmo2RMSNorm`).
    ScaleOnce,
    /// `1 + w`, rounded after it only (`GemmaRMSNorm`).
    OnePlus,
}

/// What mixes tokens.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Mixer {
    Attention(AttentionSpec),
    Ssm(SsmSpec),
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
    /// Scores become `cap * tanh(scores / cap)`: Gemma 2.
    pub softcap: Option<f64>,
    /// Queries, keys and values are held to `-clip ..= clip`: MPT, OLMo.
    pub clip: Option<f64>,
    /// Queries and keys are normalized, before positions.
    pub qk_norm: Option<QkNorm>,
    /// Which linears have a bias.
    pub bias: AttentionBias,
}

/// A norm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QkNorm {
    /// Which.
    pub norm: NormSpec,
    /// Over what.
    pub over: Over,
}

/// What a norm of queries and keys is computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// All heads together: OLMo 2.
    Row,
    /// Each head, all with the same scale: Qwen 3.
    Head,
    /// Each head, with a scale of its own: StableLM 2.
    EachHead,
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
    /// `(q k + alibi) * scale`: Falcon.
    Sum,
    /// As `Scores`, in f32 whatever the precision: GPT-Neo.
    Wide,
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
#[derive(Clone, Debug, PartialEq)]
pub enum Position {
    /// It does not (learned positions are in the embedding).
    None,
    /// A slope per head times the key's position is added to the score (Press et al., 2022).
    Alibi {
        /// The steepest head's slope is `2^(-max / heads)`, the flattest one's `2^-max`; 8 almost everywhere.
        max: f64,
        /// Where it is rounded.
        term: AlibiTerm,
    },
    /// Rotated pairs (Su et al., 2021).
    Rope(RopeSpec),
}

/// Where ALiBi's term, slope times position, is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlibiTerm {
    /// Slope and product, as the pass rounds: BLOOM.
    Rounded,
    /// Slope, position and product to bf16, in every precision: Falcon.
    Bf16,
    /// Never, and neither is its sum with the score: MPT.
    Wide,
}

/// Rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeSpec {
    /// Base of the frequencies.
    pub theta: f64,
    /// Features of a head that turn, from its first; the others pass.
    pub dims: usize,
    /// Which features turn together.
    pub pairing: Pairing,
    /// What makes frequencies lower than the base says.
    pub scaling: RopeScaling,
    /// Half precision rounds the rotated features alone; otherwise cosines, sines and both products too. OLMo.
    pub once: bool,
}

/// Which features of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// The first half with the second half.
    Halves,
    /// Each with its neighbour: ChatGLM, GLM-4.
    Neighbours,
}

/// How rotary frequencies are stretched to longer contexts; keys of `rope_scaling` in a config.
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// They are not.
    None,
    /// All divided by this.
    Linear(f64),
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, those between blended.
    Llama3 {
        /// Of the long wavelengths.
        factor: f64,
        /// `original / low` is the wavelength from which all are divided.
        low: f64,
        /// `original / high` is the wavelength up to which none is.
        high: f64,
        /// Context before stretching.
        original: f64,
    },
    /// YaRN (Peng et al., 2023): a ramp over the dimensions from kept to divided.
    Yarn {
        /// Of the slow dimensions.
        factor: f64,
        /// Rotations within `original` from which a dimension is kept, and up to which it is divided.
        beta: (f64, f64),
        /// Context before stretching.
        original: f64,
        /// The ramp's ends are whole dimensions.
        truncate: bool,
        /// Multiplies cosines and sines.
        attention: f64,
    },
    /// LongRoPE (Ding et al., 2024): a divisor a dimension, one list for sequences that fit `original` and one for
    /// those that do not.
    Long {
        /// For sequences of at most `original` tokens.
        short: Vec<f64>,
        /// For longer ones.
        long: Vec<f64>,
        /// Context before stretching.
        original: usize,
        /// Multiplies cosines and sines.
        attention: f64,
    },
}

/// A selective state-space mixer: a short convolution, then `h = exp(dt A) h + dt B x`, `y = C h + D x`, gated.
#[derive(Clone, Debug, PartialEq)]
pub struct SsmSpec {
    /// Channels.
    pub inner: usize,
    /// State of a channel.
    pub state: usize,
    /// Tokens that the convolution sees.
    pub conv: usize,
    /// The convolution has a bias.
    pub conv_bias: bool,
    /// The linears into and out of the mixer have one.
    pub bias: bool,
    /// Which.
    pub kind: SsmKind,
}

/// Kinds of state-space mixer.
#[derive(Clone, Debug, PartialEq)]
pub enum SsmKind {
    /// Gu and Dao (2023): every channel has its own `A`, and a time step through a narrow linear.
    Mamba {
        /// Width of the time step before its linear.
        rank: usize,
    },
    /// Dao and Gu (2024): channels in heads that share `A` and the time step, and a gated norm before the output.
    Mamba2 {
        /// Heads; divides `inner`.
        heads: usize,
        /// Groups of heads that share B and C.
        groups: usize,
        /// Of the norm.
        eps: f64,
        /// Time steps are held to these.
        dt: (f64, f64),
    },
}

/// What works on each token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ffn {
    /// Nothing: a state-space block.
    None,
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
    /// Several gated ones, of which a router chooses for each token: `sum_e p_e expert_e(x)`, with `p` the softmax of
    /// the router's logits.
    Experts {
        /// How many.
        count: usize,
        /// How many a token goes through.
        top: usize,
        /// The chosen ones' `p` are made to sum to 1.
        renormalize: bool,
        /// An expert's width between.
        inner: usize,
        /// Non-linearity.
        act: Act,
        /// Width of an expert that every token goes through, weighted by the sigmoid of a gate of its own.
        shared: Option<usize>,
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

impl SsmSpec {
    /// Channels that the convolution runs over.
    pub fn channels(&self) -> usize {
        match self.kind {
            SsmKind::Mamba { .. } => self.inner,
            SsmKind::Mamba2 { groups, .. } => self.inner + 2 * groups * self.state,
        }
    }
}

impl Mixer {
    /// The same mixer, where it is attention.
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match self {
            Mixer::Attention(a) => Some(a),
            Mixer::Ssm(_) => None,
        }
    }
    /// To change it.
    pub fn attention_mut(&mut self) -> Option<&mut AttentionSpec> {
        match self {
            Mixer::Attention(a) => Some(a),
            Mixer::Ssm(_) => None,
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
        let parts: usize = self.blocks.iter().map(BlockSpec::parts).fold(0, usize::saturating_add);
        ensure!(parts <= 1_000_000, "{parts} experts and heads in all: no model has as many");
        for cap in self.blocks.iter().filter_map(|b| b.mixer.attention()?.softcap).chain(self.head.softcap) {
            ensure!(cap > 0. && cap.is_finite(), "a soft cap is {cap}: it must be positive");
        }
        for block in &self.blocks {
            match block.ffn {
                Ffn::None => {}
                Ffn::Plain { inner, .. } | Ffn::Gated { inner, .. } => sane("the feed-forward size", inner)?,
                Ffn::Experts { count, top, inner, shared, .. } => {
                    sane("the experts' size", inner)?;
                    sane("the shared expert's size", shared.unwrap_or(1))?;
                    ensure!((1..=4096).contains(&count), "there are {count} experts: it must be 1 to 4096");
                    ensure!((1..=count).contains(&top), "a token goes through {top} of {count} experts");
                }
            }
            match &block.mixer {
                Mixer::Attention(a) => a.check(&sane)?,
                Mixer::Ssm(s) => {
                    sane("the state-space width", s.inner)?;
                    sane("the state size", s.state)?;
                    sane("the convolution's size", s.conv)?;
                    sane("the state of all channels", s.inner.saturating_mul(s.state))?;
                    match s.kind {
                        SsmKind::Mamba { rank } => sane("the time step's rank", rank)?,
                        SsmKind::Mamba2 { heads, groups, .. } => {
                            sane("the number of heads", heads)?;
                            sane("the number of groups", groups)?;
                            let fits = s.inner % heads == 0 && heads % groups == 0;
                            ensure!(
                                fits,
                                "{} channels, {heads} heads, {groups} groups do not divide",
                                s.inner
                            );
                        }
                    }
                }
            }
        }
        let numbers = self.params().iter().try_fold(0usize, |all, (_, shape)| {
            shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?.checked_add(all)
        });
        ensure!(numbers.is_some_and(|n| n <= 1 << 50), "more than 2^50 parameters: no model has as many");
        Ok(())
    }
}

impl AttentionSpec {
    fn check(&self, sane: &dyn Fn(&str, usize) -> Result<()>) -> Result<()> {
        sane("the number of heads", self.heads)?;
        sane("the number of key/value heads", self.kv_heads)?;
        sane("the head size", self.head_dim)?;
        sane("the sliding window", self.window.unwrap_or(1))?;
        // A head's own parameters name it by 16 bits.
        ensure!(self.heads <= 1 << 16, "{} heads: it must be 65536 at most", self.heads);
        if let Position::Alibi { max, .. } = self.position {
            ensure!(max > 0. && max <= 1e6, "ALiBi's steepness is {max}: it must be positive");
        }
        ensure!(
            self.heads.is_multiple_of(self.kv_heads),
            "{} heads cannot share {} key/value heads",
            self.heads,
            self.kv_heads
        );
        ensure!(self.scale.is_finite(), "attention's scale is {}", self.scale);
        let Position::Rope(rope) = &self.position else { return Ok(()) };
        ensure!(
            rope.dims > 0 && rope.dims % 2 == 0 && rope.dims <= self.head_dim,
            "rotary positions need an even number of a head's {} features, not {}",
            self.head_dim,
            rope.dims
        );
        let positive = |x: f64| x > 0. && x.is_finite();
        let half = rope.dims / 2;
        let fine = positive(rope.theta)
            && match &rope.scaling {
                RopeScaling::None => true,
                RopeScaling::Linear(factor) => positive(*factor),
                RopeScaling::Llama3 { factor, low, high, original } => {
                    [*factor, *low, *high, *original].into_iter().all(positive) && low < high
                }
                RopeScaling::Yarn { factor, beta, original, attention, .. } => {
                    // Its ramp divides by the logarithm.
                    ensure!(rope.theta > 1., "yarn needs a `rope_theta` above 1, not {}", rope.theta);
                    [*factor, beta.0, beta.1, *original, *attention].into_iter().all(positive)
                }
                RopeScaling::Long { short, long, original, attention } => {
                    for (name, list) in [("short", short), ("long", long)] {
                        ensure!(
                            list.len() == half && list.iter().copied().all(positive),
                            "`rope_scaling.{name}_factor` has {} numbers; it must have {half}, all positive",
                            list.len()
                        );
                    }
                    *original > 0 && positive(*attention)
                }
            };
        ensure!(
            fine,
            "rotary positions need a positive base and scaling factors, not theta {} and {:?}",
            rope.theta,
            rope.scaling
        );
        Ok(())
    }
}

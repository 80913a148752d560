//! What a decoder has learned: its parameters by role, with their shapes, and where a checkpoint keeps each.
//!
//! Everything here follows from a [`DecoderSpec`]; nothing of it is written by hand for a family, but for [`Source`]s.
use super::{
    site::{Expert, Role, Site},
    spec::*,
};

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
    /// A block's norm of queries or keys ([`Role::Q`], [`Role::K`]); of one head where each has its own.
    QkNorm(u16, Role, Option<u16>, Half),
    /// A block's state-space parameter.
    Ssm(u16, SsmPart),
}

impl Param {
    /// Whose block's it is; `None` outside them.
    pub fn block(self) -> Option<u16> {
        match self {
            Param::Norm(b, ..) | Param::QkNorm(b, ..) | Param::Ssm(b, _) => Some(b),
            Param::Weight(site) | Param::Bias(site) => site.block,
            Param::Embed | Param::Positions | Param::EmbedNorm(_) | Param::FinalNorm(_) => None,
        }
    }
}

/// Parameters of a state-space mixer that are no linear's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SsmPart {
    /// `[channels, 1, conv]`.
    Conv,
    /// `[channels]`.
    ConvBias,
    /// `A = -exp(this)`: `[inner, state]`, Mamba 2 `[heads]`.
    ALog,
    /// `[inner]`, Mamba 2 `[heads]`.
    D,
    /// Mamba 2's, `[heads]`.
    DtBias,
    /// Mamba 2's gated norm, `[inner]`.
    Norm,
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

/// Linears of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleGroup {
    /// What makes the input.
    pub feeder: Feeder,
    /// Who is given it.
    pub linears: Vec<(Option<Expert>, Role)>,
}

/// What makes linears' input, and takes the inverse of what is multiplied into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feeder {
    /// A norm: any scale.
    Norm(Slot),
    /// A linear whose outputs reach the input with nothing between that a positive scale does not pass through: channel
    /// `(h, i)` of heads of `head` channels reaches the inputs `(h * repeat + r, i)` for `r < repeat`.
    Linear {
        /// Which.
        role: Role,
        /// Whose.
        expert: Option<Expert>,
        /// Channels that stay together.
        head: usize,
        /// Inputs that an output reaches.
        repeat: usize,
    },
    /// Nothing that could take it: it is divided out as the input comes.
    Input,
}

/// A block's norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Slot {
    /// Before the mixer, or the one norm that both branches share; [`Residual::Post`]: after the sum.
    Mixer,
    AfterMixer,
    Ffn,
    AfterFfn,
}

/// Where to find a parameter in the checkpoint, and which part of the tensor it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The tensor, without the base prefix that some checkpoints leave away.
    pub name: String,
    /// Another name, in other files of the family.
    pub alias: Option<String>,
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
        Self { name: name.into(), alias: None, take: Take::default() }
    }
    /// Rows of each group.
    pub fn split(name: impl Into<String>, groups: usize, of: usize, rows: std::ops::Range<usize>) -> Self {
        let take = Take { transpose: false, split: Some(Split { groups, of, rows }) };
        Self { name: name.into(), alias: None, take }
    }
    /// The same, or under another name.
    pub fn or(mut self, name: impl Into<String>) -> Self {
        self.alias = Some(name.into());
        self
    }
    /// The same, of a tensor kept as `[in, out]`.
    pub fn transposed(mut self) -> Self {
        self.take.transpose = true;
        self
    }
}

impl Ffn {
    fn bias(&self) -> bool {
        matches!(*self, Ffn::Plain { bias: true, .. } | Ffn::Gated { bias: true, .. })
    }
}

impl BlockSpec {
    /// The norms that it has.
    pub fn slots(&self) -> &'static [Slot] {
        match (self.residual, self.ffn) {
            (_, Ffn::None) | (Residual::Parallel { shared: true }, _) => &[Slot::Mixer],
            (Residual::Branch, _) => &[Slot::AfterMixer, Slot::AfterFfn],
            (Residual::Sandwich, _) => &[Slot::Mixer, Slot::AfterMixer, Slot::Ffn, Slot::AfterFfn],
            _ => &[Slot::Mixer, Slot::Ffn],
        }
    }

    /// Experts, and heads with parameters of their own: what a config can make many of.
    pub(super) fn parts(&self) -> usize {
        let experts = match self.ffn {
            Ffn::Experts { count, .. } => count,
            _ => 1,
        };
        let own = |a: &&AttentionSpec| a.qk_norm.is_some_and(|n| n.over == Over::EachHead);
        let heads = self.mixer.attention().filter(own).map_or(0, |a| a.heads);
        experts.saturating_add(heads)
    }

    /// Linears that are given the same input, each with what makes it, where a number a channel can pass from one to the
    /// other without changing the block's function. In the order of a pass.
    pub fn scale_groups(&self) -> Vec<ScaleGroup> {
        let mut groups = Vec::new();
        let ffn: Vec<(Option<Expert>, Role)> = self
            .linears()
            .into_iter()
            .filter(|(_, role)| matches!(role, Role::Gate | Role::Up | Role::Router))
            .collect();
        let mixer: &[Role] = match &self.mixer {
            Mixer::Attention(_) => &[Role::Q, Role::K, Role::V],
            Mixer::Ssm(_) => &[Role::SsmIn],
        };
        let mixer: Vec<_> = mixer.iter().map(|&role| (None, role)).collect();
        // A norm feeds linears alone where nothing else reads what leaves it.
        let before = matches!(
            self.residual,
            Residual::Pre | Residual::PreWide | Residual::Sandwich | Residual::Parallel { .. }
        );
        let shared = self.residual == Residual::Parallel { shared: true };
        if before {
            let mut fed = mixer;
            fed.extend(ffn.iter().copied().filter(|_| shared));
            groups.push(ScaleGroup { feeder: Feeder::Norm(Slot::Mixer), linears: fed });
        }
        if let Mixer::Attention(a) = &self.mixer
            && a.clip.is_none()
        {
            let repeat = a.heads / a.kv_heads.max(1);
            let feeder = Feeder::Linear { role: Role::V, expert: None, head: a.head_dim, repeat };
            groups.push(ScaleGroup { feeder, linears: vec![(None, Role::O)] });
        }
        if before && !shared && !ffn.is_empty() {
            groups.push(ScaleGroup { feeder: Feeder::Norm(Slot::Ffn), linears: ffn });
        }
        for (expert, role) in self.linears().into_iter().filter(|(_, role)| *role == Role::Down) {
            let passes = match self.ffn {
                Ffn::Plain { act, .. } => act == Act::Relu,
                Ffn::Gated { .. } | Ffn::Experts { .. } => true,
                Ffn::None => false,
            };
            let feeder = match passes {
                true => Feeder::Linear { role: Role::Up, expert, head: 1, repeat: 1 },
                false => Feeder::Input,
            };
            groups.push(ScaleGroup { feeder, linears: vec![(expert, role)] });
        }
        groups
    }

    /// Its linears, in the order of a pass.
    pub fn linears(&self) -> Vec<(Option<Expert>, Role)> {
        const GATED: [Role; 3] = [Role::Gate, Role::Up, Role::Down];
        let mixer: &[Role] = match &self.mixer {
            Mixer::Attention(_) => &[Role::Q, Role::K, Role::V, Role::O],
            Mixer::Ssm(SsmSpec { kind: SsmKind::Mamba { .. }, .. }) => {
                &[Role::SsmIn, Role::SsmX, Role::SsmDt, Role::SsmOut]
            }
            Mixer::Ssm(_) => &[Role::SsmIn, Role::SsmOut],
        };
        let mut all: Vec<_> = mixer.iter().map(|&r| (None, r)).collect();
        match self.ffn {
            Ffn::None => {}
            Ffn::Plain { .. } => all.extend([(None, Role::Up), (None, Role::Down)]),
            Ffn::Gated { .. } => all.extend(GATED.map(|r| (None, r))),
            Ffn::Experts { count, shared, .. } => {
                all.push((None, Role::Router));
                all.extend((0..count).flat_map(|e| GATED.map(|r| (Some(Expert::Routed(e as u16)), r))));
                if shared.is_some() {
                    all.push((Some(Expert::Shared), Role::Router));
                    all.extend(GATED.map(|r| (Some(Expert::Shared), r)));
                }
            }
        }
        all
    }

    /// `(out, in)` of one of its linears.
    fn linear_shape(&self, hidden: usize, expert: Option<Expert>, role: Role) -> (usize, usize) {
        let inner = match (self.ffn, expert) {
            (Ffn::Experts { shared: Some(inner), .. }, Some(Expert::Shared)) => inner,
            (Ffn::Plain { inner, .. } | Ffn::Gated { inner, .. } | Ffn::Experts { inner, .. }, _) => inner,
            (Ffn::None, _) => 0,
        };
        match (&self.mixer, role) {
            (Mixer::Attention(a), Role::Q) => (a.q_width(), hidden),
            (Mixer::Attention(a), Role::K | Role::V) => (a.kv_width(), hidden),
            (Mixer::Attention(a), Role::O) => (hidden, a.q_width()),
            (Mixer::Ssm(s), _) if !matches!(role, Role::Router | Role::Gate | Role::Up | Role::Down) => {
                match (&s.kind, role) {
                    (SsmKind::Mamba { .. }, Role::SsmIn) => (2 * s.inner, hidden),
                    (SsmKind::Mamba2 { heads, .. }, Role::SsmIn) => (s.inner + s.channels() + heads, hidden),
                    (SsmKind::Mamba { rank }, Role::SsmX) => (rank + 2 * s.state, s.inner),
                    (SsmKind::Mamba { rank }, Role::SsmDt) => (s.inner, *rank),
                    _ => (hidden, s.inner),
                }
            }
            (_, Role::Router) => match (self.ffn, expert) {
                (Ffn::Experts { count, .. }, None) => (count, hidden),
                _ => (1, hidden),
            },
            (_, Role::Gate | Role::Up) => (inner, hidden),
            _ => (hidden, inner),
        }
    }

    fn has_bias(&self, role: Role) -> bool {
        match (&self.mixer, role) {
            (Mixer::Attention(a), Role::Q | Role::K | Role::V) => a.bias.qkv,
            (Mixer::Attention(a), Role::O) => a.bias.out,
            (Mixer::Ssm(s), Role::SsmIn | Role::SsmOut) => s.bias,
            (_, Role::SsmDt) => true,
            (_, Role::Router) => false,
            _ => self.ffn.bias(),
        }
    }

    /// Its parameters that are no linear's, with their shapes.
    pub(super) fn small_params(&self, b: u16, hidden: usize) -> Vec<(Param, Vec<usize>)> {
        let mut all = Vec::new();
        let halves = |n: NormSpec| {
            let scale = (n.gain != Gain::None).then_some(Half::Scale);
            scale.into_iter().chain(n.shift.then_some(Half::Shift))
        };
        for &slot in self.slots() {
            all.extend(halves(self.norm).map(|h| (Param::Norm(b, slot, h), vec![hidden])));
        }
        match &self.mixer {
            Mixer::Attention(a) => {
                let Some(QkNorm { norm, over }) = a.qk_norm else { return all };
                for (role, heads) in [(Role::Q, a.heads), (Role::K, a.kv_heads)] {
                    let (each, width) = match over {
                        Over::Row => (None, heads * a.head_dim),
                        Over::Head => (None, a.head_dim),
                        Over::EachHead => (Some(heads), a.head_dim),
                    };
                    for h in halves(norm) {
                        match each {
                            None => all.push((Param::QkNorm(b, role, None, h), vec![width])),
                            Some(n) => all.extend(
                                (0..n).map(|i| (Param::QkNorm(b, role, Some(i as u16), h), vec![width])),
                            ),
                        }
                    }
                }
            }
            Mixer::Ssm(s) => {
                all.push((Param::Ssm(b, SsmPart::Conv), vec![s.channels(), 1, s.conv]));
                if s.conv_bias {
                    all.push((Param::Ssm(b, SsmPart::ConvBias), vec![s.channels()]));
                }
                match s.kind {
                    SsmKind::Mamba { .. } => {
                        all.push((Param::Ssm(b, SsmPart::ALog), vec![s.inner, s.state]));
                        all.push((Param::Ssm(b, SsmPart::D), vec![s.inner]));
                    }
                    SsmKind::Mamba2 { heads, .. } => {
                        all.push((Param::Ssm(b, SsmPart::ALog), vec![heads]));
                        all.push((Param::Ssm(b, SsmPart::D), vec![heads]));
                        all.push((Param::Ssm(b, SsmPart::DtBias), vec![heads]));
                        all.push((Param::Ssm(b, SsmPart::Norm), vec![s.inner]));
                    }
                }
            }
        }
        all
    }
}

impl DecoderSpec {
    /// Longest sequence that can be computed at all: learned positions end somewhere.
    pub fn longest(&self) -> Option<usize> {
        self.embed.positions.map(|p| p.rows.saturating_sub(p.first))
    }

    /// Refuses a longer one.
    ///
    /// # Errors
    /// A mistake that names both lengths.
    pub fn reads(&self, tokens: usize) -> anyhow::Result<()> {
        if let Some(longest) = self.longest().filter(|&l| tokens > l) {
            crate::mistake!("a sequence of {tokens} tokens: the model has learned positions for {longest}");
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
            sites.extend(block.linears().into_iter().map(|(e, r)| Site::of(b as u16, e, r)));
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
        match (site.block.and_then(|b| self.blocks.get(usize::from(b))), site.role) {
            (Some(block), role) => block.linear_shape(self.hidden, site.expert, role),
            (None, Role::ProjectIn) => (self.hidden, embed),
            (None, Role::ProjectOut) => (embed, self.hidden),
            (None, _) => (self.vocab, embed),
        }
    }

    /// Whether a linear has a bias.
    pub fn has_bias(&self, site: Site) -> bool {
        match site.block.and_then(|b| self.blocks.get(usize::from(b))) {
            Some(block) => block.has_bias(site.role),
            None => site.role == Role::Head && self.head.bias,
        }
    }

    /// Every parameter with its shape, in the order of a pass.
    pub fn params(&self) -> Vec<(Param, Vec<usize>)> {
        let mut all = vec![(Param::Embed, vec![self.vocab, self.embed.project.unwrap_or(self.hidden)])];
        if let Some(p) = self.embed.positions {
            all.push((Param::Positions, vec![p.rows, self.hidden]));
        }
        let norms = [(self.embed.norm, Param::EmbedNorm as fn(Half) -> Param), (self.norm, Param::FinalNorm)];
        for (norm, param) in norms.into_iter().filter_map(|(n, p)| Some((n?, p))) {
            if norm.gain != Gain::None {
                all.push((param(Half::Scale), vec![self.hidden]));
            }
            if norm.shift {
                all.push((param(Half::Shift), vec![self.hidden]));
            }
        }
        for (b, block) in self.blocks.iter().enumerate() {
            all.extend(block.small_params(b as u16, self.hidden));
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

    /// Products and sums that one token costs in linears, the head among them; of experts, those that it goes through.
    pub fn flops_a_token(&self) -> f64 {
        let share = |site: &Site| match (site.block.map(|b| self.blocks[usize::from(b)].ffn), site.expert) {
            (Some(Ffn::Experts { count, top, .. }), Some(Expert::Routed(_))) => top as f64 / count as f64,
            _ => 1.,
        };
        let cost = |(out, inner): (usize, usize)| 2. * out as f64 * inner as f64;
        let linears: f64 = self.sites().iter().map(|s| share(s) * cost(self.linear_shape(*s))).sum();
        let head = if self.head.tied { cost(self.linear_shape(Site::end(Role::Head))) } else { 0. };
        linears + head
    }
}

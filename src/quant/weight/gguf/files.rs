//! Mixtures: which tensor gets which type in a file that `llama-quantize` makes, by the file type's name.
//!
//! ```text
//! q4_k_m   attn.v and ffn.down of some blocks q6_k, the head q6_k, all others q4_k
//! ```
//! The rules of `llama_tensor_get_type_impl` in llama.cpp's `llama-quant.cpp`, for the architectures that bitsweep has.
use super::types::Type::{self, *};
use crate::model::{
    site::{Expert, Role, Site},
    spec::{DecoderSpec, Ffn},
};

/// File types, and the type of most of their tensors.
pub static FILES: &[(&str, Type)] = &[
    ("q1_0", Q1_0),
    ("q2_0", Q2_0),
    ("q4_0", Q4_0),
    ("q4_1", Q4_1),
    ("q5_0", Q5_0),
    ("q5_1", Q5_1),
    ("q8_0", Q8_0),
    ("q2_k", Q2K),
    ("q2_k_s", Q2K),
    ("q3_k_s", Q3K),
    ("q3_k_m", Q3K),
    ("q3_k_l", Q3K),
    ("q4_k_s", Q4K),
    ("q4_k_m", Q4K),
    ("q5_k_s", Q5K),
    ("q5_k_m", Q5K),
    ("q6_k", Q6K),
    ("iq1_s", Iq1S),
    ("iq1_m", Iq1M),
    ("iq2_xxs", Iq2Xxs),
    ("iq2_xs", Iq2Xs),
    ("iq2_s", Iq2Xs),
    ("iq2_m", Iq2S),
    ("iq3_xxs", Iq3Xxs),
    ("iq3_xs", Iq3S),
    ("iq3_s", Iq3S),
    ("iq3_m", Iq3S),
    ("iq4_nl", Iq4Nl),
    ("iq4_xs", Iq4Xs),
    ("tq1_0", Tq1_0),
    ("tq2_0", Tq2_0),
    ("mxfp4_moe", Mxfp4),
];

/// File types that `llama-quantize` makes with an importance matrix alone, for some of their tensors' types.
pub static DEMANDING: &[&str] =
    &["q2_k_s", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xxs", "iq3_xs"];

/// What a tensor is to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values; fused with queries and keys, where a file keeps them so.
    V,
    /// Attention's output.
    Out,
    /// Feed-forward, gate and up.
    Up,
    /// Feed-forward's output.
    Down,
    /// The embedding of a model whose head is another tensor.
    Embedding,
    /// The head, or the embedding that is the head.
    Head,
    /// A state-space layer's.
    Other,
}

/// A tensor, and of the model what the rules ask.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// What it is.
    pub part: Part,
    /// Which of the tensors of its kind: the block's number, among attention layers for [`Part::V`].
    pub index: usize,
    /// Of how many.
    pub count: usize,
    /// Query heads for each key head.
    pub shared: usize,
    /// Experts of a block; none is 0.
    pub experts: usize,
    /// Whether it is one of theirs.
    pub expert: bool,
    /// Whether the architecture is Falcon's.
    pub falcon: bool,
    /// Whether llama.cpp takes it for a model of 70 billion parameters, by its 80 blocks.
    pub seventy: bool,
    /// Whether there is an importance matrix.
    pub importance: bool,
    /// Values of a row.
    pub inputs: usize,
}

impl Place {
    /// Of a linear.
    pub fn of(site: Site, spec: &DecoderSpec, importance: bool) -> Self {
        let layers = spec.blocks.len();
        let attention = |b: &crate::model::spec::BlockSpec| b.mixer.attention().is_some();
        let block = usize::from(site.block.unwrap_or(0));
        let before = spec.blocks.iter().take(block).filter(|b| attention(b)).count();
        let part = match site.role {
            Role::Q | Role::K if spec.fused_qkv => Part::V,
            Role::Q => Part::Q,
            Role::K => Part::K,
            Role::V => Part::V,
            Role::O => Part::Out,
            Role::Gate | Role::Up => Part::Up,
            Role::Down => Part::Down,
            Role::Head => Part::Head,
            _ => Part::Other,
        };
        let (index, count) = match part {
            Part::V => (before, spec.blocks.iter().filter(|b| attention(b)).count()),
            _ => (block, layers),
        };
        Self {
            part,
            index,
            count,
            expert: matches!(site.expert, Some(Expert::Routed(_))),
            inputs: spec.linear_shape(site).1,
            ..Self::model(spec, importance)
        }
    }

    /// Of the embedding.
    pub fn embedding(spec: &DecoderSpec, importance: bool) -> Self {
        let part = if spec.head.tied { Part::Head } else { Part::Embedding };
        let inputs = spec.embed.project.unwrap_or(spec.hidden);
        Self { part, inputs, ..Self::model(spec, importance) }
    }

    fn model(spec: &DecoderSpec, importance: bool) -> Self {
        let attention = spec.blocks.iter().find_map(|b| b.mixer.attention());
        let experts = spec.blocks.iter().map(|b| match b.ffn {
            Ffn::Experts { count, .. } => count,
            _ => 0,
        });
        let shared = attention.map_or(1, |a| a.heads / a.kv_heads.max(1));
        let seventy = match spec.family {
            "llama" | "mistral" | "mixtral" => shared > 1,
            "qwen2" | "olmo" => true,
            _ => false,
        };
        Self {
            part: Part::Other,
            index: 0,
            count: spec.blocks.len(),
            shared,
            experts: experts.max().unwrap_or(0),
            expert: false,
            falcon: spec.family == "falcon",
            seventy: seventy && spec.blocks.len() == 80,
            importance,
            inputs: spec.hidden,
        }
    }

    /// The first and the last eighth, and every third between.
    fn more(&self) -> bool {
        let (i, n) = (self.index, self.count);
        i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
    }

    fn first(&self, share: usize) -> bool {
        self.index < self.count / share
    }
}

/// The type of a tensor in a file, before its rows' length is looked at.
pub fn kind(file: &str, usual: Type, at: &Place) -> Type {
    let eight = at.experts == 8;
    match at.part {
        Part::Head => match (file, usual) {
            ("mxfp4_moe", _) => Q8_0,
            _ if at.falcon || !at.inputs.is_multiple_of(usual.block()) => Q8_0,
            (_, Q8_0) => Q8_0,
            ("iq3_xxs", _) => Q5K,
            _ if smallest(file) => Q5K,
            _ => Q6K,
        },
        _ if file == "mxfp4_moe" => {
            if at.expert {
                Mxfp4
            } else {
                Q8_0
            }
        }
        Part::Embedding => match file {
            "tq1_0" | "tq2_0" | "q2_0" => Q4K,
            "iq2_s" | "iq2_m" | "iq3_xxs" => Iq3S,
            _ if smallest(file) => Q2K,
            _ => usual,
        },
        _ if smallest(file) => small(file, usual, at),
        Part::V => {
            let kind = match file {
                "q2_k" if at.shared >= 4 => Q4K,
                "q2_k" => Q3K,
                "q2_k_s" if at.shared >= 4 => Q4K,
                "q3_k_m" if at.index < 2 => Q5K,
                "q3_k_m" => Q4K,
                "q3_k_l" => Q5K,
                "iq3_xxs" | "iq3_xs" | "iq3_s" if at.shared >= 4 => Q4K,
                "iq3_xxs" if !at.importance => Iq3S,
                "iq3_m" => Q4K,
                "iq4_nl" | "iq4_xs" if at.shared >= 4 => Q5K,
                "q4_k_m" | "q5_k_m" if at.more() => Q6K,
                "q4_k_s" if at.index < 4 => Q5K,
                _ => usual,
            };
            match kind {
                _ if eight => Q8_0,
                Q3K | Q4K if at.seventy => Q5K,
                kind => kind,
            }
        }
        Part::K if eight => Q8_0,
        Part::Q | Part::K => match file {
            "iq3_xs" => Iq3Xxs,
            "iq3_xxs" => Iq2S,
            _ => usual,
        },
        Part::Up if file == "iq3_xs" && !at.first(8) && at.index < 7 * at.count / 8 => Iq3Xxs,
        Part::Down => match file {
            "q2_k" => Q3K,
            "q2_k_s" if at.first(8) => Q4K,
            "q3_k_m" if at.first(16) => Q5K,
            "q3_k_m" if !at.falcon || at.more() => Q4K,
            "q3_k_l" => {
                if at.falcon {
                    Q4K
                } else {
                    Q5K
                }
            }
            "iq3_xxs" if !at.importance && at.first(8) => Q4K,
            "iq3_xxs" if !at.importance => Q3K,
            "iq3_m" if at.first(8) || eight && at.more() => Q4K,
            "q4_k_m" if at.falcon && at.first(16) => Q6K,
            "q4_k_m" if at.falcon && at.more() => Q5K,
            "q4_k_m" if !at.falcon && at.more() => Q6K,
            "iq4_nl" | "iq4_xs" if at.first(8) && !at.importance => Q5K,
            "q5_k_m" if at.more() => Q6K,
            "q4_k_s" if !at.falcon && at.first(8) => Q5K,
            "q4_0" if at.importance && at.first(8) => Q4_1,
            "q5_0" if at.importance && at.first(8) => Q5_1,
            _ => usual,
        },
        Part::Out => match file {
            "q3_k_l" if at.falcon => Q4K,
            _ if at.falcon => usual,
            "q2_k" | "q3_k_s" | "q3_k_m" | "iq4_nl" | "q4_k_s" | "q4_k_m" | "iq4_xs" if eight => Q5K,
            "iq3_xxs" | "iq3_xs" | "iq3_s" | "iq3_m" if eight => Q5K,
            _ if eight => usual,
            "q2_k" => Q3K,
            "iq3_xxs" => Iq3S,
            "q3_k_m" | "iq3_m" => Q4K,
            "q3_k_l" => Q5K,
            _ => usual,
        },
        Part::Up | Part::Other => usual,
    }
}

/// Files of 1 and 2 bits, whose blocks have rules of their own.
fn smallest(file: &str) -> bool {
    matches!(file, "iq1_s" | "iq1_m" | "iq2_xxs" | "iq2_xs" | "iq2_s" | "iq2_m")
}

/// The type of a block's tensor in one of them.
fn small(file: &str, usual: Type, at: &Place) -> Type {
    let larger = matches!(file, "iq2_s" | "iq2_m");
    let more = if larger { Iq3S } else { Q2K };
    match at.part {
        Part::V if at.shared >= 4 || at.experts >= 4 => Q4K,
        Part::V => more,
        Part::K if at.experts == 8 => Q4K,
        Part::Down if at.first(8) => more,
        Part::Out if at.experts == 8 => Q5K,
        Part::Out if larger => Iq3S,
        Part::Out if matches!(file, "iq1_s" | "iq1_m") => Iq2Xxs,
        _ => usual,
    }
}

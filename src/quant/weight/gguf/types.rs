//! GGUF's tensor types: their blocks, what they take, and what a row falls back to that no block divides.
use super::{
    blocks::{self, Round},
    iq, iq1, iq4, k,
};

/// A tensor's type, as ggml numbers them no more: by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Type {
    F32,
    F16,
    Q1_0,
    Q2_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq1S,
    Iq1M,
    Iq2Xxs,
    Iq2Xs,
    Iq2S,
    Iq3Xxs,
    Iq3S,
    Iq4Nl,
    Iq4Xs,
    Tq1_0,
    Tq2_0,
    Mxfp4,
    Nvfp4,
}

/// What a type is.
struct Facts {
    kind: Type,
    name: &'static str,
    /// Values.
    block: usize,
    bytes: usize,
    /// Of one code: where an index stands for several, its share of that, and of their signs.
    bits: f64,
    /// `None` for floats, which are rounded one by one.
    round: Option<Round>,
}

const fn facts(kind: Type, name: &'static str, block: usize, bytes: usize, bits: f64, round: Round) -> Facts {
    Facts { kind, name, block, bytes, bits, round: Some(round) }
}

/// log2 3.
const TRIT: f64 = 1.584_962_500_721_156;

static ALL: &[Facts] = &[
    Facts { kind: Type::F32, name: "f32", block: 1, bytes: 4, bits: 32., round: None },
    Facts { kind: Type::F16, name: "f16", block: 1, bytes: 2, bits: 16., round: None },
    facts(Type::Q1_0, "q1_0", 128, 18, 1., blocks::q1_0),
    facts(Type::Q2_0, "q2_0", 64, 18, 2., blocks::q2_0),
    facts(Type::Q4_0, "q4_0", 32, 18, 4., blocks::q4_0),
    facts(Type::Q4_1, "q4_1", 32, 20, 4., blocks::q4_1),
    facts(Type::Q5_0, "q5_0", 32, 22, 5., blocks::q5_0),
    facts(Type::Q5_1, "q5_1", 32, 24, 5., blocks::q5_1),
    facts(Type::Q8_0, "q8_0", 32, 34, 8., blocks::q8_0),
    facts(Type::Q2K, "q2_k", 256, 84, 2., k::q2_k),
    facts(Type::Q3K, "q3_k", 256, 110, 3., k::q3_k),
    facts(Type::Q4K, "q4_k", 256, 144, 4., k::q4_k),
    facts(Type::Q5K, "q5_k", 256, 176, 5., k::q5_k),
    facts(Type::Q6K, "q6_k", 256, 210, 6., k::q6_k),
    facts(Type::Iq1S, "iq1_s", 256, 50, 11. / 8., iq1::iq1_s),
    facts(Type::Iq1M, "iq1_m", 256, 56, 11. / 8., iq1::iq1_m),
    facts(Type::Iq2Xxs, "iq2_xxs", 256, 66, 15. / 8., iq::iq2_xxs),
    facts(Type::Iq2Xs, "iq2_xs", 256, 74, 16. / 8., iq::iq2_xs),
    facts(Type::Iq2S, "iq2_s", 256, 82, 18. / 8., iq::iq2_s),
    facts(Type::Iq3Xxs, "iq3_xxs", 256, 98, 23. / 8., iq::iq3_xxs),
    facts(Type::Iq3S, "iq3_s", 256, 110, 26. / 8., iq::iq3_s),
    facts(Type::Iq4Nl, "iq4_nl", 32, 18, 4., iq4::iq4_nl),
    facts(Type::Iq4Xs, "iq4_xs", 256, 136, 4., iq4::iq4_xs),
    facts(Type::Tq1_0, "tq1_0", 256, 54, TRIT, blocks::ternary),
    facts(Type::Tq2_0, "tq2_0", 256, 66, 2., blocks::ternary),
    facts(Type::Mxfp4, "mxfp4", 32, 17, 4., blocks::mxfp4),
    facts(Type::Nvfp4, "nvfp4", 64, 36, 4., blocks::nvfp4),
];

impl Type {
    fn facts(self) -> &'static Facts {
        ALL.iter().find(|f| f.kind == self).unwrap_or(&ALL[0])
    }

    /// Those that a recipe may name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ALL.iter().filter(|f| f.round.is_some()).map(|f| f.name)
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|f| f.name == name && f.round.is_some()).map(|f| f.kind)
    }

    /// `q4_k`.
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// Bits of a matrix whose rows its blocks divide.
    pub fn bits(self, values: usize) -> f64 {
        let facts = self.facts();
        8. * facts.bytes as f64 * values as f64 / facts.block as f64
    }

    /// Of one code.
    pub fn code_bits(self) -> f64 {
        self.facts().bits
    }

    /// Values of a block.
    pub fn block(self) -> usize {
        self.facts().block
    }

    /// What rounds a block; `None` for floats.
    pub fn round(self) -> Option<Round> {
        self.facts().round
    }

    /// Whether ggml makes it under importance alone (`ggml_quantize_requires_imatrix`).
    pub fn demands_importance(self) -> bool {
        matches!(self, Type::Iq1S | Type::Iq2Xxs | Type::Iq2Xs)
    }

    /// What `llama-quantize` takes for rows of so many values: a type of blocks of 32 where this one's do not divide them, and
    /// 16-bit floats where those do not either (`tensor_type_fallback` of llama.cpp's `llama-quant.cpp`).
    pub fn for_rows(self, values: usize) -> Self {
        if values.is_multiple_of(self.block()) {
            return self;
        }
        let smaller = match self {
            Type::Iq1S | Type::Iq1M | Type::Iq2Xxs | Type::Iq2Xs | Type::Iq2S => Type::Iq4Nl,
            Type::Iq3Xxs | Type::Iq3S | Type::Iq4Xs => Type::Iq4Nl,
            Type::Q2_0 | Type::Q2K | Type::Q3K | Type::Tq1_0 | Type::Tq2_0 => Type::Q4_0,
            Type::Q4K => Type::Q5_0,
            Type::Q5K => Type::Q5_1,
            Type::Q6K => Type::Q8_0,
            other => other,
        };
        if values.is_multiple_of(smaller.block()) { smaller } else { Type::F16 }
    }
}

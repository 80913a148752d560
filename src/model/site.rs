//! Names for linears by what they do, the same in every family: what recipes, records and tables speak of.
use std::fmt;

/// What a linear does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Role {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
    /// From the embedding's width to the blocks' (OPT-350m).
    ProjectIn,
    /// And back.
    ProjectOut,
    Head,
}

impl Role {
    /// Every role, in the order of a pass.
    pub const ALL: [Role; 10] = [
        Role::ProjectIn,
        Role::Q,
        Role::K,
        Role::V,
        Role::O,
        Role::Gate,
        Role::Up,
        Role::Down,
        Role::ProjectOut,
        Role::Head,
    ];

    /// As sites print it and recipes skip it: `attn.q`, `ffn.down`, `head`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Q => "attn.q",
            Role::K => "attn.k",
            Role::V => "attn.v",
            Role::O => "attn.o",
            Role::Gate => "ffn.gate",
            Role::Up => "ffn.up",
            Role::Down => "ffn.down",
            Role::ProjectIn => "project_in",
            Role::ProjectOut => "project_out",
            Role::Head => "head",
        }
    }
}

/// A linear's place in the network: `blocks.3.attn.q`, `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Which block; `None` outside of them.
    pub block: Option<u16>,
    /// What it does.
    pub role: Role,
}

impl Site {
    /// Inside a block.
    pub fn new(block: u16, role: Role) -> Self {
        Self { block: Some(block), role }
    }
    /// Outside the blocks.
    pub fn end(role: Role) -> Self {
        Self { block: None, role }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block {
            Some(b) => write!(f, "blocks.{b}.{}", self.role.name()),
            None => f.write_str(self.role.name()),
        }
    }
}

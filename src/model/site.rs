//! Names for linears by what they do, the same in every family: what recipes, records and tables speak of.
//!
//! `blocks.3.attn.q` · `blocks.0.ffn.up` · `blocks.7.ffn.5.up` (an expert's) · `blocks.7.ffn.shared.up` ·
//! `blocks.7.ffn.router` · `blocks.2.ssm.in` · `head`
use std::fmt;

/// What a linear does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Role {
    Q,
    K,
    V,
    O,
    /// A state-space mixer's input: values and gate, and all that Mamba 2 computes at once.
    SsmIn,
    /// From values to time step, B and C.
    SsmX,
    /// From the narrow time step to one a channel.
    SsmDt,
    SsmOut,
    /// Logits over experts; with [`Expert::Shared`], the gate before the shared one.
    Router,
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
    pub const ALL: [Role; 15] = [
        Role::ProjectIn,
        Role::Q,
        Role::K,
        Role::V,
        Role::O,
        Role::SsmIn,
        Role::SsmX,
        Role::SsmDt,
        Role::SsmOut,
        Role::Router,
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
            Role::SsmIn => "ssm.in",
            Role::SsmX => "ssm.x",
            Role::SsmDt => "ssm.dt",
            Role::SsmOut => "ssm.out",
            Role::Router => "ffn.router",
            Role::Gate => "ffn.gate",
            Role::Up => "ffn.up",
            Role::Down => "ffn.down",
            Role::ProjectIn => "project_in",
            Role::ProjectOut => "project_out",
            Role::Head => "head",
        }
    }
}

/// Which of a block's experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Expert {
    /// One that the router chooses, from 0.
    Routed(u16),
    /// The one that every token goes through.
    Shared,
}

/// A linear's place in the network: `blocks.3.attn.q`, `head`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Which block; `None` outside of them.
    pub block: Option<u16>,
    /// Whose; `None` where a block has one feed-forward.
    pub expert: Option<Expert>,
    /// What it does.
    pub role: Role,
}

impl Site {
    /// Inside a block.
    pub fn new(block: u16, role: Role) -> Self {
        Self { block: Some(block), expert: None, role }
    }
    /// Outside the blocks.
    pub fn end(role: Role) -> Self {
        Self { block: None, expert: None, role }
    }
    /// An expert's.
    pub fn of(block: u16, expert: Option<Expert>, role: Role) -> Self {
        Self { block: Some(block), expert, role }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(b) = self.block {
            write!(f, "blocks.{b}.")?;
        }
        match (self.expert, self.role.name().split_once('.')) {
            (Some(Expert::Routed(e)), Some((part, what))) => write!(f, "{part}.{e}.{what}"),
            (Some(Expert::Shared), Some((part, what))) => write!(f, "{part}.shared.{what}"),
            _ => f.write_str(self.role.name()),
        }
    }
}

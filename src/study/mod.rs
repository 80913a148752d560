//! A study: models x recipes x tasks. [`config`] reads it, [`sweep`] turns lists into axes, [`plan`] says what would run,
//! [`run`] runs it, and [`engine`] is the model that evaluators ask; where a model does not fit memory, [`walk`] takes its place.
pub mod calibrate;
pub mod config;
pub mod engine;
pub mod evaluate;
mod generate;
pub mod memory;
pub mod passes;
pub mod plan;
pub mod run;
pub mod score;
pub mod sweep;
pub mod system;
mod walk;

/// Raised when any arithmetic changes that can move a number: part of every cell's identity. CHANGELOG.md, section
/// Numbers, says what moved.
pub const NUMERICS: u32 = 5;

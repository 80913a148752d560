//! What quantization costs a language model, measured.
//!
//! Modules in the order of their dependencies: each uses only those before it (docs/architecture.md has the table, and
//! `tests/tidy.rs` holds it). Blank lines keep rustfmt from sorting them.
#![cfg_attr(test, allow(clippy::unwrap_used))]
pub mod mistake;

pub mod float;

pub mod random;

pub mod stats;

pub mod tensor;

pub mod hub;

pub mod model;

pub mod quant;

pub mod suite;

pub mod eval;

pub mod results;

pub mod published;

pub mod report;

pub mod gate;
pub mod judge;

pub mod study;

pub mod inspect;

pub mod cli;

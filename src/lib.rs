//! What quantization costs a language model, measured. Modules, in the order of their dependencies:
#![cfg_attr(test, allow(clippy::unwrap_used))]
pub mod cli;
pub mod eval;
pub mod gate;
pub mod mistake;
pub mod model;
pub mod quant;
pub mod report;
pub mod results;
pub mod stats;
pub mod study;
pub mod suite;
pub mod tensor;

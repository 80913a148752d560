//! Tasks: one TOML file each, `suites/<suite>/<task>.toml`, or lm-evaluation-harness's YAML. A suite is a folder. A task
//! never runs code.
pub mod ask;
pub mod clean;
pub mod data;
pub mod dialogue;
pub mod fewshot;
pub mod filter;
pub mod find;
mod footer;
pub mod generate;
pub mod harness;
pub mod made;
mod parquet;
pub mod python;
pub mod requests;
pub mod rows;
pub mod split;
pub mod task;
pub mod template;
pub mod yaml;

pub use ask::{Ask, Protocol};
pub use task::Task;

//! Tasks: one TOML file each, `suites/<suite>/<task>.toml`. A suite is a folder. A task never runs code.
pub mod clean;
pub mod data;
pub mod filter;
pub mod find;
pub mod generate;
pub mod task;
pub mod template;

pub use task::{Ask, Protocol, Task};

//! What a study leaves: `records.jsonl`, one line a finished cell, and `items/<cell>.jsonl`, one line an item.
//!
//! Records outlive the program that wrote them, so this module knows no other's types: a record says everything in
//! plain words and numbers, and [`SCHEMA`] is raised when their meaning changes.
pub mod inspection;
pub mod items;
pub mod parts;
pub mod rule;
pub mod store;

use crate::stats::{Scale, Share};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use items::Items;
pub use parts::Parts;
pub use rule::{Against, Limit, Rule};
pub use store::Store;

/// Version of the two files' meaning.
pub const SCHEMA: u32 = 1;

/// One finished cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`] when written.
    pub schema: u32,
    /// Hash of all that can change the number; names the items file.
    pub cell: String,
    /// The model.
    pub model: ModelInfo,
    /// The recipe, in full.
    pub recipe: RecipeInfo,
    /// The task, its version, its data.
    pub task: TaskInfo,
    /// Done with metrics, failed or skipped with a reason.
    #[serde(flatten)]
    pub status: Status,
    /// Metrics of each of the task's parts, where it has some and the cell is done.
    #[serde(default, skip_serializing_if = "Parts::is_empty")]
    pub parts: Parts,
    /// What it cost. Not part of a result: it differs from run to run.
    pub cost: Cost,
    /// By what it was made.
    pub made_by: MadeBy,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// As the study names it.
    pub name: String,
    /// Hash of the files' content, or the Hub's commit.
    pub revision: String,
    /// The Hub's `model_type`.
    pub family: String,
    /// Parameters, tied ones once.
    pub params: u64,
    /// As the checkpoint stores most weights: `f32`, `bf16`, `f16`.
    pub stored: String,
    /// Hash of what makes tokens of texts; empty in records made before there was one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tokenizer: String,
}

/// How it was quantized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeInfo {
    /// As the study names it.
    pub name: String,
    /// Every setting, defaults written out.
    pub settings: serde_json::Value,
    /// Bits of a weight's code; the checkpoint's own where weights are untouched.
    pub weight_bits: f64,
    /// Bits of an activation entering a linear.
    pub act_bits: f64,
    /// Bits of a cached key or value.
    pub kv_bits: f64,
    /// Bytes of the cache for a token, scales and zeros included; 0 in records made before there was such a number.
    #[serde(default)]
    pub kv_bytes_per_token: f64,
    /// Over the quantized linears, scales and zeros included.
    pub bits_per_weight: f64,
    /// The whole model's, MB (10^6 bytes): quantized linears at their bits, the rest as stored.
    pub size_mb: f64,
    /// What a reader must know and the settings do not say: ragged groups, layers left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The folder; empty for a file of one's own.
    pub suite: String,
    /// The file's stem.
    pub name: String,
    /// From the task file.
    pub version: u32,
    /// The group of abilities, where the task names one.
    #[serde(default)]
    pub ability: String,
    /// What a guess scores on the first metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// How the text was cut and scored, in words.
    #[serde(default)]
    pub protocol: String,
    /// Whether each of its parts counts the same in its score.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parts_alike: bool,
    /// Which special tokens were put in, and what was scored, by name: `lm-eval-0.4.9.2`. Absent where a task has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// sha256 of the data's bytes.
    pub data: String,
    /// The metrics that a finished cell has, in order.
    pub metrics: Vec<MetricInfo>,
}

/// A metric's name and sense.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricInfo {
    /// Its name in tables.
    pub name: String,
    /// Which way is better.
    pub higher_is_better: bool,
    /// What stands in front of the ratio of sums.
    pub scale: Scale,
}

/// A failure is a result: a cell that overflows or runs out of memory is recorded, never dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Status {
    /// It ran. Metrics by name.
    Done {
        /// By name; a metric that these items cannot give is absent.
        metrics: BTreeMap<String, Value>,
    },
    /// It began and broke.
    Failed {
        /// The whole chain of causes.
        why: String,
    },
    /// It makes no sense for this model.
    Skipped {
        /// Said by what cannot work on it.
        why: String,
    },
}

/// A metric's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// On the scale people read.
    pub value: f64,
    /// Clustered by item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<f64>,
    /// As if tokens were independent: llama.cpp's `+/-`, for comparison with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_iid: Option<f64>,
    /// lm-evaluation-harness's, where it has one and it is another: of a cloze's perplexity, bootstrapped; of a task with
    /// parts, pooled from theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_lm_eval: Option<f64>,
    /// Items.
    pub n: usize,
}

/// What a cell cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Wall clock of the cell, without loading and quantizing; where all cells of a model are computed side by side, its
    /// share of that by tokens.
    pub seconds: f64,
    /// Tokens that went through the blocks.
    #[serde(default)]
    pub tokens: u64,
    /// Tokens that did not have to, because a neighbour begins alike.
    #[serde(default)]
    pub shared: u64,
    /// Why none could, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<String>,
}

/// By what a record was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeBy {
    /// The crate's version.
    pub version: String,
    /// `cpu`, `cuda:0`, `metal`.
    pub device: String,
    /// Of the arithmetic.
    pub dtype: String,
    /// The study's.
    pub seed: u64,
    /// Items a task at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// One line of `items/<cell>.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Hash of the item's content: runs are paired by it.
    pub item: String,
    /// The part of the task that it belongs to, where that has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// What it has in common with items that err together: a hash of its article, where the task names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// What the item gave, as the evaluator wrote it.
    pub outcome: serde_json::Value,
    /// By metric, `[x, w]`: the metric is `scale(sum x / sum w)`.
    pub shares: BTreeMap<String, Share>,
}

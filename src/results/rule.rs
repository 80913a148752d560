//! A rule on records, as a study states it (`[[gate]]`), kept in the results folder as `gates.json`.
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// How far from full precision a recipe may be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `suite/name`, or the name of a file of one's own.
    pub task: String,
    /// One that the task reports.
    pub metric: String,
    /// By name.
    pub recipe: String,
    /// Times full precision: 1.05 where lower is better, 0.95 where higher is.
    pub worst: f64,
}

impl Rule {
    /// Refuses what no value could meet or miss.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.worst > 0. && self.worst.is_finite(),
            "`worst` is {}; it is a positive factor",
            self.worst
        );
        Ok(())
    }

    /// Whether the rule speaks of this task.
    pub fn names_task(&self, suite: &str, name: &str) -> bool {
        self.task == name || self.task == format!("{suite}/{name}")
    }
}

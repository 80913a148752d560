//! A rule on records, as a study states it (`[[gate]]`), kept in the results folder as `gates.json`.
//!
//! It names cells by patterns, what they are held against, and one line or several: `worst`, `points`, `margin`,
//! `same` and `each`.
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// How far from full precision, or from a baseline, cells may be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// `suite/name`, or the name of a file of one's own; `*` stands for anything.
    pub task: String,
    /// One that the task reports; without it the task's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// By name; `*` stands for anything but `full`.
    pub recipe: String,
    /// By name; without it all models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What values are held against.
    #[serde(default, skip_serializing_if = "Against::is_full")]
    pub against: Against,
    /// A factor: 1.05 times what they are held against where lower is better, 0.95 times where higher is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst: Option<f64>,
    /// What may be lost, in the metric's own unit: 0.01 is one point of accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub points: Option<f64>,
    /// The same, held against what luck explains: non-inferiority. Inconclusive where the interval holds the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// How far it may move either way, as a part of what it is held against: better by more is no regression, and yet not
    /// what was. Tested as `margin` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same: Option<f64>,
    /// How far items may move, as a part of their size, in the root of the mean square: not whether the mean is what it was,
    /// but whether the function is. A program gives the same bits again, so this may be small.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<f64>,
    /// Of `margin` and `same`, one-sided; with it, `worst` and `points` are tested in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
}

/// What a rule's cells are held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// The recipe `full` of the same folder.
    #[default]
    Full,
    /// The same cell of a baseline.
    Baseline,
}

impl Against {
    fn is_full(&self) -> bool {
        *self == Against::Full
    }
}

/// A rule's line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// [`Rule::worst`].
    Factor(f64),
    /// [`Rule::points`] or [`Rule::margin`].
    Loss(f64),
    /// [`Rule::same`].
    Same(f64),
    /// [`Rule::each`].
    Each(f64),
}

/// [`Rule::confidence`] where nothing is said.
pub const CONFIDENCE: f64 = 0.95;

impl Rule {
    /// Refuses what no value could meet or miss.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.worst.is_none_or(|w| w > 0. && w.is_finite()),
            "`worst` is {}; it is a positive factor",
            self.worst.unwrap_or_default()
        );
        for (key, value, what) in [
            ("points", self.points, "what may be lost, 0 or more, in the metric's own unit"),
            ("margin", self.margin, "what may be lost, 0 or more, in the metric's own unit"),
            ("same", self.same, "how far a value may move, 0 or more, as a part of what it is held against"),
            ("each", self.each, "how far items may move, 0 or more, as a part of their size"),
        ] {
            ensure!(
                value.is_none_or(|v| v >= 0. && v.is_finite()),
                "`{key}` is {}; it is {what}",
                value.unwrap_or_default()
            );
        }
        ensure!(
            self.confidence.is_none_or(|c| c > 0.5 && c < 1.),
            "`confidence` is {}; it lies between 0.5 and 1",
            self.confidence.unwrap_or_default()
        );
        ensure!(
            !self.limits().is_empty(),
            "it draws no line; say `worst`, `points`, `margin`, `same` or `each`"
        );
        Ok(())
    }

    /// Its lines, each with the confidence at which it is tested, if it is.
    pub fn limits(&self) -> Vec<(Limit, Option<f64>)> {
        let tested = Some(self.confidence.unwrap_or(CONFIDENCE));
        let all = [
            self.worst.map(|w| (Limit::Factor(w), self.confidence)),
            self.points.map(|p| (Limit::Loss(p), self.confidence)),
            self.margin.map(|m| (Limit::Loss(m), tested)),
            self.same.map(|s| (Limit::Same(s), tested)),
            self.each.map(|e| (Limit::Each(e), None)),
        ];
        all.into_iter().flatten().collect()
    }

    /// Whether it needs a baseline.
    pub fn asks_baseline(&self) -> bool {
        self.against == Against::Baseline
    }

    /// Whether the rule speaks of this task.
    pub fn names_task(&self, suite: &str, name: &str) -> bool {
        let pattern = WildMatch::new(&self.task);
        pattern.matches(name) || pattern.matches(&format!("{suite}/{name}"))
    }

    /// Whether the rule speaks of this recipe. Full precision is only ever named by its name.
    pub fn names_recipe(&self, name: &str) -> bool {
        self.recipe == name || name != "full" && WildMatch::new(&self.recipe).matches(name)
    }

    /// Whether the rule speaks of this model.
    pub fn names_model(&self, name: &str) -> bool {
        self.model.as_ref().is_none_or(|pattern| WildMatch::new(pattern).matches(name))
    }
}

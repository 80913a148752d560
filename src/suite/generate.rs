//! What `[ask.generate]` says.
use super::{
    ask::Profile,
    filter::{Chain, ExactMatch, Filter, Same},
};
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// See [`Ask::Generate`](super::ask::Ask::Generate).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// What the model goes on from.
    pub prompt: String,
    /// The right answer, or one expression that gives a list of them. Without it an answer is only compared
    /// with full precision's.
    #[serde(default)]
    pub gold: Option<String>,
    /// Texts that end an answer and are no part of it. The model's own EOS always does.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Tokens of an answer, at most.
    #[serde(default = "usual")]
    pub limit: usize,
    /// Divides logits before a draw; 0: the likeliest token, the first of equals.
    #[serde(default)]
    pub temperature: f64,
    /// Draws from the fewest likeliest tokens that have this share together.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Draws from this many, before `top_p`.
    #[serde(default)]
    pub top_k: Option<usize>,
    /// Answers an item.
    #[serde(default = "one")]
    pub samples: usize,
    /// What is done to answers before they are compared, each for itself; none: nothing.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// When an answer is the gold one.
    #[serde(default)]
    pub exact_match: ExactMatch,
    /// Which special tokens are put in.
    #[serde(default)]
    pub profile: Profile,
}

fn usual() -> usize {
    256
}
fn one() -> usize {
    1
}

impl Generate {
    /// Settings that make no sense, and metrics that this task cannot give.
    pub fn check(&self, label: &str, metrics: &[String]) -> Result<()> {
        let wrong = [
            (!(1..=1 << 20).contains(&self.limit), "`limit` is 1 to 1048576"),
            (!(1..=1 << 16).contains(&self.samples), "`samples` is 1 to 65536"),
            (!(self.temperature.is_finite() && self.temperature >= 0.), "`temperature` is 0 or more"),
            (self.top_p.is_some_and(|p| !(p > 0. && p <= 1.)), "`top_p` is above 0 and at most 1"),
            (self.top_k == Some(0), "`top_k` is at least 1"),
            (self.stop.iter().any(String::is_empty), "`stop` has an empty text, which ends every answer"),
            (
                self.temperature == 0. && (self.samples > 1 || self.top_p.is_some() || self.top_k.is_some()),
                "`samples`, `top_p` and `top_k` are for draws: say a `temperature`",
            ),
        ];
        if let Some((_, why)) = wrong.iter().find(|(wrong, _)| *wrong) {
            mistake!("`{label}`: {why}");
        }
        Same::new(&self.exact_match).blame(format!("`{label}`: `exact_match`"))?;
        let names: Vec<&str> = self.filters.iter().map(|f| f.name.as_str()).collect();
        for (i, filter) in self.filters.iter().enumerate() {
            Chain::new(filter).blame(format!("`{label}`: `filters`"))?;
            if names[..i].contains(&names[i]) || names[i].is_empty() {
                mistake!("`{label}`: `filters`: each has a name of its own; `{}` is none", names[i]);
            }
        }
        let right =
            |m: &&String| ["exact_match", "contains", "best_subspan_em"].iter().any(|r| m.starts_with(r));
        for metric in metrics.iter().filter(right) {
            if self.gold.is_none() {
                mistake!("`{label}`: `{metric}` needs `gold`");
            }
            if let Some((_, name)) = metric.split_once(':').filter(|(_, name)| !names.contains(name)) {
                mistake!("`{label}`: `{metric}`: no filter `{name}`; there are: {}", names.join(", "));
            }
        }
        Ok(())
    }

    /// Every template with its key.
    pub fn templates(&self) -> Vec<(&'static str, &str)> {
        let gold = self.gold.as_deref().map(|g| ("gold", g));
        std::iter::once(("prompt", self.prompt.as_str())).chain(gold).collect()
    }

    /// The protocol in words, for records.
    pub fn protocol(&self) -> String {
        let how = match self.temperature {
            0. => "greedy".to_string(),
            t => {
                let top_k = self.top_k.map_or(String::new(), |k| format!(", top {k}"));
                let top_p = self.top_p.map_or(String::new(), |p| format!(", top {p} of probability"));
                format!("{} drawn at temperature {t}{top_k}{top_p}", self.samples)
            }
        };
        format!("generated, {how}, at most {} tokens; a prompt that is too long loses its left", self.limit)
    }
}

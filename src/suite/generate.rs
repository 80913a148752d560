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
    /// What stands before everything, examples included.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What the model goes on from.
    pub prompt: String,
    /// The same question before something was done to it; asked too, with the same examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The right answer, or one expression that gives a list of them. Without it an answer is only compared
    /// with full precision's.
    #[serde(default)]
    pub gold: Option<String>,
    /// Between an example's prompt and its answer. The item's own prompt has none behind it.
    #[serde(default = "space", skip_serializing_if = "is_space")]
    pub delimiter: String,
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
    /// Whether the prompt is what a user says, in the model's chat template, which puts in its own special tokens.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub chat: bool,
    /// Which special tokens are put in, where it is no chat.
    #[serde(default)]
    pub profile: Profile,
}

fn usual() -> usize {
    256
}
fn one() -> usize {
    1
}
fn space() -> String {
    " ".into()
}
// What was not there at first is no part of the identity of tasks that do not say it.
fn is_space(text: &str) -> bool {
    text == " "
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
        let needs = ["exact_match_before", "exact_match_drop"];
        let changed = metrics.iter().find(|m| needs.contains(&m.split(':').next().unwrap_or_default()));
        if let Some(metric) = changed.filter(|_| self.before.is_none()) {
            mistake!("`{label}`: `{metric}` needs `before`");
        }
        let right = ["contains", "best_subspan_em"];
        if let Some(metric) = metrics.iter().find(|m| self.gold.is_none() && right.contains(&m.as_str())) {
            mistake!("`{label}`: `{metric}` needs `gold`");
        }
        Chain::all(&self.filters).blame(format!("`{label}`: `filters`"))?;
        Chain::named(&self.filters, self.gold.is_some(), metrics).blame(format!("`{label}`"))
    }

    /// Every template with its key.
    pub fn templates(&self) -> Vec<(&'static str, &str)> {
        let more = [("before", &self.before), ("gold", &self.gold)];
        let more = more.into_iter().filter_map(|(key, t)| Some((key, t.as_deref()?)));
        let all = [("description", self.description.as_str()), ("prompt", self.prompt.as_str())];
        all.into_iter().chain(more).collect()
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
        let tokens = match self.chat {
            true => "the model's chat template",
            false => self.profile.words(),
        };
        format!(
            "generated, {how}, at most {} tokens; a prompt that is too long loses its left; {tokens}",
            self.limit
        )
    }
}

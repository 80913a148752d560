//! What `[ask.dialogue]` says: a talk of several turns, each answered before the next is asked.
use super::filter::{Chain, ExactMatch, Filter, Same};
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// See [`Ask::Dialogue`](super::ask::Ask::Dialogue).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialogue {
    /// One expression that gives the list of what the user says, turn after turn.
    pub turns: String,
    /// What the system says before all turns; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// A chat template, in place of the model's own: Jinja over `messages`, as in `tokenizer_config.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// One expression that gives the list of right answers, one a turn. Without it an answer is only judged, and compared
    /// with full precision's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
    /// Texts that end an answer and are no part of it. The model's own EOS always does.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Tokens of an answer, at most.
    #[serde(default = "usual")]
    pub limit: usize,
    /// Divides logits before a draw, a number or a template that gives one; 0: the likeliest token, the first of equals.
    #[serde(default)]
    pub temperature: Temperature,
    /// Draws from the fewest likeliest tokens that have this share together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Draws from this many, before `top_p`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// What is done to answers before they are compared, each for itself; none: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// When an answer is the gold one.
    #[serde(default)]
    pub exact_match: ExactMatch,
    /// What a judge is told: `id` of the item, `category`, and the list of `references`, one a turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judged>,
}

/// See [`Dialogue::judge`]. Templates over an item.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// What other files call the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What kind of question it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// One expression that gives the list of right answers, one a turn, or an empty list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<String>,
}

/// See [`Dialogue::temperature`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a number, or a template that gives one")]
pub enum Temperature {
    /// For every item.
    Same(f64),
    /// By item.
    Each(String),
}

impl Default for Temperature {
    fn default() -> Self {
        Self::Same(0.)
    }
}

fn usual() -> usize {
    1024
}

impl Dialogue {
    /// Settings that make no sense, and metrics that this task cannot give.
    pub fn check(&self, label: &str, metrics: &[String]) -> Result<()> {
        let cold = matches!(self.temperature, Temperature::Same(0.));
        let low = matches!(self.temperature, Temperature::Same(t) if !(t.is_finite() && t >= 0.));
        let wrong = [
            (!(1..=1 << 20).contains(&self.limit), "`limit` is 1 to 1048576"),
            (low, "`temperature` is 0 or more"),
            (self.top_p.is_some_and(|p| !(p > 0. && p <= 1.)), "`top_p` is above 0 and at most 1"),
            (self.top_k == Some(0), "`top_k` is at least 1"),
            (self.stop.iter().any(String::is_empty), "`stop` has an empty text, which ends every answer"),
            (
                cold && (self.top_p.is_some() || self.top_k.is_some()),
                "`top_p` and `top_k` are for draws: say a `temperature`",
            ),
        ];
        if let Some((_, why)) = wrong.iter().find(|(wrong, _)| *wrong) {
            mistake!("`{label}`: {why}");
        }
        Same::new(&self.exact_match).blame(format!("`{label}`: `exact_match`"))?;
        Chain::all(&self.filters).blame(format!("`{label}`: `filters`"))?;
        Chain::named(&self.filters, self.gold.is_some(), metrics).blame(format!("`{label}`"))
    }

    /// Every template with its key.
    pub fn templates(&self) -> Vec<(&'static str, &str)> {
        let mut all = vec![("turns", self.turns.as_str()), ("system", &self.system)];
        all.extend(self.gold.as_deref().map(|g| ("gold", g)));
        if let Temperature::Each(t) = &self.temperature {
            all.push(("temperature", t));
        }
        if let Some(judge) = &self.judge {
            let keys = [("id", &judge.id), ("category", &judge.category), ("references", &judge.references)];
            all.extend(keys.into_iter().filter_map(|(key, t)| Some((key, t.as_deref()?))));
        }
        all
    }

    /// The protocol in words, for records.
    pub fn protocol(&self) -> String {
        let how = match &self.temperature {
            Temperature::Same(0.) => "greedy".to_string(),
            Temperature::Same(t) => format!("drawn at temperature {t}"),
            Temperature::Each(_) => "drawn at temperatures by item, 0 greedy".into(),
        };
        let whose = if self.template.is_some() { "the task's" } else { "the model's own" };
        format!(
            "a talk in {whose} chat template, {how}, at most {} tokens an answer; one that is too long loses its left; a \
             template that asks for the day is told {}",
            self.limit, DAY.0
        )
    }
}

/// The day that a chat template is told: in words, and as year, month and day. Llama 3.1's template says it where a
/// caller names none.
pub const DAY: (&str, (u16, u8, u8)) = ("26 July 2024", (2024, 7, 26));

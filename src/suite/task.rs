//! What a task file says.
use super::{clean::Clean, generate::Generate, template::Template};
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// One task file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// One line.
    pub about: String,
    /// The group of abilities: `language`, `basic`, `emergent`, `trust`, `dialogue`, `long`, or one's own word.
    #[serde(default)]
    pub ability: String,
    /// Raise it when a number could change. Part of every record's identity.
    pub version: u32,
    /// What is reported, the first one first.
    pub metrics: Vec<String>,
    /// What a guess scores on the first metric. Tables and charts draw the line.
    #[serde(default)]
    pub chance: Option<f64>,
    /// Where items come from.
    pub data: Data,
    /// Text repairs, applied in order to every field that is a text.
    #[serde(default)]
    pub clean: Vec<Clean>,
    /// What is asked of an item.
    pub ask: Ask,
}

/// `[data.file]`, `[data.hub]` or `[[data.items]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Data {
    /// A file beside the task, or anywhere: `.txt` is one item with a field `text`; `.jsonl`, `.csv` and `.tsv` hold an
    /// item a row; each also `.gz`.
    #[serde(rename_all = "kebab-case")]
    File(FileData),
    /// A file of a dataset on the Hub.
    Hub(HubData),
    /// Rows written out here.
    Items(Vec<toml::Table>),
}

/// See [`Data::File`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileData {
    /// Relative to the task file, or absolute.
    pub path: String,
}

/// See [`Data::Hub`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubData {
    /// `org/name`.
    pub repo: String,
    /// A commit, so that the number cannot move under us.
    pub revision: String,
    /// Inside the repository.
    pub file: String,
}

/// `[ask.perplexity]` and so on: the table's name is the kind of task. Strings are Jinja templates over an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// How well is a text predicted?
    Perplexity(Perplexity),
    /// Which ending is likeliest?
    Choice(Choice),
    /// How far is the quantized model's distribution from full precision's, token by token?
    Divergence(Divergence),
    /// What does the model write?
    Generate(Generate),
}

impl Ask {
    /// The table's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Ask::Perplexity(_) => "perplexity",
            Ask::Choice(_) => "choice",
            Ask::Divergence(_) => "divergence",
            Ask::Generate(_) => "generate",
        }
    }
}

/// See [`Ask::Perplexity`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perplexity {
    /// Of one item.
    #[serde(default = "field_text")]
    pub text: String,
    /// Between items, where the protocol joins them.
    #[serde(default = "two_lines")]
    pub join: String,
    /// How the text is cut and scored.
    #[serde(default)]
    pub protocol: Protocol,
    /// Tokens of a window. Default: 2048 for `windows`, 512 for `llama-cpp`, the model's context for `rolling`.
    #[serde(default)]
    pub window: Option<usize>,
    /// Which special tokens `rolling` puts in.
    #[serde(default)]
    pub profile: Profile,
}

/// See [`Ask::Divergence`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divergence {
    /// Of one item.
    #[serde(default = "field_text")]
    pub text: String,
    /// Between items.
    #[serde(default = "two_lines")]
    pub join: String,
    /// Windows as in `windows`, or as in `llama-cpp` (second halves only).
    #[serde(default)]
    pub protocol: Protocol,
    /// Tokens of a window. Default: 2048 for `windows`, 512 for `llama-cpp`.
    #[serde(default)]
    pub window: Option<usize>,
}

/// See [`Ask::Choice`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// What stands before every ending.
    pub prompt: String,
    /// A list, as one expression over the item: `{{ endings }}`; or one template an ending.
    pub endings: Endings,
    /// The index of the right ending.
    pub gold: String,
    /// Between prompt and ending.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Which special tokens are put in.
    #[serde(default)]
    pub profile: Profile,
}

/// See [`Choice::endings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Endings {
    /// An expression that gives a list.
    List(String),
    /// A template each.
    Each(Vec<String>),
}

/// How a text is cut and scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// GPTQ's: join, tokenize once, non-overlapping windows, tail dropped, all but each window's first token scored.
    #[default]
    Windows,
    /// lm-evaluation-harness's `loglikelihood_rolling`: each item on its own, every token scored.
    Rolling,
    /// `llama-perplexity`'s: windows of 512, of which the second half is scored.
    LlamaCpp,
}

/// Which special tokens lm-evaluation-harness puts in; it changed its mind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// Since 0.4.9.2: what the tokenizer itself adds; `rolling` puts the prefix token before even that.
    #[default]
    #[serde(rename = "lm-eval-0.4.9.2")]
    Tokenizer,
    /// From 0.4.0 to 0.4.9.1: nothing is added; `rolling` still has its prefix token.
    #[serde(rename = "lm-eval-0.4.0")]
    Bare,
}

fn field_text() -> String {
    "{{ text }}".into()
}
fn two_lines() -> String {
    "\n\n".into()
}
fn space() -> String {
    " ".into()
}

impl Task {
    /// Reads a task file; `label` is what errors call it.
    pub fn parse(label: &str, text: &str) -> Result<Self> {
        let task: Task = toml::from_str(text).blame(format!("`{label}`"))?;
        if task.metrics.is_empty() {
            mistake!("`{label}`: `metrics` is empty; name at least one (`bitsweep list metrics`)");
        }
        if let Ask::Divergence(Divergence { protocol: Protocol::Rolling, .. }) = &task.ask {
            mistake!("`{label}`: divergence has the protocols `windows` and `llama-cpp`, not `rolling`");
        }
        let window = match &task.ask {
            Ask::Perplexity(p) => p.window,
            Ask::Divergence(d) => d.window,
            Ask::Choice(_) | Ask::Generate(_) => None,
        };
        if window.is_some_and(|w| w < 2) {
            mistake!("`{label}`: `window` is at least 2: a token is predicted from one before it");
        }
        if let Ask::Generate(g) = &task.ask {
            g.check(label, &task.metrics)?;
        }
        for (key, source) in task.templates() {
            Template::new(key, source).blame(format!("`{label}`"))?;
        }
        Ok(task)
    }

    /// Every template with its key.
    fn templates(&self) -> Vec<(&'static str, &str)> {
        match &self.ask {
            Ask::Perplexity(p) => vec![("text", &p.text)],
            Ask::Divergence(d) => vec![("text", &d.text)],
            Ask::Generate(g) => g.templates(),
            Ask::Choice(c) => {
                let mut all: Vec<(&str, &str)> = vec![("prompt", &c.prompt), ("gold", &c.gold)];
                match &c.endings {
                    Endings::List(list) => all.push(("endings", list)),
                    Endings::Each(each) => all.extend(each.iter().map(|e| ("endings", e.as_str()))),
                }
                all
            }
        }
    }

    /// The task's protocol in words, for records.
    pub fn protocol(&self) -> String {
        let cut = |protocol: Protocol, window: Option<usize>| match protocol {
            Protocol::Windows => {
                format!("windows of {}, all but the first token scored", window.unwrap_or(2048))
            }
            Protocol::LlamaCpp => {
                format!("llama.cpp windows of {}, second half scored", window.unwrap_or(512))
            }
            Protocol::Rolling => match window {
                Some(w) => format!("rolling, at most {w} tokens at once"),
                None => "rolling, the model's context at once".into(),
            },
        };
        let profile = |p: Profile| match p {
            Profile::Tokenizer => "the tokenizer's own special tokens",
            Profile::Bare => "no special tokens of the tokenizer",
        };
        match &self.ask {
            Ask::Perplexity(p) => format!("{}; {}", cut(p.protocol, p.window), profile(p.profile)),
            Ask::Divergence(d) => cut(d.protocol, d.window),
            Ask::Generate(g) => format!("{}; {}", g.protocol(), profile(g.profile)),
            Ask::Choice(c) => format!("log-likelihood of each ending; {}", profile(c.profile)),
        }
    }
}

//! What is asked of an item: the table `[ask.KIND]` of a task file.
use super::{dialogue::Dialogue, generate::Generate};
use crate::mistake;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// `[ask.perplexity]` and so on: the table's name is the kind of task. Strings are Jinja templates over an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// How well is a text predicted?
    Perplexity(Perplexity),
    /// Which ending is likeliest?
    Choice(Choice),
    /// How likely is what comes next?
    Cloze(Cloze),
    /// How far is the quantized model's distribution from full precision's, token by token?
    Divergence(Divergence),
    /// What does the model write?
    Generate(Generate),
    /// What does it answer, turn after turn?
    Dialogue(Dialogue),
}

impl Ask {
    /// The table's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Ask::Perplexity(_) => "perplexity",
            Ask::Choice(_) => "choice",
            Ask::Cloze(_) => "cloze",
            Ask::Divergence(_) => "divergence",
            Ask::Generate(_) => "generate",
            Ask::Dialogue(_) => "dialogue",
        }
    }

    /// Every template with its key.
    pub fn templates(&self) -> Vec<(&str, &str)> {
        fn options<'a>(key: &'a str, list: &'a Option<Endings>) -> Vec<(&'a str, &'a str)> {
            match list {
                None => Vec::new(),
                Some(Endings::List(list)) => vec![(key, list)],
                Some(Endings::Each(each)) => each.iter().map(|e| (key, e.as_str())).collect(),
            }
        }
        match self {
            Ask::Perplexity(p) => vec![("text", &p.text)],
            Ask::Divergence(d) => vec![("text", &d.text)],
            Ask::Generate(g) => g.templates(),
            Ask::Dialogue(d) => d.templates(),
            Ask::Choice(c) => {
                let mut all = vec![("description", c.description.as_str())];
                let single =
                    [("prompt", &c.prompt), ("ending", &c.ending), ("gold", &c.gold), ("labels", &c.labels)];
                all.extend(single.into_iter().filter_map(|(key, t)| Some((key, t.as_deref()?))));
                all.extend(options("endings", &c.endings));
                all.extend(options("prompts", &c.prompts));
                all
            }
            Ask::Cloze(c) => {
                vec![("description", &c.description), ("prompt", &c.prompt), ("ending", &c.ending)]
            }
        }
    }

    /// The profile that counts, where one does.
    pub fn profile(&self) -> Option<Profile> {
        match self {
            Ask::Perplexity(p) => Some(p.profile).filter(|_| p.protocol == Protocol::Rolling),
            Ask::Choice(c) => Some(c.profile),
            Ask::Cloze(c) => Some(c.profile),
            Ask::Generate(g) => Some(g.profile).filter(|_| !g.chat),
            Ask::Divergence(_) | Ask::Dialogue(_) => None,
        }
    }

    /// Another profile, where one counts and the kind has it.
    pub fn set_profile(&mut self, profile: Profile) {
        let all = profile != Profile::OpenCompass;
        match self {
            Ask::Perplexity(p) if all => p.profile = profile,
            Ask::Choice(c) => c.profile = profile,
            Ask::Cloze(c) if all => c.profile = profile,
            Ask::Generate(g) if all => g.profile = profile,
            _ => {}
        }
    }

    /// Settings that make no sense together.
    pub fn check(&self) -> Result<()> {
        if self.profile() == Some(Profile::OpenCompass) && !matches!(self, Ask::Choice(_)) {
            mistake!("the profile `opencompass` is a choice task's, and this is a {} task", self.kind());
        }
        let window = match self {
            Ask::Perplexity(p) => {
                let joined = matches!(p.protocol, Protocol::Windows | Protocol::LlamaCpp);
                if p.seed.is_some() && p.protocol != Protocol::Drawn {
                    mistake!("`seed` is for the protocol `drawn`; no other draws");
                }
                if p.items.is_some() && !joined {
                    mistake!("`items` is for the protocols `windows` and `llama-cpp`, which join items");
                }
                if p.windows.is_some() && p.protocol == Protocol::Rolling {
                    mistake!("`windows` is for the protocols `windows`, `drawn` and `llama-cpp`");
                }
                if p.items == Some(0) || p.windows.is_some_and(|n| !(1..=1 << 20).contains(&n)) {
                    mistake!("`items` is at least 1, `windows` 1 to 1048576");
                }
                p.window
            }
            Ask::Divergence(d) => {
                if !matches!(d.protocol, Protocol::Windows | Protocol::LlamaCpp) {
                    mistake!("divergence has the protocols `windows` and `llama-cpp`, no other");
                }
                d.window
            }
            Ask::Choice(_) | Ask::Cloze(_) | Ask::Generate(_) | Ask::Dialogue(_) => None,
        };
        let halves = match self {
            Ask::Perplexity(p) => p.protocol == Protocol::LlamaCpp,
            Ask::Divergence(d) => d.protocol == Protocol::LlamaCpp,
            _ => false,
        };
        if halves && window.is_some_and(|w| w < 3) {
            mistake!("`window` is at least 3 for `llama-cpp`: its second half is predicted");
        }
        if window.is_some_and(|w| w < 2) {
            mistake!("`window` is at least 2: a token is predicted from one before it");
        }
        Ok(())
    }

    /// The protocol in words, for records.
    pub fn protocol(&self) -> String {
        let cut = |protocol: Protocol, window: Option<usize>| match protocol {
            Protocol::Windows => {
                format!("windows of {}, all but the first token scored", window.unwrap_or(2048))
            }
            Protocol::Drawn => format!("drawn windows of {}", window.unwrap_or(2048)),
            Protocol::LlamaCpp => {
                format!("llama.cpp windows of {}, second half scored", window.unwrap_or(512))
            }
            Protocol::Rolling => match window {
                Some(w) => format!("rolling, at most {w} tokens at once"),
                None => "rolling, the model's context at once".into(),
            },
        };
        match self {
            Ask::Perplexity(p) => {
                // Whole texts have the tokenizer's own special tokens whatever the profile.
                let tokens = self.profile().unwrap_or_default().words();
                let items = p.items.map_or(String::new(), |n| format!("; of the first {n} items"));
                let most = match (p.protocol, p.windows) {
                    (Protocol::Drawn, n) => {
                        format!("; {} of them, seed {}", n.unwrap_or(256), p.seed.unwrap_or(0))
                    }
                    (_, Some(n)) => format!("; at most {n} of them"),
                    (_, None) => String::new(),
                };
                format!("{}{items}{most}; {tokens}", cut(p.protocol, p.window))
            }
            Ask::Divergence(d) => cut(d.protocol, d.window),
            Ask::Choice(Choice { profile: Profile::OpenCompass, .. }) => {
                format!("each option scored; {}", Profile::OpenCompass.words())
            }
            Ask::Choice(c) => format!("log-likelihood of each ending; {}", c.profile.words()),
            Ask::Cloze(c) => format!("log-likelihood of what comes next; {}", c.profile.words()),
            Ask::Generate(g) => g.protocol(),
            Ask::Dialogue(d) => d.protocol(),
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
    /// Tokens of a window. Default: 2048 for `windows` and `drawn`, 512 for `llama-cpp`, the model's context for
    /// `rolling`.
    #[serde(default)]
    pub window: Option<usize>,
    /// Of the data's items the first ones, where the protocol joins them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<usize>,
    /// At most that many windows; for `drawn`, how many: 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<usize>,
    /// Of the generator that draws, for `drawn`: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
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

/// See [`Ask::Choice`]. Several endings of one prompt, or one ending of several prompts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// What stands before everything, examples included.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What stands before every ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// A list, as one expression over the item: `{{ endings }}`; or one template an ending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endings: Option<Endings>,
    /// In place of `prompt`: one an option, as `endings` are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<Endings>,
    /// In place of `endings`: the one that stands after each of `prompts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<String>,
    /// The index of the right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gold: Option<String>,
    /// In place of `gold`, where several are right: a list with a 1 for each right one and a 0 for each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Between prompt and ending.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Which special tokens are put in.
    #[serde(default)]
    pub profile: Profile,
}

/// See [`Ask::Cloze`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloze {
    /// What stands before everything, examples included.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The context.
    pub prompt: String,
    /// What comes next, with whatever white space it begins with.
    pub ending: String,
    /// Between an example's prompt and its ending. The item's own has none.
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
    /// GPTQ's for C4: windows at places that Python's generator draws from items that are long enough.
    Drawn,
    /// lm-evaluation-harness's `loglikelihood_rolling`: each item on its own, every token scored.
    Rolling,
    /// `llama-perplexity`'s: windows of 512, of which the second half is scored.
    LlamaCpp,
}

/// Which special tokens are put in, and what is scored: lm-evaluation-harness changed its mind, and OpenCompass has one of
/// its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// Since 0.4.9.2: what the tokenizer itself adds; `rolling` puts the prefix token before even that.
    #[default]
    #[serde(rename = "lm-eval-0.4.9.2", alias = "v0.4.9.2")]
    Tokenizer,
    /// From 0.4.0 to 0.4.9.1: nothing is added; `rolling` still has its prefix token.
    #[serde(rename = "lm-eval-0.4.0", alias = "v0.4")]
    Bare,
    /// Up to 0.3: nothing is added, prompt and ending are tokenized each on its own, and what stands before a text with
    /// nothing before it is EOS.
    #[serde(rename = "lm-eval-0.3", alias = "v0.3")]
    Separate,
    /// OpenCompass's "PPL": prompt and ending are one text with the tokenizer's own special tokens, its score the mean
    /// log-likelihood of all of it, over one token more than is predicted. Of a choice only.
    #[serde(rename = "opencompass")]
    OpenCompass,
}

impl Profile {
    /// As files and tables have it.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Tokenizer => "lm-eval-0.4.9.2",
            Profile::Bare => "lm-eval-0.4.0",
            Profile::Separate => "lm-eval-0.3",
            Profile::OpenCompass => "opencompass",
        }
    }

    /// For records.
    pub(super) fn words(self) -> &'static str {
        match self {
            Profile::Tokenizer => "the tokenizer's own special tokens",
            Profile::Bare => "no special tokens of the tokenizer",
            Profile::Separate => "no special tokens, prompt and ending tokenized apart",
            Profile::OpenCompass => {
                "OpenCompass's PPL: mean over prompt and ending, one token too many counted"
            }
        }
    }
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

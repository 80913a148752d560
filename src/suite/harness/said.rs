//! What a key says of each item: a field's name, Jinja, or an index.
//!
//! Of the functions that it takes to say so in a template, `field`, `words`, `told` and `answers`, `python` has the code.
use super::super::{template::Template, yaml::Node};
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use serde_json::Value;

/// What `doc_to_text`, `doc_to_target` or a description says.
pub enum Said {
    /// The name of a field; where an item has none of that name, the text as it stands.
    Field(String),
    /// Jinja.
    Template(String),
    /// An index.
    Number(usize),
}

impl Said {
    /// A key's value. `index`: whether a text of digits is one, which it is where a task has `doc_to_choice`.
    pub fn read(at: &str, node: &Node, index: bool) -> Result<Self> {
        match node {
            Node::Text(text) if is_template(text) => {
                Template::new("it", text).blame(at)?;
                Ok(Said::Template(text.clone()))
            }
            Node::Text(text) if index && !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                Self::number(at, text.parse().unwrap_or(i64::MAX))
            }
            Node::Text(text) => Ok(Said::Field(text.clone())),
            Node::Int(n) => Self::number(at, *n),
            other => mistake!("{at} is {}; it is a template, a field's name, or an index", other.words()),
        }
    }

    fn number(at: &str, n: i64) -> Result<Self> {
        match usize::try_from(n).ok().filter(|n| *n < 1 << 20) {
            Some(n) => Ok(Said::Number(n)),
            None => mistake!("{at} is {n}, which is no index"),
        }
    }

    /// A template that gives a text.
    pub fn words(&self, at: &str) -> Result<String> {
        match self {
            Said::Template(source) => Ok(source.clone()),
            Said::Field(name) if name.is_empty() => Ok(String::new()),
            Said::Field(name) => Ok(format!("{{{{ field({}) | words }}}}", quoted(name))),
            Said::Number(n) => mistake!(
                "{at} is the index {n}: of several contexts with one ending. Say it in TOML: `prompts` and `ending`"
            ),
        }
    }

    /// An expression that gives the value, where it can be said in one.
    pub fn expression(&self) -> Option<String> {
        match self {
            Said::Number(n) => Some(n.to_string()),
            Said::Field(name) => Some(format!("field({})", quoted(name))),
            Said::Template(source) => {
                let inside = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
                let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside);
                let inside = inside.strip_suffix(['-', '+']).unwrap_or(inside);
                (!is_template(inside) && !inside.contains("}}")).then(|| format!("({})", inside.trim()))
            }
        }
    }
}

fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// As a text inside of Jinja.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// As a template that gives just this text.
pub fn constant(text: &str) -> String {
    // Jinja has no `\r` but in texts of its own.
    if is_template(text) || text.contains('\r') { format!("{{{{ {} }}}}", quoted(text)) } else { text.into() }
}

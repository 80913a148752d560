//! Text repairs: a closed list, so that a task never runs code.
use super::python::strip;
use crate::mistake;
use anyhow::Result;
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One repair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clean {
    /// Every occurrence of the first text becomes the second, left to right, in one pass.
    Replace(String, String),
    /// Every match of the expression becomes the text (`$1` for its first group).
    Regex(String, String),
    /// White space at both ends goes, as Python's `strip` sees it.
    Trim,
}

/// A list of repairs, its expressions compiled.
pub struct Cleaner(Vec<Step>);

enum Step {
    Replace(String, String),
    Regex(Regex, String),
    Trim,
}

impl Cleaner {
    /// Compiles; an expression that is none is an error.
    pub fn new(list: &[Clean]) -> Result<Self> {
        let step = |c: &Clean| {
            Ok(match c {
                Clean::Replace(a, b) => Step::Replace(a.clone(), b.clone()),
                Clean::Regex(a, b) => match Regex::new(a) {
                    Ok(regex) => Step::Regex(regex, b.clone()),
                    Err(e) => mistake!("`clean`: regex `{a}`: {e}"),
                },
                Clean::Trim => Step::Trim,
            })
        };
        Ok(Self(list.iter().map(step).collect::<Result<_>>()?))
    }

    /// Repairs every text in a value, lists and tables included.
    pub fn apply(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                for step in &self.0 {
                    *text = match step {
                        Step::Replace(a, b) => text.replace(a, b),
                        Step::Regex(a, b) => a.replace_all(text, b.as_str()).into_owned(),
                        Step::Trim => strip(text).to_string(),
                    };
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|v| self.apply(v)),
            Value::Object(table) => table.values_mut().for_each(|v| self.apply(v)),
            _ => {}
        }
    }
}

//! What a judge is asked, and where its score stands in what it writes.
//!
//! Ours by default. FastChat's own are read from its file (`judge_prompts.jsonl`), names and placeholders as its
//! `llm_judge` has them, so that scores can be set beside published ones; its reference answers from `reference_answer/`.
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use regex::Regex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

/// A talk up to the answer to be judged.
pub struct Talk<'a> {
    /// What other files call the item.
    pub id: &'a str,
    /// Question and answer, turn by turn.
    pub said: Vec<(&'a str, &'a str)>,
    /// The right answers, where there are some; empty where not.
    pub references: Vec<&'a str>,
}

/// The prompts that a judge is asked with.
pub struct Prompts {
    file: Option<BTreeMap<String, Pair>>,
    /// By the item's name; where there are some, no others count.
    references: Option<BTreeMap<String, Vec<String>>>,
    /// sha256 of all that is asked but the talks.
    pub hash: String,
}

#[derive(Clone, Deserialize)]
struct Pair {
    name: String,
    #[serde(default)]
    system_prompt: String,
    prompt_template: String,
}

/// A line of a file of reference answers.
#[derive(Deserialize)]
struct Reference {
    question_id: serde_json::Value,
    choices: Vec<Turns>,
}
#[derive(Deserialize)]
struct Turns {
    turns: Vec<String>,
}

const SYSTEM: &str = "You grade answers of a chat assistant.";
const TASK: &str = "Below is a talk between a user and an assistant. Grade the assistant's last answer, and nothing else, \
     from 1 (useless or wrong) to 10 (nothing to improve). Ask whether it does what the user wants, whether what it says \
     is true, and whether it is clear and as long as it needs to be. A longer answer is not for that a better one.";
const COMPARE: &str = "Reference answers stand below the talk. They are right: where the assistant's last answer comes to \
     another result, say where it goes wrong, and grade it low.";
const FORM: &str = "First give your reasons in a few sentences. Then write the grade in double square brackets on a line of \
     its own, like this: [[4]]";

impl Prompts {
    /// Ours, or those of a file in FastChat's layout; with the reference answers of another.
    pub fn read(file: Option<&Path>, references: Option<&Path>) -> Result<Self> {
        let mut hash = Sha256::new();
        for text in [SYSTEM, TASK, COMPARE, FORM] {
            hash.update(text);
        }
        let mut text = |path: &Path| -> Result<String> {
            let text = fs::read_to_string(path).blame(format!("`{}`", path.display()))?;
            hash.update(&text);
            Ok(text)
        };
        let pairs = match file {
            None => None,
            Some(path) => {
                let pairs: Vec<Pair> = parse(path, &text(path)?)?;
                Some(pairs.into_iter().map(|p| (p.name.clone(), p)).collect())
            }
        };
        let mut known = None;
        if let Some(path) = references {
            let known = known.get_or_insert_with(BTreeMap::new);
            for r in parse::<Reference>(path, &text(path)?)? {
                let id = r.question_id.as_str().map_or(r.question_id.to_string(), str::to_string);
                let turns = r.choices.into_iter().next().map(|c| c.turns).unwrap_or_default();
                known.insert(id, turns);
            }
        }
        Ok(Self { file: pairs, references: known, hash: format!("{:x}", hash.finalize()) })
    }

    /// What the judge is told first, and what it is asked.
    pub fn ask(&self, talk: &Talk) -> Result<(String, String)> {
        let mut references = match &self.references {
            None => talk.references.clone(),
            // FastChat asks for a comparison where its file has an answer, and an item's own may be another's.
            Some(known) => known.get(talk.id).into_iter().flatten().map(String::as_str).collect(),
        };
        references.resize(talk.said.len(), "");
        let compared = references.iter().any(|r| !r.is_empty());
        match &self.file {
            None => Ok((SYSTEM.into(), ours(talk, compared.then_some(&references)))),
            Some(file) => {
                let turns = talk.said.len();
                let name = match (turns, compared) {
                    (1, false) => "single-v1",
                    (1, true) => "single-math-v1",
                    (2, false) => "single-v1-multi-turn",
                    (2, true) => "single-math-v1-multi-turn",
                    _ => mistake!(
                        "the file of prompts has some for one or two turns, and this is turn {turns}"
                    ),
                };
                let Some(pair) = file.get(name) else {
                    let names: Vec<&str> = file.keys().map(String::as_str).collect();
                    mistake!("the file of prompts lacks `{name}`; it has: {}", names.join(", "))
                };
                let mut values = BTreeMap::new();
                for (i, (asked, answered)) in talk.said.iter().enumerate() {
                    values.insert(format!("question_{}", i + 1), *asked);
                    values.insert(format!("answer_{}", i + 1), *answered);
                    values.insert(format!("ref_answer_{}", i + 1), references[i]);
                }
                values.insert("question".into(), talk.said[0].0);
                values.insert("answer".into(), talk.said[0].1);
                Ok((pair.system_prompt.clone(), filled(name, &pair.prompt_template, &values)?))
            }
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<T>> {
    let full = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    full.map(|(i, line)| serde_json::from_str(line).blame(format!("`{}` line {}", path.display(), i + 1)))
        .collect()
}

fn ours(talk: &Talk, references: Option<&Vec<&str>>) -> String {
    let mut text = format!("{TASK}\n");
    if references.is_some() {
        text += &format!("\n{COMPARE}\n");
    }
    text += &format!("\n{FORM}\n");
    for (i, (asked, answered)) in talk.said.iter().enumerate() {
        text += &format!("\n### User, turn {n}\n{asked}\n\n### Assistant, turn {n}\n{answered}\n", n = i + 1);
    }
    for (i, reference) in references.into_iter().flatten().enumerate().filter(|(_, r)| !r.is_empty()) {
        text += &format!("\n### Reference, turn {}\n{reference}\n", i + 1);
    }
    text
}

/// `template.format(**values)`, as far as these templates go: names in braces, and doubled braces. In one pass: what an
/// answer holds is not read as a template.
fn filled(name: &str, template: &str, values: &BTreeMap<String, &str>) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        text += &rest[..at];
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(more) = rest.strip_prefix(brace) {
            text += brace;
            rest = more;
            continue;
        }
        let end = rest.find('}').filter(|_| brace == "{");
        let value = end.and_then(|end| Some((values.get(&rest[..end])?, end)));
        let Some((value, end)) = value else {
            let names: Vec<&str> = values.keys().map(String::as_str).collect();
            mistake!("prompt `{name}` has a `{brace}` that begins no name; there are: {}", names.join(", "))
        };
        text += value;
        rest = &rest[end + 1..];
    }
    Ok(text + rest)
}

static DOUBLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[\[(\d+\.?\d*)\]\]").ok());
static SINGLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\[(\d+\.?\d*)\]").ok());

/// The score in a judge's text, as FastChat's `run_judge_single` finds it: the first number in double square brackets, else
/// the first in single ones. One above 10 is none.
pub fn score(text: &str) -> Option<f64> {
    let found = [&DOUBLE, &SINGLE].into_iter().find_map(|r| r.as_ref()?.captures(text))?;
    found[1].parse().ok().filter(|s| (0. ..=10.).contains(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_stand_in_brackets() {
        for (text, want) in [
            ("Good. [[7]]", Some(7.)),
            ("[3] and then [[8.5]] or [[2]]", Some(8.5)),
            ("Rating: [4]", Some(4.)),
            ("[[11]]", None),
            ("[[seven]]", None),
            ("", None),
        ] {
            assert_eq!(score(text), want, "{text}");
        }
    }

    #[test]
    fn answers_are_no_templates() {
        let values = BTreeMap::from([("question".to_string(), "{answer}"), ("answer".to_string(), "}{")]);
        let text = filled("t", "Q {question} {{x}} A {answer}.", &values).unwrap();
        assert_eq!(text, "Q {answer} {x} A }{.");
        for wrong in ["{nothing}", "{question", "a } b"] {
            assert!(filled("t", wrong, &values).is_err(), "{wrong}");
        }
    }

    #[test]
    fn references_change_what_is_asked() {
        let ours = Prompts::read(None, None).unwrap();
        let talk = |references| Talk { id: "1", said: vec![("q", "a"), ("r", "b")], references };
        let (_, plain) = ours.ask(&talk(vec!["", ""])).unwrap();
        let (_, compared) = ours.ask(&talk(vec!["", "two"])).unwrap();
        assert!(!plain.contains("Reference") && compared.contains("### Reference, turn 2\ntwo\n"));
        assert!(
            !compared.contains("### Reference, turn 1") && compared.contains("### Assistant, turn 2\nb\n")
        );
    }
}

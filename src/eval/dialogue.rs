//! A talk of several turns: each answer is written, and stands in the next prompt.
//!
//! Full precision, where it is asked, reads what the quantized model has read, its earlier answers included: what differs
//! is then this answer's doing. What a judge thinks of a talk is added later, by whoever asks it (`bitsweep judge`).
use super::{
    Lm, Names, Outcome, Outcomes,
    generate::{Draw, Filtered, How, Sample, ask, chains, filter, fit, uniform, write},
};
use crate::{
    mistake,
    suite::{dialogue::Dialogue, filter::Same, requests::Talk},
};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Somebody says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What.
    pub text: String,
}

/// What a talk gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// What other files call the item.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What kind of question it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// In their order.
    pub turns: Vec<Turn>,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What the user said.
    pub asked: String,
    /// What the model said.
    pub sample: Sample,
    /// Tokens that the prompt lost on its left to fit the model.
    pub cut: usize,
    /// The right answer; empty where there is none to compare with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gold: String,
    /// What a judge is told is right.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference: String,
    /// By filter, in the task's order; none where there is no gold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filtered: Vec<Filtered>,
}

/// Talks through all items, turn by turn; `full` is asked too where it is given.
pub fn run(
    lm: &mut dyn Lm,
    mut full: Option<&mut dyn Lm>,
    talks: &[Talk],
    settings: &Dialogue,
    seed: u64,
) -> Result<Outcomes> {
    let (chains, same) = (chains(&settings.filters)?, Same::new(&settings.exact_match)?);
    let system = |t: &Talk| Said { role: "system", text: t.system.clone() };
    let mut said: Vec<Vec<Said>> =
        talks.iter().map(|t| if t.system.is_empty() { Vec::new() } else { vec![system(t)] }).collect();
    let mut all: Vec<Answers> = talks
        .iter()
        .map(|t| Answers { id: t.id.clone(), category: t.category.clone(), turns: Vec::new() })
        .collect();
    for turn in 0..talks.iter().map(|t| t.turns.len()).max().unwrap_or(0) {
        let going: Vec<usize> = (0..talks.len()).filter(|&i| turn < talks[i].turns.len()).collect();
        let (mut prompts, mut cuts) = (Vec::new(), Vec::new());
        for &i in &going {
            said[i].push(Said { role: "user", text: talks[i].turns[turn].clone() });
            let one = || {
                let text = lm.chat(&said[i], settings.template.as_deref())?;
                // A template writes its own special tokens.
                fit(lm, lm.encode(&text, false)?, settings.limit)
            };
            let (prompt, cut) =
                one().with_context(|| format!("item {}, turn {}", talks[i].number + 1, turn + 1))?;
            prompts.push(prompt);
            cuts.push(cut);
        }
        let how = How {
            stop: &settings.stop,
            limit: settings.limit,
            draw: &|k| Draw {
                temperature: talks[going[k]].temperature,
                top_k: settings.top_k,
                top_p: settings.top_p,
            },
            number: &|k, step| uniform([seed, talks[going[k]].number as u64, turn as u64, step as u64]),
        };
        let mut samples = write(lm, &prompts, &how)?;
        if let Some(full) = full.as_deref_mut() {
            ask(full, &prompts, &mut samples, &how)?;
        }
        for ((&i, sample), cut) in going.iter().zip(samples).zip(cuts) {
            let talk = &talks[i];
            let gold = talk.golds.get(turn).cloned().unwrap_or_default();
            let filtered = match talk.golds.get(turn) {
                None => Vec::new(),
                Some(gold) => chains
                    .iter()
                    .map(|c| filter(c, &same, std::slice::from_ref(&sample), std::slice::from_ref(gold)))
                    .collect::<Result<_>>()?,
            };
            said[i].push(Said { role: "assistant", text: sample.text.clone() });
            let (asked, reference) =
                (talk.turns[turn].clone(), talk.references.get(turn).cloned().unwrap_or_default());
            all[i].turns.push(Turn { asked, sample, cut, gold, reference, filtered });
        }
    }
    let mut names = Names::new();
    let name = |t: &Talk| [t.system.as_str(), &t.turns.join("\0"), &t.golds.join("\0")].join("\0");
    Ok(talks
        .iter()
        .zip(all)
        .map(|(t, answers)| (names.name(name(t).as_bytes()), Outcome::Dialogue(answers)))
        .collect())
}

/// Talks that nobody could lead.
pub fn check(talks: &[Talk]) -> Result<()> {
    for t in talks {
        let i = t.number;
        let wrong = |list: &[String]| !list.is_empty() && list.len() != t.turns.len();
        if t.turns.is_empty() {
            mistake!("item {}: `turns` is empty", i + 1);
        }
        if wrong(&t.golds) || wrong(&t.references) {
            mistake!(
                "item {}: {} turns, {} of `gold`, {} of `references`; one a turn, or none",
                i + 1,
                t.turns.len(),
                t.golds.len(),
                t.references.len()
            );
        }
        if !(t.temperature.is_finite() && t.temperature >= 0.) {
            mistake!("item {}: `temperature` gives {}; it is 0 or more", i + 1, t.temperature);
        }
    }
    Ok(())
}

//! What comes next? lm-evaluation-harness's `loglikelihood`: one continuation an item, its log-likelihood and whether
//! the model would have said it (LAMBADA).
use super::{Lm, Names, Outcome, Outcomes, choice::requests};
use crate::suite::{ask::Profile, requests::Blank};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// What an item gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guess {
    /// Sum of the tokens' log-probabilities, nats.
    pub log_prob: f64,
    /// Whether every token was the likeliest.
    pub greedy: bool,
}

/// Asks all items.
pub fn run(lm: &mut dyn Lm, blanks: &[Blank], profile: Profile) -> Result<Outcomes> {
    let pairs = blanks.iter().map(|b| vec![(b.prompt.as_str(), b.ending.clone())]);
    let mut names = Names::new();
    Ok(requests(lm, pairs, profile)?
        .into_iter()
        .flatten()
        .zip(blanks)
        .map(|((log_prob, greedy), b)| {
            let name = names.name(format!("{}\0{}", b.prompt, b.ending).as_bytes());
            (name, Outcome::Cloze(Guess { log_prob, greedy }))
        })
        .collect())
}

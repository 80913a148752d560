//! Which examples stand before a question, drawn as lm-evaluation-harness draws them.
//!
//! One generator a task (a part of one, where it has parts), seeded once, drawn from item by item in the data's order.
//! A draw belongs to the item's index: it is the same whatever the limit, and whoever asks for it first.
use super::task::{Fewshot, Sampler};
use crate::{mistake, random::Random};
use anyhow::Result;
use serde_json::Value;

/// The draws of all items.
pub struct Draws<'a> {
    shots: &'a Fewshot,
    pool: &'a [Value],
    rows: &'a [Value],
    random: Random,
    drawn: Vec<Vec<usize>>,
}

impl<'a> Draws<'a> {
    /// Of these items, from this pool; both as the data has them, unrepaired, so that only a true twin is one.
    pub fn new(shots: &'a Fewshot, pool: &'a [Value], rows: &'a [Value]) -> Self {
        Self { shots, pool, rows, random: Random::new(shots.seed), drawn: Vec::new() }
    }

    /// The pool's items that stand before an item, in their order.
    pub fn of(&mut self, item: usize) -> Result<&[usize]> {
        while self.drawn.len() <= item {
            let next = self.draw(self.drawn.len())?;
            self.drawn.push(next);
        }
        Ok(&self.drawn[item])
    }

    fn draw(&mut self, item: usize) -> Result<Vec<usize>> {
        let (n, exclude) = (self.shots.n, self.shots.excludes());
        let others = || (0..self.pool.len()).filter(|&i| !exclude || self.pool[i] != self.rows[item]);
        let few = |asked: usize| -> Result<Vec<usize>> {
            mistake!(
                "`fewshot.n` is {n}: {asked} examples are drawn, and there are {}{}",
                self.pool.len(),
                if exclude { ", some of them the question itself" } else { "" }
            )
        };
        let picked: Vec<usize> = match self.shots.sampler {
            Sampler::FirstN => others().take(n).collect(),
            Sampler::Default => {
                let asked = n.saturating_add(usize::from(exclude));
                let Some(mut picked) = self.random.sample(self.pool.len(), asked) else { return few(asked) };
                picked.retain(|&i| !exclude || self.pool[i] != self.rows[item]);
                picked.truncate(n);
                if picked.len() < n {
                    // More than one twin was drawn: once more, from all but twins.
                    let rest: Vec<usize> = others().collect();
                    let again = self.random.sample(rest.len(), n).unwrap_or_default();
                    picked = again.into_iter().map(|i| rest[i]).collect();
                }
                picked
            }
        };
        if picked.len() < n { few(n) } else { Ok(picked) }
    }
}

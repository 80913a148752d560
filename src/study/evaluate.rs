//! One cell: which evaluator asks what a task says, of which items.
use crate::{
    eval::{Lm, Outcomes, choice, cloze, dialogue, divergence, generate, perplexity},
    suite::{Ask, Protocol, data::Items, find::Found, requests},
};
use anyhow::Result;

/// From items to outcomes.
pub fn evaluate(
    lm: &mut dyn Lm,
    reference: &mut dyn Lm,
    (limit, seed): (Option<usize>, u64),
    task: &Found,
    items: &Items,
) -> Result<Outcomes> {
    let (said, take) = (&task.task, limit.unwrap_or(usize::MAX));
    match &said.ask {
        Ask::Perplexity(p) if p.protocol == Protocol::Rolling => {
            let texts = requests::texts(said, items, &p.text)?;
            // A limit is of each part.
            let texts: Vec<_> = items.picked(limit).filter_map(|i| texts.get(i)).cloned().collect();
            perplexity::rolling(lm, &texts, p.window, p.profile)
        }
        Ask::Perplexity(p) if p.protocol == Protocol::Drawn => {
            let texts = requests::texts(said, items, &p.text)?;
            let (count, seed) = (p.windows.unwrap_or(256).min(take), p.seed.unwrap_or(0));
            perplexity::drawn(lm, &texts, p.window, count, seed)
        }
        Ask::Perplexity(p) => {
            let text = requests::joined(said, items, &p.text, &p.join, p.items)?;
            let most = p.windows.unwrap_or(usize::MAX).min(take);
            perplexity::joined(lm, &text, p.protocol, p.window, Some(most))
        }
        Ask::Divergence(d) => {
            let text = requests::joined(said, items, &d.text, &d.join, None)?;
            let mut windows = perplexity::windows(lm, &text, d.protocol, d.window)?;
            windows.truncate(take);
            divergence::run(lm, reference, &windows)
        }
        Ask::Choice(c) => choice::run(lm, &requests::questions(said, items, limit)?, c.profile),
        Ask::Cloze(c) => cloze::run(lm, &requests::blanks(said, items, limit)?, c.profile),
        Ask::Generate(g) => {
            let full = asks_full(task).then_some(reference);
            generate::run(lm, full, &requests::openings(said, items, limit)?, g, seed)
        }
        Ask::Dialogue(d) => {
            let talks = requests::talks(said, d, items, limit)?;
            dialogue::check(&talks)?;
            dialogue::run(lm, asks_full(task).then_some(reference), &talks, d, seed)
        }
    }
}

/// Whether a task's answers are shown to full precision too.
pub(super) fn asks_full(task: &Found) -> bool {
    task.task.metrics.iter().any(|m| generate::OF_FULL.contains(&m.as_str()))
}

/// Whether a task looks at full precision beside the recipe.
pub(super) fn needs_full(task: &Found) -> bool {
    matches!(task.task.ask, Ask::Divergence(_)) || asks_full(task)
}

/// Whether a task has the model write, so that what it reads next depends on what it wrote.
pub(super) fn writes(task: &Found) -> bool {
    matches!(task.task.ask, Ask::Generate(_) | Ask::Dialogue(_))
}

//! Runs a study: one model at a time, one recipe at a time, one cell after another; each on disk before the next.
use super::{
    config::Study,
    engine::{Counter, Engine, Words, Work},
    passes,
    plan::{Cell, Plan, task_info},
    score::{Scored, score},
};
use crate::{
    eval::{Lm, Outcomes, choice, cloze, dialogue, divergence, generate, perplexity},
    mistake,
    mistake::{Blame, is_mistake},
    model::{load::Opened, spec::DecoderSpec},
    quant::{
        apply::{self, Sizes},
        recipe::Recipe,
    },
    results::{Cost, MadeBy, ModelInfo, RecipeInfo, Record, SCHEMA, Status, Store},
    suite::{Ask, Protocol, data::Items, find::Found, requests},
};
use anyhow::{Context, Result};
use candle_core::Device;
use std::{collections::BTreeSet, time::Instant};

/// What happens, for whoever watches.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Event<'a> {
    /// Cells picked, and how many of them are already on disk.
    Start { cells: usize, done: usize },
    /// A model's weights are being read.
    Load { model: &'a str },
    /// A cell begins.
    Cell { number: usize, name: &'a str },
    /// A cell is on disk.
    Done { record: &'a Record },
}

/// How a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Finished now.
    pub ran: usize,
    /// Finished before.
    pub kept: usize,
    /// Among those picked.
    pub failed: usize,
    /// A failure was a mistake in what the user handed us.
    pub mistakes: bool,
}

/// Runs every picked cell that is not on disk. Failed ones are tried again.
pub fn run(
    study: &Study,
    plan: &Plan,
    store: &Store,
    device: &Device,
    device_name: &str,
    watch: &mut dyn FnMut(Event<'_>),
) -> Result<Summary> {
    let done: BTreeSet<String> = store
        .records()
        .blame("results")?
        .into_iter()
        .filter(|r| match r.status {
            // Without its items a cell can be paired with nothing.
            Status::Done { .. } => store.has_items(&r.cell),
            Status::Skipped { .. } => true,
            Status::Failed { .. } => false,
        })
        .map(|r| r.cell)
        .collect();
    let picked: Vec<&Cell> = plan.cells.iter().filter(|c| c.picked).collect();
    let kept = picked.iter().filter(|c| done.contains(&c.id)).count();
    watch(Event::Start { cells: picked.len(), done: kept });
    let mut summary = Summary { kept, ..Summary::default() };
    let mut number = kept;
    for (m, opened) in plan.models.iter().enumerate() {
        let mine: Vec<&Cell> =
            picked.iter().copied().filter(|c| c.model == m && !done.contains(&c.id)).collect();
        if mine.is_empty() {
            continue;
        }
        watch(Event::Load { model: &opened.name });
        let full = opened.load(device);
        for (r, recipe) in study.recipes.iter().enumerate() {
            let cells: Vec<&Cell> = mine.iter().copied().filter(|c| c.recipe == r).collect();
            if cells.is_empty() {
                continue;
            }
            let unfit = recipe.unfit(&opened.spec);
            // One quantized model for all its cells.
            let job = match &full {
                _ if unfit.is_some() => Ok(None),
                Ok(full) => apply::apply(recipe, full, opened.stored_bits()).map(|q| Some((full, q))),
                Err(e) => Err(repeat(e)),
            };
            for cell in cells {
                let (task, items) = (&study.tasks[cell.task], &plan.items[cell.task]);
                number += 1;
                let name = format!("{}/{}/{}", opened.name, recipe.name, task.full_name());
                watch(Event::Cell { number, name: &name });
                let began = Instant::now();
                let mut work = Work::default();
                let outcome = match &job {
                    Ok(Some((full, q))) => {
                        let words = Words::of(opened);
                        let mut lm = Engine::new(&q.decoder, words);
                        let mut reference = Engine::new(full, words);
                        let outcomes =
                            evaluate(&mut lm, &mut reference, (study.limit, study.seed), task, items);
                        work = lm.work + reference.work;
                        outcomes.with_context(|| format!("`{}`", task.label)).map(Some)
                    }
                    Ok(None) => Ok(None),
                    Err(e) => Err(repeat(e)),
                };
                let parts = if task.task.joins() { Vec::new() } else { items.part_names(study.limit) };
                let outcome = outcome.and_then(|o| o.map(|o| score(&task.task, &parts, o)).transpose());
                let (status, scored) = match outcome {
                    Ok(Some(mut s)) => (Status::Done { metrics: std::mem::take(&mut s.metrics) }, s),
                    Ok(None) => {
                        (Status::Skipped { why: unfit.clone().unwrap_or_default() }, Scored::default())
                    }
                    Err(e) => {
                        summary.failed += 1;
                        summary.mistakes |= is_mistake(&e);
                        (Status::Failed { why: format!("{e:#}") }, Scored::default())
                    }
                };
                let sizes = job.as_ref().ok().and_then(|job| Some(job.as_ref()?.1.sizes.clone()));
                let record = Record {
                    schema: SCHEMA,
                    cell: cell.id.clone(),
                    model: model_info(opened),
                    recipe: recipe_info(recipe, sizes),
                    task: task_info(task, items),
                    status,
                    parts: scored.parts,
                    cost: Cost {
                        seconds: (began.elapsed().as_secs_f64() * 1000.).round() / 1000.,
                        tokens: work.computed as u64,
                        shared: work.shared as u64,
                        apart: passes::apart(&opened.spec).map(String::from),
                    },
                    made_by: MadeBy {
                        version: env!("CARGO_PKG_VERSION").into(),
                        device: device_name.into(),
                        dtype: recipe.precision.name().into(),
                        seed: study.seed,
                        limit: study.limit,
                    },
                };
                store.push(&record, &scored.items).blame("results")?;
                summary.ran += 1;
                watch(Event::Done { record: &record });
            }
        }
    }
    let order: Vec<String> = plan.cells.iter().map(|c| c.id.clone()).collect();
    store.settle(&order).blame("results")?;
    Ok(summary)
}

/// The same error for another cell: what it says, and whose mistake it was.
fn repeat(e: &anyhow::Error) -> anyhow::Error {
    let text = format!("{e:#}");
    if is_mistake(e) { anyhow::Error::new(mistake::Mistake(text)) } else { anyhow::Error::msg(text) }
}

fn model_info(opened: &Opened) -> ModelInfo {
    ModelInfo {
        name: opened.name.clone(),
        revision: opened.revision.clone(),
        family: opened.family.name().into(),
        params: opened.spec.count(),
        stored: opened.stored.into(),
    }
}

/// Without sizes where the model could not be made: absent is 0 bits, and the record has failed.
fn recipe_info(recipe: &Recipe, sizes: Option<Sizes>) -> RecipeInfo {
    let s = sizes.unwrap_or(Sizes {
        weight_bits: 0.,
        act_bits: 0.,
        kv_bits: 0.,
        bits_per_weight: 0.,
        size_mb: 0.,
        notes: Vec::new(),
    });
    RecipeInfo {
        name: recipe.name.clone(),
        settings: recipe.describe(),
        weight_bits: s.weight_bits,
        act_bits: s.act_bits,
        kv_bits: s.kv_bits,
        bits_per_weight: s.bits_per_weight,
        size_mb: s.size_mb,
        notes: s.notes,
    }
}

/// One cell: from items to outcomes.
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
fn asks_full(task: &Found) -> bool {
    task.task.metrics.iter().any(|m| generate::OF_FULL.contains(&m.as_str()))
}

/// What a cell would cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Tokens through the blocks, both models' where two run.
    pub tokens: f64,
    /// Two for each parameter of a linear that a token goes through.
    pub flops: f64,
    /// Both models' parameters in f32, one pass's values, and what answers under way remember.
    pub bytes: f64,
}

/// Counts a cell's work without doing it; what would be an error then is one now.
pub fn count(
    opened: &Opened,
    recipe: &Recipe,
    task: &Found,
    items: &Items,
    limit: Option<usize>,
) -> Result<Load> {
    let words = Words::of(opened);
    let (mut lm, mut reference) = (Counter::new(words), Counter::new(words));
    evaluate(&mut lm, &mut reference, (limit, 0), task, items)
        .with_context(|| format!("`{}`", task.label))?;
    let twice = if matches!(task.task.ask, Ask::Divergence(_)) || asks_full(task) { 2. } else { 1. };
    let tokens = lm.tokens as f64 * twice;
    let spec = &opened.spec;
    Ok(Load {
        tokens,
        flops: tokens * spec.flops_a_token(),
        bytes: memory(spec, recipe, super::engine::PACK.min(lm.tokens))
            + super::generate::pasts(spec, recipe.kv.is_some(), &lm.held) as f64,
    })
}

/// Bytes at once: the full model and the quantized one where it has weights of its own, in f32, and one pass's values.
pub fn memory(spec: &DecoderSpec, recipe: &Recipe, pass: usize) -> f64 {
    let models = if recipe.weights.is_some() || recipe.precision.name() != "f32" { 2. } else { 1. };
    let pass = pass as f64;
    4. * (models * spec.count() as f64 + pass * (8 * spec.hidden) as f64)
        + 4. * (pass * spec.vocab as f64).min((64 << 20) as f64)
}

//! Runs a study, one model at a time: whole in memory, a recipe and a cell after another ([`Run::whole`]); or, where it does
//! not fit, block by block for all recipes at once ([`walk`]).
use super::{
    config::Study,
    engine::{Engine, Words, Work},
    evaluate::evaluate,
    memory::{self, Way},
    passes,
    plan::{Cell, Plan, task_info},
    score::{Scored, score},
    walk,
};
use crate::{
    eval::Outcomes,
    mistake,
    mistake::{Blame, is_mistake},
    model::load::Opened,
    quant::{
        apply::{self, Sizes},
        recipe::Recipe,
    },
    results::{Cost, MadeBy, ModelInfo, RecipeInfo, Record, SCHEMA, Status, Store},
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
    /// A block's turn, where models do not fit memory whole.
    Block { model: &'a str, number: usize, of: usize },
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

/// Where and how much.
pub struct Machine<'a> {
    /// What computes.
    pub device: &'a Device,
    /// As records call it.
    pub name: &'a str,
    /// Bytes that may be in use at once; `None`: what the system has to give.
    pub memory: Option<u64>,
}

/// Runs every picked cell that is not on disk. Failed ones are tried again.
pub fn run(
    study: &Study,
    plan: &Plan,
    store: &Store,
    machine: &Machine,
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
    let summary = Summary { kept, ..Summary::default() };
    let mut all = Run { study, plan, store, machine, watch, summary, number: kept };
    for (m, opened) in plan.models.iter().enumerate() {
        let mine: Vec<&Cell> =
            picked.iter().copied().filter(|c| c.model == m && !done.contains(&c.id)).collect();
        if mine.is_empty() {
            continue;
        }
        (all.watch)(Event::Load { model: &opened.name });
        match memory::choose(study, plan, &mine, machine) {
            Way::Whole => all.whole(opened, &mine)?,
            Way::Blocks { memory } => walk::run(&mut all, opened, &mine, memory)?,
        }
    }
    let order: Vec<String> = plan.cells.iter().map(|c| c.id.clone()).collect();
    store.settle(&order).blame("results")?;
    Ok(all.summary)
}

/// A run on its way.
pub(super) struct Run<'a> {
    pub study: &'a Study,
    pub plan: &'a Plan,
    pub store: &'a Store,
    pub machine: &'a Machine<'a>,
    pub watch: &'a mut dyn FnMut(Event<'_>),
    summary: Summary,
    number: usize,
}

/// What became of a cell: outcomes, or why it does not fit.
pub(super) enum Fate {
    Evaluated(Outcomes, Sizes),
    Unfit(String),
}

impl Run<'_> {
    /// Models whole in memory: one recipe at a time, one cell after another; each on disk before the next.
    fn whole(&mut self, opened: &Opened, mine: &[&Cell]) -> Result<()> {
        let full = opened.load(self.machine.device);
        for (r, recipe) in self.study.recipes.iter().enumerate() {
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
                let (task, items) = (&self.study.tasks[cell.task], &self.plan.items[cell.task]);
                self.begin(cell);
                let began = Instant::now();
                let mut work = Work::default();
                let fate = match &job {
                    Ok(Some((full, q))) => {
                        let words = Words::of(opened);
                        let mut lm = Engine::new(&q.decoder, words);
                        let mut reference = Engine::new(full, words);
                        let how = (self.study.limit, self.study.seed);
                        let outcomes = evaluate(&mut lm, &mut reference, how, task, items);
                        work = lm.work + reference.work;
                        outcomes
                            .with_context(|| format!("`{}`", task.label))
                            .map(|outcomes| Fate::Evaluated(outcomes, q.sizes.clone()))
                    }
                    Ok(None) => Ok(Fate::Unfit(unfit.clone().unwrap_or_default())),
                    Err(e) => Err(repeat(e)),
                };
                self.end(cell, fate, work, began.elapsed().as_secs_f64())?;
            }
        }
        Ok(())
    }

    /// Says that a cell's turn has come.
    pub fn begin(&mut self, cell: &Cell) {
        let model = &self.plan.models[cell.model].name;
        let (recipe, task) = (&self.study.recipes[cell.recipe].name, self.study.tasks[cell.task].full_name());
        self.number += 1;
        (self.watch)(Event::Cell { number: self.number, name: &format!("{model}/{recipe}/{task}") });
    }

    /// Scores a cell and writes its record.
    pub fn end(&mut self, cell: &Cell, fate: Result<Fate>, work: Work, seconds: f64) -> Result<()> {
        let (opened, recipe) = (&self.plan.models[cell.model], &self.study.recipes[cell.recipe]);
        let (task, items) = (&self.study.tasks[cell.task], &self.plan.items[cell.task]);
        let parts = if task.task.joins() { Vec::new() } else { items.part_names(self.study.limit) };
        let fate = fate.and_then(|fate| {
            Ok(match fate {
                Fate::Evaluated(outcomes, sizes) => Ok((score(&task.task, &parts, outcomes)?, sizes)),
                Fate::Unfit(why) => Err(why),
            })
        });
        let (status, scored, sizes) = match fate {
            Ok(Ok((mut scored, sizes))) => {
                (Status::Done { metrics: std::mem::take(&mut scored.metrics) }, scored, Some(sizes))
            }
            Ok(Err(why)) => (Status::Skipped { why }, Scored::default(), None),
            Err(e) => {
                self.summary.failed += 1;
                self.summary.mistakes |= is_mistake(&e);
                let sizes = apply::sizes(recipe, &opened.spec, opened.stored_bits()).ok();
                (Status::Failed { why: format!("{e:#}") }, Scored::default(), sizes)
            }
        };
        let record = Record {
            schema: SCHEMA,
            cell: cell.id.clone(),
            model: model_info(opened),
            recipe: recipe_info(recipe, sizes),
            task: task_info(task, items),
            status,
            parts: scored.parts,
            cost: Cost {
                seconds: (seconds * 1000.).round() / 1000.,
                tokens: work.computed as u64,
                shared: work.shared as u64,
                apart: passes::apart(&opened.spec).map(String::from),
            },
            made_by: MadeBy {
                version: env!("CARGO_PKG_VERSION").into(),
                device: self.machine.name.into(),
                dtype: recipe.precision.name().into(),
                seed: self.study.seed,
                limit: self.study.limit,
            },
        };
        self.store.push(&record, &scored.items).blame("results")?;
        self.summary.ran += 1;
        (self.watch)(Event::Done { record: &record });
        Ok(())
    }
}

/// The same error for another cell: what it says, and whose mistake it was.
pub(super) fn repeat(e: &anyhow::Error) -> anyhow::Error {
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

//! Runs a study, one model at a time: whole in memory, a recipe and a cell after another ([`Run::whole`]); or, where it does
//! not fit, block by block for all recipes at once ([`walk`]).
use super::{
    config::Study,
    engine::{Engine, Words, Work},
    evaluate::evaluate,
    memory::{self, Pending, Prospect, Way},
    passes,
    plan::{Cell, Plan, task_info},
    score::{Kin, Scored, score},
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
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

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
    /// A model wants more memory than there is, bytes: it may become slow, or end.
    Tight { model: &'a str, needs: f64, memory: f64 },
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
        all.model(opened, &mine)?;
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
    /// All cells of a model: which ones whole, and which ones block by block, is a matter of memory.
    fn model(&mut self, opened: &Opened, cells: &[&Cell]) -> Result<()> {
        let (study, machine) = (self.study, self.machine);
        // Nothing to run is no reason to read a model.
        let mut fit: Vec<&Cell> = Vec::new();
        for &cell in cells {
            match study.recipes[cell.recipe].unfit(&opened.spec) {
                Some(why) => {
                    self.begin(cell);
                    self.end(cell, Ok(Fate::Unfit(why)), Work::default(), 0.)?;
                }
                None => fit.push(cell),
            }
        }
        let recipes: Vec<&Recipe> = fit.iter().map(|c| &study.recipes[c.recipe]).collect();
        if fit.is_empty() || (machine.memory.is_none() && memory::plenty(opened, &recipes)) {
            return self.whole(opened, &fit);
        }
        let mut asked = BTreeMap::new();
        let (mut known, mut pending) = (Vec::new(), Vec::new());
        for &cell in &fit {
            let (task, items) = (&study.tasks[cell.task], &self.plan.items[cell.task]);
            let asked = asked
                .entry(cell.task)
                .or_insert_with(|| memory::ask(opened, task, items, (study.limit, study.seed)));
            match asked {
                Ok(asked) => {
                    known.push(cell);
                    let recipe = &study.recipes[cell.recipe];
                    pending.push(Pending { recipe, task: cell.task, asked: *asked });
                }
                Err(e) => {
                    let e = repeat(e);
                    self.begin(cell);
                    self.end(cell, Err(e), Work::default(), 0.)?;
                }
            }
        }
        let cpu = machine.device.is_cpu();
        let Prospect { ways, memory, most, .. } = memory::predict(opened, &pending, machine.memory, cpu);
        if let Some(memory) = memory.filter(|m| most > *m) {
            (self.watch)(Event::Tight { model: &opened.name, needs: most, memory });
        }
        let of = |which: Way| -> Vec<&Cell> {
            known.iter().zip(&ways).filter(|(_, way)| **way == which).map(|(cell, _)| *cell).collect()
        };
        let (walked, whole) = (of(Way::Blocks), of(Way::Whole));
        if let Some(memory) = memory.filter(|_| !walked.is_empty()) {
            let of = pending.iter().zip(&ways).filter(|(_, way)| **way == Way::Blocks);
            let fixed = memory::blocks(opened.family, &opened.spec, &of.map(|p| *p.0).collect::<Vec<_>>());
            walk::run(self, opened, &walked, memory - fixed)?;
        }
        for (cell, way) in known.iter().zip(&ways) {
            if let Way::Nohow(why) = way {
                let e = anyhow::anyhow!("`{}`: {why}", study.tasks[cell.task].label);
                self.begin(cell);
                self.end(cell, Err(e), Work::default(), 0.)?;
            }
        }
        self.whole(opened, &whole)
    }

    /// Models whole in memory: one recipe at a time, one cell after another; each on disk before the next.
    fn whole(&mut self, opened: &Opened, mine: &[&Cell]) -> Result<()> {
        if mine.is_empty() {
            return Ok(());
        }
        let full = opened.load(self.machine.device);
        for (r, recipe) in self.study.recipes.iter().enumerate() {
            let cells: Vec<&Cell> = mine.iter().copied().filter(|c| c.recipe == r).collect();
            if cells.is_empty() {
                continue;
            }
            // One quantized model for all its cells.
            let job = match &full {
                Ok(full) => self.plan.sequences(opened, recipe).and_then(|texts| {
                    apply::apply(recipe, full, opened.stored_bits(), &texts).map(|q| (full, q))
                }),
                Err(e) => Err(repeat(e)),
            };
            for cell in cells {
                let (task, items) = (&self.study.tasks[cell.task], &self.plan.items[cell.task]);
                self.begin(cell);
                let began = Instant::now();
                let mut work = Work::default();
                let fate = match &job {
                    Ok((full, q)) => {
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
        // Windows of all items joined are of no part and no cluster.
        let limit = self.study.limit;
        let kin = match task.task.joins() {
            true => Kin::default(),
            false => Kin { parts: items.part_names(limit), clusters: items.cluster_names(limit) },
        };
        let fate = fate.and_then(|fate| {
            Ok(match fate {
                Fate::Evaluated(outcomes, sizes) => Ok((score(&task.task, &kin, outcomes)?, sizes)),
                Fate::Unfit(why) => Err(why),
            })
        });
        // A cell that failed may have asked for nothing, or for all of it: that is no measure.
        let work = if fate.is_ok() { work } else { Work::default() };
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
        tokenizer: opened.tokens.clone(),
    }
}

/// Without sizes where the model could not be made: absent is 0 bits, and the record has failed.
fn recipe_info(recipe: &Recipe, sizes: Option<Sizes>) -> RecipeInfo {
    let s = sizes.unwrap_or(Sizes {
        weight_bits: 0.,
        act_bits: 0.,
        kv_bits: 0.,
        kv_bytes_per_token: 0.,
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
        kv_bytes_per_token: s.kv_bytes_per_token,
        bits_per_weight: s.bits_per_weight,
        size_mb: s.size_mb,
        notes: s.notes,
    }
}

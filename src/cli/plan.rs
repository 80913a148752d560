//! `bitsweep plan`.
use super::{Exit, StudyArgs, progress::Progress};
use crate::{
    mistake::{Blame, is_mistake},
    results::{Status, Store},
    study::{plan, run::count},
};
use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use std::collections::BTreeMap;

/// What would run, what is done, how much memory and work.
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    study: StudyArgs,
}

impl Plan {
    pub(super) fn run(self) -> Result<Exit> {
        let (study, pick) = self.study.read()?;
        self.study.device()?;
        let progress = Progress::new();
        let plan = plan::plan(&study, &pick, &self.study.device, &|| Some(progress.downloads()))?;
        let out = self.study.out(&study);
        let known: BTreeMap<String, Status> = match Store::open(&out) {
            Ok(store) => store.records().blame("results")?.into_iter().map(|r| (r.cell, r.status)).collect(),
            Err(_) => BTreeMap::new(),
        };
        out!("{}: {}", study.name, study.about);
        for model in &plan.models {
            let s = &model.spec;
            out!(
                "\n{}: {} ({}), {} parameters stored as {}, {} blocks of {}, context {}",
                model.name,
                model.family.name(),
                &model.revision[..12.min(model.revision.len())],
                s.count(),
                model.stored,
                s.blocks.len(),
                s.hidden,
                s.context
            );
        }
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["cell", "items", "tokens", "GFLOP", "MB at once", "status"]);
        let (mut tokens, mut work, mut pending) = (0., 0., 0);
        let mut exit = Exit::Fine;
        for cell in plan.cells.iter().filter(|c| c.picked) {
            let (model, task) = (&plan.models[cell.model], &study.tasks[cell.task]);
            let recipe = &study.recipes[cell.recipe];
            let load = count(model, recipe, task, &plan.items[cell.task], study.limit);
            let status = match (known.get(&cell.id), &load) {
                _ if recipe.unfit(&model.spec).is_some() => {
                    format!("skipped: {}", recipe.unfit(&model.spec).unwrap_or_default())
                }
                (Some(Status::Done { .. }), _) => "done".into(),
                (Some(Status::Skipped { why }), _) => format!("skipped: {why}"),
                (_, Err(e)) => {
                    exit = if is_mistake(e) { Exit::Mistake } else { exit };
                    format!("would fail: {e:#}")
                }
                (before, Ok(l)) => {
                    tokens += l.tokens;
                    work += l.flops;
                    pending += 1;
                    match before {
                        Some(Status::Failed { why }) => format!("failed, runs again: {why}"),
                        _ => "to run".into(),
                    }
                }
            };
            let row = load.ok();
            let show =
                |f: &dyn Fn(&crate::study::run::Load) -> String| row.as_ref().map(f).unwrap_or_default();
            table.add_row([
                format!("{}/{}/{}", model.name, recipe.name, task.full_name()),
                plan.items[cell.task].rows.len().min(study.limit.unwrap_or(usize::MAX)).to_string(),
                show(&|l| format!("{:.0}", l.tokens)),
                show(&|l| format!("{:.1}", l.flops / 1e9)),
                show(&|l| format!("{:.0}", l.bytes / 1e6)),
                status,
            ]);
        }
        out!("\n{table}\n");
        out!(
            "{pending} cells to run: {tokens:.0} tokens, {:.1} GFLOP; results in {}",
            work / 1e9,
            out.display()
        );
        Ok(exit)
    }
}

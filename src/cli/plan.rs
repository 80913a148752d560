//! `bitsweep plan`.
use super::{Exit, StudyArgs, progress::Progress};
use crate::{
    mistake::{Blame, is_mistake},
    model::{describe::describe, load, spec::DecoderSpec},
    quant::{apply::sizes, recipe::Recipe},
    results::{Status, Store},
    study::{
        memory::{self, Load, Pending, Way},
        plan::{self, Cell},
    },
};
use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use std::{collections::BTreeMap, path::Path};

/// What would run, what is done, how much memory and work. Instead of a study, a model: a directory, a config.json alone,
/// or builtin:llama.
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    study: StudyArgs,
}

/// What `bitsweep plan MODEL` sets beside each other.
const RECIPES: [&str; 10] = ["full", "fp16", "w8", "w4", "w3", "w2", "w8a8", "w4a4", "kv8", "kv4"];

/// A model alone, from its config.json: spec, parameters, memory and work, with weights or without.
fn model_alone(name: &str, progress: &Progress) -> Result<Exit> {
    let model = load::outline(name, Path::new(""), Some(progress.downloads()))?;
    let spec = &model.spec;
    out!("{name}: {} ({})", model.family.name(), model.family.about());
    tell(spec, model.stored);
    if !model.has_weights()? {
        out!("  no weights beside {name}: this is what its config.json says");
    }
    let bits = if model.stored == "f32" { 32 } else { 16 };
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["recipe", "bits a weight", "size", "KV cache a token", "to evaluate", "notes"]);
    for name in RECIPES {
        let recipe = Recipe::parse(name)?;
        if let Some(why) = recipe.unfit(spec) {
            table.add_row([name.into(), String::new(), String::new(), String::new(), String::new(), why]);
            continue;
        }
        let sizes = sizes(&recipe, spec, bits)?;
        table.add_row([
            name.to_string(),
            format!("{:.3}", sizes.bits_per_weight),
            bytes(sizes.size_mb * 1e6),
            bytes(sizes.kv_bytes_per_token),
            bytes(memory::whole(model.family, spec, &recipe)),
            sizes.notes.join("; "),
        ]);
    }
    out!("\n{table}");
    Ok(Exit::Fine)
}

/// Bytes as people read them, of powers of ten.
fn bytes(n: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut n = n;
    let mut unit = 0;
    while n >= 1000. && unit + 1 < units.len() {
        n /= 1000.;
        unit += 1;
    }
    if unit == 0 { format!("{n:.0} B") } else { format!("{n:.2} {}", units[unit]) }
}

/// A model's parts, and what a token of it costs.
fn tell(spec: &DecoderSpec, stored: &str) {
    let params = spec.count() as f64;
    out!(
        "  {} parameters stored as {stored}, {} blocks of {}, context {}",
        spec.count(),
        spec.blocks.len(),
        spec.hidden,
        spec.context
    );
    for line in describe(spec) {
        out!("  {line}");
    }
    out!("  {:.4} GFLOP a token; {} of weights in f32", spec.flops_a_token() / 1e9, bytes(params * 4.));
}

impl Plan {
    pub(super) fn run(self) -> Result<Exit> {
        let word = Path::new(&self.study.study);
        let config = |path: &Path| path.file_name().is_some_and(|f| f == "config.json") && path.is_file();
        // `org/name` is a model on the Hub where nothing here could be meant.
        let on_hub = !word.exists()
            && word
                .extension()
                .is_none_or(|e| !["toml", "yaml", "yml", "json"].iter().any(|known| e == *known))
            && word.parent().is_some_and(|folder| !folder.exists())
            && self.study.study.matches('/').count() == 1
            && !self.study.study.starts_with(['.', '/', '~']);
        let builtin = self.study.study.starts_with("builtin:");
        if builtin || on_hub || config(word) || config(&word.join("config.json")) {
            self.study.none_for_a_model()?;
            return model_alone(&self.study.study, &Progress::new());
        }
        let memory = self.study.memory()?;
        let (study, pick) = self.study.read()?;
        let device = self.study.device()?;
        let progress = Progress::new();
        let plan = plan::plan(&study, &pick, &self.study.device, &|| Some(progress.downloads()))?;
        let out = self.study.out(&study);
        let known: BTreeMap<String, Status> = match Store::open(&out) {
            Ok(store) => store.records().blame("results")?.into_iter().map(|r| (r.cell, r.status)).collect(),
            Err(_) => BTreeMap::new(),
        };
        out!("{}: {}", study.name, study.about);
        for model in &plan.models {
            let revision = &model.revision[..12.min(model.revision.len())];
            out!("\n{}: {} ({revision})", model.name, model.family.name());
            tell(&model.spec, model.stored);
        }
        let mut table = Table::new();
        table.load_style(ASCII_MARKDOWN);
        table.set_header(["cell", "items", "tokens", "GFLOP", "MB, whole", "status"]);
        let (mut tokens, mut work, mut pending) = (0., 0., 0);
        let mut exit = Exit::Fine;
        let mut ways = Vec::new();
        for (m, model) in plan.models.iter().enumerate() {
            let cells: Vec<&Cell> = plan.cells.iter().filter(|c| c.picked && c.model == m).collect();
            let mut asked = BTreeMap::new();
            for cell in &cells {
                let (task, items) = (&study.tasks[cell.task], &plan.items[cell.task]);
                let how = (study.limit, study.seed);
                asked.entry(cell.task).or_insert_with(|| memory::ask(model, task, items, how));
            }
            let ends = |c: &Cell| {
                study.recipes[c.recipe].unfit(&model.spec).is_some()
                    || matches!(known.get(&c.id), Some(Status::Done { .. } | Status::Skipped { .. }))
            };
            let to_run: Vec<Pending> = cells
                .iter()
                .filter(|c| !ends(c))
                .filter_map(|c| {
                    let asked = *asked[&c.task].as_ref().ok()?;
                    Some(Pending { recipe: &study.recipes[c.recipe], task: c.task, asked })
                })
                .collect();
            let prospect = memory::predict(model, &to_run, memory, device.is_cpu());
            let mut way = prospect.ways.iter();
            for cell in cells {
                let (recipe, task) = (&study.recipes[cell.recipe], &study.tasks[cell.task]);
                let load = asked[&cell.task].as_ref().map(|asked| memory::load(model, recipe, asked));
                let status = match (recipe.unfit(&model.spec), known.get(&cell.id), &load) {
                    (Some(why), ..) => format!("skipped: {why}"),
                    (_, Some(Status::Skipped { why }), _) => format!("skipped: {why}"),
                    (_, Some(Status::Done { .. }), _) => "done".into(),
                    (_, _, Err(e)) => {
                        exit = if is_mistake(e) { Exit::Mistake } else { exit };
                        format!("would fail: {e:#}")
                    }
                    (_, before, Ok(l)) => match (way.next(), before) {
                        (Some(Way::Nohow(why)), _) => format!("would fail: {why}"),
                        (_, before) => {
                            tokens += l.tokens;
                            work += l.flops;
                            pending += 1;
                            match before {
                                Some(Status::Failed { why }) => format!("failed, runs again: {why}"),
                                _ => "to run".into(),
                            }
                        }
                    },
                };
                let show = |f: &dyn Fn(&Load) -> String| load.as_ref().map(f).unwrap_or_default();
                table.add_row([
                    format!("{}/{}/{}", model.name, recipe.name, task.full_name()),
                    plan.items[cell.task].rows.len().min(study.limit.unwrap_or(usize::MAX)).to_string(),
                    show(&|l| format!("{:.0}", l.tokens)),
                    show(&|l| format!("{:.1}", l.flops / 1e9)),
                    show(&|l| format!("{:.0}", l.bytes / 1e6)),
                    status,
                ]);
            }
            if !to_run.is_empty() {
                ways.push((model, prospect));
            }
        }
        out!("\n{table}\n");
        for (model, prospect) in ways {
            let how = |way: Way, name: &'static str| prospect.ways.contains(&way).then_some(name);
            let how: Vec<&str> = [how(Way::Whole, "whole in memory"), how(Way::Blocks, "block by block")]
                .into_iter()
                .flatten()
                .collect();
            let file = match prospect.file {
                n if n > 0. => format!(", {} in a file", bytes(n)),
                _ => String::new(),
            };
            let more = match prospect.memory {
                Some(memory) if prospect.most > memory => {
                    format!("; that is more than the {} that may be used", bytes(memory))
                }
                _ => String::new(),
            };
            let how = if how.is_empty() { "nothing runs".into() } else { how.join(", then ") };
            out!("{}: {how}, {} at most{file}{more}", model.name, bytes(prospect.most));
        }
        out!(
            "{pending} cells to run: {tokens:.0} tokens, {:.1} GFLOP; results in {}",
            work / 1e9,
            out.display()
        );
        Ok(exit)
    }
}

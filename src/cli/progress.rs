//! What a person sees while a study runs: a bar on a terminal, plain lines elsewhere. All of it on stderr.
use crate::{
    hub::OnProgress,
    results::{Record, Status},
    study::run::Event,
};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{io::IsTerminal, sync::Mutex};

/// See the module.
pub struct Progress {
    terminal: bool,
    all: MultiProgress,
    cells: ProgressBar,
}

impl Progress {
    pub(super) fn new() -> Self {
        let terminal = std::io::stderr().is_terminal();
        let all = MultiProgress::new();
        Self { terminal, cells: ProgressBar::hidden(), all }
    }

    /// For one model's files: a bar a file.
    pub(super) fn downloads(&self) -> OnProgress {
        if !self.terminal {
            let last = Mutex::new(String::new());
            return Box::new(move |file, _, total| {
                if let Ok(mut last) = last.lock()
                    && *last != file
                {
                    say!("downloading {file}, {:.1} MB", total as f64 / 1e6);
                    *last = file.into();
                }
            });
        }
        let all = self.all.clone();
        let bars: Mutex<Vec<(String, ProgressBar)>> = Mutex::new(Vec::new());
        let style =
            ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
        Box::new(move |file, done, total| {
            let Ok(mut bars) = bars.lock() else { return };
            let at = bars.iter().position(|(f, _)| f == file).unwrap_or_else(|| {
                let bar =
                    all.add(ProgressBar::new(total).with_style(style.clone()).with_message(file.to_string()));
                bars.push((file.into(), bar));
                bars.len() - 1
            });
            let bar = &bars[at].1;
            bar.set_length(total);
            bar.set_position(done);
            if total > 0 && done >= total {
                bar.finish_and_clear();
            }
        })
    }

    pub(super) fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Start { cells, done } => {
                if self.terminal {
                    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {elapsed} {msg}")
                        .unwrap_or_else(|_| ProgressStyle::default_bar());
                    self.cells = self.all.add(ProgressBar::new(cells as u64).with_style(style));
                    self.cells.set_position(done as u64);
                } else {
                    say!("{cells} cells, {done} of them done before");
                }
            }
            Event::Load { model } => self.line(&format!("loading {model}"), true),
            Event::Block { model, number, of } => {
                self.line(&format!("{model}: block {number} of {of}"), true);
            }
            Event::Tight { model, needs, memory } => self.line(
                &format!(
                    "{model}: takes some {:.0} MB, and {:.0} MB may be used; it may become slow, or be ended by the \
                     system",
                    needs / 1e6,
                    memory / 1e6
                ),
                false,
            ),
            Event::Cell { name, .. } => self.cells.set_message(name.to_string()),
            Event::Done { record } => {
                self.cells.inc(1);
                let failed = matches!(record.status, Status::Failed { .. });
                self.line(&said(record), !failed);
            }
        }
    }

    /// On a terminal the bar says enough, but for bad news.
    fn line(&self, text: &str, quiet: bool) {
        match (self.terminal, quiet) {
            (true, true) => self.cells.set_message(text.to_string()),
            (true, false) => drop(self.all.println(text)),
            (false, _) => say!("{text}"),
        }
    }

    pub(super) fn end(&mut self) {
        self.cells.finish_and_clear();
    }
}

fn said(record: &Record) -> String {
    let r = record;
    let suite = if r.task.suite.is_empty() { String::new() } else { format!("{}/", r.task.suite) };
    let name = format!("{}/{}/{suite}{}", r.model.name, r.recipe.name, r.task.name);
    let first = r.task.metrics.first().map(|m| m.name.clone()).unwrap_or_default();
    match &r.status {
        Status::Done { metrics } => match metrics.get(&first) {
            Some(v) => format!("{name}  {first} {:.6}  {:.1} s", v.value, r.cost.seconds),
            None => name,
        },
        Status::Failed { why } => format!("{name}  failed: {why}"),
        Status::Skipped { why } => format!("{name}  skipped: {why}"),
    }
}

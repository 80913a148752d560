//! `bitsweep run`.
use super::{Exit, StudyArgs, progress::Progress};
use crate::{
    gate,
    mistake::Blame,
    report,
    results::Store,
    study::{
        plan::plan,
        run::{Machine, run},
        system,
    },
};
use anyhow::Result;
use clap::Args;

/// Run a study and draw its report; picks up where it stopped.
#[derive(Args)]
pub struct Run {
    #[command(flatten)]
    study: StudyArgs,
}

impl Run {
    pub(super) fn run(self) -> Result<Exit> {
        let memory = self.study.memory()?;
        let (study, pick) = self.study.read()?;
        let device = self.study.device()?;
        let out = self.study.out(&study);
        let store = Store::create(&out).blame("--out")?;
        let mut progress = Progress::new();
        let plan = plan(&study, &pick, &self.study.device, &|| Some(progress.downloads()))?;
        store.set_rules(&study.gates).blame("results")?;
        let machine = Machine { device: &device, name: &self.study.device, memory };
        let summary = run(&study, &plan, &store, &machine, &mut |e| progress.see(e))?;
        let drawn = report::draw(&store).blame("report")?;
        progress.end();
        out!("{}", drawn.table.trim_end());
        let verdicts = gate::own_rules(&store)?;
        let regressed = super::gate::print(&verdicts, false);
        let peak = system::peak()
            .map_or_else(String::new, |n| format!("; {:.0} MB at most in memory", n as f64 / 1e6));
        say!("{} cells run, {} kept{peak}; {}", summary.ran, summary.kept, out.join("report.html").display());
        Ok(match () {
            () if summary.mistakes => Exit::Mistake,
            () if summary.failed > 0 || regressed => Exit::Failed,
            () => Exit::Fine,
        })
    }
}

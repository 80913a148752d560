//! `bitsweep gate`.
use super::Exit;
use crate::{
    gate::{self, Baseline, Usual, Verdict},
    mistake,
    mistake::Blame,
    results::{Rule, Store, store},
};
use anyhow::Result;
use clap::Args;
use serde::Deserialize;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

/// Compare records with a baseline: worse, and is the difference real?
#[derive(Args)]
pub struct Gate {
    /// A study's results folder
    dir: PathBuf,
    /// An earlier folder, its records.jsonl, or a file that --update wrote
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Rules, [[gate]] as in a study, in place of the study's own
    #[arg(long, value_name = "TOML")]
    rules: Option<PathBuf>,
    /// Without rules about the baseline: the chance of even one false alarm, over all comparisons together (Holm)
    #[arg(long, default_value_t = Usual::default().alpha)]
    alpha: f64,
    /// Without rules about the baseline: what a metric may lose, as a part of the baseline's value
    #[arg(long, default_value_t = Usual::default().tolerance)]
    tolerance: f64,
    /// What is inconclusive fails
    #[arg(long)]
    strict: bool,
    /// Write --baseline from the folder, items' shares included, and compare nothing
    #[arg(long, requires = "baseline")]
    update: bool,
    /// Write JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write a summary in Markdown; on GitHub it is on the job's page without being asked for
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Print GitHub's annotations; on GitHub they are printed without being asked for
    #[arg(long)]
    github: bool,
}

/// A file of rules alone.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    gate: Vec<Rule>,
}

impl Gate {
    pub(super) fn run(self) -> Result<Exit> {
        if !(self.alpha > 0. && self.alpha < 1.) {
            mistake!("--alpha {}: it lies between 0 and 1", self.alpha);
        }
        if !(self.tolerance >= 0. && self.tolerance.is_finite()) {
            mistake!("--tolerance {}: it is 0 or more, 0.01 for one percent", self.tolerance);
        }
        let store = Store::open(&self.dir).blame("gate")?;
        if let (true, Some(path)) = (self.update, &self.baseline) {
            let cells = Baseline::write(&store, path).blame("--update")?;
            out!("{}: {cells} cells of {}", path.display(), self.dir.display());
            return Ok(Exit::Fine);
        }
        let own = match &self.rules {
            Some(path) => rules(path)?,
            None => store.rules().blame("gate")?,
        };
        let baseline = self.baseline.as_deref().map(Baseline::open).transpose().blame("--baseline")?;
        let usual = Usual { alpha: self.alpha, tolerance: self.tolerance };
        let verdicts = gate::gate(&store, &own, baseline.as_ref(), usual).blame("gate")?;
        if verdicts.is_empty() {
            mistake!(
                "nothing to hold `{}` against: name a --baseline or --rules, or give the study a [[gate]]",
                self.dir.display()
            );
        }
        self.tell(&verdicts)?;
        Ok(if print(&verdicts, self.strict) { Exit::Failed } else { Exit::Fine })
    }

    /// To whom else it matters.
    fn tell(&self, verdicts: &[Verdict]) -> Result<()> {
        let title = format!("bitsweep gate: {}", self.dir.display());
        if let Some(path) = &self.junit {
            store::replace(path, gate::junit(verdicts, self.strict).as_bytes()).blame("--junit")?;
        }
        if let Some(path) = &self.markdown {
            store::replace(path, gate::markdown(verdicts, &title).as_bytes()).blame("--markdown")?;
        }
        let set = |key| std::env::var_os(key).filter(|v| !v.is_empty());
        let on_github = set("GITHUB_ACTIONS").is_some_and(|v| v == "true");
        if let Some(page) = set("GITHUB_STEP_SUMMARY").filter(|_| on_github) {
            // Other steps write to it too.
            let file = fs::OpenOptions::new().append(true).create(true).open(&page);
            let written = file.and_then(|mut f| f.write_all(gate::markdown(verdicts, &title).as_bytes()));
            if let Err(e) = written {
                say!("warning: the job's summary `{}` was not written: {e}", Path::new(&page).display());
            }
        }
        if self.github || on_github {
            out!("{}", gate::annotations(verdicts, self.strict).trim_end());
        }
        Ok(())
    }
}

/// Reads a file of rules.
fn rules(path: &Path) -> Result<Vec<Rule>> {
    let label = || format!("--rules `{}`", path.display());
    let text = fs::read_to_string(path).blame(label())?;
    let rules: Rules = toml::from_str(&text).blame(label())?;
    for (i, rule) in rules.gate.iter().enumerate() {
        rule.check().blame(format!("{}: [[gate]] number {}", label(), i + 1))?;
    }
    if rules.gate.is_empty() {
        mistake!("{}: it has no [[gate]]", label());
    }
    Ok(rules.gate)
}

/// Prints verdicts, the bad ones last, where they are read. Whether any is bad.
pub(super) fn print(verdicts: &[Verdict], strict: bool) -> bool {
    if !verdicts.is_empty() {
        out!("{}", gate::table(verdicts));
    }
    verdicts.iter().any(|v| v.is_bad(strict))
}

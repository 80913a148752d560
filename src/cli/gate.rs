//! `bitsweep gate`.
use super::Exit;
use crate::{
    gate::{self, Baseline, Verdict},
    mistake,
    mistake::Blame,
    results::Store,
};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Compare records with a baseline: worse, and is the difference real?
#[derive(Args)]
pub struct Gate {
    /// A study's results folder
    dir: PathBuf,
    /// An earlier records.jsonl, or its folder; `items/` beside it lets items be paired
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How improbable a difference must be, over all comparisons together (Holm)
    #[arg(long, default_value_t = 0.05)]
    alpha: f64,
}

impl Gate {
    pub(super) fn run(self) -> Result<Exit> {
        if !(self.alpha > 0. && self.alpha < 1.) {
            mistake!("--alpha {}: it lies between 0 and 1", self.alpha);
        }
        let store = Store::open(&self.dir).blame("gate")?;
        let mut verdicts = gate::own_rules(&store).blame("gate")?;
        if let Some(path) = &self.baseline {
            let baseline = Baseline::open(path).blame("--baseline")?;
            verdicts.extend(gate::against(&store, &baseline, self.alpha).blame("gate")?);
        }
        if verdicts.is_empty() {
            mistake!(
                "nothing to hold `{}` against: name a --baseline, or give the study a [[gate]]",
                self.dir.display()
            );
        }
        Ok(if print(&verdicts) { Exit::Failed } else { Exit::Fine })
    }
}

/// Prints verdicts, the bad ones last, where they are read. Whether any is bad.
pub(super) fn print(verdicts: &[Verdict]) -> bool {
    for ok in [true, false] {
        for v in verdicts.iter().filter(|v| v.ok == ok) {
            out!("{}  {}: {}", if ok { "ok  " } else { "FAIL" }, v.what, v.why);
        }
    }
    let bad = verdicts.iter().filter(|v| !v.ok).count();
    if !verdicts.is_empty() {
        out!("gate: {} of {} passed", verdicts.len() - bad, verdicts.len());
    }
    bad > 0
}

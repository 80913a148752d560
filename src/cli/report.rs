//! `bitsweep report`.
use super::Exit;
use crate::{mistake::Blame, report, results::Store};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Draw tables, charts and the HTML page from records.
#[derive(Args)]
pub struct Report {
    /// A study's results folder
    dir: PathBuf,
}

impl Report {
    pub(super) fn run(self) -> Result<Exit> {
        let drawn = report::draw(&Store::open(&self.dir).blame("report")?).blame("report")?;
        out!("{}", drawn.table.trim_end());
        for file in drawn.files {
            say!("{}", file.display());
        }
        Ok(Exit::Fine)
    }
}

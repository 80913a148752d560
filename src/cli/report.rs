//! `bitsweep report`.
use super::Exit;
use crate::{
    mistake,
    mistake::Blame,
    published::{self, STUDY, claims, records, rules},
    report,
    results::{Store, store::replace},
};
use anyhow::Result;
use clap::Args;
use std::path::PathBuf;

/// Draw tables, charts and the HTML page from records.
#[derive(Args)]
pub struct Report {
    /// A study's results folder
    #[arg(required_unless_present = "published", conflicts_with = "published")]
    dir: Option<PathBuf>,
    /// Draw what others have printed, without running anything: qllm-eval, gptq, ... (`bitsweep list published`)
    #[arg(long, value_name = "SOURCE")]
    published: Option<String>,
    /// Where to draw it [default: results/published-SOURCE]
    #[arg(long, value_name = "DIR", requires = "published")]
    out: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(self) -> Result<Exit> {
        let store = match (&self.published, &self.dir) {
            (Some(source), _) => figures(source, self.out)?,
            (None, Some(dir)) => Store::open(dir).blame("report")?,
            (None, None) => mistake!("report: name a results folder, or --published and a source"),
        };
        let drawn = report::draw(&store).blame("report")?;
        out!("{}", drawn.table.trim_end());
        if self.published.as_deref() == Some(STUDY) {
            let table = rules::table(&rules::kept(published::all()?));
            let path = store.dir().join("rules.csv");
            replace(&path, rules::csv(&table)?.as_bytes()).blame("report")?;
            say!("{}", path.display());
            out!("\nThe study's claims, from its own figures:");
            for claim in claims::claims(published::all()?) {
                out!("- {}: {}. {}", claim.claim, claim.verdict, claim.evidence);
            }
        }
        for file in drawn.files {
            say!("{}", file.display());
        }
        Ok(Exit::Fine)
    }
}

/// A folder of a source's figures as records. One that holds a run's is left alone.
fn figures(source: &str, out: Option<PathBuf>) -> Result<Store> {
    let sources = published::sources();
    if !sources.contains(&source) {
        let near = mistake::nearest(source, sources.iter().copied());
        mistake!("--published `{source}`{near}; there are: {}", sources.join(", "));
    }
    let dir = out.unwrap_or_else(|| PathBuf::from("results").join(format!("published-{source}")));
    let store = Store::create(&dir).blame("report")?;
    if store.records().blame("report")?.iter().any(|r| !records::is_published(r)) {
        mistake!(
            "`{}` holds records of a run; published figures go into a folder of their own: --out DIR",
            dir.display()
        );
    }
    store.fill(&records::records(published::all()?, source)?).blame("report")?;
    Ok(store)
}

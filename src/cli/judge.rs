//! `bitsweep judge`.
use super::Exit;
use crate::{
    judge::{Bench, endpoint::Endpoint, prompts::Prompts},
    mistake,
    mistake::Blame,
    report,
    results::{Store, store::replace},
};
use anyhow::Result;
use clap::Args;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Have the answers of dialogue tasks judged: by a model behind an address, or elsewhere by way of files.
#[derive(Args)]
#[command(group(clap::ArgGroup::new("how").required(true).args(["url", "write", "read"])))]
pub struct Judge {
    /// A study's results folder
    dir: PathBuf,
    /// An OpenAI-compatible address, up to /v1
    #[arg(long, requires = "judge")]
    url: Option<String>,
    /// Write what is to be judged, a line of JSON an answer, and judge nothing
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Read judgements: lines of JSON with cell, item, turn, and score or text
    #[arg(long, value_name = "FILE", requires = "judge")]
    read: Option<PathBuf>,
    /// Who judges: the model's name at that address, or what to call whoever it was
    #[arg(long, value_name = "NAME")]
    judge: Option<String>,
    /// The environment variable that holds the address's key
    #[arg(long, value_name = "NAME", default_value = "OPENAI_API_KEY")]
    key_env: String,
    /// Prompts in FastChat's layout (judge_prompts.jsonl), in place of ours
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Reference answers in FastChat's layout (reference_answer/gpt-4.jsonl)
    #[arg(long, value_name = "FILE")]
    references: Option<PathBuf>,
    /// Questions under way at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    at_once: usize,
    /// Forget the folder's judgements first
    #[arg(long)]
    again: bool,
}

impl Judge {
    pub(super) fn run(self) -> Result<Exit> {
        let store = Store::open(&self.dir).blame("judge")?;
        let prompts = Prompts::read(self.prompts.as_deref(), self.references.as_deref())?;
        let judge = self.judge.as_deref().unwrap_or_default();
        if self.judge.as_deref() == Some("") {
            mistake!("--judge is empty: name who judges");
        }
        if let Some(path) = &self.write {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let inside = |p: &Path| p.canonicalize().ok();
            if inside(folder).is_some_and(|f| Some(f) == inside(&self.dir)) {
                mistake!("--write `{}`: a results folder's files are its own", path.display());
            }
            // Whoever it will be: what anybody has judged stays.
            let bench = Bench::by_anyone(&store, self.again)?;
            let cases = bench.open_cases(&prompts)?;
            let text: String = cases
                .iter()
                .map(|c| serde_json::to_string(c).map(|line| line + "\n"))
                .collect::<Result<_, _>>()?;
            replace(path, text.as_bytes()).blame(format!("`{}`", path.display()))?;
            say!("{} answers in {}", cases.len(), path.display());
            return Ok(Exit::Fine);
        }
        let mut bench = Bench::open(&store, (judge, &prompts.hash), self.again)?;
        let asked = match (&self.url, &self.read) {
            (Some(url), _) => {
                let cases = bench.open_cases(&prompts)?;
                let endpoint = Endpoint {
                    url: url.clone(),
                    model: judge.into(),
                    key: std::env::var(&self.key_env).ok().filter(|k| !k.is_empty()),
                    at_once: self.at_once,
                    pause: Duration::from_secs(2),
                };
                let mut count = 0;
                endpoint.ask(&cases, &prompts.hash, &mut |judgement| {
                    count += 1;
                    if count % 10 == 0 || count == cases.len() {
                        say!("judged {count} of {}", cases.len());
                    }
                    bench.keep(judgement)
                })
            }
            (None, Some(path)) => bench.read(path, judge, &prompts),
            (None, None) => mistake!("judge: --url, --write or --read"),
        };
        // What came before a failure counts; where nothing came, what was there stays.
        let tally = match asked {
            Err(e) if bench.is_empty() => return Err(e),
            Err(e) => {
                bench.settle()?;
                return Err(e);
            }
            Ok(()) => bench.settle()?,
        };
        let drawn = report::draw(&store).blame("report")?;
        out!("{}", drawn.table.trim_end());
        say!(
            "{} answers judged in {} cells; {} judgements without a score, {} answers not judged",
            tally.judged,
            tally.cells,
            tally.unclear,
            tally.missing
        );
        Ok(Exit::Fine)
    }
}

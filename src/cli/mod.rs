//! The command line: one file a verb. stdout is results, stderr is progress.
//!
//! Exit codes: 0 fine, 1 a gate found a regression or a cell failed, 2 a mistake in the input.
/// A line of results, on stdout.
macro_rules! out {
    ($($arg:tt)*) => { $crate::cli::emit(&mut std::io::stdout(), format_args!($($arg)*)) };
}
/// A line of progress, on stderr. Nobody need listen.
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::emit(&mut std::io::stderr(), format_args!($($arg)*)) };
}

mod gate;
mod inspect;
mod judge;
mod list;
mod plan;
mod progress;
mod report;
mod run;

use crate::{mistake, mistake::is_mistake};
use anyhow::Result;
use candle_core::Device;
use clap::{Args, Parser, Subcommand};
use std::{
    ffi::OsString,
    fmt,
    io::{ErrorKind, Write},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

/// Set where stdout or stderr could not take what it was given, and not because a reader had enough (`| head`).
static LOST: AtomicBool = AtomicBool::new(false);

/// Writes a line. A stream that is gone must not end hours of work: what counts is on disk.
fn emit(to: &mut dyn Write, line: fmt::Arguments) {
    let written = to.write_all(format!("{line}\n").as_bytes()).and_then(|()| to.flush());
    if written.is_err_and(|e| e.kind() != ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// What was asked, for scripts: 0, 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine,
    /// A gate found a regression, or a cell failed.
    Failed,
    /// A mistake in the input.
    Mistake,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Measures what quantization costs a language model.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Without a verb: `run`. Without a study: the built-in quickstart.\n\
    Exit codes: 0 fine, 1 a gate found a regression or a cell failed, 2 a mistake in the input."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a study and draw its report; picks up where it stopped
    Run(run::Run),
    /// What would run, what is done, how much memory and work
    Plan(plan::Plan),
    /// Draw tables, charts and the HTML page from records
    Report(report::Report),
    /// Compare records with a baseline
    Gate(gate::Gate),
    /// Have the answers of dialogue tasks judged
    Judge(judge::Judge),
    /// What quantization does inside a model: outliers, errors place by place, and which place costs most
    Inspect(inspect::Inspect),
    /// What there is: families, methods, formats, tasks, metrics, charts, models, studies, published figures
    List(list::List),
}

/// What `run` and `plan` share.
#[derive(Args)]
struct StudyArgs {
    /// A study file, or a built-in study's name
    #[arg(default_value = crate::study::config::QUICKSTART)]
    study: String,
    /// Override a key of the study
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Pick cells by pattern
    #[arg(long, value_name = "MODEL/RECIPE/TASK")]
    only: Option<String>,
    /// Items a task at most
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// The study's results folder [default: results/STUDY]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run part I of N of the cells
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// cpu, cuda:0 or metal
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Memory to use at most, such as 4G: a model that does not fit comes block by block [default: what is free, on Linux]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
}

impl StudyArgs {
    fn read(&self) -> Result<(crate::study::config::Study, crate::study::plan::Pick)> {
        let mut sets = self.sets.clone();
        sets.extend(self.limit.map(|n| format!("limit={n}")));
        let study = crate::study::config::Study::read(&self.study, &sets)?;
        let shard = self.shard.as_deref().map(crate::study::plan::Pick::shard).transpose()?;
        Ok((study, crate::study::plan::Pick { only: self.only.clone(), shard }))
    }

    /// Options of a study say nothing of a model alone.
    fn none_for_a_model(&self) -> Result<()> {
        let given = [
            ("--set", !self.sets.is_empty()),
            ("--only", self.only.is_some()),
            ("--limit", self.limit.is_some()),
            ("--out", self.out.is_some()),
            ("--shard", self.shard.is_some()),
            ("--memory", self.memory.is_some()),
        ];
        if let Some((option, _)) = given.iter().find(|(_, given)| *given) {
            mistake!("`{}` is a model, and {option} is a study's option", self.study);
        }
        Ok(())
    }

    fn out(&self, study: &crate::study::config::Study) -> PathBuf {
        self.out.clone().unwrap_or_else(|| PathBuf::from("results").join(&study.name))
    }

    fn memory(&self) -> Result<Option<u64>> {
        if self.memory.is_some() && self.device != "cpu" {
            mistake!("--memory is of the CPU's memory, and --device is {}", self.device);
        }
        self.memory.as_deref().map(crate::study::system::parse).transpose()
    }

    fn device(&self) -> Result<Device> {
        device(&self.device)
    }
}

/// What `--device` names.
fn device(name: &str) -> Result<Device> {
    let device = match name {
        "cpu" => return Ok(Device::Cpu),
        "metal" => Device::new_metal(0),
        other => match other.strip_prefix("cuda:").map(str::parse) {
            Some(Ok(i)) => Device::new_cuda(i),
            _ => mistake!("--device `{other}`; there are: cpu, cuda:0, metal"),
        },
    };
    match device {
        Ok(device) => Ok(device),
        Err(e) => mistake!(
            "--device `{name}`: {e}; this needs such a device and a build with `--features cuda` or `metal`"
        ),
    }
}

/// Runs what the arguments ask, and says what came of it on stderr where it is an error.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(with_verb(args.into_iter().collect())) {
        Ok(cli) => cli,
        Err(e) => {
            e.print().ok();
            return if e.use_stderr() { Exit::Mistake } else { Exit::Fine };
        }
    };
    let result = match cli.verb {
        Verb::Run(verb) => verb.run(),
        Verb::Plan(verb) => verb.run(),
        Verb::Report(verb) => verb.run(),
        Verb::Gate(verb) => verb.run(),
        Verb::Judge(verb) => verb.run(),
        Verb::Inspect(verb) => verb.run(),
        Verb::List(verb) => verb.run(),
    };
    let exit = result.unwrap_or_else(|e| {
        say!("error: {e:#}");
        if is_mistake(&e) { Exit::Mistake } else { Exit::Failed }
    });
    if LOST.load(Ordering::Relaxed) && exit == Exit::Fine {
        say!("error: stdout or stderr could not be written");
        return Exit::Mistake;
    }
    exit
}

/// `bitsweep study.toml` means `bitsweep run study.toml`.
fn with_verb(mut args: Vec<OsString>) -> Vec<OsString> {
    const KNOWN: [&str; 12] = [
        "run",
        "plan",
        "report",
        "gate",
        "judge",
        "inspect",
        "list",
        "help",
        "-h",
        "--help",
        "-V",
        "--version",
    ];
    let verb = args.get(1).and_then(|a| a.to_str());
    if !verb.is_some_and(|v| KNOWN.contains(&v)) {
        args.insert(1.min(args.len()), "run".into());
    }
    args
}

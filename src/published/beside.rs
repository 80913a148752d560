//! Ours beside theirs: for a record, every figure of the same model, recipe, task and protocol, with a tolerance and a
//! verdict.
//!
//! | figure | tolerance |
//! |---|---|
//! | full precision, GPTQ's perplexities | 0.01: beyond it something of ours is wrong |
//! | rounded to nearest, 4 bits or more | 0.5 % |
//! | calibrated, 4 bits in groups of 128, or 8 bits | 1 %; 3 bits: 3 %; and another source beside it, or none |
//! | learned | 3 % |
//! | activations of 4 bits, below 70 B | none: only the ranking of recipes |
//! | OPT, a scale a row, 3 bits or fewer; perplexities of 50 and more | none: only the order of magnitude |
//! | accuracy of n items | one binomial standard error |
//!
//! Where a figure is printed to fewer digits, half a unit of the last. Papers differ from each other by as much
//! (docs/published.md). A figure that is suspect is shown and not judged.
use super::{
    Figure, Published,
    records::{binomial, is_published},
    same::{Task, Tier},
};
use crate::results::{Record, Status, Value};
use anyhow::{Result, anyhow};
use std::{collections::BTreeSet, fmt};

/// A number of ours and one of somebody else's.
#[derive(Clone, Debug)]
pub struct Beside {
    /// As the record has it.
    pub model: String,
    /// As the record has it.
    pub recipe: String,
    /// `suite/name`.
    pub task: String,
    /// As the record has it.
    pub metric: String,
    /// Ours.
    pub ours: f64,
    /// One standard error of ours, where there is one.
    pub stderr: Option<f64>,
    /// Theirs, on our scale.
    pub published: f64,
    /// Where it is from.
    pub figure: &'static Figure,
    /// How far apart the two may be; `None` where no number says it.
    pub tolerance: Option<f64>,
    /// What is to be said of the two.
    pub verdict: Verdict,
    /// How it is known that the two tasks are the same.
    pub basis: &'static str,
    /// Which grid the figure is of, as far as its source says.
    pub grid: &'static str,
    tier: Tier,
    /// Activations of 4 bits or fewer, below 70 B.
    low_acts: bool,
}

/// What is to be said of ours and theirs.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Within the tolerance.
    Agrees,
    /// Beyond it, so far: `1.2 %`, `0.013`, `2.1 standard errors`.
    Off(String),
    /// Only the order of magnitude can be compared, and is the same, or is not.
    Magnitude(bool),
    /// Only the ranking of such recipes can be compared: of so many others, the names of those that are ranked otherwise.
    Ranking(usize, Vec<String>),
    /// No tolerance is known for such a figure.
    Open,
    /// The figure is doubted.
    Suspect,
    /// One source alone says it, and such figures differ between sources; what would be said if two did.
    Alone(Box<Verdict>),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Agrees => f.write_str("agrees"),
            Verdict::Off(by) => write!(f, "off by {by}"),
            Verdict::Magnitude(same) => {
                let word = if *same { "the same" } else { "another one" };
                write!(f, "only the order of magnitude is reproducible: {word}")
            }
            Verdict::Ranking(0, _) => f.write_str("only a ranking is reproducible: nothing to rank it with"),
            Verdict::Ranking(others, otherwise) if otherwise.is_empty() => {
                write!(f, "only a ranking is reproducible: the same among {}", others + 1)
            }
            Verdict::Ranking(_, otherwise) => {
                write!(f, "only a ranking is reproducible: another than of {}", otherwise.join(", "))
            }
            Verdict::Open => f.write_str("no tolerance is known"),
            Verdict::Suspect => f.write_str("not judged: the figure is suspect"),
            Verdict::Alone(verdict) => write!(f, "{verdict}; one source alone says it"),
        }
    }
}

impl Beside {
    /// Ours less theirs.
    pub fn difference(&self) -> f64 {
        self.ours - self.published
    }
}

/// Every figure that one of these records can be compared with, in the order of the records.
///
/// Never across protocols: suite, task and its version, the protocol's words and the harness's profile must be those of
/// the figure's section in tasks.txt, and a record of fewer items than all is compared with nothing.
///
/// # Errors
/// A file of the program that cannot be read.
pub fn beside(records: &[Record]) -> Result<Vec<Beside>> {
    let published = super::all()?;
    let mut rows = Vec::new();
    for record in records.iter().filter(|r| !is_published(r) && r.made_by.limit.is_none()) {
        let Status::Done { metrics } = &record.status else { continue };
        // A commit may be pinned; another file in the repository is other weights.
        let name = record.model.name.split('@').next().unwrap_or_default();
        let Some(model) = published.same.model(name) else { continue };
        let mut seen = BTreeSet::new();
        for figure in published.of(model) {
            let Some(task) = of_task(published, figure, record) else { continue };
            let Some(ours) = &task.ours else { continue };
            let metric = ours.metric(figure.series.metric);
            let Some(value) = metrics.get(&metric).filter(|v| v.value.is_finite()) else { continue };
            let Some(method) = published.same.method(figure) else { continue };
            let Some(tier) = method.tier.filter(|_| method.is(&figure.recipe, &record.recipe.settings))
            else {
                continue;
            };
            let items = task.items(&figure.series);
            let share = is_share(&metric);
            if share && items.is_some_and(|n| n != value.n) {
                continue;
            }
            // Full precision stands in each of a source's tables.
            let key = (figure.series.source, figure.recipe.name, figure.printed, metric.clone());
            if !seen.insert(key) {
                continue;
            }
            let theirs = figure.plain() * ours.times;
            let windows = ours.words.starts_with("windows of") || ours.words.starts_with("drawn windows");
            let kind = if share {
                Kind::Share(items.unwrap_or(value.n))
            } else if windows && metric == "perplexity" {
                Kind::Perplexity
            } else {
                Kind::Other
            };
            let mut row = Beside {
                model: record.model.name.clone(),
                recipe: record.recipe.name.clone(),
                task: format!("{}/{}", record.task.suite, record.task.name),
                metric,
                ours: value.value,
                stderr: value.stderr,
                published: theirs,
                figure,
                tolerance: None,
                verdict: Verdict::Open,
                basis: task.basis,
                grid: method.grid,
                tier,
                low_acts: figure.recipe.acts.is_some_and(|a| a <= 4.) && model.params < 70.,
            };
            (row.tolerance, row.verdict) = judge(&row, kind, value);
            rows.push(row);
        }
    }
    rank(&mut rows);
    alone(&mut rows);
    Ok(rows)
}

/// What a figure was measured on, where that is what a record was.
fn of_task(published: &'static Published, figure: &'static Figure, record: &Record) -> Option<&'static Task> {
    let task = published.same.task(&figure.series)?;
    task.ours.as_ref().filter(|o| figure.series.part.is_none() && o.is(&record.task, figure.series.task))?;
    Some(task)
}

#[derive(Clone, Copy)]
enum Kind {
    /// GPTQ's windows.
    Perplexity,
    /// Of so many items.
    Share(usize),
    Other,
}

fn is_share(metric: &str) -> bool {
    ["acc", "acc_norm", "mc2"].contains(&metric) || metric.starts_with("exact_match")
}

/// Tolerance and verdict, but for what depends on other rows.
fn judge(row: &Beside, kind: Kind, value: &Value) -> (Option<f64>, Verdict) {
    let (recipe, series) = (&row.figure.recipe, &row.figure.series);
    let by = row.difference().abs();
    let within = |tolerance: f64, off: String| {
        let tolerance = tolerance.max(row.figure.rounding() * row.figure.plain_unit());
        let verdict = if by <= tolerance * (1. + 1e-9) { Verdict::Agrees } else { Verdict::Off(off) };
        (Some(tolerance), verdict)
    };
    if row.figure.suspect.is_some() {
        return (None, Verdict::Suspect);
    }
    if row.low_acts && !matches!(kind, Kind::Other) {
        return (None, Verdict::Ranking(0, Vec::new()));
    }
    match kind {
        Kind::Share(n) => {
            let error = binomial(row.published.clamp(0., 1.), n);
            let off = if error > 0. { format!("{:.1} standard errors", by / error) } else { by.to_string() };
            within(error, off)
        }
        Kind::Other => (None, Verdict::Open),
        Kind::Perplexity => {
            let bits = recipe.weights.unwrap_or(16.);
            let opt = series.model.to_lowercase().starts_with("opt");
            let rough = row.tier == Tier::DataFree && opt && bits <= 3. && recipe.group == Some("row");
            if row.tier != Tier::Full && (rough || row.published >= 50.) {
                let apart = (value.value / row.published).log10().abs();
                return (None, Verdict::Magnitude(apart <= 0.5));
            }
            let share = match row.tier {
                Tier::Full => return within(0.01, format!("{by:.4}")),
                Tier::DataFree if bits >= 4. => 0.005,
                Tier::Calibrated if bits >= 8. || bits >= 4. && recipe.group == Some("128") => 0.01,
                Tier::Calibrated if bits == 3. => 0.03,
                Tier::Learned => 0.03,
                _ => return (None, Verdict::Open),
            };
            within(share * row.published, format!("{:.1} %", 100. * by / row.published))
        }
    }
}

/// Fills in how rows are ranked among those of the same source, model, task and metric that only a ranking can be had of.
fn rank(rows: &mut [Beside]) {
    let alike = |a: &Beside, b: &Beside| {
        (&a.model, &a.task, &a.metric, a.figure.series.source)
            == (&b.model, &b.task, &b.metric, b.figure.series.source)
    };
    let verdicts: Vec<Option<Verdict>> = rows
        .iter()
        .map(|row| {
            matches!(row.verdict, Verdict::Ranking(..)).then(|| {
                let others = rows.iter().filter(|o| {
                    alike(row, o) && o.recipe != row.recipe && matches!(o.verdict, Verdict::Ranking(..))
                });
                let (mut count, mut otherwise) = (0, Vec::new());
                for other in others {
                    count += 1;
                    let (ours, theirs) = (row.ours - other.ours, row.published - other.published);
                    if ours * theirs < 0. && !otherwise.contains(&other.recipe) {
                        otherwise.push(other.recipe.clone());
                    }
                }
                Verdict::Ranking(count, otherwise)
            })
        })
        .collect();
    for (row, verdict) in rows.iter_mut().zip(verdicts) {
        if let Some(verdict) = verdict {
            row.verdict = verdict;
        }
    }
}

/// Says of calibrated figures where no second source has one: those differ most between authors.
fn alone(rows: &mut [Beside]) {
    let sources = |row: &Beside| {
        let same = rows.iter().filter(|o| {
            o.figure.suspect.is_none()
                && (&o.model, &o.recipe, &o.task, &o.metric)
                    == (&row.model, &row.recipe, &row.task, &row.metric)
        });
        same.map(|o| o.figure.series.source).collect::<BTreeSet<_>>().len()
    };
    let lone: Vec<bool> = rows
        .iter()
        .map(|row| {
            let judged = matches!(row.verdict, Verdict::Agrees | Verdict::Off(_));
            judged && row.tier == Tier::Calibrated && !is_share(&row.metric) && sources(row) < 2
        })
        .collect();
    for (row, _) in rows.iter_mut().zip(lone).filter(|(_, lone)| *lone) {
        row.verdict = Verdict::Alone(Box::new(row.verdict.clone()));
    }
}

/// The columns of `published.csv`.
pub const COLUMNS: [&str; 16] = [
    "model",
    "recipe",
    "task",
    "metric",
    "ours",
    "stderr",
    "published",
    "source",
    "citation",
    "table",
    "difference",
    "tolerance",
    "verdict",
    "suspect",
    "basis",
    "grid",
];

/// `published.csv`: a row a pair. Absent is empty.
///
/// # Errors
/// None that a text in memory can have.
pub fn csv(rows: &[Beside]) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    let number = |x: Option<f64>| x.map_or(String::new(), |x| x.to_string());
    for row in rows {
        let s = &row.figure.series;
        writer.write_record([
            &row.model,
            &row.recipe,
            &row.task,
            &row.metric,
            &number(Some(row.ours)),
            &number(row.stderr),
            &number(Some(row.published)),
            s.source,
            s.citation,
            s.table,
            &number(Some(row.difference())),
            &number(row.tolerance),
            &row.verdict.to_string(),
            row.figure.suspect.unwrap_or_default(),
            row.basis,
            row.grid,
        ])?;
    }
    let bytes = writer.into_inner().map_err(|e| anyhow!("published.csv: {e}"))?;
    Ok(String::from_utf8(bytes)?)
}

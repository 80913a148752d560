//! Tables: `table.csv`, a row a metric, for programs; and a table a model, for eyes.
use super::frame::{Frame, Group, Row, one_line};
use crate::{
    results::{Record, Status},
    stats::holm,
};
use anyhow::{Result, anyhow};
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

/// Characters in a line of the table for eyes, at most; wider tables are split by tasks.
const WIDTH: usize = 110;

/// The level of the tests that put a `*`.
pub const LEVEL: f64 = 0.05;

/// A column of `table.csv`: its name and what stands in it. Absent is empty.
pub type Column = (&'static str, fn(&Frame, &Row) -> String);

/// The columns of `table.csv`. A contract: scripts read them by name and by place.
pub static COLUMNS: &[Column] = &[
    ("model", |f, r| f.record(r).model.name.clone()),
    ("family", |f, r| f.record(r).model.family.clone()),
    ("params", |f, r| match f.record(r).model.params {
        0 => String::new(),
        params => params.to_string(),
    }),
    ("recipe", |f, r| f.record(r).recipe.name.clone()),
    ("weight_bits", |f, r| known(f.record(r).recipe.weight_bits)),
    ("act_bits", |f, r| known(f.record(r).recipe.act_bits)),
    ("kv_bits", |f, r| known(f.record(r).recipe.kv_bits)),
    ("bits_per_weight", |f, r| known(f.record(r).recipe.bits_per_weight)),
    ("size_mb", |f, r| known(f.record(r).recipe.size_mb)),
    ("suite", |f, r| f.record(r).task.suite.clone()),
    ("task", |f, r| f.record(r).task.name.clone()),
    ("ability", |f, r| f.record(r).task.ability.clone()),
    ("metric", |f, r| f.metric(r).map_or_else(String::new, |m| m.name.clone())),
    ("higher_is_better", |f, r| f.metric(r).map_or_else(String::new, |m| m.higher_is_better.to_string())),
    ("value", |_, r| number(r.value)),
    ("stderr", |_, r| number(r.stderr)),
    ("n", |_, r| r.n.map_or_else(String::new, |n| n.to_string())),
    ("full", |_, r| number(r.full)),
    ("delta", |_, r| number(r.delta)),
    ("relative", |_, r| number(r.relative)),
    ("p_value", |_, r| number(r.p_value)),
    ("status", |f, r| status(f.record(r)).to_owned()),
    ("reason", |f, r| reason(f.record(r)).to_owned()),
    ("seconds", |f, r| number(Some(f.record(r).cost.seconds))),
    ("profile", |f, r| f.record(r).task.profile.clone().unwrap_or_default()),
    ("kv_bytes_per_token", |f, r| known(f.record(r).recipe.kv_bytes_per_token)),
];

/// `done`, `failed` or `skipped`.
pub fn status(record: &Record) -> &'static str {
    match record.status {
        Status::Done { .. } => "done",
        Status::Failed { .. } => "failed",
        Status::Skipped { .. } => "skipped",
    }
}

/// Why a cell has no values; empty for one that has.
pub fn reason(record: &Record) -> &str {
    match &record.status {
        Status::Done { .. } => "",
        Status::Failed { why } | Status::Skipped { why } => why,
    }
}

/// The shortest text that reads back as exactly this number; absent is empty.
pub fn number(x: Option<f64>) -> String {
    match x {
        None => String::new(),
        Some(x) if !x.is_finite() => String::new(),
        Some(x) if x != 0. && !(1e-5..1e16).contains(&x.abs()) => format!("{x:e}"),
        Some(x) => x.to_string(),
    }
}

/// Bits and sizes of 0 mean that the model was never loaded.
fn known(x: f64) -> String {
    number((x > 0.).then_some(x))
}

/// `table.csv`.
pub fn csv(frame: &Frame) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS.iter().map(|(name, _)| name))?;
    for row in &frame.rows {
        writer.write_record(COLUMNS.iter().map(|(_, of)| of(frame, row)))?;
    }
    let bytes = writer.into_inner().map_err(|e| anyhow!("table.csv: {e}"))?;
    Ok(String::from_utf8(bytes)?)
}

/// The columns of `parts.csv` after the part itself, by their names in [`COLUMNS`].
const OF_PARTS: &[&str] = &[
    "model",
    "recipe",
    "suite",
    "task",
    "metric",
    "higher_is_better",
    "value",
    "stderr",
    "n",
    "full",
    "delta",
    "relative",
    "p_value",
];

/// Columns of [`COLUMNS`] by name.
pub fn columns(names: &[&str]) -> Vec<&'static Column> {
    names.iter().filter_map(|name| COLUMNS.iter().find(|c| c.0 == *name)).collect()
}

/// `parts.csv`: a row a part and metric. `None`: no task has parts.
pub fn parts(frame: &Frame) -> Result<Option<String>> {
    if frame.parts.is_empty() {
        return Ok(None);
    }
    let columns = columns(OF_PARTS);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(std::iter::once("part").chain(columns.iter().map(|c| c.0)))?;
    for (part, row) in &frame.parts {
        let cells = columns.iter().map(|(_, of)| of(frame, row));
        writer.write_record(std::iter::once(part.clone()).chain(cells))?;
    }
    let bytes = writer.into_inner().map_err(|e| anyhow!("parts.csv: {e}"))?;
    Ok(Some(String::from_utf8(bytes)?))
}

/// A group's cells laid out for eyes: a row a recipe, a column a task and metric.
pub struct Grid<'a> {
    /// A task (index into [`Group::tasks`]) and one of its metrics (index).
    pub columns: Vec<(usize, usize)>,
    /// By recipe, by column.
    pub cells: Vec<Vec<Cell<'a>>>,
    /// Why cells failed or were skipped; [`Cell::note`] counts from 1.
    pub notes: Vec<String>,
}

/// A place in a [`Grid`].
#[derive(Default)]
pub struct Cell<'a> {
    /// `None`: no such cell was run.
    pub row: Option<&'a Row>,
    /// Differs from full precision: p below [`LEVEL`] after Holm's correction over the grid.
    pub differs: bool,
    /// For a cell that failed or was skipped: its status, and the number of its note.
    pub note: Option<(&'static str, usize)>,
}

impl<'a> Grid<'a> {
    /// The metric that stands for each task, or all of them.
    pub fn new(frame: &'a Frame, group: &Group, all_metrics: bool) -> Self {
        let columns: Vec<_> = (0..group.tasks.len())
            .flat_map(|task| {
                let all = frame.records[group.tasks[task].record].task.metrics.len().max(1);
                let first = group.first_metric(frame, task);
                if all_metrics { 0..all } else { first..first + 1 }.map(move |m| (task, m))
            })
            .collect();
        let mut notes: Vec<String> = Vec::new();
        let mut cells = Vec::new();
        for recipe in 0..group.recipes.len() {
            let mut line = Vec::new();
            for &(task, metric) in &columns {
                let Some(record) = group.cell(recipe, task) else {
                    line.push(Cell::default());
                    continue;
                };
                let why = reason(&frame.records[record]);
                let status = status(&frame.records[record]);
                let note = (status != "done").then(|| {
                    let text = format!("{status}: {}", one_line(why));
                    let at = notes.iter().position(|n| *n == text).unwrap_or_else(|| {
                        notes.push(text);
                        notes.len() - 1
                    });
                    (status, at + 1)
                });
                line.push(Cell { row: frame.rows_of(record).get(metric), differs: false, note });
            }
            cells.push(line);
        }
        // A divergence from full precision is above 0 by construction: no question to ask of it.
        let p = |c: &Cell| c.row.filter(|r| !frame.diverges(r)).and_then(|r| r.p_value);
        let mut adjusted = holm(&cells.iter().flatten().filter_map(p).collect::<Vec<_>>()).into_iter();
        for cell in cells.iter_mut().flatten().filter(|c| p(c).is_some()) {
            cell.differs = adjusted.next().is_some_and(|p| p < LEVEL);
        }
        Self { columns, cells, notes }
    }

    /// What a column holds: the task's label, and the metric's name and sense where it has one.
    pub fn head<'b>(
        &self,
        frame: &'b Frame,
        group: &'b Group,
        column: usize,
    ) -> (&'b str, Option<(&'b str, bool)>) {
        let (task, metric) = self.columns[column];
        let line = &group.tasks[task];
        let info = frame.records[line.record].task.metrics.get(metric);
        (&line.label, info.map(|m| (m.name.as_str(), m.higher_is_better)))
    }
}

/// `table.md`, which is also what `run` prints: a table a model.
pub fn markdown(frame: &Frame) -> String {
    if frame.records.is_empty() {
        return "No cell has finished yet.\n".to_owned();
    }
    let mut out = String::new();
    let mut starred = false;
    for group in &frame.groups {
        let grid = Grid::new(frame, group, false);
        starred |= grid.cells.iter().flatten().any(|c| c.differs);
        let about = about_model(&frame.records[group.recipes[0].record]);
        let colon = if about.is_empty() { "" } else { ": " };
        out.push_str(&format!("## {}{colon}{about}\n\n", one_line(&group.title)));
        for table in tables(frame, group, &grid) {
            out.push_str(&table);
            out.push('\n');
        }
        for (i, note) in grid.notes.iter().enumerate() {
            out.push_str(&format!("{}. {note}\n", i + 1));
        }
        if !grid.notes.is_empty() {
            out.push('\n');
        }
        for line in metrics_used(frame, group, &grid) {
            out.push_str(&format!("- {line}\n"));
        }
        out.push('\n');
    }
    out.push_str("value ± one standard error, then the change from full precision");
    out.push_str(if starred {
        "\n* differs from full precision: paired test, p < 0.05 after Holm's correction over the table\n"
    } else {
        "\n"
    });
    out
}

/// Family, size and storage of a model, in a few words; empty where it was never loaded.
pub fn about_model(record: &Record) -> String {
    let m = &record.model;
    let params = match m.params {
        0 => String::new(),
        p if p < 1_000_000 => format!("{:.0}k parameters", p as f64 / 1e3),
        p if p < 1_000_000_000 => format!("{} parameters", unit(p as f64 / 1e6, "M")),
        p => format!("{} parameters", unit(p as f64 / 1e9, "B")),
    };
    [one_line(&m.family), params, one_line(&m.stored)]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

fn unit(x: f64, unit: &str) -> String {
    if x < 9.95 { format!("{x:.1}{unit}") } else { format!("{x:.0}{unit}") }
}

/// Under the table: which metric stands in which column, which way it runs, over how many items.
fn metrics_used(frame: &Frame, group: &Group, grid: &Grid) -> Vec<String> {
    let mut by_metric: Vec<(String, Vec<String>)> = Vec::new();
    for column in 0..grid.columns.len() {
        let (task, Some((metric, higher))) = grid.head(frame, group, column) else { continue };
        let better = if higher { "↑ higher is better" } else { "↓ lower is better" };
        let what = format!("{} ({better})", one_line(metric));
        let n = grid.cells.iter().find_map(|line| line[column].row?.n);
        let task = one_line(task) + &n.map_or_else(String::new, |n| format!(" (n = {n})"));
        match by_metric.iter_mut().find(|(w, _)| *w == what) {
            Some((_, tasks)) => tasks.push(task),
            None => by_metric.push((what, vec![task])),
        }
    }
    by_metric.into_iter().map(|(what, tasks)| format!("{what}: {}", tasks.join(", "))).collect()
}

/// A grid as Markdown tables, none wider than [`WIDTH`] where a split by tasks can help.
fn tables(frame: &Frame, group: &Group, grid: &Grid) -> Vec<String> {
    let columns: Vec<Vec<String>> = (0..grid.columns.len())
        .map(|c| {
            let (task, metric) = grid.head(frame, group, c);
            let arrow = metric.map_or("", |(_, higher)| if higher { " ↑" } else { " ↓" });
            let mut column = texts(&grid.cells.iter().map(|line| &line[c]).collect::<Vec<_>>());
            column.insert(0, one_line(task) + arrow);
            column
        })
        .collect();
    let mut names: Vec<String> = group.recipes.iter().map(|l| one_line(&l.label)).collect();
    names.insert(0, "recipe".to_owned());
    let width = |column: &[String]| column.iter().map(|s| s.chars().count()).max().unwrap_or(0) + 3;
    let room = WIDTH.saturating_sub(width(&names) + 1);
    // Greedy first, to know how many tables; then as evenly as that many allow.
    let count = pieces(&columns, room, usize::MAX, width).len();
    let even = columns.len().div_ceil(count.max(1)).max(1);
    pieces(&columns, room, even, width)
        .into_iter()
        .map(|piece| {
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN);
            let line = |i: usize| -> Vec<String> {
                std::iter::once(&names).chain(piece).map(|column| column[i].replace('|', "\\|")).collect()
            };
            table.set_header(line(0));
            for i in 1..names.len() {
                table.add_row(line(i));
            }
            for column in table.column_iter_mut().skip(1) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            table.trim_fmt() + "\n"
        })
        .collect()
}

/// Runs of columns that fit into `room` characters, `most` columns each at most.
fn pieces(
    columns: &[Vec<String>],
    room: usize,
    most: usize,
    width: impl Fn(&[String]) -> usize,
) -> Vec<&[Vec<String>]> {
    let (mut out, mut from, mut used) = (Vec::new(), 0, 0);
    for (i, column) in columns.iter().enumerate() {
        if i > from && (used + width(column) > room || i - from == most) {
            out.push(&columns[from..i]);
            (from, used) = (i, 0);
        }
        used += width(column);
    }
    if from < columns.len() {
        out.push(&columns[from..]);
    }
    out
}

/// A column's cells, values and changes each in their own place.
fn texts(cells: &[&Cell]) -> Vec<String> {
    let parts: Vec<(String, String, &str)> = cells
        .iter()
        .map(|cell| {
            if let Some((status, note)) = cell.note {
                return (format!("{status} [{note}]"), String::new(), "");
            }
            let Some((row, value)) = cell.row.and_then(|r| Some((r, r.value?))) else {
                return ("-".to_owned(), String::new(), "");
            };
            let (value, error) = fitted(value, row.stderr);
            (value + &error, change(row).unwrap_or_default(), if cell.differs { "*" } else { "" })
        })
        .collect();
    let widest = |of: fn(&(String, String, &str)) -> usize| parts.iter().map(of).max().unwrap_or(0);
    let (changes, stars) = (widest(|p| p.1.chars().count()), widest(|p| p.2.len()));
    parts
        .iter()
        .map(|(value, change, star)| match changes {
            0 => value.clone(),
            // A no-break space: padding at the end would be trimmed, and the column lose its line.
            _ => format!("{value} {change:>changes$}{star:\u{a0}<stars$}"),
        })
        .collect()
}

/// The change from full precision, as people write it: `-8%`, `+0.3%`, `x12`. `None` for the full row itself.
pub fn change(row: &Row) -> Option<String> {
    let percent = (row.relative.filter(|_| !row.is_full && row.full.is_some_and(|f| f > 0.))? - 1.) * 100.;
    Some(match percent.abs() {
        p if p < 0.05 => "0.0%".to_owned(),
        p if p < 9.95 => format!("{percent:+.1}%"),
        p if p < 999.5 => format!("{percent:+.0}%"),
        _ if percent > 1e5 => format!("x{:.0e}", percent / 100. + 1.),
        _ => format!("x{:.0}", percent / 100. + 1.),
    })
}

/// A value with as many digits as its standard error lets stand, and that error to one digit: `("0.91", "±.01")`.
pub fn fitted(value: f64, stderr: Option<f64>) -> (String, String) {
    let Some(error) = stderr.filter(|e| *e > 0.) else {
        return (digits(value, 4), String::new());
    };
    // Rounding first: 0.097 is 0.1 to one digit.
    let rounded = format!("{error:.0e}");
    let exponent: i32 = rounded.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let size = value.abs().max(error).log10().floor() as i32;
    if !(-3..6).contains(&size) {
        let places = (size - exponent).clamp(0, 15) as usize;
        return (format!("{value:.places$e}"), format!("±{rounded}"));
    }
    let places = (-exponent).clamp(0, 12) as usize;
    let error = format!("{error:.places$}");
    (
        format!("{value:.places$}"),
        format!("±{}", error.strip_prefix('0').filter(|e| !e.is_empty()).unwrap_or(&error)),
    )
}

/// A number to so many significant digits.
pub fn digits(x: f64, significant: i32) -> String {
    if x == 0. {
        return "0".to_owned();
    }
    let size = x.abs().log10().floor() as i32;
    if (-4..6).contains(&size) {
        let places = (significant - 1 - size).max(0) as usize;
        format!("{x:.places$}")
    } else {
        format!("{x:.*e}", (significant - 1).max(0) as usize)
    }
}

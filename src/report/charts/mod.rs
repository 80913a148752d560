//! Charts: each answers one question from records, one picture a model, or one over all of them.
//!
//! One is a file here and its two lines below.
pub mod across;
mod acts;
pub mod agreement;
mod drift;
pub mod heat;
pub mod inside;
mod kv;
pub mod pareto;
pub mod radar;
pub mod scaling;
mod size;
pub mod storage;
mod weights;

use super::{
    frame::{Frame, Group, one_line, slug},
    plot::{Axis, Figure, Panel, Point, Series},
    table::status,
};
use crate::results::RecipeInfo;
use anyhow::Result;

/// In the order in which the page shows them. Their names begin file names, so none may begin another's.
pub static CHARTS: &[&dyn Chart] = &[
    &heat::Field,
    &across::Spread,
    &scaling::Scaling,
    &pareto::Pareto,
    &storage::Storage,
    &across::Ranks,
    &weights::Weights,
    &size::Size,
    &acts::Acts,
    &kv::Kv,
    &size::Cache,
    &radar::Star,
    &drift::Drift,
    &agreement::Agreement,
    &inside::Confidence,
    &inside::Losses,
    &inside::Positions,
    &inside::Margins,
    &across::Curves,
];

/// A question that pictures answer. Pure: the same records give the same bytes.
pub trait Chart: Sync {
    /// Begins the names of its files.
    fn name(&self) -> &'static str;
    /// The question, in a sentence.
    fn about(&self) -> &'static str;
    /// A picture a group that has an answer; none where these records hold nothing to show.
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>>;
}

/// A chart, drawn.
pub struct Picture {
    /// The stem of its two files.
    pub name: String,
    /// The question it answers.
    pub title: String,
    /// SVG, 900 pixels wide.
    pub svg: String,
    /// PNG, 1800 pixels wide.
    pub png: Vec<u8>,
}

/// What a recipe quantizes. Below 16 bits counts: fp16 and bf16 are how models are stored, not what a sweep asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Weights only.
    Weights,
    /// The KV cache only.
    Kv,
    /// Activations, or several kinds together.
    Joint,
}

/// What a recipe quantizes; `None` where it is nothing.
pub fn swept(recipe: &RecipeInfo) -> Option<Swept> {
    let low = |bits: f64| bits > 0. && bits < 16.;
    match (low(recipe.weight_bits), low(recipe.act_bits), low(recipe.kv_bits)) {
        (false, false, false) => None,
        (true, false, false) => Some(Swept::Weights),
        (false, false, true) => Some(Swept::Kv),
        _ => Some(Swept::Joint),
    }
}

/// A recipe's category on the horizontal axis.
fn tick(recipe: &RecipeInfo, kind: Swept) -> String {
    match kind {
        Swept::Weights => recipe.weight_bits.to_string(),
        Swept::Kv => recipe.kv_bits.to_string(),
        Swept::Joint => [("W", recipe.weight_bits), ("A", recipe.act_bits), ("KV", recipe.kv_bits)]
            .into_iter()
            // W16A8 says more than A8.
            .filter(|(name, bits)| *name != "KV" || *bits < 16.)
            .map(|(name, bits)| format!("{name}{bits}"))
            .collect(),
    }
}

/// A recipe's name without its bit widths: what stays the same along a line. Empty for the plain notation, `w4a8`.
fn stem(recipe: &RecipeInfo) -> String {
    let mut out = String::new();
    let mut rest = recipe.name.as_str();
    while let Some(c) = rest.chars().next() {
        let found = [("kv", recipe.kv_bits), ("w", recipe.weight_bits), ("a", recipe.act_bits)]
            .into_iter()
            .find_map(|(letter, bits)| {
                // `w4` inside `gptq-w4g128`, not the `a1` of `llama1`.
                let begins = !out.ends_with(|c: char| c.is_ascii_alphabetic());
                let after = rest.strip_prefix(letter)?.strip_prefix(&bits.to_string())?;
                let ends = !after.starts_with(|c: char| c.is_ascii_digit());
                (begins && ends).then_some(after)
            });
        match found {
            Some(after) => rest = after,
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    one_line(out.trim_matches(['-', '+', '_', ' ']))
}

/// A recipe's categories in a group, from most bits to fewest, and the recipes that fall into them.
struct Sweep {
    ticks: Vec<String>,
    /// Stem, then (recipe, tick) in the ticks' order.
    lines: Vec<(String, Vec<(usize, usize)>)>,
}

fn sweep(frame: &Frame, group: &Group, kind: Swept) -> Option<Sweep> {
    let recipe = |i: usize| &frame.records[group.recipes[i].record].recipe;
    let mut found: Vec<usize> =
        (0..group.recipes.len()).filter(|&i| swept(recipe(i)) == Some(kind)).collect();
    let bits = |i: usize| [recipe(i).weight_bits, recipe(i).act_bits, recipe(i).kv_bits];
    found.sort_by(|&i, &j| {
        let (a, b) = (bits(i), bits(j));
        b[0].total_cmp(&a[0]).then(b[1].total_cmp(&a[1])).then(b[2].total_cmp(&a[2]))
    });
    let mut ticks: Vec<String> = Vec::new();
    let mut lines: Vec<(String, Vec<(usize, usize)>)> = Vec::new();
    for i in found {
        let tick = tick(recipe(i), kind);
        if ticks.last() != Some(&tick) {
            ticks.push(tick);
        }
        let (stem, place) = (stem(recipe(i)), (i, ticks.len() - 1));
        match lines.iter_mut().find(|(s, _)| *s == stem) {
            Some((_, line)) => line.push(place),
            None => lines.push((stem, vec![place])),
        }
    }
    // The plain notation first, others as the study names them.
    lines.sort_by_key(|(stem, line)| (!stem.is_empty(), line.iter().map(|p| p.0).min()));
    (!ticks.is_empty()).then_some(Sweep { ticks, lines })
}

/// A note where a picture shows not all there is.
fn not_all(shown: usize, all: usize, what: &str) -> Option<String> {
    (shown < all).then(|| format!("Drawn are {shown} of {all} {what}; all are in the tables."))
}

/// What a line of a stem is called where there are several.
fn plain_or(stem: &str) -> String {
    if stem.is_empty() { "plain".to_owned() } else { stem.to_owned() }
}

/// Tasks in a picture, at most: more lines or axes than this nobody reads. Further ones go into further pictures.
const TASKS: usize = 12;

/// One task's lines in a chart relative to full precision.
struct TaskLines {
    label: String,
    /// The metric's name, where lower is better and `full / value` is drawn.
    inverted: Option<String>,
    /// What a guess keeps of full precision, in percent.
    chance: Option<f64>,
    failed: bool,
    /// A line a stem.
    series: Vec<Series>,
}

/// One chart a group: each task's first metric against `kind`'s bits, relative to full precision.
fn relative(
    frame: &Frame,
    name: &str,
    kind: Swept,
    title: impl Fn(&str) -> String,
    x_label: &str,
) -> Result<Vec<Picture>> {
    let mut out = Vec::new();
    for group in &frame.groups {
        let Some(sweep) = sweep(frame, group, kind) else { continue };
        out.extend(draw(frame, Tasks { group, name, sweep: &sweep, x_label }, &title, &|_| {})?);
    }
    Ok(out)
}

/// What a picture is of.
struct Tasks<'a> {
    group: &'a Group,
    name: &'a str,
    sweep: &'a Sweep,
    x_label: &'a str,
}

/// Each task of a group relative to full precision, in as many pictures as they need; `finish` has the last word on panels.
fn draw(
    frame: &Frame,
    Tasks { group, name, sweep, x_label }: Tasks,
    title: &impl Fn(&str) -> String,
    finish: &dyn Fn(&mut Panel),
) -> Result<Vec<Picture>> {
    let mut out = Vec::new();
    let mut tasks: Vec<TaskLines> =
        (0..group.tasks.len()).filter_map(|task| task_lines(frame, group, sweep, task)).collect();
    let parts = tasks.len().div_ceil(TASKS);
    for part in 1..=parts {
        let rest = tasks.split_off(tasks.len().min(TASKS));
        let mut notes = "Bars: ± 1 standard error, clustered by item, paired with full precision.".to_owned();
        if tasks.iter().any(|t| t.chance.is_some()) {
            notes.push_str(" Dotted: chance.");
        }
        if tasks.iter().any(|t| t.failed) {
            notes.push_str(" Crosses: the cell failed.");
        }
        let mut inverted: Vec<&str> = tasks.iter().filter_map(|t| t.inverted.as_deref()).collect();
        inverted.sort_unstable();
        inverted.dedup();
        let y_label = match inverted.is_empty() {
            true => "% of full precision".to_owned(),
            false => format!("% of full precision ({}: full / value)", inverted.join(", ")),
        };
        let mut title = title(&short(&group.title));
        // Slugs have no two dashes in a row, so no other group's picture can have this name.
        let mut file = format!("{name}-{}", group.slug);
        if parts > 1 {
            title.push_str(&format!(" ({part} of {parts})"));
            file.push_str(&format!("--{part}"));
        }
        let mut panels = panels(tasks, sweep, x_label);
        panels.iter_mut().for_each(finish);
        out.push(Figure { title, notes: vec![notes], y_label, axis: Axis::Percent, panels }.render(file)?);
        tasks = rest;
    }
    Ok(out)
}

/// `None`: nothing of this task can be drawn relative to full precision.
fn task_lines(frame: &Frame, group: &Group, sweep: &Sweep, task: usize) -> Option<TaskLines> {
    let info = &frame.records[group.tasks[task].record].task;
    let first = group.first_metric(frame, task);
    let metric = info.metrics.get(first)?;
    let (mut chance, mut failed, mut series) = (None, false, Vec::new());
    for (stem, recipes) in &sweep.lines {
        let mut points = vec![(0, Point::Start(100.))];
        let mut any = false;
        for &(recipe, tick) in recipes {
            let Some(record) = group.cell(recipe, task) else { continue };
            let Some(row) = frame.rows_of(record).get(first) else { continue };
            if let Some(kept) = frame.kept(row) {
                any = true;
                points.push((tick + 1, Point::At(100. * kept.share, kept.stderr.map(|s| 100. * s))));
                chance = info.chance.zip(row.full).map(|(c, full)| 100. * c / full);
            } else if status(&frame.records[record]) == "failed" {
                points.push((tick + 1, Point::Failed));
                failed = true;
            }
        }
        if any {
            series.push(Series { label: plain_or(stem), look: 0, points });
        }
    }
    let name = one_line(&metric.name);
    (!series.is_empty()).then(|| TaskLines {
        label: format!("{} ({name})", one_line(&group.tasks[task].label)),
        inverted: (!metric.higher_is_better).then_some(name),
        chance: chance.filter(|_| metric.higher_is_better && first == 0),
        failed,
        series,
    })
}

/// Axes a task with a line a stem; where there is one stem only, one axes with a line a task.
fn panels(tasks: Vec<TaskLines>, sweep: &Sweep, x_label: &str) -> Vec<Panel> {
    let mut ticks = sweep.ticks.clone();
    ticks.insert(0, "full".to_owned());
    let panel = |title: String, levels: Vec<(f64, Option<usize>)>, series: Vec<Series>| Panel {
        title,
        x_label: x_label.to_owned(),
        ticks: ticks.clone(),
        places: Vec::new(),
        levels,
        series,
    };
    if sweep.lines.len() == 1 {
        let levels = tasks.iter().enumerate().filter_map(|(look, t)| Some((t.chance?, Some(look)))).collect();
        let mut all = Vec::new();
        for (look, task) in tasks.into_iter().enumerate() {
            all.extend(task.series.into_iter().map(|s| Series { label: task.label.clone(), look, ..s }));
        }
        return vec![panel(String::new(), levels, all)];
    }
    let look = |label: &str| sweep.lines.iter().position(|(s, _)| plain_or(s) == label).unwrap_or(0);
    tasks
        .into_iter()
        .map(|task| {
            let levels = task.chance.map(|level| (level, None)).into_iter().collect();
            let series = task.series.into_iter().map(|s| Series { look: look(&s.label), ..s }).collect();
            panel(task.label, levels, series)
        })
        .collect()
}

/// A model's name as a title can take it: of a long path, its end.
fn short(title: &str) -> String {
    let title = one_line(title);
    let count = title.chars().count();
    if count <= 48 {
        return title;
    }
    let end: String = title.chars().skip(count - 45).collect();
    format!("…{end}")
}

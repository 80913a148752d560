//! The study's table of rules, recomputed from its figures: what share of full precision each recipe keeps.
//!
//! ```text
//! kept = 100 x value / value at full precision      of one model on one task (or length, position, turn)
//! cell = mean of kept, share of cells that keep 98 % and more, how many     by ability, size and recipe
//! ```
//! Raw ratios, not corrected for chance. Left out: figures that the source has in a comment; cells of emergent abilities
//! whose full precision is at the floor of the study's plots, or within five points of it (a share of nothing); of a
//! task's several metrics all but one. Suspect figures are in, as they are in the study: [`super::claims`] says where
//! they decide.
use super::{Figure, Published, STUDY, Series};
use anyhow::{Result, anyhow};
use std::{collections::BTreeMap, fmt};

/// Abilities, in the order of the table.
pub const ABILITIES: [&str; 13] = [
    "basic",
    "emergent IF",
    "emergent ICL",
    "emergent multi-step",
    "emergent self-calib",
    "advglue",
    "ethics",
    "truthfulqa",
    "dialogue t1",
    "dialogue t2",
    "longeval<=6k",
    "longeval>=9k",
    "litm",
];

/// Recipes, in the order of the table.
pub const RECIPES: [&str; 19] = [
    "w8", "w4", "w3", "w2", "w8a8", "w4a8", "w4a4", "kv8", "kv4", "kv3", "kv2", "w8kv8", "w4kv8", "w8kv4",
    "w4kv4", "awq-w8", "awq-w4", "awq-w3", "awq-w2",
];

/// Of parameters, 10^9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// All of them.
    All,
    /// Below 3.
    Small,
    /// 3 to 8.
    Middle,
    /// 13 to 47.
    Large,
    /// 66 and more.
    Huge,
}

impl Size {
    /// In the order of the table.
    pub const ALL: [Size; 5] = [Size::All, Size::Small, Size::Middle, Size::Large, Size::Huge];

    /// Of a model.
    pub fn of(billions: f64) -> Self {
        match billions {
            b if b < 3. => Size::Small,
            b if b < 10. => Size::Middle,
            b if b < 50. => Size::Large,
            _ => Size::Huge,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Size::All => "ALL",
            Size::Small => "<3B",
            Size::Middle => "3-8B",
            Size::Large => "13-47B",
            Size::Huge => ">=66B",
        })
    }
}

/// One model, task and recipe of the study, beside full precision.
#[derive(Clone, Debug)]
pub struct Kept {
    /// One of [`ABILITIES`].
    pub ability: &'static str,
    /// Of its model.
    pub size: Size,
    /// What is kept of what.
    pub figure: &'static Figure,
    /// At full precision, in the figure's unit.
    pub full: f64,
    /// Percent.
    pub kept: f64,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Mean of what is kept, percent.
    pub kept: f64,
    /// Percent of them that keep 98 % and more.
    pub near: f64,
    /// How many.
    pub n: usize,
}

/// The table: by ability, size and recipe.
pub type Table = BTreeMap<(&'static str, Size, &'static str), Cell>;

/// Which ability a series is of, and the floor of the study's plots in percent; nothing for a second metric of a task.
fn ability(s: &Series) -> Option<(&'static str, Option<f64>)> {
    Some(match (s.task, s.metric) {
        ("lambada", _) => ("basic", None),
        ("arc-c" | "arc-e" | "hellaswag", _) => ("emergent IF", Some(25.)),
        ("mmlu", "accuracy_weighted_average") | ("ceval", _) => ("emergent ICL", Some(25.)),
        ("gsm8k" | "strategyqa", _) => ("emergent multi-step", Some(0.)),
        ("mmlu-calib", "self_calibration_weighted_average") => ("emergent self-calib", Some(50.)),
        ("truthfulqa_mc", _) => ("truthfulqa", None),
        ("mt_bench", _) if s.get("turn") == Some("1") => ("dialogue t1", None),
        ("mt_bench", _) => ("dialogue t2", None),
        ("longeval_lines", _) if lines(s) <= 300. => ("longeval<=6k", None),
        ("longeval_lines", _) => ("longeval>=9k", None),
        ("litm_multidoc_qa", _) => ("litm", None),
        (task, "acc_after") if task.starts_with("adv_") => ("advglue", None),
        (task, _) if task.starts_with("ethics_") => ("ethics", None),
        _ => return None,
    })
}

/// Lines of LongEval's records.
pub(super) fn lines(s: &Series) -> f64 {
    s.get("lines").and_then(|l| l.parse().ok()).unwrap_or(0.)
}

/// Points above the floor of the plots within which a score says nothing.
const NEAR_FLOOR: f64 = 5.;

/// What two figures must share to be compared; the sweep apart.
fn question(s: &Series) -> (&str, &str, &str, Option<&str>) {
    (s.model, s.task, s.metric, s.part.as_deref())
}

/// Every cell of the study beside full precision: that of its own sweep's file, or of another where that has none.
pub fn kept(published: &'static Published) -> Vec<Kept> {
    let mine = || {
        let study =
            published.figures.iter().filter(|f| f.series.source == STUDY && !f.series.commented_out());
        study.filter_map(|f| Some((f, ability(&f.series)?)))
    };
    let mut fulls: BTreeMap<_, Vec<&Figure>> = BTreeMap::new();
    for (figure, _) in mine().filter(|(f, _)| f.recipe.is_full()) {
        fulls.entry(question(&figure.series)).or_default().push(figure);
    }
    let quantized = mine().filter(|(f, _)| !f.recipe.is_full());
    quantized
        .filter_map(|(figure, (ability, floor))| {
            let s = &figure.series;
            let all = fulls.get(&question(s))?;
            let full = all.iter().find(|f| f.series.sweep == s.sweep).or(all.first())?.value;
            let says = full > 0. && floor.is_none_or(|floor| full > floor + NEAR_FLOOR);
            let size = Size::of(s.params?);
            says.then(|| Kept { ability, size, figure, full, kept: 100. * figure.value / full })
        })
        .collect()
}

/// A cell of some of what is kept. `None`: of nothing.
pub fn cell<'a>(of: impl Iterator<Item = &'a Kept>) -> Option<Cell> {
    let shares: Vec<f64> = of.map(|k| k.kept).collect();
    let n = shares.len();
    (n > 0).then(|| Cell {
        kept: shares.iter().sum::<f64>() / n as f64,
        near: 100. * shares.iter().filter(|&&s| s >= 98.).count() as f64 / n as f64,
        n,
    })
}

/// `rules.csv`: a row a cell.
///
/// # Errors
/// None that a text in memory can have.
pub fn csv(table: &Table) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["ability", "size", "recipe", "kept_percent", "keep_98_percent", "n"])?;
    for ability in ABILITIES {
        for size in Size::ALL {
            for recipe in RECIPES {
                if let Some(cell) = table.get(&(ability, size, recipe)) {
                    let (kept, near) = (format!("{:.1}", cell.kept), format!("{:.1}", cell.near));
                    writer.write_record([
                        ability,
                        &size.to_string(),
                        recipe,
                        &kept,
                        &near,
                        &cell.n.to_string(),
                    ])?;
                }
            }
        }
    }
    let bytes = writer.into_inner().map_err(|e| anyhow!("rules.csv: {e}"))?;
    Ok(String::from_utf8(bytes)?)
}

/// The whole table.
pub fn table(kept: &[Kept]) -> Table {
    let mut table = Table::new();
    for ability in ABILITIES {
        for size in Size::ALL {
            for recipe in RECIPES {
                let of = kept.iter().filter(|k| {
                    k.ability == ability
                        && (size == Size::All || k.size == size)
                        && k.figure.recipe.name == recipe
                });
                if let Some(cell) = cell(of) {
                    table.insert((ability, size, recipe), cell);
                }
            }
        }
    }
    table
}

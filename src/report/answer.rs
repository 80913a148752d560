//! The answer first: with how few bits does each ability stay within two percent of full precision?
//!
//! For each kind of tensor (weights; activations with them; the KV cache) and each group of abilities: of the recipes that were
//! tried, the one with the fewest bits whose tasks keep 98 % on average. That is how "Evaluating Quantized Large Language Models"
//! words its recommendations.
use super::{
    charts::{Swept, swept},
    frame::{Frame, Group},
};
use std::collections::BTreeMap;

/// The part of full precision that must be left.
pub const KEEP: f64 = 0.98;
/// Standard errors within which the line may lie without being told from a value.
const NEAR: f64 = 1.96;

/// Kinds of tensors, in the order they are shown.
pub const KINDS: [(Kind, &str); 3] =
    [(Kind::Weights, "weights"), (Kind::Joint, "with activations"), (Kind::Cache, "KV cache")];

/// What a recipe quantizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Weights alone.
    Weights,
    /// Activations, mostly with weights; or several kinds together.
    Joint,
    /// Keys and values alone.
    Cache,
}

/// What a recipe leaves of an ability.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// The recipe's label.
    pub recipe: String,
    /// The mean over the ability's tasks of what is kept of full precision, each by the metric that stands for it.
    pub kept: f64,
    /// One standard error, tasks taken for independent; absent where one of them has none.
    pub stderr: Option<f64>,
    /// Tasks.
    pub tasks: usize,
}

impl Left {
    /// Whether [`KEEP`] lies so near that these items cannot tell.
    pub fn near(&self) -> bool {
        self.stderr.is_some_and(|se| (self.kept - KEEP).abs() < NEAR * se)
    }
}

/// One cell of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The fewest bits that keep enough.
    pub enough: Option<Left>,
    /// The most that was left where nothing kept enough.
    pub best: Left,
}

/// The answers of one model, by kind and ability.
pub type Answers = BTreeMap<(Kind, String), Answer>;

/// The abilities of a folder's tasks, in order of appearance. A task without one stands for itself.
pub fn abilities(frame: &Frame) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for record in &frame.records {
        let ability = ability(&record.task.ability, &record.task.name);
        if !all.contains(&ability) {
            all.push(ability);
        }
    }
    all
}

fn ability(ability: &str, task: &str) -> String {
    if ability.is_empty() { task.to_owned() } else { ability.to_owned() }
}

fn kind(swept: Swept) -> Kind {
    match swept {
        Swept::Weights => Kind::Weights,
        Swept::Joint => Kind::Joint,
        Swept::Kv => Kind::Cache,
    }
}

/// What a recipe of a group leaves of each ability: over the tasks that were finished and say something. A divergence has no
/// ratio, and a task on which full precision does not beat a guess by two standard errors has nothing to lose.
pub fn left(frame: &Frame, group: &Group, recipe: usize) -> BTreeMap<String, Left> {
    let mut kept: BTreeMap<String, Vec<(f64, Option<f64>)>> = BTreeMap::new();
    for (task, line) in group.tasks.iter().enumerate() {
        let info = &frame.records[line.record].task;
        let metric = group.first_metric(frame, task);
        let full = (0..group.recipes.len())
            .filter_map(|r| group.cell(r, task))
            .filter_map(|cell| frame.rows_of(cell).get(metric))
            .find(|row| row.is_full);
        let guesses = info.chance.filter(|_| metric == 0).zip(full).is_some_and(|(chance, full)| {
            full.value.is_some_and(|v| v <= chance + 2. * full.stderr.unwrap_or(0.))
        });
        let row = group.cell(recipe, task).and_then(|cell| frame.rows_of(cell).get(metric));
        let Some(k) = row.and_then(|row| frame.kept(row)).filter(|_| !guesses) else { continue };
        kept.entry(ability(&info.ability, &info.name)).or_default().push((k.share, k.stderr));
    }
    let label = &group.recipes[recipe].label;
    let of = |(ability, all): (String, Vec<(f64, Option<f64>)>)| {
        let n = all.len() as f64;
        let mean = all.iter().map(|k| k.0).sum::<f64>() / n;
        let squares: Option<f64> = all.iter().map(|k| k.1.map(|s| s * s)).sum();
        let stderr = squares.map(|s| s.sqrt() / n);
        (ability, Left { recipe: label.clone(), kept: mean, stderr, tasks: all.len() })
    };
    kept.into_iter().map(of).collect()
}

/// A model's answers. What was not tried has none.
pub fn answers(frame: &Frame, group: &Group) -> Answers {
    // From the most bits to the fewest; among equals, as the study has them.
    let mut order: Vec<(Kind, f64, usize)> = (0..group.recipes.len())
        .filter_map(|r| {
            let recipe = &frame.records[group.recipes[r].record].recipe;
            let low = |bits: f64| if bits > 0. && bits < 16. { bits } else { 16. };
            let weights = if recipe.bits_per_weight > 0. && recipe.weight_bits < 16. {
                recipe.bits_per_weight
            } else {
                low(recipe.weight_bits)
            };
            Some((kind(swept(recipe)?), weights + low(recipe.act_bits) + low(recipe.kv_bits), r))
        })
        .collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.2.cmp(&b.2)));
    let mut all = Answers::new();
    for (kind, _, recipe) in order {
        for (ability, left) in left(frame, group, recipe) {
            let enough = (left.kept >= KEEP).then(|| left.clone());
            all.entry((kind, ability))
                .and_modify(|answer| {
                    if left.kept > answer.best.kept {
                        answer.best = left.clone();
                    }
                    if enough.is_some() {
                        answer.enough.clone_from(&enough);
                    }
                })
                .or_insert(Answer { enough, best: left });
        }
    }
    all
}

/// How many of the models that tried a recipe keep enough of each ability under it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Count {
    /// Models that keep [`KEEP`].
    pub keep: usize,
    /// Models that tried.
    pub of: usize,
    /// The mean of what is kept over those models.
    pub mean: f64,
    /// Sum of squared distances from it.
    squares: f64,
}

impl Count {
    /// Adds a model's; the mean and the squares as Welford (1962) has them.
    fn add(&mut self, kept: f64) {
        self.of += 1;
        let away = kept - self.mean;
        self.mean += away / self.of as f64;
        self.squares += away * (kept - self.mean);
        self.keep += usize::from(kept >= KEEP);
    }

    /// Standard error of the mean, models taken for a sample.
    pub fn stderr(&self) -> Option<f64> {
        let n = self.of as f64;
        (self.of > 1).then(|| (self.squares / (n - 1.) / n).sqrt())
    }
}

/// By recipe's label in order of appearance, then by ability.
pub fn counts(frame: &Frame) -> Vec<(String, BTreeMap<String, Count>)> {
    let mut all: Vec<(String, BTreeMap<String, Count>)> = Vec::new();
    for group in &frame.groups {
        for (r, line) in group.recipes.iter().enumerate() {
            if swept(&frame.records[line.record].recipe).is_none() {
                continue;
            }
            let at = all.iter().position(|(label, _)| *label == line.label).unwrap_or_else(|| {
                all.push((line.label.clone(), BTreeMap::new()));
                all.len() - 1
            });
            for (ability, left) in left(frame, group, r) {
                all[at].1.entry(ability).or_default().add(left.kept);
            }
        }
    }
    all.retain(|(_, of)| !of.is_empty());
    all
}

//! What a study would do: every cell, what it hashes to, and how much memory and work it takes.
use super::{NUMERICS, calibrate, calibrate::Text, config::Study, engine::Words};
use crate::{
    hub::{Hub, OnProgress},
    mistake,
    mistake::Blame,
    model::load::{self, Opened},
    quant::recipe::Recipe,
    results::{MetricInfo, SCHEMA, TaskInfo},
    suite::{data, data::Items, find::Found, task::Weigh},
};
use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use wildmatch::WildMatch;

/// One model x recipe x task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Hash of all that can change the number.
    pub id: String,
    /// Index into the study's models.
    pub model: usize,
    /// Into its recipes.
    pub recipe: usize,
    /// Into its tasks.
    pub task: usize,
    /// Picked by `--only` and `--shard`.
    pub picked: bool,
}

/// A study whose models are open, whose data is read, and whose cells are known.
pub struct Plan {
    /// In the study's order.
    pub models: Vec<Opened>,
    /// A task's items.
    pub items: Vec<Items>,
    /// What calibrated recipes look at, by name.
    pub texts: BTreeMap<String, Text>,
    /// By model, then recipe, then task.
    pub cells: Vec<Cell>,
}

impl Plan {
    /// What a calibrated recipe looks at, in a model's tokens; nothing for others.
    pub fn sequences(&self, opened: &Opened, recipe: &Recipe) -> Result<Vec<Vec<u32>>> {
        let text = recipe.calibrate.data.as_ref().filter(|_| !recipe.streams().is_empty());
        match text.and_then(|word| self.texts.get(word)) {
            Some(text) => calibrate::sequences(Words::of(opened), &recipe.calibrate, text)
                .with_context(|| format!("recipe `{}`", recipe.name)),
            None => Ok(Vec::new()),
        }
    }
}

/// Which cells, and on what.
#[derive(Clone, Debug, Default)]
pub struct Pick {
    /// `MODEL/RECIPE/TASK` with `*`.
    pub only: Option<String>,
    /// `(I, N)`, I from 1.
    pub shard: Option<(usize, usize)>,
}

impl Pick {
    /// `I/N`.
    pub fn shard(text: &str) -> Result<(usize, usize)> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((i, n)) if (1..=n).contains(&i) => Ok((i, n)),
            _ => mistake!("--shard `{text}`: it is I/N, with I from 1 to N"),
        }
    }
}

/// Opens and reads everything that a study names, so that mistakes show before hours of work.
pub fn plan(
    study: &Study,
    pick: &Pick,
    device: &str,
    progress: &dyn Fn() -> Option<OnProgress>,
) -> Result<Plan> {
    let mut items = Vec::new();
    for task in &study.tasks {
        let instead = study.instead(task)?;
        let hub = || Ok(Hub::from_env()?.on_progress(progress()));
        items.push(data::load(&task.label, &task.task, &task.place, &instead, &hub)?);
    }
    let mut texts = BTreeMap::new();
    for recipe in study.recipes.iter().filter(|r| !r.streams().is_empty()) {
        let Some(word) = recipe.calibrate.data.as_ref().filter(|w| !texts.contains_key(*w)) else { continue };
        let task = calibrate::find(word, &study.folder).blame(format!("recipe `{}`", recipe.name))?;
        let instead = study.instead(&task)?;
        let hub = || Ok(Hub::from_env()?.on_progress(progress()));
        let items = data::load(&task.label, &task.task, &task.place, &instead, &hub)?;
        texts.insert(word.clone(), Text { task, items });
    }
    let models: Vec<Opened> =
        study.models.iter().map(|m| load::open(m, &study.folder, progress())).collect::<Result<_>>()?;
    let glob = pick.only.as_deref().map(WildMatch::new);
    let mut cells = Vec::new();
    for (model, opened) in models.iter().enumerate() {
        for (recipe, r) in study.recipes.iter().enumerate() {
            for (task, t) in study.tasks.iter().enumerate() {
                let path = format!("{}/{}/{}", opened.name, r.name, t.full_name());
                let mut picked = glob.as_ref().is_none_or(|g| g.matches(&path));
                if let Some((i, n)) = pick.shard {
                    // By recipe, so that a quantized model is made in one shard only.
                    picked &= (model * study.recipes.len() + recipe) % n == i - 1;
                }
                let id = identity(study, opened, r, &texts, (t, &items[task]), device)?;
                cells.push(Cell { id, model, recipe, task, picked });
            }
        }
    }
    if let Some(only) = pick.only.as_deref().filter(|_| !cells.iter().any(|c| c.picked)) {
        let first = format!("{}/{}/{}", models[0].name, study.recipes[0].name, study.tasks[0].full_name());
        mistake!("--only `{only}` picks no cell; cells look like `{first}`");
    }
    Ok(Plan { models, items, texts, cells })
}

/// sha256 of all that can change the number, 16 hex digits. Names are not part of it, but for the model's and the
/// recipe's own, by which records are found.
fn identity(
    study: &Study,
    model: &Opened,
    recipe: &Recipe,
    texts: &BTreeMap<String, Text>,
    (task, items): (&Found, &Items),
    device: &str,
) -> Result<String> {
    let mut all = json!({
        "schema": SCHEMA, "numerics": NUMERICS, "device": device,
        "model": [model.name, model.revision], "recipe": [recipe.name, recipe.describe()],
        "task": [task.full_name(), task.task.version, task.task.ask, task.task.clean, task.task.metrics,
                 task.task.ability, task.task.chance],
        "data": items.hash, "limit": study.limit, "seed": study.seed,
    });
    if let Some(text) = recipe.calibrate.data.as_ref().and_then(|word| texts.get(word)) {
        all["calibration"] = json!([text.items.hash, text.task.task.ask, text.task.task.clean]);
    }
    if let Some(more) = task.task.more() {
        all["more"] = more;
    }
    if !items.kinds.is_empty() {
        all["kinds"] = json!(items.kinds);
    }
    // The order of keys is no part of it.
    all.sort_all_objects();
    Ok(format!("{:x}", Sha256::digest(all.to_string().as_bytes()))[..16].to_string())
}

/// A task as records keep it.
pub fn task_info(task: &Found, items: &Items) -> TaskInfo {
    let of = |name: &String| Some((name.clone(), crate::eval::metrics::metric(name)?));
    let metrics = task.task.metrics.iter().filter_map(of);
    TaskInfo {
        suite: task.suite.clone(),
        name: task.name.clone(),
        version: task.task.version,
        ability: task.task.ability.clone(),
        chance: task.task.chance,
        protocol: match task.task.weigh {
            Weigh::Items => task.task.protocol(),
            Weigh::Parts => format!("{}; each part counts the same", task.task.protocol()),
        },
        parts_alike: task.task.weigh == Weigh::Parts,
        profile: task.task.ask.profile().map(|p| p.name().into()),
        data: items.hash.clone(),
        metrics: metrics
            .map(|(name, m)| MetricInfo { name, higher_is_better: m.higher_is_better, scale: m.scale })
            .collect(),
    }
}

//! What records are compared with: another results folder, or one file that can be kept beside the code.
//!
//! A baseline's file is a `records.jsonl` whose lines have their items' shares with them, so that items can be paired years
//! later without the folder that they came from. Answers and log-likelihoods stay behind: a gate needs none.
use crate::{
    results::{Item, Items, Record, Status, Store, store},
    stats::Share,
};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Records of an earlier run, and where their items are.
pub struct Baseline {
    /// As errors name it.
    pub label: String,
    /// In the file's order, the newest of each cell.
    pub records: Vec<Record>,
    folder: PathBuf,
    within: BTreeMap<String, Kept>,
}

/// Items of a cell by column: hashes and shares, nothing else.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    item: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    part: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cluster: Vec<String>,
    shares: BTreeMap<String, Vec<Share>>,
}

/// A line of a baseline's file.
#[derive(Serialize, Deserialize)]
struct Line<R> {
    #[serde(flatten)]
    record: R,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    items: Option<Kept>,
}

impl Baseline {
    /// A `records.jsonl` or its folder, with `items/` beside it or without; or what [`Baseline::write`] wrote.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("records.jsonl") } else { path.to_path_buf() };
        let records = store::read_records(&file)?;
        ensure!(!records.is_empty(), "baseline `{}` holds no records", file.display());
        let text = fs::read_to_string(&file).with_context(|| format!("reading `{}`", file.display()))?;
        let mut within = BTreeMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            #[derive(Deserialize)]
            struct Cell {
                cell: String,
            }
            // A last line that somebody is writing right now was left out above.
            let Ok(line) = serde_json::from_str::<Line<Cell>>(line) else {
                ensure!(
                    serde_json::from_str::<Record>(line).is_err(),
                    "`{}` line {}: its `items` are none",
                    file.display(),
                    i + 1
                );
                continue;
            };
            within.extend(line.items.map(|items| (line.record.cell, items)));
        }
        let folder = file.parent().unwrap_or(Path::new("")).join("items");
        Ok(Self { label: file.display().to_string(), records, folder, within })
    }

    /// A cell's items; those of its own file first.
    pub fn items(&self, cell: &str) -> Result<Option<Items>> {
        if let Some(kept) = self.within.get(cell) {
            return kept.items().map(|items| Some(Items::new(Some(items)))).with_context(|| {
                format!("`{}`: cell {cell}: its items' lists differ in length", self.label)
            });
        }
        Ok(store::read_items(&self.folder, cell)?.map(|items| Items::new(Some(items))))
    }

    /// Writes a folder's finished cells as a baseline, whole or not at all. How many.
    pub fn write(store: &Store, path: &Path) -> Result<usize> {
        let mut text = String::new();
        let mut count = 0;
        for record in store.records()? {
            let Status::Done { .. } = record.status else { continue };
            let items = store.items(&record.cell)?.map(Kept::of);
            text.push_str(&serde_json::to_string(&Line { record, items })?);
            text.push('\n');
            count += 1;
        }
        ensure!(
            count > 0,
            "`{}` holds no finished cell: there is nothing to hold others against",
            store.dir().display()
        );
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            fs::create_dir_all(folder).with_context(|| format!("making `{}`", folder.display()))?;
        }
        store::replace(path, text.as_bytes())?;
        Ok(count)
    }
}

impl Kept {
    fn of(items: Vec<Item>) -> Self {
        let mut kept = Kept::default();
        // A metric that some items have no share of cannot be paired.
        let metrics: Vec<String> =
            items.first().map(|i| i.shares.keys().cloned().collect()).unwrap_or_default();
        for metric in metrics {
            let shares: Option<Vec<Share>> = items.iter().map(|i| i.shares.get(&metric).copied()).collect();
            kept.shares.extend(shares.map(|s| (metric, s)));
        }
        kept.part = items.iter().map(|i| i.part.clone()).collect::<Option<_>>().unwrap_or_default();
        kept.cluster = items.iter().map(|i| i.cluster.clone()).collect::<Option<_>>().unwrap_or_default();
        kept.item = items.into_iter().map(|i| i.item).collect();
        kept
    }

    /// `None`: the lists differ in length.
    fn items(&self) -> Option<Vec<Item>> {
        let n = self.item.len();
        let fits = |len: usize| len == n || len == 0;
        if !fits(self.part.len()) || !fits(self.cluster.len()) || self.shares.values().any(|s| s.len() != n) {
            return None;
        }
        let one = |(i, item): (usize, &String)| Item {
            item: item.clone(),
            part: self.part.get(i).cloned(),
            cluster: self.cluster.get(i).cloned(),
            outcome: serde_json::Value::Null,
            shares: self.shares.iter().map(|(metric, shares)| (metric.clone(), shares[i])).collect(),
        };
        Some(self.item.iter().enumerate().map(one).collect())
    }
}

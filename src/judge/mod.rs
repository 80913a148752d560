//! What a judge thinks of a talk's answers: asked over HTTP, or elsewhere by way of two files.
//!
//! A judge costs money and fails; answers cost hours. So talks are recorded first, and judged afterwards from the records:
//! every judgement is on disk (`judgements.jsonl`) before the next is waited for, and one that is there is not asked again.
//! A whole folder judged, scores join the items and the records, where tables and paired tests find them.
pub mod endpoint;
pub mod prompts;

use crate::{
    mistake,
    mistake::{Blame, nearest},
    results::{Item, Record, Status, Store, Value, store::replace},
    stats,
};
use anyhow::{Context, Result};
use prompts::{Prompts, Talk};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

/// The metrics that judgements give.
pub const METRICS: [&str; 3] = ["judge", "judge_turn_1", "judge_turn_2"];
/// Where judgements are kept, beside the records.
const FILE: &str = "judgements.jsonl";

/// One answer to be judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// The cell that it is of.
    pub cell: String,
    /// The item, by its hash.
    pub item: String,
    /// From 1.
    pub turn: usize,
    /// What other files call the item.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What kind of question it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// Whose answer.
    pub model: String,
    /// At which bits.
    pub recipe: String,
    /// To which task.
    pub task: String,
    /// What the judge is told first.
    pub system: String,
    /// What it is asked.
    pub prompt: String,
    /// sha256 of all that is asked but the talks, so that what comes back is known to be of these prompts.
    pub prompts: String,
}

/// What came of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The cell that it is of.
    pub cell: String,
    /// The item, by its hash.
    pub item: String,
    /// From 1.
    pub turn: usize,
    /// Who judged.
    pub judge: String,
    /// sha256 of the prompts that it was asked with.
    pub prompts: String,
    /// `None`: its text holds none.
    pub score: Option<f64>,
    /// What it wrote.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

impl Judgement {
    fn of(&self) -> Key {
        (self.cell.clone(), self.item.clone(), self.turn)
    }
}

type Key = (String, String, usize);

/// A line of a file that was judged elsewhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    cell: String,
    item: String,
    turn: usize,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    prompts: Option<String>,
    // What was handed out with it may come back.
    #[serde(default, rename = "id")]
    _id: serde::de::IgnoredAny,
    #[serde(default, rename = "category")]
    _category: serde::de::IgnoredAny,
    #[serde(default, rename = "model")]
    _model: serde::de::IgnoredAny,
    #[serde(default, rename = "recipe")]
    _recipe: serde::de::IgnoredAny,
    #[serde(default, rename = "task")]
    _task: serde::de::IgnoredAny,
    #[serde(default, rename = "system")]
    _system: serde::de::IgnoredAny,
    #[serde(default, rename = "prompt")]
    _prompt: serde::de::IgnoredAny,
}

/// What this module reads of an outcome; records outlive the types of whoever wrote them.
#[derive(Deserialize)]
struct Outcome {
    dialogue: Answers,
}
#[derive(Deserialize)]
struct Answers {
    #[serde(default)]
    id: String,
    #[serde(default)]
    category: String,
    turns: Vec<Turn>,
}
#[derive(Deserialize)]
struct Turn {
    asked: String,
    sample: Sample,
    #[serde(default)]
    reference: String,
}
#[derive(Deserialize)]
struct Sample {
    text: String,
}

/// A results folder and what has been judged of it.
pub struct Bench<'a> {
    store: &'a Store,
    records: Vec<Record>,
    done: BTreeMap<Key, Judgement>,
    /// What the folder has of judgements goes when the first new one is there, and not before.
    anew: bool,
}

/// How many, of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cells whose records have scores now.
    pub cells: usize,
    /// Answers judged.
    pub judged: usize,
    /// Judgements that hold no score.
    pub unclear: usize,
    /// Answers that nobody has judged.
    pub missing: usize,
}

impl<'a> Bench<'a> {
    /// Reads a folder. Judgements of another judge, or made with other prompts, are a mistake: scores of two judges cannot be
    /// compared. `again` drops them.
    pub fn open(store: &'a Store, who: (&str, &str), again: bool) -> Result<Self> {
        Self::of(store, Some(who), again)
    }

    /// Reads a folder, whoever judged it; `again`: as if nobody had.
    pub fn by_anyone(store: &'a Store, again: bool) -> Result<Self> {
        Self::of(store, None, again)
    }

    fn of(store: &'a Store, who: Option<(&str, &str)>, again: bool) -> Result<Self> {
        let records = store.records()?;
        let judged = |r: &Record| {
            matches!(r.status, Status::Done { .. })
                && r.task.metrics.iter().any(|m| METRICS.contains(&&*m.name))
        };
        let records: Vec<Record> = records.into_iter().filter(judged).collect();
        if records.is_empty() {
            mistake!(
                "`{}`: no finished cell is to be judged: none of its tasks has a metric of {}",
                store.dir().display(),
                METRICS.join(", ")
            );
        }
        let path = store.dir().join(FILE);
        let mut done = BTreeMap::new();
        for (i, line) in whole_lines(&path)?.into_iter().enumerate().filter(|_| !again) {
            let at = || format!("`{}` line {}", path.display(), i + 1);
            let j: Judgement = serde_json::from_str(&line).blame(at())?;
            if let Some(who) = who.filter(|&who| (j.judge.as_str(), j.prompts.as_str()) != who) {
                mistake!(
                    "{}: judged by `{}`{}; --again forgets all judgements of the folder",
                    at(),
                    j.judge,
                    if j.judge == who.0 { ", with other prompts" } else { "" }
                );
            }
            done.insert(j.of(), j);
        }
        Ok(Self { store, records, done, anew: again })
    }

    /// Whether nothing has been judged.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// Every answer, judged or not, in the records' order.
    fn all(&self, prompts: &Prompts) -> Result<Vec<Case>> {
        let mut all = Vec::new();
        for record in &self.records {
            let Some(items) = self.store.items(&record.cell)? else { continue };
            for item in items {
                let what = || format!("item {} of cell {}", item.item, record.cell);
                let outcome: Outcome = serde_json::from_value(item.outcome).blame(what())?;
                let a = outcome.dialogue;
                for turn in 1..=a.turns.len() {
                    let talk = Talk {
                        id: &a.id,
                        said: a.turns.iter().take(turn).map(|t| (&*t.asked, &*t.sample.text)).collect(),
                        references: a.turns.iter().take(turn).map(|t| &*t.reference).collect(),
                    };
                    let (system, prompt) = prompts.ask(&talk).with_context(what)?;
                    all.push(Case {
                        cell: record.cell.clone(),
                        item: item.item.clone(),
                        turn,
                        id: a.id.clone(),
                        category: a.category.clone(),
                        model: record.model.name.clone(),
                        recipe: record.recipe.name.clone(),
                        task: record.task.name.clone(),
                        system,
                        prompt,
                        prompts: prompts.hash.clone(),
                    });
                }
            }
        }
        Ok(all)
    }

    /// Answers that nobody has judged.
    pub fn open_cases(&self, prompts: &Prompts) -> Result<Vec<Case>> {
        let mut all = self.all(prompts)?;
        all.retain(|c| !self.done.contains_key(&(c.cell.clone(), c.item.clone(), c.turn)));
        Ok(all)
    }

    /// Keeps a judgement, on disk before it returns.
    pub fn keep(&mut self, judgement: Judgement) -> Result<()> {
        let path = self.store.dir().join(FILE);
        let line = format!("{}\n", serde_json::to_string(&judgement)?);
        if std::mem::take(&mut self.anew) {
            replace(&path, line.as_bytes()).blame(format!("`{}`", path.display()))?;
        } else {
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            let end = file.metadata()?.len();
            if let Err(e) = file.write_all(line.as_bytes()).and_then(|()| file.sync_data()) {
                // A full disk takes half a line: give it back.
                file.set_len(end).ok();
                return Err(e).blame(format!("`{}`", path.display()));
            }
        }
        self.done.insert(judgement.of(), judgement);
        Ok(())
    }

    /// Reads what was judged elsewhere: lines of JSON with `cell`, `item`, `turn`, and `score` or the judge's `text`.
    pub fn read(&mut self, path: &Path, judge: &str, prompts: &Prompts) -> Result<()> {
        let known: BTreeSet<Key> = self.all(prompts)?.into_iter().map(|c| (c.cell, c.item, c.turn)).collect();
        if !path.is_file() {
            mistake!("`{}` is no file", path.display());
        }
        let (mut read, mut first) = (Vec::new(), BTreeMap::new());
        for (i, line) in lines(path)?.into_iter().enumerate() {
            let at = || format!("`{}` line {}", path.display(), i + 1);
            let line: Line = serde_json::from_str(&line).blame(at())?;
            if line.prompts.as_ref().is_some_and(|p| *p != prompts.hash) {
                mistake!("{}: written with other prompts; name those in --prompts and --references", at());
            }
            let key = (line.cell, line.item, line.turn);
            if let Some(before) = first.insert(key.clone(), i + 1) {
                mistake!("{}: the answer of line {before} once more", at());
            }
            if !known.contains(&key) {
                let cells: BTreeSet<&str> = known.iter().map(|k| k.0.as_str()).collect();
                mistake!(
                    "{}: no answer {} {} turn {} in `{}`{}",
                    at(),
                    key.0,
                    key.1,
                    key.2,
                    self.store.dir().display(),
                    if cells.contains(&*key.0) { String::new() } else { nearest(&key.0, cells) }
                );
            }
            let text = line.text.unwrap_or_default();
            let score = match line.score {
                Some(score) if (0. ..=10.).contains(&score) => Some(score),
                Some(score) => mistake!("{}: `score` is {score}; it is 0 to 10", at()),
                None if text.is_empty() => mistake!("{}: neither `score` nor `text`", at()),
                None => prompts::score(&text),
            };
            let (cell, item, turn) = key;
            read.push(Judgement {
                cell,
                item,
                turn,
                judge: judge.into(),
                prompts: prompts.hash.clone(),
                score,
                text,
            });
        }
        read.into_iter().try_for_each(|j| self.keep(j))
    }

    /// Puts scores into items and records, and takes out those that no judgement gives. An item counts when all of its
    /// answers have scores.
    pub fn settle(&mut self) -> Result<Tally> {
        let mut tally = Tally::default();
        let order: Vec<String> = self.store.records()?.into_iter().map(|r| r.cell).collect();
        for record in &mut self.records {
            let Some(before) = self.store.items(&record.cell)? else { continue };
            let mut items = before.clone();
            for item in &mut items {
                item.shares.retain(|name, _| !METRICS.contains(&name.as_str()));
                let mut scores = Vec::new();
                let turns = item.outcome["dialogue"]["turns"].as_array_mut();
                let turns = turns.map_or(&mut [][..], Vec::as_mut_slice);
                for (i, turn) in turns.iter_mut().enumerate() {
                    let judged = self.done.get(&(record.cell.clone(), item.item.clone(), i + 1));
                    let score = judged.and_then(|j| j.score);
                    tally.missing += usize::from(judged.is_none());
                    tally.judged += usize::from(judged.is_some());
                    tally.unclear += usize::from(judged.is_some() && score.is_none());
                    if let Some(turn) = turn.as_object_mut() {
                        match score {
                            Some(score) => drop(turn.insert("score".into(), score.into())),
                            None => drop(turn.shift_remove("score")),
                        }
                    }
                    scores.extend(score);
                }
                if scores.len() == turns.len() && !scores.is_empty() {
                    share(item, &scores, record);
                }
            }
            even(&mut items, record);
            let old = record.clone();
            value(record, &items);
            tally.cells += usize::from(items.iter().any(|i| i.shares.contains_key(METRICS[0])));
            if *record != old || items != before {
                self.store.push(record, &items)?;
            }
        }
        self.store.settle(&order)?;
        // In one order, whoever was quickest.
        let text: String = self
            .done
            .values()
            .map(|j| serde_json::to_string(j).map(|line| line + "\n"))
            .collect::<Result<_, _>>()?;
        replace(&self.store.dir().join(FILE), text.as_bytes())?;
        Ok(tally)
    }
}

/// Where each part is to count the same, the shares of its items weigh 1 together, as a study's own scores do.
fn even(items: &mut [Item], record: &Record) {
    if !record.task.parts_alike {
        return;
    }
    for name in METRICS {
        let mut weights: BTreeMap<Option<String>, f64> = BTreeMap::new();
        for item in items.iter() {
            *weights.entry(item.part.clone()).or_default() += item.shares.get(name).map_or(0., |s| s[1]);
        }
        for item in items.iter_mut() {
            let weight = weights[&item.part];
            if let Some(share) = item.shares.get_mut(name) {
                share.iter_mut().for_each(|x| *x /= weight);
            }
        }
    }
}

/// What an item's scores are of each metric that its task has.
fn share(item: &mut Item, scores: &[f64], record: &Record) {
    for metric in &record.task.metrics {
        let of: Vec<f64> = match metric.name.as_str() {
            "judge" => scores.to_vec(),
            "judge_turn_1" => scores.iter().take(1).copied().collect(),
            "judge_turn_2" => scores.iter().skip(1).take(1).copied().collect(),
            _ => continue,
        };
        item.shares.insert(metric.name.clone(), [of.iter().sum(), of.len() as f64]);
    }
}

/// The metrics of a record, and of its parts, from its items.
fn value(record: &mut Record, items: &[Item]) {
    let of = |items: &mut dyn Iterator<Item = &Item>, name: &str, scale| {
        let shares: Vec<stats::Share> = items.filter_map(|i| i.shares.get(name).copied()).collect();
        let e = stats::ratio(&shares, scale)?;
        Some(Value { value: e.value, stderr: e.stderr, n: e.n, ..Value::default() })
    };
    for metric in record.task.metrics.clone() {
        if !METRICS.contains(&metric.name.as_str()) {
            continue;
        }
        let Status::Done { metrics } = &mut record.status else { return };
        metrics.remove(&metric.name);
        if let Some(v) = of(&mut items.iter(), &metric.name, metric.scale) {
            metrics.insert(metric.name.clone(), v);
        }
        for (part, values) in &mut record.parts.0 {
            let mut its = items.iter().filter(|i| i.part.as_deref() == Some(part.as_str()));
            values.remove(&metric.name);
            if let Some(v) = of(&mut its, &metric.name, metric.scale) {
                values.insert(metric.name.clone(), v);
            }
        }
    }
}

/// The lines of a file that is there, those that are not empty.
fn lines(path: &Path) -> Result<Vec<String>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).blame(format!("`{}`", path.display())),
    };
    Ok(text.lines().filter(|l| !l.trim().is_empty()).map(str::to_string).collect())
}

/// The same of our own file, from which a last line that a kill left unfinished is cut.
fn whole_lines(path: &Path) -> Result<Vec<String>> {
    if let Ok(bytes) = fs::read(path)
        && let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1)
        && whole < bytes.len()
    {
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|file| file.set_len(whole as u64))
            .blame(format!("`{}`", path.display()))?;
    }
    lines(path)
}

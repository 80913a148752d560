//! Items of a task, read from where the task or the user says they are.
use super::task::{Data, PART, Task};
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    fs,
    io::Read,
    ops::Range,
    path::{Path, PathBuf},
};

/// A task's items, and the hash of the bytes they came from.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// One table an item, as the data has it: what templates see of it is [`super::requests`]' matter.
    pub rows: Vec<Value>,
    /// sha256; of several files, of their hashes.
    pub hash: String,
    /// What examples are drawn from, where that is other data than `rows`.
    pub pool: Vec<Value>,
    /// At least one; a task without parts is one without a name.
    pub parts: Vec<Part>,
}

/// A part of a task: a subject with its own items and its own examples.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// As it stands in paths.
    pub name: String,
    /// As it stands in texts.
    pub title: String,
    /// Of [`Items::rows`].
    pub rows: Range<usize>,
    /// Of [`Items::pool`].
    pub pool: Range<usize>,
}

impl Items {
    /// Of a task without parts.
    pub fn whole(rows: Vec<Value>, pool: Vec<Value>, hash: String) -> Self {
        let part = Part { rows: 0..rows.len(), pool: 0..pool.len(), ..Part::default() };
        Self { rows, hash, pool, parts: vec![part] }
    }

    /// The first `limit` items of each part.
    pub fn picked(&self, limit: Option<usize>) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().flat_map(move |p| p.rows.clone().take(limit.unwrap_or(usize::MAX)))
    }
}

/// Files that the user wants in place of a task's own. `{part}` in one stands for a part's name.
#[derive(Clone, Debug, Default)]
pub struct Instead {
    /// In place of the items.
    pub items: Option<PathBuf>,
    /// In place of what examples are drawn from.
    pub examples: Option<PathBuf>,
    /// `$BITSWEEP_DATA/TASK`: holds files under the path that the task says, or the last part of it.
    pub folder: Option<PathBuf>,
}

impl Instead {
    /// The file that stands in for `data`, if there is one.
    fn of(&self, named: Option<&PathBuf>, data: &Data, part: &str, alone: bool) -> Result<Option<PathBuf>> {
        if let Some(path) = named {
            let text = path.to_string_lossy();
            if !alone && !text.contains(PART) {
                mistake!(
                    "`{text}` in place of a task's data: the task has parts, and no `{PART}` says where each is"
                );
            }
            return Ok(Some(PathBuf::from(text.replace(PART, part))));
        }
        let (Some(folder), Some(path)) = (&self.folder, data.path().map(Path::new)) else { return Ok(None) };
        // A part is told from another by its path, which a file's name alone need not do.
        let named = path.file_name().filter(|_| part.is_empty()).map(|name| folder.join(name));
        let whole = path.is_relative().then(|| folder.join(path));
        Ok(whole.into_iter().chain(named).find(|p| p.is_file()))
    }
}

/// Where a task's file stands: a folder on disk, or inside the program.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// The folder that paths are relative to.
    Folder(PathBuf),
    /// The suite's folder inside the program.
    Inside(String),
}

/// Reads a task's items, and what its examples are drawn from.
pub fn load(label: &str, task: &Task, place: &Place, instead: &Instead) -> Result<Items> {
    let titles = task.parts.iter().filter_map(|(name, title)| Some((name.as_str(), title.as_str()?)));
    let mut parts: Vec<(&str, &str)> = titles.collect();
    if parts.is_empty() {
        parts.push(("", ""));
    }
    let alone = parts.len() == 1;
    let pool = task.fewshot.as_ref().filter(|f| f.n > 0).and_then(|f| f.data.as_ref());
    let (mut items, mut hashes) = (Items::default(), Vec::new());
    let mut more =
        |data: &Data, named: Option<&PathBuf>, name: &str, all: &mut Vec<Value>| -> Result<Range<usize>> {
            let data = data.of_part(name);
            let stand_in = instead.of(named, &data, name, alone).blame(format!("`{label}`"))?;
            let (rows, hash) = one(label, &data, place, stand_in.as_deref())?;
            if rows.is_empty() {
                mistake!("`{label}`: its data holds no items");
            }
            let start = all.len();
            all.extend(rows);
            hashes.push(hash);
            Ok(start..all.len())
        };
    for (name, title) in parts {
        let rows = more(&task.data, instead.items.as_ref(), name, &mut items.rows)?;
        let pool = match pool {
            Some(data) => more(data, instead.examples.as_ref(), name, &mut items.pool)?,
            None => 0..0,
        };
        items.parts.push(Part { name: name.into(), title: title.into(), rows, pool });
    }
    items.hash = if hashes.len() == 1 { hashes.remove(0) } else { digest(hashes.join("\n").as_bytes()) };
    Ok(items)
}

/// The rows of one source, and their hash.
fn one(label: &str, data: &Data, place: &Place, instead: Option<&Path>) -> Result<(Vec<Value>, String)> {
    Ok(match (instead, data) {
        (Some(path), _) => read(path)?,
        (None, Data::File(file)) => match place {
            Place::Folder(folder) => read(&folder.join(&file.path))?,
            Place::Inside(suite) => match super::find::embedded(&format!("{suite}/{}", file.path)) {
                Some(bytes) => parse(&file.path, bytes)?,
                None => mistake!(
                    "`{label}`: `data.file` names `{}`, which the program does not hold; point the task at a local \
                     copy with `--set 'data.{}=PATH'`, or BITSWEEP_DATA=DIR with DIR/{}/{}",
                    file.path,
                    short(label),
                    short(label),
                    file.path
                ),
            },
        },
        (None, Data::Items(items)) => {
            let rows: Vec<Value> = items.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            let hash = digest(serde_json::to_string(&rows)?.as_bytes());
            (rows, hash)
        }
        (None, Data::Hub(hub)) => mistake!(
            "`{label}`: its data is `{}` of {}@{} on the Hub, which this version does not read; point the task at a \
             local copy with `--set 'data.{}=PATH'`, or BITSWEEP_DATA=DIR with DIR/{}/FILE",
            hub.file,
            hub.repo,
            hub.revision,
            short(label),
            short(label)
        ),
    })
}

/// `suites/basic/hellaswag.toml` -> `hellaswag`.
fn short(label: &str) -> &str {
    let name = label.rsplit(['/', '\\']).next().unwrap_or(label);
    name.strip_suffix(".toml").unwrap_or(name)
}

fn read(path: &Path) -> Result<(Vec<Value>, String)> {
    let label = path.display().to_string();
    parse(&label, &fs::read(path).blame(format!("`{label}`"))?)
}

fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn parse(label: &str, bytes: &[u8]) -> Result<(Vec<Value>, String)> {
    let hash = digest(bytes);
    let (name, bytes): (&str, Cow<[u8]>) = match label.strip_suffix(".gz") {
        Some(name) => {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).blame(format!("`{label}`"))?;
            (name, plain.into())
        }
        None => (label, bytes.into()),
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        mistake!("`{label}` is not UTF-8 text");
    };
    let rows = match name.rsplit('.').next().unwrap_or_default() {
        "txt" | "raw" => {
            if text.trim().is_empty() {
                mistake!("`{label}` is an empty text");
            }
            vec![json!({ "text": text })]
        }
        "jsonl" => text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(i, line)| {
                let row: Map<String, Value> = serde_json::from_str(line)
                    .blame(format!("`{label}` line {}: not a JSON object", i + 1))?;
                Ok(Value::Object(row))
            })
            .collect::<Result<_>>()?,
        kind @ ("csv" | "tsv") => {
            let delimiter = if kind == "csv" { b',' } else { b'\t' };
            let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
            let rows: Result<Vec<Map<String, Value>>, csv::Error> = reader.deserialize().collect();
            rows.blame(format!("`{label}`"))?.into_iter().map(Value::Object).collect()
        }
        _ => {
            mistake!("`{label}`: unknown kind of file; there are: .txt .raw .jsonl .csv .tsv, each also .gz")
        }
    };
    Ok((rows, hash))
}

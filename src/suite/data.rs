//! Items of a task, read from where the task or the user says they are.
use super::{
    clean::Cleaner,
    task::{Data, Task},
};
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// A task's items, and the hash of the bytes they came from.
#[derive(Clone, Debug)]
pub struct Items {
    /// One table an item, repaired.
    pub rows: Vec<Value>,
    /// sha256.
    pub hash: String,
}

/// Where a task's file stands: a folder on disk, or inside the program.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// The folder that paths are relative to.
    Folder(PathBuf),
    /// The suite's folder inside the program.
    Inside(String),
}

/// Reads a task's items. `instead`: a file that the user wants in place of the task's own.
pub fn load(label: &str, task: &Task, place: &Place, instead: Option<&Path>) -> Result<Items> {
    let (rows, hash) = match (instead, &task.data) {
        (Some(path), _) => read(path)?,
        (None, Data::File(file)) => match place {
            Place::Folder(folder) => read(&folder.join(&file.path))?,
            Place::Inside(suite) => match super::find::embedded(&format!("{suite}/{}", file.path)) {
                Some(bytes) => parse(&file.path, bytes)?,
                None => {
                    mistake!("`{label}`: `data.file` names `{}`, which the program does not hold", file.path)
                }
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
    };
    if rows.is_empty() {
        mistake!("`{label}`: its data holds no items");
    }
    let cleaner = Cleaner::new(&task.clean).blame(format!("`{label}`"))?;
    let rows = rows
        .into_iter()
        .map(|mut row| {
            cleaner.apply(&mut row);
            row
        })
        .collect();
    Ok(Items { rows, hash })
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

//! From a file's bytes to rows: one door for every kind of file that a task's data may be.
use super::parquet;
use crate::{mistake, mistake::Blame};
use anyhow::Result;
use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Deserializer, Map, Value, json};
use std::{borrow::Cow, io::Read};

/// What a file's name may end in.
pub const ENDINGS: &[&str] = &["txt", "raw", "tokens", "jsonl", "json", "csv", "tsv", "parquet"];
/// And what may stand behind that.
const PACKED: &[&str] = &["gz", "zst"];
/// Bytes of a file, unpacked: a few kilobytes of gzip can stand for as many as one likes.
const LARGEST: u64 = 1 << 32;

/// What a file's bytes do not say themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout<'a> {
    /// The list of items inside a `.json` file's table; a dot leads into a table in it.
    pub field: Option<&'a str>,
    /// Names of a `.csv` or `.tsv` file's columns, where it has no header.
    pub columns: Option<&'a [String]>,
    /// How a text is more than one item.
    pub cut: Option<&'a Cut>,
}

/// See [`Layout::cut`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// A line is an item, with what ends it, as Python reads a file.
    Lines,
    /// An item begins with each line that the expression matches. The line break before it is no item's; white space
    /// before the first one is none.
    Begins(String),
}

/// The ending of a name that can be read, without what it is packed in.
pub fn ending(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let plain = PACKED.iter().find_map(|packed| name.strip_suffix(packed)?.strip_suffix('.'));
    let (_, last) = plain.unwrap_or(&name).rsplit_once('.')?;
    ENDINGS.iter().find(|known| **known == last).copied()
}

/// The rows of one file. `label` is what errors call it; its ending says what it is.
pub fn parse(label: &str, bytes: Cow<'_, [u8]>, layout: Layout<'_>) -> Result<Vec<Value>> {
    let Some(kind) = ending(label) else {
        mistake!(
            "`{label}`: unknown kind of file; there are: .{}; each also .{}",
            ENDINGS.join(" ."),
            PACKED.join(" .")
        );
    };
    let lower = label.to_ascii_lowercase();
    let bytes = if lower.ends_with(".gz") {
        unpack(label, flate2::read::MultiGzDecoder::new(&*bytes))?.into()
    } else if lower.ends_with(".zst") {
        unpack(label, zstd::Decoder::with_buffer(&*bytes).blame(format!("`{label}`"))?)?.into()
    } else {
        bytes
    };
    if kind == "parquet" {
        return parquet::rows(label, bytes.into_owned());
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        mistake!("`{label}` is not UTF-8 text");
    };
    // What Windows puts before a text is no part of it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match kind {
        "jsonl" => lines(label, text),
        "json" => list(label, text, layout.field),
        "csv" => cells(label, text, b',', layout.columns),
        "tsv" => cells(label, text, b'\t', layout.columns),
        _ if text.trim().is_empty() => mistake!("`{label}` is an empty text"),
        _ => match layout.cut {
            None => Ok(vec![json!({ "text": text })]),
            Some(cut) => pieces(label, text, cut),
        },
    }
}

/// The items of a text of several.
fn pieces(label: &str, text: &str, cut: &Cut) -> Result<Vec<Value>> {
    let begins = match cut {
        Cut::Lines => None,
        Cut::Begins(pattern) => Some(Regex::new(pattern).blame(format!("`{label}`: `cut.begins`"))?),
    };
    let (mut starts, mut at) = (Vec::new(), 0);
    for line in text.split_inclusive('\n') {
        let bare = line.strip_suffix('\n').unwrap_or(line);
        let bare = bare.strip_suffix('\r').unwrap_or(bare);
        let first = match &begins {
            None => true,
            Some(regex) => regex.is_match(bare).blame(format!("`{label}`: `cut.begins`"))?,
        };
        if first || (at == 0 && starts.is_empty()) {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let whole = |(&start, end): (&usize, usize)| match begins.is_some() && end < text.len() {
        true => {
            let piece = &text[start..end];
            let piece = piece.strip_suffix('\n').unwrap_or(piece);
            piece.strip_suffix('\r').unwrap_or(piece)
        }
        false => &text[start..end],
    };
    let mut all: Vec<&str> = starts.iter().zip(ends).map(whole).collect();
    if begins.is_some() && all[0].trim().is_empty() {
        all.remove(0);
    }
    Ok(all.into_iter().map(|text| json!({ "text": text })).collect())
}

fn unpack(label: &str, packed: impl Read) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    packed.take(LARGEST + 1).read_to_end(&mut plain).blame(format!("`{label}`: it cannot be unpacked"))?;
    if plain.len() as u64 > LARGEST {
        mistake!("`{label}`: more than {} GiB, unpacked", LARGEST >> 30);
    }
    Ok(plain)
}

fn lines(label: &str, text: &str) -> Result<Vec<Value>> {
    let full = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    full.map(|(i, line)| {
        let row: Map<String, Value> =
            serde_json::from_str(line).blame(format!("`{label}` line {}: not a JSON object", i + 1))?;
        Ok(Value::Object(row))
    })
    .collect()
}

/// `.json` is what its writer took it for: a list of items; a table that holds one; or, as often on the Hub, an item a
/// line.
fn list(label: &str, text: &str, field: Option<&str>) -> Result<Vec<Value>> {
    let values: Result<Vec<Value>, _> = Deserializer::from_str(text).into_iter().collect();
    let mut values = values.blame(format!("`{label}`: not JSON"))?;
    let mut alone = match values.len() {
        1 => values.pop(),
        _ => None,
    };
    for name in field.iter().flat_map(|path| path.split('.')) {
        let Some(table) = alone.as_mut().and_then(Value::as_object_mut) else {
            mistake!("`{label}`: there is no table to find `{}` in", field.unwrap_or_default());
        };
        alone = match table.remove(name) {
            Some(value) => Some(value),
            None => mistake!(
                "`{label}`: no field `{name}`{}; {}",
                crate::mistake::nearest(name, keys(table)),
                has(table)
            ),
        };
    }
    let rows = match alone {
        None => values,
        Some(Value::Array(rows)) => rows,
        Some(Value::Object(table)) => {
            mistake!(
                "`{label}` holds one table: say in `field` which of its fields is the list of items; {}",
                has(&table)
            )
        }
        Some(_) => mistake!("`{label}`: neither a list of items nor a table that holds one"),
    };
    match rows.iter().position(|row| !row.is_object()) {
        Some(i) => mistake!("`{label}` item {}: not a JSON object", i + 1),
        None => Ok(rows),
    }
}

fn keys(table: &Map<String, Value>) -> impl Iterator<Item = &str> {
    table.iter().filter(|(_, value)| value.is_array() || value.is_object()).map(|(name, _)| name.as_str())
}

fn has(table: &Map<String, Value>) -> String {
    let names: Vec<&str> = keys(table).take(20).collect();
    match names.is_empty() {
        true => "there is no list in it".into(),
        false => format!("there are: {}", names.join(", ")),
    }
}

/// A cell is the text that stands there. Taken for a number, `1.50` would come out as `1.5`, and `inf` as nothing.
fn cells(label: &str, text: &str, delimiter: u8, columns: Option<&[String]>) -> Result<Vec<Value>> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(columns.is_none())
        .from_reader(text.as_bytes());
    let names: Vec<String> = match columns {
        Some(names) => names.to_vec(),
        None => reader.headers().blame(format!("`{label}`"))?.iter().map(str::to_string).collect(),
    };
    if let Some((i, twice)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
        mistake!("`{label}`: column {} is called `{twice}`, as one before it is", i + 1);
    }
    reader
        .records()
        .map(|record| {
            let record = record.blame(format!("`{label}`"))?;
            if record.len() != names.len() {
                mistake!("`{label}`: {} columns, where `columns` names {}", record.len(), names.len());
            }
            let row = names.iter().cloned().zip(record.iter().map(Value::from));
            Ok(Value::Object(row.collect()))
        })
        .collect()
}

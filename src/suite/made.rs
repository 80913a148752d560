//! Items that are drawn, not read: `[data.made]`.
//!
//! An item's draws are those of Python's `random.Random("SEED/PART/INDEX")`, so that no limit, shard, order or other
//! item changes them, and the same items can be made by a few lines of Python (`tests/make_made.py`).
use super::{data::digest, template::Template};
use crate::{mistake, mistake::Blame, random::Random};
use anyhow::Result;
use minijinja::{
    Environment, Error, ErrorKind,
    value::{Value, ValueKind},
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// See [`Data::Made`](super::task::Data::Made).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// How many, of each part.
    pub items: u64,
    /// Of every item's generator.
    #[serde(default)]
    pub seed: u64,
    /// Whether parts draw apart. If not, an item draws the same in every part, and parts differ in what templates make
    /// of `part` alone: one question, asked at several positions.
    #[serde(default = "yes")]
    pub by_part: bool,
    /// What templates draw from, by name.
    #[serde(default)]
    pub lists: BTreeMap<String, List>,
    /// An item's fields, in order: templates over `part`, `title`, `index`, the lists, and the fields before. One whose
    /// name begins with `_` is for those behind it, and no part of the item.
    pub fields: toml::Table,
}

/// See [`Made::lists`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a list of texts, or the name of a file with a text a line")]
pub enum List {
    /// Written out here.
    Texts(Vec<String>),
    /// The lines of a file.
    File(String),
}

fn yes() -> bool {
    true
}

/// Items of a part, at most.
const MOST_ITEMS: u64 = 1 << 20;
/// Bytes of a part's items as JSON, at most.
const MOST_BYTES: usize = 1 << 31;
/// Draws of one call, at most.
const MOST_DRAWS: usize = 1 << 20;
/// What templates see beside lists and fields.
const GIVEN: [&str; 3] = ["part", "title", "index"];
/// What draws, named as in Python's `random`.
pub const DRAWS: [&str; 7] = ["randint", "random", "choice", "choices", "sample", "shuffle", "uuid"];

impl Made {
    /// Mistakes that show without a draw.
    pub fn check(&self) -> Result<()> {
        if !(1..=MOST_ITEMS).contains(&self.items) {
            mistake!("data.made: `items` is 1 to {MOST_ITEMS}, not {}", self.items);
        }
        let lists = self.lists.keys().map(|name| ("lists", name));
        for (key, name) in lists.chain(self.fields.keys().map(|name| ("fields", name))) {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(word) {
                mistake!("data.made.{key}: `{name}` is no name: letters, digits and `_`");
            }
            let list = key == "fields" && self.lists.contains_key(name.as_str());
            if list || GIVEN.contains(&name.as_str()) || DRAWS.contains(&name.as_str()) {
                mistake!("data.made.{key}: `{name}` already means something else in templates");
            }
        }
        for (name, list) in &self.lists {
            if matches!(list, List::Texts(texts) if texts.is_empty()) {
                mistake!("data.made.lists: `{name}` is empty");
            }
        }
        if !self.fields.keys().any(|name| !name.starts_with('_')) {
            mistake!(
                "data.made: `fields` names nothing that an item has; a name with `_` is only for other fields"
            );
        }
        for (name, source) in &self.fields {
            let Some(source) = source.as_str() else {
                mistake!("data.made.fields: `{name}` is {source}; it is a text");
            };
            Template::new(&format!("data.made.fields.{name}"), source)?;
        }
        Ok(())
    }
}

/// A part's items, and their hash: sha256 of each one's, a line each. All lists are written out by now.
pub fn rows(made: &Made, part: &str, title: &str) -> Result<(Vec<serde_json::Value>, String)> {
    let maker = || Maker::new(made, part, title);
    let bytes = AtomicUsize::new(0);
    let one = |maker: &mut Result<Maker>, index: u64| {
        let maker = maker.as_mut().map_err(|e| anyhow::anyhow!("{e:#}"))?;
        if bytes.load(Ordering::Relaxed) > MOST_BYTES {
            mistake!(
                "data.made: the items take more than {} MB; ask for fewer, or shorter ones",
                MOST_BYTES >> 20
            );
        }
        let row = maker.item(index)?;
        let text = row.to_string();
        bytes.fetch_add(text.len(), Ordering::Relaxed);
        Ok((row, digest(text.as_bytes())))
    };
    // The first one alone: what is wrong with all is said once, of it.
    let first = one(&mut maker(), 0)?;
    let rest: Vec<Result<_>> = (1..made.items).into_par_iter().map_init(maker, one).collect();
    let mut all = vec![first];
    for row in rest {
        all.push(row?);
    }
    let (rows, hashes): (Vec<_>, Vec<String>) = all.into_iter().unzip();
    Ok((rows, digest(hashes.join("\n").as_bytes())))
}

/// Makes items one after another; a thread has its own.
struct Maker<'a> {
    made: &'a Made,
    part: &'a str,
    title: &'a str,
    random: Arc<Mutex<Random>>,
    fields: Vec<(&'a str, Template)>,
}

impl<'a> Maker<'a> {
    fn new(made: &'a Made, part: &'a str, title: &'a str) -> Result<Self> {
        let random = Arc::new(Mutex::new(Random::new(0)));
        let texts = |list: &'a List| match list {
            List::Texts(texts) => texts.iter().map(|t| Value::from(t.as_str())).collect::<Vec<_>>(),
            List::File(_) => Vec::new(),
        };
        let lists: Vec<(&String, Value)> =
            made.lists.iter().map(|(name, list)| (name, Value::from(texts(list)))).collect();
        let fields = made.fields.iter().filter_map(|(name, source)| Some((name.as_str(), source.as_str()?)));
        let fields = fields.map(|(name, source)| {
            let template = Template::with(&format!("data.made.fields.{name}"), source, |environment| {
                install(environment, &random);
                for (name, list) in &lists {
                    environment.add_global((*name).clone(), list.clone());
                }
            });
            Ok((name, template?))
        });
        let fields = fields.collect::<Result<_>>()?;
        Ok(Self { made, part, title, random, fields })
    }

    fn item(&mut self, index: u64) -> Result<serde_json::Value> {
        let apart = if self.made.by_part { self.part } else { "" };
        *lock(&self.random) = Random::of_text(&format!("{}/{apart}/{index}", self.made.seed));
        let mut seen = json!({ "index": index });
        if !self.part.is_empty() {
            seen["part"] = self.part.into();
            seen["title"] = self.title.into();
        }
        for (name, template) in &self.fields {
            let value = template.value(&seen).map_err(|e| match format!("{e:#}") {
                why if why.contains("unknown function") => {
                    anyhow::anyhow!("{why}; what draws is one of: {}", DRAWS.join(", "))
                }
                _ => e,
            });
            let of = if self.part.is_empty() { String::new() } else { format!(" of part `{}`", self.part) };
            seen[*name] = value.blame(format!("data.made.fields: `{name}`, item {}{of}", index + 1))?;
        }
        let mut row = json!({});
        for (name, _) in self.fields.iter().filter(|(name, _)| !name.starts_with('_')) {
            row[*name] = seen[*name].take();
        }
        Ok(row)
    }
}

fn lock(random: &Mutex<Random>) -> std::sync::MutexGuard<'_, Random> {
    random.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wrong<T>(why: String) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, why))
}

/// Gives templates what draws.
fn install(environment: &mut Environment<'static>, random: &Arc<Mutex<Random>>) {
    let of = || random.clone();
    let r = of();
    environment.add_function("randint", move |low: i64, high: i64| match high.checked_sub(low) {
        Some(0..) => Ok(lock(&r).between(low, high)),
        _ => wrong(format!(
            "`randint({low}, {high})`: the first is at most the second, and not so far from it"
        )),
    });
    let r = of();
    environment.add_function("random", move || lock(&r).unit());
    let r = of();
    environment.add_function("choice", move |list: &Value| {
        // Not copied: it may be asked for at every line.
        let items = if list.kind() == ValueKind::Seq { None } else { Some(items("choice", list)?) };
        let n = items.as_ref().map_or_else(|| list.len().unwrap_or(0), Vec::len);
        if n == 0 {
            return wrong("`choice` takes a list that is not empty".into());
        }
        let i = lock(&r).below(n as u64) as usize;
        match items {
            Some(mut items) => Ok(items.swap_remove(i)),
            None => list.get_item_by_index(i),
        }
    });
    let r = of();
    environment.add_function("choices", move |list: &Value, k: i64| {
        let (items, k) = (items("choices", list)?, count("choices", k)?);
        if items.is_empty() {
            return wrong("`choices` takes a list that is not empty".into());
        }
        let drawn = lock(&r).choices(items.len(), k);
        Ok(Value::from(drawn.into_iter().map(|i| items[i].clone()).collect::<Vec<_>>()))
    });
    let r = of();
    environment.add_function("sample", move |from: &Value, k: i64| {
        let k = count("sample", k)?;
        // A whole number stands for all that are below it.
        let (n, items) = match (from.kind(), i64::try_from(from.clone())) {
            (ValueKind::Number, Ok(n)) => (usize::try_from(n).unwrap_or(0), None),
            _ => {
                let items = items("sample", from)?;
                (items.len(), Some(items))
            }
        };
        let Some(drawn) = lock(&r).sample(n, k) else {
            return wrong(format!("`sample` of {k} from {n}: there are not so many"));
        };
        let drawn = drawn.into_iter();
        Ok(match items {
            Some(items) => Value::from(drawn.map(|i| items[i].clone()).collect::<Vec<_>>()),
            None => Value::from(drawn.map(Value::from).collect::<Vec<_>>()),
        })
    });
    let r = of();
    environment.add_function("shuffle", move |list: &Value| {
        let mut items = items("shuffle", list)?;
        lock(&r).shuffle(&mut items);
        Ok::<_, Error>(Value::from(items))
    });
    let r = of();
    environment.add_function("uuid", move || uuid(&mut lock(&r)));
}

fn items(name: &str, list: &Value) -> Result<Vec<Value>, Error> {
    match list.kind() {
        ValueKind::Seq | ValueKind::Iterable => Ok(list.try_iter()?.collect()),
        kind => wrong(format!("`{name}` takes a list, not {kind}")),
    }
}

fn count(name: &str, k: i64) -> Result<usize, Error> {
    match usize::try_from(k) {
        Ok(k) if k <= MOST_DRAWS => Ok(k),
        _ => wrong(format!("`{name}` of {k}: it draws 0 to {MOST_DRAWS}")),
    }
}

/// `uuid.UUID(int=getrandbits(128), version=4)`.
fn uuid(random: &mut Random) -> String {
    let low = u128::from(random.bits(64));
    let mut all = (u128::from(random.bits(64)) << 64) | low;
    all = all & !(0xc000 << 48) | (0x8000 << 48);
    all = all & !(0xf000 << 64) | (4 << 76);
    let hex = format!("{all:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

//! Items of a task, read from where the task or the user says they are.
use super::{
    made::{self, List, Made},
    python,
    rows::{self, Layout},
    task::{Data, FileData, HubData, Names, PART, Task},
    template::Template,
};
use crate::{
    hub::{Hub, RepoId},
    mistake,
    mistake::{Blame, Mistake, nearest},
};
use anyhow::{Context, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::{Component, Path, PathBuf},
};
use wildmatch::WildMatch;

/// A task's items, and the hash of the bytes they came from.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// One table an item, as the data has it: what templates see of it is [`super::requests`]' matter.
    pub rows: Vec<Value>,
    /// sha256 of the file; of several files, or of one that took more than its bytes to read, sha256 of their hashes and
    /// the rest, a line each.
    pub hash: String,
    /// The kinds of files that they were read from, but for those whose bytes are read in one way only: the same bytes are
    /// one item of a text, and many rows of a table.
    pub kinds: BTreeSet<&'static str>,
    /// What examples are drawn from, where that is other data than `rows`.
    pub pool: Vec<Value>,
    /// At least one; a task without parts is one without a name.
    pub parts: Vec<Part>,
    /// The cluster of each of `rows`, a hash of what the task's template gives; none where it has no such template.
    pub clusters: Vec<String>,
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
        Self { rows, hash, pool, parts: vec![part], ..Self::default() }
    }

    /// The part of each of [`Items::picked`], by name; none where the task has no parts.
    pub fn part_names(&self, limit: Option<usize>) -> Vec<&str> {
        let named = self.parts.iter().filter(|p| !p.name.is_empty());
        named
            .flat_map(|p| std::iter::repeat_n(&*p.name, p.rows.len().min(limit.unwrap_or(usize::MAX))))
            .collect()
    }

    /// The cluster of each of [`Items::picked`]; none where the task names none.
    pub fn cluster_names(&self, limit: Option<usize>) -> Vec<&str> {
        self.picked(limit).filter_map(|i| self.clusters.get(i)).map(String::as_str).collect()
    }

    /// The first `limit` items of each part.
    pub fn picked(&self, limit: Option<usize>) -> impl Iterator<Item = usize> + '_ {
        self.parts.iter().flat_map(move |p| p.rows.clone().take(limit.unwrap_or(usize::MAX)))
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

/// Local files that the user wants in place of a task's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// What the paths are relative to.
    pub folder: PathBuf,
    /// The files. `{part}` in a path stands for a part's name.
    pub file: FileData,
}

/// All that the user wants in place of a task's own data.
#[derive(Clone, Debug, Default)]
pub struct Instead {
    /// In place of the items.
    pub items: Option<Local>,
    /// In place of what examples are drawn from.
    pub examples: Option<Local>,
    /// In place of lists that made items draw from, by name.
    pub lists: BTreeMap<String, Local>,
    /// `BITSWEEP_DATA`, and the task's name in it.
    pub root: Option<(PathBuf, String)>,
}

impl Instead {
    /// The files that stand in for `data`, if there are any.
    fn of(&self, named: Option<&Local>, data: &Data, part: &str, alone: bool) -> Result<Option<Local>> {
        let Some(own) = named else { return Ok(None) };
        let names = own.file.path.names();
        // A made task's templates know the part, whatever rows they see.
        let apart = !alone && !matches!(data, Data::Made(_));
        if let Some(name) = names.iter().find(|n| apart && !n.contains(PART)) {
            mistake!(
                "`{name}` in place of a task's data: the task has parts, and no `{PART}` says where each is"
            );
        }
        let cut = own.file.cut.clone().or_else(|| data.cut().cloned());
        let path = Names::Many(names.iter().map(|n| n.replace(PART, part)).collect());
        Ok(Some(Local { folder: own.folder.clone(), file: FileData { path, cut, ..own.file.clone() } }))
    }
}

/// Reads a task's items, and what its examples are drawn from.
/// `hub` opens the Hub, and is called only where the data is there.
pub fn load(
    label: &str,
    task: &Task,
    place: &Place,
    instead: &Instead,
    hub: &dyn Fn() -> Result<Hub>,
) -> Result<Items> {
    let titles = task.parts.iter().filter_map(|(name, title)| Some((name.as_str(), title.as_str()?)));
    let mut parts: Vec<(&str, &str)> = titles.collect();
    let named = std::mem::take(&mut parts);
    match &task.part {
        None if !named.is_empty() => parts = named.clone(),
        _ => parts.push(("", "")),
    }
    let alone = parts.len() == 1;
    let pool = task.fewshot.as_ref().filter(|f| f.n > 0).and_then(|f| f.data.as_ref());
    let keep = task.keep.as_ref().map(|k| Template::new("keep", k)).transpose()?;
    let (mut items, mut hashes, mut kinds) = (Items::default(), Vec::new(), BTreeSet::new());
    let mut more =
        |data: &Data, examples: bool, part: (&str, &str), all: &mut Vec<Value>| -> Result<Range<usize>> {
            let named = if examples { instead.examples.as_ref() } else { instead.items.as_ref() };
            let name = part.0;
            let mut data = data.of_part(name);
            let mut stand_in = instead.of(named, &data, name, alone).blame(format!("`{label}`"))?;
            if let (None, Some((root, short))) = (&stand_in, &instead.root) {
                // `TASK.jsonl` holds a task's items: a question would be its own example.
                let whole = name.is_empty() && !examples;
                stand_in = below(root, short, &data, name.is_empty(), whole).blame(format!("`{label}`"))?;
            }
            if let (Data::Made(made), None) = (&mut data, &stand_in) {
                lists(label, made, place, &instead.lists).blame(format!("`{label}`"))?;
            }
            let files = stand_in.as_ref().map_or(data.names(), |own| own.file.path.names());
            let plain = ["jsonl", "parquet"];
            kinds.extend(files.iter().filter_map(|f| rows::ending(f)).filter(|k| !plain.contains(k)));
            let (mut rows, hash) = one(label, &data, place, stand_in.as_ref(), part, hub)?;
            if let Some(keep) = keep.as_ref().filter(|_| !examples) {
                let count = rows.len();
                rows = keep.kept(rows).blame(format!("`{label}`"))?;
                if rows.is_empty() && count > 0 {
                    mistake!("`{label}`: `keep` leaves none of its {count} items");
                }
            }
            if rows.is_empty() {
                mistake!("`{label}`: its data holds no items");
            }
            let start = all.len();
            all.extend(rows);
            hashes.push(hash);
            Ok(start..all.len())
        };
    for (name, title) in parts {
        let rows = more(&task.data, false, (name, title), &mut items.rows)?;
        let pool = match pool {
            Some(data) => more(data, true, (name, title), &mut items.pool)?,
            None => 0..0,
        };
        items.parts.push(Part { name: name.into(), title: title.into(), rows, pool });
    }
    items.kinds = kinds;
    items.hash = if hashes.len() == 1 { hashes.remove(0) } else { digest(hashes.join("\n").as_bytes()) };
    if let Some(template) = &task.part {
        let template = Template::new("part", template)?;
        items = apart(items, &template, &named, &task.own_parts).blame(format!("`{label}`"))?;
    }
    if let Some(template) = &task.cluster {
        let template = Template::new("cluster", template)?;
        let one = |(i, row): (usize, &Value)| -> Result<String> {
            let name = template.text(row).with_context(|| format!("item {}", i + 1))?;
            Ok(digest(name.as_bytes())[..16].to_string())
        };
        let all: Result<Vec<String>> = items.rows.iter().enumerate().map(one).collect();
        items.clusters = all.blame(format!("`{label}`: `cluster`"))?;
    }
    Ok(items)
}

/// Items of one data set, part by part. Those of the task's `others` that a study leaves out are left out.
fn apart(mut items: Items, template: &Template, parts: &[(&str, &str)], others: &[String]) -> Result<Items> {
    let mut of: Vec<Vec<Value>> = vec![Vec::new(); parts.len()];
    for (i, row) in std::mem::take(&mut items.rows).into_iter().enumerate() {
        let name = template.text(&row).with_context(|| format!("item {}", i + 1))?;
        let names = parts.iter().map(|p| p.0);
        let Some(at) = names.clone().position(|n| n == name) else {
            if others.contains(&name) {
                continue;
            }
            let all = names.clone().collect::<Vec<_>>().join(", ");
            mistake!("item {}: no part `{name}`{}; there are: {all}", i + 1, nearest(&name, names))
        };
        of[at].push(row);
    }
    items.parts.clear();
    for ((name, title), rows) in parts.iter().zip(of) {
        let start = items.rows.len();
        items.rows.extend(rows);
        let (rows, pool) = (start..items.rows.len(), 0..items.pool.len());
        items.parts.push(Part { name: name.to_string(), title: title.to_string(), rows, pool });
    }
    Ok(items)
}

/// The rows of one source, and their hash.
fn one(
    label: &str,
    data: &Data,
    place: &Place,
    instead: Option<&Local>,
    (part, title): (&str, &str),
    hub: &dyn Fn() -> Result<Hub>,
) -> Result<(Vec<Value>, String)> {
    Ok(match (instead, data) {
        (Some(own), _) => read(local(&own.folder, &own.file)?, own.file.layout())?,
        (None, Data::File(file)) => match place {
            Place::Folder(folder) => read(local(folder, file)?, file.layout())?,
            Place::Inside(suite) => read(inside(label, suite, file)?, file.layout())?,
        },
        (None, Data::Made(made)) => made::rows(made, part, title).blame(format!("`{label}`"))?,
        (None, Data::Items(items)) => {
            let rows: Vec<Value> = items.iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
            // By sorted keys, as identities are; but the order of a table that is a value can count.
            let mut sorted = Value::from(rows.clone());
            let plain = |row: &Value| row.as_object().is_some_and(|t| !t.values().any(Value::is_object));
            if rows.iter().all(plain) {
                sorted.sort_all_objects();
            }
            (rows, digest(sorted.to_string().as_bytes()))
        }
        (None, Data::Split(split)) => match split.files(hub) {
            Ok(data) => return one(label, &Data::Hub(data), place, None, (part, title), hub),
            Err(e) => mistake!("`{label}`: {e:#}. Or {}", split.own()),
        },
        (None, Data::Hub(data)) => {
            let files = remote(data, hub).map_err(|e| {
                let (task, file) = (short(label), data.file.names().first().map_or("FILE", |f| last(f)));
                anyhow::Error::new(Mistake(format!(
                    "`{label}`: {e:#}. Or point the task at a copy of your own: --set 'data.{task}=PATH', or \
                     BITSWEEP_DATA=DIR with DIR/{task}/{file}"
                )))
            })?;
            read(files, data.layout())?
        }
    })
}

/// Writes out the lists that made items draw from: the lines of their files' texts that are not empty.
fn lists(label: &str, made: &mut Made, place: &Place, own: &BTreeMap<String, Local>) -> Result<()> {
    for (name, list) in &mut made.lists {
        let file = match &*list {
            List::Texts(_) => FileData::new(Vec::new(), Layout::default()),
            List::File(path) => FileData::new(vec![path.clone()], Layout::default()),
        };
        let read = || -> Result<Vec<Value>> {
            let (rows, _) = match (own.get(name), place) {
                (Some(own), _) => read(local(&own.folder, &own.file)?, own.file.layout())?,
                (None, Place::Folder(folder)) => read(local(folder, &file)?, file.layout())?,
                (None, Place::Inside(suite)) => read(inside(label, suite, &file)?, file.layout())?,
            };
            Ok(rows)
        };
        if file.path.names().is_empty() && !own.contains_key(name) {
            continue;
        }
        let rows = read().blame(format!("data.made.lists: `{name}`"))?;
        let mut texts = Vec::new();
        for row in &rows {
            let Some(text) = row["text"].as_str() else {
                mistake!("data.made.lists: `{name}`: {row} has no field `text` that is one");
            };
            texts.extend(text.lines().map(python::strip).filter(|l| !l.is_empty()).map(str::to_string));
        }
        if texts.is_empty() {
            mistake!("data.made.lists: `{name}`: its file holds nothing");
        }
        *list = List::Texts(texts);
    }
    Ok(())
}

/// `suites/basic/hellaswag.toml` -> `hellaswag`.
fn short(label: &str) -> &str {
    let name = last(label);
    name.strip_suffix(".toml").unwrap_or(name)
}

fn last(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// A file's name for errors, which ends as the file does, and its bytes.
type Source = (String, Cow<'static, [u8]>);

/// Files one after another are one data set.
fn read(files: Vec<Source>, layout: Layout<'_>) -> Result<(Vec<Value>, String)> {
    let (mut all, mut hashes) = (Vec::new(), Vec::new());
    for (label, bytes) in files {
        hashes.push(digest(&bytes));
        let rows = rows::parse(&label, bytes, layout)?;
        if all.is_empty() { all = rows } else { all.extend(rows) }
    }
    let more = layout.field.iter().map(|f| format!("field {f}"));
    let more = more.chain(layout.columns.iter().map(|c| format!("columns {c:?}")));
    let more = more.chain(layout.cut.iter().map(|c| format!("cut {c:?}")));
    hashes.extend(more);
    let hash = match hashes.len() {
        1 => hashes.remove(0),
        _ => digest(hashes.join("\n").as_bytes()),
    };
    Ok((all, hash))
}

/// sha256, in hex.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn local(folder: &Path, data: &FileData) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for name in data.path.names() {
        for path in matching(folder, name)? {
            let label = path.display().to_string();
            if path.is_dir() {
                mistake!("`{label}` is a folder: name its files, as in `{label}/*.parquet`");
            }
            let bytes = fs::read(&path).blame(format!("`{label}`"))?;
            files.push((label, bytes.into()));
        }
    }
    Ok(files)
}

/// The files that a path means: itself, or, where its last part has `*` or `?`, those that match, by name.
fn matching(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let path = folder.join(name);
    let wild = |text: &str| text.contains(['*', '?']);
    if !wild(name) || path.exists() {
        return Ok(vec![path]);
    }
    let glob = WildMatch::new(last(name));
    let parent = path.parent().unwrap_or(folder);
    if wild(&name[..name.len() - last(name).len()]) {
        mistake!("`{}`: `*` and `?` stand for files only, not for folders", path.display());
    }
    let entries = fs::read_dir(parent).blame(format!("`{}`", parent.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.blame(format!("`{}`", parent.display()))?;
        let hit = entry.file_name().to_str().is_some_and(|n| !n.starts_with('.') && glob.matches(n));
        if hit && entry.path().is_file() {
            found.push(entry.path());
        }
    }
    if found.is_empty() {
        mistake!("`{}`: no file has such a name", path.display());
    }
    found.sort();
    Ok(found)
}

fn inside(label: &str, suite: &str, data: &FileData) -> Result<Vec<Source>> {
    data.path
        .names()
        .iter()
        .map(|name| match super::find::embedded(&format!("{suite}/{name}")) {
            Some(bytes) => Ok((name.clone(), bytes.into())),
            None => mistake!(
                "`{label}` names `{name}`, which the program does not hold: point the task at a copy of your own, --set \
                 'data.{task}=PATH', or BITSWEEP_DATA=DIR with DIR/{task}/{name}",
                task = short(label)
            ),
        })
        .collect()
}

/// Files from the Hub, by way of its cache.
fn remote(data: &HubData, hub: &dyn Fn() -> Result<Hub>) -> Result<Vec<Source>> {
    let repo = RepoId::dataset(&data.repo, &data.revision)?;
    let names = data.file.names();
    if let Some(name) = names.iter().find(|name| rows::ending(name).is_none()) {
        mistake!(
            "`{name}` of {repo} is no file of data (.{}), and nothing is run to make some of it",
            rows::ENDINGS.join(" .")
        );
    }
    let hub = hub()?;
    names
        .iter()
        .map(|name| match hub.file(&repo, name)? {
            Some(path) => Ok((path.display().to_string(), fs::read(&path)?.into())),
            None => Err(missing(&hub, &repo, name)),
        })
        .collect()
}

/// A file that the repository has not: moved, or never there, because a script was to make it.
fn missing(hub: &Hub, repo: &RepoId, name: &str) -> anyhow::Error {
    let all = hub.files(repo).unwrap_or_default();
    let script = all.iter().find(|f| f.ends_with(".py"));
    let about = |f: &str| last(f).starts_with("dataset_info");
    let files: Vec<&str> =
        all.iter().map(String::as_str).filter(|f| rows::ending(f).is_some() && !about(f)).collect();
    let why = match (script, files.len()) {
        (Some(script), 0) => format!(
            ": it holds a script (`{script}`) that would fetch the data, and a script is never run. The Hub may have \
             converted it: name a commit of the branch refs/convert/parquet, and a file that is there"
        ),
        (_, 0) => String::new(),
        (_, n) => format!(
            "{}; it has: {}{}",
            nearest(name, files.iter().copied()),
            files[..n.min(12)].join(", "),
            if n > 12 { format!(", and {} more", n - 12) } else { String::new() }
        ),
    };
    anyhow::Error::new(Mistake(format!("{repo} has no file `{name}`{why}")))
}

/// What stands in for a task's data in the folder `root`: `TASK/FILE` for each of its files, FILE being its path as the
/// task has it, or the last part of that (`short`: a part is told from another by its path, which a file's name alone need
/// not do); or, for all items (`whole`), `TASK.jsonl`, with any ending that can be read.
fn below(root: &Path, task: &str, data: &Data, short: bool, whole: bool) -> Result<Option<Local>> {
    let (names, layout) = match data {
        Data::File(file) => (file.path.names(), file.layout()),
        Data::Hub(hub) => (hub.file.names(), hub.layout()),
        Data::Items(_) | Data::Made(_) | Data::Split(_) => (&[][..], Layout::default()),
    };
    let found = |folder: &Path, paths: Vec<String>| {
        let file = FileData::new(paths, layout);
        Ok(Some(Local { folder: folder.into(), file }))
    };
    let folder = root.join(task);
    if let Data::Split(split) = data {
        // A folder may hold several splits; a file alone is the items, or has what examples are drawn from in its name.
        let named = [format!("{}.*", split.split), format!("{}-*", split.split)];
        if let Some(name) = named.into_iter().find(|name| matching(&folder, name).is_ok()) {
            return found(&folder, vec![name]);
        }
    }
    let task = if let Data::Split(split) = data { split.task.as_str() } else { task };
    let within = |name: &str| Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    let there =
        |name: &&str| within(name) && matching(&folder, name).is_ok_and(|f| f.iter().all(|f| f.is_file()));
    let mut paths = Vec::new();
    let mut lacking = Vec::new();
    for name in names {
        let file = Some(last(name)).filter(|_| short);
        match std::iter::once(name.as_str()).chain(file).find(there) {
            Some(path) => paths.push(path.to_string()),
            None => lacking.push(last(name)),
        }
    }
    if !paths.is_empty() && lacking.is_empty() {
        return found(&folder, paths);
    }
    let mut alone = Vec::new();
    for entry in fs::read_dir(root).blame(format!("BITSWEEP_DATA `{}`", root.display()))? {
        let name = entry.blame(format!("BITSWEEP_DATA `{}`", root.display()))?.file_name();
        // Of a split, what examples are drawn from has a name of its own.
        let whole = whole || matches!(data, Data::Split(_));
        let Some(name) = name.to_str().filter(|_| whole) else { continue };
        let rest = name.strip_prefix(task).and_then(|rest| rest.strip_prefix('.'));
        // `TASK.jsonl`, and not `TASK.old.jsonl`.
        if rest.is_some_and(|rest| rows::ending(&format!("_.{rest}")).is_some_and(|e| rest.starts_with(e))) {
            alone.push(name.to_string());
        }
    }
    alone.sort();
    match alone.len() {
        0 if folder.is_dir() && !names.is_empty() => mistake!(
            "BITSWEEP_DATA: `{}` lacks {}, which stands in for the task's data",
            folder.display(),
            lacking.join(", ")
        ),
        0 => Ok(None),
        1 => found(root, alone),
        _ => mistake!("BITSWEEP_DATA: which is the data of `{task}`: {}?", alone.join(" or ")),
    }
}

//! The results folder: a finished cell is on disk before the next one starts.
//!
//! Items are written to a temporary file and renamed, then the record is appended and synced. A kill at any moment
//! leaves either a whole cell or none: a torn last line and an items file without a record are both dropped on opening.
use super::{Item, Record, Rule, SCHEMA, Status};
use anyhow::{Context, Result, bail, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// One study's results folder.
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// Opens or makes the folder, and finds out now whether it can be written, not after hours of work.
    pub fn create(dir: &Path) -> Result<Self> {
        let what = || format!("results folder `{}` cannot be written", dir.display());
        fs::create_dir_all(dir.join("items")).with_context(what)?;
        let store = Self { dir: dir.to_path_buf() };
        store.mend().with_context(what)?;
        Ok(store)
    }

    /// Opens a folder that must be there, for reading.
    pub fn open(dir: &Path) -> Result<Self> {
        let store = Self { dir: dir.to_path_buf() };
        ensure!(
            store.records_path().is_file(),
            "`{}` holds no records.jsonl: it is not a results folder; `bitsweep run` makes one",
            dir.display()
        );
        Ok(store)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn records_path(&self) -> PathBuf {
        self.dir.join("records.jsonl")
    }

    fn items_path(&self, cell: &str) -> PathBuf {
        self.dir.join("items").join(format!("{cell}.jsonl"))
    }

    /// Cuts a last line that a kill left unfinished.
    fn mend(&self) -> Result<()> {
        let mut file = lock(&self.records_path())?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        if whole < text.len() {
            file.set_len(whole as u64)?;
            file.sync_all()?;
        }
        Ok(())
    }

    /// Keeps other processes from writing to the folder until it is dropped.
    pub fn hold(&self) -> Result<File> {
        lock(&self.records_path())
    }

    /// Every record, the newest of each cell, in the file's order.
    pub fn records(&self) -> Result<Vec<Record>> {
        match self.records_path() {
            path if path.exists() => read_records(&path),
            _ => Ok(Vec::new()),
        }
    }
    /// The items of a finished cell. `None`: it left none (it failed, or the folder was trimmed).
    pub fn items(&self, cell: &str) -> Result<Option<Vec<Item>>> {
        read_items(&self.dir.join("items"), cell)
    }

    /// Whether a cell's items are there.
    pub fn has_items(&self, cell: &str) -> bool {
        self.items_path(cell).is_file()
    }

    /// Keeps the study's rules beside its records.
    pub fn set_rules(&self, rules: &[Rule]) -> Result<()> {
        let _held = self.hold()?;
        let mut text = serde_json::to_vec_pretty(rules)?;
        text.push(b'\n');
        replace(&self.dir.join("gates.json"), &text)
    }

    /// The study's rules; none where none were kept.
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let path = self.dir.join("gates.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("`{}`", path.display())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e).with_context(|| format!("reading `{}`", path.display())),
        }
    }

    /// Puts these records in place of all that are there, at once. They have no items: nobody ran them.
    pub fn fill(&self, records: &[Record]) -> Result<()> {
        let _held = self.hold()?;
        let mut text = String::new();
        for record in records {
            text.push_str(&serde_json::to_string(record)?);
            text.push('\n');
        }
        replace(&self.records_path(), text.as_bytes())
    }

    /// Puts a finished cell on disk: whole, or not at all.
    pub fn push(&self, record: &Record, items: &[Item]) -> Result<()> {
        let what = || format!("writing cell {} to `{}`", record.cell, self.dir.display());
        // Locked before the items are there: another shard that settles now would take them for orphans.
        let mut file = lock(&self.records_path()).with_context(what)?;
        if matches!(record.status, Status::Done { .. }) {
            let mut text = String::new();
            for item in items {
                text.push_str(&serde_json::to_string(item)?);
                text.push('\n');
            }
            replace(&self.items_path(&record.cell), text.as_bytes()).with_context(what)?;
        }
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        let end = file.seek(SeekFrom::End(0)).with_context(what)?;
        if let Err(e) = file.write_all(line.as_bytes()).and_then(|()| file.sync_all()) {
            // A full disk takes half a line: give it back, so that what was computed before stays readable.
            file.set_len(end).ok();
            return Err(e).with_context(what);
        }
        Ok(())
    }

    /// Puts records in the study's order, and drops superseded lines and orphaned items: afterwards the folder is
    /// byte for byte that of an uninterrupted run. Cells of other shards or older studies keep their place after it.
    pub fn settle(&self, order: &[String]) -> Result<()> {
        let mut file = lock(&self.records_path())?;
        let mut records = self.records()?;
        let rank: BTreeMap<&str, usize> = order.iter().enumerate().map(|(i, c)| (c.as_str(), i)).collect();
        // A failure that was mended by other weights or data has another hash, and would stay for ever.
        let question = |r: &Record| {
            let names = [&r.model.name, &r.recipe.name, &r.task.suite, &r.task.name].map(String::clone);
            (names, r.made_by.limit, r.made_by.seed)
        };
        let done: BTreeSet<_> =
            records.iter().filter(|r| matches!(r.status, Status::Done { .. })).map(question).collect();
        let mended = |r: &Record| {
            let failed = matches!(r.status, Status::Failed { .. });
            failed && !rank.contains_key(r.cell.as_str()) && done.contains(&question(r))
        };
        records.retain(|r| !mended(r));
        records.sort_by_key(|r| rank.get(r.cell.as_str()).copied().unwrap_or(usize::MAX));
        let mut text = String::new();
        for record in &records {
            text.push_str(&serde_json::to_string(record)?);
            text.push('\n');
        }
        let mut now = String::new();
        file.rewind()?;
        file.read_to_string(&mut now)?;
        if now != text {
            replace(&self.records_path(), text.as_bytes())?;
        }
        let known: BTreeSet<String> = records
            .iter()
            .filter(|r| matches!(r.status, Status::Done { .. }))
            .map(|r| format!("{}.jsonl", r.cell))
            .collect();
        for (folder, items) in [(self.dir.clone(), false), (self.dir.join("items"), true)] {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let orphan = items && name.ends_with(".jsonl") && !known.contains(&name);
                // Whoever is writing holds the lock: a temporary file now is one that a kill left. Only such names as
                // this program writes: the folder may be somebody's, with other files in it.
                let ours = [".jsonl", ".csv", ".md", ".html", ".svg", ".png", "gates.json"];
                let left =
                    name.strip_suffix(".tmp").is_some_and(|n| items || ours.iter().any(|o| n.ends_with(o)));
                if left || orphan {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// Every record of a file, the newest of each cell, in the file's order.
pub fn read_records(path: &Path) -> Result<Vec<Record>> {
    let text = fs::read(path).with_context(|| format!("reading `{}`", path.display()))?;
    let lines = || text.split(|&b| b == b'\n');
    let mut records: Vec<Record> = Vec::new();
    let mut place = BTreeMap::new();
    let last = lines().count();
    for (number, line) in lines().enumerate().filter(|(_, l)| !l.trim_ascii().is_empty()) {
        let record: Record = match serde_json::from_slice(line) {
            Ok(record) => record,
            // Somebody else may be appending it right now.
            Err(_) if number + 1 == last => break,
            Err(e) => bail!("`{}` line {}: not a record: {e}", path.display(), number + 1),
        };
        ensure!(
            record.schema == SCHEMA,
            "`{}` line {}: schema {}, this bitsweep reads {SCHEMA}",
            path.display(),
            number + 1,
            record.schema
        );
        ensure!(
            !record.cell.is_empty() && record.cell.bytes().all(|b| b.is_ascii_alphanumeric()),
            "`{}` line {}: `cell` is not a hash: `{}`",
            path.display(),
            number + 1,
            record.cell
        );
        match place.get(&record.cell) {
            Some(&i) => records[i] = record,
            None => {
                place.insert(record.cell.clone(), records.len());
                records.push(record);
            }
        }
    }
    Ok(records)
}

/// The items of a finished cell in a folder of them. `None`: there are none.
pub fn read_items(folder: &Path, cell: &str) -> Result<Option<Vec<Item>>> {
    let path = folder.join(format!("{cell}.jsonl"));
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading `{}`", path.display())),
    };
    let item = |(i, line)| {
        serde_json::from_str(line)
            .with_context(|| format!("`{}` line {}: not an item", path.display(), i + 1))
    };
    text.lines().enumerate().map(item).collect::<Result<_>>().map(Some)
}

/// The file, made if need be, locked until dropped: shards on one machine share a folder.
fn lock(path: &Path) -> Result<File> {
    loop {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.lock()?;
        // `settle` may have put another file in its place while this one waited.
        if same_file(&file, path) {
            return Ok(file);
        }
    }
}

#[cfg(unix)]
fn same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let key = |m: &fs::Metadata| (m.dev(), m.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if key(&a) == key(&b))
}
#[cfg(not(unix))]
fn same_file(_: &File, _: &Path) -> bool {
    true
}

/// Writes a file whole or not at all.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
        .with_context(|| format!("writing `{}`", path.display()))
}

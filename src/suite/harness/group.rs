//! Groups of lm-evaluation-harness: a list of names, each a task, a group or a tag of some file in the group's folder,
//! or tables that say so with other settings.
//!
//! A group's tasks are a suite by its name. What the group says of none of its own keys, each of its tasks says.
use super::{
    super::{
        find::Found,
        yaml::{Node, Table},
    },
    config::{self, Config},
};
use crate::{mistake, mistake::nearest};
use anyhow::Result;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A group's own keys.
const KEYS: &[&str] =
    &["group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag", "include"];
/// Groups in one another.
const LEVELS: usize = 16;
/// Files and folders below a group's folder that are looked at.
const FILES: usize = 1 << 16;
/// Tasks of a group.
const TASKS: usize = 1 << 12;
/// Members that are looked up, each as often as groups name it.
const MEMBERS: usize = 1 << 13;

/// The tasks of a group's file.
pub fn tasks(config: &Config) -> Result<Vec<Found>> {
    let named = match config.get("group") {
        Some(Node::Text(name)) if !name.is_empty() && !name.contains(['/', '\\']) => Some(name.clone()),
        Some(other) => {
            mistake!("{} is {}; it is one name, without a slash", config.at("group"), other.words())
        }
        // The harness had no name for it at first.
        None => config.path.file_stem().map(|s| s.to_string_lossy().into_owned()),
    };
    let suite = named.unwrap_or_default();
    let mut walk = Walk { suite, index: None, folder: folder(&config.path), members: 0, found: Vec::new() };
    walk.group(config, &Table::default(), 0)?;
    if walk.found.is_empty() {
        mistake!("{}: the group has no task", config.at("task"));
    }
    Ok(walk.found)
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => ".".into(),
    }
}

struct Walk {
    suite: String,
    folder: PathBuf,
    /// Made when the first name is looked up.
    index: Option<Index>,
    members: usize,
    found: Vec<Found>,
}

/// What the files of a folder are called.
#[derive(Default)]
struct Index {
    files: BTreeMap<String, PathBuf>,
    tags: BTreeMap<String, BTreeSet<String>>,
}

impl Walk {
    /// `over`: what groups around this one say of its tasks.
    fn group(&mut self, c: &Config, over: &Table, level: usize) -> Result<()> {
        if level > LEVELS {
            mistake!("{}: more than {LEVELS} groups in one another, or a group in itself", c.at("group"));
        }
        aggregates(c)?;
        let mut settings = Table::default();
        let own = c.table.0.iter().filter(|(key, _)| !KEYS.contains(&key.as_str()));
        settings.over(own.chain(&over.0));
        let members = match c.get("task") {
            Some(Node::List(list)) => list.clone(),
            Some(one @ Node::Text(_)) if c.get("doc_to_target").is_none() => vec![one.clone()],
            Some(_) => mistake!(
                "{}: beside one `task` of its own a `group` is a name for several tasks, which is `tag` by now",
                c.at("group")
            ),
            None => mistake!("`{}`: a group has its tasks in `task`", c.label()),
        };
        for member in members {
            self.member(c, member, &settings, level)?;
        }
        Ok(())
    }

    fn member(&mut self, c: &Config, member: Node, settings: &Table, level: usize) -> Result<()> {
        let at = c.at("task");
        let (name, mut own) = match member {
            Node::Text(name) => (name, Table::default()),
            Node::Table(table) => {
                let key = if table.get("group").is_some() { "group" } else { "task" };
                match table.get(key) {
                    Some(Node::Text(name)) => (name.clone(), table),
                    _ => mistake!("{at} holds a table without a `task` or a `group`"),
                }
            }
            other => mistake!("{at} holds {}; it is a list of names and tables", other.words()),
        };
        let inline = own.clone();
        own.0.retain(|(key, _)| !["task", "group"].contains(&key.as_str()));
        let mut all = settings.clone();
        all.over(&own.0);
        if inline.get("group").is_some() && inline.get("task").is_some() && !self.index()?.has(&name) {
            // A group that is written out here.
            self.visit(&at)?;
            let mut group = c.clone();
            group.table = inline;
            return self.group(&group, settings, level + 1);
        }
        self.named(c, &name, &all, level, !inline.0.is_empty())
    }

    fn named(&mut self, c: &Config, name: &str, all: &Table, level: usize, inline: bool) -> Result<()> {
        let at = c.at("task");
        self.visit(&at)?;
        if let Some(path) = self.index()?.files.get(name).cloned() {
            let mut config = Config::load(&path)?;
            if config.get("group").is_some() {
                return self.group(&config, all, level + 1);
            }
            config.overlay(all, &c.label());
            return self.add(super::task(&config, &self.suite, Some(name))?, &at);
        }
        if let Some(names) = self.index()?.tags.get(name).cloned() {
            return names.iter().try_for_each(|name| self.named(c, name, all, level + 1, false));
        }
        if inline && all.get("doc_to_target").is_some() {
            let mut config = c.clone();
            config.table = all.clone();
            return self.add(super::task(&config, &self.suite, Some(name))?, &at);
        }
        let close = nearest(name, self.index()?.files.keys().map(String::as_str));
        mistake!("{at}: no file below `{}` is the task, group or tag `{name}`{close}", self.folder.display())
    }

    /// One member more: groups that name one another can make very many of few files.
    fn visit(&mut self, at: &str) -> Result<()> {
        self.members += 1;
        if self.members > MEMBERS {
            mistake!("{at}: more than {MEMBERS} members, each as often as a group names it");
        }
        Ok(())
    }

    fn add(&mut self, found: Found, at: &str) -> Result<()> {
        if self.found.len() >= TASKS {
            mistake!("{at}: more than {TASKS} tasks");
        }
        match self.found.iter().find(|other| other.name == found.name) {
            None => self.found.push(found),
            Some(other) if other.task == found.task => {}
            Some(_) => mistake!("{at}: `{}` comes twice, with different settings", found.name),
        }
        Ok(())
    }

    fn index(&mut self) -> Result<&Index> {
        let index = match self.index.take() {
            Some(index) => index,
            None => Index::of(&self.folder)?,
        };
        Ok(self.index.insert(index))
    }
}

impl Index {
    fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.tags.contains_key(name)
    }

    /// Of every `.yaml` file below a folder that can be read; the first by path keeps a name.
    fn of(folder: &Path) -> Result<Self> {
        let (mut index, mut paths, mut left) = (Self::default(), Vec::new(), vec![folder.to_path_buf()]);
        let mut seen = 0;
        while let Some(folder) = left.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                seen += 1;
                if seen > FILES {
                    mistake!(
                        "`{}`: more than {FILES} files, among which a group's are to be found",
                        folder.display()
                    );
                }
                let path = entry.path();
                let name = entry.file_name();
                let name = name.to_string_lossy();
                // A link to a folder can lead back.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && !name.starts_with('.') && name != "__pycache__" => {
                        left.push(path)
                    }
                    Ok(kind) if !kind.is_dir() && name.ends_with(".yaml") => paths.push(path),
                    _ => {}
                }
            }
        }
        paths.sort();
        for path in paths {
            let Ok(config) = Config::load(&path) else { continue };
            let name = match (config.get("group"), config.get("task")) {
                (Some(Node::Text(name)), _) | (None, Some(Node::Text(name))) => name.clone(),
                _ => continue,
            };
            if index.files.contains_key(&name) {
                continue;
            }
            if let Some(tags) = config.get("tag").filter(|_| config.get("group").is_none()) {
                for tag in config::texts("tag", tags).unwrap_or_default() {
                    index.tags.entry(tag).or_default().insert(name.clone());
                }
            }
            index.files.insert(name, path);
        }
        Ok(index)
    }
}

/// `aggregate_metric_list` is read, that a slip in it shows; what it asks for is drawn from the tasks' records.
fn aggregates(c: &Config) -> Result<()> {
    const KNOWN: &[&str] = &["metric", "filter_list", "aggregation", "weight_by_size"];
    let list = match c.get("aggregate_metric_list") {
        None => return Ok(()),
        Some(Node::List(list)) => list.clone(),
        Some(one) => vec![one.clone()],
    };
    let at = c.at("aggregate_metric_list");
    for node in list {
        let Node::Table(table) = node else {
            mistake!("{at} holds {}; it is a list of tables", node.words())
        };
        for (key, node) in &table.0 {
            match (key.as_str(), node) {
                (_, Node::Function(name)) => {
                    mistake!("{at}: `!function {name}` is Python, which is never run here")
                }
                ("aggregation", Node::Text(text)) if text == "mean" => {}
                ("aggregation", other) => mistake!("{at}: `aggregation` is {}; it is mean", other.words()),
                ("weight_by_size", Node::Bool(_)) | ("metric" | "filter_list", _) => {}
                ("weight_by_size", other) => {
                    mistake!("{at}: `weight_by_size` is {}; it is true or false", other.words())
                }
                _ => mistake!(
                    "{at}: no such key `{key}`{}; there are: {}",
                    nearest(key, KNOWN.iter().copied()),
                    KNOWN.join(", ")
                ),
            }
        }
    }
    Ok(())
}

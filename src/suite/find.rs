//! Where task files are: beside the study, or in the suites that are part of the program.
use super::{data::Place, harness, task::Task};
use crate::{mistake, mistake::Blame, mistake::nearest};
use anyhow::Result;
use include_dir::{Dir, include_dir};
use std::path::Path;
use wildmatch::WildMatch;

static SUITES: Dir = include_dir!("$CARGO_MANIFEST_DIR/suites");

/// A task with its names.
#[derive(Clone, Debug)]
pub struct Found {
    /// The folder's name; empty for a file of one's own.
    pub suite: String,
    /// The file's stem; of one part of a task, with `/` and the part behind it.
    pub name: String,
    /// What errors call it.
    pub label: String,
    /// The file, parsed.
    pub task: Task,
    /// What its paths are relative to.
    pub place: Place,
}

impl Found {
    /// `suite/name`, or the name alone.
    pub fn full_name(&self) -> String {
        if self.suite.is_empty() { self.name.clone() } else { format!("{}/{}", self.suite, self.name) }
    }

    /// The file's stem.
    pub fn file_name(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// A file that is part of the program, by its path under `suites/`.
pub fn embedded(path: &str) -> Option<&'static [u8]> {
    SUITES.get_file(path).map(|f| f.contents())
}

/// Every built-in task's `suite/name`, in order.
pub fn built_in() -> Vec<String> {
    let mut names: Vec<String> = SUITES
        .dirs()
        .flat_map(|d| d.files())
        .filter_map(|f| f.path().to_str()?.replace('\\', "/").strip_suffix(".toml").map(str::to_string))
        .collect();
    names.sort();
    names
}

/// The tasks that a study's word means: `microworld/facts`, `microworld/*`, one part of a task (`emergent/mmlu/virology`,
/// `emergent/mmlu/*`), or a path to a `.toml` file or to one of lm-evaluation-harness's `.yaml`.
pub fn find(word: &str, folder: &Path) -> Result<Vec<Found>> {
    if word.ends_with(".toml") {
        let path = folder.join(word);
        let label = path.display().to_string();
        let text = std::fs::read_to_string(&path).blame(format!("task `{label}`"))?;
        let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        let place = Place::Folder(path.parent().unwrap_or(Path::new("")).to_path_buf());
        return Ok(vec![Found {
            suite: String::new(),
            name,
            task: Task::parse(&label, &text)?,
            label,
            place,
        }]);
    }
    if word.ends_with(".yaml") || word.ends_with(".yml") {
        return harness::find(&folder.join(word));
    }
    if let (Some((task, part)), true) = (word.rsplit_once('/'), word.matches('/').count() > 1) {
        return parts(word, task, part, folder);
    }
    let all = built_in();
    let glob = WildMatch::new(word);
    let found: Vec<&String> = all.iter().filter(|name| glob.matches(name)).collect();
    if found.is_empty() {
        let names = all.iter().map(String::as_str);
        mistake!(
            "no task `{word}`{}; there are: {}; or a path to a .toml or .yaml file",
            nearest(word, names),
            all.join(", ")
        );
    }
    found
        .into_iter()
        .map(|full| {
            let (suite, name) = full.split_once('/').unwrap_or(("", full));
            let label = format!("suites/{full}.toml");
            let text = embedded(&format!("{full}.toml")).map(String::from_utf8_lossy).unwrap_or_default();
            Ok(Found {
                suite: suite.into(),
                name: name.into(),
                task: Task::parse(&label, &text)?,
                label,
                place: Place::Inside(suite.into()),
            })
        })
        .collect()
}

/// Parts of a task, each as a task of its own.
fn parts(word: &str, task: &str, part: &str, folder: &Path) -> Result<Vec<Found>> {
    let (glob, mut picked, mut names) = (WildMatch::new(part), Vec::new(), Vec::new());
    for whole in find(task, folder)? {
        for (name, title) in &whole.task.parts {
            names.push(name.clone());
            if glob.matches(name) {
                let mut found = whole.clone();
                found.task.parts = [(name.clone(), title.clone())].into_iter().collect();
                found.name = format!("{}/{name}", whole.name);
                picked.push(found);
            }
        }
    }
    if picked.is_empty() {
        let close = nearest(part, names.iter().map(String::as_str));
        let there = if names.is_empty() {
            "it has no parts".into()
        } else {
            format!("there are: {}", names.join(", "))
        };
        mistake!("no task `{word}`{close}: of `{task}`, {there}");
    }
    Ok(picked)
}

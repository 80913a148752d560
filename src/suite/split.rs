//! A split of a dataset on the Hub, found among the repository's files where the `datasets` library finds it: where the
//! README's `configs` say, else by the names that the Hub's converter and its uploads give.
use super::{
    task::{HubData, Names},
    yaml::{self, Node, Table},
};
use crate::{
    hub::{Hub, RepoId},
    mistake,
    mistake::{Blame, nearest},
};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fs};
use wildmatch::WildMatch;

/// `[data.split]`: as lm-evaluation-harness's tasks name their data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// `org/name`.
    pub repo: String,
    /// A commit. Without one, the data is a copy of the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Of the dataset's configurations; without it, the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// `test`, `validation`, `train`.
    pub split: String,
    /// As `--set data.TASK` calls it.
    pub task: String,
}

impl Split {
    /// Mistakes that show without a look at the repository.
    pub fn check(&self) -> Result<()> {
        let any = "0".repeat(40);
        RepoId::dataset(&self.repo, self.revision.as_ref().unwrap_or(&any)).blame("dataset").map(|_| ())
    }

    /// Where a copy of one's own can stand.
    pub fn own(&self) -> String {
        let task = &self.task;
        format!(
            "point the task at a copy of your own: --set 'data.{task}=PATH', or BITSWEEP_DATA=DIR with DIR/{task}.jsonl \
             or DIR/{}/{}.parquet",
            task.strip_suffix(POOL).unwrap_or(task),
            self.split
        )
    }

    /// Its files.
    pub fn files(&self, hub: &dyn Fn() -> Result<Hub>) -> Result<HubData> {
        let Some(revision) = &self.revision else {
            mistake!(
                "the dataset {} names no commit, and what a branch holds can change: say `dataset_kwargs: \
                 {{revision: COMMIT}}` (40 hexadecimal digits; they are listed at \
                 https://huggingface.co/datasets/{}/commits/main, those of its conversion to Parquet under \
                 refs%2Fconvert%2Fparquet in place of main)",
                self.repo,
                self.repo
            )
        };
        let repo = RepoId::dataset(&self.repo, revision)?;
        let hub = hub()?;
        let card = match hub.file(&repo, "README.md")? {
            Some(path) => fs::read(path)?,
            None => Vec::new(),
        };
        let Some(mut all) = hub.files(&repo) else {
            mistake!(
                "{repo}: its files cannot be listed (offline, or the server does not say): name them in \
                 `dataset_kwargs: {{data_files: ...}}`"
            )
        };
        all.sort();
        let file = self.among(&all, &card)?;
        let revision = revision.clone();
        Ok(HubData { repo: self.repo.clone(), revision, file: Names::Many(file), ..HubData::default() })
    }

    /// The split's files among all.
    pub fn among(&self, all: &[String], card: &[u8]) -> Result<Vec<String>> {
        if let Some(patterns) = self.said(card)? {
            let files = matching(all, &patterns);
            if files.is_empty() {
                mistake!("{}: no file is called {}, as its README says", self.repo, patterns.join(" or "));
            }
            return Ok(of_one_format(files));
        }
        let split = &self.split;
        let folders = match &self.config {
            Some(config) => vec![format!("{config}/"), format!("data/{config}/")],
            None => vec!["default/".into(), "data/".into(), String::new()],
        };
        for folder in &folders {
            for pattern in [
                format!("{folder}{split}/*.parquet"),
                format!("{folder}{split}-*"),
                format!("{folder}{split}.*"),
            ] {
                let files: Vec<String> = matching(all, std::slice::from_ref(&pattern))
                    .into_iter()
                    .filter(|name| super::rows::ending(name).is_some())
                    .collect();
                if !files.is_empty() {
                    return Ok(of_one_format(files));
                }
            }
        }
        let data: Vec<&str> =
            all.iter().map(String::as_str).filter(|f| super::rows::ending(f).is_some()).collect();
        let script = if all.iter().any(|f| f.ends_with(".py")) && data.is_empty() {
            "; it is a script, which is never run: the commits of refs/convert/parquet hold what it makes"
        } else {
            ""
        };
        mistake!(
            "{}: which files are the split `{split}`{} does not show{script}; it has: {}{}. Name them in \
             `dataset_kwargs: {{data_files: ...}}`",
            self.repo,
            self.config.as_ref().map_or(String::new(), |c| format!(" of `{c}`")),
            data[..data.len().min(12)].join(", "),
            if data.len() > 12 { format!(", and {} more", data.len() - 12) } else { String::new() }
        )
    }

    /// What the README's `configs` say of the split.
    fn said(&self, card: &[u8]) -> Result<Option<Vec<String>>> {
        // Most of what stands at the head of a README is no business of ours, its mistakes neither.
        let Some(configs) = front(card).and_then(|head| tables(head.get("configs"))) else { return Ok(None) };
        let name = |t: &Table| text(t.get("config_name")).unwrap_or_else(|| "default".into());
        let chosen = match &self.config {
            Some(config) => configs.iter().find(|t| name(t) == *config),
            None if configs.len() == 1 => configs.first(),
            None => configs
                .iter()
                .find(|t| t.get("default") == Some(&Node::Bool(true)))
                .or(configs.iter().find(|t| name(t) == "default")),
        };
        let names: Vec<String> = configs.iter().map(name).collect();
        let Some(config) = chosen else {
            match &self.config {
                Some(config) => mistake!(
                    "{} has no configuration `{config}`{}; there are: {}",
                    self.repo,
                    nearest(config, names.iter().map(String::as_str)),
                    names.join(", ")
                ),
                None => mistake!("{}: say `dataset_name`; there are: {}", self.repo, names.join(", ")),
            }
        };
        let files = match config.get("data_files") {
            None => return Ok(None),
            Some(Node::List(list)) if list.iter().any(|n| matches!(n, Node::Table(_))) => list,
            Some(node) => return Ok(several(node).filter(|_| self.split == "train")),
        };
        let mut splits = Vec::new();
        for node in files {
            let Node::Table(table) = node else { continue };
            let split = text(table.get("split")).unwrap_or_else(|| "train".into());
            if split == self.split {
                return Ok(table.get("path").and_then(several));
            }
            splits.push(split);
        }
        mistake!(
            "{}: no split `{}`{}; there are: {}",
            self.repo,
            self.split,
            nearest(&self.split, splits.iter().map(String::as_str)),
            splits.join(", ")
        )
    }
}

/// What stands behind a task's name, of the data that its examples are drawn from.
pub const POOL: &str = "-fewshot";

/// The table between the first two lines of dashes.
fn front(card: &[u8]) -> Option<Table> {
    let text = std::str::from_utf8(card).ok()?.replace("\r\n", "\n");
    let (head, _) = text.strip_prefix("---\n")?.split_once("\n---")?;
    yaml::parse(head.as_bytes()).ok()
}

fn text(node: Option<&Node>) -> Option<String> {
    match node? {
        Node::Text(text) => Some(text.clone()),
        Node::Int(n) => Some(n.to_string()),
        _ => None,
    }
}

fn several(node: &Node) -> Option<Vec<String>> {
    match node {
        Node::List(list) => list.iter().map(|n| text(Some(n))).collect(),
        node => Some(vec![text(Some(node))?]),
    }
}

fn tables(node: Option<&Node>) -> Option<Vec<Table>> {
    let Node::List(list) = node? else { return None };
    list.iter().map(|n| if let Node::Table(t) = n { Some(t.clone()) } else { None }).collect()
}

/// The files that any of the patterns means, pattern by pattern.
fn matching(all: &[String], patterns: &[String]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for pattern in patterns {
        let pattern: Vec<&str> = pattern.trim_start_matches("./").split('/').collect();
        for name in all {
            let parts: Vec<&str> = name.split('/').collect();
            if matches(&pattern, &parts) && !found.contains(name) {
                found.push(name.clone());
            }
        }
    }
    found
}

/// Of several formats the commonest, the first of equals in the order of `datasets`: an upload often has its items in more
/// than one. What is in no format that is known stays, and is a mistake later.
fn of_one_format(mut files: Vec<String>) -> Vec<String> {
    const ORDER: [&str; 4] = ["parquet", "jsonl", "json", "csv"];
    // Endings that one reader reads.
    let reader = |ending: &'static str| match ending {
        "jsonl" => "json",
        "tsv" => "csv",
        "raw" | "tokens" => "txt",
        other => other,
    };
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    files.iter().filter_map(|f| super::rows::ending(f)).for_each(|e| *counts.entry(e).or_default() += 1);
    let rank = |e: &str| ORDER.len() - ORDER.iter().position(|o| *o == e).unwrap_or(ORDER.len());
    let Some((first, _)) = counts.iter().max_by_key(|(e, n)| (**n, rank(e))) else { return files };
    files.retain(|f| super::rows::ending(f).is_none_or(|e| reader(e) == reader(first)));
    files
}

/// `*` stands for part of a name, `**` for folders.
fn matches(pattern: &[&str], parts: &[&str]) -> bool {
    // Each way through the pattern that is still open, by its length.
    let mut open = vec![true];
    open.resize(parts.len() + 1, false);
    for piece in pattern {
        let mut next = vec![false; parts.len() + 1];
        for at in 0..=parts.len() {
            if *piece == "**" {
                next[at] = open[at] || at > 0 && next[at - 1];
            } else if at > 0 {
                next[at] = open[at - 1] && WildMatch::new(piece).matches(parts[at - 1]);
            }
        }
        open = next;
    }
    open[parts.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(config: Option<&str>, split: &str) -> Split {
        Split {
            repo: "org/name".into(),
            revision: None,
            config: config.map(str::to_string),
            split: split.into(),
            task: "t".into(),
        }
    }

    #[test]
    fn files_are_found_as_datasets_finds_them() {
        let list = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        let card = b"---\nlicense: mit\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n\
                     \x20 - split: test\n    path:\n    - main/test-*\n    - more/**/t?st.parquet\n- config_name: other\n  default: true\n\
                     \x20 data_files: other/*.csv\n---\n# Text\n";
        let all = list(&[
            "README.md",
            "main/test-00000-of-00002.parquet",
            "main/test-00001-of-00002.parquet",
            "main/deeper/test-0.parquet",
            "main/train-00000-of-00001.parquet",
            "more/a/b/test.parquet",
            "more/test.parquet",
            "other/a.csv",
        ]);
        let test = split(Some("main"), "test").among(&all, card).unwrap();
        let want = [&all[1], &all[2], &all[5], &all[6]];
        assert_eq!(test.iter().collect::<Vec<_>>(), want);
        assert_eq!(split(None, "train").among(&all, card).unwrap(), [all[7].as_str()]);
        for (config, name, says) in [
            (Some("main"), "validation", "no split `validation`; there are: train, test"),
            (Some("mian"), "test", "did you mean `main`"),
        ] {
            let e = split(config, name).among(&all, card).unwrap_err().to_string();
            assert!(e.contains(says), "{e}");
        }
        // Without a README: the converter's folders, an upload's names, a file a split.
        let all =
            list(&["a/test/0000.parquet", "a/test/0001.parquet", "a/train/0000.parquet", "b/test-0.parquet"]);
        assert_eq!(split(Some("a"), "test").among(&all, b"").unwrap(), all[..2]);
        assert_eq!(split(Some("b"), "test").among(&all, b"---\nx: [\n---").unwrap(), all[3..]);
        // The same items in several formats are asked once.
        let all = list(&["test.csv", "test.json", "test.jsonl", "test.parquet", "test.txt"]);
        assert_eq!(split(None, "test").among(&all, b"").unwrap(), all[3..4]);
        assert_eq!(split(None, "test").among(&all[..3], b"").unwrap(), all[1..3]);
        let all = list(&["test-0.csv", "test-1.csv", "test-2.parquet", "test-notes.md"]);
        assert_eq!(split(None, "test").among(&all, b"").unwrap(), all[..2]);
        let card = b"---\nconfigs:\n- config_name: a\n  data_files:\n  - split: test\n    path: test*\n---\n";
        let said = split(None, "test").among(&all, card).unwrap();
        assert_eq!(said, [all[0].as_str(), &all[1], &all[3]]);
        let all = list(&["data/test.jsonl", "test.py"]);
        assert_eq!(split(None, "test").among(&all, b"# no head").unwrap(), all[..1]);
        let e = split(None, "test").among(&all[1..], b"").unwrap_err().to_string();
        assert!(e.contains("never run"), "{e}");
    }
}

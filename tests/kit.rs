//! Tiny models, studies and runs of the program, for tests that see it from outside.
use crate::common::{bitsweep, repo};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a run of the program left on its streams.
pub struct Ran {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// stdout.
    pub out: String,
    /// stderr.
    pub err: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended with this code, and did not panic.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert!(
            self.code == Some(code) && self.sound(),
            "exit code {:?}, not {code}\nstdout: {}\nstderr: {}",
            self.code,
            self.out,
            self.err
        );
        self
    }

    /// No panic, no signal.
    pub fn sound(&self) -> bool {
        self.code.is_some_and(|c| (0..=2).contains(&c)) && !self.err.contains("panicked")
    }

    /// stderr says all of this.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "stderr does not say `{part}`:\n{}", self.err);
        }
        self
    }
}

/// A folder of the test's own, with files as a user would have them, gone afterwards.
pub struct Desk {
    folder: tempfile::TempDir,
}

/// A task file over `text.txt`.
pub const TEXT: &str = "about = 'A text'\nversion = 1\nmetrics = ['perplexity']\n[data.file]\npath = 'text.txt'\n\
                        [ask.perplexity]\nwindow = 16\n";
/// A task file over `quiz.jsonl`.
pub const QUIZ: &str = "about = 'A quiz'\nversion = 1\nmetrics = ['acc', 'acc_norm']\n[data.file]\n\
                        path = 'quiz.jsonl'\n[ask.choice]\nprompt = '{{ prompt }}'\nendings = '{{ endings }}'\n\
                        gold = '{{ gold }}'\n";

impl Desk {
    /// An empty folder.
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Two models (`m`, `n`), two tasks (`text.toml`, `quiz.toml`) and a study of them.
    pub fn new() -> Self {
        let desk = Self::empty();
        desk.model("m", "llama/bf16");
        desk.model("n", "gpt2/scaled");
        let text: String =
            (0..12).map(|i| format!("the {} cat sat. a dog {} ran\n", "big ".repeat(i % 3), i)).collect();
        desk.write("text.txt", text);
        let quiz: Vec<String> = (0..10)
            .map(|i| {
                let word = ["cat", "dog", "sun", "map", "inn"][i % 5];
                json!({ "prompt": format!("{i} the {word}"), "endings": ["ran", "sat", "fell"], "gold": i % 3 })
                    .to_string()
            })
            .collect();
        desk.write("quiz.jsonl", quiz.join("\n"));
        desk.write("text.toml", TEXT);
        desk.write("quiz.toml", QUIZ);
        desk.study(&["m", "n"], &["full", "w4", "w8a8", "kv4"], &["text.toml", "quiz.toml"]);
        desk
    }

    /// One model, one task, full precision: the least that runs.
    pub fn small() -> Self {
        let desk = Self::new();
        desk.study(&["m"], &[], &["text.toml"]);
        desk
    }

    /// Writes `study.toml`.
    pub fn study(&self, models: &[&str], recipes: &[&str], tasks: &[&str]) -> PathBuf {
        self.write(
            "study.toml",
            format!(
                "about = 'A test'\nmodels = {models:?}\nrecipes = {recipes:?}\ntasks = {tasks:?}\n\
                 calibrate = {{ data = 'text.toml', samples = 3, length = 12 }}\n"
            ),
        )
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The same, as an argument.
    pub fn arg(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes a file, folders as needed.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Changes a JSON file.
    pub fn edit_json(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value: Value = serde_json::from_str(&self.read(name)).unwrap();
        change(&mut value);
        self.write(name, value.to_string());
    }

    /// Changes a safetensors file: its header, and the bytes behind it.
    pub fn edit_tensors(&self, name: &str, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
        let (mut header, mut data) = safetensors(&fs::read(self.path(name)).unwrap());
        change(&mut header, &mut data);
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        self.write(name, bytes);
    }

    /// A model's folder: a fixture's files and a tokenizer of one token a character.
    pub fn model(&self, name: &str, fixture: &str) {
        for entry in fs::read_dir(repo("tests/fixtures").join(fixture)).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap();
            if !file.starts_with("expected") {
                self.write(&format!("{name}/{file}"), fs::read(&path).unwrap());
            }
        }
        self.write(&format!("{name}/tokenizer.json"), tokenizer(42));
    }

    /// The program, at home in this folder and nowhere else.
    pub fn bitsweep(&self, args: &[&str]) -> Command {
        let mut command = bitsweep();
        command.args(args).current_dir(self.folder.path());
        for name in ["BITSWEEP_DATA", "HF_ENDPOINT", "HF_TOKEN", "RAYON_NUM_THREADS", "RUST_BACKTRACE"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", self.folder.path().join("hub")).env("HF_HUB_OFFLINE", "1");
        command
    }

    /// Runs it.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.bitsweep(args))
    }

    /// Runs `study.toml` into `out`.
    pub fn go(&self) -> Ran {
        self.run(&["run", &self.arg("study.toml"), "--out", &self.arg("out")])
    }

    /// The records of `out`.
    pub fn records(&self) -> Vec<Value> {
        records(&self.path("out"))
    }
}

/// The records of a results folder.
pub fn records(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("records.jsonl")).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// `model/recipe/task` of a record.
pub fn cell(record: &Value) -> String {
    let part = |a: &str| record[a]["name"].as_str().unwrap().to_string();
    format!("{}/{}/{}", part("model"), part("recipe"), part("task"))
}

/// The metrics of each finished cell.
pub fn values(records: &[Value]) -> BTreeMap<String, Value> {
    records.iter().filter(|r| r["status"] == "done").map(|r| (cell(r), r["metrics"].clone())).collect()
}

/// A tokenizer with `tokens` ids, one a character.
pub fn tokenizer(tokens: usize) -> String {
    let mut names: Vec<String> = ["[UNK]", "<s>", "</s>"].map(String::from).into();
    names.extend("abcdefghijklmnopqrstuvwxyz0123456789 .\n".chars().map(String::from));
    names.extend((names.len()..tokens).map(|i| format!("<{i}>")));
    let vocab: serde_json::Map<String, Value> =
        names.into_iter().take(tokens).enumerate().map(|(i, n)| (n, json!(i))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": "[\\s\\S]" }, "behavior": "Isolated", "invert": false,
        },
        "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    })
    .to_string()
}

/// A safetensors file's header, and the bytes behind it.
pub fn safetensors(bytes: &[u8]) -> (Value, Vec<u8>) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), bytes[8 + length..].to_vec())
}

/// Every file of a folder by its path, wall-clock seconds taken out: what must be the same from run to run.
pub fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            let bytes = fs::read(&path).unwrap();
            let bytes = match name.as_str() {
                "records.jsonl" => timeless(&String::from_utf8(bytes).unwrap()).into_bytes(),
                "table.csv" => without_seconds(&bytes),
                _ => bytes,
            };
            all.insert(name, bytes);
        }
    }
    all
}

fn timeless(records: &str) -> String {
    let mut text = String::new();
    for line in records.lines() {
        // Byte for byte: only the digits go.
        let (before, after) = line.split_once("\"seconds\":").unwrap();
        let digits = after.bytes().take_while(|b| b"0123456789.e-".contains(b)).count();
        text += &format!("{before}{}\n", &after[digits..]);
    }
    text
}

fn without_seconds(table: &[u8]) -> Vec<u8> {
    let mut reader = csv::Reader::from_reader(table);
    let at = reader.headers().unwrap().iter().position(|name| name == "seconds").unwrap();
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in std::iter::once(reader.headers().unwrap().clone()).chain(reader.records().map(Result::unwrap))
    {
        writer.write_record(row.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, cell)| cell)).unwrap();
    }
    writer.into_inner().unwrap()
}

/// Two folders hold the same, seconds aside.
#[track_caller]
pub fn assert_same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>, what: &str) {
    let names = |m: &BTreeMap<String, Vec<u8>>| m.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b), "{what}: other files");
    for (name, bytes) in a {
        assert!(*bytes == b[name], "{what}: `{name}` differs:\n{}\n---\n{}", shown(bytes), shown(&b[name]));
    }
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().take(4000).collect(),
        Err(_) => format!("{} bytes", bytes.len()),
    }
}

/// Numbers that are the same in every run (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// The next, below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

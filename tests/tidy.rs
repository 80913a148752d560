//! What no compiler checks: the order of modules, registries, and documents that say what is so.
use crate::common::{bitsweep, repo};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Lines of a file in `src/`, at most.
const LINES: usize = 700;
/// Longer ones, and why.
const LONGER: &[(&str, &str)] =
    &[("src/hub.rs", "one protocol, from request to proven file: its steps are read together")];

/// Every Rust file below a folder, in order.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![repo(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// `src/quant/grid.rs`.
fn label(path: &Path) -> String {
    let root = repo("");
    path.strip_prefix(&root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The code of a file: without comments, and without its unit tests, which stand last.
fn code(path: &Path) -> String {
    let text = read(path);
    let text = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let mut out = String::new();
    for line in text.lines() {
        // `//` after a colon is an address.
        let cut = line.match_indices("//").map(|(i, _)| i).find(|&i| i == 0 || !line[..i].ends_with(':'));
        out.push_str(&line[..cut.unwrap_or(line.len())]);
        out.push('\n');
    }
    out
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The modules that follow `crate::` in a piece of code: one, or each of a braced list.
fn used(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if before.is_ascii_alphanumeric() || before == '_' {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(word(rest).to_string());
            continue;
        };
        let mut depth = 1;
        let mut start = 0;
        for (i, c) in list.char_indices() {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            if depth == 0 || depth == 1 && c == ',' {
                found.insert(word(list[start..i].trim()).to_string());
                start = i + 1;
            }
            if depth == 0 {
                break;
            }
        }
    }
    found.remove("");
    found
}

/// The table of docs/architecture.md: a module and what it uses, in the order of its rows.
fn table() -> Vec<(String, BTreeSet<String>)> {
    let text = read(&repo("docs/architecture.md"));
    let inside = text.split("<!-- modules -->").nth(1).and_then(|t| t.split("<!-- /modules -->").next());
    let inside =
        inside.expect("docs/architecture.md has no table between <!-- modules --> and <!-- /modules -->");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for line in inside.lines().filter(|l| l.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let module = names(cells[0]).remove(0);
        rows.push((module, names(cells[1]).into_iter().collect()));
    }
    rows
}

#[test]
fn modules_use_what_the_table_says() {
    let mut real: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for path in sources("src") {
        let label = label(&path);
        let parts: Vec<&str> = label.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
        if ["lib", "main"].contains(&parts[0]) {
            continue;
        }
        let code = code(&path);
        let mine = real.entry(parts[0].to_string()).or_default();
        for module in used(&code).into_iter().filter(|m| m != parts[0] && m != "mistake") {
            mine.entry(module).or_insert(label.clone());
        }
        // `super` up to the root would be a way around the table.
        let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
        let root = "super::".repeat(depth);
        assert!(!code.contains(&root), "{label}: `{root}` is the crate's root; write `crate::`");
    }
    let table = table();
    let said: BTreeSet<&String> = table.iter().map(|(m, _)| m).collect();
    assert_eq!(said, real.keys().collect(), "modules in docs/architecture.md, and in src/");
    let mut before = BTreeSet::new();
    for (module, uses) in &table {
        let real = &real[module];
        for (used, file) in real {
            assert!(
                uses.contains(used),
                "{file} uses `{used}`, which docs/architecture.md does not allow to `{module}`"
            );
        }
        for used in uses {
            assert!(
                real.contains_key(used),
                "docs/architecture.md says that `{module}` uses `{used}`; it does not: change the table"
            );
            assert!(
                before.contains(used),
                "docs/architecture.md: `{module}` uses `{used}`, whose row is not above it"
            );
        }
        before.insert(module.clone());
    }
}

#[test]
fn lib_lists_modules_in_the_tables_order() {
    let text = read(&repo("src/lib.rs"));
    let listed: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let table = table();
    let said: Vec<&str> = table.iter().map(|(m, _)| m.as_str()).collect();
    assert_eq!(
        listed, said,
        "src/lib.rs lists modules so that each uses only earlier ones, as docs/architecture.md does"
    );
}

#[test]
fn modules_do_not_name_what_they_must_not_know() {
    // Where, what may not stand there, and the invariant of docs/architecture.md that says so.
    for (folder, words, why) in [
        ("src/model", &["quant"][..], "1: `model` does not know that quantization exists"),
        ("src/quant", &["families"], "4: no method names a family"),
        ("src/eval", &["candle_core", "Tensor", "Device"], "5: `eval` never sees a tensor"),
        ("src/suite", &["candle_core", "Tensor", "Command"], "6: a task never runs code"),
        ("src/report", &["candle_core", "Instant", "SystemTime"], "8: the same records give the same report"),
        ("src/results", &["candle_core", "SystemTime"], "records outlive the modules that write them"),
    ] {
        for path in sources(folder) {
            let code = code(&path);
            for (number, line) in code.lines().enumerate() {
                let mut names = line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                let bad = names.find(|n| words.contains(n));
                assert!(
                    bad.is_none(),
                    "{}:{}: `{}`; invariant {why}",
                    label(&path),
                    number + 1,
                    bad.unwrap_or_default()
                );
            }
        }
    }
}

#[test]
fn every_file_of_a_registry_is_in_its_list() {
    for (folder, list) in
        [("src/model/families", "FAMILIES"), ("src/quant/weight", "METHODS"), ("src/report/charts", "CHARTS")]
    {
        let registry = code(&repo(folder).join("mod.rs"));
        let listed = registry.split(&format!("static {list}:")).nth(1).and_then(|t| t.split(';').next());
        let listed = listed.unwrap_or_else(|| panic!("{folder}/mod.rs has no `static {list}`"));
        let names: BTreeSet<&str> = listed
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .filter(|n| !n.is_empty())
            .collect();
        let mut files = 0;
        for path in sources(folder) {
            // A file, or a folder that is one entry.
            let inside = path.strip_prefix(repo(folder)).unwrap().components().next().unwrap();
            let stem = Path::new(inside.as_os_str()).file_stem().unwrap().to_string_lossy().into_owned();
            if stem != "mod" {
                files += 1;
                assert!(
                    names.contains(stem.as_str()),
                    "{folder}/{stem}.rs is not in `{list}` of {folder}/mod.rs"
                );
            }
        }
        assert!(files > 0, "{folder} holds nothing");
    }
}

/// `BITSWEEP_REGENERATE=1 cargo test reference` writes it anew.
#[test]
fn reference_is_what_list_prints() {
    let ran = bitsweep().arg("list").output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let command = "BITSWEEP_REGENERATE=1 cargo test reference";
    let want = format!(
        "# Reference\n\nWhat there is, as `bitsweep list` prints it. Generated by `{command}`; do not edit.\n\n\
         ```text\n{}```\n",
        String::from_utf8(ran.stdout).unwrap()
    );
    let path = repo("docs/reference.md");
    if std::env::var_os("BITSWEEP_REGENERATE").is_some() {
        fs::write(&path, want).unwrap();
        return;
    }
    // Compared without carriage returns, which a checkout may put in.
    let have = fs::read_to_string(&path).unwrap_or_default().replace('\r', "");
    assert!(
        have == want,
        "docs/reference.md is not what `bitsweep list` prints; make it anew with: {command}"
    );
}

/// A fenced block of a document: what stands behind the backticks, and its lines.
struct Fence {
    info: String,
    text: String,
}

fn fences(document: &str) -> Vec<Fence> {
    let mut found: Vec<Fence> = Vec::new();
    let mut inside = false;
    for line in read(&repo(document)).replace('\r', "").lines() {
        if let Some(info) = line.strip_prefix("```") {
            inside = !inside;
            if inside {
                found.push(Fence { info: info.trim().into(), text: String::new() });
            }
        } else if inside && let Some(fence) = found.last_mut() {
            fence.text.push_str(line);
            fence.text.push('\n');
        }
    }
    assert!(!inside, "{document}: a fence is not closed");
    found
}

/// A shell's words: quotes taken off, a comment dropped, and commands apart where `&&`, `;` or `|` stands between them.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t' | ';' | '|' | '&') => {
                all.last_mut().unwrap().extend(word.take());
                if !c.is_whitespace() {
                    all.push(Vec::new());
                }
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is not closed: {line}");
    all.last_mut().unwrap().extend(word);
    all.retain(|c| !c.is_empty());
    all
}

/// What a command hands to bitsweep, if it runs it: directly, or through cargo.
fn arguments(command: &[String]) -> Option<&[String]> {
    let is_setting = |w: &&String| {
        w.split_once('=').is_some_and(|(k, _)| k.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let command = &command[command.iter().take_while(is_setting).count()..];
    match command.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["bitsweep", ..] => Some(&command[1..]),
        ["cargo", "run", "--release"] => Some(&[]),
        ["cargo", "run", "--release", "--", ..] => Some(&command[4..]),
        _ => None,
    }
}

#[test]
fn commands_in_documents_parse() {
    let help = String::from_utf8(bitsweep().arg("--help").output().unwrap().stdout).unwrap();
    let verbs: Vec<&str> = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .lines()
        .skip(1)
        .take_while(|l| !l.trim().is_empty())
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(verbs.contains(&"run") && verbs.contains(&"gate"), "{verbs:?}");
    let manifest = read(&repo("Cargo.toml"));
    let mut seen = 0;
    for document in ["README.md", "docs/adding.md", "docs/numerics.md", "suites/microworld/README.md"] {
        for fence in fences(document).iter().filter(|f| f.info == "sh") {
            for command in fence.text.replace("\\\n", " ").lines().flat_map(commands) {
                if let Some(at) = command.iter().position(|w| w == "--example") {
                    let example = format!("[[example]]\nname = \"{}\"", command[at + 1]);
                    assert!(
                        manifest.contains(&example),
                        "{document}: no such example: {}",
                        command.join(" ")
                    );
                }
                let Some(args) = arguments(&command) else { continue };
                seen += 1;
                let line = command.join(" ");
                // Without a verb it is a study, and a misspelt verb would be taken for one.
                if let Some(first) = args.first() {
                    let study =
                        first.ends_with(".toml") || repo("configs").join(format!("{first}.toml")).is_file();
                    assert!(
                        first.starts_with('-') || verbs.contains(&first.as_str()) || study,
                        "{document}: `{line}`: `{first}` is neither a verb ({}) nor a study",
                        verbs.join(", ")
                    );
                }
                let ran = bitsweep().args(args).arg("--help").output().unwrap();
                assert!(
                    ran.status.success() && String::from_utf8_lossy(&ran.stdout).contains("Usage: "),
                    "{document}: `{line}` does not parse:\n{}",
                    String::from_utf8_lossy(&ran.stderr)
                );
            }
        }
    }
    assert!(seen >= 8, "{seen} commands found");
}

/// README's example files are a study that plans: each is written under the name behind its fence.
#[test]
fn readmes_files_are_real() {
    let desk = tempfile::tempdir().unwrap();
    let mut studies = Vec::new();
    for fence in fences("README.md") {
        let Some((_, name)) = fence.info.split_once(' ') else { continue };
        fs::write(desk.path().join(name), &fence.text).unwrap();
        if fence.text.contains("\nmodels") {
            studies.push(name.to_string());
        }
    }
    let text: String =
        (0..4000).map(|i| format!("{} plus {} is {}. ", i % 7, i % 5, i % 7 + i % 5)).collect();
    fs::write(desk.path().join("text.txt"), text).unwrap();
    assert!(studies.len() >= 3, "{studies:?}");
    for study in studies {
        // The models that they name are the reader's own.
        let ran = bitsweep()
            .args(["plan", &study, "--set", "models=['builtin:llama']"])
            .current_dir(desk.path())
            .output()
            .unwrap();
        let (out, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && !out.contains("would fail"), "README.md: {study}:\n{out}\n{error}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = [
        "README.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/adding.md",
        "docs/numerics.md",
        "results/README.md",
        "suites/microworld/README.md",
    ];
    for document in documents {
        let text = read(&repo(document));
        for part in text.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.contains(' ') {
                continue;
            }
            let path = repo(document).parent().unwrap().join(target);
            assert!(path.exists(), "{document} links to `{target}`, which is not there");
        }
    }
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read(&repo("Cargo.toml"));
    let text = read(&repo("docs/architecture.md"));
    let reasons =
        text.split("## Dependencies").nth(1).expect("docs/architecture.md has no section Dependencies");
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]" || line == "[dev-dependencies]";
        } else if let Some((name, _)) = line.split_once('=').filter(|_| inside) {
            let name = name.trim();
            assert!(
                reasons.contains(&format!("`{name}`")),
                "docs/architecture.md does not say why `{name}` is there"
            );
        }
    }
}

#[test]
fn files_are_of_a_size_to_read() {
    for path in sources("src") {
        let (label, lines) = (label(&path), read(&path).lines().count());
        let excused = LONGER.iter().any(|(file, _)| *file == label);
        assert!(
            lines <= LINES || excused,
            "{label} has {lines} lines, more than {LINES}: split it, or list it in LONGER with a reason"
        );
        assert!(lines > LINES || !excused, "{label} has {lines} lines: take it off LONGER");
    }
}

#[test]
fn every_built_in_study_plans() {
    let listed = String::from_utf8(bitsweep().args(["list", "studies"]).output().unwrap().stdout).unwrap();
    let listed: BTreeSet<&str> =
        listed.lines().skip(2).filter_map(|l| Some(l.split('|').nth(1)?.trim())).collect();
    let studies = |folder: &str| -> BTreeSet<String> {
        let paths = fs::read_dir(repo("configs").join(folder)).unwrap().map(|e| e.unwrap().path());
        let files = paths.filter(|p| p.extension().is_some_and(|e| e == "toml"));
        let stem = |p: PathBuf| p.file_stem().unwrap().to_string_lossy().into_owned();
        files.map(stem).map(|s| if folder.is_empty() { s } else { format!("{folder}/{s}") }).collect()
    };
    let names = studies("");
    // Of published tables: their models and data are on the Hub. `tests/published.rs` reads them.
    let published = studies("studies");
    let all: BTreeSet<&str> = names.iter().chain(&published).map(String::as_str).collect();
    assert_eq!(listed, all, "`bitsweep list studies`, and configs/");
    let desk = tempfile::tempdir().unwrap();
    for name in names {
        let mut command = bitsweep();
        command
            .args(["plan", &name])
            .current_dir(desk.path())
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("BITSWEEP_DATA");
        // Models on the Hub are not for tests: the rest of the study is planned on the built-in one.
        let text = read(&repo("configs").join(format!("{name}.toml")));
        let models = text.split("\nmodels").nth(1).and_then(|t| t.split(']').next()).unwrap_or_default();
        if models.contains('/') {
            command.args(["--set", "models=['builtin:llama']"]);
        }
        let ran = command.output().unwrap();
        let (out, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && !out.contains("would fail"), "bitsweep plan {name}:\n{out}\n{error}");
    }
}

//! lm-evaluation-harness's task files: what it asks for them itself, and files that are none.
//! `tests/make_yaml.py` made the goldens, on files and data of ours.
use crate::{
    common::{bitsweep, repo},
    data::serve,
    hub::{COMMIT, settings},
};
use bitsweep::{
    eval::metrics::metric,
    hub::{Hub, Settings},
    mistake::is_mistake,
    suite::{
        Ask,
        data::{self, Instead, Items},
        find::{self, Found},
        requests,
        yaml::{self, Node, Table},
    },
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, io::Write, path::Path};

fn goldens() -> std::path::PathBuf {
    repo("tests/goldens/yaml")
}

fn no_hub() -> anyhow::Result<bitsweep::hub::Hub> {
    anyhow::bail!("no test asks the Hub")
}

fn items(found: &Found) -> Items {
    data::load(&found.label, &found.task, &found.place, &Instead::default(), &no_hub).unwrap()
}

/// Every item's requests, as the harness lists them, and what is right.
fn asked(found: &Found) -> Vec<(Vec<Vec<String>>, Value)> {
    let (task, items) = (&found.task, items(found));
    match &task.ask {
        Ask::Choice(_) => {
            let one = |q: &requests::Question| {
                let pairs = q.pairs().into_iter().map(|(p, c)| vec![p.to_string(), c]).collect();
                (pairs, json!(q.golds))
            };
            requests::questions(task, &items, None).unwrap().iter().map(one).collect()
        }
        Ask::Cloze(_) => {
            let all = requests::blanks(task, &items, None).unwrap();
            all.into_iter().map(|b| (vec![vec![b.prompt, b.ending]], Value::Null)).collect()
        }
        Ask::Perplexity(p) => {
            let all = requests::texts(task, &items, &p.text).unwrap();
            all.into_iter().map(|t| (vec![vec![t.text]], Value::Null)).collect()
        }
        Ask::Generate(_) => {
            let all = requests::openings(task, &items, None).unwrap();
            all.into_iter().map(|o| (vec![vec![o.prompt]], json!(o.gold))).collect()
        }
        other => panic!("no task here is of the kind {}", other.kind()),
    }
}

#[test]
fn requests_are_those_of_the_harness() {
    let all: Value =
        serde_json::from_str(&fs::read_to_string(goldens().join("asked.json")).unwrap()).unwrap();
    let kinds = [
        ("multiple_choice", "choice"),
        ("loglikelihood", "cloze"),
        ("loglikelihood_rolling", "perplexity"),
        ("generate_until", "generate"),
    ];
    let mut seen = 0;
    for (file, tasks) in all["files"].as_object().unwrap() {
        let found = find::find(file, &goldens()).unwrap();
        assert_eq!(found.len(), tasks.as_object().unwrap().len(), "{file}");
        for found in &found {
            let (want, what) = (&tasks[&found.name], format!("{file}: {}", found.name));
            let kind = kinds.iter().find(|(k, _)| want["output_type"] == *k).unwrap().1;
            assert_eq!(found.task.ask.kind(), kind, "{what}");
            let ours = asked(found);
            let theirs = want["items"].as_array().unwrap();
            assert_eq!(ours.len(), theirs.len(), "{what}");
            for (i, ((requests, right), item)) in ours.iter().zip(theirs).enumerate() {
                assert_eq!(json!(requests), item["requests"], "{what}, item {i}");
                assert_eq!(*right, item["right"], "{what}, item {i}");
            }
            let version = want["version"].as_f64().unwrap_or(if found.name == "csv" { 1. } else { 0. });
            assert_eq!(f64::from(found.task.version), version, "{what}");
            for name in &found.task.metrics {
                assert!(metric(name).unwrap().of.contains(&kind), "{what}: {name}");
            }
            if let Ask::Generate(g) = &found.task.ask {
                let written = &want["written"];
                assert_eq!(json!(g.stop), written["until"], "{what}");
                assert_eq!(json!(g.limit), written["max_gen_toks"], "{what}");
                let drawn = written["do_sample"] == true;
                assert_eq!(g.temperature > 0., drawn, "{what}");
                if drawn {
                    assert_eq!(json!([g.temperature, g.top_k, g.top_p, g.samples]), {
                        json!([written["temperature"], written["top_k"], written["top_p"], want["repeats"]])
                    });
                }
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 21, "every file of the folder has been compared");
}

#[test]
fn settings_are_the_files() {
    let one = |file: &str| find::find(file, &goldens()).unwrap().remove(0);
    let sums = one("sums.yaml");
    assert_eq!(sums.task.metrics, ["exact_match:strict-match", "exact_match:flexible-extract"]);
    let Ask::Generate(g) = &sums.task.ask else { panic!() };
    assert!(g.exact_match.ignore_case && !g.exact_match.ignore_punctuation);
    assert_eq!(g.exact_match.regexes_to_ignore, [",", r"\$", "(?s).*#### ", r"\.$"]);
    assert_eq!(
        serde_json::to_value(&g.filters).unwrap()[1]["steps"],
        json!([{ "regex": { "pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)", "pick": -1, "fallback": "[invalid]" } }, "take-first"])
    );
    assert_eq!(one("fields.yaml").task.metrics, ["acc", "acc_bytes", "brier"]);
    assert_eq!(one("fields.yaml").task.about, "lm-evaluation-harness's fields (Boats by field)");
    let group = find::find("group.yaml", &goldens()).unwrap();
    let names: Vec<String> = group.iter().map(Found::full_name).collect();
    assert_eq!(
        names,
        ["harbour/letters", "harbour/fields", "harbour/digits", "harbour/several", "harbour/cloze"]
    );
    // A draw that the YAML does not name is the harness's: its seed is in the record.
    assert!(one("letters.yaml").task.protocol().ends_with("2 examples, seed 1234"));
}

#[test]
fn a_task_of_the_harness_is_measured_as_any_other() {
    let out = tempfile::tempdir().unwrap();
    let file = |name: &str| goldens().join(name).display().to_string();
    let tasks = json!([file("letters.yaml"), file("number.yaml"), file("cloze.yaml"), file("rendered.yaml")]);
    let study = out.path().join("study.toml");
    fs::write(
        &study,
        format!("about = 'a'\nmodels = ['builtin:llama']\nrecipes = ['w4']\ntasks = {tasks}\n"),
    )
    .unwrap();
    let run = |verb: &str, more: &[&str]| {
        bitsweep().args([verb, study.to_str().unwrap()]).args(more).current_dir(out.path()).output().unwrap()
    };
    let plan = run("plan", &[]);
    assert!(plan.status.success(), "{}", String::from_utf8_lossy(&plan.stderr));
    let done = run("run", &["--limit", "2", "--out", "results"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let records = fs::read_to_string(out.path().join("results/records.jsonl")).unwrap();
    let records: Vec<Value> = records.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(records.len(), 8);
    let letters = &records[0]["task"];
    assert_eq!((&letters["name"], &letters["version"]), (&json!("letters"), &json!(2)));
    let protocol = letters["protocol"].as_str().unwrap();
    assert!(
        protocol.contains("2 examples, seed 1234") && protocol.contains("the tokenizer's own special tokens")
    );
}

#[test]
fn yaml_is_read_as_pyyaml_reads_it() {
    let text = "
bools: [yes, No, on, OFF, true, 'yes', y, n]
ints: [0, -1, +12, 1_000, 010, 0x1F, 0b101, 1:30, 08, 1e3]
floats: [1.5, -.5, 1., 1.0e+3, 1.0e3, .inf, -.INF, 1:30.5]
nulls: [~, null, Null, '', nULL]
texts: [2024-02-29, '1', \"a\\tb\\u00e9\", a: b]
block: |
  one
   two

folded: >-
  one
  two

  three
base: &base {a: 1, b: [2]}
more: {<<: *base, b: 3}
again: *base
f: !function utils.f
str: !!str 12
less: \"one
two'

  \\
  three\"
list:
  - [a, 'it''s
b', {c: [
d
]}
]
";
    let table = yaml::parse(text.as_bytes()).unwrap();
    let get = |key: &str| table.get(key).unwrap().clone();
    let t = |s: &str| Node::Text(s.into());
    let (b, i, f) = (Node::Bool, Node::Int, Node::Float);
    let bools = [true, false, true, false, true].map(b).into_iter().chain(["yes", "y", "n"].map(t)).collect();
    assert_eq!(get("bools"), Node::List(bools));
    let ints = [0, -1, 12, 1000, 8, 31, 5, 90].map(i).into_iter().chain(["08", "1e3"].map(t)).collect();
    assert_eq!(get("ints"), Node::List(ints));
    let floats =
        vec![f(1.5), t("-.5"), f(1.), f(1000.), t("1.0e3"), f(f64::INFINITY), f(f64::NEG_INFINITY), f(90.5)];
    assert_eq!(get("floats"), Node::List(floats));
    assert_eq!(get("nulls"), Node::List(vec![Node::Null, Node::Null, Node::Null, t(""), t("nULL")]));
    let pair = Node::Table(Table(vec![("a".into(), t("b"))]));
    assert_eq!(get("texts"), Node::List(vec![t("2024-02-29"), t("1"), t("a\tbé"), pair]));
    assert_eq!((get("block"), get("folded")), (t("one\n two\n"), t("one two\nthree")));
    let base = [("a".to_string(), i(1)), ("b".to_string(), Node::List(vec![i(2)]))];
    assert_eq!(get("again"), Node::Table(Table(base.to_vec())));
    assert_eq!(get("more"), Node::Table(Table(vec![("b".into(), i(3)), ("a".into(), i(1))])));
    // As libyaml has it: the specification wants more white space before these lines.
    assert_eq!(get("less"), t("one two'\nthree"));
    let c = Node::Table(Table(vec![("c".into(), Node::List(vec![t("d")]))]));
    assert_eq!(get("list"), Node::List(vec![Node::List(vec![t("a"), t("it's b"), c])]));
    assert_eq!((get("f"), get("str")), (Node::Function("utils.f".into()), t("12")));
}

/// The task files that come with the harness, where a folder of them is named: which are read, and why others are not.
///
/// `LM_EVAL_TASKS=.../lm_eval/tasks cargo test --test bitsweep -- released --nocapture`
#[test]
fn released_files_are_read_or_refused_with_a_reason() {
    let Some(root) = std::env::var_os("LM_EVAL_TASKS") else {
        std::io::stderr()
            .write_all(b"skipped: LM_EVAL_TASKS names no folder of released task files\n")
            .unwrap();
        return;
    };
    let (mut left, mut paths) = (vec![std::path::PathBuf::from(root)], Vec::new());
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => left.push(path),
                false if path.extension().is_some_and(|e| e == "yaml") => paths.push(path),
                false => {}
            }
        }
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let (mut read, mut python, mut parts, mut groups) = (0, 0, 0, 0);
    for path in &paths {
        let text = fs::read_to_string(path).unwrap();
        // A group's names are looked for below its folder: that is another test's.
        if text.lines().any(|l| l.starts_with("group:")) {
            groups += 1;
            continue;
        }
        match find::find(path.to_str().unwrap(), Path::new("")) {
            Ok(_) => read += 1,
            Err(e) => {
                let said = format!("{e:#}");
                assert!(is_mistake(&e) && said.contains("yaml`"), "{}: {said}", path.display());
                if said.contains("no `task` names it") {
                    parts += 1;
                } else if said.contains("!function") || said.contains("written in Python") {
                    python += 1;
                } else {
                    let what = said.split_once("`: ").map_or(&*said, |(_, what)| what);
                    *reasons.entry(what.chars().take(90).collect()).or_default() += 1;
                }
            }
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let refused: usize = reasons.iter().map(|(_, n)| n).sum();
    println!("{read} read, {refused} refused, {python} are Python, {parts} are parts, {groups} are groups");
    reasons.iter().for_each(|(what, n)| println!("{n:5}  {what}"));
    assert!(read > 2 * refused);
}

/// What a whole task says, with a few keys in place of others.
fn task(change: &[(&str, &str)]) -> String {
    let mut keys = vec![
        ("task", "t"),
        ("dataset_path", "json"),
        ("dataset_kwargs", "{data_files: {test: boats.jsonl}}"),
        ("test_split", "test"),
        ("output_type", "multiple_choice"),
        ("doc_to_text", "q"),
        ("doc_to_choice", "[a, b]"),
        ("doc_to_target", "0"),
    ];
    for (key, value) in change {
        match keys.iter_mut().find(|(k, _)| k == key) {
            Some(slot) => slot.1 = value,
            None => keys.push((key, value)),
        }
    }
    keys.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| format!("{k}: {v}\n")).collect()
}

#[test]
fn mistakes_name_the_file_and_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("boats.jsonl"), "{\"q\": \"Q\", \"n\": 7}\n").unwrap();
    fs::write(at("python.yaml"), "doc_to_text: !function utils.text\nprocess_docs: !function utils.docs\n")
        .unwrap();
    let (deep, deeper) = ("[".repeat(100) + &"]".repeat(100), "[".repeat(9000));
    let bomb: String =
        (1..30).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","))).collect();
    let gen_ = ("output_type", "generate_until");
    let cases: Vec<(String, &[&str])> = vec![
        (task(&[("doc_to_txt", "q")]), &["`doc_to_txt`", "no such key", "did you mean `doc_to_text`"]),
        (task(&[("doc_to_text", "!function utils.f")]), &["`doc_to_text`", "!function utils.f", "never run"]),
        (
            task(&[("doc_to_text", ""), ("include", "python.yaml")]),
            &["python.yaml`", "`doc_to_text`", "`process_docs`"],
        ),
        (
            task(&[("metric_list", "[{metric: acc, aggregation: !function m.f}]")]),
            &["`metric_list.aggregation`", "never run"],
        ),
        (task(&[("class", "!function task.T")]), &["`class`"]),
        (task(&[("process_results", "x")]), &["`process_results`", "not read here"]),
        (task(&[("output_type", "choice")]), &["`output_type`", "multiple_choice, loglikelihood"]),
        (task(&[("doc_to_text", "[1]")]), &["`doc_to_text` is a list"]),
        (task(&[("doc_to_text", "\"{{ q\"")]), &["`doc_to_text`", "syntax error"]),
        (task(&[("doc_to_text", "\"\"\n? [a]\n: b")]), &["line", "a key is"]),
        (task(&[("doc_to_choice", "[yes, no]")]), &["`doc_to_choice`", "number 1", "true, as YAML reads it"]),
        (task(&[("doc_to_choice", "")]), &["`doc_to_choice`"]),
        (task(&[("doc_to_target", "")]), &["no `doc_to_target`"]),
        (task(&[("doc_to_target", "-1")]), &["`doc_to_target`", "no index"]),
        (task(&[("num_fewshot", "many")]), &["`num_fewshot`", "whole number"]),
        (
            task(&[("num_fewshot", "1"), ("fewshot_config", "{sampler: balanced}")]),
            &["`fewshot_config.sampler`", "first_n"],
        ),
        (
            task(&[("num_fewshot", "1"), ("fewshot_config", "{samples: [{q: null}]}")]),
            &["`fewshot_config.samples`", "`q`"],
        ),
        (
            task(&[("num_fewshot", "1"), ("fewshot_split", "dev")]),
            &["`dataset_kwargs.data_files`", "no split `dev`", "test"],
        ),
        (task(&[("metric_list", "[{metric: f1}]")]), &["`metric_list`", "`f1`", "acc, acc_norm, acc_bytes"]),
        (
            task(&[("metric_list", "[{metric: acc, aggregation: median}]")]),
            &["`acc`: `aggregation`", "median", "mean"],
        ),
        (task(&[("metric_list", "[{metric: acc, higher_is_better: false}]")]), &["`higher_is_better`"]),
        (task(&[("metric_list", "[{metric: acc, ignore_case: true}]")]), &["`acc`: `ignore_case`"]),
        (task(&[("metric_list", "acc")]), &["`metric_list`", "list of tables"]),
        (
            task(&[gen_, ("doc_to_choice", ""), ("metric_list", "[{metric: bleu}]")]),
            &["`bleu`", "exact_match"],
        ),
        (
            task(&[
                gen_,
                ("doc_to_choice", ""),
                ("filter_list", "[{name: f, filter: [{function: arg_max}]}]"),
            ]),
            &["`filter_list`", "`f`", "`arg_max`", "majority_vote"],
        ),
        (
            task(&[
                gen_,
                ("doc_to_choice", ""),
                ("filter_list", "[{name: f, filter: [{function: regex, regex_pattern: '('}]}]"),
            ]),
            &["`filter_list`", "`f`", "regex"],
        ),
        (
            task(&[
                gen_,
                ("doc_to_choice", ""),
                ("filter_list", "[{name: f, filter: [{function: regex, group: 1}]}]"),
            ]),
            &["no `group`", "group_select"],
        ),
        (
            task(&[gen_, ("doc_to_choice", ""), ("generation_kwargs", "{untill: x}")]),
            &["`generation_kwargs.untill`", "`until`"],
        ),
        (
            task(&[gen_, ("doc_to_choice", ""), ("generation_kwargs", "{num_beams: 4}")]),
            &["`generation_kwargs.num_beams`"],
        ),
        (
            task(&[gen_, ("doc_to_choice", ""), ("generation_kwargs", "{max_gen_toks: 1.5}")]),
            &["`generation_kwargs.max_gen_toks`"],
        ),
        (
            task(&[("filter_list", "[{name: f, filter: [{function: lowercase}]}]")]),
            &["`filter_list`", "only written"],
        ),
        (task(&[("test_split", "")]), &["neither `test_split` nor `validation_split`"]),
        (task(&[("dataset_path", "")]), &["no `dataset_path`"]),
        (task(&[("dataset_path", "./folder")]), &["`dataset_path`", "data_files"]),
        (task(&[("dataset_path", "csv")]), &["`dataset_kwargs.data_files`", "boats.jsonl", "csv"]),
        (task(&[("dataset_kwargs", "{streaming: true}")]), &["`dataset_kwargs.streaming`", "data_files"]),
        (
            task(&[("dataset_kwargs", "{data_files: {test: 'https://x.org/a.jsonl'}}")]),
            &["https://x.org", "save it"],
        ),
        (
            task(&[("dataset_kwargs", "{data_files: {test: 'hf://datasets/a/b/c.jsonl'}}")]),
            &["hf://datasets/a/b@COMMIT/c.jsonl"],
        ),
        (task(&[("dataset_path", "squad"), ("dataset_kwargs", "")]), &["`squad` has no organisation"]),
        (task(&[("dataset_path", "a/b"), ("dataset_kwargs", "{revision: main}")]), &["40 hexadecimal"]),
        (
            task(&[("dataset_path", "a/b"), ("dataset_kwargs", "")]),
            &["names no commit", "--set 'data.t=PATH'", "BITSWEEP_DATA"],
        ),
        (task(&[("doc_to_text", "n")]), &["7 where a text belongs"]),
        (task(&[("doc_to_target", "q")]), &["`gold` is `Q`", "2 endings"]),
        (task(&[("include", "nowhere.yaml")]), &["`include`", "nowhere.yaml"]),
        (task(&[("include", "bad.yaml")]), &["bad.yaml`: `include`", "itself"]),
        (task(&[("include", "7")]), &["`include` is the number 7"]),
        (task(&[("task", "a/b")]), &["`task`", "without a slash"]),
        (task(&[("task", "")]), &["no `task`"]),
        (task(&[("task", "[t, nobody]"), ("group", "g"), ("doc_to_target", "")]), &["`task`", "`t`"]),
        (task(&[("group", "g")]), &["`group`", "`tag`"]),
        ("group: g\ntask: [g]\n".into(), &["`group`", "in itself"]),
        (
            "group: g\ntask: [t]\naggregate_metric_list: [{metric: acc, aggregation: sum}]\n".into(),
            &["`aggregate_metric_list`", "mean"],
        ),
        (task(&[("doc_to_text", "q\ndoc_to_text: n")]), &["`doc_to_text` stands twice"]),
        (task(&[("metadata", &deep)]), &["bad.yaml", "levels"]),
        (task(&[("metadata", &deeper)]), &["bad.yaml"]),
        (format!("a0: &a0 [1]\n{bomb}"), &["bad.yaml", "values"]),
        ("a: &a [*a]\n".into(), &["bad.yaml", "line 1"]),
        ("- a\n- b\n".into(), &["a list, no table"]),
        ("task: t\n---\ntask: u\n".into(), &["second document"]),
        ("task: !!python/object:os.system x\n".into(), &["tag"]),
        ("task: [\n".into(), &["bad.yaml", "no YAML"]),
        ("task: *nobody\n".into(), &["bad.yaml", "no YAML"]),
        (String::new(), &["bad.yaml", "empty"]),
        ("#".repeat(10 << 20), &["bad.yaml", "bytes"]),
    ];
    for (text, says) in &cases {
        fs::write(at("bad.yaml"), text).unwrap();
        let e = find::find("bad.yaml", folder.path()).and_then(|found| {
            let one = &found[0];
            let items = data::load(&one.label, &one.task, &one.place, &Instead::default(), &no_hub)?;
            match &one.task.ask {
                Ask::Choice(_) => requests::questions(&one.task, &items, None).map(|_| ()),
                _ => Ok(()),
            }
        });
        let short: String = text.chars().take(300).collect();
        let e = e.expect_err(&short);
        let said = format!("{e:#}");
        assert!(is_mistake(&e), "{said}\n{short}");
        for part in *says {
            assert!(said.contains(part), "no {part:?} in: {said}\n{short}");
        }
    }
    fs::write(at("latin.yaml"), b"task: caf\xe9\n").unwrap();
    fs::create_dir(at("folder.yaml")).unwrap();
    for (name, says) in
        [("latin.yaml", "not UTF-8"), ("folder.yaml", "is a folder"), ("none.yaml", "none.yaml")]
    {
        let said = format!("{:#}", find::find(name, folder.path()).unwrap_err());
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn what_the_harness_forgives_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("boats.jsonl"), "{\"q\": \"Q\", \"n\": 1}\n").unwrap();
    let read = |change: &[(&str, &str)]| {
        fs::write(at("it.yaml"), task(change)).unwrap();
        find::find("it.yaml", folder.path()).unwrap().remove(0)
    };
    let written = [("output_type", "generate_until"), ("doc_to_choice", ""), ("doc_to_target", "'007'")];
    let found =
        read(&[&written[..], &[("generation_kwargs", "{until: ['', END, ''], temperature: 1e-5}")]].concat());
    assert_eq!(asked(&found)[0].1, json!(["007"]));
    let Ask::Generate(g) = &found.task.ask else { panic!() };
    assert_eq!((&g.stop, g.temperature), (&vec!["END".to_string()], 1e-5));
    assert_eq!(asked(&read(&[("doc_to_target", "'1'")]))[0].1, json!([1]));
    let found = read(&[("doc_to_choice", "{0: 'no', 1: 'yes', on: 'maybe'}"), ("doc_to_target", "n")]);
    let endings = ["no", "yes", "maybe"].map(|e| vec!["Q".to_string(), format!(" {e}")]);
    assert_eq!(asked(&found)[0], (endings.to_vec(), json!([1])));
}

/// Twelve groups that each name the next one eight times.
#[test]
fn groups_that_name_one_another_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..12 {
        let next = vec![format!("g{}", i + 1); 8].join(", ");
        fs::write(folder.path().join(format!("g{i}.yaml")), format!("group: g{i}\ntask: [{next}]\n"))
            .unwrap();
    }
    fs::write(folder.path().join("last.yaml"), "group: g12\ntask: []\n").unwrap();
    let e = find::find("g0.yaml", folder.path()).unwrap_err();
    let said = format!("{e:#}");
    assert!(is_mistake(&e) && said.contains("`task`: more than 8192 members"), "{said}");
    let said = format!("{:#}", find::find("g11.yaml", folder.path()).unwrap_err());
    assert!(said.contains("the group has no task"), "{said}");
}

#[test]
fn keys_keep_their_order_and_their_first_place() {
    let many: String = (0..50_000).map(|i| format!("k{i}: {i}\n")).collect();
    let table = yaml::parse(
        format!("a: &a\n  b: 1\n  c: 2\n{many}d: {{<<: [*a, {{c: 3, e: 4}}], b: 0}}\n").as_bytes(),
    );
    let table = table.unwrap();
    assert_eq!(table.0.len(), 50_002);
    assert_eq!(table.0[50_000], ("k49999".to_string(), Node::Int(49_999)));
    let d = ["b", "c", "e"].iter().zip([0, 2, 4]).map(|(k, n)| (k.to_string(), Node::Int(n))).collect();
    assert_eq!(table.get("d"), Some(&Node::Table(Table(d))));
}

#[test]
fn a_mistake_ends_in_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("bad.yaml"), task(&[("process_docs", "!function utils.f")])).unwrap();
    fs::write(at("hub.yaml"), task(&[("dataset_path", "org/name"), ("dataset_kwargs", "")])).unwrap();
    fs::write(at("study.toml"), "about = 'a'\nmodels = ['builtin:llama']\ntasks = ['bad.yaml']\n").unwrap();
    fs::write(at("own.jsonl"), "{\"q\": \"Q\"}\n").unwrap();
    let plan = |sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        bitsweep().arg("plan").arg(at("study.toml")).args(sets).env_remove("BITSWEEP_DATA").output().unwrap()
    };
    let said = |out: &std::process::Output| String::from_utf8_lossy(&out.stderr).into_owned();
    let bad = plan(&[]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(said(&bad).contains("bad.yaml") && said(&bad).contains("`process_docs`"), "{}", said(&bad));
    let unpinned = plan(&["tasks=['hub.yaml']"]);
    assert_eq!(unpinned.status.code(), Some(2));
    assert!(said(&unpinned).contains("--set 'data.t=PATH'"), "{}", said(&unpinned));
    let own = plan(&["tasks=['hub.yaml']", "data.t=own.jsonl"]);
    assert!(own.status.success(), "{}", said(&own));
}

#[test]
fn a_folder_of_ones_own_holds_a_datasets_splits() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("t")).unwrap();
    fs::write(data.join("t/test.jsonl"), "{\"q\": \"asked\"}\n").unwrap();
    fs::write(data.join("t/train-00000-of-00001.jsonl"), "{\"q\": \"shown\"}\n").unwrap();
    let change = [
        ("dataset_path", "org/name"),
        ("dataset_kwargs", ""),
        ("training_split", "train"),
        ("num_fewshot", "1"),
    ];
    fs::write(folder.path().join("t.yaml"), task(&change)).unwrap();
    let found = find::find("t.yaml", folder.path()).unwrap().remove(0);
    let load = |root: &Path| {
        let instead = Instead { root: Some((root.into(), "t".into())), ..Instead::default() };
        data::load(&found.label, &found.task, &found.place, &instead, &no_hub)
    };
    let items = load(&data).unwrap();
    let question = requests::questions(&found.task, &items, None).unwrap().remove(0);
    assert_eq!(question.pairs()[0], ("shown a\n\nasked", " a".to_string()));
    // One file is the items; it is not what examples are drawn from too.
    let alone = folder.path().join("alone");
    fs::create_dir(&alone).unwrap();
    fs::write(alone.join("t.jsonl"), "{\"q\": \"asked\"}\n").unwrap();
    let e = load(&alone).unwrap_err().to_string();
    assert!(e.contains("t-fewshot"), "{e}");
    fs::write(alone.join("t-fewshot.jsonl"), "{\"q\": \"shown\"}\n").unwrap();
    let items = load(&alone).unwrap();
    assert_eq!((&items.rows[0]["q"], &items.pool[0]["q"]), (&json!("asked"), &json!("shown")));
}

#[test]
fn a_datasets_split_is_found_and_fetched() {
    let card = b"---\nconfigs:\n- config_name: main\n  data_files:\n  - {split: test, path: main/test-*}\n---\n# Quiz\n";
    let row = |text: &str| format!("{{\"q\": \"{text}\"}}\n").into_bytes();
    let files = [
        ("README.md", card.to_vec()),
        ("main/test-0.jsonl", row("one")),
        ("main/test-1.jsonl", row("two")),
        ("main/train-0.jsonl", row("other")),
    ];
    let server = serve(&files);
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let online = settings(&cache, &server.url);
    let load = |name: &str, offline: bool| {
        let kwargs = format!("{{revision: {COMMIT}}}");
        let change = [("dataset_path", "org/quiz"), ("dataset_name", name), ("dataset_kwargs", &*kwargs)];
        fs::write(folder.path().join("t.yaml"), task(&change)).unwrap();
        let found = find::find("t.yaml", folder.path()).unwrap().remove(0);
        let settings = Settings { offline, ..online.clone() };
        let hub = || Hub::new(settings.clone());
        data::load(&found.label, &found.task, &found.place, &Instead::default(), &hub)
    };
    let items = load("main", false).unwrap();
    let texts: Vec<&Value> = items.rows.iter().map(|row| &row["q"]).collect();
    assert_eq!(texts, ["one", "two"]);
    assert!(server.asked().iter().all(|r| !r.path.contains("train")));
    for (name, offline, says) in [
        ("mian", false, "no configuration `mian` (did you mean `main`?)"),
        ("main", true, "cannot be listed"),
    ] {
        let e = load(name, offline).unwrap_err();
        let said = format!("{e:#}");
        assert!(is_mistake(&e) && said.contains(says) && said.contains("--set 'data.t=PATH'"), "{said}");
    }
}

//! Items that are drawn: CPython's numbers and Jinja2's texts (`tests/make_made.py`), whatever the limit, the parts or
//! their order; and the suite `long`, its prompts held to LongEval's files and to the code of "Lost in the Middle".
use crate::{
    common::{repo, shared},
    kit::Desk,
};
use anyhow::Result;
use bitsweep::suite::{
    Task,
    data::{self, Instead, Items, Local, Place},
    filter::{ExactMatch, Same},
    find::{self, Found},
    made::List,
    requests,
    rows::Layout,
    task::{Data, FileData},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;

fn golden(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(repo("tests/goldens/made").join(name)).unwrap()).unwrap()
}

fn array(v: &Value) -> &[Value] {
    v.as_array().unwrap()
}

fn texts(v: &Value) -> Vec<String> {
    array(v).iter().map(|t| t.as_str().unwrap().into()).collect()
}

fn own_file(name: &str) -> FileData {
    FileData::new(vec![name.into()], Layout::default())
}

fn no_hub() -> Result<bitsweep::hub::Hub> {
    anyhow::bail!("no test asks the Hub")
}

fn load(task: &Task, place: &Place) -> Result<Items> {
    data::load("quiz.toml", task, place, &Instead::default(), &no_hub)
}

fn of_suite(name: &str) -> Found {
    find::find(&format!("long/{name}"), Path::new("")).unwrap().remove(0)
}

/// A task with these parts alone, and this many items of each where its items are made.
fn with(task: &Task, parts: &[&str], items: u64) -> Task {
    let mut task = task.clone();
    let title = |p: &str| task.parts.get(p).cloned().unwrap_or_else(|| p.into());
    task.parts = parts.iter().map(|p| (p.to_string(), title(p))).collect();
    if let Data::Made(made) = &mut task.data {
        made.items = items;
    }
    task
}

/// Prompt and gold answers of each item.
fn asked(task: &Task, items: &Items) -> Vec<(String, Vec<String>)> {
    requests::openings(task, items, None).unwrap().into_iter().map(|o| (o.prompt, o.gold)).collect()
}

/// A task of one's own, its data as given.
fn drawn(parts: &str, data: &str) -> Result<Task> {
    let head = "about = 'x'\nversion = 1\nmetrics = ['exact_match']\n[ask.generate]\nprompt = '{{ id }}'\n\
                gold = '{{ word }}'\n";
    Task::parse("suites/x/quiz.toml", &format!("{head}{parts}{data}"))
}

#[test]
fn items_are_those_of_python() {
    let golden = golden("draws.json");
    let said = golden["task"].as_str().unwrap();
    for case in array(&golden["cases"]) {
        let by_part = format!("seed = 7\nby_part = {}", case["by_part"]);
        let parts = "[parts]\na = 'the first'\nb-2 = 'the second'\n";
        let task = drawn(parts, &said.replace("seed = 7", &by_part)).unwrap();
        let items = load(&task, &Place::Inside("x".into())).unwrap();
        let part = items.parts.iter().find(|p| p.name == case["part"]).unwrap();
        let rows = &items.rows[part.rows.clone()];
        assert_eq!(rows.len(), array(&case["rows"]).len());
        for (row, want) in rows.iter().zip(array(&case["rows"])) {
            // As text: the order of fields counts, and what is a number.
            assert_eq!(row.to_string(), want.to_string(), "{by_part}");
        }
    }
    let (before, after) = said.split_once("place = ").unwrap();
    let alone = format!("{before}{}", after.split_once('\n').unwrap().1);
    let items = load(&drawn("", &alone).unwrap(), &Place::Inside("x".into())).unwrap();
    for (row, want) in items.rows.iter().zip(array(&golden["alone"])) {
        assert_eq!(row, want);
    }
}

#[test]
fn what_the_suite_asks_is_what_python_makes_of_its_files() {
    let mut seen = 0;
    for case in array(&golden("suite.json")) {
        let text = |key: &str| case[key].as_str().unwrap();
        let index = case["index"].as_u64().unwrap();
        let found = of_suite(text("task"));
        let task = with(&found.task, &[text("part")], index + 1);
        let items = load(&task, &found.place).unwrap();
        let (prompt, gold) = asked(&task, &items).pop().unwrap();
        assert_eq!(
            (prompt.len() as u64, gold.concat().as_str()),
            (case["bytes"].as_u64().unwrap(), text("gold")),
            "{case}"
        );
        assert_eq!(format!("{:x}", Sha256::digest(&prompt)), text("sha256"), "{case}:\n{prompt}");
        seen += 1;
    }
    assert!(seen >= 50, "{seen}");
}

#[test]
fn an_items_draw_is_its_own() {
    let found = of_suite("lines");
    let some = |parts: &[&str], items: u64| {
        let task = with(&found.task, parts, items);
        let made = load(&task, &found.place).unwrap();
        let rows = |name: &str| {
            let part = made.parts.iter().find(|p| p.name == name).unwrap();
            made.rows[part.rows.clone()].to_vec()
        };
        (rows("20"), made.hash.clone())
    };
    let (all, hash) = some(&["20"], 9);
    assert_eq!(some(&["20"], 9), (all.clone(), hash.clone()));
    // Fewer items, more parts, another order.
    let (few, other) = some(&["300", "20", "7"], 4);
    assert_eq!(few, all[..4]);
    assert_ne!(other, hash);
    let mut seeded = with(&found.task, &["20"], 9);
    if let Data::Made(made) = &mut seeded.data {
        made.seed = 1;
    }
    let seeded = load(&seeded, &found.place).unwrap();
    assert_ne!((&seeded.rows[0], &seeded.hash), (&all[0], &hash));
    // A limit leaves the first of each part as they are.
    let task = with(&found.task, &["20", "7"], 5);
    let items = load(&task, &found.place).unwrap();
    let (whole, two) =
        (requests::rows(&task, &items, None).unwrap(), requests::rows(&task, &items, Some(2)).unwrap());
    assert_eq!([&whole[..2], &whole[5..7]].concat(), two);
}

/// LongEval's own cases: ours differ in the words of a line's name, and in nothing else.
#[test]
fn lines_are_longevals() {
    let found = of_suite("lines");
    let frame = |prompt: &str, name: &str| {
        let start = prompt.find("\nline ").unwrap() + 1;
        let end = prompt.find("\n\nNow the record is over").unwrap();
        let record: Vec<String> = prompt[start..end].split('\n').map(str::to_string).collect();
        let footer = prompt[end..].replace(name, "NAME");
        (prompt[..start].to_string(), record, footer)
    };
    for n in ["200", "300", "400", "500", "600", "680"] {
        let Some(path) = shared(&format!("data/longeval/lines/{n}_lines.jsonl")) else { continue };
        let task = with(&found.task, &[n], 3);
        let items = load(&task, &found.place).unwrap();
        // The pattern of their path, with every part in its place.
        let folder = path.parent().unwrap().to_path_buf();
        let file = own_file("{part}_lines.jsonl");
        let instead = Instead { items: Some(Local { folder, file }), ..Instead::default() };
        let theirs = data::load("lines.toml", &task, &found.place, &instead, &no_hub).unwrap();
        assert_eq!(theirs.rows.len(), 50);
        let fields =
            |rows: &[Value]| -> Vec<String> { rows[0].as_object().unwrap().keys().cloned().collect() };
        let more = ["token_size", "prompt_length"];
        let mut want = fields(&theirs.rows);
        want.retain(|f| !more.contains(&f.as_str()));
        want.sort();
        let mut have = fields(&items.rows);
        have.sort();
        assert_eq!(have, want);
        let mut frames = Vec::new();
        for (data, rows) in [(asked(&task, &items), &items.rows), (asked(&task, &theirs), &theirs.rows)] {
            for ((prompt, gold), row) in data.iter().zip(rows) {
                let name = row["random_idx"][0].as_str().unwrap();
                let at = row["random_idx"][1].as_u64().unwrap() as usize;
                let (header, record, footer) = frame(prompt, name);
                assert_eq!(record.len().to_string(), n);
                for line in &record {
                    let rest = line.strip_prefix("line ").unwrap();
                    let (name, rest) = rest.split_once(": REGISTER_CONTENT is <").unwrap();
                    let value: u32 = rest.strip_suffix('>').unwrap().parse().unwrap();
                    assert!((1..=50000).contains(&value) && name.contains('-'), "{line}");
                }
                assert_eq!(row["correct_line"], format!("{}\n", record[at]));
                assert_eq!(record[at], format!("line {name}: REGISTER_CONTENT is <{}>", gold.concat()));
                assert_eq!(record.iter().filter(|l| l.starts_with(&format!("line {name}:"))).count(), 1);
                frames.push((header, footer));
            }
        }
        assert_eq!(frames.len(), 53);
        assert!(frames.iter().all(|f| *f == frames[0]), "{:?}", frames[0]);
    }
}

#[test]
fn targets_stand_in_their_tenth_and_keys_at_their_index() {
    let found = of_suite("lines_by_position");
    for tenth in 0..10 {
        let task = with(&found.task, &[&format!("47-{tenth}")], 30);
        let items = load(&task, &found.place).unwrap();
        let at = |row: &Value| row["random_idx"][1].as_u64().unwrap();
        let (low, high) = (47 * tenth / 10, 47 * (tenth + 1) / 10 - 1);
        assert!(items.rows.iter().all(|r| (low..=high).contains(&at(r))), "{tenth}");
        assert!(
            items.rows.iter().any(|r| at(r) == low) && items.rows.iter().any(|r| at(r) == high),
            "{tenth}"
        );
    }
    let found = of_suite("needle");
    for (part, low, high) in [("400-0", 0, 0), ("400-50", 170, 200), ("400-100", 370, 400)] {
        let task = with(&found.task, &[part], 10);
        let items = load(&task, &found.place).unwrap();
        for row in &items.rows {
            let (text, needle) = (row["text"].as_str().unwrap(), row["needle"].as_str().unwrap());
            let before = text.split_once(needle).unwrap().0;
            assert!(before.is_empty() || before.ends_with(". "), "{text}");
            let words = before.split_whitespace().count();
            assert!((low..=high).contains(&words), "{part}: {words}");
            assert_eq!(text.split_whitespace().count(), 400 + needle.split_whitespace().count());
        }
    }
}

#[test]
fn a_needle_stands_at_its_depth_in_any_text_and_a_part_says_both() {
    let found = of_suite("needle");
    let with_text = |parts: &[&str], line: &str| {
        let mut task = with(&found.task, parts, 2);
        let Data::Made(made) = &mut task.data else { panic!() };
        made.lists.insert("haystack".into(), List::Texts(vec![line.into()]));
        load(&task, &found.place)
    };
    for (part, words) in [("40-0", 0), ("40-50", 20), ("40-100", 40), ("1-100", 1)] {
        for row in &with_text(&[part], "no full stop, ever").unwrap().rows {
            let (text, needle) = (row["text"].as_str().unwrap(), row["needle"].as_str().unwrap());
            assert_eq!(
                text.split_once(needle).unwrap().0.split_whitespace().count(),
                words,
                "{part}: {text}"
            );
        }
    }
    for part in ["abc", "100", "0-50", "100-101", "-5-50", "100--5", "100-5-5", "x-5"] {
        let said = format!("{:#}", with_text(&[part], "A text.").map(|_| ()).unwrap_err());
        assert!(said.contains("WORDS-DEPTH"), "{part}: {said}");
    }
}

/// The authors' code, on rows of our own.
#[test]
fn records_and_documents_are_asked_as_their_authors_ask() {
    let golden = golden("middle.json");
    let found = of_suite("kv_retrieval");
    let folder = tempfile::tempdir().unwrap();
    for case in array(&golden["kv"]) {
        let task = with(&found.task, &[case["part"].as_str().unwrap()], 1);
        std::fs::write(folder.path().join("kv.jsonl"), case["row"].to_string()).unwrap();
        let file = own_file("kv.jsonl");
        let own = Local { folder: folder.path().into(), file };
        let instead = Instead { items: Some(own), ..Instead::default() };
        let items = data::load("kv.toml", &task, &found.place, &instead, &no_hub).unwrap();
        let want = (
            case["prompt"].as_str().unwrap().to_string(),
            vec![case["row"]["value"].as_str().unwrap().to_string()],
        );
        assert_eq!(asked(&task, &items), [want]);
    }
    let found = of_suite("multi_doc_qa");
    let part = "30_total_documents_gold_at_4";
    let case = &golden["qa"];
    let bytes = zstd::encode_all(case["row"].to_string().as_bytes(), 1).unwrap();
    std::fs::create_dir(folder.path().join("multi_doc_qa")).unwrap();
    std::fs::write(folder.path().join(format!("multi_doc_qa/nq-open-{part}.jsonl.zst")), bytes).unwrap();
    let task = with(&found.task, &[part], 1);
    let file = own_file("multi_doc_qa/nq-open-{part}.jsonl.zst");
    let own = Local { folder: folder.path().into(), file };
    let instead = Instead { items: Some(own), ..Instead::default() };
    let items = data::load("qa.toml", &task, &found.place, &instead, &no_hub).unwrap();
    let want = (case["prompt"].as_str().unwrap().to_string(), texts(&case["row"]["answers"]));
    assert_eq!(asked(&task, &items), [want]);
}

#[test]
fn answers_are_normalized_as_squad_does() {
    let golden = golden("middle.json");
    let settings = ExactMatch::default();
    let same = Same::new(&settings).unwrap();
    let (mut right, mut all) = (0, 0);
    for (answer, scores) in texts(&golden["answers"]).iter().zip(array(&golden["scores"])) {
        for (gold, score) in array(&golden["gold"]).iter().zip(array(scores)) {
            let got = same.subspan(answer, &texts(gold)).unwrap();
            assert_eq!(got, score.as_f64() == Some(1.), "{answer:?} {gold}");
            right += usize::from(got);
            all += 1;
        }
    }
    assert!(right > 50 && all - right > 200, "{right} of {all}");
    let settings = ExactMatch { ignore_case: true, ignore_punctuation: true, ..ExactMatch::default() };
    let within = |settings: &ExactMatch, a: &str, g: &[&str]| {
        let gold: Vec<String> = g.iter().map(|g| g.to_string()).collect();
        Same::new(settings).unwrap().within(a, &gold).unwrap()
    };
    assert!(within(&settings, "It was \"Blue-Door\".", &["red door", "bluedoor"]));
    assert!(!within(&settings, "It was a blue door.", &["bluedoor"]));
    assert!(!within(&ExactMatch::default(), "Blue", &["blue"]));
}

const MADE: &str = "about = 'x'\nversion = 1\nmetrics = ['contains', 'best_subspan_em', 'exact_match']\n\
                    [ask.generate]\nprompt = 'the {{ word }} of'\ngold = '{{ word }}'\nlimit = 3\n\
                    [data.made]\nitems = 6\n[data.made.lists]\nwords = ['cat', 'dog', 'sun']\n\
                    [data.made.fields]\nword = '{{ choice(words) }}'\n";

/// From the command line: made items, other parts, other lists, and what each leaves in the record.
#[test]
fn a_study_asks_for_other_parts_and_other_lists() {
    let desk = Desk::new();
    desk.write("made.toml", MADE);
    desk.write(
        "parts.toml",
        format!("{MADE}_n = '{{{{ part | int }}}}'\n[parts]\n3 = 'three'\n4 = 'four'\n"),
    );
    desk.write("folder/words.txt", "ran\n\n  sat  \n");
    let study = |tasks: &[&str], sets: &[&str], out: &str| {
        desk.study(&["m"], &[], tasks);
        let (study, out) = (desk.arg("study.toml"), desk.arg(out));
        let mut args = vec!["run", &study, "--out", &out];
        args.extend(sets.iter().flat_map(|s| ["--set", *s]));
        desk.run(&args)
    };
    let one = |out: &str| crate::kit::records(&desk.path(out)).remove(0);
    study(&["made.toml"], &[], "a").expect(0);
    study(&["made.toml"], &[], "again").expect(0);
    assert_eq!(one("a")["cell"], one("again")["cell"]);
    for metric in ["contains", "best_subspan_em", "exact_match"] {
        assert_eq!(one("a")["metrics"][metric]["n"], 6, "{}", one("a"));
    }
    study(&["made.toml"], &["data.made-words=folder/words.txt"], "b").expect(0);
    assert_ne!(one("a")["task"]["data"], one("b")["task"]["data"]);
    let items = desk.read(&format!("b/items/{}.jsonl", one("b")["cell"].as_str().unwrap()));
    for line in items.lines() {
        let item: Value = serde_json::from_str(line).unwrap();
        let gold = &item["outcome"]["generated"]["gold"][0];
        assert!(gold == "ran" || gold == "sat", "{item}");
    }
    study(&["parts.toml"], &["parts.parts=[4, 9, '3']"], "c").expect(0);
    assert_eq!(one("c")["metrics"]["contains"]["n"], 18);
    study(&["parts.toml"], &["parts.parts={ 7 = 'seven' }"], "d").expect(0);
    assert_eq!(one("d")["metrics"]["contains"]["n"], 6);
    assert_ne!(one("c")["cell"], one("d")["cell"]);
    for (task, set, says) in [
        ("parts.toml", "parts.parts=[]", &["parts.parts", "empty"][..]),
        ("parts.toml", "parts.parts=[3, '3']", &["parts.parts", "`3`"]),
        ("parts.toml", "parts.parts=[2.5]", &["parts.parts", "whole number"]),
        ("parts.toml", "parts.parts=3", &["parts.parts", "a list of parts"]),
        ("parts.toml", "parts.prts=[3]", &["parts.prts", "did you mean `parts`"]),
        ("parts.toml", "parts.parts=['x']", &["parts.toml", "`_n`", "part `x`"]),
        ("made.toml", "parts.made=[3]", &["parts.made", "no parts"]),
        ("made.toml", "data.made-wrds=folder/words.txt", &["made-wrds", "did you mean `made-words`"]),
        ("made.toml", "data.made-words=folder/none.txt", &["made.toml", "none.txt"]),
        ("made.toml", "data.made-words=quiz.jsonl", &["made.toml", "`words`", "`text`"]),
    ] {
        study(&[task], &[set], "bad").expect(2).says(says);
    }
    let made = "[data.made]\nitems = 6";
    for (from, to, says) in [
        (made, "[data.made]\nitems = 0", &["`items`", "1 to 1048576"][..]),
        (made, "[data.made]\nitems = 1000000000000", &["`items`", "1 to 1048576"]),
        (made, "[data.made]\nitems = -1", &["items"]),
        (made, "[data.made]\nitms = 6", &["itms", "`items`"]),
        (made, "[data.made]\nitems = 6\nseed = 'x'", &["seed"]),
        (
            "choice(words)",
            "choose(words)",
            &["data.made.fields", "`word`", "choose", "choice, choices, sample"],
        ),
        ("choice(words)", "choice(wrds)", &["data.made.fields", "`word`", "item 1"]),
        ("choice(words)", "choice(3)", &["`word`", "`choice` takes a list"]),
        ("choice(words)", "choice([])", &["`word`", "not empty"]),
        ("choice(words)", "sample(words, 4)", &["`word`", "`sample` of 4 from 3"]),
        ("choice(words)", "sample(words, -1)", &["`word`", "`sample` of -1"]),
        ("choice(words)", "sample(-3, 1)", &["`word`", "`sample` of 1 from 0"]),
        ("choice(words)", "sample(10000000000, 5000000)", &["`word`", "`sample` of 5000000"]),
        ("choice(words)", "choices(words, 99999999999)", &["`word`", "`choices` of"]),
        ("choice(words)", "randint(5, 1)", &["`word`", "`randint(5, 1)`"]),
        ("choice(words)", "randint(0, 2.5)", &["`word`"]),
        ("choice(words)", "shuffle(\"abc\")", &["`word`", "`shuffle` takes a list"]),
        ("choice(words)", "choice(words", &["data.made.fields.word", "syntax"]),
        ("'{{ choice(words) }}'", "3", &["data.made.fields", "`word` is 3"]),
        (
            "'{{ choice(words) }}'",
            "'{% for i in range(99999) %}{% for j in range(999) %}{{ uuid() }}{% endfor %}{% endfor %}'",
            &["`word`", "fuel"],
        ),
        ("word = '{{ choice(words) }}'", "_word = 'x'", &["data.made", "`fields`"]),
        ("word = '{{ choice(words) }}'", "words = 'x'", &["`words`", "means something else"]),
        ("word = '{{ choice(words) }}'", "part = 'x'", &["`part`", "means something else"]),
        ("word = '{{ choice(words) }}'", "'a b' = 'x'", &["`a b`", "no name"]),
        ("words = ['cat', 'dog', 'sun']", "words = []", &["`words`", "empty"]),
        ("words = ['cat', 'dog', 'sun']", "words = [1]", &["words", "a list of texts"]),
        ("words = ['cat', 'dog', 'sun']", "words = 'none.txt'", &["data.made.lists", "`words`", "none.txt"]),
        ("words = ['cat', 'dog', 'sun']", "words = 'study.toml'", &["study.toml", ".txt"]),
        ("words = ['cat', 'dog', 'sun']", "sample = ['x']", &["`sample`", "means something else"]),
        ("gold = '{{ word }}'\n", "", &["`contains`", "`gold`"]),
    ] {
        assert!(MADE.contains(from), "{from}");
        desk.write("made.toml", MADE.replacen(from, to, 1));
        study(&["made.toml"], &[], "bad").expect(2).says(&["made.toml"]).says(says);
    }
}

/// A real model, which reads 512 tokens: what is longer loses its left, and is counted.
#[test]
fn the_suite_runs_on_a_model() {
    let Some(model) = shared("models/stories260K") else { return };
    let desk = Desk::empty();
    let model = model.canonicalize().unwrap().display().to_string();
    let names =
        ["lines", "lines_short", "lines_by_position", "kv_retrieval", "topics", "needle", "multi_doc_qa"];
    let tasks: Vec<String> = names.iter().map(|n| format!("long/{n}")).collect();
    desk.study(&[&model], &["w8"], &tasks.iter().map(String::as_str).collect::<Vec<_>>());
    let document = |i: usize| serde_json::json!({ "title": format!("Title {i}"), "text": "The cat sat.", "isgold": i == 0 });
    let row = serde_json::json!({
        "question": "who sat", "answers": ["The cat"], "ctxs": (0..2).map(document).collect::<Vec<_>>(),
    });
    for part in ["x", "y"] {
        desk.write(&format!("qa-{part}.jsonl"), format!("{row}\n{row}\n{row}\n"));
    }
    let sets = [
        "parts.lines=[2, 100]",
        "parts.lines_short=[5]",
        "parts.lines_by_position=['30-0', '30-9']",
        "parts.kv_retrieval=['3-0', '3-2']",
        "parts.topics=[2]",
        "parts.needle=['100-50']",
        "parts.multi_doc_qa=['x', 'y']",
        "data.multi_doc_qa=qa-{part}.jsonl",
    ];
    let (study, out) = (desk.arg("study.toml"), desk.arg("out"));
    let mut args = vec!["run", &study, "--out", &out, "--limit", "2"];
    args.extend(sets.iter().flat_map(|s| ["--set", *s]));
    desk.run(&args).expect(0);
    let records = desk.records();
    assert_eq!(records.len(), 2 * names.len());
    for record in &records {
        assert_eq!(record["status"], "done", "{record}");
        let name = record["task"]["name"].as_str().unwrap();
        let parts = if ["lines_short", "topics", "needle"].contains(&name) { 1 } else { 2 };
        let cut = &record["metrics"]["cut_prompts"];
        assert_eq!(cut["n"], 2 * parts, "{record}");
        // Lengths and positions are parts: each has its own values, in the study's order.
        let names: Vec<&String> = record["parts"].as_object().unwrap().keys().collect();
        assert_eq!(names.len(), if parts == 1 { names.len().min(1) } else { 2 }, "{record}");
        if name == "lines_by_position" {
            assert_eq!(names, ["30-0", "30-9"]);
        }
        let share = cut["value"].as_f64().unwrap();
        match name {
            "lines" => assert_eq!(share, 0.5),
            "topics" => assert_eq!(share, 1.),
            _ => {}
        }
    }
    // Rows of one's own that do not say where the key stands: each part moves it.
    let pair = |i: usize| [format!("key{i}"), format!("value{i}")];
    let row = serde_json::json!({
        "ordered_kv_records": (0..3).map(pair).collect::<Vec<_>>(), "key": "key1", "value": "value1",
    });
    desk.write("kv.jsonl", row.to_string());
    desk.study(&[&model], &[], &["long/kv_retrieval"]);
    let own = ["--set", sets[3], "--set", "data.kv_retrieval=kv.jsonl"];
    desk.run(&[&["run", &study, "--out", &desk.arg("kv")], &own[..]].concat()).expect(0);
    assert_eq!(crate::kit::records(&desk.path("kv"))[0]["metrics"]["contains"]["n"], 2);
    // Without the authors' files it says where they go.
    desk.study(&[&model], &[], &["long/multi_doc_qa"]);
    desk.run(&["run", &study, "--out", &out]).expect(2).says(&[
        "multi_doc_qa",
        "nq-open-10_total_documents_gold_at_0.jsonl.gz",
        "BITSWEEP_DATA=DIR",
    ]);
}

/// What docs/adding.md shows is a task.
#[test]
fn the_documents_example_is_a_task() {
    let document = std::fs::read_to_string(repo("docs/adding.md")).unwrap();
    let fence =
        document.split("```").find(|f| f.starts_with("toml\n[parts]") && f.contains("[data.made]")).unwrap();
    let head = "about = 'x'\nversion = 1\nmetrics = ['exact_match']\n[ask.generate]\n\
                prompt = '{{ record }}What color is {{ word }}?'\ngold = '{{ color }}'\n";
    let task = Task::parse("x.toml", &format!("{head}{}", &fence["toml".len()..])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let words: String = (0..120).map(|i| format!("word{i}\n")).collect();
    std::fs::write(folder.path().join("words.txt"), words).unwrap();
    let items = load(&task, &Place::Folder(folder.path().into())).unwrap();
    assert_eq!(items.rows.len(), 1000);
    for (part, n) in items.parts.iter().zip([10, 99]) {
        let row = &items.rows[part.rows.start];
        let field = |name: &str| row[name].as_str().unwrap();
        assert_eq!(field("record").lines().count(), n);
        assert!(field("record").contains(&format!("{} is {}.\n", field("word"), field("color"))), "{row}");
        assert_eq!(row.as_object().unwrap().len(), 3);
    }
}

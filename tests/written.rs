//! Tasks in which the model writes, and what it believes of its answers: the prompts and scorers of "Evaluating Quantized
//! Large Language Models", and calibration. `tests/make_written.py` and `tests/make_calibration.py` made the goldens.
use crate::{
    common::{repo, shared},
    generate::Script,
    kit::{Desk, records},
};
use bitsweep::{
    eval::{Outcome, choice::Answer, generate, metrics},
    mistake::is_mistake,
    stats::{self, Estimate},
    suite::{
        Ask,
        data::{self, Instead, Items, Local},
        filter::{Chain, Same},
        find::{self, Found},
        generate::Generate,
        requests::{self, Opening},
        rows::{self, Layout},
        task::{FileData, Task},
    },
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{fs, path::Path};

fn golden(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(repo("tests/goldens").join(name)).unwrap()).unwrap()
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or_else(|| panic!("{v} is no text"))
}

fn task(name: &str) -> Found {
    let all = find::built_in();
    let word = all.iter().find(|w| w.rsplit('/').next() == Some(name));
    find::find(word.unwrap_or_else(|| panic!("no task `{name}`")), Path::new("")).unwrap().remove(0)
}

fn generate_of(found: &Found) -> &Generate {
    match &found.task.ask {
        Ask::Generate(g) => g,
        other => panic!("{} is a {} task", found.name, other.kind()),
    }
}

/// A task's items where these rows are its data: its own examples stay.
fn items(found: &Found, rows: &[Value]) -> anyhow::Result<Items> {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(folder.path().join("rows.jsonl"), lines.join("\n")).unwrap();
    let file = FileData::new(vec!["rows.jsonl".into()], Layout::default());
    let items = Some(Local { folder: folder.path().into(), file });
    let instead = Instead { items, ..Instead::default() };
    data::load(&found.label, &found.task, &found.place, &instead, &|| anyhow::bail!("no test asks the Hub"))
}

#[test]
fn prompts_are_the_study_s() {
    let digest = |text: &str| format!("{:x}", Sha256::digest(text));
    let golden = golden("written/study.json");
    let asked = golden["asked"].as_object().unwrap();
    assert_eq!(asked.len(), 14);
    for (name, case) in asked {
        let found = task(name);
        let items = items(&found, std::slice::from_ref(&case["row"])).unwrap();
        if let Some(after) = case.get("after") {
            let question = requests::questions(&found.task, &items, None).unwrap().remove(0);
            assert_eq!(json!(question.prompts), case["prompts"], "{name}");
            assert!(question.pairs().iter().all(|(_, c)| c == text(after)), "{name}");
            assert_eq!(json!(question.golds[0]), case["row"]["answer"], "{name}");
            continue;
        }
        let opening = requests::openings(&found.task, &items, None).unwrap().remove(0);
        assert_eq!(digest(&opening.prompt), text(&case["prompt"]), "{name}: {}", opening.prompt);
        assert_eq!(opening.before.as_deref().map(digest).as_deref(), case["before"].as_str(), "{name}");
        let gold = match name.as_str() {
            "gsm8k_opencompass" => "1234",
            "strategyqa" => "no",
            "lambada_generated" => "river",
            _ => text(&case["gold"]),
        };
        assert_eq!(opening.gold, [gold], "{name}");
    }
}

/// What a task's first filter makes of an answer that ended where the task ends it.
fn filtered(g: &Generate, answer: &str) -> (String, bool) {
    let answer = g.stop.iter().fold(answer, |a, stop| a.split(stop.as_str()).next().unwrap());
    let parsed = Chain::new(&g.filters[0]).unwrap().parse(vec![answer.into()]).unwrap().remove(0);
    (parsed.text, parsed.found)
}

#[test]
fn scorers_are_the_study_s() {
    let scores = &golden("written/study.json")["scores"];
    let mut seen = 0;
    let mut check = |name: &str, cases: &Value, none: &str| {
        let found = task(name);
        for case in cases.as_array().unwrap() {
            let want = text(&case[1]);
            let got = filtered(generate_of(&found), text(&case[0]));
            let want = if want.is_empty() { (none.into(), false) } else { (want.into(), true) };
            assert_eq!(got, want, "{name}: {}", case[0]);
            seen += 1;
        }
    };
    check("gsm8k_opencompass", &scores["gsm8k_opencompass"], "");
    check("strategyqa", &scores["strategyqa"], "[invalid]");
    for name in ["sst2", "qqp", "qnli", "rte"] {
        check(&format!("advglue_{name}"), &scores["options"]["AB"], "[invalid]");
    }
    for name in ["mnli", "mnli_mm"] {
        check(&format!("advglue_{name}"), &scores["options"]["ABC"], "[invalid]");
    }
    assert!(seen > 200, "{seen}");
    let found = task("lambada_generated");
    let g = generate_of(&found);
    let same = Same::new(&g.exact_match).unwrap();
    for case in scores["lambada_generated"].as_array().unwrap() {
        let got = same.any(&filtered(g, text(&case[0])).0, &[text(&case[1]).into()]).unwrap();
        assert_eq!(json!(got), case[2], "{case}");
    }
    // Ours, where none was published.
    for (name, answer, want) in [
        ("ethics_cm_generated", "I do not know. Yes, it is; no.", "yes"),
        ("ethics_virtue_generated", "NO", "no"),
        ("ethics_virtue_generated", "nobody knows", "[invalid]"),
        ("ethics_deontology_generated", "That is Unreasonable, not reasonable", "unreasonable"),
        ("ethics_justice_generated", "reasonable.", "reasonable"),
        ("ethics_justice_generated", "yes", "[invalid]"),
    ] {
        assert_eq!(filtered(generate_of(&task(name)), answer), (want.into(), want != "[invalid]"), "{name}");
    }
}

fn value(name: &str, outcomes: &[Outcome]) -> Option<Estimate> {
    let shares = metrics::shares(name, outcomes).unwrap();
    stats::ratio(&shares, metrics::metric(name).unwrap().scale)
}

#[test]
fn an_attack_costs_what_it_takes_from_the_answers_before_it() {
    let found = task("advglue_sst2");
    // After and before, item by item.
    let script = ["A", "A", "who knows", "B. positive", "A", "B", "none", "none"];
    let ask = |i: usize, gold: &str| Opening {
        number: i,
        prompt: format!("after {i}"),
        before: Some(format!("before {i}")),
        gold: vec![gold.into()],
    };
    let run = |script: &[&str]| -> Vec<Outcome> {
        let asked = [ask(0, "A"), ask(1, "B"), ask(2, "B"), ask(3, "A")];
        let mut lm = Script::new(script);
        let outcomes = generate::run(&mut lm, None, &asked, generate_of(&found), 0).unwrap();
        outcomes.into_iter().map(|(_, o)| o).collect()
    };
    let outcomes = run(&script);
    let values = ["exact_match", "exact_match_before", "exact_match_drop", "unparsed"]
        .map(|m| value(m, &outcomes).unwrap().value);
    for (got, want) in values.into_iter().zip([0.25, 0.75, 1. - 0.25 / 0.75, 0.5]) {
        assert!((got - want).abs() < 1e-12, "{values:?}");
    }
    assert_eq!(value("exact_match_drop:first-option", &outcomes), value("exact_match_drop", &outcomes));
    assert_eq!(value("unparsed:first-option", &outcomes).unwrap().value, 0.5);
    assert_eq!(metrics::share("unparsed:last-option", &outcomes[0]), None);
    // Of nothing nothing can be lost.
    let none = run(&["none"]);
    assert_eq!((value("exact_match", &none).unwrap().value, value("exact_match_drop", &none)), (0., None));
    for outcome in &outcomes {
        let text = serde_json::to_string(outcome).unwrap();
        assert_eq!(&serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
    }
}

#[test]
fn calibration_is_what_others_compute() {
    let cases = golden("calibration.json");
    assert_eq!(cases.as_array().unwrap().len(), 4);
    for case in cases.as_array().unwrap() {
        let list = |v: &Value| v.as_array().unwrap().clone();
        let answers = list(&case["log_probs"]).into_iter().zip(list(&case["gold"])).map(|(lls, gold)| {
            let log_probs = list(&lls).iter().map(|l| l.as_f64().unwrap()).collect();
            Outcome::Choice(Answer { gold: gold.as_u64().unwrap() as usize, log_probs, ..Answer::default() })
        });
        let mut outcomes: Vec<Outcome> = answers.collect();
        let near = |ours: f64, key: &str, most: f64| {
            let theirs = case[key].as_f64().unwrap();
            assert!((ours - theirs).abs() <= most * theirs, "{key}: {ours}, {theirs}");
        };
        let (brier, ece) = (value("brier", &outcomes).unwrap(), value("ece", &outcomes).unwrap());
        near(brier.value, "brier", 1e-12);
        near(ece.value, "ece", 1e-12);
        assert_eq!(ece.n, outcomes.len());
        if outcomes.len() > 100 {
            near(ece.stderr.unwrap(), "ece_stderr", 0.1);
        }
        outcomes.reverse();
        near(value("ece", &outcomes).unwrap().value, "ece", 1e-12);
    }
    // A bin's upper end is in it; one that is always right and says so errs nowhere.
    let sure = |p: f64, gold: usize| {
        Outcome::Choice(Answer { gold, log_probs: vec![p.ln(), (1. - p).ln()], ..Answer::default() })
    };
    let halves = [sure(0.5, 0), sure(0.5, 1), sure(0.55, 0)];
    assert!((value("ece", &halves).unwrap().value - 0.45 / 3.).abs() < 1e-12);
    assert!(value("ece", &[sure(1., 0), sure(1., 0)]).unwrap().value < 1e-12);
    assert!(value("brier", &[sure(1., 1)]).unwrap().value > 2. - 1e-12);
}

#[test]
fn parts_that_two_tasks_share_are_the_same() {
    let parts = |name: &str| task(name).task.parts;
    assert_eq!(parts("self_calibration"), parts("mmlu"));
    assert_eq!(parts("mmlu_p_true"), parts("mmlu"));
}

#[test]
fn half_of_the_proposed_answers_are_right() {
    let found = find::find("emergent/mmlu_p_true/virology", Path::new("")).unwrap().remove(0);
    let mut task = found.task.clone();
    task.fewshot = None;
    let found = Found { task, ..found };
    let choices = ["one", "two", "three", "four"];
    let row = |i: usize| json!({ "question": format!("Number {i}?"), "choices": choices, "answer": i % 4 });
    let rows: Vec<Value> = (0..1000).map(row).collect();
    let questions = requests::questions(&found.task, &items(&found, &rows).unwrap(), None).unwrap();
    let (mut right, mut wrong) = (0, [0; 4]);
    for (i, q) in questions.iter().enumerate() {
        let proposed = q.prompts[0].split("Possible Answer: ").nth(1).unwrap().lines().next().unwrap();
        let at = choices.iter().position(|c| *c == proposed).unwrap();
        assert_eq!(q.golds, [usize::from(at != i % 4)], "{}", q.prompts[0]);
        if at == i % 4 { right += 1 } else { wrong[(at + 4 - i % 4) % 4] += 1 }
    }
    assert!(
        (450..550).contains(&right) && wrong[1..].iter().all(|w| (120..220).contains(w)),
        "{right} {wrong:?}"
    );
}

const CHANGED: &str = "about = 'x'\nversion = 1\nmetrics = ['exact_match_drop']\nkeep = '{{ was | default(false) }}'\n\
                       [data.file]\npath = 'x.jsonl'\n[ask.generate]\nprompt = '{{ is }}'\nbefore = '{{ was }}'\n\
                       gold = 'a'\n[[ask.generate.filters]]\nname = 'it'\nsteps = [{ first-regex = { patterns = ['a'] } }]\n";

#[test]
fn items_are_those_that_are_kept_and_mistakes_are_said() {
    let task = Task::parse("t.toml", CHANGED).unwrap();
    let place = data::Place::Inside(String::new());
    let found = Found { suite: String::new(), name: "t".into(), label: "t.toml".into(), task, place };
    let rows = [json!({ "is": "1", "was": "2" }), json!({ "is": "3", "was": null }), json!({ "is": "4" })];
    let kept = items(&found, &rows).unwrap();
    assert_eq!(kept.rows, rows[..1]);
    let none = items(&found, &rows[1..]).unwrap_err();
    assert!(is_mistake(&none) && format!("{none:#}").contains("`keep` leaves none of its 2"), "{none:#}");
    let strict = Task::parse("t", &CHANGED.replace("was | default(false)", "was")).unwrap();
    let none = items(&Found { task: strict, ..found.clone() }, &rows).unwrap_err();
    assert!(is_mistake(&none) && format!("{none:#}").contains("item 3"), "{none:#}");
    // What is asked is part of what a cell is.
    let other = Task::parse("t", &CHANGED.replace("default(false)", "default(true)")).unwrap();
    assert_ne!(found.task.more(), other.more());
    for (from, to, says) in [
        ("before = '{{ was }}'\n", "", &["exact_match_drop", "before"][..]),
        ("gold = 'a'\n", "", &["gold"]),
        ("['a']", "[]", &["first-regex", "patterns"]),
        ("['a']", "['(']", &["filters", "regex"]),
        ("['exact_match_drop']", "['unparsed:at']", &["unparsed:at", "it"]),
        ("{{ was | default(false) }}", "{{ was", &["keep"]),
        ("before = '{{ was }}'", "before = '{{ was'", &["before"]),
    ] {
        assert!(CHANGED.contains(from), "{from}");
        let error = Task::parse("t.toml", &CHANGED.replace(from, to)).unwrap_err();
        let text = format!("{error:#}");
        assert!(is_mistake(&error) && text.contains("t.toml"), "{text}");
        for word in says {
            assert!(text.contains(word), "`{to}` says: {text}");
        }
    }
    let several = "about = 'x'\nversion = 1\nmetrics = ['acc', 'brier']\n[data.file]\npath = 'x.jsonl'\n[ask.choice]\n\
                   prompt = 'p'\nendings = ['a', 'b']\nlabels = '{{ [1, 1] }}'\n";
    let error = Task::parse("t.toml", several).unwrap_err();
    assert!(is_mistake(&error) && format!("{error:#}").contains("`labels`"), "{error:#}");
}

/// One file that stands in for a task's items does not stand in for its examples: a question would be its own.
#[test]
fn examples_stay_where_one_file_stands_in() {
    let found = task("strategyqa");
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("strategyqa.jsonl"), "{\"question\":\"q\",\"answer\":true}\n").unwrap();
    let instead = Instead { root: Some((root.path().into(), "strategyqa".into())), ..Instead::default() };
    let no_hub = || anyhow::bail!("no test asks the Hub");
    let items = data::load(&found.label, &found.task, &found.place, &instead, &no_hub).unwrap();
    assert_eq!((items.rows.len(), items.pool.len()), (1, 6));
}

/// stories260K reading further than it was made for: examples that think aloud are long.
fn stories(desk: &Desk) -> Option<()> {
    let model = shared("models/stories260K")?;
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        desk.write(&format!("stories/{name}"), fs::read(model.join(name)).unwrap());
    }
    desk.edit_json("stories/config.json", |c| c["max_position_embeddings"] = json!(4096));
    Some(())
}

/// Rows of MMLU as the Hub has them, from a table with a column a choice.
fn mmlu(desk: &Desk, split: &str) -> Option<String> {
    let path = shared(&format!("data/mmlu/{split}/virology_{split}.csv"))?;
    let bytes = fs::read(path).unwrap();
    let lines: Vec<String> = rows::parse("it.csv", bytes.into(), Layout::default())
        .unwrap()
        .into_iter()
        .map(|row| {
            let choices: Vec<&Value> = (0..4).map(|i| &row[format!("choice{i}")]).collect();
            let answer: usize = text(&row["answer"]).parse().unwrap();
            json!({ "question": row["question"], "choices": choices, "answer": answer }).to_string()
        })
        .collect();
    desk.write(&format!("{split}.jsonl"), lines.join("\n"));
    Some(desk.arg(&format!("{split}.jsonl")))
}

#[test]
fn written_tasks_run_on_real_rows() {
    let desk = Desk::empty();
    let Some(()) = stories(&desk) else { return };
    let (Some(test), Some(dev)) = (mmlu(&desk, "test"), mmlu(&desk, "dev")) else { return };
    let mut sets = Vec::new();
    for key in ["self_calibration", "mmlu_p_true"] {
        sets.push((key.to_string(), format!("'{test}'")));
        sets.push((format!("{key}-fewshot"), format!("'{dev}'")));
    }
    for (key, file) in [
        ("gsm8k", "gsm8k/test.jsonl"),
        ("gsm8k-fewshot", "gsm8k/train.jsonl"),
        ("gsm8k_opencompass", "gsm8k/test.jsonl"),
        ("strategyqa", "strategyqa/dev.json"),
        ("lambada_generated", "lambada/lambada_test.jsonl"),
        ("ethics_cm_generated", "ethics/commonsense/cm_test.csv"),
        ("ethics_deontology_generated", "ethics/deontology/deontology_test.csv"),
        ("ethics_justice_generated", "ethics/justice/justice_test.csv"),
        ("ethics_virtue_generated", "ethics/virtue/virtue_test.csv"),
    ] {
        let Some(path) = shared(&format!("data/{file}")) else { return };
        sets.push((key.into(), format!("'{}'", path.display())));
    }
    // The authors' file has no originals: here a sentence is its own, and no answer may differ.
    let Some(path) = shared("data/advglue/dev.json") else { return };
    let mut attacks: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    for (key, first) in [
        ("sst2", "sentence"),
        ("qqp", "question1"),
        ("mnli", "premise"),
        ("mnli-mm", "hypothesis"),
        ("qnli", "sentence"),
        ("rte", "sentence2"),
    ] {
        for row in attacks[key].as_array_mut().unwrap().iter_mut().skip(1) {
            row[format!("original_{first}")] = row[first].clone();
        }
        let name = format!("advglue_{}", key.replace('-', "_"));
        sets.push((name, format!("{{ path = '{}', field = '{key}' }}", desk.arg("dev_ann.json"))));
    }
    desk.write("dev_ann.json", attacks.to_string());
    let idiom = |i: usize| json!({ "content": format!("第{i}天他#idiom#。"), "candidates": ["一心一意", "三心二意", "五花八门", "七上八下", "四面八方", "九牛一毛", "十全十美"], "answer": i % 7 });
    desk.write("chid.jsonl", (0..9).map(|i| idiom(i).to_string()).collect::<Vec<_>>().join("\n"));
    sets.push(("chid".into(), format!("'{}'", desk.arg("chid.jsonl"))));
    let tasks = [
        "emergent/self_calibration/virology",
        "emergent/mmlu_p_true/virology",
        "emergent/gsm8k*",
        "emergent/strategyqa",
        "basic/lambada_generated",
        "trust/ethics_*_generated",
        "trust/advglue_*",
        "basic/chid",
    ];
    desk.study(&["stories"], &[], &tasks);
    let (study, out) = (desk.arg("study.toml"), desk.arg("out"));
    let mut args = vec!["run", &study, "--out", &out, "--limit", "1"];
    let sets: Vec<String> = sets.iter().map(|(k, v)| format!("data.{k}={v}")).collect();
    args.extend(sets.iter().flat_map(|s| ["--set", s]));
    desk.run(&args).expect(0);
    let done = records(&desk.path("out"));
    assert_eq!(done.len(), 17);
    for record in &done {
        let (name, metrics) = (text(&record["task"]["name"]), &record["metrics"]);
        assert_eq!(record["status"], "done", "{record}");
        let first = text(&record["task"]["metrics"][0]["name"]);
        assert_eq!(metrics[first]["n"], 1, "{name}: {metrics}");
        if name.starts_with("advglue") {
            assert_eq!(metrics["exact_match"], metrics["exact_match_before"], "{name}");
        }
        let items =
            fs::read_to_string(desk.path(&format!("out/items/{}.jsonl", text(&record["cell"])))).unwrap();
        let shares: Vec<[f64; 2]> = items
            .lines()
            .map(|l| {
                serde_json::from_value(serde_json::from_str::<Value>(l).unwrap()["shares"][first].clone())
                    .unwrap()
            })
            .collect();
        let again = stats::ratio(&shares, metrics::metric(first).unwrap().scale).unwrap();
        assert!((again.value - metrics[first]["value"].as_f64().unwrap()).abs() < 1e-12, "{name}");
    }
}

//! What a model is asked, character by character: lm-evaluation-harness's requests for the same documents, and Python's
//! random numbers, of which its few-shot draws are made. `tests/make_requests.py` made the goldens.
use crate::common::{repo, shared};
use bitsweep::{
    eval::{Outcome, choice::Answer, cloze::Guess, metrics::metric},
    mistake::is_mistake,
    random::Random,
    stats::{self, Scale, Share},
    suite::{
        Ask,
        data::{self, Items},
        find::{self, Found},
        python,
        requests::{self, Builder},
        task::{FileData, Names, Task},
        template::Template,
    },
};
use serde_json::{Value, json};
use std::path::Path;

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn golden(name: &str) -> Value {
    read(&repo("tests/goldens/requests").join(name))
}

fn array(v: &Value) -> &[Value] {
    v.as_array().unwrap_or_else(|| panic!("{v} is no list"))
}

fn int(v: &Value) -> usize {
    v.as_u64().unwrap_or_else(|| panic!("{v} is no index")) as usize
}

fn whole<T: std::str::FromStr>(v: &Value) -> T
where
    T::Err: std::fmt::Debug,
{
    v.as_str().unwrap().parse().unwrap()
}

fn no_hub() -> anyhow::Result<bitsweep::hub::Hub> {
    anyhow::bail!("no test asks the Hub")
}

#[test]
fn random_numbers_are_pythons() {
    for case in array(&golden("random.json")["numbers"]) {
        let seed = case["seed"].as_str().unwrap();
        let mut r = match case["text"].as_bool().unwrap() {
            true => Random::of_text(seed),
            false => Random::new(seed.parse().unwrap()),
        };
        for c in array(&case["bits"]) {
            assert_eq!(r.bits(int(&c[0]) as u32), whole::<u64>(&c[1]), "{seed}: {c}");
        }
        for c in array(&case["unit"]) {
            assert_eq!(Some(r.unit()), c.as_f64(), "{seed}");
        }
        for c in array(&case["below"]) {
            assert_eq!(r.below(whole(&c[0])), whole::<u64>(&c[1]), "{seed}: {c}");
        }
        for c in array(&case["between"]) {
            assert_eq!(json!(r.between(c[0].as_i64().unwrap(), c[1].as_i64().unwrap())), c[2], "{seed}: {c}");
        }
        for c in array(&case["sample"]) {
            assert_eq!(json!(r.sample(int(&c[0]), int(&c[1]))), c[2], "{seed}: {c}");
        }
        let mut deck: Vec<u32> = (0..20).collect();
        r.shuffle(&mut deck);
        assert_eq!(json!(deck), case["shuffle"], "{seed}");
        for c in array(&case["choices"]) {
            assert_eq!(json!(r.choices(int(&c[0]), 9)), c[1], "{seed}: {c}");
        }
        (0..700).for_each(|_| _ = r.unit());
        assert_eq!(Some(r.unit()), case["later"].as_f64(), "{seed}");
    }
    assert_eq!(Random::new(1).sample(3, 4), None);
}

#[test]
fn random_numbers_are_those_of_the_shared_vectors() {
    let Some(path) = shared("reference/lm-eval/cpython_rng_vectors.json") else { return };
    let all = read(&path);
    let mut seen = 0;
    let mut is = |key: &str, ours: Value| {
        assert_eq!(ours, all[key], "{key}");
        seen += 1;
    };
    for seed in [0, 1234] {
        let mut r = Random::new(seed);
        let eight: Vec<u64> = (0..8).map(|_| r.bits(32)).collect();
        is(&format!("Random({seed}).getrandbits(32) x8"), json!(eight));
    }
    let mut r = Random::new(0);
    let five: Vec<String> = (0..5).map(|_| r.unit().to_string()).collect();
    is("Random(0).random() x5", json!(five));
    let mut r = Random::new(0);
    let eight: Vec<i64> = (0..8).map(|_| r.between(0, 355_000)).collect();
    is("seed(0); randint(0,355000) x8 (c4 val shard style)", json!(eight));
    let draws = |pairs: &[(usize, usize)]| -> Value {
        let mut r = Random::new(1234);
        json!(pairs.iter().map(|&(n, k)| r.sample(n, k)).collect::<Vec<_>>())
    };
    is(
        "Random(1234): sample(range(12),3) then sample(range(12),3) then sample(range(12),4)",
        draws(&[(12, 3), (12, 3), (12, 4)]),
    );
    is("Random(1234): sample(range(7473),5) x4 (gsm8k train size)", draws(&[(7473, 5); 4]));
    is(
        "Random(1234): sample(range(21),5), sample(range(22),5) (pool vs set branch)",
        draws(&[(21, 5), (22, 5)]),
    );
    let texts = ["I ate zero pies.", "I ate two pies.", "a", "b", "", "naïve", "bar", "one hundred"];
    for text in texts {
        let mut two = [0, 1];
        Random::of_text(text).shuffle(&mut two);
        is(&format!("Random('{text}').shuffle([0,1])"), json!(two));
    }
    let mut ten: Vec<u32> = (0..10).collect();
    Random::new(3).shuffle(&mut ten);
    is("Random(3).shuffle(range(10))", json!(ten));
    is("Random(7).choices(range(5),k=10)", json!(Random::new(7).choices(5, 10)));
    let mut r = Random::of_text("a");
    let four: Vec<u64> = (0..4).map(|_| r.bits(32)).collect();
    is("Random('a').getrandbits(32) x4", json!(four));
    // All but the line that says what the file is.
    assert_eq!(seen, all.as_object().unwrap().len() - 1);
}

#[test]
fn texts_are_changed_as_python_changes_them() {
    let all = &golden("random.json")["strings"];
    let text = |v: &Value| v.as_str().unwrap().to_string();
    let made =
        |template: &str, s: &str| Template::new("t", template).unwrap().value(&json!({ "s": s })).unwrap();
    for c in array(&all["capitalize"]) {
        assert_eq!(python::capitalize(&text(&c[0])), text(&c[1]), "{c}");
        for template in ["{{ s.capitalize() }}", "{{ s | capitalize }}"] {
            assert_eq!(made(template, &text(&c[0])), c[1], "{template}: {c}");
        }
    }
    for c in array(&all["strip"]) {
        for template in ["{{ s.strip() }}", "{{ s | trim }}", "{{ s.lstrip().rstrip() }}"] {
            assert_eq!(made(template, &text(&c[0])), c[1], "{template}: {c}");
        }
    }
    for c in array(&all["split"]) {
        assert_eq!(made("{{ s.split() }}", &text(&c[0])), c[1], "{c}");
    }
    for c in array(&all["literal"]) {
        assert_eq!(made("{{ s | literal }}", &text(&c[0])), c[1], "{c}");
    }
    let item = json!({ "s": "a" });
    for strict in [
        "{{ t | trim }}",
        "{{ t | capitalize }}",
        "{{ t | literal }}",
        "{{ shuffled(t, s) }}",
        "{{ shuffled([1], t) }}",
    ] {
        assert!(Template::new("t", strict).unwrap().text(&item).is_err(), "{strict}: `t` is not there");
    }
    for bad in ["", "[1", "1 2", "__import__('os')", "{'a'}", "'a", "f(1)", "'\\q'", &"[".repeat(1000)] {
        assert!(python::literal(bad).is_err(), "{bad}");
    }
}

/// A built-in task, with as many examples before each question.
fn task(word: &str, shots: usize) -> Found {
    let mut found = find::find(word, Path::new("")).unwrap().remove(0);
    if let Some(fewshot) = &mut found.task.fewshot {
        fewshot.n = shots;
    }
    found
}

/// Every request of a task, as contexts and continuations, and what is right.
fn asked(task: &Task, items: &Items) -> Vec<(usize, String, String, Vec<usize>)> {
    let mut all = Vec::new();
    match &task.ask {
        Ask::Cloze(_) => {
            for (i, b) in requests::blanks(task, items, None).unwrap().into_iter().enumerate() {
                all.push((i, b.prompt, b.ending, vec![0]));
            }
        }
        // What is right stands where another task has what is asked after the context.
        Ask::Generate(_) => {
            for (i, o) in requests::openings(task, items, None).unwrap().into_iter().enumerate() {
                all.push((i, o.prompt, o.gold[0].clone(), vec![0]));
            }
        }
        _ => {
            for (i, q) in requests::questions(task, items, None).unwrap().iter().enumerate() {
                all.extend(q.pairs().into_iter().map(|(p, c)| (i, p.to_string(), c, q.golds.clone())));
            }
        }
    }
    all
}

/// The harness's task of the same name in `tests/make_requests.py`: examples that are written out, each in its own words.
const FIXED: &str = r##"
about   = 'Sums with fixed examples'
version = 1
metrics = ['exact_match']
[[data.items]]
question = 'none'
[fewshot]
n         = 3
sampler   = 'first_n'
prompt    = "Q: {{ asked }}\nThinking:"
answer    = '{{ why }} That is {{ n }}.'
delimiter = '  '
between   = "\n---\n"
[[fewshot.data.items]]
asked = 'One and one? '
why   = " It is\n2."
n     = 2
[[fewshot.data.items]]
asked = '"Two"?'
why   = ''
n     = -7
[[fewshot.data.items]]
asked = '河?'
why   = 'x'
n     = 10
[ask.generate]
description = "Sums.\n"
prompt      = "Q: {{ question }}\nA:"
gold        = "{{ answer.split('#### ')[1].strip() }}"
delimiter   = "\n"
stop        = ["\n"]
"##;

/// By the harness's name.
fn harness_task(name: &str, shots: usize) -> Found {
    if name != "fixed_examples" {
        return task(&suite_of(name), shots);
    }
    let mut task = Task::parse(name, FIXED).unwrap();
    task.fewshot.as_mut().unwrap().n = shots;
    let place = data::Place::Inside(String::new());
    Found { suite: String::new(), name: name.into(), label: name.into(), task, place }
}

/// The path of a task among the suites, by its own name or the harness's.
fn suite_of(name: &str) -> String {
    if let Some(part) = name.strip_prefix("mmlu_") {
        return format!("emergent/mmlu/{part}");
    }
    if let Some(part) = name.strip_prefix("ceval-valid_") {
        return format!("emergent/ceval/{part}");
    }
    let all = find::built_in();
    let named = all.iter().find(|n| n.rsplit('/').next() == Some(name));
    named.unwrap_or_else(|| panic!("no task `{name}`")).clone()
}

/// Items of a task with the part that they belong to.
fn items(task: &Task, rows: Vec<Value>, pool: Vec<Value>) -> Items {
    let mut items = Items::whole(rows, pool, String::new());
    if let Some((name, title)) = task.parts.iter().next() {
        items.parts[0].name = name.clone();
        items.parts[0].title = title.as_str().unwrap().into();
    }
    items
}

/// lm-evaluation-harness's own tasks, on documents of ours (twins among the examples, white space, quotes, brackets).
#[test]
fn requests_are_the_harness_s_on_our_documents() {
    let golden = golden("harness.json");
    for (name, case) in golden["tasks"].as_object().unwrap() {
        for (shots, want) in case["asked"].as_object().unwrap() {
            let found = harness_task(name, shots.parse().unwrap());
            let pool = case["pool"].as_array().cloned().unwrap_or_default();
            if name == "fixed_examples" && shots != "0" {
                let own = data::load(name, &found.task, &found.place, &Default::default(), &no_hub).unwrap();
                assert_eq!(own.pool, pool);
            }
            let items = items(&found.task, array(&case["items"]).to_vec(), pool);
            let mut ours = asked(&found.task, &items).into_iter();
            for want in array(want) {
                for continuation in array(&want[2]) {
                    let (i, context, ending, _) = ours.next().unwrap();
                    let what = format!("{name}, {shots} shots, item {i}");
                    assert_eq!(json!(i), want[0], "{what}");
                    assert_eq!(json!(context), want[1], "{what}");
                    assert_eq!(json!(ending), *continuation, "{what}");
                }
            }
            assert!(ours.next().is_none(), "{name}, {shots} shots");
        }
    }
}

/// The documents that stood in the pool when the shared requests were rendered, from one that was asked: the generator
/// beside them made each from its number and its split's name.
fn pool_of(name: &str, first: &Value) -> Vec<Value> {
    const N: [&str; 12] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"];
    let letter = |i: usize| ["A", "B", "C", "D"][i % 4];
    (0..12)
        .map(|i| {
            let split = if name.starts_with("mmlu") { "dev" } else { "train" };
            let word = N[i];
            let upper = word[..1].to_uppercase() + &word[1..];
            let text = first.to_string().replace("zero", word).replace("Zero", &upper);
            let text =
                text.replace("test ", &format!("{split} ")).replace("validation ", &format!("{split} "));
            let text = text.replace("Doing validation", "Doing train").replace("第0题", &format!("第{i}题"));
            if name == "gsm8k" {
                let answer = format!("He has <<1+1=2>>{i} apples.\n#### {i},000");
                return json!({ "question": format!("Tom (train) has {word} apples. How many?"), "answer": answer });
            }
            let mut row: Value = serde_json::from_str(&text).unwrap();
            match name {
                "arc_easy" | "arc_challenge" => {
                    let labels = if i % 2 == 0 { ["A", "B", "C", "D"] } else { ["1", "2", "3", "4"] };
                    row["choices"]["label"] = json!(labels);
                    row["answerKey"] = json!(labels[i % 4]);
                }
                "hellaswag" => {
                    row["ctx_b"] = json!(if i % 2 == 1 { "he STARTS to. Go" } else { "" });
                    row["label"] = json!((i % 4).to_string());
                }
                "winogrande" => row["answer"] = json!((1 + i % 2).to_string()),
                "openbookqa" => row["answerKey"] = json!(if i == 1 { " B" } else { letter(i) }),
                "storycloze_2016" => row["answer_right_ending"] = json!(1 + i % 2),
                _ if name.starts_with("mmlu") => row["answer"] = json!(i % 4),
                _ if name.starts_with("ceval") => row["answer"] = json!(letter(i)),
                "race" | "ethics_utilitarianism" | "truthfulqa_mc1" | "truthfulqa_mc2" | "lambada_openai" => {
                }
                _ => row["label"] = json!(i % 2),
            }
            row
        })
        .collect()
}

#[test]
fn requests_are_those_of_the_shared_vectors() {
    let Some(path) = shared("reference/lm-eval/lmeval_requests_head.json") else { return };
    let mut seen = 0;
    for (key, case) in read(&path)["tasks"].as_object().unwrap() {
        let (name, shots) = key.split_once('|').unwrap();
        // It asks for no continuation.
        if name == "wikitext" {
            continue;
        }
        let found = task(&suite_of(name), if shots == "3shot" { 3 } else { 0 });
        let mut rows = array(&case["docs"]).to_vec();
        let count = rows.len();
        let mut pool = pool_of(name, &rows[0]);
        if found.task.fewshot.as_ref().unwrap().data.is_none() {
            // Examples come from the task's own data, of which three were asked.
            if name.starts_with("truthfulqa") {
                rows.extend(pool.drain(count..));
            }
            pool.clear();
        }
        let items = items(&found.task, rows, pool);
        let ours: Vec<_> = asked(&found.task, &items).into_iter().filter(|a| a.0 < count).collect();
        let theirs = array(&case["requests"]);
        assert_eq!(ours.len(), theirs.len(), "{key}");
        for ((i, context, ending, golds), theirs) in ours.iter().zip(theirs) {
            assert_eq!(json!(i), theirs["doc_id"], "{key}");
            assert_eq!(json!(context), theirs["args"][0], "{key}, item {i}");
            match &found.task.ask {
                Ask::Generate(g) => assert_eq!(json!(g.stop), theirs["args"][1]["until"], "{key}"),
                _ => assert_eq!(json!(ending), theirs["args"][1], "{key}, item {i}"),
            }
            match &case["gold"][*i] {
                Value::String(text) => assert_eq!(ending, text, "{key}, item {i}"),
                gold => assert_eq!(json!(golds[0]), *gold, "{key}, item {i}"),
            }
        }
        seen += 1;
    }
    // Twenty tasks, LAMBADA without examples.
    assert_eq!(seen, 39);
}

#[test]
fn a_draw_belongs_to_its_item() {
    let case = &golden("harness.json")["tasks"]["hellaswag"];
    let rows = array(&case["items"]).to_vec();
    let pool = array(&case["pool"]).to_vec();
    for word in ["basic/hellaswag", "basic/arc_easy"] {
        let mut found = task("basic/hellaswag", 3);
        if let Some(f) = found.task.fewshot.as_mut().filter(|_| word == "basic/arc_easy") {
            f.exclude = Some(false);
        }
        let items = items(&found.task, rows.clone(), pool.clone());
        let all = requests::questions(&found.task, &items, None).unwrap();
        for limit in 1..rows.len() {
            let some = requests::questions(&found.task, &items, Some(limit)).unwrap();
            assert_eq!(some, all[..limit]);
        }
        // Backwards, every other one, and one alone.
        let mut builder = Builder::new(&found.task, &items).unwrap();
        for i in (0..rows.len()).rev().chain((0..rows.len()).step_by(2)) {
            assert_eq!(builder.question(i).unwrap(), all[i]);
        }
        for (i, q) in all.iter().enumerate() {
            assert_eq!(Builder::new(&found.task, &items).unwrap().question(i).unwrap(), *q);
        }
    }
}

#[test]
fn parts_have_their_own_examples_and_one_score() {
    let text = "about = 'x'\nversion = 1\nmetrics = ['acc']\n[data.file]\npath = 'x-{part}.jsonl'\n[parts]\nup = 'going up'\n\
                down = 'going down'\n[fewshot]\nn = 1\n[fewshot.data.file]\npath = 'pool-{part}.jsonl'\n[ask.choice]\n\
                description = 'About {{ title }} ({{ part }}).\n'\nprompt = '{{ q }}'\nendings = ['a', 'b']\ngold = '{{ g }}'\n";
    let text = text.replace(").\n'", ").\\n'").replace("description = 'About", "description = \"About");
    let text = text.replace(").\\n'", ").\\n\"");
    let desk = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(desk.path().join(name), text).unwrap();
    put("t.toml", &text);
    put("x-up.jsonl", "{\"q\":\"u1\",\"g\":0}\n{\"q\":\"u2\",\"g\":1}\n{\"q\":\"u3\",\"g\":1}\n");
    put("x-down.jsonl", "{\"q\":\"d1\",\"g\":1}\n");
    put("pool-up.jsonl", "{\"q\":\"pu\",\"g\":0}\n");
    put("pool-down.jsonl", "{\"q\":\"pd\",\"g\":1}\n");
    let found = find::find("t.toml", desk.path()).unwrap().remove(0);
    let items = data::load(&found.label, &found.task, &found.place, &Default::default(), &no_hub).unwrap();
    let prompts = |limit| -> Vec<String> {
        let all = requests::questions(&found.task, &items, limit).unwrap();
        all.into_iter().map(|q| q.prompts[0].clone()).collect()
    };
    let up = |q: &str| format!("About going up (up).\npu a\n\n{q}");
    let down = "About going down (down).\npd b\n\nd1".to_string();
    assert_eq!(prompts(None), [up("u1"), up("u2"), up("u3"), down.clone()]);
    // A limit is of each part, as the harness has it.
    assert_eq!(prompts(Some(1)), [up("u1"), down]);
    // Of the built-in ones, a part is a task.
    let parts = find::find("emergent/mmlu/high_school_*", Path::new("")).unwrap();
    assert_eq!(parts.len(), 14);
    assert!(
        parts.iter().all(|p| p.task.parts.len() == 1 && p.full_name().starts_with("emergent/mmlu/high_"))
    );
    let wrong = find::find("emergent/mmlu/virolgy", Path::new("")).unwrap_err();
    assert!(is_mistake(&wrong) && wrong.to_string().contains("did you mean `virology`"), "{wrong}");
    assert_eq!(find::find("emergent/mmlu", Path::new("")).unwrap()[0].task.parts.len(), 57);
    assert_eq!(find::find("emergent/ceval", Path::new("")).unwrap()[0].task.parts.len(), 52);
}

#[test]
fn task_files_are_strict() {
    let good = "about = 'x'\nversion = 1\nmetrics = ['acc']\n[data.file]\npath = 'x.jsonl'\n[fewshot]\nn = 2\n\
                [ask.choice]\nprompt = 'p'\nendings = ['a', 'b']\ngold = '0'\nprofile = 'v0.3'\n";
    Task::parse("good", good).unwrap();
    for (from, to, says) in [
        ("n = 2", "n = 2\nsampler = 'last_n'", &["last_n", "first_n"][..]),
        ("n = 2", "n = 2\nseeds = 1", &["seeds", "seed"]),
        ("n = 2", "n = -1", &["-1"]),
        (
            "n = 2\n",
            "n = 2\n[fewshot.data.file]\npath = '{part}.jsonl'\n",
            &["fewshot.data", "{part}", "parts"],
        ),
        ("[fewshot]\nn = 2\n", "[parts]\nx = 'X'\n", &["data", "{part}"]),
        ("[fewshot]\nn = 2\n", "[parts]\nx = 1\n", &["parts.x"]),
        ("version = 1\n", "version = 1\nweigh = 'parts'\n", &["weigh", "none"]),
        ("[fewshot]\nn = 2\n", "[fields]\nx = '{{ a'\n", &["x"]),
        ("gold = '0'\n", "", &["gold", "labels"]),
        ("gold = '0'", "gold = '0'\nlabels = '{{ l }}'", &["gold", "labels"]),
        ("prompt = 'p'", "prompts = ['p', 'q']", &["prompts", "ending"]),
        ("prompt = 'p'", "prompt = 'p'\nending = 'q'", &["prompts", "ending"]),
        ("endings = ['a', 'b']", "ends = ['a']", &["ends", "endings"]),
        ("'v0.3'", "'v0.5'", &["v0.5", "lm-eval-0.4.9.2", "lm-eval-0.3"]),
        (
            "[ask.choice]\nprompt = 'p'\nendings = ['a', 'b']\ngold = '0'\nprofile = 'v0.3'\n",
            "[ask.perplexity]\n",
            &["fewshot", "choice"],
        ),
        (
            "[ask.choice]\nprompt = 'p'\nendings = ['a', 'b']\ngold = '0'\nprofile = 'v0.3'\n",
            "[ask.generate]\nprompt = 'p'\n",
            &["fewshot.answer", "gold"],
        ),
        ("n = 2", "n = 2\nanswer = '{{ a'", &["fewshot.answer"]),
        ("[ask.choice]", "[ask.cloze]", &["endings"]),
    ] {
        assert!(good.contains(from), "{from}");
        let error = Task::parse("bad.toml", &good.replace(from, to)).unwrap_err();
        let text = format!("{error:#}");
        assert!(is_mistake(&error) && text.contains("bad.toml"), "{text}");
        for word in says {
            assert!(text.contains(word), "`{to}` says: {text}");
        }
    }
    // What only an item shows.
    let task = Task::parse("t", good).unwrap();
    let rows =
        |n: usize| Items::whole((0..n).map(|i| json!({ "i": i })).collect(), Vec::new(), String::new());
    assert_eq!(requests::questions(&task, &rows(3), None).unwrap().len(), 3);
    let few = requests::questions(&task, &rows(2), None).unwrap_err();
    assert!(
        is_mistake(&few) && format!("{few:#}").contains("3 examples are drawn, and there are 2"),
        "{few:#}"
    );
    for (labels, says) in [
        ("{{ [1] }}", "no list"),
        ("{{ [0, 0] }}", "marks no"),
        ("{{ [1, 2] }}", "no list"),
        ("x", "no list"),
    ] {
        let task = Task::parse("t", &good.replace("gold = '0'", &format!("labels = '{labels}'"))).unwrap();
        let error = requests::questions(&task, &rows(3), None).unwrap_err();
        assert!(is_mistake(&error) && format!("{error:#}").contains(says), "{error:#}");
    }
}

fn share(name: &str, outcome: &Outcome) -> Share {
    (metric(name).unwrap().share)(outcome).unwrap()
}

#[test]
fn scores_are_those_of_the_shared_vectors() {
    let Some(path) = shared("reference/lm-eval/lmeval_misc_vectors.json") else { return };
    let all = read(&path);
    let floats = |v: &Value| -> Vec<f64> { array(v).iter().map(|x| x.as_f64().unwrap()).collect() };
    let close = |what: &str, ours: f64, theirs: &Value| {
        let theirs = theirs.as_f64().unwrap();
        assert!((ours - theirs).abs() <= 1e-12 * theirs.abs(), "{what}: {ours}, {theirs}");
    };
    let case = &all["truthfulqa_mc2"];
    let right: Vec<usize> = (0..4).filter(|&i| case["labels"][i] == 1).collect();
    let answer = Answer {
        gold: right[0],
        others: right[1..].to_vec(),
        log_probs: floats(&case["lls"]),
        ..Answer::default()
    };
    let outcome = Outcome::Choice(answer);
    close("mc2", share("mc2", &outcome)[0], &case["value"]);
    // The likeliest ending is a wrong one.
    assert_eq!(share("acc", &outcome), [0., 1.]);

    let case = &all["perplexity"];
    let lls = floats(&case["lls"]);
    let guess = |&log_prob: &f64| Outcome::Cloze(Guess { log_prob, greedy: log_prob > -1. });
    let guesses: Vec<Outcome> = lls.iter().map(guess).collect();
    let shares: Vec<Share> = guesses.iter().map(|g| share("perplexity", g)).collect();
    close("perplexity", stats::ratio(&shares, Scale::Exp).unwrap().value, &case["perplexity"]);
    let perplexity = |xs: &[f64]| (-xs.iter().sum::<f64>() / xs.len() as f64).exp();
    let iterations = int(&case["bootstrap_iters"]);
    close("bootstrap", stats::bootstrap(&lls, iterations, perplexity).unwrap(), &case["bootstrap_stderr"]);
    assert_eq!(guesses.iter().map(|g| share("acc", g)[0]).sum::<f64>(), 3.);

    let case = &all["mean"];
    let shares: Vec<Share> = floats(&case["xs"]).into_iter().map(|x| [x, 1.]).collect();
    let mean = stats::ratio(&shares, Scale::Plain).unwrap();
    close("mean", mean.value, &case["mean"]);
    close("mean's error", mean.stderr.unwrap(), &case["stderr"]);

    let case = &all["pooled_stderr"];
    let values = [0.5, 0.25, 0.75];
    let parts: Vec<_> =
        (0..3).map(|i| (values[i], floats(&case["stderrs"])[i], int(&case["sizes"][i]))).collect();
    let pooled = stats::pooled(&parts).unwrap();
    close("pooled error", pooled.stderr.unwrap(), &case["value"]);
    close("weighted mean", pooled.value, &case["agg_weighted"]);
    assert_eq!(stats::pooled(&[]), None);
    let even = stats::pooled_evenly(&[(0.5, 0.3, 10), (1., 0.4, 90)]).unwrap();
    assert_eq!((even.value, even.n), (0.75, 100));
    assert!((even.stderr.unwrap() - 0.25).abs() < 1e-15);
    assert_eq!(stats::pooled_evenly(&[]), None);
    assert_eq!(stats::bootstrap(&[], 10, perplexity), None);
}

/// Real rows, as their authors hand them out: every field that a task names is there, and every answer is an option.
#[test]
fn real_rows_make_requests() {
    for (word, file, least) in [
        ("basic/lambada_openai", "lambada/lambada_test.jsonl", 5000),
        ("basic/piqa", "piqa/piqa_valid_labelled.jsonl", 1800),
        ("basic/winogrande", "winogrande/winogrande_validation.jsonl", 1200),
        ("basic/rte", "rte/rte_validation.jsonl", 270),
        ("basic/social_iqa", "social_iqa/social_iqa_validation.jsonl", 1900),
        ("trust/ethics_cm", "ethics/commonsense/cm_test.csv", 3000),
        ("trust/ethics_deontology", "ethics/deontology/deontology_test.csv", 3000),
        ("trust/ethics_justice", "ethics/justice/justice_test.csv", 2000),
        ("trust/ethics_virtue", "ethics/virtue/virtue_test.csv", 4000),
    ] {
        let Some(path) = shared(&format!("data/{file}")) else { continue };
        let found = task(word, 0);
        let file =
            FileData { path: Names::One(path.display().to_string()), field: None, columns: None, cut: None };
        let own = data::Local { folder: "".into(), file };
        let instead = data::Instead { items: Some(own), ..Default::default() };
        let items = data::load(&found.label, &found.task, &found.place, &instead, &no_hub).unwrap();
        let all = match &found.task.ask {
            Ask::Cloze(_) => {
                let blanks = requests::blanks(&found.task, &items, None).unwrap();
                assert!(blanks.iter().all(|b| b.ending.starts_with(' ') && b.ending.len() > 1), "{word}");
                blanks.len()
            }
            _ => {
                let questions = requests::questions(&found.task, &items, None).unwrap();
                assert!(questions.iter().all(|q| q.golds[0] < q.options()), "{word}");
                questions.len()
            }
        };
        assert!(all >= least, "{word}: {all}");
    }
}

#[test]
fn every_metric_of_a_kind_is_in_its_tasks() {
    for name in find::built_in() {
        let found = find::find(&name, Path::new("")).unwrap().remove(0);
        for m in &found.task.metrics {
            let kinds = metric(m).unwrap_or_else(|| panic!("{name}: {m}")).of;
            assert!(kinds.contains(&found.task.ask.kind()), "{name}: {m}");
        }
    }
}

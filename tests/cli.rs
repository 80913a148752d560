//! What people type and what they get: help, results on stdout, progress on stderr, exit codes.
use crate::kit::{Desk, Ran, cell};
use serde_json::Value;
use std::{collections::BTreeMap, fs};

/// A contract: people's scripts read them.
const COLUMNS: &str = "model,family,params,recipe,weight_bits,act_bits,kv_bits,bits_per_weight,size_mb,suite,task,\
                       ability,metric,higher_is_better,value,stderr,n,full,delta,relative,p_value,status,reason,seconds,\
                       profile,kv_bytes_per_token";

#[test]
fn help_and_version() {
    let desk = Desk::empty();
    let help = desk.run(&["--help"]).expect(0).out;
    for verb in ["run", "plan", "report", "gate", "list"] {
        assert!(help.contains(&format!("  {verb}")), "{help}");
        let own = desk.run(&[verb, "--help"]).expect(0).out;
        assert!(own.contains("Usage: bitsweep"), "{own}");
    }
    assert!(help.contains("Exit codes: 0 fine, 1 a gate found a regression or a cell failed, 2 a mistake"));
    assert!(desk.run(&["-V"]).expect(0).out.starts_with("bitsweep 0."));
    for wrong in [&["--frobnicate"][..], &["run", "--frobnicate"], &["gate"], &["list", "nothing"]] {
        assert!(desk.run(wrong).expect(2).out.is_empty());
    }
}

#[test]
fn lists() {
    let desk = Desk::empty();
    for (kind, entries) in [
        ("models", &["builtin:llama", "org/name"][..]),
        ("families", &["llama", "mistral", "opt", "bloom", "gpt2"]),
        ("recipes", &["full", "w8a8", "kv4g32"]),
        ("methods", &["rtn"]),
        ("formats", &["asymmetric", "symmetric", "half to even", "groups", "skipped"]),
        ("tasks", &["microworld/text", "microworld/facts", "divergence"]),
        ("metrics", &["perplexity", "acc_norm", "kl_reverse", "ppl_ratio"]),
        ("charts", &["weights", "kv"]),
        ("studies", &["quickstart"]),
    ] {
        let out = desk.run(&["list", kind]).expect(0).out;
        for entry in entries {
            assert!(out.contains(entry), "{kind}: {out}");
        }
        assert!(desk.run(&["list"]).expect(0).out.contains(&out));
    }
}

#[test]
fn plan_then_run_then_plan() {
    let desk = Desk::new();
    let study = desk.arg("study.toml");
    let out = desk.arg("out");
    let plan = desk.run(&["plan", &study, "--out", &out]).expect(0).out;
    assert!(
        plan.contains("16 cells to run") && plan.contains("m/w8a8/quiz") && plan.contains("llama"),
        "{plan}"
    );
    assert!(!desk.path("out").exists(), "a plan leaves nothing");
    // No verb means `run`; stdout is the table and nothing else.
    let ran = desk.run(&[&study, "--out", &out]).expect(0);
    assert!(ran.out.starts_with("## m: llama") && ran.out.contains("| w8a8"), "{}", ran.out);
    assert!(!ran.out.contains("cells") && ran.err.contains("16 cells, 0 of them done before"), "{}", ran.err);
    assert!(ran.err.contains("report.html"));
    assert_eq!(desk.read("out/table.md").trim_end(), ran.out.trim_end());
    let again = desk.run(&["run", &study, "--out", &out]).expect(0);
    assert_eq!(again.out, ran.out);
    assert!(again.err.contains("0 cells run, 16 kept"), "{}", again.err);
    let plan = desk.run(&["plan", &study, "--out", &out]).expect(0).out;
    assert!(plan.contains("0 cells to run") && !plan.contains("to run |"), "{plan}");
}

#[test]
fn a_study_leaves_what_it_says() {
    let desk = Desk::new();
    desk.go().expect(0);
    let csv = desk.read("out/table.csv");
    assert_eq!(csv.lines().next(), Some(COLUMNS));
    let mut table = csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = table.deserialize().map(Result::unwrap).collect();
    // Two models, four recipes; one metric of the text and two of the quiz.
    assert_eq!(rows.len(), 2 * 4 * 3);
    for row in &rows {
        let full = row["recipe"] == "full";
        for key in
            ["model", "family", "params", "value", "stderr", "n", "full", "delta", "relative", "seconds"]
        {
            // 0 of 0 is nothing.
            let zero = key == "relative" && row["full"].parse::<f64>().unwrap() == 0.;
            assert!(zero || !row[key].is_empty(), "{key} in {row:?}");
        }
        assert_eq!(row["p_value"].is_empty(), full, "{row:?}");
        assert_eq!(row["status"], "done");
    }
    let bits: Vec<&str> = rows.iter().map(|r| r["weight_bits"].as_str()).take(12).step_by(3).collect();
    assert_eq!(bits, ["16", "4", "8", "16"]);
    for record in desk.records() {
        let name = cell(&record);
        let items = desk.read(&format!("out/items/{}.jsonl", record["cell"].as_str().unwrap()));
        assert!(!items.is_empty(), "{name}");
        for key in ["model", "recipe", "task", "cost", "made_by", "schema"] {
            assert!(!record[key].is_null(), "{key} of {name}");
        }
        if name.contains("/w4/") {
            let weights = &record["recipe"]["settings"]["weights"];
            for key in ["scheme", "zero", "axis", "group", "range"] {
                assert!(!weights[key].is_null(), "{key}: {weights}");
            }
        }
    }
    let names: Vec<String> = fs::read_dir(desk.path("out"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["records.jsonl", "items", "table.csv", "table.md", "report.html"] {
        assert!(names.iter().any(|n| n == name), "{name} of {names:?}");
    }
    for kind in [".svg", ".png"] {
        assert!(names.iter().filter(|n| n.ends_with(kind)).count() >= 3, "{names:?}");
    }
}

#[test]
fn report_draws_from_records_alone() {
    let desk = Desk::new();
    desk.go().expect(0);
    let before = crate::kit::snapshot(&desk.path("out"));
    for name in
        before.keys().filter(|n| *n != "records.jsonl" && *n != "gates.json" && !n.starts_with("items"))
    {
        fs::remove_file(desk.path("out").join(name)).unwrap();
    }
    // Not even the models are there any more.
    fs::remove_dir_all(desk.path("m")).unwrap();
    fs::remove_dir_all(desk.path("n")).unwrap();
    let ran = desk.run(&["report", &desk.arg("out")]).expect(0);
    assert!(ran.out.starts_with("## m: llama"));
    crate::kit::assert_same(&before, &crate::kit::snapshot(&desk.path("out")), "drawn again");
}

#[test]
fn gates() {
    let desk = Desk::new();
    // A model that has learned something: random weights lose nothing by rounding.
    let write = |rest: &str| {
        let head = "about = 'x'\nmodels = ['builtin:llama']\ntasks = ['microworld/text']\nlimit = 40\n";
        desk.write("study.toml", format!("{head}{rest}"));
    };
    write("recipes = ['w8', 'w2']\n");
    desk.go().expect(0);
    let (out, other) = (desk.arg("out"), desk.arg("other"));
    let same = desk.run(&["gate", &out, "--baseline", &desk.arg("out/records.jsonl")]).expect(0);
    assert!(same.out.contains("gate: 9 passed"), "{}", same.out);
    // The quantizer got worse: what was 8 bits is 2 now.
    write(
        "[[recipe]]\nname = 'w8'\nweights = { method = 'rtn', bits = 2 }\n\
         [[recipe]]\nname = 'w2'\nweights = { method = 'rtn', bits = 2 }\n",
    );
    desk.run(&["run", &desk.arg("study.toml"), "--out", &other]).expect(0);
    let worse = desk.run(&["gate", &other, "--baseline", &out]).expect(1);
    let bad: Vec<&str> = worse.out.lines().filter(|l| l.starts_with("| FAIL")).collect();
    let w8 = |l: &&str| l.contains("builtin:llama / w8 / microworld/text") && l.contains("perplexity");
    assert!(bad.iter().any(w8), "{}", worse.out);
    assert!(worse.out.contains("the recipe's settings changed"), "{}", worse.out);
    assert!(bad.iter().all(|l| l.contains("/ w8 /")), "{}", worse.out);
    // A cell that is no longer there.
    write("recipes = ['w8']\n");
    desk.run(&["run", &desk.arg("study.toml"), "--out", &desk.arg("less")]).expect(0);
    let less = desk.run(&["gate", &desk.arg("less"), "--baseline", &out]).expect(1);
    assert!(less.out.contains("and not among the records"), "{}", less.out);
}

#[test]
fn a_studys_own_gate() {
    let desk = Desk::new();
    let with = |worst: f64| {
        desk.write(
            "study.toml",
            format!(
                "about = 'x'\nmodels = ['builtin:llama']\ntasks = ['microworld/text']\nlimit = 40\n\
                 recipes = ['w2']\n[[gate]]\ntask = 'microworld/text'\nmetric = 'perplexity'\nrecipe = 'w2'\n\
                 worst = {worst}\n"
            ),
        );
        desk.go()
    };
    let bad = with(1.0001).expect(1);
    assert!(
        bad.out.contains("| FAIL    | builtin:llama / w2 / microworld/text | perplexity |"),
        "{}",
        bad.out
    );
    let fine = with(1000.).expect(0);
    assert!(fine.out.contains("gate: 1 passed"), "{}", fine.out);
    desk.run(&["gate", &desk.arg("out")]).expect(0);
}

#[test]
fn data_can_be_pointed_elsewhere() {
    let desk = Desk::small();
    desk.go().expect(0);
    let before = desk.records()[0]["metrics"].clone();
    desk.write("mine.txt", "my own words ".repeat(30));
    let set = format!("data.text={}", desk.arg("mine.txt"));
    desk.run(&["run", &desk.arg("study.toml"), "--out", &desk.arg("set"), "--set", &set]).expect(0);
    desk.write("data/text/text.txt", "my own words ".repeat(30));
    let (study, out) = (desk.arg("study.toml"), desk.arg("env"));
    let ran = desk
        .bitsweep(&["run", &study, "--out", &out])
        .env("BITSWEEP_DATA", desk.path("data"))
        .output()
        .unwrap();
    assert!(ran.status.success());
    let metrics = |folder: &str| crate::kit::records(&desk.path(folder))[0]["metrics"].clone();
    assert_eq!(metrics("set"), metrics("env"));
    assert_ne!(metrics("set"), before);
}

#[test]
fn a_task_has_parts_and_examples_wherever_its_data_is() {
    let desk = Desk::small();
    desk.write(
        "ask.toml",
        "about = 'x'\nversion = 1\nmetrics = ['acc', 'perplexity']\n[data.file]\npath = 'far/{part}/items.jsonl'\n\
         [parts]\nup = 'going up'\ndown = 'going down'\n[fewshot]\nn = 1\n[fewshot.data.file]\n\
         path = 'far/{part}/pool.jsonl'\n[ask.cloze]\ndescription = 'About {{ title }}: '\nprompt = '{{ q }}'\n\
         ending = '{{ a }}'\n",
    );
    desk.write("study.toml", "about = 'x'\nmodels = ['builtin:llama']\ntasks = ['ask.toml']\nrecipes = []\n");
    desk.go().expect(2).says(&["far/up/items.jsonl"]);
    let row = |q: &str, a: &str| format!("{{\"q\":\"{q}\",\"a\":\" {a}\"}}\n");
    for part in ["up", "down"] {
        desk.write(
            &format!("data/ask/far/{part}/items.jsonl"),
            row("Two and two is", part) + &row("It is", part),
        );
        desk.write(&format!("data/ask/far/{part}/pool.jsonl"), row("One and one is", part));
    }
    let (study, out) = (desk.arg("study.toml"), desk.arg("env"));
    let ran = Ran::of(desk.bitsweep(&["run", &study, "--out", &out]).env("BITSWEEP_DATA", desk.path("data")));
    ran.expect(0);
    let env = crate::kit::records(&desk.path("env"));
    assert_eq!(env[0]["metrics"]["acc"]["n"], 4);
    assert!(
        env[0]["task"]["protocol"].as_str().unwrap().contains("1 examples, seed 1234"),
        "{}",
        env[0]["task"]
    );
    parts_are_on_disk(&desk, &env[0]);
    // The same by name; `{part}` says where each is.
    let (items, pool) =
        (desk.arg("data/ask/far/{part}/items.jsonl"), desk.arg("data/ask/far/{part}/pool.jsonl"));
    let sets = [format!("data.ask={items}"), format!("data.ask-fewshot={pool}")];
    let named = |out: &str, sets: &[&str]| {
        let mut args = vec!["run".to_string(), desk.arg("study.toml"), "--out".into(), desk.arg(out)];
        args.extend(sets.iter().flat_map(|s| ["--set".to_string(), s.to_string()]));
        desk.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    named("set", &[&sets[0], &sets[1]]).expect(0);
    assert_eq!(crate::kit::records(&desk.path("set"))[0]["metrics"], env[0]["metrics"]);
    // Other examples, other numbers, another cell.
    for part in ["up", "down"] {
        desk.write(&format!("data/ask/far/{part}/pool.jsonl"), row("He went", "home"));
    }
    named("other", &[&sets[0], &sets[1]]).expect(0);
    let other = crate::kit::records(&desk.path("other"));
    assert_ne!(other[0]["cell"], env[0]["cell"]);
    assert_ne!(other[0]["metrics"]["perplexity"], env[0]["metrics"]["perplexity"]);
    named("bad", &[&format!("data.ask={}", desk.arg("data/ask/far/up/items.jsonl"))])
        .expect(2)
        .says(&["{part}"]);
    named("bad", &["data.ask-shots=x"]).expect(2).says(&["ask-shots", "ask-fewshot"]);
    // Parts of other sizes, each counting the same.
    let text = std::fs::read_to_string(desk.path("ask.toml")).unwrap();
    desk.write("ask.toml", text.replace("version = 1\n", "version = 1\nweigh = 'parts'\n"));
    desk.write("data/ask/far/up/items.jsonl", row("Two and two is", "up"));
    named("even", &[&sets[0], &sets[1]]).expect(0);
    let even = &crate::kit::records(&desk.path("even"))[0];
    let ppl = |of: &Value| of["perplexity"]["value"].as_f64().unwrap().ln();
    let mean = (ppl(&even["parts"]["up"]) + ppl(&even["parts"]["down"])) / 2.;
    assert!((ppl(&even["metrics"]) - mean).abs() < 1e-12);
    assert_eq!(even["metrics"]["acc"]["n"], 3);
    desk.write("ask.toml", text.replace("version = 1\n", "version = 1\nweigh = 'size'\n"));
    desk.go().expect(2).says(&["ask.toml", "size", "items", "parts"]);
}

/// A record's parts, its items' and `parts.csv` say the same.
fn parts_are_on_disk(desk: &Desk, record: &Value) {
    let parts = record["parts"].as_object().unwrap();
    // In the task's order.
    assert_eq!(parts.keys().collect::<Vec<_>>(), ["up", "down"]);
    let folder = desk.path("env");
    let items = folder.join("items").join(format!("{}.jsonl", record["cell"].as_str().unwrap()));
    let items: Vec<Value> =
        std::fs::read_to_string(items).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let table = std::fs::read_to_string(folder.join("parts.csv")).unwrap();
    assert!(table.starts_with("part,model,recipe,suite,task,metric,higher_is_better,value,stderr,n,full,"));
    let rows: Vec<BTreeMap<String, String>> =
        csv::Reader::from_reader(table.as_bytes()).deserialize().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 4);
    for (part, metrics) in parts {
        let mine = items.iter().filter(|i| i["part"] == **part);
        let losses: Vec<f64> = mine.map(|i| i["shares"]["perplexity"][0].as_f64().unwrap()).collect();
        let value = metrics["perplexity"]["value"].as_f64().unwrap();
        assert!((value.ln() - losses.iter().sum::<f64>() / 2.).abs() < 1e-12 && losses.len() == 2);
        assert_eq!(metrics["acc"]["n"], 2);
        assert!(metrics["perplexity"]["stderr_lm_eval"].is_number());
        let of = |r: &&BTreeMap<String, String>| r["part"] == *part && r["metric"] == "perplexity";
        let row = rows.iter().find(of).unwrap();
        assert_eq!((row["value"].parse::<f64>().unwrap(), &*row["n"], &*row["task"]), (value, "2", "ask"));
    }
}

#[test]
fn lists_in_a_recipe_are_axes_and_set_reaches_them() {
    let desk = Desk::new();
    desk.write(
        "study.toml",
        "about = 'x'\nmodels = ['m']\ntasks = ['text.toml']\n[[recipe]]\nname = 'w{weights.bits}kv{kv.bits}'\n\
         weights = { method = 'rtn', bits = [8, 4], group = 16 }\nkv = { bits = [8, 2] }\n",
    );
    desk.go().expect(0);
    let names: Vec<String> = desk.records().iter().map(cell).collect();
    assert_eq!(names, ["m/full/text", "m/w8kv8/text", "m/w8kv2/text", "m/w4kv8/text", "m/w4kv2/text"]);
    let (study, out) = (desk.arg("study.toml"), desk.arg("set"));
    desk.run(&["run", &study, "--out", &out, "--set", "recipe.0.weights.bits=[3]"]).expect(0);
    let names: Vec<String> = crate::kit::records(&desk.path("set")).iter().map(cell).collect();
    assert_eq!(names, ["m/full/text", "m/w3kv8/text", "m/w3kv2/text"]);
}

#[test]
fn a_stream_that_is_gone_ends_nothing() {
    let desk = Desk::small();
    let (study, out) = (desk.arg("study.toml"), desk.arg("out"));
    let program = desk.bitsweep(&[]).get_program().to_owned();
    let shell = |script: &str| {
        let mut sh = std::process::Command::new("sh");
        sh.args(["-c", script, "sh"]).arg(&program).args([&study, &out]);
        Ran::of(&mut sh)
    };
    // Nobody reads progress.
    shell("\"$1\" run \"$2\" --out \"$3\" 2>&1 >/dev/null | true").expect(0);
    shell("\"$1\" run \"$2\" --out \"$3\" 2>&-").expect(0);
    assert_eq!(desk.records().len(), 1);
    let closed = shell("\"$1\" list | true; \"$1\" list >&-");
    assert!(closed.sound(), "{}", closed.err);
    if std::path::Path::new("/dev/full").exists() {
        shell("exec \"$1\" list >/dev/full").expect(2);
    }
}

#[test]
fn data_that_is_nowhere_and_templates_that_are_none_are_found_at_once() {
    let desk = Desk::small();
    let (study, out) = (desk.arg("study.toml"), desk.arg("out"));
    let ran =
        desk.bitsweep(&["run", &study, "--out", &out]).env("BITSWEEP_DATA", "/nowhere").output().unwrap();
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("BITSWEEP_DATA is `/nowhere`"));
    desk.write("text.toml", crate::kit::TEXT.replace("window = 16", "window = 1000000"));
    assert!(desk.run(&["plan", &study]).expect(2).out.contains("would fail"));
    desk.write("text.toml", format!("{}text = '{{{{ text'\n", crate::kit::TEXT));
    desk.run(&["plan", &study]).expect(2).says(&["text.toml", "`text`", "syntax error"]);
}

/// A study names the profile of all its tasks, and every row says which it was.
#[test]
fn a_study_has_a_profile() {
    let desk = Desk::new();
    desk.study(&["m"], &[], &["quiz.toml", "text.toml"]);
    let values = |profile: &str| {
        let out = desk.arg(profile);
        let set = format!("profile={profile}");
        desk.run(&["run", &desk.arg("study.toml"), "--out", &out, "--set", &set]).expect(0);
        let table = desk.read(&format!("{profile}/table.csv"));
        let mut table = csv::Reader::from_reader(table.as_bytes());
        let rows = table.deserialize().map(Result::unwrap);
        rows.map(|r: BTreeMap<String, String>| (r["metric"].clone(), r["profile"].clone()))
            .collect::<Vec<_>>()
    };
    let row = |metric: &str, profile: &str| (metric.to_string(), profile.to_string());
    let text = row("perplexity", "");
    assert_eq!(values("v0.3"), [row("acc", "lm-eval-0.3"), row("acc_norm", "lm-eval-0.3"), text.clone()]);
    assert_eq!(values("opencompass"), [row("acc", "opencompass"), text]);
    let study = desk.arg("study.toml");
    desk.run(&["run", &study, "--set", "profile=v9"]).expect(2).says(&["`profile`", "lm-eval-0.4.9.2"]);
    desk.write("quiz.toml", crate::kit::QUIZ.replace("gold =", "profile = 'opencompass'\ngold ="));
    desk.run(&["run", &study]).expect(2).says(&["quiz.toml", "`acc_norm`", "gives `acc` alone"]);
}

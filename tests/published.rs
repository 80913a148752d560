//! Published figures beside ours: each by its own model, recipe, task and protocol, with its tolerance; studies of
//! published tables.
use crate::{common::repo, kit::Desk};
use bitsweep::{
    published::{
        self, STUDY,
        beside::{Beside, Verdict, beside, csv},
    },
    quant::recipe::Recipe,
    report::beside::section,
    results::{
        Cost, MadeBy, MetricInfo, ModelInfo, Parts, RecipeInfo, Record, SCHEMA, Status, Store, TaskInfo,
        Value,
    },
    stats::Scale,
    study::config::{self, Study},
    suite::{ask::Profile, find, find::Found},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

#[test]
fn every_figure_is_known_and_no_name_is_matched_in_part() {
    let all = published::all().unwrap();
    for f in &all.figures {
        let s = &f.series;
        let task = all.same.task(s).unwrap_or_else(|| panic!("tasks.txt: {} of {}", s.task, s.source));
        assert!(!task.protocol.is_empty() && !task.suite.is_empty(), "{}", task.name);
        assert!(all.same.method(f).is_some(), "recipes.txt: {} of {}", f.recipe.method, s.source);
        let known = f.model(&all.same).is_some();
        let unnamed = s.checkpoint == "ambiguous" || s.model == "mamba-2.8b-chat";
        assert_eq!(known, !unnamed, "{} of {}", s.model, s.source);
        assert!(f.params(&all.same).is_some(), "{}", s.model);
    }
    let id = |name: &str| all.same.model(name).map(|m| m.ids[0]);
    assert_eq!(id("LLaMA3-8B"), Some("meta-llama/Meta-Llama-3-8B"));
    assert_eq!(id("NousResearch/Llama-2-7b-hf"), Some("meta-llama/Llama-2-7b-hf"));
    assert_eq!(id("LLaMA-33B"), id("huggyllama/llama-30b"));
    for none in ["opt-125m", "facebook/opt-125m-finetuned", "Llama-2", "OPT-125", "", "my/LLaMA-7B"] {
        assert_eq!(id(none), None, "{none}");
    }
}

/// The task of ours that a section names, as a study of that profile has it.
fn as_published(task: &str, profile: Option<&str>) -> Found {
    let mut found = find::find(task, "".as_ref()).unwrap();
    assert_eq!(found.len(), 1, "{task}");
    let mut found = found.remove(0);
    if let Some(profile) = profile {
        let profile: Profile = serde_json::from_value(profile.into()).unwrap();
        found.task.as_profile(profile).unwrap();
    }
    found
}

#[test]
fn tasks_that_are_called_the_same_are_asked_the_same() {
    let all = published::all().unwrap();
    let mut used = BTreeSet::new();
    for f in &all.figures {
        let task = all.same.task(&f.series).unwrap();
        used.insert(task.name);
        let Some(ours) = &task.ours else { continue };
        let found = as_published(&ours.task(f.series.task), ours.profile);
        assert_eq!(found.task.version, ours.version, "{}: the task has changed since", task.name);
        assert_eq!(found.task.protocol(), ours.words, "{}", task.name);
        assert_eq!(
            found.task.ask.profile().map(Profile::name),
            ours.profile.or(found.task.ask.profile().map(Profile::name))
        );
        assert!(
            found.task.metrics.contains(&ours.metric(f.series.metric)),
            "{}: {}",
            task.name,
            f.series.metric
        );
        assert!(!task.basis.is_empty(), "{}", task.name);
    }
    let idle: Vec<_> = all.same.tasks.iter().map(|t| t.name).filter(|n| !used.contains(n)).collect();
    assert!(idle.is_empty(), "no figure is of these sections: {idle:?}");
    let used: BTreeSet<_> = all.figures.iter().filter_map(|f| all.same.method(f)).map(|m| m.name).collect();
    let idle: Vec<_> = all.same.methods.iter().map(|m| m.name).filter(|n| !used.contains(n)).collect();
    assert!(idle.is_empty(), "no figure is of these sections: {idle:?}");
}

/// A record as a run leaves it, of a recipe and a task that are what the program has.
fn ours(model: &str, recipe: &Recipe, found: &Found, values: &[(&str, f64, usize)]) -> Record {
    let value = |&(name, value, n): &(&str, f64, usize)| {
        (name.to_string(), Value { value, stderr: Some(0.125), n, ..Value::default() })
    };
    Record {
        schema: SCHEMA,
        cell: "0".into(),
        model: ModelInfo {
            name: model.into(),
            revision: "r".into(),
            family: "f".into(),
            params: 1,
            stored: "f16".into(),
            tokenizer: String::new(),
        },
        recipe: RecipeInfo {
            name: recipe.name.clone(),
            settings: recipe.describe(),
            weight_bits: 0.,
            act_bits: 0.,
            kv_bits: 0.,
            kv_bytes_per_token: 0.,
            bits_per_weight: 0.,
            size_mb: 0.,
            notes: vec![],
        },
        task: TaskInfo {
            suite: found.suite.clone(),
            name: found.name.clone(),
            version: found.task.version,
            ability: found.task.ability.clone(),
            chance: None,
            protocol: found.task.protocol(),
            parts_alike: false,
            profile: found.task.ask.profile().map(|p| p.name().into()),
            data: "d".into(),
            metrics: values
                .iter()
                .map(|v| MetricInfo { name: v.0.into(), higher_is_better: true, scale: Scale::Plain })
                .collect(),
        },
        status: Status::Done { metrics: values.iter().map(value).collect() },
        parts: Parts::default(),
        cost: Cost::default(),
        made_by: MadeBy {
            version: "0.1.0".into(),
            device: "cpu".into(),
            dtype: "f32".into(),
            seed: 0,
            limit: None,
        },
    }
}

/// Items of the tasks that the built-in studies have.
fn values(found: &Found) -> Vec<(&str, f64, usize)> {
    let n = match found.file_name() {
        "lambada_generated" => 5153,
        "mmlu" => 14042,
        "truthfulqa_mc1" | "truthfulqa_mc2" => 817,
        "gsm8k" => 1319,
        _ => 166,
    };
    found.task.metrics.iter().map(|m| (m.as_str(), 0.5, n)).collect()
}

#[test]
fn built_in_studies_ask_what_their_tables_are_of() {
    // Recipes with `full`, tasks, models; and how many figures of the table stand beside the study's cells.
    let all: &[(&str, [usize; 3], &str, usize)] = &[
        // 27 models of LAMBADA and 8 of MMLU in five precisions, but for what Falcon-7B's rounding was.
        ("qllm-eval-weights", [5, 2, 27], STUDY, 27 * 5 - 4 + 8 * 5 - 4),
        ("qllm-eval-acts", [4, 1, 7], STUDY, 7 * 4),
        ("qllm-eval-kv", [5, 9, 7], STUDY, 7 * 5),
        ("qllm-eval-truthfulqa", [19, 2, 8], STUDY, 8 * 12 * 2),
        ("gptq-perplexity", [5, 3, 13], "gptq", 13 * 5),
        ("gptq-llama-perplexity", [6, 1, 4], "gptq-readme", 4 * 6),
        ("awq-perplexity", [9, 1, 7], "awq", 7 * 9),
        // Of eight rows, two have values a channel.
        ("kivi", [6, 1, 4], "kivi", 4 * 6),
        ("llm-qbench-calibration", [16, 2, 3], "", 0),
        ("llm-qbench-order", [45, 2, 3], "", 0),
        ("llm-qbench-format", [24, 2, 3], "", 0),
    ];
    let named: BTreeSet<String> = all.iter().map(|(name, ..)| format!("studies/{name}")).collect();
    let built: BTreeSet<String> =
        config::built_in().into_iter().filter(|n| n.starts_with("studies/")).map(String::from).collect();
    assert_eq!(named, built);
    assert_eq!(config::built_in()[0], config::QUICKSTART);
    for (name, [recipes, tasks, models], source, figures) in all {
        let word = format!("studies/{name}");
        let study = Study::read(&word, &[]).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(
            [study.recipes.len(), study.tasks.len(), study.models.len()],
            [*recipes, *tasks, *models],
            "{name}: {:?}",
            study.recipes.iter().map(|r| &r.name).collect::<Vec<_>>()
        );
        assert_eq!(study.name, *name);
        assert_eq!(config::about(&word), Some(study.about.clone()));
        let mut records = Vec::new();
        for model in &study.models {
            for recipe in &study.recipes {
                records.extend(study.tasks.iter().map(|task| ours(model, recipe, task, &values(task))));
            }
        }
        let rows = beside(&records).unwrap();
        let found = rows.iter().filter(|r| r.figure.series.source == *source).count();
        assert_eq!(found, *figures, "{name}: figures of {source}");
    }
}

fn one(model: &str, recipe: &str, task: &str, value: f64) -> Vec<Beside> {
    let found = as_published(task, None);
    beside(&[ours(model, &Recipe::parse(recipe).unwrap(), &found, &[("perplexity", value, 142)])]).unwrap()
}

fn by_source<'a>(rows: &'a [Beside], source: &str) -> &'a Beside {
    rows.iter()
        .find(|r| r.figure.series.source == source)
        .unwrap_or_else(|| panic!("no row of {source}: {rows:?}"))
}

#[test]
fn tolerances_and_verdicts() {
    // Full precision: 0.01, of every source that prints it.
    let rows = one("facebook/opt-125m", "full", "language/wikitext2", 27.659);
    let sources: BTreeSet<_> = rows.iter().map(|r| r.figure.series.source).collect();
    assert_eq!(sources, BTreeSet::from(["gptq", "omniquant", "quark"]));
    for row in &rows {
        assert_eq!((row.published, row.tolerance, &row.verdict), (27.65, Some(0.01), &Verdict::Agrees));
    }
    assert_eq!(
        one("facebook/opt-125m", "full", "language/wikitext2", 27.67)[0].verdict.to_string(),
        "off by 0.0200"
    );
    // SpinQuant prints one decimal: its 5.5 is anything from 5.45 to 5.55.
    let rows = one("meta-llama/Llama-2-7b-hf", "full", "language/wikitext2", 5.472);
    let row = by_source(&rows, "spinquant");
    assert_eq!((row.published, row.tolerance, &row.verdict), (5.5, Some(0.05), &Verdict::Agrees));
    assert!(rows.len() >= 8 && rows.iter().all(|r| r.verdict == Verdict::Agrees), "{rows:?}");
    // A mirror of the same weights, at a commit; half precision is full precision.
    assert_eq!(one("NousResearch/Llama-2-7b-hf@abc", "fp16", "language/wikitext2", 5.47).len(), {
        one("meta-llama/Llama-2-7b-hf", "full", "language/wikitext2", 5.47).len()
    });
    // Rounded to nearest at 4 bits: half a percent.
    let rows = one("facebook/opt-1.3b", "w4g128", "language/wikitext2", 15.36);
    let row = by_source(&rows, "omniquant");
    assert_eq!((row.published, row.tolerance, &row.verdict), (15.29, Some(0.005 * 15.29), &Verdict::Agrees));
    let rows = one("facebook/opt-1.3b", "w4g128", "language/wikitext2", 15.37);
    assert_eq!(by_source(&rows, "omniquant").verdict.to_string(), "off by 0.5 %");
    // OPT, a scale a row, 3 bits: the order of magnitude.
    let rows = one("facebook/opt-1.3b", "w3row", "language/wikitext2", 9000.);
    let row = by_source(&rows, "gptq");
    assert!(row.published > 1000. && row.verdict == Verdict::Magnitude(true), "{row:?}");
    let rows = one("facebook/opt-1.3b", "w3row", "language/wikitext2", 90.);
    assert_eq!(
        by_source(&rows, "gptq").verdict.to_string(),
        "only the order of magnitude is reproducible: another one"
    );
    // LLaMA at 3 bits: no tolerance is known.
    let rows = one("huggyllama/llama-7b", "w3g128", "language/wikitext2", 7.01);
    assert_eq!(by_source(&rows, "omniquant").verdict, Verdict::Open);
}

fn table(text: &str) -> Vec<Recipe> {
    bitsweep::study::sweep::expand("t", &text.parse().unwrap()).unwrap()
}

#[test]
fn calibrated_figures_want_a_second_source_and_4_bit_activations_a_ranking() {
    let wikitext = as_published("language/wikitext2", None);
    let awq = table(
        "name = 'awq-w{bits}'\nprepare = [{method='awq'}]\nweights = {method='rtn', bits=[4, 3], group=128}\n\
         calibrate = {data='calibration/pile'}",
    );
    let record = |model: &str, recipe: &Recipe, value: f64| {
        ours(model, recipe, &wikitext, &[("perplexity", value, 166)])
    };
    // Llama-2-7B, W4g128 and W3g128: AWQ's own table, OmniQuant's, AutoRound's.
    let rows = beside(&[record("meta-llama/Llama-2-7b-hf", &awq[0], 5.62)]).unwrap();
    let row = by_source(&rows, "awq");
    assert_eq!((row.published, row.tolerance), (5.6, Some(0.01 * 5.6)));
    assert_eq!(row.verdict, Verdict::Agrees);
    assert!(rows.iter().map(|r| r.figure.series.source).collect::<BTreeSet<_>>().len() > 1);
    let rows = beside(&[record("meta-llama/Llama-2-7b-hf", &awq[1], 6.5)]).unwrap();
    assert_eq!(by_source(&rows, "awq").tolerance, Some(0.03 * by_source(&rows, "awq").published));
    // Calibrated otherwise is another recipe for AWQ's own table.
    let other = table(
        "name = 'x'\nprepare = [{method='awq'}]\nweights = {method='rtn', bits=4, group=128}\n\
         calibrate = {data='calibration/c4_train'}",
    );
    let rows = beside(&[record("meta-llama/Llama-2-7b-hf", &other[0], 5.62)]).unwrap();
    assert!(rows.iter().all(|r| r.figure.series.source != "awq"), "{rows:?}");
    // GPTQ's own paper alone has BLOOM: said so.
    let gptq = table(
        "name = 'g{bits}'\nweights = {method='gptq', bits=[4, 3], per='row'}\n\
         calibrate = {data='calibration/c4_train', samples=128}",
    );
    let rows = beside(&[record("bigscience/bloom-560m", &gptq[1], 32.5)]).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].published, rows[0].tolerance), (32.31, Some(0.03 * 32.31)));
    assert_eq!(rows[0].verdict.to_string(), "agrees; one source alone says it");
    // OmniQuant's W4A4 with SmoothQuant and its own: only which is better.
    let kv = "kv = {bits=4, queries={bits=4}}";
    let smooth = table(&format!(
        "name = 'smooth'\nprepare = [{{method='smoothquant'}}]\nweights = {{method='rtn', bits=4, per='row'}}\n\
         acts = {{bits=4}}\n{kv}"
    ));
    let omni = table(&format!(
        "name = 'omni'\nweights = {{method='omniquant', bits=4, per='row', equivalent=true}}\nacts = {{bits=4}}\n{kv}\n\
         calibrate = {{data='calibration/wikitext2_train'}}"
    ));
    let pair = |a: f64, b: f64| {
        let rows = beside(&[
            record("huggyllama/llama-7b", &smooth[0], a),
            record("huggyllama/llama-7b", &omni[0], b),
        ])
        .unwrap();
        rows.into_iter().filter(|r| r.figure.series.source == "omniquant").collect::<Vec<_>>()
    };
    let rows = pair(40., 12.);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!((rows[0].published, rows[1].published), (25.25, 11.26));
    assert!(
        rows.iter().all(|r| r.tolerance.is_none() && r.verdict == Verdict::Ranking(1, vec![])),
        "{rows:?}"
    );
    let rows = pair(11., 12.);
    assert_eq!(rows[0].verdict.to_string(), "only a ranking is reproducible: another than of omni");
    // The same without keys and values in 4 bits is another recipe: OmniQuant's code rounds them too.
    let bare = table(
        "name = 'bare'\nprepare = [{method='smoothquant'}]\nweights = {method='rtn', bits=4, per='row'}\nacts = {bits=4}",
    );
    assert!(beside(&[record("huggyllama/llama-7b", &bare[0], 25.)]).unwrap().is_empty());
}

#[test]
fn accuracies_are_held_to_a_binomial_error() {
    let found = as_published("trust/truthfulqa_mc1", Some("lm-eval-0.3"));
    let model = "meta-llama/Llama-2-7b-chat-hf";
    let record = |value, n| ours(model, &Recipe::parse("kv4").unwrap(), &found, &[("acc", value, n)]);
    let rows = beside(&[record(0.3, 817)]).unwrap();
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    let p = row.published;
    assert!((0.2..0.4).contains(&p));
    assert_eq!(row.tolerance, Some((p * (1. - p) / 817.).sqrt()));
    assert_eq!(beside(&[record(p + 0.015, 817)]).unwrap()[0].verdict, Verdict::Agrees);
    let off = &beside(&[record(p + 0.0324, 817)]).unwrap()[0];
    assert_eq!(off.verdict.to_string(), "off by 2.0 standard errors");
    // Of other items, of some items, and of another version of the harness: of something else.
    assert!(beside(&[record(p, 800)]).unwrap().is_empty());
    let mut limited = record(p, 817);
    limited.made_by.limit = Some(817);
    assert!(beside(&[limited]).unwrap().is_empty());
    let newer = as_published("trust/truthfulqa_mc1", None);
    let record = ours(model, &Recipe::parse("kv4").unwrap(), &newer, &[("acc", p, 817)]);
    assert!(beside(&[record]).unwrap().is_empty());
}

#[test]
fn protocols_are_never_crossed() {
    let model = "meta-llama/Llama-2-7b-hf";
    let full = Recipe::full();
    // One data set, four protocols: each has its own figures.
    let figures = |task: &str, profile: Option<&str>, metric: &str| -> BTreeSet<(String, String)> {
        let found = as_published(task, profile);
        let rows = beside(&[ours(model, &full, &found, &[(metric, 6., 62)])]).unwrap();
        rows.into_iter()
            .map(|r| (r.figure.series.task.to_string(), r.figure.series.metric.to_string()))
            .collect()
    };
    let all = |task: &str, metric: &str| BTreeSet::from([(task.to_string(), metric.to_string())]);
    assert_eq!(figures("language/wikitext2", None, "perplexity"), all("wikitext2(gptq-2048)", "perplexity"));
    assert_eq!(
        figures("language/wikitext", Some("lm-eval-0.4.0"), "word_perplexity"),
        all("wikitext(lm-eval)", "word_perplexity")
    );
    assert!(figures("language/wikitext", None, "word_perplexity").is_empty());
    assert!(
        figures("language/wikitext2_llama_cpp", None, "perplexity").is_empty(),
        "llama.cpp prints none at full precision"
    );
    assert_eq!(figures("language/c4", None, "perplexity"), all("c4(gptq-2048)", "perplexity"));
    assert_eq!(figures("language/c4_new", None, "perplexity"), all("c4-new(gptq-2048)", "perplexity"));
    // Another window, said in the protocol.
    let mut other = as_published("language/wikitext2", None);
    let text = fs::read_to_string(repo("suites/language/wikitext2.toml")).unwrap().replace("2048", "1024");
    other.task = bitsweep::suite::Task::parse("t", &text).unwrap();
    assert!(beside(&[ours(model, &full, &other, &[("perplexity", 5.47, 300)])]).unwrap().is_empty());
    // Another version of a task, and a failed cell.
    let mut record =
        ours(model, &full, &as_published("language/wikitext2", None), &[("perplexity", 5.47, 166)]);
    record.task.version += 1;
    assert!(beside(&[record.clone()]).unwrap().is_empty());
    record.task.version -= 1;
    assert!(!beside(&[record.clone()]).unwrap().is_empty());
    record.status = Status::Failed { why: "x".into() };
    assert!(beside(&[record]).unwrap().is_empty());
}

#[test]
fn recipes_are_the_same_in_all_that_matters() {
    let wikitext = as_published("language/wikitext2", None);
    let sources = |recipe: &str| -> BTreeSet<&'static str> {
        let recipe = &table(recipe)[0];
        let rows =
            beside(&[ours("facebook/opt-1.3b", recipe, &wikitext, &[("perplexity", 15., 142)])]).unwrap();
        rows.into_iter().map(|r| r.figure.series.source).collect()
    };
    let rtn = |more: &str| format!("name = 'x'\nweights = {{method='rtn', bits=4, {more}}}");
    assert_eq!(sources(&rtn("per='row'")), BTreeSet::from(["gptq", "omniquant"]));
    assert_eq!(sources(&rtn("group=128")), BTreeSet::from(["omniquant"]));
    for other in ["group=64", "per='tensor'", "per='row', symmetric=true", "per='row', search='mse'"] {
        assert!(sources(&rtn(other)).is_empty(), "{other}");
    }
    let row = rtn("per='row'");
    for other in ["acts = {bits=8}", "kv = {bits=8}", "prepare = [{method='smoothquant'}]"] {
        assert!(sources(&format!("{row}\n{other}")).is_empty(), "{other}");
    }
    assert!(
        sources(&format!("{row}\n[[at]]\nsites=['first.*']\nweights={{method='rtn', bits=8}}")).is_empty()
    );
    let gptq = |order: bool| {
        format!(
            "name='g'\nweights={{method='gptq', bits=4, per='row', act_order={order}}}\n\
             calibrate={{data='calibration/c4_train', samples=128}}"
        )
    };
    // OmniQuant's table does not say in which order GPTQ took the columns; GPTQ's paper had none.
    assert_eq!(sources(&gptq(false)), BTreeSet::from(["gptq", "omniquant"]));
    assert_eq!(sources(&gptq(true)), BTreeSet::from(["omniquant"]));
}

#[test]
fn suspect_figures_are_shown_and_not_judged() {
    // llama.cpp's q2_K row of Llama-2-7B prints the base's perplexity.
    let found = as_published("language/wikitext2_llama_cpp", None);
    let recipe = Recipe::parse("q2_k").unwrap();
    let rows =
        beside(&[ours("meta-llama/Llama-2-7b-hf", &recipe, &found, &[("perplexity", 6.42, 327)])]).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].published, &rows[0].verdict, rows[0].tolerance), (5.794552, &Verdict::Suspect, None));
    let text = csv(&rows).unwrap();
    let row: BTreeMap<String, String> =
        csv::Reader::from_reader(text.as_bytes()).deserialize().next().unwrap().unwrap();
    assert!(row["suspect"].contains("5.794552 is the base PPL"), "{row:?}");
    assert_eq!(row["verdict"], "not judged: the figure is suspect");
    assert_eq!((row["source"].as_str(), row["tolerance"].as_str()), ("llama-cpp", ""));
    let html = section(&rows);
    assert!(html.contains("not judged") && html.contains("5.795") && html.contains("title=\""), "{html}");
    assert_eq!(section(&[]), "");
}

#[test]
fn a_run_has_its_figures_beside_it_and_keeps_its_folder() {
    let desk = Desk::empty();
    let store = Store::create(&desk.path("out")).unwrap();
    let found = as_published("language/wikitext2", None);
    let mut record = ours("facebook/opt-125m", &Recipe::full(), &found, &[("perplexity", 27.66, 142)]);
    record.cell = "abc1".into();
    store.push(&record, &[]).unwrap();
    let out = desk.arg("out");
    desk.run(&["report", &out]).expect(0);
    let rows: Vec<BTreeMap<String, String>> =
        csv::Reader::from_reader(desk.read("out/published.csv").as_bytes())
            .deserialize()
            .map(Result::unwrap)
            .collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(
        (rows[0]["ours"].as_str(), rows[0]["published"].as_str(), rows[0]["tolerance"].as_str()),
        ("27.66", "27.65", "0.01")
    );
    // Figures do not take the place of what was run.
    desk.run(&["report", "--published", "awq", "--out", &out]).expect(2).says(&["records of a run"]);
    // A report of something else leaves no stale table.
    let mut other = record.clone();
    other.model.name = "somebody/else".into();
    store.push(&other, &[]).unwrap();
    desk.run(&["report", &out]).expect(0);
    assert!(!desk.path("out/published.csv").exists());
}

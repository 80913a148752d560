//! Published figures: none lost, each matched by its own protocol, the study's rules from its own numbers, built-in studies.
use crate::{
    common::{bitsweep, repo},
    kit::{Desk, Ran},
};
use bitsweep::{
    published::{
        self, Filter, STUDY,
        beside::{Beside, Verdict, beside, csv},
        claims, records,
        rules::{self, RECIPES, Size},
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
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

fn golden(name: &str) -> Vec<BTreeMap<String, String>> {
    let path = repo("tests/goldens/published").join(name);
    csv::Reader::from_path(path).unwrap().deserialize().map(Result::unwrap).collect()
}

#[test]
fn no_figure_is_lost_or_changed() {
    let all = published::all().unwrap();
    // As the script that wrote the files counted, summed and hashed the tables that it read.
    let mut found: BTreeMap<(String, String, String), Vec<String>> = BTreeMap::new();
    for f in &all.figures {
        let (s, r) = (&f.series, &f.recipe);
        let bits = |key: &str| {
            // The recipe as printed stands in the file; words in place of numbers, and numbers as they are written.
            printed_recipe(s.source, r.name)
                [["method", "w", "a", "kv", "group"].iter().position(|k| *k == key).unwrap()]
            .clone()
        };
        let recipe = if s.source == STUDY {
            bits("method")
        } else {
            ["method", "w", "a", "kv", "group"].map(bits).join("|")
        };
        let key = (s.source.to_string(), s.task.to_string(), s.metric.to_string());
        found.entry(key).or_default().push(format!("{}\t{recipe}\t{}", s.model, f.printed));
    }
    let golden = golden("figures.csv");
    let mut count = 0;
    for row in &golden {
        let key = (row["source"].clone(), row["task"].clone(), row["metric"].clone());
        let mut texts = found.remove(&key).unwrap_or_else(|| panic!("no figure of {key:?}"));
        assert_eq!(texts.len().to_string(), row["figures"], "{key:?}");
        count += texts.len();
        let sum: f64 = texts.iter().map(|t| t.rsplit('\t').next().unwrap().parse::<f64>().unwrap()).sum();
        let want: f64 = row["sum"].parse().unwrap();
        assert!((sum - want).abs() <= 1e-9 * want.abs().max(1.), "{key:?}: {sum}, not {want}");
        texts.sort();
        let hash = format!("{:x}", Sha256::digest(texts.join("\n").as_bytes()));
        assert_eq!(hash[..16], row["sha256"], "{key:?}");
    }
    assert!(found.is_empty(), "{:?}", found.keys());
    let of_study = all.figures.iter().filter(|f| f.series.source == STUDY).count();
    assert_eq!((of_study, count - of_study), (6749, 6734));
}

/// A recipe's fields as they stand in a source's file.
fn printed_recipe(source: &str, name: &str) -> Vec<String> {
    use std::sync::OnceLock;
    static ALL: OnceLock<BTreeMap<(String, String), Vec<String>>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all = BTreeMap::new();
        for source in published::sources() {
            let text = fs::read_to_string(repo(&format!("suites/published/{source}.txt"))).unwrap();
            for line in text.lines().filter_map(|l| l.strip_prefix("recipe ")) {
                let (name, printed) = line.split_once(" = ").unwrap();
                let fields = printed.split(" | ").map(String::from).collect();
                all.insert((source.to_string(), name.to_string()), fields);
            }
        }
        all
    });
    all[&(source.to_string(), name.to_string())].clone()
}

#[test]
fn a_figure_says_all_that_is_printed_of_it() {
    let all = published::all().unwrap();
    let one = |pick: &dyn Fn(&published::Figure) -> bool| {
        let found: Vec<_> = all.figures.iter().filter(|f| pick(f)).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    };
    let f = one(&|f| {
        f.series.get("label") == Some("LLaMA2-7B")
            && f.recipe.name == "w4a4"
            && f.series.metric == "self_calibration_naive_average"
    });
    assert_eq!((f.value, f.printed, f.typed, f.series.unit), (49.67, "49.67", Some("4967"), "percent"));
    assert_eq!(f.series.table, "emergent/emergent/mmlu-calib_wa.txt");
    assert!(f.series.citation.contains("arXiv:2402.18158"));
    let f = one(&|f| {
        let s = &f.series;
        (s.source, s.model, f.recipe.name, s.task)
            == ("gptq", "OPT-125M", "gptq-w3row", "wikitext2(gptq-2048)")
    });
    assert_eq!((f.value, f.recipe.method, f.recipe.group), (53.85, "GPTQ", Some("row")));
    assert_eq!((f.recipe.weights, f.recipe.acts, f.recipe.kv), (Some(3.), Some(16.), Some(16.)));
    // Parts, in the words of our tasks.
    let parts = |task: &str| -> BTreeSet<&str> {
        all.figures
            .iter()
            .filter(|f| f.series.task == task)
            .filter_map(|f| f.series.part.as_deref())
            .collect()
    };
    assert_eq!(parts("longeval_lines").len(), 6);
    assert!(parts("longeval_lines").contains("680"));
    assert_eq!(parts("longeval_lines_by_position").len(), 10);
    assert!(parts("litm_multidoc_qa").contains("30_total_documents_gold_at_14"));
    assert_eq!(parts("mt_bench"), BTreeSet::from(["turn 1", "turn 2"]));
    // 541 of the study are to be doubted, each with a reason; two of llama.cpp contradict their own table.
    let doubted = |source: &str| {
        all.figures
            .iter()
            .filter(|f| f.series.source == source && f.suspect.is_some_and(|s| !s.is_empty()))
            .count()
    };
    assert_eq!((doubted(STUDY), doubted("llama-cpp")), (541, 2));
    assert_eq!(all.figures.iter().filter(|f| f.suspect.is_some()).count(), 543);
    assert_eq!(all.figures.iter().filter(|f| f.series.commented_out()).count(), 30);
}

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
        config::built_in().into_iter().filter(|n| *n != config::QUICKSTART).map(String::from).collect();
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
fn the_rules_are_recomputed_cell_by_cell() {
    let all = published::all().unwrap();
    let mut table = rules::table(&rules::kept(all));
    let golden = golden("rules.csv");
    assert_eq!(golden.len(), 532);
    for row in &golden {
        let ability = rules::ABILITIES.into_iter().find(|a| *a == row["ability"]).unwrap();
        let size = Size::ALL.into_iter().find(|s| s.to_string() == row["size"]).unwrap();
        let recipe = RECIPES.into_iter().find(|r| *r == row["recipe"]).unwrap();
        let cell = table.remove(&(ability, size, recipe)).unwrap_or_else(|| panic!("{row:?}"));
        // Half to even, as the reference rounds.
        let whole = |x: f64| x.round_ties_even().to_string();
        assert_eq!(
            (whole(cell.kept), whole(cell.near)),
            (row["kept"].clone(), row["near"].clone()),
            "{row:?}"
        );
        assert_eq!(cell.n.to_string(), row["n"], "{row:?}");
    }
    // What the reference does not print, and nothing else.
    assert!(table.keys().all(|(_, _, recipe)| ["awq-w8", "awq-w2"].contains(recipe)), "{:?}", table.keys());
}

#[test]
fn claims_have_the_numbers_of_the_figures() {
    let all = published::all().unwrap();
    let claims = claims::claims(all);
    let of = |begins: &str| {
        let claim = claims.iter().find(|c| c.claim.starts_with(begins)).unwrap();
        format!("{}. {}", claim.verdict, claim.evidence)
    };
    for (claim, parts) in [
        ("8 bits", &["kv8 on advglue (95 %; 6 of 54", "kv8 on longeval>=9k (91 %"][..]),
        ("4-bit weights", &["37 to 73 %", "in steps 37 % (11 % at 3 to 8 B)"]),
        ("a 4-bit cache", &["longeval<=6k (85 %)", "longeval>=9k (70 %)", "litm 98 %"]),
        ("8-bit activations", &["holds, but for Mixtral-8x7B-v0.1 (-2.6)"]),
        (
            "3 bits",
            &[
                "emergent IF 94 %",
                "emergent multi-step 84 %",
                "longeval>=9k 70 %",
                "kv3 on longeval>=9k (20 %)",
            ],
        ),
        ("2-bit", &["basic 12 %", "instructions 78 %, 96 % from 66 B"]),
        (
            "larger models bear fewer bits of weights",
            &[
                "kv3 on emergent IF: 97 % at 3-8B, 98 % at >=66B",
                "kv3 on emergent multi-step: 82 % at 3-8B, 95 % at >=66B",
                "kv3 on emergent ICL: 90 % at 3-8B, 95 % at >=66B",
                "w2 on basic: 1 % at <3B, 42 % at >=66B",
                "OPT-30B 51.7, OPT-66B 8.1",
            ],
        ),
        (
            "larger models bear fewer bits of activations",
            &[
                "Llama-2-7b-hf +0.2",
                "Llama-2-13b-hf -0.4",
                "falcon-40b -0.6",
                "Mistral-7B-v0.1 -0.3",
                "Mixtral-8x7B-v0.1 -2.4",
            ],
        ),
        (
            "experts",
            &[
                "kv3 on mmlu: Mixtral -12.7, Mistral-7B -4.8",
                "kv4 on mmlu: Mixtral -3.5, Mistral-7B -1.2",
                "w3 on mmlu: Mixtral -7.3, Mistral-7B -7.6",
                "kv3 on gsm8k: Mixtral -21.9, Mistral-7B -18.7",
                "holds, but for w3 on mmlu",
            ],
        ),
        ("finding a line", &["w4 99.7 %", "w4a8 99.9 %", "documents, kv4 98", "holds"]),
        (
            "AWQ",
            &[
                "vicuna-7b-v1.5-16k +0.14",
                "longchat-7b-16k +0.13",
                "longchat-13b-16k +0.09",
                "Mistral-7B-Instruct-v0.2 +0.08",
                "Mixtral-8x7B-Instruct-v0.1 +0.04",
                "chatglm2-6b-32k +0.04",
                "but for vicuna-13b-v1.5-16k (-0.03)",
                "-0.04 to +0.06",
            ],
        ),
        (
            "families",
            &[
                "Falcon 95 to 98 %",
                "BLOOM and BLOOMZ 59 to 98 %",
                "LLaMA-2 91 to 97 %",
                "OPT 5 to 72 %",
                "holds",
            ],
        ),
    ] {
        let text = of(claim);
        for part in parts {
            assert!(text.contains(part), "{claim}: no `{part}` in\n{text}");
        }
    }
    assert_eq!(claims.len(), 12);
}

#[test]
fn figures_as_records() {
    let all = published::all().unwrap();
    let made = records::records(all, STUDY).unwrap();
    let cells: BTreeSet<&str> = made.iter().map(|r| r.cell.as_str()).collect();
    assert_eq!(cells.len(), made.len(), "cells have names of their own");
    let of = |model: &str, recipe: &str, task: &str| {
        let found: Vec<&Record> = made
            .iter()
            .filter(|r| r.model.name == model && r.recipe.name == recipe && r.task.name == task)
            .collect();
        assert_eq!(found.len(), 1, "{model} {recipe} {task}");
        found[0].clone()
    };
    let value = |r: &Record, metric: &str| match &r.status {
        Status::Done { metrics } => metrics.get(metric).copied(),
        _ => None,
    };
    // A share of n items has its binomial error; once, though it stands in three sweeps.
    let full = of("meta-llama/Llama-2-7b-hf", "full", "mmlu");
    let v = value(&full, "accuracy_weighted_average").unwrap();
    assert_eq!((v.n, full.task.chance, full.task.suite.as_str()), (14042, Some(0.25), "emergent"));
    assert_eq!(v.stderr, Some((v.value * (1. - v.value) / 14042.).sqrt()));
    assert_eq!(full.task.metrics[0].name, "accuracy_weighted_average");
    assert_eq!(value(&full, "accuracy_naive_average").unwrap().stderr, None);
    assert_eq!((full.model.family.as_str(), full.model.params), ("llama", 7_000_000_000));
    assert!(full.recipe.notes.iter().any(|n| n.contains("binomial")), "{:?}", full.recipe.notes);
    let w4 = of("meta-llama/Llama-2-7b-hf", "w4", "lambada");
    assert_eq!(value(&w4, "accuracy").unwrap().value, 0.7173);
    assert_eq!((w4.recipe.weight_bits, w4.recipe.act_bits, w4.recipe.kv_bits), (4., 16., 16.));
    assert!((w4.recipe.bits_per_weight - 4.15625).abs() < 1e-12);
    // Parts, and their mean by items: at 16k, that of positions is that of the length.
    let lines = of("lmsys/vicuna-7b-v1.5-16k", "w4", "longeval_lines");
    let bins = of("lmsys/vicuna-7b-v1.5-16k", "w4", "longeval_lines_by_position");
    assert_eq!((lines.parts.0.len(), bins.parts.0.len()), (6, 10));
    let at_16k = lines.parts.get("680").unwrap()["accuracy"];
    let mean = value(&bins, "accuracy").unwrap();
    assert_eq!((at_16k.n, mean.n), (500, 500));
    assert!((at_16k.value - mean.value).abs() < 1e-9, "{at_16k:?} {mean:?}");
    // Doubted as a whole: skipped, and the reason has what is printed. In part: left out, and said.
    let Status::Skipped { why } = of("lmsys/vicuna-7b-v1.5-16k", "w2", "longeval_lines").status else {
        panic!()
    };
    assert!(
        why.contains("accuracy at 200 0.0") && why.contains("every value of this row is exactly 0.0"),
        "{why}"
    );
    let step = of("lmsys/longchat-7b-16k", "kv8", "longeval_lines");
    assert_eq!((step.parts.0.len(), value(&step, "accuracy")), (2, None));
    assert!(step.recipe.notes.iter().any(|n| n.contains("left out") && n.contains("step drop")), "{step:?}");
    // Two files disagree on one number: the one that is not doubted.
    let gemma = of("google/gemma-7b-it", "full", "mt_bench");
    assert_eq!(gemma.parts.get("turn 2").unwrap()["gpt4_score"].value, 3.62);
    assert!(
        gemma.recipe.notes.iter().any(|n| n.contains("3.62") && n.contains("3.61")),
        "{:?}",
        gemma.recipe.notes
    );
    // Labels that could be of two checkpoints keep their own name.
    assert!(made.iter().any(|r| r.model.name == "LLaMA2-7B" && r.task.name == "strategyqa"));
    // No comparison of figures with themselves.
    assert!(beside(&made).unwrap().is_empty());
    // Every value that is not doubted, out of use or a repetition is there.
    let values: usize = made
        .iter()
        .map(|r| match &r.status {
            Status::Done { metrics } if r.parts.is_empty() => metrics.len(),
            Status::Done { .. } => r.parts.0.iter().map(|(_, m)| m.len()).sum(),
            _ => 0,
        })
        .sum();
    let sound: BTreeSet<_> = all
        .figures
        .iter()
        .filter(|f| f.series.source == STUDY && f.suspect.is_none() && !f.series.commented_out())
        .map(|f| {
            let s = &f.series;
            (s.model, f.recipe.name, s.task, s.metric, s.part.clone())
        })
        .collect();
    assert_eq!(values, sound.len());
    for source in published::sources() {
        assert!(!records::records(all, source).unwrap().is_empty(), "{source}");
    }
}

#[test]
fn filters_pick() {
    let all = published::all().unwrap();
    let count = |f: Filter| f.pick(all).unwrap().len();
    let some = |s: &str| Some(s.to_string());
    assert_eq!(count(Filter { suspect: true, ..Filter::default() }), 543);
    assert_eq!(count(Filter { source: some(STUDY), ..Filter::default() }), 6749);
    assert_eq!(count(Filter { source: some("gptq"), model: some("*/opt-125m"), ..Filter::default() }), 5);
    assert_eq!(
        count(Filter { task: some("language/wikitext2"), source: some("awq"), ..Filter::default() }),
        63
    );
    assert_eq!(
        count(Filter {
            model: some("OPT-125M"),
            recipe: some("gptq-w?row"),
            source: some("gptq"),
            ..Filter::default()
        }),
        2
    );
    let none = Filter { model: some("nobody"), ..Filter::default() }.pick(all).unwrap_err();
    assert!(bitsweep::mistake::is_mistake(&none) && none.to_string().contains("--model `nobody`"), "{none}");
}

#[test]
fn list_published_counts_or_filters() {
    let desk = Desk::empty();
    let all = desk.run(&["list", "published"]).expect(0).out;
    assert!(all.lines().count() < 200 && all.contains("| gptq "), "{}", all.lines().count());
    assert!(all.contains("language/wikitext2") && all.contains("longeval_lines_by_position"));
    let some = desk
        .run(&[
            "list",
            "published",
            "--model",
            "facebook/opt-125m",
            "--source",
            "gptq",
            "--task",
            "wikitext2*",
        ])
        .expect(0)
        .out;
    assert_eq!(some.lines().count(), 2 + 5, "{some}");
    assert!(some.contains("| 31.12 ") && some.contains("gptq-w4row"), "{some}");
    let doubted = desk.run(&["list", "published", "--suspect", "--source", "llama-cpp"]).expect(0).out;
    assert!(doubted.contains("5.794552 is the base PPL"), "{doubted}");
    desk.run(&["list", "published", "--source", "nobody"]).expect(2).says(&[
        "nobody",
        "sources are",
        "omniquant",
    ]);
    desk.run(&["list", "tasks", "--model", "x"]).expect(2).says(&["list published"]);
    desk.run(&["list", "--suspect"]).expect(2).says(&["list published"]);
    let studies = desk.run(&["list", "studies"]).expect(0).out;
    assert!(
        studies.contains("studies/gptq-perplexity") && studies.contains("perplexity of OPT and BLOOM"),
        "{studies}"
    );
}

#[test]
fn a_report_is_drawn_from_figures_alone() {
    let desk = Desk::empty();
    let run = |args: &[&str]| Ran::of(bitsweep().args(args).current_dir(desk.path("")));
    let ran = run(&["report", "--published", "awq"]).expect(0);
    assert!(ran.out.contains("## meta-llama/Llama-2-7b-hf") && ran.out.contains("awq-w3g128"), "{}", ran.out);
    assert!(!ran.out.contains("claims"));
    let csv = desk.read("results/published-awq/table.csv");
    assert!(csv.contains("meta-llama/Llama-2-70b-hf") && csv.contains(",5.47,"), "{csv}");
    assert!(!desk.path("results/published-awq/published.csv").exists(), "figures beside themselves");
    let svg = fs::read_dir(desk.path("results/published-awq")).unwrap();
    assert!(svg.map(|e| e.unwrap().path()).any(|p| p.extension().is_some_and(|e| e == "svg")));
    // Again: the same bytes.
    let before = crate::kit::snapshot(&desk.path("results"));
    run(&["report", "--published", "awq"]).expect(0);
    crate::kit::assert_same(&before, &crate::kit::snapshot(&desk.path("results")), "drawn again");
    run(&["report", "--published", "abc"]).expect(2).says(&["--published `abc`", "did you mean `awq`"]);
    run(&["report"]).expect(2);
    run(&["report", "x", "--published", "awq"]).expect(2);
    run(&["report", "x", "--out", "y"]).expect(2);
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

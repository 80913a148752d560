//! Figures that others have printed: none lost, each readable, the study's rules from its own numbers, drawn without a run.
use crate::{
    common::{bitsweep, repo},
    kit::{Desk, Ran},
};
use bitsweep::{
    published::{
        self, Filter, STUDY,
        beside::beside,
        claims, records,
        rules::{self, RECIPES, Size},
    },
    results::{Record, Status},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::OnceLock,
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
        ("finding a line", &["w4 99.0 %", "w4a8 99.9 %", "documents, kv4 98", "holds"]),
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
        why.ends_with("every value of this row is exactly 0.0: accuracy 0.0 at 200, 300, 400, 500, 600, 680"),
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
fn the_study_is_drawn_with_its_claims() {
    let desk = Desk::empty();
    let out = desk.arg("study");
    let ran = desk.run(&["report", "--published", STUDY, "--out", &out]).expect(0);
    assert!(ran.out.contains("8 bits are free: holds, but for kv8 on advglue (95 %"), "{}", ran.out);
    assert_eq!(ran.out.lines().filter(|l| l.starts_with("- ") && l.contains(": holds")).count(), 12);
    assert!(ran.err.contains("rules.csv") && ran.err.contains("report.html"), "{}", ran.err);
    let rules: Vec<BTreeMap<String, String>> =
        csv::Reader::from_reader(desk.read("study/rules.csv").as_bytes())
            .deserialize()
            .map(Result::unwrap)
            .collect();
    // The reference's cells, and AWQ's at 8 and 2 bits.
    assert_eq!(rules.len(), 532 + 14);
    let of = |r: &&BTreeMap<String, String>| {
        r["ability"] == "basic" && r["size"] == ">=66B" && r["recipe"] == "w2"
    };
    let cell = rules.iter().find(of).unwrap();
    // (0.04 / 73.43 + 50.48 / 79.62 + 16.96 / 78.96 + 38.31 / 67.53 + 46.44 / 68.23) / 5
    assert_eq!(
        (cell["kept_percent"].as_str(), cell["keep_98_percent"].as_str(), cell["n"].as_str()),
        ("41.9", "0.0", "5")
    );
    let table = desk.read("study/table.csv");
    assert!(table.contains(",skipped,") && table.contains("published, but to be doubted"));
}

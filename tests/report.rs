//! Same records, same bytes; no row missing; every number comparable with full precision.
use bitsweep::{
    report::{self, frame::Frame, table},
    results::{
        Cost, Item, MadeBy, MetricInfo, ModelInfo, Parts, RecipeInfo, Record, SCHEMA, Status, Store,
        TaskInfo, Value,
    },
    stats::{self, Scale, Share},
};
use std::{collections::BTreeMap, fs, path::Path};

/// A folder of the test's own, gone afterwards.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

pub fn record(cell: &str, model: &str, recipe: &str, task: &str, metric: (&str, bool, Scale)) -> Record {
    let bits = |letters: &str| match recipe.split_once(letters) {
        Some((_, rest)) => rest.chars().next().and_then(|c| c.to_digit(10)).map_or(16., f64::from),
        None => 16.,
    };
    let kv = bits("kv");
    Record {
        schema: SCHEMA,
        cell: cell.into(),
        model: ModelInfo {
            name: model.into(),
            revision: "0123abc".into(),
            family: "llama".into(),
            params: 1_048_576,
            stored: "bf16".into(),
            tokenizer: String::new(),
        },
        recipe: RecipeInfo {
            name: recipe.into(),
            settings: serde_json::json!({ "name": recipe }),
            weight_bits: if recipe.starts_with('w') { bits("w") } else { 16. },
            act_bits: bits("a"),
            kv_bits: kv,
            kv_bytes_per_token: kv * 8.,
            bits_per_weight: 4.25,
            size_mb: if recipe.starts_with('w') { bits("w") / 8. } else { 2. },
            notes: vec![],
        },
        task: TaskInfo {
            suite: "micro".into(),
            name: task.into(),
            version: 1,
            ability: "basic".into(),
            chance: metric.1.then_some(0.25),
            protocol: String::new(),
            parts_alike: false,
            profile: None,
            data: "feed".into(),
            metrics: vec![MetricInfo { name: metric.0.into(), higher_is_better: metric.1, scale: metric.2 }],
        },
        status: Status::Failed { why: "not run".into() },
        parts: Parts::default(),
        cost: Cost { seconds: 0.125, ..Cost::default() },
        made_by: MadeBy {
            version: "0.1.0".into(),
            device: "cpu".into(),
            dtype: "f32".into(),
            seed: 0,
            limit: None,
        },
    }
}

fn items(shares: &[Share], metric: &str) -> Vec<Item> {
    let item = |(i, s): (usize, &Share)| Item {
        item: format!("{:04x}", i * 7919 % 65536),
        part: None,
        cluster: None,
        outcome: serde_json::Value::Null,
        shares: BTreeMap::from([(metric.to_owned(), *s)]),
    };
    shares.iter().enumerate().map(item).collect()
}

/// The same record, finished, with the value that its items give.
pub fn done(mut record: Record, shares: &[Share]) -> (Record, Vec<Item>) {
    let metric = &record.task.metrics[0];
    let e = stats::ratio(shares, metric.scale).unwrap();
    let value = Value { value: e.value, stderr: e.stderr, n: e.n, ..Value::default() };
    let items = items(shares, &metric.name);
    record.status = Status::Done { metrics: BTreeMap::from([(metric.name.clone(), value)]) };
    (record, items)
}

pub const ACC: (&str, bool, Scale) = ("acc", true, Scale::Plain);
pub const PPL: (&str, bool, Scale) = ("perplexity", false, Scale::Exp);
pub const KL: (&str, bool, Scale) = ("kl", false, Scale::Plain);

pub fn right(outcomes: &str) -> Vec<Share> {
    outcomes.chars().map(|c| [f64::from(u8::from(c == '1')), 1.]).collect()
}

pub fn nll(base: f64) -> Vec<Share> {
    (0..12).map(|i| [(base + 0.1 * f64::from(i * i % 7)) * 20., 20.]).collect()
}

/// Recipes x tasks of one model, with a failed and a skipped cell among them.
pub fn study(dir: &Path, shuffled: bool) -> Store {
    let store = Store::create(dir).unwrap();
    let recipes = [("full", 0.), ("w8", 0.004), ("w4", 0.1), ("w2", 1.5), ("w4a4", 0.4), ("kv4", 0.05)];
    for (r, (recipe, damage)) in recipes.into_iter().enumerate() {
        let of = |t: usize, task, metric| {
            record(&format!("{:02}", 10 * r + t), "builtin:llama", recipe, task, metric)
        };
        let facts: String =
            (0..40).map(|i| if f64::from(i) < 38. - 12. * damage { '1' } else { '0' }).collect();
        let kl: Vec<Share> = (0..12).map(|i| [20. * damage * f64::from(1 + i % 3) / 10., 20.]).collect();
        let mut skipped = of(3, "long", ACC);
        skipped.status =
            Status::Skipped { why: "context of 64 is too short, \"quoted\", with a comma".into() };
        let mut failed = of(0, "text", PPL);
        failed.status = Status::Failed { why: "not finite\nin block 3 | ffn".into() };
        let cells = [
            if recipe == "w2" { (failed, vec![]) } else { done(of(0, "text", PPL), &nll(1.3 + damage)) },
            done(of(1, "facts", ACC), &right(&facts)),
            done(of(2, "drift", KL), &kl),
            (skipped, vec![]),
        ];
        for (record, mut items) in cells {
            if shuffled {
                items.reverse();
                let third = items.len() / 3;
                items.rotate_left(third);
            }
            store.push(&record, &items).unwrap();
        }
    }
    store
}

/// Every file of a report, by name.
fn files(drawn: &report::Drawn) -> BTreeMap<String, Vec<u8>> {
    drawn
        .files
        .iter()
        .map(|p| (p.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(p).unwrap()))
        .collect()
}

fn csv_rows(text: &str) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_reader(text.as_bytes()).deserialize().map(Result::unwrap).collect()
}

#[test]
fn columns_are_the_contract() {
    let dir = folder();
    let drawn = report::draw(&study(dir.path(), false)).unwrap();
    let csv = String::from_utf8(files(&drawn)["table.csv"].clone()).unwrap();
    assert_eq!(
        csv.lines().next().unwrap(),
        "model,family,params,recipe,weight_bits,act_bits,kv_bits,bits_per_weight,size_mb,suite,task,ability,metric,\
         higher_is_better,value,stderr,n,full,delta,relative,p_value,status,reason,seconds,profile,kv_bytes_per_token"
    );
    let rows = csv_rows(&csv);
    assert_eq!(rows.len(), 6 * 4);
    let failed: Vec<_> = rows.iter().filter(|r| r["status"] == "failed").collect();
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0]["recipe"].as_str(), failed[0]["value"].as_str()), ("w2", ""));
    assert_eq!(failed[0]["reason"], "not finite\nin block 3 | ffn");
    assert!(failed[0]["delta"].is_empty() && !failed[0]["full"].is_empty());
    assert_eq!(rows.iter().filter(|r| r["status"] == "skipped" && r["metric"] == "acc").count(), 6);
    assert_eq!((drawn.failed, drawn.skipped), (1, 6));
    for full in rows.iter().filter(|r| r["recipe"] == "full" && r["status"] == "done") {
        assert_eq!(full["full"], full["value"]);
        assert_eq!(
            (full["delta"].as_str(), full["relative"].as_str(), full["p_value"].as_str()),
            ("0", "1", "")
        );
    }
    assert!(!csv.contains("NaN") && !csv.contains("inf"));
}

#[test]
fn floats_read_back_exactly() {
    let dir = folder();
    let store = Store::create(dir.path()).unwrap();
    let values = [0.1 + 0.2, 1. / 3., 1e-300, 6.02e23, 123456.789012345, 5e-324, f64::MAX];
    for (i, value) in values.into_iter().enumerate() {
        let (mut r, _) = done(record(&format!("{i}"), "m", &format!("x{i}"), "t", ACC), &right("10"));
        r.status = Status::Done {
            metrics: BTreeMap::from([(
                "acc".to_owned(),
                Value { value, stderr: Some(value / 7.), n: 2, ..Value::default() },
            )]),
        };
        store.push(&r, &[]).unwrap();
    }
    let rows = csv_rows(&table::csv(&Frame::read(&store).unwrap()).unwrap());
    for (row, value) in rows.iter().zip(values) {
        assert_eq!(row["value"].parse::<f64>().unwrap().to_bits(), value.to_bits());
        assert_eq!(row["stderr"].parse::<f64>().unwrap().to_bits(), (value / 7.).to_bits());
        assert!(row["value"].len() < 26 && row["full"].is_empty() && row["p_value"].is_empty());
    }
}

#[test]
fn same_records_same_bytes() {
    let (a, b, c) = (folder(), folder(), folder());
    let store = study(a.path(), false);
    let first = files(&report::draw(&store).unwrap());
    assert_eq!(first, files(&report::draw(&store).unwrap()));
    assert_eq!(first, files(&report::draw(&study(b.path(), true)).unwrap()), "items in another order");
    assert_eq!(first, files(&report::draw(&study(c.path(), false)).unwrap()), "another folder");
    let names: Vec<&str> = first.keys().map(String::as_str).collect();
    let charts = ["acts", "agreement", "cache", "drift", "kv", "size", "weights"];
    let mut expected: Vec<String> =
        charts.iter().flat_map(|c| ["png", "svg"].map(|e| format!("{c}-builtin-llama.{e}"))).collect();
    expected.extend(["paired.csv", "report.html", "table.csv", "table.md"].map(String::from));
    expected.sort();
    assert_eq!(names, expected);
    for (name, bytes) in &first {
        if name.ends_with(".png") {
            assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        }
        if name.ends_with(".svg") {
            well_formed(std::str::from_utf8(bytes).unwrap());
        }
    }
}

/// Tags open and close in order, and no raw `&` or `<` stands in text.
pub fn well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        let text = &rest[..at];
        let entity = |rest: &str| rest.find(';').is_some_and(|end| (1..6).contains(&end));
        assert!(!text.contains('>') && text.split('&').skip(1).all(entity), "{text}");
        let end = at + rest[at..].find('>').expect("a tag ends");
        let tag = &rest[at + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap().to_owned());
        }
        assert_eq!(tag.matches('"').count() % 2, 0);
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest.trim().is_empty());
}

#[test]
fn p_values_by_hand() {
    let dir = folder();
    let store = Store::create(dir.path()).unwrap();
    // Of 12 items 9 are lost and 1 won: two-sided sign test, 2 (C(10,0) + C(10,1)) / 2^10.
    let (full, full_items) = done(record("f1", "m", "full", "t", ACC), &right("111111111100"));
    let (w4, mut w4_items) = done(record("c1", "m", "w4", "t", ACC), &right("001000000010"));
    w4_items.reverse();
    store.push(&full, &full_items).unwrap();
    store.push(&w4, &w4_items).unwrap();
    // The same perplexity items, one of them another: not comparable.
    let (full, full_items) = done(record("f2", "m", "full", "u", PPL), &nll(1.));
    let (same, same_items) = done(record("c2", "m", "w4", "u", PPL), &nll(1.25));
    let (other, mut other_items) = done(record("c3", "m", "w3", "u", PPL), &nll(1.5));
    other_items[3].item = "ffff".into();
    // Without items: nothing to pair.
    let (bare, _) = done(record("c4", "m", "w2", "u", PPL), &nll(2.));
    for (r, i) in [(full, full_items), (same, same_items), (other, other_items), (bare, vec![])] {
        store.push(&r, &i).unwrap();
    }
    let frame = Frame::read(&store).unwrap();
    let row = |cell: &str| frame.rows.iter().find(|r| frame.record(r).cell == cell).unwrap();
    assert!((row("c1").p_value.unwrap() - 22. / 1024.).abs() < 1e-12);
    assert_eq!(row("c1").delta, Some(2. / 12. - 10. / 12.));
    // Every item worse by the same 0.25 nats a token: no spread, so no doubt about the ratio, and no test.
    let same = row("c2");
    assert!((same.relative.unwrap() - 0.25f64.exp()).abs() < 1e-12);
    assert!(same.relative_stderr.unwrap() < 1e-7 && row("c3").relative_stderr.unwrap() > 0.01);
    let kept = frame.kept(same).unwrap();
    assert!((kept.share - (-0.25f64).exp()).abs() < 1e-12);
    for cell in ["c3", "c4", "f1", "f2"] {
        assert_eq!(row(cell).p_value, None, "{cell}");
    }
    assert!(row("c4").relative.is_some());
}

/// The error of a ratio, against the influence of each item on it (the definition of the delta method).
#[test]
fn errors_of_ratios_know_the_pairing() {
    let dir = folder();
    let store = Store::create(dir.path()).unwrap();
    let a: Vec<Share> = (0..20).map(|i| [f64::from(i * i % 11) + 3., 1. + f64::from(i % 3)]).collect();
    let b: Vec<Share> =
        a.iter().enumerate().map(|(i, s)| [s[0] * 1.1 + (i % 4) as f64 * 0.3, s[1]]).collect();
    for (cell, recipe, shares) in [("f1", "full", &a), ("c1", "w4", &b)] {
        let (r, i) = done(record(cell, "m", recipe, "t", KL), shares);
        store.push(&r, &i).unwrap();
    }
    let frame = Frame::read(&store).unwrap();
    let (sa, sb, w): (f64, f64, f64) =
        a.iter().zip(&b).fold((0., 0., 0.), |s, (p, q)| (s.0 + p[0], s.1 + q[0], s.2 + p[1]));
    let (ma, mb, n) = (sa / w, sb / w, a.len() as f64);
    let sum: f64 = a
        .iter()
        .zip(&b)
        .map(|(p, q)| {
            let (ia, ib) = ((p[0] - ma * p[1]) / w, (q[0] - mb * q[1]) / w);
            (ib / ma - mb / (ma * ma) * ia).powi(2)
        })
        .sum();
    let expected = (n / (n - 1.) * sum).sqrt();
    assert!((frame.rows[1].relative_stderr.unwrap() / expected - 1.).abs() < 1e-9);
    // And the test: the difference over its own error, as Student's t (`tests/stats.rs`).
    let sum: f64 = a.iter().zip(&b).map(|(p, q)| ((q[0] - mb * q[1] - p[0] + ma * p[1]) / w).powi(2)).sum();
    let z = (mb - ma) / (n / (n - 1.) * sum).sqrt();
    let p = stats::student_two_sided(z, n - 1.);
    assert!(p < 0.01 && (frame.rows[1].p_value.unwrap() / p - 1.).abs() < 1e-9);
}

#[test]
fn parts_have_a_table_of_their_own() {
    let dir = folder();
    let store = Store::create(dir.path()).unwrap();
    for (cell, recipe, outcomes) in [("f", "full", "11111111110000"), ("c", "w4", "00000000010001")] {
        let (mut r, mut items) = done(record(cell, "m", recipe, "t", ACC), &right(outcomes));
        let at = |part: std::ops::Range<usize>| {
            let e = stats::ratio(&right(&outcomes[part]), ACC.2).unwrap();
            let value = Value { value: e.value, stderr: e.stderr, n: e.n, ..Value::default() };
            BTreeMap::from([("acc".to_owned(), value)])
        };
        r.parts = Parts(vec![("zeta".into(), at(0..10)), ("eta".into(), at(10..14))]);
        for (i, item) in items.iter_mut().enumerate() {
            item.part = Some(if i < 10 { "zeta" } else { "eta" }.into());
        }
        store.push(&r, &items).unwrap();
    }
    let files = files(&report::draw(&store).unwrap());
    let rows = csv_rows(std::str::from_utf8(&files["parts.csv"]).unwrap());
    let names: Vec<_> = rows.iter().map(|r| format!("{} {}", r["recipe"], r["part"])).collect();
    assert_eq!(names, ["full zeta", "full eta", "w4 zeta", "w4 eta"]);
    assert_eq!(
        (&*rows[2]["value"], &*rows[2]["full"], &*rows[2]["delta"], &*rows[2]["n"]),
        ("0.1", "1", "-0.9", "10")
    );
    // Nine of nine lost: 2 / 2^9. In the other part one of one is won.
    assert_eq!((&*rows[2]["p_value"], &*rows[3]["p_value"], &*rows[1]["p_value"]), ("0.00390625", "1", ""));
    // A report of records without parts leaves no table of an earlier one's.
    let (plain, items) = done(record("f", "m", "full", "t", ACC), &right("10"));
    fs::remove_file(dir.path().join("records.jsonl")).unwrap();
    store.push(&plain, &items).unwrap();
    report::draw(&store).unwrap();
    assert!(!dir.path().join("parts.csv").exists());
}

#[test]
fn holm_by_hand() {
    // Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and never below the one before.
    let adjusted = stats::holm(&[0.01, 0.04, 0.03, 0.005]);
    for (a, b) in adjusted.iter().zip([0.03, 0.06, 0.06, 0.02]) {
        assert!((a - b).abs() < 1e-12);
    }
    assert!(stats::holm(&[]).is_empty());
}

#[test]
fn the_table_reads_at_a_glance() {
    let dir = folder();
    let drawn = report::draw(&study(dir.path(), false)).unwrap();
    let table = drawn.table;
    assert!(table.starts_with("## builtin:llama: llama, 1.0M parameters, bf16\n\n| recipe "), "{table}");
    assert!(table.lines().filter(|l| l.starts_with('|')).all(|l| l.chars().count() <= 110), "{table}");
    assert!(table.contains("failed [") && table.contains("skipped [1]"), "{table}");
    assert!(table.contains("failed: not finite in block 3 | ffn"), "{table}");
    assert_eq!(table::fitted(0.914, Some(0.0123)), ("0.91".into(), "±.01".into()));
    assert_eq!(table::fitted(12.3456, Some(0.097)), ("12.3".into(), "±.1".into()));
    assert_eq!(table::fitted(1234.5, Some(31.)), ("1234".into(), "±31".into()));
    assert_eq!(table::fitted(1.234e-5, Some(2e-7)), ("1.23e-5".into(), "±2e-7".into()));
    assert_eq!(table::fitted(0.5, None), ("0.5000".into(), String::new()));
}

#[test]
fn nothing_from_records_becomes_markup() {
    let dir = folder();
    let store = Store::create(dir.path()).unwrap();
    let evil = "<script>alert('1')</script>&\"x\"|\u{1b}[31m";
    for (i, recipe) in ["full", "w4", "w2"].into_iter().enumerate() {
        let (mut r, items) = done(record(&format!("{i}"), evil, recipe, evil, ACC), &right("110100"));
        r.task.protocol = evil.into();
        r.recipe.notes = vec![evil.into()];
        r.recipe.settings = serde_json::json!({ evil: evil });
        if recipe == "w2" {
            r.status = Status::Failed { why: evil.into() };
        }
        store.push(&r, &items).unwrap();
    }
    let files = files(&report::draw(&store).unwrap());
    for (name, bytes) in &files {
        if let Ok(text) = std::str::from_utf8(bytes) {
            assert!(name.ends_with(".csv") || !text.contains('\u{1b}'), "{name}");
            if name.ends_with(".html") || name.ends_with(".svg") {
                assert!(!text.contains("<script>alert") && text.contains("&lt;script&gt;"), "{name}");
                // Two scripts of the page's own, and in their data nothing that ends one.
                let (scripts, ends) = (text.matches("<script").count(), text.matches("</script").count());
                assert!(scripts == ends && scripts <= 2, "{name}: {scripts} and {ends}");
            }
            if name.ends_with(".svg") {
                well_formed(text);
            }
        }
    }
    assert!(files.contains_key("weights-script-alert-1-script-x-31m.svg"), "{:?}", files.keys());
}

#[test]
fn odd_folders_are_drawn_too() {
    let dir = folder();
    assert!(Store::open(&dir.path().join("none")).is_err());
    // No record.
    let store = Store::create(dir.path()).unwrap();
    let drawn = report::draw(&store).unwrap();
    assert_eq!((drawn.files.len(), drawn.table.as_str()), (3, "No cell has finished yet.\n"));
    // One cell, one item, not of `full`.
    let (r, items) = done(record("a1", "m", "w4", "t", PPL), &[[20., 10.]]);
    store.push(&r, &items).unwrap();
    let drawn = report::draw(&store).unwrap();
    assert_eq!(drawn.files.len(), 3);
    assert!(drawn.table.contains("7.389"), "{}", drawn.table);
    // All failed before the model was read; a task without metrics.
    let mut r = record("a2", "gone", "w4", "t", ACC);
    r.model = ModelInfo {
        revision: String::new(),
        family: String::new(),
        params: 0,
        stored: String::new(),
        ..r.model
    };
    r.recipe.weight_bits = 0.;
    store.push(&r, &[]).unwrap();
    r.cell = "a3".into();
    r.task.name = "u".into();
    r.task.metrics.clear();
    store.push(&r, &[]).unwrap();
    let drawn = report::draw(&store).unwrap();
    let rows = csv_rows(std::str::from_utf8(&files(&drawn)["table.csv"]).unwrap());
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (rows[2]["params"].as_str(), rows[2]["weight_bits"].as_str(), rows[2]["metric"].as_str()),
        ("", "", "")
    );
    // A torn items file is a mistake that names the file.
    let (full, items) = done(record("a4", "m", "full", "t", PPL), &[[10., 10.]]);
    store.push(&full, &items).unwrap();
    fs::write(dir.path().join("items/a4.jsonl"), "{").unwrap();
    let error = format!("{:#}", report::draw(&store).err().unwrap());
    assert!(error.contains("a4.jsonl") && error.contains("line 1"), "{error}");
}

#[test]
fn one_recipe_and_perfect_scores() {
    let dir = folder();
    let store = Store::create(dir.path()).unwrap();
    for (cell, recipe) in [("f1", "full"), ("c1", "w4")] {
        let (r, items) = done(record(cell, "m", recipe, "t", ACC), &right("1111"));
        store.push(&r, &items).unwrap();
    }
    // Nothing right at full precision: no ratio, no chart, no infinity.
    for (cell, recipe, outcomes) in [("f2", "full", "0000"), ("c2", "w4", "0100")] {
        let (r, items) = done(record(cell, "m", recipe, "u", ACC), &right(outcomes));
        store.push(&r, &items).unwrap();
    }
    let files = files(&report::draw(&store).unwrap());
    for (name, bytes) in files.iter().filter(|(n, _)| !n.ends_with(".png")) {
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(!text.contains("NaN") && !text.contains("inf,") && !text.contains("inf%"), "{name}");
    }
}

#[test]
fn old_charts_go_and_other_files_stay() {
    let dir = folder();
    let store = study(dir.path(), false);
    for name in ["weights-gone.svg", "kv-gone.png", "mine.svg", "weights.svg", "weights-notes.txt"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    report::draw(&store).unwrap();
    let there = |name: &str| dir.path().join(name).exists();
    assert!(!there("weights-gone.svg") && !there("kv-gone.png"));
    assert!(
        there("mine.svg")
            && there("weights.svg")
            && there("weights-notes.txt")
            && there("weights-builtin-llama.svg")
    );
}

/// Two models, and one of them with two limits: no two groups share a table or a file.
#[test]
fn groups_are_told_apart() {
    let dir = folder();
    let store = Store::create(dir.path()).unwrap();
    for (i, (model, limit)) in [("org/m", None), ("org-m", None), ("org/m", Some(5))].into_iter().enumerate()
    {
        for (j, recipe) in ["full", "w4"].into_iter().enumerate() {
            let outcomes = if j == 0 { "111011" } else { "101001" };
            let (mut r, items) = done(record(&format!("{i}{j}"), model, recipe, "t", ACC), &right(outcomes));
            r.made_by.limit = limit;
            store.push(&r, &items).unwrap();
        }
    }
    let frame = Frame::read(&store).unwrap();
    let titles: Vec<&str> = frame.groups.iter().map(|g| g.title.as_str()).collect();
    assert_eq!(titles, ["org/m (all items)", "org-m", "org/m (at most 5 items)"]);
    let slugs: Vec<&str> = frame.groups.iter().map(|g| g.slug.as_str()).collect();
    assert_eq!(slugs, ["org-m", "org-m-2", "org-m-3"]);
    assert!(frame.rows.iter().all(|r| r.full.is_some()));
}

/// More tasks than a picture can hold go on in the next.
#[test]
fn many_tasks_take_several_pictures() {
    let dir = folder();
    let store = Store::create(dir.path()).unwrap();
    for task in 0..30 {
        for (recipe, outcomes) in [("full", "11011"), ("w4", "10010"), ("w4g64", "11010")] {
            let cell = format!("{task}{recipe}");
            let (r, items) = done(record(&cell, "m", recipe, &format!("t{task}"), ACC), &right(outcomes));
            store.push(&r, &items).unwrap();
        }
    }
    let files = files(&report::draw(&store).unwrap());
    let svg: Vec<&str> = files.keys().filter(|n| n.ends_with(".svg")).map(String::as_str).collect();
    let pages = |chart: &str| (1..=3).map(|i| format!("{chart}-m--{i}.svg")).collect::<Vec<_>>();
    assert_eq!(svg, [pages("size"), pages("weights")].concat());
}

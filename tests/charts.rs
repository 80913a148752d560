//! Charts: what they say is what records say, whoever draws them, and nothing leaves the canvas.
use crate::{
    common::repo,
    report::{ACC, KL, PPL, done, record, right, well_formed},
};
use bitsweep::{
    report::{
        self,
        answer::{self, Kind},
        charts::{CHARTS, across, agreement, heat, inside, pareto, radar, scaling, storage},
        frame::Frame,
        plot::Place,
    },
    results::{Item, Parts, Record, Status, Store, Value},
    stats::Share,
};
use serde_json::json;
use std::{collections::BTreeMap, fs, path::Path};

/// Models by name, family and billions of parameters; what w4 loses of 40 facts.
const MODELS: [(&str, &str, f64, usize); 6] = [
    ("org/a-1b", "llama", 1., 10),
    ("org/a-7b", "llama", 7., 4),
    ("org/a-13b", "llama", 13., 2),
    ("org/b-3b", "opt", 3., 8),
    ("org/b-30b", "opt", 30., 6),
    ("org/c-3b", "phi", 3., 3),
];
const RECIPES: [&str; 8] = ["full", "w8", "w4", "w2", "w8a8", "w4a4", "kv8", "kv2"];

/// How much a recipe damages, from 0 to 1.
fn damage(recipe: &str) -> f64 {
    match recipe {
        "full" => 0.,
        "w8" | "w8a8" | "kv8" => 0.02,
        "w4" => 0.25,
        _ => 1.,
    }
}

/// The first `n` of 40 right, each with its endings' log-likelihoods.
fn facts(n: usize) -> Vec<Item> {
    let outcomes: String = (0..40).map(|i| if i < n { '1' } else { '0' }).collect();
    let (_, mut items) = done(record("x", "m", "w4", "facts", ACC), &right(&outcomes));
    for (i, item) in items.iter_mut().enumerate() {
        let lead = (n as f64 - i as f64) / 8. - 0.05;
        item.outcome =
            json!({ "choice": { "gold": 1, "log_probs": [-4., -4. + lead], "greedy": [false, false] } });
    }
    items
}

fn cells(model: (&str, &str, f64, usize), m: usize, r: usize) -> Vec<(Record, Vec<Item>)> {
    let recipe = RECIPES[r];
    let bad = damage(recipe);
    let of = |task: &str, t: usize, ability: &str, metric| {
        let mut one = record(&format!("{m}{r}{t}"), model.0, recipe, task, metric);
        one.model.family = model.1.into();
        one.model.params = (model.2 * 1e9) as u64;
        one.recipe.size_mb =
            model.2 * 1000. * if recipe.starts_with('w') { one.recipe.weight_bits / 8. } else { 2. };
        one.task.ability = ability.into();
        one
    };
    let lost = |of: usize| (of as f64 * bad * 4.).min(36.) as usize;
    let mut out = Vec::new();
    let n = 36 - lost(model.3).min(36);
    let (one, _) = done(
        of("facts", 0, "basic", ACC),
        &right(&(0..40).map(|i| if i < n { '1' } else { '0' }).collect::<String>()),
    );
    out.push((one, facts(n)));
    let nll: Vec<Share> = (0..12).map(|i| [(1. + bad + 0.1 * f64::from(i % 3)) * 16., 16.]).collect();
    let (one, mut items) = done(of("text", 1, "language", PPL), &nll);
    for item in &mut items {
        item.outcome = json!({ "text": { "nll": 16., "tokens": 16, "spread": [10, 4, 2],
            "places": [[2. + bad, 1.], [3., 2.], [5. + 2. * bad, 4.]] } });
    }
    out.push((one, items));
    let kl: Vec<Share> = (0..12).map(|i| [bad * f64::from(1 + i % 3), 16.]).collect();
    let (one, mut items) = done(of("drift", 2, "language", KL), &kl);
    for item in &mut items {
        let mut bins = vec![[0., 0.]; 10];
        (bins[4], bins[9]) = ([bad, 4.], [bad / 100., 12.]);
        item.outcome = json!({ "divergence": { "confidence": bins } });
    }
    out.push((one, items));
    // By position: a value a part.
    let mut one = of("needle", 3, "long", ACC);
    let value = |v: f64| Value { value: v, stderr: Some(0.02), n: 20, ..Value::default() };
    let part = |(i, name): (usize, &str)| {
        (name.to_owned(), BTreeMap::from([("acc".to_owned(), value(0.9 - bad * 0.2 * i as f64))]))
    };
    one.parts = Parts(["start", "middle", "end"].into_iter().enumerate().map(part).collect());
    one.status = Status::Done { metrics: BTreeMap::from([("acc".to_owned(), value(0.9 - bad * 0.2))]) };
    out.push((one, Vec::new()));
    let mut failed = of("sums", 4, "emergent", ACC);
    if m == 0 && recipe == "w2" {
        failed.status = Status::Failed { why: "not finite".into() };
        out.push((failed, Vec::new()));
    } else {
        out.push(done(failed, &right("1111111101")));
    }
    out
}

fn study(dir: &Path) -> Store {
    let store = Store::create(dir).unwrap();
    for (m, model) in MODELS.into_iter().enumerate() {
        for r in 0..RECIPES.len() {
            cells(model, m, r).iter().for_each(|(record, items)| store.push(record, items).unwrap());
        }
    }
    store
}

fn frame() -> (tempfile::TempDir, Frame) {
    let dir = tempfile::tempdir().unwrap();
    let frame = Frame::read(&study(dir.path())).unwrap();
    (dir, frame)
}

#[test]
fn every_chart_has_a_picture_and_stays_on_its_canvas() {
    let (_dir, frame) = frame();
    let mut names = Vec::new();
    for chart in CHARTS {
        let pictures = chart.draw(&frame).unwrap();
        assert!(!pictures.is_empty(), "{} draws nothing", chart.name());
        let again = chart.draw(&frame).unwrap();
        for (picture, again) in pictures.iter().zip(again) {
            assert!(picture.svg == again.svg && picture.png == again.png, "{}", picture.name);
            well_formed(&picture.svg);
            inside_canvas(&picture.name, &picture.svg);
            assert!(picture.name.starts_with(&format!("{}-", chart.name())), "{}", picture.name);
            assert!(picture.title.contains('?'), "a chart answers a question: {}", picture.title);
            names.push(picture.name.clone());
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two pictures have one name");
    for a in CHARTS {
        assert!(
            CHARTS.iter().all(|b| a.name() == b.name() || !b.name().starts_with(a.name())),
            "{}",
            a.name()
        );
    }
}

/// Texts begin on the canvas and points lie on it.
fn inside_canvas(name: &str, svg: &str) {
    let number = |tag: &str, key: &str| -> Option<f64> {
        tag.split(&format!(" {key}=\"")).nth(1)?.split('"').next()?.parse().ok()
    };
    let view = svg.split("viewBox=\"").nth(1).and_then(|v| v.split('"').next()).unwrap();
    let size: Vec<f64> = view.split(' ').map(|n| n.parse().unwrap()).collect();
    for tag in svg.split('<').filter(|t| t.starts_with("text") || t.starts_with("circle")) {
        let x = number(tag, "x").or_else(|| number(tag, "cx"));
        let y = number(tag, "y").or_else(|| number(tag, "cy"));
        if let (Some(x), Some(y)) = (x, y) {
            assert!((0. ..=size[2]).contains(&x) && (0. ..=size[3]).contains(&y), "{name}: {x}, {y}: {tag}");
        }
    }
}

#[test]
fn a_single_model_has_no_charts_over_models() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    for r in 0..3 {
        cells(MODELS[0], 0, r).iter().for_each(|(record, items)| store.push(record, items).unwrap());
    }
    let frame = Frame::read(&store).unwrap();
    for chart in CHARTS {
        let over_models = ["heat", "spread", "scaling", "pareto", "ranks", "storage"].contains(&chart.name());
        assert!(!over_models || chart.draw(&frame).unwrap().is_empty(), "{}", chart.name());
    }
}

#[test]
fn fields_hold_what_is_kept() {
    let (_dir, frame) = frame();
    let basic = &heat::fields(&frame, "basic")[0];
    assert_eq!(basic.columns, RECIPES[1..]);
    assert_eq!(basic.rows.len(), MODELS.len());
    // The first model loses 10 of 36 under w4: 26 / 36.
    let Place::At(lost, text) = &basic.cells[0][1] else { panic!("{:?}", basic.cells[0][1]) };
    assert_eq!(text, "72.2");
    assert!((lost - (10. / 36.) / 0.5).abs() < 1e-9);
    let emergent = &heat::fields(&frame, "emergent")[0];
    assert_eq!(emergent.cells[0][2], Place::Failed);
    // One failed, one finished: the number stands, and says that it is not of all.
    let dir = tempfile::tempdir().unwrap();
    let store = study(dir.path());
    let (mut one, items) = done(record("zz", MODELS[0].0, "w2", "more", ACC), &right("1111"));
    one.task.ability = "emergent".into();
    store.push(&one, &items).unwrap();
    let (mut full, items) = done(record("zy", MODELS[0].0, "full", "more", ACC), &right("1111"));
    full.task.ability = "emergent".into();
    store.push(&full, &items).unwrap();
    let emergent = &heat::fields(&Frame::read(&store).unwrap(), "emergent")[0];
    assert_eq!(emergent.cells[0][2], Place::At(0., "100.0 !".into()));
}

#[test]
fn the_answer_is_the_fewest_bits_that_keep_enough() {
    let (_dir, frame) = frame();
    // The third model loses 2 of 36 under w4 and nothing under w8; the first 10 of 36.
    let of = |group: usize, kind, ability: &str| {
        answer::answers(&frame, &frame.groups[group]).remove(&(kind, ability.to_owned())).unwrap()
    };
    let first = of(0, Kind::Weights, "basic");
    assert_eq!(first.enough.unwrap().recipe, "w8");
    let long = of(2, Kind::Cache, "long");
    assert_eq!((long.enough.as_ref().unwrap().recipe.as_str(), long.best.recipe.as_str()), ("kv8", "kv8"));
    // exp(-0.25) of a perplexity is left under w4, exp(-0.02) under w8.
    let language = of(1, Kind::Weights, "language").enough.unwrap();
    assert!((language.kept - (-0.02f64).exp()).abs() < 1e-9 && language.tasks == 1, "{language:?}");
    let counts = answer::counts(&frame);
    let w4 = &counts.iter().find(|(label, _)| label == "w4").unwrap().1["basic"];
    assert_eq!((w4.keep, w4.of), (0, 6));
    let mean: f64 = MODELS.iter().map(|m| (36. - m.3 as f64) / 36.).sum::<f64>() / 6.;
    assert!((w4.mean - mean).abs() < 1e-9);
}

#[test]
fn fronts_are_what_no_other_beats() {
    let points = [(1., 0.3), (2., 0.5), (2., 0.6), (3., 0.55), (4., 0.9), (5., 0.9)];
    assert_eq!(pareto::front(&points, true), [0, 2, 4]);
    // Lower is better: a perplexity.
    assert_eq!(pareto::front(&[(1., 9.), (2., 5.), (3., 6.), (4., 4.)], false), [0, 1, 3]);
    let (_dir, frame) = frame();
    let panes = pareto::panes(&frame);
    let facts = &panes.iter().find(|(_, p)| p.title == "facts").unwrap().1;
    // Five models with a line each, and the front; a divergence has none.
    assert_eq!(facts.lines.len(), MODELS.len() + 1);
    assert!(panes.iter().all(|(_, p)| p.title != "drift"));
}

#[test]
fn the_same_bytes_buy_a_small_model_or_a_large_one_in_few_bits() {
    let (_dir, frame) = frame();
    let all = storage::budgets(&frame);
    let (.., budgets) = all.iter().find(|(f, t, ..)| f == "llama" && t == "facts").unwrap();
    // 1B is 2 MB by the builder, in which 7B takes 1.75 in two bits and 13B 3.25; 7B is 14, and 13B 13 in eight.
    let names: Vec<Vec<&str>> =
        budgets.iter().map(|b| b.members.iter().map(|m| m.name.as_str()).collect()).collect();
    assert_eq!(names, [vec!["a-1b full", "a-7b w2"], vec!["a-7b full", "a-13b w8"]]);
    assert!(budgets[0].members[0].bits > budgets[0].members[1].bits);
}

#[test]
fn stars_are_measured_from_chance() {
    let (_dir, frame) = frame();
    let group = &frame.groups[0];
    let (w4, facts) = (2, 0);
    // 26 of 40 are right, 36 at full precision, a quarter by chance.
    let by_hand = (0.65 - 0.25) / (0.9 - 0.25);
    assert!((radar::above_chance(&frame, group, w4, facts).unwrap() - by_hand).abs() < 1e-12);
    let star = radar::star(&frame, group, bitsweep::report::charts::Swept::Weights, "x").unwrap();
    assert_eq!(star.axes, ["basic", "language", "long", "emergent"]);
    assert_eq!(star.rings.len(), 3);
    assert!((star.rings[1].1[0].unwrap() - by_hand).abs() < 1e-12);
}

#[test]
fn sizes_of_a_family_are_joined() {
    let (_dir, frame) = frame();
    let panes = scaling::panes(&frame, bitsweep::report::charts::Swept::Weights);
    let basic = panes.iter().find(|p| p.title == "basic").unwrap();
    let w4: Vec<_> = basic.lines.iter().filter(|l| l.label == "w4").collect();
    // LLaMA's three sizes, OPT's two, and one that is alone.
    assert_eq!(w4.iter().map(|l| l.dots.len()).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(w4[0].dots.windows(2).all(|d| d[0].x < d[1].x));
    assert!((w4[0].dots[0].y - 100. * 26. / 36.).abs() < 1e-9 && w4[0].dots[0].error.is_some());
}

#[test]
fn ranks_equal_scipys() {
    let text = fs::read_to_string(repo("tests/goldens/stats.json")).unwrap();
    let goldens: serde_json::Value = serde_json::from_str(&text).unwrap();
    for case in goldens["spearman"].as_array().unwrap() {
        let list = |key: &str| -> Vec<Option<f64>> {
            case[key].as_array().unwrap().iter().map(|v| v.as_f64()).collect()
        };
        let r = across::spearman(&list("a"), &list("b")).unwrap();
        assert!((r - case["r"].as_f64().unwrap()).abs() < 1e-12, "{case}");
    }
    assert_eq!(across::spearman(&[Some(1.); 5], &[Some(2.); 5]), None);
    let (_dir, frame) = frame();
    let ranking = across::ranks(&frame).unwrap();
    assert_eq!(ranking.recipe, "w4");
    assert_eq!(ranking.matrix.len(), 2 * ranking.tasks.len());
    let (mean, ends) = across::ends(&frame, "w4", "basic").unwrap();
    assert!((ends[0] - 26. / 36.).abs() < 1e-9 && (ends[1] - 34. / 36.).abs() < 1e-9 && mean > ends[0]);
}

#[test]
fn details_are_sums_over_items() {
    let (_dir, frame) = frame();
    let group = &frame.groups[0];
    let of = |recipe: usize, task: usize| &frame.details[&group.cell(recipe, task).unwrap()];
    let (full, w2) = (of(0, 1), of(3, 1));
    assert_eq!(w2.spread, [120., 48., 24.]);
    let shares: Vec<f64> = inside::spread(w2, full).iter().map(|d| d.y).collect();
    assert_eq!(shares, [0.625, 0.25, 0.125, 0.]);
    // 3 nats on one token where full precision has 2; 7 on four where it has 5.
    let above: Vec<(f64, f64)> = inside::places(w2, full).iter().map(|d| (d.x, d.y)).collect();
    assert_eq!(above, [(1., 1.), (2.5, 0.), (5.5, 0.5)]);
    let bins: Vec<(f64, f64)> = inside::confidence(of(3, 2), of(0, 2)).iter().map(|d| (d.x, d.y)).collect();
    assert_eq!(bins.len(), 2);
    assert!((bins[0].1 - 0.25).abs() < 1e-12 && (bins[1].1 - 0.01 / 12.).abs() < 1e-12);
    // Every item alike: their difference has no spread.
    assert!(inside::places(w2, full).iter().all(|d| d.error == Some(0.)));
    // 26 of 40 lead by more than nothing.
    let margins = inside::margins(of(2, 0), of(0, 0));
    let wrong = margins.iter().filter(|d| d.x < 0.).map(|d| d.y).fold(0., f64::max);
    assert!((wrong - 14. / 40.).abs() < 1e-12, "{wrong}");
    let agreed = agreement::points(&frame, group);
    let w4 = agreed.iter().find(|p| p.recipe == "w4").unwrap();
    // 10 of 40 facts flipped, none of 10 sums; needle has no items.
    assert!((w4.flips - 0.125).abs() < 1e-12 && (w4.change + 0.125).abs() < 1e-12, "{w4:?}");
}

#[test]
fn a_large_study_stays_readable() {
    let dir = tempfile::tempdir().unwrap();
    let drawn = report::draw(&study(dir.path())).unwrap();
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("Of 6 models, how many keep 98 %"));
    assert!(drawn.failed == 1 && page.contains("1 cell failed"));
    // Of six models, three of a chart are shown and three folded.
    assert!(page.contains("<summary>3 more charts</summary>"));
}

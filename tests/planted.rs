//! Quantizers with planted defects, and configs/ci.toml run on data of a seed of one's own.
use crate::common::repo;
use bitsweep::{
    gate::{self, Baseline, Usual},
    model::decoder::Decoder,
    results::{Item, MetricInfo, Record, Rule, Status, Store, Value},
    stats::{self, Share},
    study::{
        config::Study,
        engine::{Engine, Words},
        evaluate::evaluate,
        plan::{Pick, plan},
        run::{Machine, run},
        score::{Kin, score},
    },
    tensor::matmul::Weight,
};
use candle_core::{Device, Tensor};
use serde_json::json;
use std::{collections::BTreeMap, fs};
use world::{
    chance::Rng,
    questions::{Topic, questions},
};

#[allow(dead_code, clippy::iter_over_hash_type)]
#[path = "../suites/microworld/make/world/mod.rs"]
mod world;

/// What is wrong with a quantizer of 4 bits in groups of 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// Nothing.
    Nothing,
    /// Nothing: it rounds weights that differ by a tenth of a step at most, and is as good.
    Luck,
    /// It rounds down.
    Down,
    /// The zero point of each row's first group is off by one.
    Zero,
    /// Each row's last group is not rounded.
    Unrounded,
    /// The zero point of a single group of the whole model is off by one.
    OneZero,
}

impl Defect {
    /// Those that a gate must find.
    pub const ALL: [Defect; 4] = [Defect::Down, Defect::Zero, Defect::Unrounded, Defect::OneZero];
}

const GROUP: usize = 32;
const RECIPE: &str = "w4g32";

/// Asymmetric, zero points clamped: what `w4g32` is, written anew.
fn rounded(weight: &Tensor, site: usize, defect: Defect, luck: &mut Rng) -> Tensor {
    let (rows, columns) = weight.dims2().unwrap();
    let mut all = weight.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (r, row) in all.chunks_exact_mut(columns).enumerate() {
        let last = columns.div_ceil(GROUP) - 1;
        for (g, group) in row.chunks_mut(GROUP).enumerate() {
            if defect == Defect::Unrounded && g == last {
                continue;
            }
            let low = group.iter().copied().fold(f32::INFINITY, f32::min);
            let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let scale = (high - low).max(1e-5) / 15.;
            let zero = (-(low / scale).round_ties_even()).clamp(0., 15.);
            let moved = match defect {
                Defect::Zero => g == 0,
                Defect::OneZero => (site, r, g) == (8, 3, 1),
                _ => false,
            };
            let shift = if moved { 1. } else { 0. };
            for w in group {
                if defect == Defect::Luck {
                    let unit = luck.next_u64() as f32 / u64::MAX as f32 - 0.5;
                    *w += 0.2 * scale * unit;
                }
                let at = *w / scale;
                let code = if defect == Defect::Down { at.floor() } else { at.round_ties_even() };
                *w = ((code + zero).clamp(0., 15.) - zero - shift) * scale;
            }
        }
    }
    Tensor::from_vec(all, (rows, columns), &Device::Cpu).unwrap()
}

/// The ci study on data drawn from a seed, run by the program as it is.
pub struct Trial {
    folder: tempfile::TempDir,
    study: Study,
    seed: u64,
}

impl Trial {
    pub fn new(seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut rng = Rng::new(world::chance::mix(seed ^ 0x6a7e));
        let texts: String = (0..24)
            .map(|_| format!("{}\n", json!({ "text": world::document(&mut rng).text + "\n" })))
            .collect();
        fs::write(path("text.jsonl"), texts).unwrap();
        let asked: String = questions(Topic::NewWords, seed ^ 0x6a7e, 40)
            .into_iter()
            .map(|q| format!("{}\n", json!({ "prompt": q.prompt, "endings": q.endings, "gold": q.gold })))
            .collect();
        fs::write(path("questions.jsonl"), asked).unwrap();
        let mut sets: Vec<String> = [("text", "text"), ("drift", "text"), ("new-words", "questions")]
            .map(|(task, file)| format!("data.{task}={}", path(&format!("{file}.jsonl"))))
            .to_vec();
        sets.push(format!("recipes=[\"{RECIPE}\"]"));
        let study = Study::read(repo("configs/ci.toml").to_str().unwrap(), &sets).unwrap();
        let trial = Self { folder, study, seed };
        trial.run("good");
        Baseline::write(&trial.store("good"), &trial.folder.path().join("good.jsonl")).unwrap();
        trial
    }

    fn store(&self, name: &str) -> Store {
        Store::create(&self.folder.path().join(name)).unwrap()
    }

    fn run(&self, name: &str) {
        let all = plan(&self.study, &Pick::default(), "cpu", &|| None).unwrap();
        let machine = Machine { device: &Device::Cpu, name: "cpu", memory: None };
        let summary = run(&self.study, &all, &self.store(name), &machine, &mut |_| ()).unwrap();
        assert_eq!(summary.failed, 0);
    }

    fn gate(&self, name: &str, rules: &[Rule], before: &str) -> bool {
        let baseline = Baseline::open(&self.folder.path().join(format!("{before}.jsonl"))).unwrap();
        let verdicts = gate::gate(&self.store(name), rules, Some(&baseline), Usual::default()).unwrap();
        assert!(verdicts.len() >= rules.len());
        verdicts.iter().any(|v| v.is_bad(false))
    }

    /// The same program once more, on other threads.
    pub fn rerun_fails(&self, threads: usize) -> bool {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| self.run("again"));
        self.gate("again", &self.study.gates, "good")
    }

    /// Whether the study's own rules find a defect.
    pub fn fails(&self, defect: Defect) -> bool {
        self.quantize(defect);
        self.gate(&format!("{defect:?}"), &self.study.gates, "good")
    }

    /// Two quantizers of which neither is worse than the other: a coin says of each item which of two had it before and which
    /// has it now. Whether those rules that ask for a loss find one all the same, or, without them, what is usual does.
    pub fn luck_fails(&self, own: bool) -> bool {
        self.quantize(Defect::Luck);
        let (good, other) = (self.store("good"), self.store("Luck"));
        let (before, now) = (self.store("before"), self.store("now"));
        if now.records().unwrap().is_empty() {
            let mut coin = Rng::new(world::chance::mix(self.seed ^ 0xc014));
            for (mut a, mut b) in good.records().unwrap().into_iter().zip(other.records().unwrap()) {
                let [mut x, mut y] = [&good, &other].map(|s| s.items(&a.cell).unwrap().unwrap());
                for (p, q) in x.iter_mut().zip(&mut y).filter(|_| coin.next_u64() >> 63 == 1) {
                    std::mem::swap(p, q);
                }
                for (store, record, items) in [(&before, &mut a, &x), (&now, &mut b, &y)] {
                    record.status = Status::Done { metrics: values(record, items) };
                    store.push(record, items).unwrap();
                }
            }
            Baseline::write(&before, &self.folder.path().join("before.jsonl")).unwrap();
        }
        let rules: Vec<Rule> = self.study.gates.iter().filter(|r| r.each.is_none()).cloned().collect();
        self.gate("now", if own { &rules } else { &[] }, "before")
    }

    /// The same cells with another quantizer's weights.
    fn quantize(&self, defect: Defect) {
        let store = self.store(&format!("{defect:?}"));
        if !store.records().unwrap().is_empty() {
            return;
        }
        let all = plan(&self.study, &Pick::default(), "cpu", &|| None).unwrap();
        let opened = &all.models[0];
        let full = opened.load(&Device::Cpu).unwrap();
        let other = self.quantized(&full, defect);
        let good = self.store("good");
        for mut record in good.records().unwrap() {
            let mut items = good.items(&record.cell).unwrap().unwrap();
            if record.recipe.name == RECIPE {
                let at = self.study.tasks.iter().position(|t| t.name == record.task.name).unwrap();
                let (task, data) = (&self.study.tasks[at], &all.items[at]);
                let words = Words::of(opened);
                let (mut lm, mut reference) = (Engine::new(&other, words), Engine::new(&full, words));
                let outcomes = evaluate(&mut lm, &mut reference, (None, 0), task, data).unwrap();
                let scored = score(&task.task, &Kin::default(), outcomes).unwrap();
                items = scored.items;
                record.status = Status::Done { metrics: scored.metrics };
            }
            store.push(&record, &items).unwrap();
        }
    }

    /// What the cells of a quantizer came to.
    pub fn values(&self, name: &str) -> Vec<Status> {
        self.store(name).records().unwrap().into_iter().map(|r| r.status).collect()
    }

    fn quantized(&self, full: &Decoder, defect: Defect) -> Decoder {
        let mut model = full.clone();
        let mut luck = Rng::new(world::chance::mix(self.seed ^ 0x10c4));
        for (i, linear) in model.blocks.iter_mut().flat_map(|b| b.linears.values_mut()).enumerate() {
            let weight = rounded(&linear.weight.rows().unwrap(), i, defect, &mut luck);
            linear.weight = Weight::from(weight).laid().unwrap();
        }
        model
    }
}

/// Metrics of items.
fn values(record: &Record, items: &[Item]) -> BTreeMap<String, Value> {
    let of = |metric: &MetricInfo| {
        let shares: Vec<Share> = items.iter().map(|i| i.shares[&metric.name]).collect();
        let e = stats::ratio(&shares, metric.scale)?;
        Some((metric.name.clone(), Value { value: e.value, stderr: e.stderr, n: e.n, ..Value::default() }))
    };
    record.task.metrics.iter().filter_map(of).collect()
}

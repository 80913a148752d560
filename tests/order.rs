//! A score belongs to its item: alone, among others, in another order, in other packs or shards, it is the same bits.
use crate::kit::{Desk, assert_same, snapshot};
use bitsweep::{
    eval::{Outcomes, choice, cloze, dialogue, generate, perplexity},
    model::load,
    quant::{apply::apply, recipe::Recipe},
    study::engine::{Engine, Words},
    suite::{
        Ask, Task,
        data::{self, Items},
        requests,
    },
};
use candle_core::Device;
use std::{collections::BTreeMap, path::Path};

const ITEMS: &str = r#"
about = ''
version = 1
metrics = []
[[data.items]]
q = 'the big cat'
a = 'sat'
[[data.items]]
q = 'a dog'
a = 'ran'
[[data.items]]
q = 'the sun and the map and the inn'
a = 'fell'
[[data.items]]
q = 'is it'
a = 'sat'
[[data.items]]
q = 'a big big big dog and a cat'
a = 'ran'
[[data.items]]
q = 'map'
a = 'fell'
[[data.items]]
q = 'the inn at the sea'
a = 'ran'
"#;

/// A kind of task, with its metrics.
const KINDS: [(&str, &str, &str); 6] = [
    (
        "choice",
        "'acc'",
        "[fewshot]\nn = 2\n[ask.choice]\nprompt = '{{ q }}'\nendings = ['sat', 'ran', 'fell']\n\
         gold = \"{{ ['sat', 'ran', 'fell'].index(a) }}\"\n",
    ),
    (
        "prompts",
        "'acc'",
        "[ask.choice]\nprompts = ['{{ q }}', 'not {{ q }}']\nending = '{{ a }}'\ngold = '0'\nprofile = 'opencompass'\n",
    ),
    (
        "cloze",
        "'acc', 'perplexity'",
        "[fewshot]\nn = 1\n[ask.cloze]\nprompt = '{{ q }}'\nending = ' {{ a }}'\n",
    ),
    (
        "rolling",
        "'word_perplexity'",
        "[ask.perplexity]\ntext = '{{ q }} {{ a }}'\nprotocol = 'rolling'\nwindow = 9\n",
    ),
    (
        "generate",
        "'exact_match', 'same_tokens'",
        "[fewshot]\nn = 1\n[ask.generate]\nprompt = '{{ q }}'\ngold = '{{ a }}'\nlimit = 7\ntemperature = 0.8\n\
         samples = 2\n",
    ),
    (
        "dialogue",
        "'same_tokens', 'full_ppl'",
        "[ask.dialogue]\nturns = '{{ [q, a] }}'\nlimit = 5\ntemperature = 0.8\n\
         template = '{% for m in messages %}{{ m.content }} {% endfor %}'\n",
    ),
];

fn file(metrics: &str, rest: &str) -> String {
    format!("{}{rest}", ITEMS.replace("metrics = []", &format!("metrics = [{metrics}]")))
}

/// Asks about some items, in this order.
fn ask(lm: &mut Engine, full: &mut Engine, task: &Task, items: &Items, which: &[usize]) -> Outcomes {
    match &task.ask {
        Ask::Choice(c) => {
            let all = requests::questions(task, items, None).unwrap();
            let some: Vec<_> = which.iter().map(|&i| all[i].clone()).collect();
            choice::run(lm, &some, c.profile).unwrap()
        }
        Ask::Cloze(c) => {
            let all = requests::blanks(task, items, None).unwrap();
            let some: Vec<_> = which.iter().map(|&i| all[i].clone()).collect();
            cloze::run(lm, &some, c.profile).unwrap()
        }
        Ask::Perplexity(p) => {
            let all = requests::texts(task, items, &p.text).unwrap();
            let some: Vec<_> = which.iter().map(|&i| all[i].clone()).collect();
            perplexity::rolling(lm, &some, p.window, p.profile).unwrap()
        }
        Ask::Generate(g) => {
            let all = requests::openings(task, items, None).unwrap();
            let some: Vec<_> = which.iter().map(|&i| all[i].clone()).collect();
            generate::run(lm, Some(full), &some, g, 3).unwrap()
        }
        Ask::Dialogue(d) => {
            let all = requests::talks(task, d, items, None).unwrap();
            let some: Vec<_> = which.iter().map(|&i| all[i].clone()).collect();
            dialogue::run(lm, Some(full), &some, d, 3).unwrap()
        }
        Ask::Divergence(_) => unreachable!(),
    }
}

#[test]
fn items_do_not_see_each_other() {
    let desk = Desk::new();
    let opened = load::open(&desk.arg("m"), Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let words = Words::of(&opened);
    let recipe = Recipe::parse("w4a8kv4").unwrap();
    let quantized = apply(&recipe, &full, opened.stored_bits(), &[]).unwrap();
    for (kind, metrics, rest) in KINDS {
        let task = Task::parse(kind, &file(metrics, rest)).unwrap();
        let no_hub = || anyhow::bail!("no hub here");
        let place = data::Place::Folder("".into());
        let items = data::load(kind, &task, &place, &data::Instead::default(), &no_hub).unwrap();
        let engines = |pack: usize| {
            (
                Engine::new(&quantized.decoder, words).with_pack(pack),
                Engine::new(&full, words).with_pack(pack),
            )
        };
        let all: Vec<usize> = (0..items.rows.len()).collect();
        let run = |which: &[usize], pack: usize| {
            let (mut lm, mut full) = engines(pack);
            ask(&mut lm, &mut full, &task, &items, which)
        };
        let together = run(&all, 4096);
        let text = |o: &Outcomes| serde_json::to_string(o).unwrap();
        assert_eq!(text(&together), text(&run(&all, 1)), "{kind}: one sequence a pass");
        assert_eq!(text(&together), text(&run(&all, 23)), "{kind}: a few a pass");
        let by_name: BTreeMap<_, _> = together.iter().cloned().collect();
        for &i in &all {
            assert_eq!(text(&run(&[i], 4096)), text(&vec![together[i].clone()]), "{kind}: item {i} alone");
        }
        let backwards: Vec<usize> = all.iter().rev().copied().collect();
        for (name, outcome) in run(&backwards, 4096) {
            assert_eq!(by_name[&name], outcome, "{kind}: backwards");
        }
    }
}

/// Two models, two recipes, six kinds of task: the records, items, tables and charts of 1, 2 and 7 shards are the same.
#[test]
fn shards_are_the_whole() {
    let desk = Desk::new();
    for (kind, metrics, rest) in KINDS {
        desk.write(&format!("{kind}.toml"), file(metrics, rest));
    }
    let tasks: Vec<String> = KINDS.iter().map(|(kind, ..)| format!("{kind}.toml")).collect();
    desk.study(&["m", "n"], &["w4a8"], &tasks.iter().map(String::as_str).collect::<Vec<_>>());
    let study = desk.arg("study.toml");
    let mut whole = None;
    for shards in [1, 2, 7] {
        let out = format!("out{shards}");
        for i in (1..=shards).rev() {
            let (shard, threads) = (format!("{i}/{shards}"), (1 + i % 3).to_string());
            let args = ["run", &study, "--out", &desk.arg(&out), "--shard", &shard];
            let ran = desk.bitsweep(&args).env("RAYON_NUM_THREADS", &threads).output().unwrap();
            assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
        }
        let folder = snapshot(&desk.path(&out));
        match &whole {
            None => whole = Some(folder),
            Some(whole) => assert_same(whole, &folder, &format!("{shards} shards")),
        }
    }
}

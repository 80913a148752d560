//! One walk through a model for all recipes and tasks at once: a block is read, quantized for each recipe, and every
//! recipe's hidden states are pushed through it. What is in memory is one block and what hidden states there is room for;
//! the others are in a file.
//!
//! ```text
//! ask       every evaluator once, with a model that only writes down what it is asked: sequences, so passes
//! enter     embeddings of every pass, for every recipe
//! blocks    read; for each recipe: quantize, push its passes through        (the full model is a recipe like others)
//! answer    every evaluator again, with a model that has its hidden states already and computes logits
//! ```
//! Passes, blocks and kernels are those of a model that is whole in memory: so are all bits of all scores
//! (`tests/memory.rs`). What a task asks must not depend on an answer, so generation is not for here.
use super::{
    engine::{PACK, Words, Work, check, each_pass},
    evaluate::{evaluate, needs_full},
    memory::{self, needs_whole},
    passes::{self, Passes},
    plan::Cell,
    run::{Event, Fate, Run, repeat},
};
use crate::{
    eval::{Lm, Logits, Next, Sequence, dialogue::Said},
    model::{block::Carried, decoder::Decoder, load::Opened},
    quant::{
        apply::{Maker, sizes},
        recipe::Recipe,
    },
    tensor::rows,
};
use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::Tensor;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    time::Instant,
};

/// Runs some cells of one model.
pub(super) fn run(run: &mut Run, opened: &Opened, cells: &[&Cell], budget: f64) -> Result<()> {
    memory::tighten();
    let mut lanes: Vec<Lane> = Vec::new();
    let mut left: Vec<&Cell> = Vec::new();
    let full = Recipe::full();
    for &cell in cells {
        let (recipe, task) = (&run.study.recipes[cell.recipe], &run.study.tasks[cell.task]);
        let fate = match (recipe.unfit(&opened.spec), needs_whole(task)) {
            (Some(why), _) => Ok(Fate::Unfit(why)),
            (None, Some(why)) => Err(anyhow!("`{}`: {why}", task.label)),
            (None, None) => {
                left.push(cell);
                continue;
            }
        };
        run.begin(cell);
        run.end(cell, fate, Work::default(), 0.)?;
    }
    // What each task asks; whom it asks of full precision, it asks the same.
    let mut asked: BTreeMap<usize, Result<Asked>> = BTreeMap::new();
    for cell in &left {
        let task = cell.task;
        asked.entry(task).or_insert_with(|| ask(run, opened, task));
        let recipe = &run.study.recipes[cell.recipe];
        add(&mut lanes, recipe, task);
        if needs_full(&run.study.tasks[task]) {
            add(&mut lanes, &full, task);
        }
    }
    let began = Instant::now();
    let walked = walk(run, opened, &lanes, &asked, budget);
    let blocks = began.elapsed().as_secs_f64();
    let total: usize = lanes.iter().flat_map(|l| &l.tasks).map(|t| tokens(&asked, *t)).sum();
    for cell in left {
        run.begin(cell);
        let began = Instant::now();
        let (task, items) = (&run.study.tasks[cell.task], &run.plan.items[cell.task]);
        let recipe = &run.study.recipes[cell.recipe];
        let of =
            |recipe: &Recipe| lanes.iter().position(|l| l.recipe == recipe).map(|lane| (lane, cell.task));
        let mut work = Work::default();
        let fate = (|| {
            let asked = match &asked[&cell.task] {
                Ok(asked) => asked,
                Err(e) => return Err(repeat(e)),
            };
            let walked = walked.as_ref().map_err(repeat)?;
            let replay = |recipe: &Recipe| -> Result<Replay> {
                let at = of(recipe).context("a lane for every cell")?;
                Ok(Replay { words: Words::of(opened), asked, walked, at, next: 0 })
            };
            let mut lm = replay(recipe)?;
            let mut reference = replay(if needs_full(task) { &full } else { recipe })?;
            let outcomes = evaluate(&mut lm, &mut reference, (run.study.limit, run.study.seed), task, items)
                .with_context(|| format!("`{}`", task.label))?;
            let twice = if needs_full(task) { 2 } else { 1 };
            for passes in &asked.passes {
                work.computed += twice * passes.computed;
                work.shared += twice * (passes.asked - passes.computed);
            }
            Ok(Fate::Evaluated(outcomes, sizes(recipe, &opened.spec, opened.stored_bits())?))
        })();
        let share = blocks * tokens(&asked, cell.task) as f64 / total.max(1) as f64;
        run.end(cell, fate, work, began.elapsed().as_secs_f64() + share)?;
    }
    Ok(())
}

/// A recipe on its way, and the tasks that ask it.
struct Lane<'a> {
    recipe: &'a Recipe,
    tasks: Vec<usize>,
}

fn add<'a>(lanes: &mut Vec<Lane<'a>>, recipe: &'a Recipe, task: usize) {
    match lanes.iter_mut().find(|l| l.recipe == recipe) {
        Some(lane) if lane.tasks.contains(&task) => {}
        Some(lane) => lane.tasks.push(task),
        None => lanes.push(Lane { recipe, tasks: vec![task] }),
    }
}

fn tokens(asked: &BTreeMap<usize, Result<Asked>>, task: usize) -> usize {
    asked[&task].as_ref().map_or(0, |a| a.passes.iter().map(|p| p.computed).sum())
}

/// What a task asks a model: a list of sequences each time, and the passes that they become.
struct Asked {
    sequences: Vec<Vec<Sequence>>,
    passes: Vec<Passes>,
}

fn ask(run: &Run, opened: &Opened, task: usize) -> Result<Asked> {
    let (task, items) = (&run.study.tasks[task], &run.plan.items[task]);
    let words = Words::of(opened);
    let mut lm = Listener { words, heard: Vec::new() };
    let mut reference = Listener { words, heard: Vec::new() };
    evaluate(&mut lm, &mut reference, (run.study.limit, run.study.seed), task, items)
        .with_context(|| format!("`{}`", task.label))?;
    ensure!(!needs_full(task) || lm.heard == reference.heard, "both models are asked the same");
    let share = passes::apart(&opened.spec).is_none();
    let passes = lm.heard.iter().map(|s| passes::plan(s, PACK, share)).collect();
    Ok(Asked { sequences: lm.heard, passes })
}

/// Hidden states of all lanes after the last block, and what is behind it.
struct Walked {
    /// `(lane, task)` to where each of its passes is kept.
    places: BTreeMap<(usize, usize), Vec<Vec<usize>>>,
    hidden: std::cell::RefCell<Hidden>,
    /// A decoder without blocks a lane.
    ends: Vec<Decoder>,
}

fn walk(
    run: &mut Run,
    opened: &Opened,
    lanes: &[Lane],
    asked: &BTreeMap<usize, Result<Asked>>,
    budget: f64,
) -> Result<Walked> {
    let (spec, device) = (&opened.spec, run.machine.device);
    let makers = lanes.iter().map(|l| Maker::new(l.recipe, spec)).collect::<Result<Vec<_>>>()?;
    let recipes: Vec<&Recipe> = lanes.iter().map(|l| l.recipe).collect();
    let longest = asked.values().flatten().flat_map(|a| &a.passes).flat_map(|p| &p.passes);
    let longest = longest.map(|p| p.batch.len()).max().unwrap_or(0);
    let mut hidden = Hidden::new(budget - memory::blocks(spec, &recipes, longest), spec.hidden)?;
    let mut places = BTreeMap::new();
    let full = opened.load_entrance(device)?;
    for (l, (lane, maker)) in lanes.iter().zip(&makers).enumerate() {
        let ends = maker.ends(&full)?;
        for &task in &lane.tasks {
            let Ok(asked) = &asked[&task] else { continue };
            let mut of_task = Vec::new();
            for passes in &asked.passes {
                let mut of_call = Vec::new();
                for pass in &passes.passes {
                    of_call.push(match pass.batch.is_empty() {
                        true => usize::MAX,
                        false => hidden.add(ends.enter(&pass.batch)?)?,
                    });
                }
                of_task.push(of_call);
            }
            places.insert((l, task), of_task);
        }
    }
    drop(full);
    for b in 0..spec.blocks.len() {
        (run.watch)(Event::Block { model: &opened.name, number: b + 1, of: spec.blocks.len() });
        let full = opened.load_block(b as u16, device)?;
        for (l, (lane, maker)) in lanes.iter().zip(&makers).enumerate() {
            let block = maker.block(&full)?;
            let runner = maker.ends(&opened.bare(device)?)?;
            for &task in &lane.tasks {
                let Ok(asked) = &asked[&task] else { continue };
                for (passes, places) in asked.passes.iter().zip(&places[&(l, task)]) {
                    let mut carried = Carried::default();
                    for (pass, &place) in passes.passes.iter().zip(places) {
                        if !pass.batch.is_empty() {
                            let x = hidden.take(place)?;
                            let x = runner.through(&block, &x, &pass.batch, &mut carried)?;
                            hidden.put(place, x)?;
                        }
                    }
                }
            }
        }
    }
    let full = opened.load_exit(device)?;
    let ends = makers.iter().map(|m| m.ends(&full)).collect::<Result<_>>()?;
    Ok(Walked { places, hidden: hidden.into(), ends })
}

/// Hidden states of passes, in memory as far as they fit and in a file beyond.
struct Hidden {
    room: f64,
    width: usize,
    kept: Vec<Option<Tensor>>,
    /// Where the others are: offset and rows.
    in_file: BTreeMap<usize, (u64, usize)>,
    file: Option<File>,
    end: u64,
}

impl Hidden {
    fn new(room: f64, width: usize) -> Result<Self> {
        Ok(Self { room, width, kept: Vec::new(), in_file: BTreeMap::new(), file: None, end: 0 })
    }

    /// A new place.
    fn add(&mut self, x: Tensor) -> Result<usize> {
        let place = self.kept.len();
        let (rows, width) = x.dims2()?;
        ensure!(width == self.width, "hidden states of {width}");
        let bytes = 4 * rows * width;
        self.kept.push(None);
        if bytes as f64 > self.room {
            self.in_file.insert(place, (self.end, rows));
            self.end += bytes as u64;
        } else {
            self.room -= bytes as f64;
        }
        self.put(place, x)?;
        Ok(place)
    }

    fn put(&mut self, place: usize, x: Tensor) -> Result<()> {
        let Some(&(at, _)) = self.in_file.get(&place) else {
            self.kept[place] = Some(x);
            return Ok(());
        };
        if self.file.is_none() {
            // Gone from its folder at once: nothing is left behind, however this ends.
            self.file = Some(
                tempfile::tempfile()
                    .context("a file for hidden states, in the folder for temporary files")?,
            );
        }
        let file = self.file.as_mut().context("a file")?;
        file.seek(SeekFrom::Start(at))?;
        rows::with(&x.contiguous()?, |x| {
            let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
            file.write_all(&bytes)
        })?
        .context("hidden states do not fit the disk; TMPDIR names another")
    }

    /// What is there; it may be put back.
    fn take(&mut self, place: usize) -> Result<Tensor> {
        let Some(&(at, rows)) = self.in_file.get(&place) else {
            return self.kept[place].take().context("hidden states that were kept");
        };
        let file = self.file.as_mut().context("a file")?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = vec![0u8; 4 * rows * self.width];
        file.read_exact(&mut bytes)?;
        let numbers = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Tensor::from_vec(numbers, (rows, self.width), &candle_core::Device::Cpu)?)
    }

    fn get(&mut self, place: usize) -> Result<Tensor> {
        let x = self.take(place)?;
        if !self.in_file.contains_key(&place) {
            self.put(place, x.clone())?;
        }
        Ok(x)
    }
}

/// Only writes down what it is asked.
struct Listener<'a> {
    words: Words<'a>,
    heard: Vec<Vec<Sequence>>,
}

/// Has its hidden states already.
struct Replay<'a> {
    words: Words<'a>,
    asked: &'a Asked,
    walked: &'a Walked,
    /// Lane and task.
    at: (usize, usize),
    next: usize,
}

impl Replay<'_> {
    fn answer(
        &mut self,
        sequences: &[Sequence],
        visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    ) -> Result<()> {
        check(sequences)?;
        let call = self.next;
        self.next += 1;
        ensure!(
            self.asked.sequences.get(call).is_some_and(|s| s == sequences),
            "another question than before"
        );
        let (decoder, places) = (&self.walked.ends[self.at.0], &self.walked.places[&self.at][call]);
        let mut places = places.iter();
        each_pass(decoder, &self.asked.passes[call], sequences, visit, |_| {
            let place = *places.next().context("a place for every pass")?;
            decoder.leave(self.walked.hidden.borrow_mut().get(place)?)
        })
    }
}

macro_rules! lm {
    ($name:ident, |$this:ident, $sequences:ident, $visit:ident| $score:expr) => {
        impl Lm for $name<'_> {
            fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
                self.words.encode(text, specials)
            }
            fn context(&self) -> usize {
                self.words.context()
            }
            fn vocab(&self) -> usize {
                self.words.vocab()
            }
            fn prefix(&self) -> Option<u32> {
                self.words.prefix()
            }
            fn end(&self) -> Option<u32> {
                self.words.end()
            }
            fn decode(&self, tokens: &[u32]) -> Result<String> {
                self.words.decode(tokens)
            }
            fn ends(&self) -> Result<Vec<u32>> {
                self.words.ends()
            }
            fn chat(&self, said: &[Said], template: Option<&str>) -> Result<String> {
                self.words.chat(said, template)
            }
            fn score(
                &mut self,
                $sequences: &[Sequence],
                $visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
            ) -> Result<()> {
                let $this = self;
                $score
            }
            fn generate(&mut self, _: &[Vec<u32>], _: usize, _: &mut Next) -> Result<()> {
                bail!("generation needs the whole model in memory")
            }
        }
    };
}

lm!(Listener, |this, sequences, _visit| {
    check(sequences)?;
    this.heard.push(sequences.to_vec());
    Ok(())
});
lm!(Replay, |this, sequences, visit| this.answer(sequences, visit));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_states_are_what_was_put_there() {
        let x = |rows: usize, from: f32| {
            let numbers: Vec<f32> = (0..rows * 3).map(|i| from + i as f32 / 7.).collect();
            Tensor::from_vec(numbers, (rows, 3), &candle_core::Device::Cpu).unwrap()
        };
        let numbers = |t: Tensor| t.to_vec2::<f32>().unwrap();
        // Room for the first and the third; the second and fourth go to the file.
        let mut hidden = Hidden::new(100., 3).unwrap();
        for (rows, from) in [(4, 0.), (9, 1.), (3, 2.), (5, 3.)] {
            hidden.add(x(rows, from)).unwrap();
        }
        assert_eq!(hidden.in_file.keys().copied().collect::<Vec<_>>(), [1, 3]);
        for place in [3, 1, 0, 2] {
            let t = hidden.take(place).unwrap();
            let rows = t.dims2().unwrap().0;
            hidden.put(place, x(rows, 10. + place as f32)).unwrap();
        }
        for (place, rows) in [(0, 4), (1, 9), (2, 3), (3, 5)] {
            for _ in 0..2 {
                assert_eq!(numbers(hidden.get(place).unwrap()), numbers(x(rows, 10. + place as f32)));
            }
        }
    }
}

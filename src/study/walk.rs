//! One walk through a model for all recipes and tasks at once: a block is read, quantized for each recipe, and every
//! recipe's hidden states are pushed through it. What is in memory is one block and what hidden states there is room for;
//! the others are in a file in the results folder. Cells are on disk when the walk is over, not before.
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
    passes::{self, Pass, Passes},
    plan::Cell,
    run::{Event, Fate, Run, repeat},
    system,
};
use crate::{
    eval::{Lm, Logits, Next, Sequence, dialogue::Said},
    model::{block::Carried, decoder::Decoder, load::Opened, spec::DecoderSpec},
    quant::{apply::Maker, recipe::Recipe},
    tensor::rows,
};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

/// Runs some cells of one model, which all fit it. `budget`: bytes that may be in use.
pub(super) fn run(run: &mut Run, opened: &Opened, cells: &[&Cell], budget: f64) -> Result<()> {
    let study = run.study;
    let full = Recipe::full();
    // What each task asks; whom it asks of full precision, it asks the same.
    let mut asked: BTreeMap<usize, Result<Asked>> = BTreeMap::new();
    let mut lanes: Vec<Lane> = Vec::new();
    // Passes are the same in all lanes.
    let apart = cells.iter().any(|cell| study.recipes[cell.recipe].apart());
    let share = passes::apart(&opened.spec).is_none() && !apart;
    for cell in cells {
        let task = cell.task;
        asked.entry(task).or_insert_with(|| ask(run, opened, task, share));
        add(&mut lanes, &study.recipes[cell.recipe], task);
        if needs_full(&study.tasks[task]) {
            add(&mut lanes, &full, task);
        }
    }
    let began = Instant::now();
    system::tight(true);
    let walked = walk(run, opened, &lanes, &asked, budget);
    system::tight(false);
    let blocks = began.elapsed().as_secs_f64();
    let total: usize = lanes.iter().flat_map(|l| &l.tasks).map(|t| tokens(&asked, *t)).sum();
    for &cell in cells {
        run.begin(cell);
        let began = Instant::now();
        let (task, items) = (&study.tasks[cell.task], &run.plan.items[cell.task]);
        let recipe = &study.recipes[cell.recipe];
        let mut work = Work::default();
        let mut answer = |walked: &Walked| -> Result<_> {
            let asked = asked[&cell.task].as_ref().map_err(repeat)?;
            let replay = |recipe: &Recipe| {
                walked.replay(Words::of(opened), asked, (lane_of(&lanes, recipe)?, cell.task))
            };
            let mut lm = replay(recipe)?;
            let mut reference = replay(if needs_full(task) { &full } else { recipe })?;
            let outcomes = evaluate(&mut lm, &mut reference, (study.limit, study.seed), task, items)?;
            let twice = if needs_full(task) { 2 } else { 1 };
            for passes in &asked.passes {
                work.computed += twice * passes.computed;
                work.shared += twice * (passes.asked - passes.computed);
            }
            Ok(outcomes)
        };
        let fate = (|| -> Result<Fate> {
            let walked = walked.as_ref().map_err(repeat)?;
            let lane = lane_of(&lanes, recipe)?;
            walked.makers.borrow()[lane].as_ref().map_err(repeat)?;
            let outcomes = answer(walked).with_context(|| format!("`{}`", task.label))?;
            let makers = walked.makers.borrow();
            Ok(Fate::Evaluated(outcomes, makers[lane].as_ref().map_err(repeat)?.sizes(opened.stored_bits())))
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

fn lane_of(lanes: &[Lane], recipe: &Recipe) -> Result<usize> {
    lanes.iter().position(|l| l.recipe == recipe).context("a lane for every cell")
}

fn tokens(asked: &BTreeMap<usize, Result<Asked>>, task: usize) -> usize {
    asked[&task].as_ref().map_or(0, |a| a.passes.iter().map(|p| p.computed).sum())
}

/// What a task asks a model: a list of sequences each time, and the passes that they become.
struct Asked {
    sequences: Vec<Vec<Sequence>>,
    passes: Vec<Passes>,
}

fn ask(run: &Run, opened: &Opened, task: usize, share: bool) -> Result<Asked> {
    let (task, items) = (&run.study.tasks[task], &run.plan.items[task]);
    let words = Words::of(opened);
    let mut lm = Listener { words, spec: &opened.spec, heard: Vec::new() };
    let mut reference = Listener { words, spec: &opened.spec, heard: Vec::new() };
    evaluate(&mut lm, &mut reference, (run.study.limit, run.study.seed), task, items)?;
    ensure!(!needs_full(task) || lm.heard == reference.heard, "both models are asked the same");
    let passes = lm.heard.iter().map(|s| passes::plan(s, PACK, share)).collect();
    Ok(Asked { sequences: lm.heard, passes })
}

/// Where the hidden states of a task's passes are, by what was asked together; [`NOWHERE`] for a pass without tokens.
type Places = Vec<Vec<usize>>;
const NOWHERE: usize = usize::MAX;

/// Hidden states of all lanes after the last block, and what is behind it.
struct Walked<'a> {
    /// Of a lane and task; or what went wrong with these two alone.
    places: BTreeMap<(usize, usize), Result<Places>>,
    hidden: Mutex<Hidden>,
    makers: RefCell<Vec<Result<Maker<'a>>>>,
    /// Norm and head.
    exit: Decoder,
    /// The lane that answered last, with its own norm and head: others' need not be in memory.
    last: RefCell<Option<(usize, Arc<Decoder>)>>,
}

fn walk<'a>(
    run: &mut Run,
    opened: &Opened,
    lanes: &[Lane<'a>],
    asked: &BTreeMap<usize, Result<Asked>>,
    budget: f64,
) -> Result<Walked<'a>> {
    let (spec, device) = (&opened.spec, run.machine.device);
    let new = |lane: &Lane<'a>| Maker::new(lane.recipe, spec, &run.plan.sequences(opened, lane.recipe)?);
    let mut makers: Vec<Result<Maker>> = lanes.iter().map(new).collect();
    let mut hidden = Hidden::new(budget, spec.hidden, run.store.dir());
    let mut places: BTreeMap<(usize, usize), Result<Places>> = BTreeMap::new();
    // A step of each lane and task; where one fails, the others go on.
    let mut each = |hidden: &mut Hidden,
                    lane: usize,
                    step: &mut dyn FnMut(&mut Hidden, &Asked, &Places) -> Result<()>| {
        for &task in &lanes[lane].tasks {
            let Ok(asked) = &asked[&task] else { continue };
            let mine = places.entry((lane, task)).or_insert_with(|| Ok(hidden.places(&asked.passes)));
            if let Ok(places) = mine
                && let Err(e) = step(hidden, asked, places)
            {
                hidden.forget(places);
                *mine = Err(e);
            }
        }
    };
    let full = opened.load_entrance(device)?;
    for (lane, maker) in makers.iter_mut().enumerate() {
        let ends = maker.as_mut().map_err(|e| repeat(e)).and_then(|m| {
            let ends = m.ends(&full)?;
            m.enter(&full, &ends)?;
            Ok(ends)
        });
        each(&mut hidden, lane, &mut |hidden, asked, places| {
            let ends = ends.as_ref().map_err(repeat)?;
            for (pass, place) in passes(asked, places) {
                hidden.put(place, ends.enter(&pass.batch)?)?;
            }
            Ok(())
        });
    }
    drop(full);
    // How a block is run, without parameters.
    let bare = opened.bare(device)?;
    let runners: Vec<Result<Decoder>> =
        makers.iter_mut().map(|m| m.as_mut().map_err(|e| repeat(e)).and_then(|m| m.ends(&bare))).collect();
    for b in 0..spec.blocks.len() {
        (run.watch)(Event::Block { model: &opened.name, number: b + 1, of: spec.blocks.len() });
        let full = opened.load_block(b as u16, device)?;
        for (lane, (maker, runner)) in makers.iter_mut().zip(&runners).enumerate() {
            let runner = runner.as_ref().map_err(repeat);
            let block = maker.as_mut().map_err(|e| repeat(e));
            let block = block.and_then(|m| m.block(&full, runner.as_ref().map_err(repeat)?));
            each(&mut hidden, lane, &mut |hidden, asked, places| {
                let (block, runner) = (block.as_ref().map_err(repeat)?, *runner.as_ref().map_err(repeat)?);
                for (of_call, places) in asked.passes.iter().zip(places) {
                    let mut carried = Carried::default();
                    for (pass, place) in some(of_call, places) {
                        let x = hidden.take(place)?;
                        hidden.put(place, runner.through(block, &x, &pass.batch, &mut carried)?)?;
                    }
                }
                Ok(())
            });
        }
    }
    let exit = opened.load_exit(device)?;
    Ok(Walked { places, hidden: hidden.into(), makers: makers.into(), exit, last: RefCell::default() })
}

/// Passes with tokens, and where their hidden states are.
fn some<'a>(of_call: &'a Passes, places: &'a [usize]) -> impl Iterator<Item = (&'a Pass, usize)> {
    of_call.passes.iter().zip(places.iter().copied()).filter(|(_, place)| *place != NOWHERE)
}

/// Those of all that a task asks.
fn passes<'a>(asked: &'a Asked, places: &'a Places) -> impl Iterator<Item = (&'a Pass, usize)> {
    asked.passes.iter().zip(places).flat_map(|(of_call, places)| some(of_call, places))
}

impl Walked<'_> {
    fn replay<'a>(&'a self, words: Words<'a>, asked: &'a Asked, at: (usize, usize)) -> Result<Replay<'a>> {
        let places = self.places.get(&at).context("a place for every lane")?.as_ref().map_err(repeat)?;
        let mut last = self.last.borrow_mut();
        // Another lane's must be gone before this one's is made.
        let same = last.take().filter(|(lane, _)| *lane == at.0);
        let decoder = match same {
            Some((_, decoder)) => decoder,
            None => {
                let mut makers = self.makers.borrow_mut();
                Arc::new(makers[at.0].as_mut().map_err(|e| repeat(e))?.ends(&self.exit)?)
            }
        };
        *last = Some((at.0, decoder.clone()));
        Ok(Replay { words, asked, hidden: &self.hidden, places, decoder, next: 0 })
    }
}

/// Hidden states of passes, in memory as far as they fit and in a file beyond.
struct Hidden {
    /// Bytes for those in memory.
    room: f64,
    width: usize,
    kept: Vec<Option<Tensor>>,
    /// Where the others are: offset and rows.
    in_file: BTreeMap<usize, (u64, usize)>,
    file: Option<File>,
    folder: PathBuf,
    end: u64,
}

impl Hidden {
    fn new(room: f64, width: usize, folder: &Path) -> Self {
        let (kept, in_file) = (Vec::new(), BTreeMap::new());
        Self { room, width, kept, in_file, file: None, folder: folder.to_path_buf(), end: 0 }
    }

    /// Places for passes; nothing is there yet.
    fn places(&mut self, passes: &[Passes]) -> Places {
        let of = |pass: &Pass| if pass.batch.is_empty() { NOWHERE } else { self.place(pass.batch.len()) };
        let mut of = of;
        passes.iter().map(|of_call| of_call.passes.iter().map(&mut of).collect()).collect()
    }

    fn place(&mut self, rows: usize) -> usize {
        let place = self.kept.len();
        let bytes = 4 * rows * self.width;
        self.kept.push(None);
        if bytes as f64 > self.room {
            self.in_file.insert(place, (self.end, rows));
            self.end += bytes as u64;
        } else {
            self.room -= bytes as f64;
        }
        place
    }

    fn put(&mut self, place: usize, x: Tensor) -> Result<()> {
        let (rows, width) = x.dims2()?;
        ensure!(width == self.width, "hidden states of {width}, not {}", self.width);
        let Some(&(at, wanted)) = self.in_file.get(&place) else {
            self.kept[place] = Some(x);
            return Ok(());
        };
        ensure!(rows == wanted, "hidden states of {rows} tokens, not {wanted}");
        let place = self.folder.display().to_string();
        let what = || format!("hidden states that do not fit --memory, in a file in `{place}`");
        if self.file.is_none() {
            // Gone from its folder at once: nothing is left behind, however this ends.
            self.file = Some(tempfile::tempfile_in(&self.folder).with_context(what)?);
        }
        let file = self.file.as_mut().context("a file")?;
        file.seek(SeekFrom::Start(at)).with_context(what)?;
        rows::with(&x.contiguous()?, |x| {
            let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
            file.write_all(&bytes)
        })?
        .with_context(what)
    }

    /// What is there; it may be put back.
    fn take(&mut self, place: usize) -> Result<Tensor> {
        let Some(&(at, rows)) = self.in_file.get(&place) else {
            return self.kept[place].take().context("hidden states that were kept");
        };
        let what = || "reading hidden states back";
        let file = self.file.as_mut().context("a file")?;
        file.seek(SeekFrom::Start(at)).with_context(what)?;
        let mut bytes = vec![0u8; 4 * rows * self.width];
        file.read_exact(&mut bytes).with_context(what)?;
        let numbers = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        Ok(Tensor::from_vec(numbers, (rows, self.width), &Device::Cpu)?)
    }

    fn get(&mut self, place: usize) -> Result<Tensor> {
        let x = self.take(place)?;
        if !self.in_file.contains_key(&place) {
            self.put(place, x.clone())?;
        }
        Ok(x)
    }

    /// Nobody asks for these again.
    fn forget(&mut self, places: &Places) {
        for &place in places.iter().flatten().filter(|p| **p != NOWHERE) {
            if let Some(x) = self.kept[place].take() {
                self.room += 4. * x.elem_count() as f64;
            }
        }
    }
}

/// Only writes down what it is asked.
struct Listener<'a> {
    words: Words<'a>,
    spec: &'a DecoderSpec,
    heard: Vec<Vec<Sequence>>,
}

/// Has its hidden states already.
struct Replay<'a> {
    words: Words<'a>,
    asked: &'a Asked,
    hidden: &'a Mutex<Hidden>,
    places: &'a Places,
    decoder: Arc<Decoder>,
    next: usize,
}

impl Replay<'_> {
    fn answer(
        &mut self,
        sequences: &[Sequence],
        visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    ) -> Result<()> {
        let call = self.next;
        self.next += 1;
        ensure!(
            self.asked.sequences.get(call).is_some_and(|s| s == sequences),
            "another question than before"
        );
        let (decoder, passes) = (&*self.decoder, &self.asked.passes[call]);
        let mut places = some(passes, &self.places[call]);
        each_pass(decoder, passes, sequences, visit, |_| {
            let (_, place) = places.next().context("a place for every pass")?;
            decoder.leave(self.hidden.lock().unwrap_or_else(PoisonError::into_inner).get(place)?)
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
    check(sequences, this.spec)?;
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
        let folder = tempfile::tempdir().unwrap();
        let mut hidden = Hidden::new(100., 3, folder.path());
        for (rows, from) in [(4, 0.), (9, 1.), (3, 2.), (5, 3.)] {
            let place = hidden.place(rows);
            hidden.put(place, x(rows, from)).unwrap();
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
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "nothing is left behind");
        assert!(hidden.put(1, x(2, 0.)).unwrap_err().to_string().contains("2 tokens, not 9"));
        let mut nowhere = Hidden::new(0., 3, &folder.path().join("gone"));
        let place = nowhere.place(1);
        let e = format!("{:#}", nowhere.put(place, x(1, 0.)).unwrap_err());
        assert!(e.contains("gone") && e.contains("--memory"), "{e}");
    }
}

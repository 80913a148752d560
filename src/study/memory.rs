//! What a study needs at once, and so whether models are whole in memory or come block by block.
//!
//! The sums below are of bytes that tensors take, in f32 unless said: weights laid out, the quantized copy beside the full
//! one, what a pass holds between operations, logits. They are predictions; the run says what the system measured.
use super::{
    engine::{Counter, PACK, Words},
    evaluate::{evaluate, needs_full, writes},
    generate::{AT_ONCE, pasts},
    system::available,
};
use crate::{
    eval::divergence,
    model::{
        families::Family,
        load::{Opened, transient},
        ops::Precision,
        site::{Role, Site},
        spec::{DecoderSpec, Ffn, Mixer},
    },
    quant::{
        apply::{integers, rounded_sites, stage},
        recipe::Recipe,
    },
    suite::{Ask, data::Items, find::Found},
};
use anyhow::{Context, Result};

/// The program and its threads: measured with the built-in model.
const PROGRAM: f64 = 60e6;
/// A tokenizer, a token of its vocabulary: measured with LLaMA's 32,000.
const A_TOKEN: f64 = 700.;
/// What whole models take with the gaps that loading and rounding leave between them: measured with 1.1 billion parameters.
const GAPS: f64 = 1.1;
/// One block of logits, and what a head's products copy of its input.
const LOGITS: f64 = 4. * 2. * (4 << 20) as f64;

/// How a cell is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The model in memory, and the recipe's beside it.
    Whole,
    /// Block by block, all recipes side by side.
    Blocks,
    /// Not at all, and why.
    Nohow(&'static str),
}

/// How a model's cells are run, and what that takes, in bytes.
pub struct Prospect {
    /// A cell after another.
    pub ways: Vec<Way>,
    /// What may be in use at once; `None`: nobody knows, or nobody asks.
    pub memory: Option<f64>,
    /// What is in use at most.
    pub most: f64,
    /// Hidden states in a file.
    pub file: f64,
}

/// What a task asks of a model, whatever the recipe.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Tokens through the blocks.
    tokens: usize,
    /// Tokens of the longest pass.
    pass: usize,
    /// Keys of the pass that reads most, with those carried over to it.
    keys: usize,
    /// Bytes of attention's tiles, in f32 and in half precision.
    tiles: [usize; 2],
    /// Bytes that answers under way remember, without a map before keys and values and with one.
    pasts: [usize; 2],
    /// Tokens of all sequences, as they are asked.
    written: usize,
    /// Numbers of logits that wait for another model's.
    waiting: usize,
    /// Full precision is asked the same.
    twice: bool,
    /// What it reads depends on what it wrote.
    writes: bool,
}

/// What a cell would cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Tokens through the blocks, both models' where two run.
    pub tokens: f64,
    /// Two for each parameter of a linear that a token goes through.
    pub flops: f64,
    /// Bytes at once where the models are whole: both models' parameters, one pass's values, what answers remember.
    pub bytes: f64,
}

/// A cell whose way is to be found.
#[derive(Clone, Copy)]
pub struct Pending<'a> {
    /// Its recipe.
    pub recipe: &'a Recipe,
    /// Its task's number, so that what two recipes ask of full precision is counted once.
    pub task: usize,
    /// See [`ask`].
    pub asked: Asked,
}

/// Counts a task's work without doing it; what would be an error then is one now.
pub fn ask(
    opened: &Opened,
    task: &Found,
    items: &Items,
    (limit, seed): (Option<usize>, u64),
) -> Result<Asked> {
    let (words, spec) = (Words::of(opened), &opened.spec);
    let (mut lm, mut reference) = (Counter::new(words), Counter::new(words));
    evaluate(&mut lm, &mut reference, (limit, seed), task, items)
        .with_context(|| format!("`{}`", task.label))?;
    let waiting = match &task.task.ask {
        Ask::Divergence(_) => divergence::WAITING.max(lm.longest * spec.vocab),
        _ => 0,
    };
    Ok(Asked {
        tokens: lm.tokens,
        pass: lm.pass,
        keys: lm.keys,
        tiles: lm.tiles,
        pasts: [false, true].map(|mapped| pasts(spec, mapped, &lm.held)),
        written: lm.written,
        waiting: waiting.min(lm.tokens * spec.vocab),
        twice: needs_full(task),
        writes: writes(task),
    })
}

/// What it costs with a recipe, the model whole.
pub fn load(opened: &Opened, recipe: &Recipe, asked: &Asked) -> Load {
    let own = if recipe.apart() { asked.written.max(asked.tokens) } else { asked.tokens };
    let tokens = (own + if asked.twice { asked.tokens } else { 0 }) as f64;
    let past = asked.pasts[usize::from(recipe.kv.is_some())] as f64;
    Load {
        tokens,
        flops: tokens * opened.spec.flops_a_token(),
        bytes: whole_of(opened.family, &opened.spec, recipe, asked) + past + 4. * asked.written as f64,
    }
}

/// A pass as long as most are.
const USUAL: Asked = Asked {
    tokens: PACK,
    pass: PACK,
    keys: PACK,
    tiles: [0, 0],
    pasts: [0, 0],
    written: 0,
    waiting: 0,
    twice: false,
    writes: false,
};

/// Bytes at once where the full model and the quantized one are in memory, and a pass of the usual length runs.
pub fn whole(family: &dyn Family, spec: &DecoderSpec, recipe: &Recipe) -> f64 {
    whole_of(family, spec, recipe, &USUAL)
}

/// The same with the passes of a task.
fn whole_of(family: &dyn Family, spec: &DecoderSpec, recipe: &Recipe, asked: &Asked) -> f64 {
    let full = 4. * spec.count() as f64;
    let mut ends = if recipe.precision == Precision::F32 { 0. } else { embedding(spec) };
    if recipe.prepare.iter().any(|p| p.transform().turns()) {
        // The embedding and the head, turned.
        ends = 2. * embedding(spec);
    }
    let (quantized, largest) = (quantized(spec, recipe, &spec.sites()), transient(family, spec, None) as f64);
    let (streams, seen) = calibration(spec, recipe);
    let running = values(spec, recipe, asked) + LOGITS;
    // While a recipe is made, nothing else runs.
    program(spec) + GAPS * (full + quantized + ends) + largest + running.max(streams + seen)
}

/// What calibration keeps: hidden states of its text from the first block to the last; and, while a block is worked on, what
/// its linears saw and what is made of that.
fn calibration(spec: &DecoderSpec, recipe: &Recipe) -> (f64, f64) {
    let streams = recipe.streams().len();
    if streams == 0 {
        return (0., 0.);
    }
    let tokens = (recipe.calibrate.count() * recipe.calibrate.tokens(spec.context)) as f64;
    let needs = recipe.needs();
    let of_block = |b: u16| {
        let mut widths: Vec<(u8, usize)> = Vec::new();
        for site in spec.sites().into_iter().filter(|s| s.block == Some(b)) {
            // Linears of one stage and width have one input.
            let own = (stage(site.role), spec.linear_shape(site).1);
            if !widths.contains(&own) || matches!(site.role, Role::Down) {
                widths.push(own);
            }
        }
        let square = |w: &(u8, usize)| (w.1 * w.1) as f64;
        let mut bytes = 0.;
        if needs.hessian {
            // In f32; the largest once more, in f64, as a factor and as its inverse.
            let most = widths.iter().map(square).fold(0., f64::max);
            bytes += 4. * widths.iter().map(square).sum::<f64>() + 28. * most;
        }
        if needs.inputs {
            // And what a branch makes of them, as it is and as it would be.
            let all: usize = widths.iter().map(|w| w.1).sum();
            bytes += 4. * tokens * (all + 2 * spec.hidden) as f64;
        }
        bytes
    };
    let mut seen = (0..spec.blocks.len() as u16).map(of_block).fold(0., f64::max);
    if recipe.budget.is_some() {
        // The model once more, as it is before it is rounded; a text's hidden states before each block.
        let text = recipe.calibrate.tokens(spec.context) * spec.hidden * (spec.blocks.len() + 1);
        seen = seen.max(4. * (spec.count() as f64 + text as f64));
    }
    if needs.gradients {
        // Weights, their gradients and what is summed of these; and a text's graph, some thirty tensors of it a block.
        let graph = 30 * spec.blocks.len() * recipe.calibrate.tokens(spec.context) * spec.hidden;
        seen = seen.max(4. * (4. * spec.count() as f64 + graph as f64));
    }
    (4. * tokens * (spec.hidden * streams) as f64, seen)
}

fn program(spec: &DecoderSpec) -> f64 {
    PROGRAM + A_TOKEN * spec.vocab as f64
}

fn embedding(spec: &DecoderSpec) -> f64 {
    4. * (spec.vocab * spec.embed.project.unwrap_or(spec.hidden)) as f64
}

/// Bytes of the quantized copy of these linears.
fn quantized(spec: &DecoderSpec, recipe: &Recipe, sites: &[Site]) -> f64 {
    let (rounded, integers) = (rounded_sites(recipe, spec), integers(recipe));
    let rewritten = recipe.precision != Precision::F32 || !recipe.prepare.is_empty();
    let copies = |s: &&Site| rewritten || rounded.contains(s);
    let bytes = |s: &Site| {
        let shape = spec.linear_shape(*s);
        let codes = integers.then(|| recipe.weights_at(*s, spec)?.code_bytes(shape)).flatten();
        codes.unwrap_or(4 * shape.0 * shape.1) as f64
    };
    sites.iter().filter(copies).map(bytes).sum()
}

/// What a pass holds between operations: the stream, a branch, the widest part of a block; tiles; logits that wait.
fn values(spec: &DecoderSpec, recipe: &Recipe, asked: &Asked) -> f64 {
    let maps = if recipe.kv.is_some() { 2 } else { 1 };
    // One tile of all keys, where probabilities are rounded.
    let whole =
        recipe.precision != Precision::F32 || recipe.kv.as_ref().is_some_and(|kv| kv.probabilities.is_some());
    let widest = spec.blocks.iter().map(|b| {
        let mixer = match &b.mixer {
            Mixer::Attention(a) => {
                // Keys and values as they are computed, once more where some are carried over, and as a map gives them.
                let carried = if asked.keys > asked.pass { asked.keys } else { 0 };
                3 * a.heads * a.head_dim * asked.pass + 2 * maps * a.kv_width() * (asked.pass + carried)
            }
            Mixer::Ssm(s) => (10 * s.inner + s.channels()) * asked.pass,
        };
        let ffn = match b.ffn {
            Ffn::None => 0,
            Ffn::Plain { inner, .. } => 2 * inner,
            Ffn::Gated { inner, .. } => 3 * inner,
            Ffn::Experts { inner, top, .. } => 3 * inner * top,
        };
        let tiles = match &b.mixer {
            // Without a pass to look at: as many keys as tokens.
            Mixer::Attention(a) if asked.tiles == [0, 0] => 2 * a.kv_width() * asked.pass,
            _ => asked.tiles[usize::from(whole)] / 4,
        };
        (mixer + maps * tiles).max(ffn * asked.pass)
    });
    let widest = widest.max().unwrap_or(0);
    // Logits of the sequences that are on their way, once more as the evaluator sees them.
    let logits = if asked.writes { 2 * AT_ONCE * spec.vocab } else { 0 };
    4. * (4 * spec.hidden * asked.pass + widest + asked.waiting + logits) as f64
}

/// What running these cells block by block takes, but for hidden states.
pub fn blocks(family: &dyn Family, spec: &DecoderSpec, cells: &[Pending]) -> f64 {
    let most = |f: &dyn Fn(&Pending) -> f64| cells.iter().map(f).fold(0., f64::max);
    let mut block: f64 = 0.;
    for b in 0..spec.blocks.len() as u16 {
        let sites: Vec<Site> = spec.sites().into_iter().filter(|s| s.block == Some(b)).collect();
        let full: usize = sites.iter().map(|s| spec.linear_shape(*s)).map(|(out, inner)| out * inner).sum();
        let own = most(&|c| quantized(spec, c.recipe, &sites));
        // Reading a matrix, or rounding one while a pass of the last recipe has left nothing.
        let copy = transient(family, spec, Some(b)) as f64;
        let running = most(&|c| values(spec, c.recipe, &Asked { waiting: 0, ..c.asked }));
        block = block.max(4. * full as f64 + own + copy.max(running));
    }
    // At the ends, the embedding or the head: while it is laid out, or beside one lane's own.
    let own = |c: &Pending| {
        let rounds = rounded_sites(c.recipe, spec).iter().any(|s| s.block.is_none());
        let turned = c.recipe.prepare.iter().any(|p| p.transform().turns());
        rounds || turned || c.recipe.precision != Precision::F32
    };
    let ends = embedding(spec) * if cells.iter().any(own) { 4. } else { 2. };
    let stream = most(&|c| 4. * (2 * c.asked.pass * spec.hidden + c.asked.waiting) as f64);
    // What every task asks, as long as the walk takes; and once more as one is asked again.
    let mut written: Vec<(usize, usize)> = cells.iter().map(|c| (c.task, c.asked.written)).collect();
    written.sort_unstable();
    written.dedup();
    let again = written.iter().map(|w| w.1).max().unwrap_or(0);
    let written = 4 * (written.iter().map(|w| w.1).sum::<usize>() + again);
    // Every recipe's text is on its way beside the others'.
    let mut recipes: Vec<&Recipe> = Vec::new();
    cells.iter().for_each(|c| {
        if !recipes.contains(&c.recipe) {
            recipes.push(c.recipe)
        }
    });
    let calibrated: Vec<(f64, f64)> = recipes.iter().map(|r| calibration(spec, r)).collect();
    let streams: f64 = calibrated.iter().map(|c| c.0).sum();
    let seen = calibrated.iter().map(|c| c.1).fold(0., f64::max);
    program(spec) + written as f64 + streams + (block + seen).max(ends + LOGITS + stream)
}

/// Whether there is so much memory that nothing needs to be counted.
pub(super) fn plenty(opened: &Opened, recipes: &[&Recipe]) -> bool {
    let needs = recipes.iter().map(|r| whole(opened.family, &opened.spec, r)).fold(0., f64::max);
    available().is_none_or(|memory| 4. * needs <= memory as f64)
}

/// How a model's cells are run. `memory`: bytes that may be in use, where somebody said so.
///
/// What writes needs a whole model, and so does what is tried with a model again and again. Who has not said how much memory there
/// is, is not refused on a guess.
pub fn predict(opened: &Opened, cells: &[Pending], memory: Option<u64>, cpu: bool) -> Prospect {
    let (spec, said) = (&opened.spec, memory.is_some());
    let needs: Vec<f64> = cells.iter().map(|c| load(opened, c.recipe, &c.asked).bytes).collect();
    // Only a CPU's memory is asked here.
    let memory = memory.or_else(available).filter(|_| cpu).map(|m| m as f64);
    let most = |needs: &mut dyn Iterator<Item = f64>| needs.fold(0., f64::max);
    let all = most(&mut needs.iter().copied());
    let recipes: Vec<&Recipe> = cells.iter().map(|c| c.recipe).collect();
    // A run does not count where there is plenty, and goes the same way.
    let plenty = !said && plenty(opened, &recipes);
    let Some(limit) = memory.filter(|m| all > *m && !plenty) else {
        let ways = vec![Way::Whole; cells.len()];
        return Prospect { ways, memory, most: all, file: 0. };
    };
    let bound = |cell: &Pending| match cell.asked.writes {
        true => Some(
            "what it reads next depends on what it wrote, so the whole model must be in memory: give it more (--memory)",
        ),
        false => cell.recipe.whole(),
    };
    let rest = most(&mut cells.iter().zip(&needs).filter(|(c, _)| bound(c).is_none()).map(|(_, n)| *n));
    let way = |(cell, &needs): (&Pending, &f64)| match bound(cell) {
        None if rest <= limit => Way::Whole,
        None => Way::Blocks,
        Some(_) if needs <= limit || !said => Way::Whole,
        Some(why) => Way::Nohow(why),
    };
    let ways: Vec<Way> = cells.iter().zip(&needs).map(way).collect();
    let of = |way: Way| move |w: &&(Way, usize)| w.0 == way;
    let numbered: Vec<(Way, usize)> = ways.iter().copied().zip(0..).collect();
    let whole = most(&mut numbered.iter().filter(of(Way::Whole)).map(|&(_, i)| needs[i]));
    let walked: Vec<Pending> = numbered.iter().filter(of(Way::Blocks)).map(|&(_, i)| cells[i]).collect();
    if walked.is_empty() {
        return Prospect { ways, memory, most: whole, file: 0. };
    }
    let fixed = blocks(opened.family, spec, &walked);
    let hidden = hidden(spec, &walked);
    let kept = hidden.min((limit - fixed).max(0.));
    Prospect { ways, memory, most: whole.max(fixed + kept), file: hidden - kept }
}

/// Bytes of all hidden states: a recipe's for each task, and full precision's where a task asks it too.
fn hidden(spec: &DecoderSpec, cells: &[Pending]) -> f64 {
    let full = Recipe::full();
    let mut lanes: Vec<(&Recipe, usize)> = Vec::new();
    let mut tokens = 0;
    for cell in cells {
        for recipe in std::iter::once(cell.recipe).chain(cell.asked.twice.then_some(&full)) {
            if !lanes.contains(&(recipe, cell.task)) {
                lanes.push((recipe, cell.task));
                tokens += cell.asked.tokens;
            }
        }
    }
    4. * (tokens * spec.hidden) as f64
}

//! What a study needs at once, and so whether models are whole in memory or come block by block.
//!
//! The sums below are of bytes that tensors take, in f32 unless said: weights laid out, the quantized copy beside the full
//! one, what a pass holds between operations, logits. They are predictions; the run says what the system measured.
use super::{
    config::Study,
    engine::{Counter, PACK, Words},
    evaluate::{evaluate, needs_full, writes},
    generate::pasts,
    plan::{Cell, Plan},
    run::Machine,
};
use crate::{
    mistake,
    model::{
        load::Opened,
        site::Site,
        spec::{DecoderSpec, Ffn, Mixer},
    },
    quant::{apply::quantized_weights, recipe::Recipe},
    suite::{data::Items, find::Found},
};
use anyhow::{Context, Result};
use std::{collections::BTreeSet, sync::OnceLock};

/// The program, its threads, a tokenizer: measured with the built-in model.
const PROGRAM: f64 = 40e6;
/// One block of logits, and what a head's products copy of its input.
const LOGITS: f64 = 4. * 2. * (4 << 20) as f64;

/// How a model is run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// All of it in memory, and each recipe's beside it.
    Whole,
    /// Block by block, all recipes side by side.
    Blocks {
        /// Bytes that may be in use.
        memory: f64,
    },
}

/// `4G`, `700M`, `1.5GiB`: bytes, in powers of 1000, or of 1024 with an `i`.
pub fn parse(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (number, binary) = match lower.strip_suffix('i') {
        Some(rest) => (rest, true),
        None => (lower, false),
    };
    let (number, power) = match number.chars().last() {
        Some(unit @ ('k' | 'm' | 'g' | 't')) => {
            (&number[..number.len() - 1], "kmgt".find(unit).unwrap_or(0) as i32 + 1)
        }
        _ => (number, 0),
    };
    let unit = if binary { 1024f64 } else { 1000. }.powi(power);
    match number.trim().parse::<f64>() {
        Ok(n) if n > 0. && n.is_finite() && (power > 0 || !binary) => Ok((n * unit) as u64),
        _ => mistake!("--memory `{text}`: it is a size, such as 4G, 700M or 16GiB"),
    }
}

/// Bytes that the system has to give: what is free, and no more than a limit that this process stands under. `None` where
/// it does not tell.
pub fn available() -> Option<u64> {
    let of = |path: &str| std::fs::read_to_string(path).ok();
    let info = of("/proc/meminfo")?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let free = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024;
    // A control group's limit, of this process's group or of any around it.
    let group = of("/proc/self/cgroup")
        .and_then(|t| Some(t.lines().find_map(|l| l.strip_prefix("0::"))?.to_string()));
    let mut least = free;
    let mut path = std::path::PathBuf::from(format!("/sys/fs/cgroup{}", group.unwrap_or_default()));
    while path.starts_with("/sys/fs/cgroup") {
        let limit = std::fs::read_to_string(path.join("memory.max")).ok();
        least = least.min(limit.and_then(|l| l.trim().parse().ok()).unwrap_or(u64::MAX));
        if !path.pop() {
            break;
        }
    }
    Some(least)
}

static TIGHT: OnceLock<fn()> = OnceLock::new();

/// What to do before a model is run block by block: the library does not know the allocator, and the program does.
pub fn when_tight(f: fn()) {
    TIGHT.get_or_init(|| f);
}

/// The most that this process has had in memory so far, as the system counts it; `None` where it does not.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What a cell would cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Tokens through the blocks, both models' where two run.
    pub tokens: f64,
    /// Two for each parameter of a linear that a token goes through.
    pub flops: f64,
    /// Both models' parameters, one pass's values, and what answers under way remember.
    pub bytes: f64,
    /// Tokens of the longest pass.
    pub pass: usize,
    /// Bytes of hidden states that are kept where the model comes block by block.
    pub hidden: f64,
}

/// Counts a cell's work without doing it; what would be an error then is one now.
pub fn count(
    opened: &Opened,
    recipe: &Recipe,
    task: &Found,
    items: &Items,
    limit: Option<usize>,
) -> Result<Load> {
    let words = Words::of(opened);
    let (mut lm, mut reference) = (Counter::new(words), Counter::new(words));
    evaluate(&mut lm, &mut reference, (limit, 0), task, items)
        .with_context(|| format!("`{}`", task.label))?;
    let twice = if needs_full(task) { 2. } else { 1. };
    let tokens = lm.tokens as f64 * twice;
    let spec = &opened.spec;
    let pass = PACK.min(lm.tokens).max(lm.longest);
    Ok(Load {
        tokens,
        flops: tokens * spec.flops_a_token(),
        bytes: whole(spec, recipe, pass) + pasts(spec, recipe.kv.is_some(), &lm.held) as f64,
        pass,
        hidden: 4. * tokens * spec.hidden as f64,
    })
}

/// Bytes at once where the full model and the quantized one are in memory, and a pass of this many tokens runs.
pub fn whole(spec: &DecoderSpec, recipe: &Recipe, pass: usize) -> f64 {
    let full = 4. * spec.count() as f64;
    PROGRAM + full + quantized(spec, recipe, &spec.sites()) + values(spec, pass) + LOGITS + largest(spec)
}

/// Bytes of the quantized copy of these linears.
fn quantized(spec: &DecoderSpec, recipe: &Recipe, sites: &[Site]) -> f64 {
    let size = |s: &Site| {
        let (out, inner) = spec.linear_shape(*s);
        (out * inner) as f64
    };
    if recipe.precision.name() != "f32" {
        return 4. * sites.iter().map(size).sum::<f64>();
    }
    let Some(skip) = quantized_weights(recipe, spec) else { return 0. };
    // Integers with their scales, or f32.
    let each = if recipe.acts.is_some() { 1.1 } else { 4. };
    each * sites.iter().filter(|s| !skip.contains(s)).map(size).sum::<f64>()
}

/// Of the largest matrix, the copy from which it is laid out.
fn largest(spec: &DecoderSpec) -> f64 {
    let embed = (spec.vocab * spec.embed.project.unwrap_or(spec.hidden)) as f64;
    let size = |s: Site| {
        let (out, inner) = spec.linear_shape(s);
        (out * inner) as f64
    };
    4. * spec.sites().into_iter().map(size).fold(embed, f64::max)
}

/// What a pass holds between operations: the stream, a branch, and the widest part of a block.
fn values(spec: &DecoderSpec, pass: usize) -> f64 {
    let widest = spec.blocks.iter().map(|b| {
        let mixer = match &b.mixer {
            Mixer::Attention(a) => 3 * a.heads * a.head_dim + 4 * a.kv_width(),
            Mixer::Ssm(s) => 6 * s.inner,
        };
        let ffn = match b.ffn {
            Ffn::None => 0,
            Ffn::Plain { inner, .. } => 2 * inner,
            Ffn::Gated { inner, .. } => 3 * inner,
            Ffn::Experts { inner, top, .. } => 3 * inner * top,
        };
        mixer.max(ffn)
    });
    4. * pass as f64 * (4 * spec.hidden + widest.max().unwrap_or(0)) as f64
}

/// What running block by block takes, but for hidden states.
pub fn blocks(spec: &DecoderSpec, recipes: &[&Recipe], pass: usize) -> f64 {
    let mut most: f64 = 0.;
    for b in 0..spec.blocks.len() {
        let sites: Vec<Site> = spec.sites().into_iter().filter(|s| s.block == Some(b as u16)).collect();
        let size = |s: &Site| {
            let (out, inner) = spec.linear_shape(*s);
            (out * inner) as f64
        };
        let full = 4. * sites.iter().map(size).sum::<f64>();
        let copy = 8. * sites.iter().map(size).fold(0., f64::max);
        let own = recipes.iter().map(|r| quantized(spec, r, &sites)).fold(0., f64::max);
        most = most.max(full + own + copy + values(spec, pass));
    }
    // At the ends, the embedding or the head, once more while it is laid out.
    let ends = 2. * 4. * (spec.vocab * spec.embed.project.unwrap_or(spec.hidden)) as f64 + LOGITS;
    PROGRAM + most.max(ends + 4. * (pass * spec.hidden) as f64)
}

/// How a model's cells would be run and the most that takes at once, in bytes; then what hidden states would take in a file.
pub fn predict(spec: &DecoderSpec, cells: &[(&Recipe, Load)], memory: Option<u64>) -> (Way, f64, f64) {
    let most = cells.iter().map(|c| c.1.bytes).fold(0., f64::max);
    let needs = cells.iter().map(|c| whole(spec, c.0, PACK)).fold(0., f64::max);
    match memory.or_else(available).map(|m| m as f64) {
        Some(memory) if needs > memory => {
            let recipes: Vec<&Recipe> = cells.iter().map(|c| c.0).collect();
            let pass = cells.iter().map(|c| c.1.pass).max().unwrap_or(0);
            let hidden: f64 = cells.iter().map(|c| c.1.hidden).sum();
            let fixed = blocks(spec, &recipes, pass);
            let kept = hidden.min((memory - fixed).max(0.));
            (Way::Blocks { memory }, fixed + kept, hidden - kept)
        }
        _ => (Way::Whole, most, 0.),
    }
}

/// How this model's cells are run.
pub(super) fn choose(study: &Study, plan: &Plan, cells: &[&Cell], machine: &Machine) -> Way {
    let Some(memory) = machine.memory.or_else(available).map(|m| m as f64) else { return Way::Whole };
    let Some(opened) = cells.first().map(|c| &plan.models[c.model]) else { return Way::Whole };
    // Only a CPU's memory is asked here; and who has not said how much, is not slowed down on a guess.
    if !machine.device.is_cpu() {
        return Way::Whole;
    }
    let recipes: BTreeSet<usize> = cells.iter().map(|c| c.recipe).collect();
    let most = recipes.iter().map(|&r| whole(&opened.spec, &study.recipes[r], PACK)).fold(0., f64::max);
    if most <= memory { Way::Whole } else { Way::Blocks { memory } }
}

/// Before the first block.
pub(super) fn tighten() {
    TIGHT.get().copied().unwrap_or(|| ())();
}

/// Why a task cannot be run block by block, where it cannot.
pub(super) fn needs_whole(task: &Found) -> Option<&'static str> {
    writes(task).then_some(
        "what it reads next depends on what it wrote, so the whole model must be in memory: give it more (--memory)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("4G", 4_000_000_000),
            ("700M", 700_000_000),
            ("1.5GiB", 1_610_612_736),
            ("512kb", 512_000),
            ("9", 9),
        ] {
            assert_eq!(parse(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "G", "-1G", "0", "4X", "nanG", "1iB", "infG"] {
            assert!(parse(text).unwrap_err().to_string().contains("such as 4G"), "{text}");
        }
    }
}

//! Which place costs the output most: each quantized alone, and all but each.
//!
//! ```text
//! only     KL(full || full, this place as the recipe has it)              what it costs by itself
//! without  KL(full || the recipe, this place as in full precision)        what is left when it is spared
//! ```
//! Nats a token, over the texts' next tokens, with the recipe's own rounded matrices: nothing is calibrated anew, so what a method made
//! of a place in view of what stands before it stays. Both are computed from the first block on that can have changed
//! ([`Trace`]). Precision is the one or the other model's as a whole: where a recipe is in half precision, all but this is too.
use super::{
    damage::{KV, Made, alike, differ},
    place,
};
use crate::{
    mistake,
    model::{
        decoder::Decoder,
        site::{Expert, Role, Site},
        spec::DecoderSpec,
    },
    quant::{
        alone::{Group, Trace, divergence},
        recipe::EMBEDDING,
    },
    results::inspection::Sensitivity,
};
use anyhow::Result;
use candle_core::Tensor;
use std::{collections::BTreeMap, str::FromStr};

/// Floating-point operations beyond which places are blocks where nobody says what they are: some minutes of a desktop's.
const MUCH: f64 = 2e14;

/// What a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A block's linears of one role, its routed experts together; its keys and values.
    Site,
    /// A role in all blocks.
    Role,
    /// A block.
    Block,
    /// Nothing is measured.
    None,
}

impl By {
    /// As options and tables say it.
    pub fn name(self) -> &'static str {
        match self {
            By::Site => "site",
            By::Role => "role",
            By::Block => "block",
            By::None => "none",
        }
    }

    /// Sites, or blocks where sites would take long: about twice a pass through what comes after each.
    pub fn usual(spec: &DecoderSpec, tokens: usize) -> Self {
        let blocks = spec.blocks.len().max(1) as f64;
        let groups: usize = spec.blocks.iter().map(|b| b.linears().len().min(8) + 1).sum();
        let passes = groups as f64 * (blocks + 1.) / blocks;
        if passes * tokens as f64 * spec.flops_a_token() > MUCH { By::Block } else { By::Site }
    }
}

impl FromStr for By {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        match [By::Site, By::Role, By::Block, By::None].into_iter().find(|by| by.name() == word) {
            Some(by) => Ok(by),
            None => mistake!("--by `{word}`; there are: site, role, block, none"),
        }
    }
}

/// Something that one model can take over from the other.
#[derive(Clone, Copy, Debug)]
enum Part {
    Block(usize),
    Linear(usize, (Option<Expert>, Role)),
    Kv(usize),
    End(Role),
    Embedding,
}

/// A place: what it is called, and what it is.
#[derive(Default)]
struct Place {
    block: Option<u16>,
    site: String,
    parts: Vec<Part>,
}

impl Place {
    /// The first block that differs; `None` where what enters it does.
    fn from(&self, spec: &DecoderSpec) -> Option<usize> {
        let each = self.parts.iter().map(|part| match part {
            Part::Block(b) | Part::Linear(b, _) | Part::Kv(b) => Some(*b),
            Part::End(Role::ProjectIn) | Part::Embedding => None,
            Part::End(_) => Some(spec.blocks.len()),
        });
        each.min().flatten()
    }

    /// A model with these parts of another's.
    fn into(&self, model: &Decoder, from: &Decoder) -> Decoder {
        let mut mixed = model.clone();
        for part in &self.parts {
            match part {
                Part::Block(b) => mixed.blocks[*b] = from.blocks[*b].clone(),
                Part::Kv(b) => mixed.blocks[*b].kv = from.blocks[*b].kv.clone(),
                Part::Linear(b, key) => {
                    mixed.blocks[*b]
                        .linears
                        .extend(from.blocks[*b].linears.get(key).map(|l| (*key, l.clone())));
                }
                Part::End(role) => mixed.ends.extend(from.ends.get(role).map(|l| (*role, l.clone()))),
                Part::Embedding => mixed.embed = from.embed.clone(),
            }
        }
        mixed
    }
}

/// Sensitivities of a recipe over some texts: first of the whole model, then of each place that the recipe changes. `step` hears of
/// each place done, and of how many there are.
///
/// # Errors
/// Places by role where a method moved what stands between norms and linears: a linear alone means nothing then.
pub fn sensitivity(
    model: &str,
    made: &Made,
    texts: &[Vec<u32>],
    by: By,
    step: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Sensitivity>> {
    if by == By::None {
        return Ok(Vec::new());
    }
    let (full, quantized) = (&made.full, &made.quantized);
    let places = places(made, by)?;
    let (mut whole, mut losses) = (0., vec![[0f64; 2]; places.len()]);
    let count = texts.len() * places.len();
    for (t, text) in texts.iter().enumerate() {
        let (exact, rounded) = (Trace::of(full, text)?, Trace::of(quantized, text)?);
        let lost = |other: &Decoder, hidden: &Tensor| divergence((full, exact.last()), (other, hidden));
        whole += lost(quantized, rounded.last())?;
        for (p, (place, losses)) in places.iter().zip(&mut losses).enumerate() {
            let from = place.from(&full.spec);
            let only = place.into(full, quantized);
            losses[0] += lost(&only, &exact.resume(&only, from)?)?;
            let without = place.into(quantized, full);
            losses[1] += lost(&without, &rounded.resume(&without, from)?)?;
            step(t * places.len() + p + 1, count);
        }
    }
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let mean = |sum: f64| Some(sum / tokens.max(1) as f64).filter(|v| v.is_finite());
    let line = |by: &str, block, site: &str, only, without| Sensitivity {
        model: model.into(),
        recipe: made.recipe.clone(),
        by: by.into(),
        block,
        site: site.into(),
        only,
        without,
    };
    let mut all = vec![line("model", None, ALL, mean(whole), None)];
    for (place, [only, without]) in places.iter().zip(losses) {
        all.push(line(by.name(), place.block, &place.site, mean(only), mean(without)));
    }
    Ok(all)
}

/// All of a block, or of a model.
pub const ALL: &str = "all";

/// What a recipe changes, as places.
fn places(made: &Made, by: By) -> Result<Vec<Place>> {
    let (full, quantized) = (&made.full, &made.quantized);
    let mut places = Vec::new();
    let mut roles: BTreeMap<(Option<Expert>, Role), Place> = BTreeMap::new();
    let mut cached = Place { block: None, site: KV.into(), parts: Vec::new() };
    for (b, (block, other)) in full.blocks.iter().zip(&quantized.blocks).enumerate() {
        let number = Some(b as u16);
        let mut groups: BTreeMap<Group, Vec<Part>> = BTreeMap::new();
        for (key, linear) in &block.linears {
            let Some(rounded) = other.linears.get(key) else { continue };
            let changed = rounded.input.is_some()
                || !alike(linear, rounded)?
                || differ(&linear.weight.rows()?, &rounded.weight.rows()?)?;
            if let Some(group) = Group::of(linear.site).filter(|_| changed) {
                groups.entry(group).or_default().push(Part::Linear(b, *key));
            }
        }
        let apart = made.comparable(b)?;
        let touched = !groups.is_empty() || other.kv.is_some() || !apart;
        match by {
            By::None => {}
            _ if !touched => {}
            By::Role if !apart => mistake!(
                "--by role: recipe `{}` learns what moves between norms and linears, and then a linear alone means nothing: say \
                 --by block",
                made.recipe
            ),
            By::Role => {
                for (group, parts) in groups {
                    let role = roles.entry((group.expert, group.role)).or_default();
                    role.site = within(group);
                    role.parts.extend(parts);
                }
                cached.parts.extend(other.kv.as_ref().map(|_| Part::Kv(b)));
            }
            By::Site if apart => {
                let each = groups.into_iter();
                places.extend(each.map(|(group, parts)| Place { block: number, site: within(group), parts }));
                places.extend(other.kv.as_ref().map(|_| Place {
                    block: number,
                    site: KV.into(),
                    parts: vec![Part::Kv(b)],
                }));
            }
            By::Site | By::Block => {
                places.push(Place { block: number, site: ALL.into(), parts: vec![Part::Block(b)] });
            }
        }
    }
    places.extend(roles.into_values());
    places.extend((!cached.parts.is_empty()).then_some(cached));
    for (role, linear) in &full.ends {
        let Some(rounded) = quantized.ends.get(role) else { continue };
        if rounded.input.is_some() || differ(&linear.weight.rows()?, &rounded.weight.rows()?)? {
            places.push(Place { block: None, site: role.name().into(), parts: vec![Part::End(*role)] });
        }
    }
    if differ(&full.embed.rows()?, &quantized.embed.rows()?)? {
        places.push(Place { block: None, site: EMBEDDING.into(), parts: vec![Part::Embedding] });
    }
    Ok(places)
}

/// A group's name in its block.
fn within(group: Group) -> String {
    let pattern = group.pattern();
    let (_, site) = place(Site::new(group.block, group.role));
    pattern.strip_prefix(&format!("blocks.{}.", group.block)).map_or(site, String::from)
}

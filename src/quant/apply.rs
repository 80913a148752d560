//! From the full model to the quantized one, and what that says of sizes.
use super::{
    acts::Dynamic,
    grid::Int,
    kv::PerHead,
    recipe::{Recipe, USUAL_SKIP},
};
use crate::{
    mistake,
    model::{
        block::Block,
        decoder::{Decoder, Linear},
        ops::Precision,
        seam::{InputMap, KvMap},
        site::Site,
        spec::DecoderSpec,
    },
    tensor::{int8::Kernel, matmul::Weight},
};
use anyhow::Result;
use std::{collections::BTreeSet, sync::Arc};
use wildmatch::WildMatch;

/// A quantized model, and its sizes.
pub struct Quantized {
    /// Ready to run.
    pub decoder: Decoder,
    /// Its sizes.
    pub sizes: Sizes,
}

/// What a recipe makes of a model's size.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Of a weight's code; as stored where weights are untouched.
    pub weight_bits: f64,
    /// Of what enters a linear.
    pub act_bits: f64,
    /// Of a cached key or value.
    pub kv_bits: f64,
    /// Over the quantized linears, with scales and zeros.
    pub bits_per_weight: f64,
    /// The whole model, 10^6 bytes.
    pub size_mb: f64,
    /// Ragged groups and the like.
    pub notes: Vec<String>,
}

/// Makes the quantized model. `stored` is the checkpoint's bits a number.
pub fn apply(recipe: &Recipe, full: &Decoder, stored: u8) -> Result<Quantized> {
    let maker = Maker::new(recipe, &full.spec)?;
    let mut decoder = maker.ends(full)?;
    decoder.blocks = full.blocks.iter().map(|b| maker.block(b)).collect::<Result<_>>()?;
    Ok(Quantized { sizes: sizes(recipe, &full.spec, stored)?, decoder })
}

/// A recipe on its way through one model, part by part.
pub struct Maker<'a> {
    recipe: &'a Recipe,
    skip: BTreeSet<Site>,
    input: Option<Arc<dyn InputMap>>,
    kv: Option<Arc<dyn KvMap>>,
}

impl<'a> Maker<'a> {
    /// Checks what the recipe skips against the model's sites.
    pub fn new(recipe: &'a Recipe, spec: &DecoderSpec) -> Result<Self> {
        let precision = recipe.precision;
        let input = recipe.acts.as_ref().map(|acts| -> Result<Arc<dyn InputMap>> {
            Ok(Arc::new(Dynamic { format: Int::new(acts.bits, acts.symmetric)?, precision }))
        });
        let kv = recipe.kv.as_ref().map(|kv| -> Result<Arc<dyn KvMap>> {
            let format = Int::new(kv.bits, kv.symmetric)?;
            Ok(Arc::new(PerHead { settings: kv.clone(), format, precision }))
        });
        Ok(Self { recipe, skip: skipped(recipe, spec)?, input: input.transpose()?, kv: kv.transpose()? })
    }

    /// What is outside the blocks.
    pub fn ends(&self, full: &Decoder) -> Result<Decoder> {
        let mut decoder = Decoder { blocks: Vec::new(), ..full.clone() };
        if self.recipe.precision != Precision::F32 {
            decoder = decoder.in_precision(self.recipe.precision)?;
        }
        decoder.ends.values_mut().try_for_each(|linear| self.linear(linear))?;
        Ok(decoder)
    }

    /// One block.
    pub fn block(&self, full: &Block) -> Result<Block> {
        let mut block = full.clone();
        if self.recipe.precision != Precision::F32 {
            block.round(self.recipe.precision)?;
        }
        block.linears.values_mut().try_for_each(|linear| self.linear(linear))?;
        block.kv = self.kv.clone();
        Ok(block)
    }

    fn linear(&self, linear: &mut Linear) -> Result<()> {
        if self.skip.contains(&linear.site) {
            return Ok(());
        }
        if let Some(weights) = &self.recipe.weights {
            let full = linear.weight.rows()?;
            let codes = match full.device().is_cpu() && integers(self.recipe) {
                true => weights.rounder().codes(&full)?,
                false => None,
            };
            linear.weight = match codes {
                Some(codes) => Weight::Codes(Arc::new(codes)),
                None => Weight::from(weights.rounder().round(&full, self.recipe.precision)?).laid()?,
            };
        }
        linear.input = self.input.clone();
        Ok(())
    }
}

/// Whether a recipe's products are of integers on this machine's CPU: where both sides are codes, and the machine does such
/// products well. In f32 alone they mean the same.
pub fn integers(recipe: &Recipe) -> bool {
    let both = recipe.weights.is_some() && recipe.acts.is_some();
    both && recipe.precision == Precision::F32 && Kernel::best() != Kernel::PLAIN
}

/// The sites whose weights a recipe rounds; none where it is a mistake for this model.
pub fn rounded_sites(recipe: &Recipe, spec: &DecoderSpec) -> BTreeSet<Site> {
    match (&recipe.weights, skipped(recipe, spec)) {
        (Some(_), Ok(skipped)) => spec.sites().into_iter().filter(|s| !skipped.contains(s)).collect(),
        _ => BTreeSet::new(),
    }
}

/// The sites that a recipe leaves alone in this model.
fn skipped(recipe: &Recipe, spec: &DecoderSpec) -> Result<BTreeSet<Site>> {
    let sites = spec.sites();
    let mut skipped = BTreeSet::new();
    for pattern in &recipe.skip {
        let glob = WildMatch::new(pattern);
        let found: Vec<Site> = sites.iter().copied().filter(|s| glob.matches(&s.to_string())).collect();
        // These are in every recipe; a tied head is no linear of its own, and few models have routers.
        if found.is_empty() && !USUAL_SKIP.contains(&pattern.as_str()) {
            mistake!(
                "recipe `{}`: skip `{pattern}` matches nothing; sites look like: {}",
                recipe.name,
                sites.iter().take(8).map(Site::to_string).collect::<Vec<_>>().join(", ")
            );
        }
        skipped.extend(found);
    }
    Ok(skipped)
}

/// Sizes alone, without rounding anything.
pub fn sizes(recipe: &Recipe, spec: &DecoderSpec, stored: u8) -> Result<Sizes> {
    let stored = match recipe.precision {
        Precision::F32 => f64::from(stored),
        _ => 16.,
    };
    let skip = skipped(recipe, spec)?;
    let total = spec.count() as f64;
    let (mut weights, mut bits) = (0., 0.);
    let mut notes = BTreeSet::new();
    if let Some(method) = &recipe.weights {
        for site in spec.sites().into_iter().filter(|s| !skip.contains(s)) {
            let shape = spec.linear_shape(site);
            weights += (shape.0 * shape.1) as f64;
            bits += method.rounder().bits(shape);
            notes.extend(method.rounder().note(shape.1).map(|n| format!("{}: {n}", site.role.name())));
        }
    }
    let head = Site::end(crate::model::site::Role::Head).to_string();
    if recipe.weights.is_some()
        && spec.head.tied
        && !recipe.skip.iter().any(|s| WildMatch::new(s).matches(&head))
    {
        notes.insert("head: tied to the embedding, and left as that is".into());
    }
    let float = if recipe.precision == Precision::F32 { 32. } else { 16. };
    let kv_group = recipe.kv.as_ref().map(|k| k.group);
    for attention in spec.blocks.iter().filter_map(|b| b.mixer.attention()) {
        let d = attention.head_dim;
        if let Some(g) = kv_group.filter(|&g| d > g && d % g != 0) {
            notes.insert(format!("kv: ragged: heads of {d} in groups of {g}, the last of {}", d % g));
        }
    }
    Ok(Sizes {
        weight_bits: recipe.weights.as_ref().map_or(stored, |w| f64::from(w.rounder().code_bits())),
        act_bits: recipe.acts.as_ref().map_or(float, |a| f64::from(a.bits)),
        kv_bits: recipe.kv.as_ref().map_or(float, |k| f64::from(k.bits)),
        bits_per_weight: if weights > 0. { bits / weights } else { stored },
        size_mb: (bits + (total - weights) * stored) / 8e6,
        notes: notes.into_iter().collect(),
    })
}

//! From the full model to the quantized one, and what that says of sizes.
use super::{
    acts::Acts,
    calibrate::{Bench, Held, Inputs, Seen, SeenBy},
    fisher::{self, Means},
    kv::{Kv, map::Cached},
    learn::{Lesson, fit},
    prepare::Prepare,
    recipe::{EMBEDDING, Recipe, USUAL_SKIP, means},
    weight::{Given, Needs, Weights},
};
use crate::{
    mistake,
    model::{
        block::Block,
        decoder::{Decoder, Linear},
        describe::kv_bytes_a_token,
        ops::Precision,
        seam::{InputMap, KvMap},
        site::{Role, Site},
        spec::DecoderSpec,
    },
    tensor::{int8::Kernel, matmul::Weight},
};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

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
    /// That the cache takes for a token, all blocks, with scales and outliers; a state-space mixer's state is no token's.
    pub kv_bytes_per_token: f64,
    /// Over the quantized linears, with scales and zeros.
    pub bits_per_weight: f64,
    /// The whole model, 10^6 bytes.
    pub size_mb: f64,
    /// Ragged groups and the like.
    pub notes: Vec<String>,
}

/// Makes the quantized model. `stored` is the checkpoint's bits a number; `texts` what a calibrated recipe looks at.
pub fn apply(recipe: &Recipe, full: &Decoder, stored: u8, texts: &[Vec<u32>]) -> Result<Quantized> {
    if let Some(budget) = &recipe.budget {
        let (given, note) = budget.give(recipe, full, texts)?;
        let mut quantized = apply(&given, full, stored, texts)?;
        quantized.sizes.notes.push(note);
        return Ok(quantized);
    }
    let mut maker = Maker::new(recipe, &full.spec, texts)?;
    let of_kv = recipe.kv.as_ref().and_then(Kv::needs).is_some_and(|needs| needs.gradients);
    let of_weights = recipe.rounders().any(|weights| weights.needs().gradients);
    if of_kv || of_weights {
        let model = rewritten(recipe, full, texts)?;
        if of_weights {
            maker.gradients = fisher::squares(&model, texts)?;
        }
        if of_kv {
            maker.cached = fisher::cached(&model, texts)?;
        }
    }
    let mut decoder = maker.ends(full)?;
    maker.enter(full, &decoder)?;
    let blocks = full.blocks.iter().map(|b| maker.block(b, &decoder)).collect::<Result<_>>()?;
    decoder.blocks = blocks;
    Ok(Quantized { sizes: maker.sizes(stored), decoder })
}

/// The model as a recipe has it before anything is cut off or rounded, in the recipe's precision.
pub fn rewritten(recipe: &Recipe, full: &Decoder, texts: &[Vec<u32>]) -> Result<Decoder> {
    let mut maker = Maker::new(recipe, &full.spec, texts)?;
    let mut model = maker.rewritten_ends(full)?;
    maker.enter(full, &model)?;
    let blocks = full.blocks.iter().map(|b| maker.prepared(b, &model)).collect::<Result<_>>()?;
    model.blocks = blocks;
    Ok(model)
}

/// A recipe on its way through one model, part by part, blocks in order.
pub struct Maker<'a> {
    recipe: &'a Recipe,
    spec: Arc<DecoderSpec>,
    skip: BTreeSet<Site>,
    input: Option<Arc<dyn InputMap>>,
    bench: Option<Bench>,
    /// What weights mean to the model, where a method asks.
    gradients: Means,
    /// The same of keys and values, by block.
    cached: BTreeMap<u16, [Tensor; 2]>,
    /// Bits of the matrices rounded so far, where they depend on values.
    bits: BTreeMap<Site, f64>,
    notes: BTreeSet<String>,
}

/// One block under the hands of a [`Transform`](super::prepare::Transform).
pub struct At<'a> {
    /// What the model is.
    pub spec: &'a DecoderSpec,
    /// The whole recipe.
    pub recipe: &'a Recipe,
    /// How a block is run.
    pub runner: &'a Decoder,
    /// What its inputs are.
    pub bench: Option<&'a Bench>,
    /// Which of them.
    pub inputs: Inputs,
    /// Which linears the recipe does not skip.
    pub chosen: &'a dyn Fn(Site) -> bool,
    /// What rounds activations.
    pub input: Option<&'a dyn InputMap>,
}

impl At<'_> {
    /// The calibration text, for who needs one.
    pub fn bench(&self) -> Result<&Bench> {
        self.bench.context("a calibrated method without a text")
    }

    /// What the linears of a block are given.
    pub fn watch(&self, block: &Block, needs: Needs) -> Result<SeenBy> {
        self.bench()?.watch(self.runner, block, self.inputs, needs, &|_| true)
    }

    /// Where tensors are.
    pub fn device(&self) -> &Device {
        self.runner.device()
    }

    /// What rounding activations makes of a linear's input.
    pub fn entered(&self, x: &Tensor) -> Result<Tensor> {
        match self.input {
            Some(map) => Ok(map.map(x)?),
            None => Ok(x.clone()),
        }
    }

    /// What will round a linear's weight, if anything will.
    pub fn weights(&self, site: Site) -> Option<&Weights> {
        self.recipe.weights_at(site, self.spec).filter(|_| (self.chosen)(site))
    }
}

impl<'a> Maker<'a> {
    /// Checks what the recipe skips against the model's sites.
    pub fn new(recipe: &'a Recipe, spec: &DecoderSpec, texts: &[Vec<u32>]) -> Result<Self> {
        let precision = recipe.precision;
        let dynamic = recipe.acts.as_ref().filter(|acts| acts.needs().is_none());
        let input = dynamic.map(|acts| acts.map(precision, None));
        let streams = recipe.streams();
        ensure!(
            streams.is_empty() || !texts.is_empty(),
            "recipe `{}` looks at a text, and has none",
            recipe.name
        );
        let skip = skipped(recipe, spec)?;
        let mut notes = BTreeSet::new();
        if recipe.acts.as_ref().is_some_and(|acts| acts.needs().is_some()) {
            let outside = spec.sites().into_iter().filter(|s| s.block.is_none() && !skip.contains(s));
            notes.extend(
                outside.map(|s| format!("{s}: its input is exact: ranges are calibrated in blocks alone")),
            );
        }
        Ok(Self {
            recipe,
            spec: Arc::new(spec.clone()),
            skip,
            input: input.transpose()?,
            bench: (!streams.is_empty()).then(|| Bench::new(texts, &streams)),
            gradients: Means::new(),
            cached: BTreeMap::new(),
            bits: BTreeMap::new(),
            notes,
        })
    }

    /// What is outside the blocks.
    pub fn ends(&mut self, full: &Decoder) -> Result<Decoder> {
        let mut decoder = self.rewritten_ends(full)?;
        // A head that is the embedding is left as that is, also where a rewriting had to part the two.
        let sites = self.spec.sites();
        if let Some(weights) = self.recipe.weights.as_ref().filter(|_| !self.recipe.skips_embedding())
            && let Some(embed) = weights.rounder().embedding(&decoder.embed.rows()?, &self.spec)?
        {
            decoder.embed = full.embed.like(embed)?;
        }
        for linear in decoder.ends.values_mut().filter(|l| sites.contains(&l.site)) {
            let site = linear.site;
            if self.skip.contains(&site) {
                continue;
            }
            if let Some(weights) = self.recipe.weights_at(site, &self.spec) {
                // What is outside the blocks is not calibrated: a method does what it does without a text.
                let (weight, bits, note) =
                    self.rounded(linear, weights, &self.given(site, weights, &EMPTY))?;
                linear.weight = weight;
                self.bits.extend(bits.map(|b| (site, b)));
                self.notes.extend(note.map(|n| format!("{site}: {n}")));
            }
            linear.input = self.input.clone();
        }
        Ok(decoder)
    }

    /// What is outside the blocks, rewritten and not rounded.
    fn rewritten_ends(&self, full: &Decoder) -> Result<Decoder> {
        let mut decoder = Decoder { blocks: Vec::new(), ..full.clone() };
        for prepare in &self.recipe.prepare {
            prepare.transform().ends(&mut decoder)?;
        }
        match self.recipe.precision {
            Precision::F32 => Ok(decoder),
            precision => decoder.in_precision(precision),
        }
    }

    /// Before the first block; `ends` are the recipe's own of `full`, both with the embedding.
    pub fn enter(&mut self, full: &Decoder, ends: &Decoder) -> Result<()> {
        if self.bench.is_none() {
            return Ok(());
        }
        let exact = self.rewritten_ends(full)?;
        self.bench.as_mut().map_or(Ok(()), |b| b.enter(&exact, ends))
    }

    /// The next block as its rewriting leaves it before anything is cut off or rounded.
    pub fn prepared(&mut self, full: &Block, runner: &Decoder) -> Result<Block> {
        let (block, faithful) = self.rewritten(full, runner)?;
        let faithful = faithful.unwrap_or(block);
        if let Some(bench) = &mut self.bench {
            bench.advance(runner, &faithful, &faithful)?;
        }
        Ok(faithful)
    }

    /// A block made ready for rounding; and as it was before something was cut off, where something was.
    fn rewritten(&self, full: &Block, runner: &Decoder) -> Result<(Block, Option<Block>)> {
        let (mut block, mut faithful) = (full.clone(), None);
        let chosen = |site: Site| !self.skip.contains(&site);
        for prepare in &self.recipe.prepare {
            let transform = prepare.transform();
            let inputs = self.recipe.calibrate.inputs.unwrap_or(transform.inputs());
            let (spec, recipe, bench, input) =
                (&*self.spec, self.recipe, self.bench.as_ref(), self.input.as_deref());
            let at = At { spec, recipe, runner, bench, inputs, chosen: &chosen, input };
            transform.block(&mut block, &at)?;
            if transform.cuts() {
                faithful.get_or_insert_with(|| block.clone());
                transform.cut(&mut block, &at)?;
            }
        }
        if self.recipe.precision != Precision::F32 {
            block.round(self.recipe.precision)?;
        }
        Ok((block, faithful))
    }

    /// The next block. `runner` runs blocks as the recipe's decoder does.
    pub fn block(&mut self, full: &Block, runner: &Decoder) -> Result<Block> {
        let (mut block, faithful) = self.rewritten(full, runner)?;
        let faithful = faithful.unwrap_or_else(|| block.clone());
        self.round(&mut block, runner)?;
        self.learn(&mut block, &faithful, runner)?;
        let ranges = self.ranges(&block, runner)?;
        let kv = self.kv(&block, runner)?;
        if let Some(bench) = &mut self.bench {
            bench.advance(runner, &faithful, &block)?;
        }
        for linear in block.linears.values_mut().filter(|l| !self.skip.contains(&l.site)) {
            linear.input = ranges.get(&linear.site).or(self.input.as_ref()).cloned();
        }
        block.kv = kv;
        Ok(block)
    }

    /// What stands between a block's attention and its cache.
    fn kv(&self, block: &Block, runner: &Decoder) -> Result<Option<Arc<dyn KvMap>>> {
        let Some(settings) = self.recipe.kv.as_ref().filter(|_| block.spec.mixer.attention().is_some())
        else {
            return Ok(None);
        };
        let inputs = self.recipe.calibrate.inputs.unwrap_or(Inputs::Full);
        let seen = match &self.bench {
            Some(bench) if settings.needs().is_some() => bench.held(runner, block, inputs)?,
            _ => Held::default(),
        };
        let number = block.linears.values().find_map(|linear| linear.site.block);
        let means = number.and_then(|b| self.cached.get(&b));
        let map = Cached::new(settings, self.recipe.precision, &seen, means)?;
        let transforms = self.recipe.prepare.iter().map(Prepare::transform);
        Ok(Some(transforms.fold(Arc::new(map) as Arc<dyn KvMap>, |map, t| t.kv(block, map))))
    }

    /// What rounds the inputs of a block's linears, where their ranges are calibrated.
    fn ranges(&self, block: &Block, runner: &Decoder) -> Result<BTreeMap<Site, Arc<dyn InputMap>>> {
        let mut maps = BTreeMap::new();
        let (Some(acts), Some(bench)) = (&self.recipe.acts, &self.bench) else { return Ok(maps) };
        let Some(needs) = acts.needs() else { return Ok(maps) };
        let inputs = self.recipe.calibrate.inputs.unwrap_or(Inputs::Quantized);
        let seen = bench.watch(runner, block, inputs, needs, &|s| !self.skip.contains(&s))?;
        // Linears of one input share one map.
        let mut known: Vec<(*const Seen, Arc<dyn InputMap>)> = Vec::new();
        for (site, seen) in seen {
            let of = Arc::as_ptr(&seen);
            let map = match known.iter().find(|(p, _)| *p == of) {
                Some((_, map)) => map.clone(),
                None => acts.map(self.recipe.precision, Some(&*seen))?,
            };
            known.push((of, map.clone()));
            maps.insert(site, map);
        }
        Ok(maps)
    }

    fn weights(&self, site: Site) -> Option<&'a Weights> {
        self.recipe.weights_at(site, &self.spec).filter(|_| !self.skip.contains(&site))
    }

    /// Rounds a block's matrices, stage by stage where a method wants it so.
    fn round(&mut self, block: &mut Block, runner: &Decoder) -> Result<()> {
        let chosen = block.linears.iter().filter_map(|(key, l)| Some((*key, l.site, self.weights(l.site)?)));
        let chosen: Vec<_> = chosen.filter(|(.., w)| w.rounder().learner().is_none()).collect();
        let staged = chosen.iter().any(|(.., w)| w.rounder().in_stages());
        let mut stages: BTreeMap<u8, Vec<_>> = BTreeMap::new();
        for one in chosen {
            stages.entry(if staged { stage(one.0.1) } else { 0 }).or_default().push(one);
        }
        for stage in stages.into_values() {
            let mut seen = SeenBy::new();
            for which in [Inputs::Quantized, Inputs::Full] {
                let inputs = |w: &Weights| self.recipe.calibrate.inputs.unwrap_or(w.rounder().inputs());
                let looking = stage.iter().filter(|(.., w)| w.needs().any() && inputs(w) == which);
                let needs = looking.clone().fold(Needs::NOTHING, |needs, (.., w)| needs.and(w.needs()));
                let wants: BTreeSet<Site> = looking.map(|(_, site, _)| *site).collect();
                if let (Some(bench), false) = (&self.bench, wants.is_empty()) {
                    seen.extend(bench.watch(runner, block, which, needs, &|s| wants.contains(&s))?);
                }
            }
            for (key, site, weights) in stage {
                let given = self.given(site, weights, seen.get(&site).map_or(&*EMPTY, |s| s));
                let (weight, bits, note) = self.rounded(&block.linears[&key], weights, &given)?;
                self.bits.extend(bits.map(|b| (site, b)));
                self.notes.extend(note.map(|n| format!("{site}: {n}")));
                if let Some(linear) = block.linears.get_mut(&key) {
                    linear.weight = weight;
                }
            }
        }
        Ok(())
    }

    /// Learns those that a method learns; methods of several kinds one after another, all others rounded before.
    fn learn(&mut self, block: &mut Block, faithful: &Block, runner: &Decoder) -> Result<()> {
        let all: Vec<_> = (block.linears.iter())
            .filter_map(|(key, l)| Some((*key, l.site, self.weights(l.site)?)))
            .filter(|(.., w)| w.rounder().learner().is_some())
            .collect();
        let mut methods: Vec<&Weights> = Vec::new();
        for (.., weights) in &all {
            if !methods.contains(weights) {
                methods.push(weights);
            }
        }
        let acts = |site: Site| self.input.clone().filter(|_| !self.skip.contains(&site));
        for method in methods {
            let Some(learner) = method.rounder().learner() else { continue };
            let bench = self.bench.as_ref().context("a method that learns without a text")?;
            let inputs = self.recipe.calibrate.inputs.unwrap_or(Inputs::Quantized);
            let chosen: Vec<_> = all.iter().filter(|(.., w)| *w == method).copied().collect();
            let zeros: Vec<_> = match self.recipe.zeros() > 0. {
                true => chosen
                    .iter()
                    .map(|(key, ..)| block.linears[key].weight.rows())
                    .collect::<candle_core::Result<_>>()?,
                false => Vec::new(),
            };
            fit(block, learner, &chosen, &Lesson { runner, bench, inputs, faithful, acts: &acts })?;
            for ((key, ..), full) in chosen.iter().zip(zeros) {
                if let Some(linear) = block.linears.get_mut(key) {
                    let kept = full.ne(0f64)?.to_dtype(full.dtype())?;
                    linear.weight = Weight::from((linear.weight.rows()? * kept)?).laid()?;
                }
            }
        }
        Ok(())
    }

    fn given<'b>(&'b self, site: Site, weights: &'b Weights, seen: &'b Seen) -> Given<'b> {
        let (spec, grid, precision) = (&*self.spec, &weights.grid, self.recipe.precision);
        Given { site, spec, grid, seen, gradients: self.gradients.get(&site), precision }
    }

    fn rounded(
        &self,
        linear: &Linear,
        weights: &Weights,
        given: &Given,
    ) -> Result<(Weight, Option<f64>, Option<String>)> {
        let full = linear.weight.rows()?;
        let codes = match full.device().is_cpu() && integers(self.recipe) && self.recipe.zeros() == 0. {
            true => weights.codes(&full)?,
            false => None,
        };
        if let Some(codes) = codes {
            return Ok((Weight::Codes(Arc::new(codes)), None, None));
        }
        let mut rounded = weights.round(&full, given).with_context(|| format!("`{}`", given.site))?;
        if self.recipe.zeros() > 0. {
            // What was cut off stays so, whatever a method made of it.
            let kept = full.ne(0f64)?.to_dtype(full.dtype())?;
            rounded.weight = (rounded.weight * kept)?;
        }
        Ok((Weight::from(rounded.weight).laid()?, rounded.bits, rounded.note))
    }

    /// Sizes of what was made.
    pub fn sizes(&self, stored: u8) -> Sizes {
        let mut sizes = measure(self.recipe, &self.spec, stored, &self.skip, &self.bits);
        sizes.notes.extend(self.notes.iter().cloned());
        sizes
    }
}

/// A linear's turn in a block: what its input depends on comes before it.
pub fn stage(role: Role) -> u8 {
    match role {
        Role::ProjectIn => 0,
        Role::Q | Role::K | Role::V | Role::SsmIn => 1,
        Role::SsmX => 2,
        Role::SsmDt => 3,
        Role::O | Role::SsmOut => 4,
        Role::Router => 5,
        Role::Gate | Role::Up => 6,
        Role::Down => 7,
        Role::ProjectOut | Role::Head => 8,
    }
}

/// Of a linear that saw nothing.
static EMPTY: LazyLock<Seen> = LazyLock::new(Seen::default);

/// Whether a recipe's products are of integers on this machine's CPU: where both sides are codes, and the machine does such
/// products well. In f32 alone they mean the same.
pub fn integers(recipe: &Recipe) -> bool {
    let both = recipe.rounders().next().is_some() && recipe.acts.as_ref().is_some_and(Acts::are_codes);
    both && recipe.precision == Precision::F32 && Kernel::best() != Kernel::PLAIN
}

/// The sites whose weights a recipe rounds; none where it is a mistake for this model.
pub fn rounded_sites(recipe: &Recipe, spec: &DecoderSpec) -> BTreeSet<Site> {
    let Ok(skipped) = skipped(recipe, spec) else { return BTreeSet::new() };
    let rounded = |s: &Site| !skipped.contains(s) && recipe.weights_at(*s, spec).is_some();
    spec.sites().into_iter().filter(rounded).collect()
}

/// The sites that a recipe leaves alone in this model.
fn skipped(recipe: &Recipe, spec: &DecoderSpec) -> Result<BTreeSet<Site>> {
    let sites = spec.sites();
    let mut skipped = BTreeSet::new();
    let named = recipe.at.iter().flat_map(|at| &at.sites).map(|p| (p, "at"));
    for (pattern, what) in recipe.skip.iter().map(|p| (p, "skip")).chain(named) {
        let found: Vec<Site> = sites.iter().copied().filter(|s| means(pattern, *s, spec)).collect();
        // Some are in every recipe: a tied head is no linear of its own, and few models have routers.
        let known = USUAL_SKIP.contains(&pattern.as_str()) || pattern == EMBEDDING;
        if found.is_empty() && !known {
            mistake!(
                "recipe `{}`: {what} `{pattern}` matches nothing; sites look like: {}",
                recipe.name,
                sites.iter().take(8).map(Site::to_string).collect::<Vec<_>>().join(", ")
            );
        }
        if what == "skip" {
            skipped.extend(found);
        }
    }
    Ok(skipped)
}

/// Sizes alone, without rounding anything.
pub fn sizes(recipe: &Recipe, spec: &DecoderSpec, stored: u8) -> Result<Sizes> {
    let mut sizes = measure(recipe, spec, stored, &skipped(recipe, spec)?, &BTreeMap::new());
    if let Some(budget) = &recipe.budget {
        // As if all of it went out; a model says how much did.
        let weights = rounded_sites(recipe, spec).into_iter().map(|s| spec.linear_shape(s));
        let weights: usize = weights.map(|(out, inner)| out * inner).sum();
        sizes.size_mb += (budget.bits_per_weight - sizes.bits_per_weight) * weights as f64 / 8e6;
        sizes.bits_per_weight = budget.bits_per_weight;
    }
    Ok(sizes)
}

fn measure(
    recipe: &Recipe,
    spec: &DecoderSpec,
    stored: u8,
    skip: &BTreeSet<Site>,
    known: &BTreeMap<Site, f64>,
) -> Sizes {
    let stored = match recipe.precision {
        Precision::F32 => f64::from(stored),
        _ => 16.,
    };
    // What turns the stream parts a head from the embedding that it is.
    let parted = spec.head.tied && recipe.prepare.iter().any(|p| p.transform().turns());
    let total = spec.count() as f64 + if parted { (spec.vocab * spec.hidden) as f64 } else { 0. };
    let (mut weights, mut bits) = (0., 0.);
    let mut notes = BTreeSet::new();
    let (zeros, mut codes) = (recipe.zeros(), 0.);
    for site in spec.sites().into_iter().filter(|s| !skip.contains(s)) {
        let shape = spec.linear_shape(site);
        let (count, pruned) = ((shape.0 * shape.1) as f64, zeros > 0. && site.block.is_some());
        // A bit for each weight says whether it is there; those that are not have no code.
        let mask = |code: f64| if pruned { count * (1. - zeros * code) } else { 0. };
        let Some(method) = recipe.weights_at(site, spec) else {
            if pruned {
                weights += count;
                codes += count * stored;
                bits += count * stored + mask(stored);
            }
            continue;
        };
        let rounder = method.rounder();
        weights += count;
        let code = rounder.code_bits(&method.grid, (site, spec));
        codes += count * code;
        bits += known.get(&site).copied().unwrap_or_else(|| method.bits(shape, (site, spec)));
        bits += mask(code);
        let note = rounder.note(&method.grid, shape.1, (site, spec));
        notes.extend(note.map(|n| format!("{}: {n}", site.role.name())));
    }
    if parted {
        notes.insert("head: the embedding's no more, because the stream is turned".into());
    }
    let head = Site::end(Role::Head);
    let weights_of_all = recipe.weights.as_ref().filter(|_| !recipe.skips_embedding());
    let embedding = weights_of_all.and_then(|w| w.rounder().embedding_bits(spec));
    let table = (spec.vocab * spec.embed.project.unwrap_or(spec.hidden)) as f64;
    let saved = embedding.map_or(0., |bits| table * stored - bits);
    if recipe.rounders().next().is_some()
        && embedding.is_none()
        && spec.head.tied
        && !recipe.skip.iter().any(|s| means(s, head, spec))
    {
        notes.insert("head: tied to the embedding, and left as that is".into());
    }
    let float = if recipe.precision == Precision::F32 { 32. } else { 16. };
    for attention in spec.blocks.iter().filter_map(|b| b.mixer.attention()) {
        notes.extend(recipe.kv.as_ref().and_then(|kv| kv.note(attention.head_dim)));
    }
    Sizes {
        weight_bits: if weights > 0. { codes / weights } else { stored },
        act_bits: recipe.acts.as_ref().map_or(float, |a| a.grid.code_bits()),
        kv_bits: recipe.kv.as_ref().map_or(float, Kv::code_bits),
        kv_bytes_per_token: match &recipe.kv {
            Some(kv) => kv.token_bits(spec) / 8.,
            None => kv_bytes_a_token(spec, float),
        },
        bits_per_weight: if weights > 0. { bits / weights } else { stored },
        size_mb: (bits + (total - weights) * stored - saved) / 8e6,
        notes: notes.into_iter().collect(),
    }
}

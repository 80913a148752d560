//! A recipe: what is quantized, and how. Written in the field's notation, or as a table.
//!
//! ```text
//! recipe  = "full" | "fp16" | "bf16" | [("fp16" | "bf16") "+"] [prepare "+"].. [method "-"] [weights] [acts] [kv]
//! prepare = "smoothquant" | "osplus" | "rotate" | "qllm"            smoothquant+w8a8  rotate+gptq-w4a4kv4
//! method  = "rtn" | "gptq" | "owq" | "spqr" | "hqq" | "kmeans" | "omniquant" | "autoround" | "efficientqat" | "awq"
//!                                                                  gptq-w4g128  awq-w3 (awq before, then rounded)
//! weights = "w" bits ["g" group | "row" | "tensor"] ["sym"]         w4  w4g64  w4row  w8tensorsym
//!         | a format's name                                         nf4  fp8  mxfp4  nvfp4  ternary
//!         | ["imatrix-"] a GGUF file's type                         q4_k_m  imatrix-iq4_xs
//! acts    = "a" bits ["sym"] | "a" format                           a8  afp8  amxfp8
//! kv      = "kv" bits ["g" group] ["sym"] | "kv" format             kv4  kv4g32  kvfp8
//!         | "k" .. "v" ..                                           k4v2
//!         | ("kivi" | "kvquant") bits                               kivi2  w4a8kvquant3
//! ```
use super::{
    Entry,
    acts::Acts,
    budget::Budget,
    calibrate::{Calibrate, Inputs},
    grid::{
        Format, Grid, Int, Per, Zero,
        levels::{LEVELS, Levels},
        usual,
    },
    kv::{self, Kv},
    prepare::{Prepare, awq::Awq, osplus::OsPlus, qllm::Qllm, rotate::Rotate, smoothquant::SmoothQuant},
    weight::{
        Method, Needs, Weights,
        autoround::AutoRound,
        efficientqat::EfficientQat,
        gguf::{Gguf, files::FILES},
        gptq::Gptq,
        hqq::Hqq,
        kmeans::Kmeans,
        omniquant::OmniQuant,
        owq::Owq,
        rtn::Rtn,
        spqr::Spqr,
    },
};
use crate::{
    mistake,
    model::{ops::Precision, site::Site, spec::DecoderSpec},
};
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use wildmatch::WildMatch;

/// Notations, for `list`.
pub static NOTATION: &[Entry] = &[
    Entry {
        name: "full",
        about: "as the checkpoint is, arithmetic in f32: what everything is compared with",
    },
    Entry { name: "fp16 bf16", about: "inference in half precision; may stand before others: fp16+w4" },
    Entry { name: "w8 w4 w3 w2", about: "weights, 2 to 8 bits, asymmetric, groups of 128 along the input" },
    Entry { name: "w4g64 w4row w4tensor w4sym", about: "another group, per row, per tensor, symmetric" },
    Entry { name: "w8a8 w4a8 w4a4", about: "weights and activations; activations per token, dynamic" },
    Entry { name: "a8", about: "activations alone" },
    Entry {
        name: "kv8 kv4 kv3 kv2",
        about: "keys and values, per token and head, groups of 128 along the head",
    },
    Entry { name: "kv4g32 w4a8kv4", about: "another group; all of it together" },
    Entry {
        name: "afp8 amxfp8 kvfp8 k4v2",
        about: "activations or the cache in a format; keys and values apart",
    },
    Entry {
        name: "kivi2 kvquant3",
        about: "the cache as those methods have it: keys a channel, windows, outliers",
    },
    Entry {
        name: "gptq-w4g128 owq-w3 spqr-w3 hqq-w4g64",
        about: "weights rounded by that method; before any weights, and before a format: gptq-nf4",
    },
    Entry {
        name: "omniquant-w3 autoround-w4 efficientqat-w2g64",
        about: "weights learned a block at a time",
    },
    Entry {
        name: "kmeans-w4 kmeans-w3g256",
        about: "a codebook of 16 values a row; of 8 values for each 256 weights",
    },
    Entry {
        name: "awq-w3",
        about: "AWQ's scales and clipping, then rounding to nearest; awq-gptq-w3: then GPTQ",
    },
    Entry {
        name: "smoothquant+w8a8 rotate+gptq-w4a4kv4",
        about: "what is done before, in that order, before everything else",
    },
    Entry {
        name: "nf4 fp4 fp8 mxfp8 mxfp6 mxfp4 nvfp4 ternary binary",
        about: "weights in that format, its own groups; `list formats` has all",
    },
    Entry {
        name: "q4_k_m q8_0 imatrix-q4_k_m",
        about: "a whole GGUF file as llama-quantize mixes it, head and embedding too; with an importance matrix",
    },
];

/// What a recipe leaves alone unless its `skip` says otherwise. The study quantized routers too: `skip = ["head"]`.
pub static USUAL_SKIP: [&str; 2] = ["head", "*.router"];

/// How `skip` calls the embedding, which some methods round.
pub const EMBEDDING: &str = "embed";

/// What a method leaves alone that rounds whole files: nothing, but that routers are not rounded there either.
fn usual_skip(weights: Option<&Weights>) -> Vec<String> {
    let whole = weights.is_some_and(|w| matches!(&w.method, Method::Gguf(gguf) if gguf.file.is_some()));
    if whole { vec!["*.router".into()] } else { USUAL_SKIP.map(String::from).to_vec() }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// As the study names it.
    pub name: String,
    /// Of the arithmetic.
    pub precision: Precision,
    /// What is done before, in this order.
    pub prepare: Vec<Prepare>,
    /// How weights are rounded.
    pub weights: Option<Weights>,
    /// Where weights are rounded otherwise; of several that name a site, the last.
    pub at: Vec<Elsewhere>,
    /// Bits by sensitivity.
    pub budget: Option<Budget>,
    /// How activations are.
    pub acts: Option<Acts>,
    /// How keys and values are.
    pub kv: Option<Kv>,
    /// What methods that look at a text are shown.
    pub calibrate: Calibrate,
    /// Sites left alone, as patterns with `*`: `head`, `blocks.0.*`, `*.ffn.down`.
    pub skip: Vec<String>,
}

/// `at = [{ sites = ["first.*", "*.attn.v"], weights = { method = "rtn", bits = 8 } }]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Patterns with `*`, as in `skip`; `first.` and `last.` stand for the first and the last block.
    pub sites: Vec<String>,
    /// What is done there.
    pub weights: Weights,
}

/// Whether a site is meant by a pattern: `*.attn.v`, `blocks.3.*`, `first.*`, `last.ffn.*`.
pub fn means(pattern: &str, site: Site, spec: &DecoderSpec) -> bool {
    let last = spec.blocks.len().saturating_sub(1);
    let whole = match (pattern.strip_prefix("first."), pattern.strip_prefix("last.")) {
        (Some(rest), _) => format!("blocks.0.{rest}"),
        (_, Some(rest)) => format!("blocks.{last}.{rest}"),
        _ => pattern.to_string(),
    };
    WildMatch::new(&whole).matches(&site.to_string())
}

/// `[[recipe]]` of a study, one point of its axes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// What records call it.
    pub name: String,
    /// `f32` (default), `fp16`, `bf16`.
    #[serde(default)]
    pub precision: Option<String>,
    /// See [`Prepare`].
    #[serde(default)]
    pub prepare: Vec<Prepare>,
    /// See [`Weights`].
    #[serde(default)]
    pub weights: Option<Weights>,
    /// See [`Elsewhere`].
    #[serde(default)]
    pub at: Vec<Elsewhere>,
    /// See [`Budget`].
    #[serde(default)]
    pub budget: Option<Budget>,
    /// See [`Acts`].
    #[serde(default)]
    pub acts: Option<Acts>,
    /// See [`Kv`].
    #[serde(default)]
    pub kv: Option<Kv>,
    /// See [`Calibrate`].
    #[serde(default)]
    pub calibrate: Calibrate,
    /// Default [`USUAL_SKIP`].
    #[serde(default)]
    pub skip: Option<Vec<String>>,
}

impl Recipe {
    /// Untouched.
    pub fn full() -> Self {
        Self {
            name: "full".into(),
            precision: Precision::F32,
            prepare: Vec::new(),
            weights: None,
            at: Vec::new(),
            budget: None,
            acts: None,
            kv: None,
            calibrate: Calibrate::default(),
            skip: usual_skip(None),
        }
    }

    /// From the field's notation.
    pub fn parse(text: &str) -> Result<Self> {
        match parse(text) {
            Some(recipe) => recipe.checked(),
            None => mistake!(
                "no recipe `{text}`{}; the notation: {}",
                crate::mistake::nearest(text, NOTATION.iter().flat_map(|e| e.name.split(' '))),
                NOTATION.iter().map(|e| e.name).collect::<Vec<_>>().join(" ")
            ),
        }
    }

    /// From a table.
    pub fn from_table(table: Table) -> Result<Self> {
        let precision = match table.precision.as_deref() {
            None | Some("f32") => Precision::F32,
            Some("fp16") => Precision::F16,
            Some("bf16") => Precision::BF16,
            Some(other) => {
                mistake!("recipe `{}`: precision `{other}`; there are: f32, fp16, bf16", table.name)
            }
        };
        let name = table.name;
        if name.is_empty() || name.contains(['/', '\n']) {
            mistake!("recipe `{name}`: a name is a word without `/`");
        }
        Recipe {
            name,
            precision,
            prepare: table.prepare,
            skip: table.skip.unwrap_or_else(|| usual_skip(table.weights.as_ref())),
            weights: table.weights,
            at: table.at,
            budget: table.budget,
            acts: table.acts,
            kv: table.kv,
            calibrate: table.calibrate,
        }
        .checked()
    }

    fn checked(self) -> Result<Self> {
        for weights in self.rounders() {
            if let Err(e) = weights.check() {
                mistake!("recipe `{}`: weights: {e}", self.name);
            }
        }
        if let Some(Err(e)) = self.budget.as_ref().map(|b| b.check(self.weights.as_ref())) {
            mistake!("recipe `{}`: budget: {e}", self.name);
        }
        let mut cut = false;
        for prepare in &self.prepare {
            let transform = prepare.transform();
            if let Err(e) = transform.check() {
                mistake!("recipe `{}`: {e}", self.name);
            }
            if transform.turns() && cut {
                mistake!(
                    "recipe `{}`: prepare: what turns the stream comes before what cuts weights off",
                    self.name
                );
            }
            if transform.tries() && self.rounders().next().is_none() {
                mistake!(
                    "recipe `{}`: prepare tries what rounding costs, and nothing is rounded: say `weights`",
                    self.name
                );
            }
            cut |= transform.cuts();
        }
        if let Err(e) = self.calibrate.check() {
            mistake!("recipe `{}`: {e}", self.name);
        }
        if let Some(Err(e)) = self.acts.as_ref().map(Acts::check) {
            mistake!("recipe `{}`: acts: {e}", self.name);
        }
        let turned = self.prepare.iter().any(|p| matches!(p, Prepare::Rotate(rotate) if rotate.online));
        if turned && self.needs().gradients {
            mistake!(
                "recipe `{}`: gradients of the whole model do not pass what rotate turns as it comes: say online = false",
                self.name
            );
        }
        if turned && self.kv.as_ref().is_some_and(|kv| kv.needs().is_some()) {
            mistake!(
                "recipe `{}`: kv: calibrated ranges are those of keys as they are, and rotate turns keys where they are rounded: \
                 say online = false, or another `per`",
                self.name
            );
        }
        if let Some(Err(e)) = self.kv.as_ref().map(Kv::check) {
            mistake!("recipe `{}`: kv: {e}", self.name);
        }
        Ok(self)
    }

    /// Whether anything at all is changed.
    pub fn is_full(&self) -> bool {
        let nothing =
            self.weights.is_none() && self.at.is_empty() && self.acts.is_none() && self.kv.is_none();
        self.precision == Precision::F32 && self.prepare.is_empty() && nothing
    }

    /// Whether the embedding is left alone, whatever a method does with it.
    pub fn skips_embedding(&self) -> bool {
        self.skip.iter().any(|pattern| WildMatch::new(pattern).matches(EMBEDDING))
    }

    /// Whether sequences cannot share prefixes: keys of several tokens become something together.
    pub fn apart(&self) -> bool {
        self.kv.as_ref().is_some_and(Kv::joins_tokens)
    }

    /// All that round weights, anywhere.
    pub fn rounders(&self) -> impl Iterator<Item = &Weights> {
        self.weights.iter().chain(self.at.iter().map(|at| &at.weights))
    }

    /// What rounds a site's weights, if anything does; what is skipped is not known here.
    pub fn weights_at(&self, site: Site, spec: &DecoderSpec) -> Option<&Weights> {
        let own = self.at.iter().rev().find(|at| at.sites.iter().any(|p| means(p, site, spec)));
        own.map(|at| &at.weights).or(self.weights.as_ref())
    }

    /// The share of weights that are zero before they are rounded, and stay it.
    pub fn zeros(&self) -> f64 {
        self.prepare.iter().map(|p| p.transform().zeros()).fold(0., f64::max)
    }

    /// The hidden states that calibration keeps; none where no method looks at a text.
    pub fn streams(&self) -> Vec<Inputs> {
        let transforms = self.prepare.iter().map(Prepare::transform);
        let mut streams: Vec<Inputs> = transforms.filter(|t| t.calibrated()).map(|t| t.inputs()).collect();
        if self.rounders().any(|w| w.rounder().learner().is_some()) {
            // What a block is to give is what the full one makes of its own inputs.
            streams.extend([Inputs::Quantized, Inputs::Full]);
        }
        streams.extend(self.rounders().filter(|w| w.needs().any()).map(|w| w.rounder().inputs()));
        if self.acts.as_ref().is_some_and(|a| a.needs().is_some()) {
            streams.push(Inputs::Quantized);
        }
        if self.kv.as_ref().is_some_and(|kv| kv.needs().is_some()) {
            // The full model's, as its authors have it.
            streams.push(Inputs::Full);
        }
        if self.budget.is_some() {
            streams.push(Inputs::Full);
        }
        if let Some(said) = self.calibrate.inputs {
            streams.iter_mut().for_each(|s| *s = said);
        }
        let mut once = Vec::new();
        streams.into_iter().for_each(|s| {
            if !once.contains(&s) {
                once.push(s);
            }
        });
        once
    }

    /// All that its methods must see of a text.
    pub fn needs(&self) -> Needs {
        let rounder = self.rounders().fold(Needs::NOTHING, |needs, w| needs.and(w.needs()));
        let acts = self.acts.as_ref().and_then(Acts::needs).unwrap_or_default();
        let kv = self.kv.as_ref().and_then(Kv::needs).unwrap_or_default();
        self.prepare.iter().fold(rounder.and(acts).and(kv), |needs, p| needs.and(p.transform().needs()))
    }

    /// Why it takes a whole model in memory, where it does.
    pub fn whole(&self) -> Option<&'static str> {
        match (&self.budget, self.needs().gradients) {
            (Some(_), _) => Some(
                "a budget is given out by what the whole model says, so that must be in memory: give it more (--memory)",
            ),
            (_, true) => Some(
                "gradients go back through the whole model, so that must be in memory: give it more (--memory)",
            ),
            _ => None,
        }
    }

    /// Why the recipe cannot work on a model, where it cannot.
    pub fn unfit(&self, spec: &DecoderSpec) -> Option<String> {
        if let Some(why) = self.prepare.iter().find_map(|p| p.transform().unfit(spec)) {
            return Some(why);
        }
        if let Some(why) = self.budget.as_ref().and_then(|b| b.unfit(self, spec)) {
            return Some(why);
        }
        let clips = self.prepare.iter().any(|p| matches!(p, Prepare::Awq(awq) if awq.clip));
        if clips && self.rounders().any(|w| w.grid.per == Per::Tensor) {
            return Some(
                "awq: clipping cuts ranges of rows or groups, and these weights have one for the whole matrix: say clip = false"
                    .into(),
            );
        }
        let keys = spec.blocks.iter().any(|b| b.mixer.attention().is_some());
        (self.kv.is_some() && !keys).then(|| {
            "`kv` rounds what attention keeps, and this model has no attention: its state is of fixed size".into()
        })
    }

    /// Every setting, for the record and for the cell's hash. The name is not part of it.
    pub fn describe(&self) -> Value {
        let mut all = json!({
            "precision": self.precision.name(),
            "weights": self.weights.as_ref().map(Weights::describe),
            "acts": self.acts.as_ref().map(Acts::describe),
            "kv": self.kv.as_ref().map(Kv::describe),
            "skip": self.skip,
            "never": "embeddings, norms, biases",
        });
        if matches!(&self.weights, Some(Weights { method: Method::Gguf(gguf), .. }) if gguf.file.is_some()) {
            all["never"] = "norms, biases, tables of positions".into();
        }
        if !self.prepare.is_empty() {
            all["prepare"] = self.prepare.iter().map(|p| p.transform().describe()).collect();
        }
        if !self.at.is_empty() {
            let each =
                self.at.iter().map(|at| json!({ "sites": at.sites, "weights": at.weights.describe() }));
            all["at"] = each.collect();
        }
        if let Some(budget) = &self.budget {
            all["budget"] = budget.describe();
        }
        if !self.streams().is_empty() {
            all["calibrate"] = self.calibrate.describe();
        }
        all
    }
}

fn parse(text: &str) -> Option<Recipe> {
    let mut recipe = Recipe { name: text.into(), ..Recipe::full() };
    if text == "full" {
        return Some(recipe);
    }
    let mut rest = text;
    for (word, precision) in [("fp16", Precision::F16), ("bf16", Precision::BF16)] {
        if let Some(after) = rest.strip_prefix(word) {
            recipe.precision = precision;
            match after.strip_prefix('+') {
                Some(more) if !more.is_empty() => rest = more,
                _ => return after.is_empty().then_some(recipe),
            }
        }
    }
    let mut rest = Rest(rest);
    loop {
        if rest.word("smoothquant+") {
            recipe.prepare.push(Prepare::Smoothquant(SmoothQuant::default()));
        } else if rest.word("osplus+") {
            recipe.prepare.push(Prepare::Osplus(OsPlus::default()));
        } else if rest.word("qllm+") {
            recipe.prepare.push(Prepare::Qllm(Qllm::default()));
        } else if rest.word("rotate+") {
            recipe.prepare.push(Prepare::Rotate(Rotate::default()));
        } else if rest.word("awq+") || rest.word("awq-") {
            recipe.prepare.push(Prepare::Awq(Awq::default()));
        } else {
            break;
        }
    }
    let prepared = !recipe.prepare.is_empty();
    let imatrix = rest.word("imatrix-");
    let file = FILES.iter().filter(|(name, _)| rest.0.starts_with(name)).max_by_key(|(name, _)| name.len());
    if let Some((name, _)) = file {
        let gguf = Gguf::file(name, imatrix)?;
        rest.word(name);
        recipe.weights =
            Some(Weights { grid: gguf.grid(), method: Method::Gguf(gguf), keep: None, correct: None });
        recipe.skip = usual_skip(recipe.weights.as_ref());
    } else if imatrix {
        return None;
    }
    let method = if file.is_none() { rest.method() } else { None };
    let format =
        LEVELS.iter().map(|l| l.name).filter(|name| rest.0.starts_with(name)).max_by_key(|n| n.len());
    if recipe.weights.is_some() {
        // A file's mixture has said it.
    } else if let Some(name) = format.filter(|name| rest.word(name)) {
        let method = method.clone().unwrap_or(Method::Rtn(Rtn {}));
        recipe.weights = Some(Weights { method, grid: Grid::named(name)?, keep: None, correct: None });
    } else if rest.word("w") {
        let bits = rest.number()?;
        let usually = method.as_ref().map_or(Per::Group, Method::per);
        let group = method.as_ref().map_or(usual(), Method::group);
        let (per, group) = if rest.word("row") {
            (Per::Row, group)
        } else if rest.word("tensor") {
            (Per::Tensor, group)
        } else if rest.word("g") {
            (Per::Group, rest.number()?)
        } else {
            (usually, group)
        };
        let bits = u8::try_from(bits).ok()?;
        let method = method.clone().unwrap_or(Method::Rtn(Rtn {}));
        let mut grid = Grid::int(bits, per, group, rest.word("sym"));
        if let Format::Int(int) = &mut grid.format {
            int.zero = method.zero();
        }
        recipe.weights = Some(Weights { method, grid, keep: None, correct: None });
    }
    if (method.is_some() || prepared) && recipe.weights.is_none() {
        return None;
    }
    if rest.word("a") {
        let format = match rest.format() {
            Some(levels) => Format::Levels(levels),
            None => Format::Int(Int {
                bits: rest.byte()?,
                symmetric: rest.word("sym"),
                zero: Zero::Clamped,
                clip: 1.,
            }),
        };
        recipe.acts = Some(Acts::token(format));
    }
    let of = [("kivi", kv::Method::Kivi), ("kvquant", kv::Method::Kvquant)];
    if let Some((_, method)) = of.into_iter().find(|(name, _)| rest.word(name)) {
        recipe.kv = Some(Kv::of(method, rest.byte()?).ok()?);
    } else if rest.word("kv") || (rest.0.starts_with('k') && rest.0.contains('v') && rest.word("k")) {
        // kv4, kvfp8; k4v2: keys and values apart.
        let grid = |rest: &mut Rest| -> Option<Grid> {
            if let Some(levels) = rest.format() {
                return Grid::named(levels.name);
            }
            let bits = rest.byte()?;
            let group = if rest.word("g") { rest.number()? } else { usual() };
            Some(Grid::int(bits, Per::Group, group, rest.word("sym")))
        };
        let keys = grid(&mut rest)?;
        let values = if rest.word("v") { grid(&mut rest)? } else { keys.clone() };
        recipe.kv = Some(Kv::apart(keys, values));
    }
    (rest.0.is_empty() && !recipe.is_full()).then_some(recipe)
}

/// What is still to be read.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn word(&mut self, word: &str) -> bool {
        self.0.strip_prefix(word).inspect(|after| self.0 = after).is_some()
    }
    fn method(&mut self) -> Option<Method> {
        if self.word("rtn-") {
            Some(Method::Rtn(Rtn {}))
        } else if self.word("gptq-") {
            Some(Method::Gptq(Gptq::default()))
        } else if self.word("owq-") {
            Some(Method::Owq(Owq::default()))
        } else if self.word("spqr-") {
            Some(Method::Spqr(Spqr::default()))
        } else if self.word("omniquant-") {
            Some(Method::Omniquant(OmniQuant::default()))
        } else if self.word("autoround-") {
            Some(Method::Autoround(AutoRound::default()))
        } else if self.word("efficientqat-") {
            Some(Method::Efficientqat(EfficientQat::default()))
        } else if self.word("hqq-") {
            Some(Method::Hqq(Hqq::default()))
        } else if self.word("kmeans-") {
            Some(Method::Kmeans(Kmeans::default()))
        } else {
            None
        }
    }
    fn byte(&mut self) -> Option<u8> {
        u8::try_from(self.number()?).ok()
    }
    fn format(&mut self) -> Option<&'static Levels> {
        let fits = LEVELS.iter().filter(|l| self.0.starts_with(l.name)).max_by_key(|l| l.name.len())?;
        self.word(fits.name).then_some(fits)
    }
    fn number(&mut self) -> Option<usize> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = self.0.split_at(digits);
        self.0 = after;
        number.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation() {
        for good in [
            "full",
            "fp16",
            "bf16",
            "w8",
            "w4g64",
            "w4sym",
            "w4row",
            "w3tensorsym",
            "w8a8",
            "a8",
            "kv4",
            "kv4g32sym",
            "w4a8kv4",
            "fp16+w4",
            "bf16+w4g32syma8symkv2",
            "gptq-w4g128",
            "awq-w3",
            "awq-gptq-w3g64",
            "smoothquant+w8a8",
            "rotate+gptq-w4a4kv4",
            "osplus+w6a6",
            "qllm+w4a4",
            "smoothquant+awq-w4",
            "nf4",
            "nf4-double",
            "gptq-nf4",
            "fp8kv8",
            "mxfp4a8",
            "ternary",
            "hqq-w2g64",
            "kmeans-w4",
            "kmeans-w3g256",
            "kmeans-w8tensor",
            "binary-centred",
            "aternary",
            "k4v2",
            "w4k8g32v4",
            "fp8afp8kvfp8",
            "mxfp4amxfp8",
            "omniquant-w3a8",
            "autoround-w4g64",
            "efficientqat-w2g64",
            "owq-w3",
            "spqr-w3",
            "spqr-w4g32",
            "kivi2",
            "w4a8kvquant3",
            "q4_k_m",
            "q8_0",
            "imatrix-q2_k_s",
            "rotate+q4_k_ma8kv4",
        ] {
            assert_eq!(Recipe::parse(good).unwrap().name, good);
        }
        for bad in [
            "",
            "w",
            "w4x",
            "w44444",
            "w9",
            "w1",
            "w4g0",
            "fp16w4",
            "fp16+",
            "a8w4",
            "kv",
            "w4g",
            "W4",
            "kv16",
            "gptq",
            "gptq-",
            "gptq-kv4",
            "awq+",
            "rotate+",
            "kmeans-w4sym",
            "kmeans-nf4",
            "smoothquant+a8",
            "w4+rotate",
            "nf",
            "q2_k_s",
            "q4_k",
            "imatrix-w4",
            "owq-w4sym",
            "spqr-w3row",
            "owq-nf4",
            "gptq-q4_0",
        ] {
            let error = Recipe::parse(bad).unwrap_err();
            assert!(crate::mistake::is_mistake(&error), "{bad}");
        }
        assert!(Recipe::parse("w4q").unwrap_err().to_string().contains("did you mean"));
    }
}

//! `bitsweep inspect`.
use super::{Exit, progress::Progress};
use crate::{
    hub::Hub,
    inspect::{By, Made, deviations, sample, sensitivity, statistics},
    mistake,
    mistake::Blame,
    model::load,
    quant::{calibrate::Calibrate, recipe::Recipe},
    report::{
        frame::slug,
        inside::{self, Inside},
    },
    results::inspection::Inspection,
    study::{
        calibrate::{self, Text, USUAL},
        config::Study,
        engine::Words,
    },
    suite::data::{self, Instead},
};
use anyhow::{Context, Result};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Sequences that a calibrated recipe looks at, where neither a study nor an option says how many.
const CALIBRATION: usize = 128;

/// What quantization does inside a model: what stands in it, what each recipe changes, and which place costs most.
#[derive(Args)]
pub struct Inspect {
    /// A model's directory, org/name on the Hub, or builtin:llama
    model: String,
    /// Recipes in the field's notation, or a study's by name; without any: the full model alone
    #[arg(long, value_delimiter = ',', value_name = "RECIPE,..")]
    recipes: Vec<String>,
    /// A study file, or a built-in study's name, whose recipes `--recipes` may name; all of them where it names none
    #[arg(long, value_name = "STUDY")]
    study: Option<String>,
    /// The folder for tables, charts and the page; what it has of other models stays [default: results/inspect-MODEL]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A perplexity task whose text is looked at [default: what recipes are calibrated with]
    #[arg(long, value_name = "TASK")]
    data: Option<String>,
    /// Sequences of it
    #[arg(long, value_name = "N", default_value_t = crate::inspect::SAMPLES)]
    samples: usize,
    /// Tokens of each [default: 256, or what the model reads]
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// What is quantized alone: site, role, block, none [default: site; block where that would take long]
    #[arg(long, value_name = "BY")]
    by: Option<String>,
    /// cpu, cuda:0 or metal
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl Inspect {
    pub(super) fn run(self) -> Result<Exit> {
        let by = self.by.as_deref().map(str::parse::<By>).transpose()?;
        let study = self.study.as_deref().map(|s| Study::read(s, &[])).transpose()?;
        let recipes = self.recipes(study.as_ref())?;
        let device = super::device(&self.device)?;
        let progress = Progress::new();
        let opened = load::open(&self.model, Path::new(""), Some(progress.downloads()))?;
        for recipe in &recipes {
            if let Some(why) = recipe.unfit(&opened.spec) {
                mistake!("recipe `{}` cannot be applied to {}: {why}", recipe.name, self.model);
            }
        }
        let out = self
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from("results").join(format!("inspect-{}", slug(&self.model))));
        fs::create_dir_all(&out).with_context(|| format!("making `{}`", out.display())).blame("--out")?;
        let before = Inspection::read(&out).blame("--out")?.unwrap_or_default();
        let usual = USUAL[usize::from(!self.model.starts_with("builtin:"))];
        let text = self.text(self.data.as_deref().unwrap_or(usual), Path::new(""), None, &progress)?;
        let texts = sample(&opened, &text, self.samples, self.tokens)?;
        let tokens: usize = texts.iter().map(Vec::len).sum();
        say!("{}: {} sequences of {}, {tokens} tokens", self.model, texts.len(), text.task.label);
        let full = opened.load(&device)?;
        let by = by.unwrap_or_else(|| By::usual(&opened.spec, tokens));
        let blocks = full.blocks.len();
        let block = |what: &str, b: usize| say!("{what}: block {} of {blocks}", b + 1);
        let mut found = Inspection {
            statistics: statistics(&self.model, &full, &texts, &mut |b| block("full precision", b))?,
            ..Inspection::default()
        };
        for recipe in &recipes {
            let seen = self.calibration(recipe, &opened, study.as_ref(), &text, &progress)?;
            say!("{}: quantizing", recipe.name);
            let made = Made::new(recipe, &full, opened.stored_bits(), &seen)
                .with_context(|| format!("recipe `{}`", recipe.name))?;
            let mut step = |b| block(&recipe.name, b);
            found.deviations.extend(deviations(&self.model, &made, &texts, &mut step)?);
            let mut last = 0;
            let mut step = |done: usize, of: usize| {
                // A line for each quarter.
                if done * 4 / of.max(1) > last {
                    last = done * 4 / of.max(1);
                    say!("{}: {done} of {of} alone and without, by {}", recipe.name, by.name());
                }
            };
            found.sensitivity.extend(sensitivity(&self.model, &made, &texts, by, &mut step)?);
        }
        // What was found now is said now; the folder may hold other models too.
        let said = inside::text(&Inside::new(found.clone()));
        let all = before.with(found);
        all.write(&out).blame("--out")?;
        let page = inside::draw(&Inside::new(all), &out).blame("--out")?;
        out!("{said}");
        say!("{}", page.display());
        Ok(Exit::Fine)
    }

    /// What is inspected beside full precision.
    fn recipes(&self, study: Option<&Study>) -> Result<Vec<Recipe>> {
        let own = study.map_or(&[][..], |s| &s.recipes);
        let mut recipes: Vec<Recipe> = Vec::new();
        for word in self.recipes.iter().filter(|w| !w.is_empty()) {
            let known = own.iter().find(|r| r.name == *word).cloned();
            let recipe = match (known, self.study.as_deref()) {
                (Some(recipe), _) => recipe,
                (None, None) => Recipe::parse(word).blame("--recipes")?,
                (None, Some(study)) => match Recipe::parse(word) {
                    Ok(recipe) => recipe,
                    Err(_) => mistake!(
                        "--recipes: `{word}` is no notation, and study `{study}` has no such recipe; it has: {}",
                        own.iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", ")
                    ),
                },
            };
            if recipes.iter().any(|r| r.name == recipe.name) {
                mistake!("--recipes names `{word}` twice");
            }
            recipes.push(recipe);
        }
        if self.recipes.is_empty() {
            recipes.extend(own.iter().filter(|r| !r.is_full()).cloned());
        }
        Ok(recipes)
    }

    /// A task's text.
    fn text(&self, word: &str, folder: &Path, study: Option<&Study>, progress: &Progress) -> Result<Text> {
        let task = calibrate::find(word, folder)?;
        let instead = study.map_or_else(|| Ok(Instead::default()), |s| s.instead(&task))?;
        let hub = || Ok(Hub::from_env()?.on_progress(Some(progress.downloads())));
        let items = data::load(&task.label, &task.task, &task.place, &instead, &hub)?;
        Ok(Text { task, items })
    }

    /// What a calibrated recipe looks at; nothing for others.
    fn calibration(
        &self,
        recipe: &Recipe,
        opened: &load::Opened,
        study: Option<&Study>,
        sample: &Text,
        progress: &Progress,
    ) -> Result<Vec<Vec<u32>>> {
        if recipe.streams().is_empty() {
            return Ok(Vec::new());
        }
        let own;
        let (text, length) = match (&recipe.calibrate.data, study) {
            (Some(word), Some(study)) => {
                own = self.text(word, &study.folder, Some(study), progress)?;
                (&own, None)
            }
            _ => (sample, self.tokens),
        };
        let usual = Calibrate { samples: Some(CALIBRATION), length, ..Calibrate::default() };
        calibrate::sequences(Words::of(opened), &recipe.calibrate.or(&usual), text)
            .with_context(|| format!("recipe `{}`", recipe.name))
    }
}

//! What `bitsweep inspect` leaves: three tables, one number a line.
//!
//! ```text
//! inspect.csv      model, what, block, site, statistic, value          what stands in the full model
//! errors.csv       model, recipe, block, site, measure, value          what a recipe changes, place by place
//! sensitivity.csv  model, recipe, by, block, site, only, without       what the output loses by it
//! ```
//! `block` is empty outside the blocks, a value where there is none: no ratio to an error of nothing, no mean of no tokens.
use super::store::replace;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fs, io, path::Path};

/// Names of the three files.
pub const FILES: [&str; 3] = ["inspect.csv", "errors.csv", "sensitivity.csv"];

/// Of what a statistic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A linear's matrix, `[out, in]`; its channels are inputs.
    Weight,
    /// What enters a linear, `[tokens, in]`.
    Input,
    /// Keys as attention reads them, positions in them, `[tokens, kv_heads * head_dim]`.
    Key,
    /// Values, the same shape.
    Value,
    /// What leaves a block, `[tokens, hidden]`.
    Hidden,
}

impl What {
    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            What::Weight => "weight",
            What::Input => "input",
            What::Key => "key",
            What::Value => "value",
            What::Hidden => "hidden",
        }
    }
}

/// A line of `inspect.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistic {
    /// As the model was named.
    pub model: String,
    /// Of what.
    pub what: What,
    /// `None` outside the blocks.
    pub block: Option<u16>,
    /// The place in its block, `attn.q`, `ffn.3.up`; `out` for what leaves it; `head`.
    pub site: String,
    /// Which number.
    pub statistic: String,
    /// `None` where there is none.
    pub value: Option<f64>,
}

/// A line of `errors.csv`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deviation {
    /// As the model was named.
    pub model: String,
    /// The recipe's name.
    pub recipe: String,
    /// `None` outside the blocks.
    pub block: Option<u16>,
    /// As in [`Statistic`]; `attn.kv` for what attention makes of keys and values.
    pub site: String,
    /// Which number.
    pub measure: String,
    /// `None` where there is none.
    pub value: Option<f64>,
}

/// A line of `sensitivity.csv`: nats a token, `KL(full || some of it quantized)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// As the model was named.
    pub model: String,
    /// The recipe's name.
    pub recipe: String,
    /// `site`, `role` or `block`; `model` for all of it.
    pub by: String,
    /// `None` outside the blocks, and for a role of all of them.
    pub block: Option<u16>,
    /// As recipes name it, in its block; `all` of the block, or of the model.
    pub site: String,
    /// With this alone quantized.
    pub only: Option<f64>,
    /// With all but this quantized.
    pub without: Option<f64>,
}

/// What was found in one or more models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inspection {
    /// Of full models.
    pub statistics: Vec<Statistic>,
    /// Of recipes.
    pub deviations: Vec<Deviation>,
    /// Of recipes.
    pub sensitivity: Vec<Sensitivity>,
}

impl Inspection {
    /// What a folder has; `None` where it has none of the files.
    ///
    /// # Errors
    /// A file that is not such a table: which, and what is wrong in which line.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let [statistics, deviations, sensitivity] = FILES.map(|name| dir.join(name));
        let found = (table(&statistics)?, table(&deviations)?, table(&sensitivity)?);
        Ok(match found {
            (None, None, None) => None,
            (a, b, c) => Some(Self {
                statistics: a.unwrap_or_default(),
                deviations: b.unwrap_or_default(),
                sensitivity: c.unwrap_or_default(),
            }),
        })
    }

    /// Writes all three files, each whole or not at all.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let [statistics, deviations, sensitivity] = FILES.map(|name| dir.join(name));
        let heads = [
            "model,what,block,site,statistic,value",
            "model,recipe,block,site,measure,value",
            "model,recipe,by,block,site,only,without",
        ];
        replace(&statistics, &text(&self.statistics, heads[0])?)?;
        replace(&deviations, &text(&self.deviations, heads[1])?)?;
        replace(&sensitivity, &text(&self.sensitivity, heads[2])?)
    }

    /// With what another inspection found: its models take the place of theirs here, other models stay.
    pub fn with(mut self, other: Inspection) -> Self {
        let mut order: Vec<String> = self.models().into_iter().map(String::from).collect();
        let new: Vec<String> = other.models().into_iter().map(String::from).collect();
        order.extend(new.iter().filter(|m| !order.contains(m)).cloned().collect::<Vec<_>>());
        let place = |model: &str| order.iter().position(|m| m == model);
        self.statistics.retain(|s| !new.contains(&s.model));
        self.deviations.retain(|d| !new.contains(&d.model));
        self.sensitivity.retain(|s| !new.contains(&s.model));
        self.statistics.extend(other.statistics);
        self.deviations.extend(other.deviations);
        self.sensitivity.extend(other.sensitivity);
        self.statistics.sort_by_key(|s| place(&s.model));
        self.deviations.sort_by_key(|d| place(&d.model));
        self.sensitivity.sort_by_key(|s| place(&s.model));
        self
    }

    /// Models, in the order of their first line.
    pub fn models(&self) -> Vec<&str> {
        let all = (self.statistics.iter().map(|s| &s.model))
            .chain(self.deviations.iter().map(|d| &d.model))
            .chain(self.sensitivity.iter().map(|s| &s.model));
        distinct(all.map(String::as_str))
    }

    /// A model's recipes, in the order of their first line.
    pub fn recipes(&self, model: &str) -> Vec<&str> {
        let all = (self.deviations.iter().filter(|d| d.model == model).map(|d| &d.recipe))
            .chain(self.sensitivity.iter().filter(|s| s.model == model).map(|s| &s.recipe));
        distinct(all.map(String::as_str))
    }
}

/// Each once, in the order of appearance.
fn distinct<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known: Vec<&str> = Vec::new();
    for one in all {
        if !known.contains(&one) {
            known.push(one);
        }
    }
    known
}

fn table<T: DeserializeOwned>(path: &Path) -> Result<Option<Vec<T>>> {
    let what = || format!("reading `{}`", path.display());
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(what),
    };
    csv::Reader::from_reader(&bytes[..]).deserialize().collect::<Result<_, _>>().map(Some).with_context(what)
}

/// With its head also where there are no lines.
fn text<T: Serialize>(lines: &[T], head: &str) -> Result<Vec<u8>> {
    let mut out = csv::WriterBuilder::new().has_headers(false).from_writer(format!("{head}\n").into_bytes());
    for line in lines {
        out.serialize(line)?;
    }
    out.into_inner().context("a table in memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Inspection::read(folder.path()).unwrap().is_none());
        let mut all = Inspection::default();
        all.write(folder.path()).unwrap();
        assert_eq!(Inspection::read(folder.path()).unwrap().as_ref(), Some(&all));
        all.statistics.push(Statistic {
            model: "a, \"b\"".into(),
            what: What::Key,
            block: Some(3),
            site: "attn.k".into(),
            statistic: "mean".into(),
            value: Some(-1.0e-30),
        });
        for (block, value) in [(None, None), (Some(0), Some(0.1 + 0.2))] {
            all.deviations.push(Deviation {
                model: "m".into(),
                recipe: "w4".into(),
                block,
                site: "head".into(),
                measure: "weight_sqnr".into(),
                value,
            });
        }
        all.sensitivity.push(Sensitivity {
            model: "m".into(),
            recipe: "w4".into(),
            by: "model".into(),
            block: None,
            site: "all".into(),
            only: Some(1e300),
            without: None,
        });
        all.write(folder.path()).unwrap();
        assert_eq!(Inspection::read(folder.path()).unwrap().as_ref(), Some(&all));
        assert_eq!((all.models(), all.recipes("m")), (vec!["a, \"b\"", "m"], vec!["w4"]));
        // A model's lines take the place of its own.
        let mut newer = Inspection { statistics: all.statistics.clone(), ..Inspection::default() };
        newer.statistics[0].value = None;
        let both = all.clone().with(newer.clone()).with(newer.clone());
        assert_eq!((both.models(), both.statistics.as_slice()), (all.models(), newer.statistics.as_slice()));
        assert_eq!(both.deviations, all.deviations);
        assert_eq!(newer.clone().with(all.clone()).statistics, all.statistics);
        fs::write(folder.path().join(FILES[1]), "model,recipe,block,site,measure,value\nm,w4,x,a,b,1\n")
            .unwrap();
        let e = format!("{:#}", Inspection::read(folder.path()).unwrap_err());
        assert!(e.contains("errors.csv") && e.contains("line: 2"), "{e}");
    }
}

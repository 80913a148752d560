//! The KV cache, and whatever else enters attention's two products: what each becomes, and from when on.
//!
//! ```text
//! kv = { bits = 4, group = 128, residual = 0 }                         the study's setting (its section 2.5)
//! kv = { bits = 4, values = { bits = 2, group = 32 } }                 values apart
//! kv = { format = "fp8", queries = { bits = 8 }, probabilities = { bits = 8 } }
//! kv = { method = "kivi", bits = 2 }                                   keys a channel, the newest 128 tokens exact
//! kv = { method = "kvquant", bits = 3, outliers = 0.01 }               keys before positions, in calibrated ranges
//! kv = { method = "kvquant", bits = 3, codebook = {} }                 the same in fitted codebooks, as the paper has it: see [`nuq`]
//! ```
//! A method is a set of defaults; every key of theirs may be said alone. [`map`] is what stands at the decoder's seam.
pub mod map;
pub mod nuq;

use self::nuq::Nuq;
use super::{
    grid::{Format, Grid, Per, Zero},
    weight::Needs,
};
use crate::{
    mistake,
    model::{seam::Age, spec::DecoderSpec},
};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value, json};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Kv {
    /// What keys become.
    pub keys: Side,
    /// What values become.
    pub values: Side,
    /// What queries become, each token and head; exact where it is not said.
    pub queries: Option<Grid>,
    /// What a query's probabilities become; exact where it is not said.
    pub probabilities: Option<Grid>,
    /// The first tokens, which stay exact.
    pub sinks: usize,
    /// Whether keys are rounded before or after their positions are applied.
    pub positions: Positions,
}

/// Keys, or values.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    /// Among which values; groups are along what shares a scale.
    pub grid: Grid,
    /// What shares a scale.
    pub per: Share,
    /// The share of values that stay exact, half of them the largest and half the smallest.
    pub outliers: f64,
    /// The newest tokens that attention still reads exactly, the current one among them.
    pub residual: usize,
    /// Values of a fitted codebook in place of integers.
    pub codebook: Option<Nuq>,
}

/// What shares a scale in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Share {
    /// A token and head, or a group of its features.
    Head,
    /// A token's heads together, or a group of their features.
    Token,
    /// A channel over as many tokens as a group has: they wait for each other.
    Channel,
    /// A channel over all tokens, its range calibrated.
    Calibrated,
}

/// See [`Kv::positions`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positions {
    /// As the cache keeps them in most engines.
    #[default]
    After,
    /// KVQuant's: channels are what they are whatever the position.
    Before,
}

/// Published settings under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Liu et al., 2024: keys a channel over 32 tokens, values a token and head in groups of 32; the newest 128 tokens exact,
    /// keys in batches; the smallest value kept as it is.
    Kivi,
    /// Hooper et al., 2024: keys before positions, a channel, in calibrated ranges; values a token; 1% outliers and the first
    /// token exact; the smallest value kept as it is. Integers: without the paper's fitted codebooks.
    Kvquant,
}

impl Method {
    /// What it says where nobody else does: for both, keys, values, and the rest.
    fn defaults(self, residual: usize) -> [Value; 4] {
        match self {
            Method::Kivi => [
                json!({ "zero": "exact", "group": 32 }),
                json!({ "per": "channel", "residual": residual }),
                // The current one is read exactly beside those that wait.
                json!({ "residual": residual + 1 }),
                json!({}),
            ],
            Method::Kvquant => [
                json!({ "zero": "exact", "outliers": 0.01 }),
                json!({ "per": "calibrated" }),
                json!({ "per": "token" }),
                json!({ "positions": "before", "sinks": 1 }),
            ],
        }
    }
}

impl Side {
    /// In groups along a head.
    pub fn head(grid: Grid) -> Self {
        Self { grid, per: Share::Head, outliers: 0., residual: 0, codebook: None }
    }

    fn from_table(mut table: Map<String, Value>) -> anyhow::Result<Self> {
        fn own<T: serde::de::DeserializeOwned>(
            table: &mut Map<String, Value>,
            key: &str,
        ) -> anyhow::Result<Option<T>> {
            match table.remove(key).map(T::deserialize).transpose() {
                Ok(found) => Ok(found),
                Err(e) => mistake!("`{key}`: {e}"),
            }
        }
        let residual = own(&mut table, "residual")?.unwrap_or(0);
        let outliers = own(&mut table, "outliers")?.unwrap_or(0.);
        let codebook: Option<Nuq> = own(&mut table, "codebook")?;
        let per = match table.get("per").and_then(Value::as_str) {
            // A grid's own: a range a head, or groups of it.
            Some("row" | "group" | "tensor") => Share::Head,
            _ => own(&mut table, "per")?.unwrap_or(Share::Head),
        };
        let grouped = table.contains_key("group");
        let mut grid = Grid::from_table(Value::Object(table), Zero::Clamped)?;
        match per {
            Share::Channel => grid.per = Per::Group,
            Share::Token | Share::Calibrated if !grouped && matches!(grid.format, Format::Int(_)) => {
                grid.per = Per::Row;
            }
            _ => {}
        }
        if let (Format::Int(int), true) = (&mut grid.format, codebook.is_some()) {
            // Middle and half of a range are two numbers of 16 bits.
            int.zero = Zero::Exact;
        }
        Ok(Self { grid, per, outliers, residual, codebook })
    }

    /// From when on they are read as they come back.
    pub fn age(&self) -> Age {
        match (self.per, self.residual) {
            (Share::Channel, residual) => Age::Batches(residual.max(self.grid.group)),
            (_, residual) => Age::Newest(residual),
        }
    }

    /// Bits of a token's, of so many heads of this width.
    fn bits(&self, heads: usize, width: usize) -> f64 {
        let dense = match self.per {
            Share::Head => self.grid.bits((heads, width)),
            Share::Token => self.grid.bits((1, heads * width)),
            Share::Channel => self.grid.bits((heads * width, self.grid.group)) / self.grid.group as f64,
            // One scale for all tokens is none a token.
            Share::Calibrated => self.grid.code_bits() * (heads * width) as f64,
        };
        // A value of 16 bits, and where it is in another 16.
        dense + self.outliers * 32. * (heads * width) as f64
    }

    fn check(&self, what: &str) -> anyhow::Result<()> {
        self.grid.check()?;
        if self.grid.per == Per::Tensor {
            mistake!(
                "a range for the whole cache would depend on tokens that are not there yet: `per` is `row`, `group`, `token`, \
                 `channel` or `calibrated`"
            );
        }
        if !(0. ..0.5).contains(&self.outliers) {
            mistake!("{what}: `outliers` is {}; it is a share from 0 to below 0.5", self.outliers);
        }
        if self.codebook.is_some() {
            let fits = if what == "keys" { Share::Calibrated } else { Share::Token };
            let integers = matches!(self.grid.format, Format::Int(int) if !int.symmetric);
            if self.per != fits || self.grid.per != Per::Row || !integers {
                mistake!(
                    "{what}: a `codebook` is for calibrated keys and for values a token, of `bits`, without `group`: say \
                     `method = \"kvquant\"`"
                );
            }
        }
        match self.per {
            Share::Channel if what == "values" => {
                mistake!(
                    "values: a token's are summed over tokens, so each is rounded on its own: `per = \"token\"`"
                )
            }
            Share::Calibrated if what == "values" => {
                mistake!("values: `per = \"calibrated\"` is for keys; say `per = \"token\"`")
            }
            Share::Channel if self.outliers > 0. => {
                mistake!("keys: `outliers` need `per` head, token, or calibrated")
            }
            Share::Channel if !self.residual.is_multiple_of(self.grid.group) => mistake!(
                "keys wait {} tokens in groups of {}: `residual` must be so many groups",
                self.residual,
                self.grid.group
            ),
            Share::Calibrated if self.grid.per != Per::Row || !matches!(self.grid.format, Format::Int(_)) => {
                mistake!("keys: calibrated ranges are a channel's, of integers: say `bits`, and no `group`")
            }
            _ => Ok(()),
        }
    }

    fn describe(&self) -> Value {
        let per = match self.per {
            Share::Head => ("token and head", "head_dim"),
            Share::Token => ("token", "heads and head_dim"),
            Share::Channel => ("channel", "tokens"),
            Share::Calibrated => ("channel, calibrated", "tokens"),
        };
        let mut all = json!({
            "format": self.grid.format.name(), "bits": self.grid.code_bits(), "per": per.0, "axis": per.1,
        });
        let own = self.grid.describe();
        if self.grid.per == Per::Group || self.per == Share::Head {
            all["group"] = self.grid.group.into();
        }
        if let Format::Int(int) = self.grid.format {
            all["bits"] = int.bits.into();
            all["scheme"] = own["scheme"].clone();
            if int.zero != Zero::Clamped {
                all["zero"] = own["zero"].clone();
            }
            if int.clip < 1. {
                all["clip"] = int.clip.into();
            }
        }
        if self.outliers > 0. {
            all["outliers"] = self.outliers.into();
        }
        if let Some(codebook) = &self.codebook {
            all["format"] = "codebook".into();
            all["codebook"] = json!(codebook);
        }
        all
    }
}

impl Kv {
    /// Keys and values, each in groups along a head.
    pub fn apart(keys: Grid, values: Grid) -> Self {
        Self {
            keys: Side::head(keys),
            values: Side::head(values),
            queries: None,
            probabilities: None,
            sinks: 0,
            positions: Positions::After,
        }
    }

    /// A method's own settings.
    pub fn of(method: Method, bits: u8) -> anyhow::Result<Self> {
        Self::from_table(json!({ "bits": bits }).as_object().cloned().unwrap_or_default(), Some(method))
    }

    /// Bits of a code, the mean of a key's and a value's.
    pub fn code_bits(&self) -> f64 {
        (self.keys.grid.code_bits() + self.values.grid.code_bits()) / 2.
    }

    /// Bits that the cache takes for a token of a model, scales, zeros and outliers included, for tokens older than those that
    /// are exact.
    pub fn token_bits(&self, spec: &DecoderSpec) -> f64 {
        let attention = spec.blocks.iter().filter_map(|b| b.mixer.attention());
        attention
            .map(|a| self.keys.bits(a.kv_heads, a.head_dim) + self.values.bits(a.kv_heads, a.head_dim))
            .sum()
    }

    /// What calibration must see of keys; nothing where ranges are found as they come.
    pub fn needs(&self) -> Option<Needs> {
        let books = [&self.keys, &self.values].into_iter().filter_map(|side| side.codebook);
        let gradients = books.clone().any(|book| book.by == nuq::By::Gradients);
        let any = self.keys.per == Share::Calibrated || books.count() > 0;
        any.then_some(Needs { gradients, ..Needs::NOTHING })
    }

    /// Whether keys of several tokens share what they become: then sequences cannot share a prefix that ends among them.
    pub fn joins_tokens(&self) -> bool {
        self.keys.per == Share::Channel
    }

    /// What a reader must know of heads of this width.
    pub fn note(&self, width: usize) -> Option<String> {
        let ragged = [&self.keys, &self.values].into_iter().filter(|side| side.per == Share::Head);
        let g = ragged.filter(|side| side.grid.note(width).is_some()).map(|side| side.grid.group).next()?;
        Some(format!("kv: ragged: heads of {width} in groups of {g}, the last of {}", width % g))
    }

    /// Refuses what cannot be.
    pub fn check(&self) -> anyhow::Result<()> {
        self.keys.check("keys")?;
        self.values.check("values")?;
        for (what, grid) in [("queries", &self.queries), ("probabilities", &self.probabilities)] {
            let Some(grid) = grid else { continue };
            grid.check()?;
            if grid.per == Per::Tensor {
                mistake!(
                    "{what}: a range for all tokens would depend on those that are not there yet: say `per = \"row\"`"
                );
            }
        }
        if self.positions == Positions::Before && self.keys.per == Share::Channel {
            mistake!(
                "keys before their positions are rounded each on its own, or in calibrated ranges, not `per = \"channel\"`"
            );
        }
        Ok(())
    }

    /// Settings as records keep them.
    pub fn describe(&self) -> Value {
        let alike = self.keys == self.values;
        let mut all = match alike {
            true => self.keys.describe(),
            false => json!({ "keys": self.keys.describe(), "values": self.values.describe() }),
        };
        if self.keys.residual == self.values.residual && self.keys.per != Share::Channel {
            all["residual"] = self.keys.residual.into();
        } else {
            all["keys"]["residual"] = match self.keys.age() {
                Age::Newest(n) => n.into(),
                Age::Batches(n) => format!("in batches of {n}").into(),
            };
            all["values"]["residual"] = self.values.residual.into();
        }
        let positions = match self.positions {
            Positions::After => "after positions",
            Positions::Before => "before positions",
        };
        if alike {
            all["keys"] = positions.into();
        } else {
            all["positions"] = format!("keys {positions}").into();
        }
        if self.sinks > 0 {
            all["sinks"] = self.sinks.into();
        }
        let mut exact = Vec::new();
        for (what, grid) in [("queries", &self.queries), ("probabilities", &self.probabilities)] {
            match grid {
                Some(grid) => all[what] = grid.describe(),
                None => exact.push(what),
            }
        }
        all["operands"] = match exact[..] {
            [] => "keys, values, queries and probabilities".into(),
            [one] => format!("keys and values; {one} stay exact").into(),
            _ => "keys and values; queries and probabilities stay exact".into(),
        };
        all
    }

    /// What is said beside `keys` and `values` is for both; `bits` and `format` of either take each other's place.
    fn from_table(mut both: Map<String, Value>, method: Option<Method>) -> anyhow::Result<Self> {
        let mut table = |name: &str| match both.remove(name).map(Map::deserialize).transpose() {
            Ok(found) => Ok(found),
            Err(e) => mistake!("`{name}`: {e}"),
        };
        let (keys, values) = (table("keys")?.unwrap_or_default(), table("values")?.unwrap_or_default());
        let grid = |table: Option<Map<String, Value>>| {
            table.map(|mut t| {
                if !t.contains_key("group") {
                    t.entry("per").or_insert("row".into());
                }
                Grid::from_table(Value::Object(t), Zero::Clamped)
            })
        };
        let (queries, probabilities) =
            (grid(table("queries")?).transpose()?, grid(table("probabilities")?).transpose()?);
        let mut rest: Map<String, Value> = Map::new();
        for key in ["sinks", "positions"] {
            if let Some((key, value)) = both.remove_entry(key) {
                rest.insert(key, value);
            }
        }
        let (mut own_keys, mut own_values) = (Map::new(), Map::new());
        if let Some(method) = method {
            let residual = match both.remove("residual").map(usize::deserialize).transpose() {
                Ok(said) => said.unwrap_or(128),
                Err(e) => mistake!("`residual`: {e}"),
            };
            let [all, keys, values, others] = method.defaults(residual);
            let under = |mine: &mut Map<String, Value>, usual: Value| {
                for (key, value) in usual.as_object().into_iter().flatten() {
                    mine.entry(key).or_insert(value.clone());
                }
            };
            under(&mut both, all);
            under(&mut own_keys, keys);
            under(&mut own_values, values);
            under(&mut rest, others);
        }
        let side = |usual: Map<String, Value>, own: Map<String, Value>| {
            let mut all = both.clone();
            all.extend(usual);
            if own.contains_key("bits") || own.contains_key("format") {
                all.remove("bits");
                all.remove("format");
            }
            all.extend(own);
            Side::from_table(all)
        };
        let rest: Rest = match Rest::deserialize(Value::Object(rest)) {
            Ok(rest) => rest,
            Err(e) => mistake!("{e}"),
        };
        let kv = Self {
            keys: side(own_keys, keys)?,
            values: side(own_values, values)?,
            queries,
            probabilities,
            sinks: rest.sinks,
            positions: rest.positions,
        };
        kv.check()?;
        Ok(kv)
    }
}

#[derive(Deserialize)]
struct Rest {
    #[serde(default)]
    sinks: usize,
    #[serde(default)]
    positions: Positions,
}

impl<'de> Deserialize<'de> for Kv {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let mut table = Map::deserialize(from)?;
        let method =
            table.remove("method").map(Method::deserialize).transpose().map_err(de::Error::custom)?;
        Self::from_table(table, method).map_err(|e| match e.to_string() {
            said if said.contains("unknown field") => de::Error::custom(
                said + "; and `method`, `keys`, `values`, `queries`, `probabilities`, `residual`, `outliers`, `codebook`, `sinks`, `positions`",
            ),
            said => de::Error::custom(said),
        })
    }
}

//! The text that figures are kept in.
//!
//! ```text
//! source = gptq                                        holds for the whole file
//! flag a = why a value is to be doubted
//! recipe gptq-w4row = GPTQ | 4 | 16 | 16 | row         method, bits of weights, activations, keys and values, group; `-`: not printed
//!
//! [a table of the source]
//! task = wikitext2(gptq-2048)                          holds for the table
//! line = model | metric                                what stands before the colon of each line
//! OPT-125M | perplexity : full=27.65 gptq-w4row=31.12!a    ~TEXT behind a value: what is typed there
//! ```
use super::{Figure, Recipe, Series};
use anyhow::{Context, Result, bail, ensure};
use std::{collections::BTreeMap, sync::Arc};

/// A line that is neither empty nor a comment, with its number.
fn lines(text: &'static str) -> impl Iterator<Item = (usize, &'static str)> {
    text.lines()
        .enumerate()
        .map(|(i, l)| (i + 1, l.trim()))
        .filter(|(_, l)| !l.is_empty() && !l.starts_with('#'))
}

fn pair(line: &'static str) -> Result<(&'static str, &'static str)> {
    let (key, value) = line.split_once('=').context("it is `key = value`")?;
    Ok((key.trim(), value.trim()))
}

/// `key = value`, in order.
pub type Pairs = Vec<(&'static str, &'static str)>;

/// `[name]`, then `key = value` lines, as often as there are.
///
/// # Errors
/// A line that is neither.
pub fn sections(text: &'static str) -> Result<Vec<(&'static str, Pairs)>> {
    let mut all: Vec<(&str, Pairs)> = Vec::new();
    for (number, line) in lines(text) {
        match (line.strip_prefix('[').and_then(|l| l.strip_suffix(']')), all.last_mut()) {
            (Some(name), _) => all.push((name, Vec::new())),
            (None, Some((_, pairs))) => pairs.push(pair(line).with_context(|| format!("line {number}"))?),
            (None, None) => bail!("line {number}: it stands before the first [section]"),
        }
    }
    Ok(all)
}

/// Rows of fields, as models.txt has them.
pub fn rows(text: &'static str) -> Vec<Vec<&'static str>> {
    lines(text).map(|(_, l)| l.split('|').map(str::trim).collect()).collect()
}

/// What a source prints.
///
/// # Errors
/// The line that cannot be read.
pub fn figures(text: &'static str) -> Result<Vec<Figure>> {
    let mut reader = Reader::default();
    for (number, line) in lines(text) {
        reader.line(line).with_context(|| format!("line {number}: `{line}`"))?;
    }
    Ok(reader.figures)
}

#[derive(Default)]
struct Reader {
    /// Of the whole file.
    head: Vec<(&'static str, &'static str)>,
    flags: BTreeMap<&'static str, &'static str>,
    recipes: BTreeMap<&'static str, Arc<Recipe>>,
    /// The table's name, once there is one, and its own fields.
    table: Option<&'static str>,
    fields: Vec<(&'static str, &'static str)>,
    columns: Vec<&'static str>,
    figures: Vec<Figure>,
}

impl Reader {
    fn line(&mut self, line: &'static str) -> Result<()> {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            self.table = Some(name);
            self.fields.clear();
            self.columns.clear();
        } else if let Some((fields, values)) = line.split_once(" : ") {
            ensure!(self.table.is_some(), "it stands before the first [table]");
            self.values(fields, values)?;
        } else if let Some(rest) = line.strip_prefix("flag ") {
            let (key, why) = pair(rest)?;
            self.flags.insert(key, why);
        } else if let Some(rest) = line.strip_prefix("recipe ") {
            let (name, printed) = pair(rest)?;
            self.recipes.insert(name, Arc::new(recipe(name, printed)?));
        } else {
            match (pair(line)?, self.table) {
                (("line", columns), Some(_)) => {
                    self.columns = columns.split('|').map(str::trim).filter(|c| *c != "-").collect();
                }
                (field, Some(_)) => self.fields.push(field),
                (field, None) => self.head.push(field),
            }
        }
        Ok(())
    }

    fn values(&mut self, first: &'static str, values: &'static str) -> Result<()> {
        let cells: Vec<&str> = first.split(" | ").map(str::trim).collect();
        let mut fields = self.fields.clone();
        if !self.columns.is_empty() {
            ensure!(
                cells.len() == self.columns.len(),
                "{} fields, and the table has {}",
                cells.len(),
                self.columns.len()
            );
            let named = self.columns.iter().copied().zip(cells);
            fields.extend(named.filter(|(_, cell)| *cell != "-"));
        }
        let series = Arc::new(self.series(fields)?);
        for word in values.split(' ') {
            let (name, rest) =
                word.split_once('=').with_context(|| format!("`{word}` is not recipe=value"))?;
            let recipe = self.recipes.get(name).with_context(|| format!("no recipe `{name}` above"))?.clone();
            let (rest, flag) = rest.split_once('!').map_or((rest, None), |(r, f)| (r, Some(f)));
            let (printed, typed) = rest.split_once('~').map_or((rest, None), |(v, t)| (v, Some(t)));
            let suspect = match flag {
                Some(flag) => Some(*self.flags.get(flag).with_context(|| format!("no flag `{flag}` above"))?),
                None => None,
            };
            let value: f64 = printed.parse().with_context(|| format!("`{printed}` is no number"))?;
            ensure!(value.is_finite(), "`{printed}` is no number");
            self.figures.push(Figure { series: series.clone(), recipe, printed, value, typed, suspect });
        }
        Ok(())
    }

    fn series(&self, fields: Vec<(&'static str, &'static str)>) -> Result<Series> {
        let of = |key: &str| fields.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let head = |key: &str| self.head.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        let need = |key: &str| of(key).with_context(|| format!("no `{key}`"));
        let number = |key: &str| {
            of(key).map(|v| v.parse::<f64>().with_context(|| format!("{key} = `{v}`"))).transpose()
        };
        let table = self.table.unwrap_or_default();
        let model = need("model")?;
        Ok(Series {
            source: head("source").context("no `source` above the first table")?,
            citation: head("citation").unwrap_or(table),
            table,
            label: of("label").unwrap_or(model),
            model,
            params: number("size_b")?,
            checkpoint: of("checkpoint").unwrap_or_default(),
            ability: of("ability").unwrap_or_default(),
            task: need("task")?,
            metric: need("metric")?,
            unit: of("unit").unwrap_or_default(),
            n: of("n").map(|v| v.parse().with_context(|| format!("n = `{v}`"))).transpose()?,
            sweep: of("sweep").unwrap_or_default(),
            part: part(&of),
            fields,
        })
    }
}

/// The part of a task, in the words that ours have: a turn, a position among documents, a bin of positions, a length.
fn part(of: &dyn Fn(&str) -> Option<&'static str>) -> Option<String> {
    if let Some(turn) = of("turn") {
        return Some(format!("turn {turn}"));
    }
    if let (Some(at), Some(docs)) = (of("gold_position"), of("total_docs")) {
        return Some(format!("{docs}_total_documents_gold_at_{at}"));
    }
    of("position_bin").or(of("lines")).map(String::from)
}

fn recipe(name: &'static str, printed: &'static str) -> Result<Recipe> {
    let fields: Vec<Option<&str>> =
        printed.split('|').map(str::trim).map(|f| (f != "-").then_some(f)).collect();
    let &[Some(method), weights, acts, kv, group] = fields.as_slice() else {
        bail!("a recipe is `method | weights | acts | kv | group`");
    };
    // A word in place of a number: the source does not say.
    let bits = |field: Option<&str>| field.and_then(|f| f.parse().ok());
    Ok(Recipe { name, method, weights: bits(weights), acts: bits(acts), kv: bits(kv), group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_all_of_its_series() {
        let found = figures(
            "# a comment\nsource = s\nflag a = odd\nrecipe full = FP16 | 16 | 16 | 16 | -\n\
             recipe w4row = RTN | 4 | unstated | - | row\n\n[T 1]\ntask = t(x;y)\nline = model | metric | n | lines\n\
             M-7B | acc | 10 | 200 : full=0.50 w4row=4.25e-1~425!a\nM | ppl | - | - : full=7\n",
        )
        .unwrap();
        assert_eq!(found.len(), 3);
        let (full, w4, last) = (&found[0], &found[1], &found[2]);
        assert_eq!((full.printed, full.value, full.typed, full.suspect), ("0.50", 0.5, None, None));
        assert_eq!((w4.value, w4.typed, w4.suspect), (0.425, Some("425"), Some("odd")));
        assert_eq!((w4.recipe.weights, w4.recipe.acts, w4.recipe.kv), (Some(4.), None, None));
        assert_eq!((w4.recipe.method, w4.recipe.group), ("RTN", Some("row")));
        let s = &w4.series;
        assert_eq!((s.source, s.table, s.citation, s.task), ("s", "T 1", "T 1", "t(x;y)"));
        assert_eq!((s.n, s.part.as_deref(), s.get("lines")), (Some(10), Some("200"), Some("200")));
        assert_eq!((last.series.n, last.series.part.clone(), last.series.metric), (None, None, "ppl"));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let head = "source = s\nrecipe full = FP16 | 16 | 16 | 16 | -\n[T]\nmodel = m\ntask = t\n";
        for (line, what) in [
            ("metric = a\nline = n\n1 : w4=1", "no recipe `w4`"),
            ("metric = a\nline = n\n1 : full=1!a", "no flag `a`"),
            ("metric = a\nline = n\n1 : full=x", "`x` is no number"),
            ("metric = a\nline = n\n1 | 2 : full=1", "2 fields, and the table has 1"),
            ("metric = a\nline = n\nten : full=1", "n = `ten`"),
            ("line = n\n1 : full=1", "no `metric`"),
            ("nothing", "key = value"),
        ] {
            let error = format!("{:#}", figures(format!("{head}{line}").leak()).unwrap_err());
            assert!(error.contains(what) && error.starts_with("line "), "{error}");
        }
    }
}

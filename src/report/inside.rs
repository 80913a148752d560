//! What `bitsweep inspect` found, for eyes: which place costs most, what is lost there, and what makes it hard to round.
//!
//! The tables are computed once here, and printed, or put on a page, from there. Nothing of it needs a model.
use super::{
    charts::Picture,
    frame::{one_line, slug},
    html::{escape, figure, whole},
    plot::{Axis, Figure, Panel, Point, Series},
    table::digits,
};
use crate::results::{
    inspection::{Inspection, Sensitivity, Statistic, What},
    store::replace,
};
use anyhow::{Context, Result};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};
use wildmatch::WildMatch;

/// Places in a table, at most.
const PLACES: usize = 10;
/// How names of charts begin.
const OURS: &str = "inside-";
/// Blocks that are named along an axis, at most.
const TICKS: usize = 16;

/// What was found in one or more models.
pub struct Inside {
    found: Inspection,
}

/// What a folder holds; `None` where nothing was inspected.
///
/// # Errors
/// A table that is none.
pub fn read(dir: &Path) -> Result<Option<Inside>> {
    Ok(Inspection::read(dir)?.map(Inside::new))
}

/// A place that a recipe changes, with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// As recipes name it: `blocks.3.ffn.down`, `blocks.3`, `ffn.down` of all blocks.
    pub name: String,
    /// What it costs alone, and what is left without it, nats a token; the outer `None` where it was not measured.
    pub cost: Option<[Option<f64>; 2]>,
    /// Worst over what the place stands for: signal over noise of outputs on the same input, dB.
    pub output: Option<f64>,
    /// The same of weights.
    pub weight: Option<f64>,
    /// The largest share of outputs that is lost through weights.
    pub hessian: Option<f64>,
    /// The largest magnitude over the standard deviation, of inputs in the full model.
    pub spread: Option<f64>,
    /// And of inputs, the largest kurtosis.
    pub kurtosis: Option<f64>,
    /// Something there is no number any more.
    pub broken: bool,
}

/// A table for eyes.
struct Listing {
    title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Inside {
    /// Of tables.
    pub fn new(found: Inspection) -> Self {
        Self { found }
    }

    fn statistics<'a>(&'a self, model: &'a str, name: &'a str) -> impl Iterator<Item = &'a Statistic> {
        self.found.statistics.iter().filter(move |s| s.model == model && s.statistic == name)
    }

    fn sensitivity<'a>(&'a self, model: &'a str, recipe: &'a str) -> impl Iterator<Item = &'a Sensitivity> {
        self.found.sensitivity.iter().filter(move |s| s.model == model && s.recipe == recipe)
    }

    /// What the whole recipe costs, nats a token. The outer `None`: it was not measured.
    pub fn whole(&self, model: &str, recipe: &str) -> Option<Option<f64>> {
        self.sensitivity(model, recipe).find(|s| s.by == "model").map(|s| s.only)
    }

    /// Places of a recipe, the worst first: by what each costs alone, or, where that was not measured, by what outputs lose.
    pub fn worst(&self, model: &str, recipe: &str) -> Vec<Place> {
        let places: Vec<&Sensitivity> = self.sensitivity(model, recipe).filter(|s| s.by != "model").collect();
        let mut all: Vec<Place> = if places.is_empty() {
            let own = self.found.deviations.iter().filter(|d| {
                d.model == model && d.recipe == recipe && d.measure == "output_nmse" && d.site != "out"
            });
            own.filter(|d| d.value.is_none_or(|v| v > 0.))
                .map(|d| self.place(model, recipe, (d.block, &d.site), None))
                .collect()
        } else {
            let cost = |s: &Sensitivity| Some([s.only, s.without]);
            places.iter().map(|s| self.place(model, recipe, (s.block, &s.site), cost(s))).collect()
        };
        // What is no number is worse than any.
        let rank = |p: &Place| match p.cost {
            Some([only, _]) => only.unwrap_or(f64::INFINITY),
            None if p.broken => f64::INFINITY,
            None => -p.output.unwrap_or(f64::INFINITY),
        };
        all.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
        all
    }

    /// A place: a site, a pattern of some, all of a block; without a block, in all of them and outside.
    fn place(
        &self,
        model: &str,
        recipe: &str,
        (block, site): (Option<u16>, &str),
        cost: Option<[Option<f64>; 2]>,
    ) -> Place {
        let pattern = WildMatch::new(if site == "all" { "*" } else { site });
        let fits = |of: Option<u16>, name: &str| {
            let here = block.is_none() || of == block;
            // A pattern of routed experts is none of a shared one.
            let shared = name.contains(".shared.") && !site.contains("shared") && site != "all";
            here && pattern.matches(name) && !shared && name != "out"
        };
        let measured = |measure: &str| -> Vec<f64> {
            let own = self.found.deviations.iter().filter(|d| {
                d.model == model && d.recipe == recipe && d.measure == measure && fits(d.block, &d.site)
            });
            own.filter_map(|d| d.value).collect()
        };
        let entering = |name: &str| {
            let cached = |s: &Statistic| {
                site == "attn.kv"
                    && [What::Key, What::Value].contains(&s.what)
                    && (block.is_none() || s.block == block)
            };
            let own = self.statistics(model, name);
            let own = own.filter(|s| cached(s) || s.what == What::Input && fits(s.block, &s.site));
            own.filter_map(|s| s.value).reduce(f64::max)
        };
        let least = |all: Vec<f64>| all.into_iter().reduce(f64::min);
        Place {
            name: match block {
                Some(b) if site == "all" => format!("blocks.{b}"),
                Some(b) => format!("blocks.{b}.{site}"),
                None => site.to_string(),
            },
            cost,
            output: least(measured("output_sqnr")),
            weight: least(measured("weight_sqnr")),
            hessian: measured("hessian_relative").into_iter().reduce(f64::max),
            spread: entering("absmax_std"),
            kurtosis: entering("kurtosis"),
            broken: ["output_not_finite", "weight_not_finite"].iter().any(|m| !measured(m).is_empty()),
        }
    }

    /// The answer in a sentence: what a recipe costs, and where.
    pub fn answer(&self, model: &str, recipe: &str) -> String {
        let worst = self.worst(model, recipe);
        let whole = self.whole(model, recipe);
        let lost = match whole {
            Some(Some(0.)) => return format!("{recipe}: next tokens are those of full precision."),
            Some(Some(kl)) => format!("{recipe}: {} nats a token are lost", digits(kl, 3)),
            Some(None) => format!("{recipe}: its logits are no numbers"),
            None => recipe.to_string(),
        };
        let Some(first) = worst.first() else { return format!("{lost}.") };
        let place = match (first.cost, whole) {
            (Some([Some(only), without]), Some(Some(kl))) if kl > 0. => format!(
                "; most by {}: {} of it alone ({:.0}%), {} without it",
                first.name,
                digits(only, 3),
                100. * only / kl,
                shown(without)
            ),
            (Some([only, without]), _) => {
                format!("; most by {}: {} alone, {} without it", first.name, shown(only), shown(without))
            }
            (None, _) => format!("; least is left of {}: {} dB", first.name, shown(first.output)),
        };
        format!("{lost}{place}.")
    }

    fn listings(&self, model: &str) -> Vec<Listing> {
        let recipes = self.found.recipes(model);
        let texts = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut all = Vec::new();
        for recipe in &recipes {
            let places = self.worst(model, recipe);
            let (count, shown_of) = (places.len(), places.len().min(PLACES));
            let rows = places.into_iter().take(PLACES).map(|p| {
                let [only, without] = p.cost.unwrap_or_default();
                let broken = |x: Option<f64>, here: bool| match x {
                    None if here => "not a number".to_string(),
                    x => shown(x),
                };
                vec![
                    p.name,
                    broken(only, p.cost.is_some()),
                    broken(without, p.cost.is_some()),
                    broken(p.output, p.broken),
                    shown(p.weight),
                    shown(p.hessian),
                    shown(p.spread),
                    shown(p.kurtosis),
                ]
            });
            let rows: Vec<Vec<String>> = rows.collect();
            if !rows.is_empty() {
                all.push(Listing {
                    title: format!("{}: the worst {shown_of} of {count} places", one_line(recipe)),
                    head: texts(&[
                        "place",
                        "KL only",
                        "KL without",
                        "output dB",
                        "weight dB",
                        "Hessian",
                        "input max/std",
                        "input kurtosis",
                    ]),
                    rows,
                });
            }
        }
        let blocks = self.blocks(model);
        if !recipes.is_empty() && blocks > 0 {
            let value = |recipe: &str, block: u16, measure: &str| {
                let own = self.found.deviations.iter().find(|d| {
                    d.model == model
                        && d.recipe == recipe
                        && d.block == Some(block)
                        && d.site == "out"
                        && d.measure == measure
                });
                own.and_then(|d| d.value)
            };
            let mut head = texts(&["block"]);
            for recipe in &recipes {
                head.extend(["dB", "CKA"].map(|what| format!("{} {what}", one_line(recipe))));
            }
            let rows = (0..blocks).map(|b| {
                let mut row = vec![b.to_string()];
                for recipe in &recipes {
                    row.push(shown(value(recipe, b, "accumulated_sqnr")));
                    row.push(value(recipe, b, "cka").map_or_else(|| "–".into(), |v| format!("{v:.4}")));
                }
                row
            });
            let rows = rows.collect();
            all.push(Listing { title: "Hidden states after each block".into(), head, rows });
        }
        let mut far: Vec<&Statistic> =
            self.statistics(model, "absmax_std").filter(|s| s.value.is_some()).collect();
        far.sort_by(|a, b| b.value.unwrap_or(0.).total_cmp(&a.value.unwrap_or(0.)));
        // Linears of one input would each show it.
        far.dedup_by(|a, b| (a.what, a.block, a.value) == (b.what, b.block, b.value));
        let names =
            ["absmax_std", "kurtosis", "six_sigma", "outlier_channels", "channel_ratio", "effective_rank"];
        let rows: Vec<Vec<String>> = (far.iter().take(PLACES))
            .map(|s| {
                let own = names.map(|name| {
                    let same = |o: &&Statistic| (o.what, o.block, &o.site) == (s.what, s.block, &s.site);
                    shown(self.statistics(model, name).find(same).and_then(|s| s.value))
                });
                let block = s.block.map_or_else(String::new, |b| format!("blocks.{b}."));
                [format!("{block}{}", s.site), s.what.name().to_string()].into_iter().chain(own).collect()
            })
            .collect();
        if !rows.is_empty() {
            all.push(Listing {
                title: "Full precision: where the largest are farthest from the rest".into(),
                head: texts(&[
                    "place",
                    "what",
                    "max/std",
                    "kurtosis",
                    "beyond 6 std",
                    "outlier channels",
                    "channel max/median",
                    "effective rank",
                ]),
                rows,
            });
        }
        all
    }

    /// How many blocks a model has, as far as tables say.
    fn blocks(&self, model: &str) -> u16 {
        let statistics = self.found.statistics.iter().filter(|s| s.model == model).filter_map(|s| s.block);
        let deviations = self.found.deviations.iter().filter(|d| d.model == model).filter_map(|d| d.block);
        statistics.chain(deviations).max().map_or(0, |b| b.saturating_add(1))
    }
}

fn shown(x: Option<f64>) -> String {
    match x {
        None => "–".to_string(),
        // Of channels, as many.
        Some(x) if x.fract() == 0. && x.abs() < 1e6 => format!("{x:.0}"),
        Some(x) => digits(x, 3),
    }
}

/// For a terminal: the answers, then the tables.
pub fn text(inside: &Inside) -> String {
    let mut out = String::new();
    for model in inside.found.models() {
        let _ = writeln!(out, "{}", one_line(model));
        for recipe in inside.found.recipes(model) {
            let _ = writeln!(out, "  {}", one_line(&inside.answer(model, recipe)));
        }
        for listing in inside.listings(model) {
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN);
            table.set_header(listing.head);
            table.add_rows(listing.rows);
            let _ = write!(out, "\n{}\n\n{table}\n", listing.title);
        }
        out.push('\n');
    }
    out.trim_end().to_string()
}

/// For a page: what stands below its heading. Charts are apart: [`pictures`].
pub fn section(inside: &Inside) -> String {
    let mut out = String::new();
    for model in inside.found.models() {
        let _ = writeln!(out, "<h3>{}</h3>", escape(&one_line(model)));
        let recipes = inside.found.recipes(model);
        if !recipes.is_empty() {
            let answers =
                recipes.iter().map(|r| format!("<li>{}</li>", escape(&one_line(&inside.answer(model, r)))));
            let _ = writeln!(out, "<ul>{}</ul>", answers.collect::<String>());
        }
        for listing in inside.listings(model) {
            let head: String =
                listing.head.iter().map(|h| format!("<th scope=\"col\">{}</th>", escape(h))).collect();
            let row = |row: &Vec<String>| {
                let cells = row.iter().enumerate().map(|(i, cell)| match i {
                    0 => format!("<th scope=\"row\">{}</th>", escape(cell)),
                    _ => format!("<td>{}</td>", escape(&cell.replace('-', "−"))),
                });
                format!("<tr>{}</tr>\n", cells.collect::<String>())
            };
            let rows: String = listing.rows.iter().map(row).collect();
            let _ = write!(
                out,
                "<h4>{}</h4>\n<div class=\"wide\"><table class=\"sorts results\">\n<thead><tr>{head}</tr></thead>\n\
                 <tbody>\n{rows}</tbody></table></div>\n",
                escape(&listing.title)
            );
        }
    }
    out + READING
}

const READING: &str = "<details>\n<summary>How to read this</summary>\n<dl>\n\
<dt>KL only, KL without</dt><dd>Nats a token between full precision's next tokens and those of a model in which this place alone is \
quantized, or all but this. A place that costs much alone and little less without it is one of several.</dd>\n\
<dt>output dB</dt><dd>Signal over noise of what the place gives, on the input that full precision gives it; the worst where a place \
is several. 6 dB are about a bit. <code>weight dB</code> is the same of its matrix.</dd>\n\
<dt>Hessian</dt><dd>The share of the outputs' power that is lost through weights alone: what GPTQ makes small.</dd>\n\
<dt>hidden states</dt><dd>Signal over noise of what has added up after a block, and linear CKA between the tokens' hidden states of \
both models: 1 where they differ by a rotation and a scale at most.</dd>\n\
<dt>max/std, kurtosis</dt><dd>How far the largest is from the rest; a normal distribution has a kurtosis of 3. Such inputs are what a \
range from the smallest to the largest is bad at.</dd>\n\
<dt>the numbers</dt><dd><code>inspect.csv</code>, <code>errors.csv</code> and <code>sensitivity.csv</code> have all of them.</dd>\n\
</dl>\n</details>\n";

/// The section with its charts, for a page.
pub fn with_charts(inside: &Inside, pictures: &[Picture]) -> String {
    let figures: String = pictures.iter().map(figure).collect();
    section(inside) + &figures
}

/// A page of its own.
pub fn page(inside: &Inside, pictures: &[Picture]) -> String {
    let models: Vec<String> = inside.found.models().into_iter().map(one_line).collect();
    let title = format!("Inside {}", models.join(", "));
    let header = format!("<h1>{}</h1>\n", escape(&title));
    whole(&title, &header, &format!("<main>\n{}</main>\n", with_charts(inside, pictures)))
}

/// Writes the charts and a page of its own into a folder; charts of an earlier inspection that this one does not have are removed.
/// The page's path.
///
/// # Errors
/// A chart that cannot be drawn, a folder that cannot be written.
pub fn draw(inside: &Inside, dir: &Path) -> Result<PathBuf> {
    let pictures = pictures(inside)?;
    let mut keep = BTreeSet::new();
    for picture in &pictures {
        for (end, bytes) in [("svg", picture.svg.as_bytes()), ("png", &picture.png[..])] {
            let name = format!("{}.{end}", picture.name);
            replace(&dir.join(&name), bytes)?;
            keep.insert(name);
        }
    }
    let page_at = dir.join("inspect.html");
    replace(&page_at, page(inside, &pictures).as_bytes())?;
    let what = || format!("removing old charts from `{}`", dir.display());
    for entry in fs::read_dir(dir).with_context(what)? {
        let path = entry.with_context(what)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let drawn = name.starts_with(OURS) && (name.ends_with(".svg") || name.ends_with(".png"));
        if drawn && !keep.contains(&name) {
            fs::remove_file(&path).with_context(what)?;
        }
    }
    Ok(page_at)
}

/// Charts: what adds up by block, what stands out by block, and what each place costs. None of a model without blocks.
///
/// # Errors
/// A chart that cannot be drawn.
pub fn pictures(inside: &Inside) -> Result<Vec<Picture>> {
    let mut all = Vec::new();
    let mut stems: Vec<String> = Vec::new();
    for model in inside.found.models() {
        let mut stem = slug(model);
        while stems.contains(&stem) {
            stem.push_str("-2");
        }
        stems.push(stem.clone());
        let blocks = inside.blocks(model);
        if blocks == 0 {
            continue;
        }
        let drawing = Drawing { inside, model, title: one_line(model), stem, blocks };
        all.extend(drawing.errors()?);
        all.extend(drawing.spread()?);
        for recipe in inside.found.recipes(model) {
            all.extend(drawing.sensitivity(recipe)?);
        }
    }
    Ok(all)
}

struct Drawing<'a> {
    inside: &'a Inside,
    model: &'a str,
    title: String,
    stem: String,
    blocks: u16,
}

impl Drawing<'_> {
    /// Blocks along an axis; of many, some are named.
    fn panel(&self, title: &str, series: Vec<Series>) -> Panel {
        let every = usize::from(self.blocks).div_ceil(TICKS).max(1);
        let tick = |b: u16| if usize::from(b).is_multiple_of(every) { b.to_string() } else { String::new() };
        Panel {
            title: title.into(),
            x_label: "block".into(),
            ticks: (0..self.blocks).map(tick).collect(),
            places: Vec::new(),
            levels: Vec::new(),
            series,
        }
    }

    /// A line; what is not above 0 has no place on a logarithmic axis.
    fn line(
        label: &str,
        look: usize,
        points: impl Iterator<Item = (Option<u16>, Option<f64>)>,
    ) -> Option<Series> {
        let points: Vec<(usize, Point)> = points
            .filter_map(|(block, value)| {
                Some((usize::from(block?), Point::At(value.filter(|v| *v > 0.)?, None)))
            })
            .collect();
        (!points.is_empty()).then(|| Series { label: one_line(label), look, points })
    }

    fn draw(&self, name: &str, title: &str, y_label: &str, panels: Vec<Panel>) -> Result<Option<Picture>> {
        let panels: Vec<Panel> = panels.into_iter().filter(|p| !p.series.is_empty()).collect();
        if panels.is_empty() {
            return Ok(None);
        }
        let notes = vec!["The axis is logarithmic; what is not above 0 is not on it.".to_string()];
        let (title, y_label) = (title.to_string(), y_label.to_string());
        let figure = Figure { title, notes, y_label, axis: Axis::Log, panels };
        figure.render(format!("{OURS}{name}-{}", self.stem)).map(Some)
    }

    /// The share of hidden states that is lost after each block, by recipe.
    fn errors(&self) -> Result<Option<Picture>> {
        let recipes = self.inside.found.recipes(self.model);
        let panel = |title: &str, measure: &str| {
            let lines = recipes.iter().enumerate().filter_map(|(look, recipe)| {
                let own = self.inside.found.deviations.iter().filter(|d| {
                    d.model == self.model && d.recipe == *recipe && d.site == "out" && d.measure == measure
                });
                Self::line(recipe, look, own.map(|d| (d.block, d.value)))
            });
            self.panel(title, lines.collect())
        };
        let panels = vec![
            panel("by the block itself, on exact inputs", "output_nmse"),
            panel("added up so far", "accumulated_nmse"),
        ];
        let title = format!("Where do {}'s hidden states go wrong?", self.title);
        self.draw("errors", &title, "noise / signal of what leaves a block", panels)
    }

    /// How far out the largest are, by block.
    fn spread(&self) -> Result<Option<Picture>> {
        let kinds = [What::Weight, What::Input, What::Key, What::Value, What::Hidden];
        let panel = |title: &str, name: &str| {
            let lines = kinds.iter().enumerate().filter_map(|(look, what)| {
                let worst = (0..self.blocks).map(|b| {
                    let own = self.inside.statistics(self.model, name);
                    let own = own.filter(|s| s.what == *what && s.block == Some(b));
                    (Some(b), own.filter_map(|s| s.value).reduce(f64::max))
                });
                Self::line(what.name(), look, worst)
            });
            self.panel(title, lines.collect())
        };
        let panels = vec![panel("largest / standard deviation", "absmax_std"), panel("kurtosis", "kurtosis")];
        let title = format!("Where are {}'s outliers?", self.title);
        self.draw("spread", &title, "the most of a block's places", panels)
    }

    /// What each place costs alone, and what sparing it saves: by block, or, where a place is of all blocks, place by place.
    fn sensitivity(&self, recipe: &str) -> Result<Option<Picture>> {
        let all: Vec<&Sensitivity> = (self.inside.sensitivity(self.model, recipe))
            .filter(|s| s.by != "model" && (s.block.is_some() || s.by == "role"))
            .collect();
        let whole = self.inside.whole(self.model, recipe).flatten();
        let saved = |s: &Sensitivity| Some(whole? - s.without?);
        let mut sites: Vec<&str> = Vec::new();
        for s in &all {
            if !sites.contains(&s.site.as_str()) {
                sites.push(&s.site);
            }
        }
        let level = || whole.filter(|kl| *kl > 0.).map(|kl| (kl, None));
        let of = |value: &dyn Fn(&Sensitivity) -> Option<f64>, title: &str, look: usize| {
            if all.iter().any(|s| s.by == "role") {
                let places = sites.iter().enumerate().map(|(at, site)| {
                    let own = all.iter().find(|s| s.site == **site);
                    (u16::try_from(at).ok(), own.and_then(|s| value(s)))
                });
                let series = Self::line(title, look, places).into_iter().collect();
                let ticks = sites.iter().map(|s| one_line(s)).collect();
                return Panel { x_label: "place".into(), ticks, ..self.panel(title, series) };
            }
            let lines = sites.iter().enumerate().filter_map(|(look, site)| {
                let own = all.iter().filter(|s| s.site == **site);
                Self::line(site, look, own.map(|s| (s.block, value(s))))
            });
            self.panel(title, lines.collect())
        };
        let mut panels = vec![of(&|s| s.only, "this alone", 0), of(&saved, "saved by sparing it", 1)];
        panels.iter_mut().for_each(|panel| panel.levels.extend(level()));
        let title = format!("Which places cost {} most in {}?", self.title, one_line(recipe));
        self.draw(
            &format!("sensitivity-{}", slug(recipe)),
            &title,
            "KL, nats a token (dotted: all of it)",
            panels,
        )
    }
}

//! `report.html`: one page that needs nothing else, neither a network nor a script.
use super::{
    charts::Picture,
    frame::{Frame, Group, Row, one_line},
    table::{Cell, Grid, LEVEL, about_model, change, fitted, reason, status},
};
use crate::results::Record;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Text as HTML shows it, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The page.
pub fn page(frame: &Frame, pictures: &[Picture]) -> String {
    let models: Vec<String> = distinct(frame.records.iter().map(|r| one_line(&r.model.name)));
    let title = match models.len() {
        0 => "What quantization costs".to_owned(),
        1..=3 => format!("What quantization costs {}", models.join(", ")),
        n => format!("What quantization costs {n} models"),
    };
    let mut out = String::new();
    let mut push = |text: &str| out.push_str(text);
    push("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    push("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    push(&format!(
        "<title>{}</title>\n<style>\n{}</style>\n</head>\n",
        escape(&title),
        include_str!("page.css")
    ));
    push(&format!(
        "<body>\n<h1>{}</h1>\n<p class=\"soft\">{}</p>\n",
        escape(&title),
        escape(&summary(frame))
    ));
    if frame.records.is_empty() {
        push("<p>No cell has finished yet.</p>\n</body>\n</html>\n");
        return out;
    }
    let unfinished = unfinished(frame);
    push("<nav><a href=\"#results\">Results</a>");
    if !pictures.is_empty() {
        push("<a href=\"#charts\">Charts</a>");
    }
    if !unfinished.is_empty() {
        push("<a href=\"#unfinished\">Failed and skipped</a>");
    }
    push("<a href=\"#run\">What was run</a><a href=\"#reading\">How to read this</a></nav>\n");
    push("<h2 id=\"results\">Results</h2>\n");
    push(KEY);
    for group in &frame.groups {
        push(&results(frame, group));
    }
    if !pictures.is_empty() {
        push("<h2 id=\"charts\">Charts</h2>\n");
    }
    for picture in pictures {
        let label = format!("<svg role=\"img\" aria-label=\"{}\" ", escape(&picture.title));
        push(&format!("<figure>\n{}</figure>\n", picture.svg.replacen("<svg ", &label, 1)));
    }
    push(&unfinished);
    push(&what_was_run(frame));
    push(READING);
    push("</body>\n</html>\n");
    out
}

const KEY: &str = "<p class=\"key\">Lost of full precision: <span>under 1%</span><span class=\"l1\">1 to 5%</span>\
<span class=\"l2\">5 to 15%</span><span class=\"l3\">15 to 40%</span><span class=\"l4\">over 40%</span>\
<span class=\"up\">gained over 1%</span></p>\n";

/// A class by the part of full precision that is lost.
fn shade(frame: &Frame, row: &Row) -> &'static str {
    if row.is_full {
        return "";
    }
    match frame.kept(row).map(|k| 1. - k.share) {
        Some(lost) if lost > 0.40 => "l4",
        Some(lost) if lost > 0.15 => "l3",
        Some(lost) if lost > 0.05 => "l2",
        Some(lost) if lost > 0.01 => "l1",
        Some(lost) if lost < -0.01 => "up",
        _ => "",
    }
}

fn summary(frame: &Frame) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let of = |key: fn(&Record) -> String| frame.records.iter().map(key).collect::<BTreeSet<_>>().len();
    let mut text = [
        count(of(|r| r.model.name.clone()), "model"),
        count(of(|r| r.recipe.name.clone()), "recipe"),
        count(of(|r| format!("{:?}", (&r.task.suite, &r.task.name))), "task"),
        count(frame.records.len(), "cell"),
    ]
    .join(" · ");
    for what in ["failed", "skipped"] {
        let n = frame.records.iter().filter(|r| status(r) == what).count();
        if n > 0 {
            let _ = write!(text, " · {n} {what}");
        }
    }
    text
}

fn results(frame: &Frame, group: &Group) -> String {
    let head = &frame.records[group.recipes[0].record];
    let mut out = format!(
        "<h3>{} <small>{}</small></h3>\n",
        escape(&one_line(&group.title)),
        escape(&about_model(head))
    );
    let grid = Grid::new(frame, group, false);
    out.push_str(&grid_table(frame, group, &grid));
    if grid.cells.iter().flatten().any(|c| c.differs) {
        let _ = writeln!(
            out,
            "<p class=\"soft\">* differs from full precision: paired test, p &lt; {LEVEL} after Holm's correction over this table.</p>"
        );
    }
    let all = Grid::new(frame, group, true);
    if all.columns.len() > grid.columns.len() {
        let table = grid_table(frame, group, &all);
        let _ = write!(out, "<details>\n<summary>All metrics</summary>\n{table}</details>\n");
    }
    out
}

fn grid_table(frame: &Frame, group: &Group, grid: &Grid) -> String {
    let mut out = "<div class=\"wide\"><table class=\"results\">\n<thead><tr><th>recipe</th>".to_owned();
    out.push_str("<th>bits a<br>weight</th><th>size<br>MB</th>");
    for column in 0..grid.columns.len() {
        let (task, metric) = grid.head(frame, group, column);
        let metric = metric.map_or_else(String::new, |(name, higher)| {
            format!("<small>{} {}</small>", escape(&one_line(name)), if higher { "↑" } else { "↓" })
        });
        let _ = write!(out, "<th>{}{metric}</th>", escape(&one_line(task)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (line, cells) in group.recipes.iter().zip(&grid.cells) {
        let recipe = &frame.records[line.record].recipe;
        let is_full = cells.iter().any(|c| c.row.is_some_and(|r| r.is_full));
        let known = |x: f64, places: usize| if x > 0. { format!("{x:.places$}") } else { String::new() };
        let _ = write!(
            out,
            "<tr{}><th>{}</th><td>{}</td><td>{}</td>",
            if is_full { " class=\"full\"" } else { "" },
            escape(&one_line(&line.label)),
            known(recipe.bits_per_weight, 2),
            known(recipe.size_mb, if recipe.size_mb < 100. { 2 } else { 0 })
        );
        for cell in cells {
            out.push_str(&place(frame, cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
    out
}

fn place(frame: &Frame, cell: &Cell) -> String {
    if let (Some((status, _)), Some(row)) = (cell.note, cell.row) {
        let why = escape(&one_line(reason(frame.record(row))));
        return format!(
            "<td class=\"{}\" title=\"{why}\">{status}</td>",
            if status == "failed" { "bad" } else { "none" }
        );
    }
    let Some((row, value)) = cell.row.and_then(|r| Some((r, r.value?))) else {
        return "<td class=\"none\">–</td>".to_owned();
    };
    let (value, error) = fitted(value, row.stderr);
    let mut hint = row.n.map_or_else(String::new, |n| format!("n = {n}"));
    if let Some(p) = row.p_value {
        let _ = write!(hint, ", p = {}", if p < 1e-3 { format!("{p:.0e}") } else { format!("{p:.3}") });
    }
    let change = change(row).map_or_else(String::new, |c| {
        let text = c.replace('-', "−") + if cell.differs { " *" } else { "" };
        format!("<span>{}</span>", escape(&text))
    });
    let shade = shade(frame, row);
    let class = if shade.is_empty() { String::new() } else { format!(" class=\"{shade}\"") };
    let error = if error.is_empty() { error } else { format!(" <small>{error}</small>") };
    format!("<td{class} title=\"{hint}\">{value}{error}{change}</td>")
}

/// Every cell without values, grouped by reason.
fn unfinished(frame: &Frame) -> String {
    let mut by_reason: BTreeMap<(&str, &str), Vec<&Record>> = BTreeMap::new();
    for record in frame.records.iter().filter(|r| status(r) != "done") {
        by_reason.entry((status(record), reason(record))).or_default().push(record);
    }
    if by_reason.is_empty() {
        return String::new();
    }
    let mut out = "<h2 id=\"unfinished\">Failed and skipped</h2>\n<div class=\"wide\"><table>\n\
                   <thead><tr><th>status</th><th>why</th><th>cells</th></tr></thead>\n<tbody>\n"
        .to_owned();
    for ((status, why), records) in by_reason {
        let cells: Vec<String> = records
            .iter()
            .map(|r| {
                let cell = format!("{}/{}/{}", r.model.name, r.recipe.name, r.task.name);
                format!("<code>{}</code>", escape(&one_line(&cell)))
            })
            .collect();
        let class = if status == "failed" { " class=\"bad\"" } else { "" };
        let _ = writeln!(
            out,
            "<tr><td{class}>{status}</td><td>{}</td><td>{}</td></tr>",
            escape(why),
            cells.join("<br>")
        );
    }
    out + "</tbody></table></div>\n"
}

fn what_was_run(frame: &Frame) -> String {
    let text = |s: &str| escape(&one_line(s));
    let code = |s: &str| if s.is_empty() { String::new() } else { format!("<code>{}</code>", escape(s)) };
    let bits = |x: f64| if x > 0. { x.to_string() } else { String::new() };
    let models = frame.records.iter().map(|r| {
        let m = &r.model;
        let params = if m.params == 0 { String::new() } else { thousands(m.params) };
        vec![text(&m.name), text(&m.family), params, text(&m.stored), code(&m.revision)]
    });
    let recipes = frame.records.iter().map(|r| {
        let r = &r.recipe;
        let notes: String = r.notes.iter().map(|n| format!("<br>{}", text(n))).collect();
        let settings = code(&r.settings.to_string());
        vec![text(&r.name), bits(r.weight_bits), bits(r.act_bits), bits(r.kv_bits), settings + &notes]
    });
    let tasks = frame.records.iter().map(|r| {
        let t = &r.task;
        let name = if t.suite.is_empty() { t.name.clone() } else { format!("{}/{}", t.suite, t.name) };
        let metrics: Vec<&str> = t.metrics.iter().map(|m| m.name.as_str()).collect();
        let short: String = t.data.chars().take(12).collect();
        let data = if short.is_empty() {
            String::new()
        } else {
            format!("<code title=\"{}\">{}</code>", escape(&t.data), escape(&short))
        };
        vec![
            text(&name),
            t.version.to_string(),
            text(&t.ability),
            text(&metrics.join(", ")),
            t.chance.map_or_else(String::new, |c| fitted(c, None).0),
            text(&t.protocol),
            data,
        ]
    });
    let made = frame.records.iter().map(|r| {
        let by = &r.made_by;
        let limit = by.limit.map_or_else(|| "all".to_owned(), |n| format!("at most {n}"));
        vec![
            format!("bitsweep {}", text(&by.version)),
            text(&by.device),
            text(&by.dtype),
            by.seed.to_string(),
            limit,
        ]
    });
    let mut out = "<h2 id=\"run\">What was run</h2>\n".to_owned();
    out += "<h3>Models</h3>\n";
    out += &listing(&["model", "family", "parameters", "stored", "revision"], models);
    out += "<h3>Recipes</h3>\n<p class=\"soft\">Bits of weights, of activations entering a linear layer, of cached keys and values.</p>\n";
    out += &listing(&["recipe", "W", "A", "KV", "every setting"], recipes);
    out += "<h3>Tasks</h3>\n";
    out += &listing(&["task", "version", "ability", "metrics", "chance", "protocol", "data (sha256)"], tasks);
    out += "<h3>Made by</h3>\n";
    out + &listing(&["program", "device", "arithmetic", "seed", "items a task"], made)
}

/// A table of the distinct lines, in order of appearance.
fn listing(head: &[&str], lines: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |line: &[String]| line.iter().map(|c| format!("<td>{c}</td>")).collect::<String>();
    let head: String = head.iter().map(|h| format!("<th>{h}</th>")).collect();
    let body: String = distinct(lines).iter().map(|l| format!("<tr>{}</tr>\n", cells(l))).collect();
    format!(
        "<div class=\"wide\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
}

fn distinct<T: Ord + Clone>(of: impl Iterator<Item = T>) -> Vec<T> {
    let mut known = BTreeSet::new();
    of.filter(|x| known.insert(x.clone())).collect()
}

/// 1234567 as 1,234,567.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

const READING: &str = "<h2 id=\"reading\">How to read this</h2>\n<dl>\n\
<dt>value ± error</dt><dd>The error is one standard error, clustered by item (a window of text, a question): items are \
taken as a sample of all that could have been asked. It is absent where one item cannot tell.</dd>\n\
<dt>change</dt><dd>Value over that of the recipe <code>full</code> on the same model, task and metric, minus one. \
Colours show the part of full precision that is lost, whichever way the metric runs: for perplexity and its like, \
where lower is better, one minus full over value. Divergences are 0 at full precision and have no change.</dd>\n\
<dt>*</dt><dd>Both runs answered the same items, so they are compared item by item: McNemar's exact test where every \
item is right or wrong, else Student's t on the items' differences. Such a test sees changes that two separate \
errors hide. Holm's correction keeps the chance of even one false star in a table below 5%.</dd>\n\
<dt>bits a weight</dt><dd>Over the quantized layers, scales and zero points included. Size is the whole model's.</dd>\n\
<dt>charts</dt><dd>100% is full precision, and down is always worse. Error bars are one standard error of the ratio, \
by the delta method, the pairing of items taken into account. The dotted level is what a guess scores.</dd>\n\
<dt>the numbers</dt><dd><code>table.csv</code> beside this page has every number in full; \
<code>records.jsonl</code> and <code>items/</code> are what all of it was drawn from.</dd>\n</dl>\n";

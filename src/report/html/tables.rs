//! Tables of numbers: a table a model, what did not finish, and every number there is.
use super::{count, escape};
use crate::{
    report::{
        frame::{Frame, Group, Row, one_line},
        table::{Cell, Grid, LEVEL, about_model, change, fitted, reason, status},
    },
    results::Record,
};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Models whose tables are shown at once; further ones are folded.
const SHOWN: usize = 8;

/// Every model's table.
pub fn results(frame: &Frame) -> String {
    let mut out = "<section aria-labelledby=\"results\">\n<h2 id=\"results\">Results</h2>\n".to_owned();
    out.push_str(KEY);
    for (i, group) in frame.groups.iter().enumerate() {
        if i == SHOWN {
            let rest = count(frame.groups.len() - SHOWN, "more model");
            let _ = writeln!(out, "<details>\n<summary>{rest}</summary>");
        }
        out.push_str(&group_results(frame, group));
    }
    if frame.groups.len() > SHOWN {
        out.push_str("</details>\n");
    }
    out + "</section>\n"
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

fn group_results(frame: &Frame, group: &Group) -> String {
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
    let mut out = "<div class=\"wide\" tabindex=\"0\"><table class=\"sorts results\">\n<thead><tr><th scope=\"col\">recipe</th>".to_owned();
    out.push_str("<th scope=\"col\">bits a<br>weight</th><th scope=\"col\">size<br>MB</th>");
    for column in 0..grid.columns.len() {
        let (task, metric) = grid.head(frame, group, column);
        let metric = metric.map_or_else(String::new, |(name, higher)| {
            format!("<small>{} {}</small>", escape(&one_line(name)), if higher { "↑" } else { "↓" })
        });
        let _ = write!(out, "<th scope=\"col\">{}{metric}</th>", escape(&one_line(task)));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (line, cells) in group.recipes.iter().zip(&grid.cells) {
        let recipe = &frame.records[line.record].recipe;
        let is_full = cells.iter().any(|c| c.row.is_some_and(|r| r.is_full));
        let known = |x: f64, places: usize| if x > 0. { format!("{x:.places$}") } else { String::new() };
        let _ = write!(
            out,
            "<tr{}><th scope=\"row\">{}</th><td>{}</td><td>{}</td>",
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
    let sort = row.value.map_or_else(String::new, |v| format!(" data-v=\"{v}\""));
    format!("<td{class}{sort} title=\"{hint}\">{value}{error}{change}</td>")
}

/// Every cell without values, grouped by reason.
pub fn unfinished(frame: &Frame) -> String {
    let mut by_reason: BTreeMap<(&str, &str), Vec<&Record>> = BTreeMap::new();
    for record in frame.records.iter().filter(|r| status(r) != "done") {
        by_reason.entry((status(record), reason(record))).or_default().push(record);
    }
    if by_reason.is_empty() {
        return String::new();
    }
    let mut out = "<section aria-labelledby=\"unfinished\">\n<h2 id=\"unfinished\">Failed and skipped</h2>\n<div class=\"wide\" tabindex=\"0\"><table class=\"sorts\">\n\
                   <thead><tr><th scope=\"col\">status</th><th scope=\"col\">why</th><th scope=\"col\">cells</th></tr></thead>\n<tbody>\n"
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
    out + "</tbody></table></div>\n</section>\n"
}

/// What a row of all numbers shows: heads, and whether it is a number.
const NUMBERS: [(&str, bool); 15] = [
    ("model", false),
    ("recipe", false),
    ("task", false),
    ("metric", false),
    ("value", true),
    ("±", true),
    ("n", true),
    ("full", true),
    ("change", true),
    ("± ", true),
    ("p", true),
    ("kept %", true),
    ("95 % interval", false),
    ("finds", true),
    ("status", false),
];

/// Every number, as data that the page's script makes a table of: a large study has ten thousand rows, and a page that holds them
/// as markup opens slowly.
pub fn numbers(frame: &Frame) -> String {
    let number = |x: Option<f64>| match x.filter(|x| x.is_finite()) {
        // Enough to read; table.csv has all digits.
        Some(x) => json!(format!("{x:.5e}").parse::<f64>().unwrap_or(x)),
        None => Json::Null,
    };
    let rows: Vec<Json> = frame
        .rows
        .iter()
        .enumerate()
        .map(|(at, row)| {
            let record = frame.record(row);
            let paired = frame.paired.get(&at);
            let interval = paired.and_then(|p| p.recovery_interval());
            let task = [record.task.suite.as_str(), &record.task.name];
            let task = task.into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join("/");
            json!([
                one_line(&record.model.name),
                one_line(&record.recipe.name),
                one_line(&task),
                frame.metric(row).map_or_else(String::new, |m| one_line(&m.name)),
                number(row.value),
                number(row.stderr),
                row.n,
                number(row.full),
                number(row.delta),
                number(row.delta_stderr),
                number(row.p_value),
                number(paired.and_then(|p| p.recovery)),
                interval.map_or_else(String::new, |[low, high]| format!("{low:.1} to {high:.1}")),
                number(paired.and_then(|p| p.detectable)),
                status_and_why(record),
            ])
        })
        .collect();
    let data = json!({ "head": NUMBERS.map(|(name, _)| name.trim()), "numeric": NUMBERS.map(|n| n.1), "rows": rows });
    // Inside of a script element, only `</` could end it; a JSON text may write `<` so.
    let data = data.to_string().replace('<', "\\u003c");
    format!(
        "<section aria-labelledby=\"numbers\">\n<h2 id=\"numbers\">All numbers</h2>\n<p class=\"soft\">{}, every metric of every \
         cell. The same, with all digits and more columns, are <a href=\"table.csv\">table.csv</a> and \
         <a href=\"paired.csv\">paired.csv</a> beside this page; on paper, the first 2,000 rows.</p>\n<noscript><p>Without scripts \
         they are in those files alone.</p></noscript>\n<div id=\"all\"></div>\n<script type=\"application/json\" id=\"data\">{data}</script>\n</section>\n",
        count(frame.rows.len(), "row")
    )
}

fn status_and_why(record: &Record) -> String {
    match reason(record) {
        "" => String::new(),
        why => format!("{}: {}", status(record), one_line(why)),
    }
}

//! Published figures beside ours: a section of the page, from the rows that `published.csv` has.
use super::{frame::one_line, html::escape};
use crate::published::beside::{Beside, Verdict};

/// What the table says of itself.
const ABOUT: &str = "Figures of the same model, recipe, task and protocol that others have printed. \
A tolerance is what such figures differ by between papers; a verdict is of ours within it.";

/// A table of every pair. Empty where there is none.
pub fn section(rows: &[Beside]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!("<p class=\"soft\">{ABOUT}</p>\n");
    out.push_str("<div class=\"wide\" tabindex=\"0\"><table class=\"sorts\">\n<thead><tr>");
    for name in [
        "model",
        "recipe",
        "task",
        "metric",
        "ours",
        "published",
        "difference",
        "tolerance",
        "verdict",
        "source",
    ] {
        out.push_str(&format!("<th scope=\"col\">{name}</th>"));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        let error = row.stderr.map_or(String::new(), |e| format!(" ± {}", short(e)));
        let cells = [
            one_line(&row.model),
            one_line(&row.recipe),
            one_line(&row.task),
            one_line(&row.metric),
            format!("{}{error}", short(row.ours)),
            short(row.published),
            format!("{}{}", if row.difference() > 0. { "+" } else { "" }, short(row.difference())),
            row.tolerance.map_or(String::new(), short),
            row.verdict.to_string(),
            row.figure.series.source.to_string(),
        ];
        out.push_str("<tr>");
        for (i, cell) in cells.iter().enumerate() {
            let title = match i {
                8 => row.figure.suspect.map(String::from),
                9 => Some(format!(
                    "{}; {}; grid: {}",
                    row.figure.series.citation, row.figure.series.table, row.grid
                )),
                _ => None,
            };
            let title = title.map_or(String::new(), |t| format!(" title=\"{}\"", escape(&one_line(&t))));
            let class = if i == 8 && off(&row.verdict) { " class=\"bad\"" } else { "" };
            out.push_str(&format!("<td{class}{title}>{}</td>", escape(cell)));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
    out
}

fn off(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Off(_) | Verdict::Magnitude(false) => true,
        Verdict::Ranking(_, otherwise) => !otherwise.is_empty(),
        Verdict::Alone(inner) => off(inner),
        Verdict::Agrees | Verdict::Magnitude(true) | Verdict::Open | Verdict::Suspect => false,
    }
}

/// Four significant digits, as people read them.
fn short(x: f64) -> String {
    if x == 0. {
        return "0".into();
    }
    let before = x.abs().log10().floor();
    if !(-5. ..6.).contains(&before) {
        return format!("{x:.3e}");
    }
    let digits = (3. - before).clamp(0., 8.) as usize;
    format!("{x:.digits$}")
}

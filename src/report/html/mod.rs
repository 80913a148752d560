//! `report.html`: one page that needs nothing else. The answer first, then every number that it rests on, then how to get it again.
//!
//! All of it reads without a script. With one (`page.js`, in the page), tables sort and filter, and the table of all numbers is
//! built from the data that stands in the page. Nothing is fetched.
mod answer;
mod run;
mod tables;

use super::{
    charts::{CHARTS, Picture},
    frame::{Frame, one_line},
    table::status,
};
use crate::results::Record;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// A part of the page that is made elsewhere.
pub struct Section {
    /// For links to it.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What stands below the heading.
    pub html: String,
}

/// Pictures of a chart that are shown at once; further ones are folded.
const SHOWN: usize = 3;
/// Pictures of a chart that are in the page at all: of a study of fifty models, the others are files beside it.
const WITHIN: usize = 6;

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
pub fn page(frame: &Frame, pictures: &[Picture], sections: &[Section]) -> String {
    let models: Vec<String> = distinct(frame.records.iter().map(|r| one_line(&r.model.name)));
    let title = match models.len() {
        0 => "What quantization costs".to_owned(),
        1..=3 => format!("What quantization costs {}", models.join(", ")),
        n => format!("What quantization costs {n} models"),
    };
    let header = format!(
        "<h1>{}</h1>\n<p class=\"soft\">{}</p>\n{}",
        escape(&title),
        escape(&summary(frame)),
        badges(frame)
    );
    if frame.records.is_empty() {
        return whole(&title, &header, "<main>\n<p>No cell has finished yet.</p>\n</main>\n");
    }
    let mut parts: Vec<(&str, &str, String)> = vec![
        ("answer", "The answer", answer::section(frame)),
        ("results", "Results", tables::results(frame)),
        ("charts", "Charts", charts(pictures)),
    ];
    for section in sections.iter().filter(|s| !s.html.is_empty()) {
        let html = format!(
            "<section aria-labelledby=\"{0}\">\n<h2 id=\"{0}\">{1}</h2>\n{2}</section>\n",
            section.id,
            escape(section.title),
            section.html
        );
        parts.push((section.id, section.title, html));
    }
    parts.push(("unfinished", "Failed and skipped", tables::unfinished(frame)));
    parts.push(("numbers", "All numbers", tables::numbers(frame)));
    parts.push(("run", "What was run", run::section(frame)));
    parts.push(("again", "Run it again", run::again(frame)));
    parts.push(("reading", "How to read this", READING.to_owned()));
    parts.retain(|(.., html)| !html.is_empty());
    let mut out = "<nav aria-label=\"Contents\">".to_owned();
    for (id, name, _) in &parts {
        let _ = write!(out, "<a href=\"#{id}\">{}</a>", escape(name));
    }
    out.push_str("</nav>\n<main>\n");
    parts.iter().for_each(|(.., html)| out.push_str(html));
    whole(&title, &header, &(out + "</main>\n"))
}

/// A page around its content, with all that it needs.
pub fn whole(title: &str, header: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n\
         <header>\n{header}</header>\n{content}<script>\n{}</script>\n</body>\n</html>\n",
        escape(title),
        include_str!("page.css"),
        include_str!("page.js")
    )
}

/// A cell of a table: a class, what it sorts by (a number, or nothing where its text will do), and its content.
fn cell(class: &str, sort: &str, html: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let sort = if sort.is_empty() { String::new() } else { format!(" data-v=\"{sort}\"") };
    format!("<td{class}{sort}>{html}</td>")
}

/// A table that sorts and filters: heads as HTML, rows as cells.
fn table(class: &str, head: &[String], rows: &[String]) -> String {
    let head: String = head.iter().map(|h| format!("<th scope=\"col\">{h}</th>")).collect();
    let body: String = rows.iter().map(|r| format!("<tr>{r}</tr>\n")).collect();
    format!(
        "<div class=\"wide\" tabindex=\"0\"><table class=\"sorts {class}\">\n<thead><tr>{head}</tr></thead>\n\
         <tbody>\n{body}</tbody></table></div>\n"
    )
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn summary(frame: &Frame) -> String {
    let of = |key: fn(&Record) -> String| frame.records.iter().map(key).collect::<BTreeSet<_>>().len();
    [
        count(of(|r| r.model.name.clone()), "model"),
        count(of(|r| r.recipe.name.clone()), "recipe"),
        count(of(|r| format!("{:?}", (&r.task.suite, &r.task.name))), "task"),
        count(frame.records.len(), "cell"),
    ]
    .join(" · ")
}

/// What did not finish, where nobody can miss it.
fn badges(frame: &Frame) -> String {
    let of = |what: &str| frame.records.iter().filter(|r| status(r) == what).count();
    let badge = |n: usize, class: &str, text: &str| match n {
        0 => String::new(),
        _ => format!("<a class=\"badge {class}\" href=\"#unfinished\">{} {text}</a>\n", count(n, "cell")),
    };
    badge(of("failed"), "bad", "failed") + &badge(of("skipped"), "", "skipped")
}

/// Charts by question; of a question with many pictures, the rest is folded.
fn charts(pictures: &[Picture]) -> String {
    if pictures.is_empty() {
        return String::new();
    }
    let mut out = "<section aria-labelledby=\"charts\">\n<h2 id=\"charts\">Charts</h2>\n".to_owned();
    for chart in CHARTS {
        let mine = |p: &&Picture| p.name.strip_prefix(chart.name()).is_some_and(|rest| rest.starts_with('-'));
        let mine: Vec<&Picture> = pictures.iter().filter(mine).collect();
        if mine.is_empty() {
            continue;
        }
        let _ = writeln!(out, "<h3>{}</h3>", escape(chart.about()));
        let (within, beside) = mine.split_at(mine.len().min(WITHIN));
        let (shown, folded) = within.split_at(within.len().min(SHOWN));
        shown.iter().for_each(|p| out.push_str(&figure(p)));
        if !folded.is_empty() {
            let _ = writeln!(out, "<details>\n<summary>{}</summary>", count(folded.len(), "more chart"));
            folded.iter().for_each(|p| out.push_str(&figure(p)));
            out.push_str("</details>\n");
        }
        if !beside.is_empty() {
            let _ = writeln!(
                out,
                "<p class=\"soft\">{} beside this page, <code>{}-*.svg</code>.</p>",
                count(beside.len(), "further chart"),
                escape(chart.name())
            );
        }
    }
    out + "</section>\n"
}

/// A picture in a page, with its question below.
pub fn figure(picture: &Picture) -> String {
    let title = escape(&picture.title);
    let label = format!("<svg role=\"img\" aria-label=\"{title}\" ");
    let svg = picture.svg.replacen("<svg ", &label, 1);
    format!("<figure>\n{svg}<figcaption>{title}</figcaption>\n</figure>\n")
}

fn distinct<T: Ord + Clone>(of: impl Iterator<Item = T>) -> Vec<T> {
    let mut known = BTreeSet::new();
    of.filter(|x| known.insert(x.clone())).collect()
}

const READING: &str = "<section aria-labelledby=\"reading\">\n<h2 id=\"reading\">How to read this</h2>\n<dl>\n\
<dt>value ± error</dt><dd>The error is one standard error, clustered by item (a window of text, a question): items are \
taken as a sample of all that could have been asked. It is absent where one item cannot tell.</dd>\n\
<dt>change</dt><dd>Value over that of the recipe <code>full</code> on the same model, task and metric, minus one. \
Colours show the part of full precision that is lost, whichever way the metric runs: for perplexity and its like, \
where lower is better, one minus full over value. Divergences are 0 at full precision and have no change.</dd>\n\
<dt>*</dt><dd>Both runs answered the same items, so they are compared item by item: McNemar's exact test where every \
item is right or wrong, else Student's t on the items' differences. Such a test sees changes that two separate \
errors hide. Holm's correction keeps the chance of even one false star in a table below 5%.</dd>\n\
<dt>kept, finds</dt><dd>What is left of full precision with a 95% bootstrap interval, and the smallest true difference that \
these items would have shown four times in five. No star and a large number there means: not asked enough.</dd>\n\
<dt>bits a weight</dt><dd>Over the quantized layers, scales and zero points included. Size is the whole model's.</dd>\n\
<dt>charts</dt><dd>100% is full precision, and down is always worse. Error bars are one standard error of the ratio, \
by the delta method, the pairing of items taken into account. The dotted level is what a guess scores.</dd>\n\
<dt>the numbers</dt><dd><code>table.csv</code> and <code>paired.csv</code> beside this page have every number in full; \
<code>records.jsonl</code> and <code>items/</code> are what all of it was drawn from.</dd>\n</dl>\n</section>\n";

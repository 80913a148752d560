//! What was run, and how to run it again.
use super::{distinct, escape};
use crate::report::{
    frame::{FULL, Frame, one_line},
    table::fitted,
};
use std::fmt::Write as _;

/// Models, recipes with every setting, tasks, and by what all of it was made.
pub fn section(frame: &Frame) -> String {
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
    let mut out = "<section aria-labelledby=\"run\">\n<h2 id=\"run\">What was run</h2>\n".to_owned();
    out += "<h3>Models</h3>\n";
    out += &listing(&["model", "family", "parameters", "stored", "revision"], models);
    out += "<h3>Recipes</h3>\n<p class=\"soft\">Bits of weights, of activations entering a linear layer, of cached keys and values.</p>\n";
    out += &listing(&["recipe", "W", "A", "KV", "every setting"], recipes);
    out += "<h3>Tasks</h3>\n";
    out += &listing(&["task", "version", "ability", "metrics", "chance", "protocol", "data (sha256)"], tasks);
    out += "<h3>Made by</h3>\n";
    out += &listing(&["program", "device", "arithmetic", "seed", "items a task"], made);
    out + "</section>\n"
}

/// A table of the distinct lines, in order of appearance.
fn listing(head: &[&str], lines: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |line: &[String]| line.iter().map(|c| format!("<td>{c}</td>")).collect::<String>();
    let head: String = head.iter().map(|h| format!("<th scope=\"col\">{h}</th>")).collect();
    let body: String = distinct(lines).iter().map(|l| format!("<tr>{}</tr>\n", cells(l))).collect();
    format!(
        "<div class=\"wide\" tabindex=\"0\"><table class=\"sorts\">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n"
    )
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

/// A study that asks the same again, and the commands.
pub fn again(frame: &Frame) -> String {
    let text = |s: &str| toml_text(&one_line(s));
    let list = |key: &str, of: Vec<String>| {
        let inside: Vec<String> = of.iter().map(|s| text(s)).collect();
        let flat = format!("{key} = [{}]\n", inside.join(", "));
        if flat.len() <= 100 { flat } else { format!("{key} = [\n    {},\n]\n", inside.join(",\n    ")) }
    };
    let records = || frame.records.iter();
    let mut study = list("models ", distinct(records().map(|r| r.model.name.clone())));
    let recipes = records().map(|r| r.recipe.name.clone()).filter(|r| r != FULL);
    study += &list("recipes", distinct(recipes));
    let task = |suite: &str, name: &str| match suite {
        "" => format!("{name}.toml"),
        suite => format!("{suite}/{name}"),
    };
    study += &list("tasks  ", distinct(records().map(|r| task(&r.task.suite, &r.task.name))));
    let limits = distinct(records().map(|r| r.made_by.limit));
    let seeds = distinct(records().map(|r| r.made_by.seed));
    if let [Some(limit)] = limits[..] {
        let _ = writeln!(study, "limit   = {limit}");
    }
    if let [seed] = seeds[..]
        && seed != 0
    {
        let _ = writeln!(study, "seed    = {seed}");
    }
    let versions = distinct(records().map(|r| one_line(&r.made_by.version)));
    let machines = distinct(records().map(|r| format!("{} in {}", r.made_by.device, r.made_by.dtype)));
    let mut out = format!(
        "<section aria-labelledby=\"again\">\n<h2 id=\"again\">Run it again</h2>\n<p>With bitsweep {} (<code>bitsweep --version</code>), on {}, \
         the study below as <code>study.toml</code>:</p>\n<pre><code>bitsweep plan study.toml\nbitsweep run study.toml\n</code></pre>\n\
         <pre><code>about   = \"The same cells again\"\n{}</code></pre>\n",
        escape(&versions.join(", ")),
        escape(&machines.join(", ")),
        escape(&study)
    );
    if limits.len() > 1 || seeds.len() > 1 {
        out.push_str("<p class=\"soft\">These cells were run with several limits or seeds: see above.</p>\n");
    }
    out.push_str(
        "<p class=\"soft\">A recipe that the study spelled out in a table, and a task in a file of one's own, are in full above \
         under their names. <code>bitsweep report DIR</code> draws this page from <code>records.jsonl</code> and \
         <code>items/</code> again, byte for byte.</p>\n",
    );
    out + "</section>\n"
}

/// A text as TOML has it.
fn toml_text(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out + "\""
}

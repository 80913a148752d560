//! Verdicts for eyes and for machines: a table, Markdown for a CI page, JUnit's XML, GitHub's annotations.
use super::{State, Verdict, rules::rounded};
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use std::fmt::Write as _;

impl State {
    /// In a word.
    fn word(self) -> &'static str {
        match self {
            State::Pass => "pass",
            State::Fail => "FAIL",
            State::Inconclusive(_) => "inconclusive",
            State::Refused => "REFUSED",
        }
    }
}

/// Those that pass first: the bad ones stand last, where they are read.
fn ordered(verdicts: &[Verdict]) -> Vec<&Verdict> {
    let rank = |v: &Verdict| match v.state {
        State::Pass => 0,
        State::Inconclusive(_) => 1,
        State::Refused => 2,
        State::Fail => 3,
    };
    let mut all: Vec<&Verdict> = verdicts.iter().collect();
    all.sort_by_key(|v| rank(v));
    all
}

fn number(x: Option<f64>) -> String {
    x.map_or_else(String::new, |x| rounded(x).to_string())
}

/// Two significant digits: what an error deserves.
fn error(x: f64) -> String {
    format!("{x:.1e}").parse::<f64>().unwrap_or(x).to_string()
}

fn change(v: &Verdict) -> String {
    let Some(delta) = v.now.zip(v.before).map(|(now, before)| rounded(now - before)) else {
        return String::new();
    };
    let error = v.stderr.map_or_else(String::new, |se| format!(" ± {}", error(se)));
    if delta == 0. && v.stderr.is_none_or(|se| se == 0.) {
        "none".into()
    } else {
        format!("{delta:+}{error}")
    }
}

fn p(v: &Verdict) -> String {
    match v.p_value {
        Some(p) if p < 1e-3 => format!("{p:.0e}"),
        Some(p) => format!("{p:.3}"),
        None => String::new(),
    }
}

/// What stands beside the numbers: why, or how many items would tell.
fn remark(v: &Verdict) -> String {
    let needs = match v.state {
        State::Inconclusive(Some(items)) => format!("needs about {items} items"),
        State::Inconclusive(None) => "no number of items tells: the loss is the limit".to_owned(),
        _ => String::new(),
    };
    [needs.as_str(), &v.why].into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join("; ")
}

/// `gate: 10 passed, 1 failed`.
pub fn summary(verdicts: &[Verdict]) -> String {
    let count = |which: fn(&State) -> bool| verdicts.iter().filter(|v| which(&v.state)).count();
    let counts = [
        (count(|s| matches!(s, State::Pass)), "passed"),
        (count(|s| matches!(s, State::Fail)), "failed"),
        (count(|s| matches!(s, State::Inconclusive(_))), "inconclusive"),
        (count(|s| matches!(s, State::Refused)), "refused"),
    ];
    let said = counts.iter().filter(|(n, what)| *n > 0 || *what == "passed");
    format!("gate: {}", said.map(|(n, what)| format!("{n} {what}")).collect::<Vec<_>>().join(", "))
}

const HEAD: [&str; 10] = ["verdict", "cell", "metric", "before", "now", "change", "p", "n", "finds", "rule"];

fn line(v: &Verdict) -> Vec<String> {
    vec![
        v.state.word().to_owned(),
        v.cell.join(" / "),
        v.metric.clone(),
        number(v.before),
        number(v.now),
        change(v),
        p(v),
        v.n.map_or_else(String::new, |n| n.to_string()),
        v.detectable.map_or_else(String::new, error),
        v.rule.clone(),
    ]
}

/// A table for a terminal, then what must be said of single lines, then a summary. `finds`: the smallest true difference that
/// these items find four times in five.
pub fn table(verdicts: &[Verdict]) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    // Where there is one rule only, it is said once.
    let rule =
        verdicts.first().map(|v| v.rule.clone()).filter(|rule| verdicts.iter().all(|v| v.rule == *rule));
    let columns = HEAD.len() - usize::from(rule.is_some());
    table.set_header(&HEAD[..columns]);
    for v in ordered(verdicts) {
        table.add_row(line(v).into_iter().take(columns));
    }
    for column in table.column_iter_mut().skip(3).take(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = format!("{}\n", table.trim_fmt());
    if let Some(rule) = rule.filter(|r| !r.is_empty()) {
        let _ = writeln!(out, "rule: {rule}");
    }
    for v in ordered(verdicts) {
        let remark = remark(v);
        if !remark.is_empty() {
            let _ = writeln!(out, "{}: {}: {remark}", v.state.word(), v.what());
        }
    }
    out + &summary(verdicts)
}

/// A summary for a CI's page: what is bad first, the rest folded.
pub fn markdown(verdicts: &[Verdict], title: &str) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace(['\n', '\r'], " ");
    let bad = |v: &&&Verdict| !matches!(v.state, State::Pass);
    let all = ordered(verdicts);
    let (worse, fine): (Vec<&Verdict>, Vec<&Verdict>) = {
        let worse = all.iter().filter(bad).rev().copied().collect();
        (worse, all.iter().filter(|v| !bad(v)).copied().collect())
    };
    let rows = |of: &[&Verdict]| -> String {
        let head = format!("| {} | remark |\n|{}\n", HEAD.join(" | "), "---|".repeat(HEAD.len() + 1));
        of.iter().fold(head, |mut out, v| {
            let line: Vec<String> = line(v).iter().map(|c| cell(c)).collect();
            let _ = writeln!(out, "| {} | {} |", line.join(" | "), cell(&remark(v)));
            out
        })
    };
    let mark = if worse.iter().any(|v| v.is_bad(false)) { "❌" } else { "✅" };
    let mut out = format!("## {mark} {}\n\n{}\n", cell(title), summary(verdicts));
    if !worse.is_empty() {
        let _ = write!(out, "\n{}", rows(&worse));
    }
    if !fine.is_empty() {
        let _ = write!(
            out,
            "\n<details><summary>{} passed</summary>\n\n{}\n</details>\n",
            fine.len(),
            rows(&fine)
        );
    }
    out
}

/// Text as XML has it, in elements and in attributes; what XML 1.0 cannot hold is a space.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// JUnit's XML, as CI systems read it: a test a verdict; inconclusive ones are skipped tests, unless they count as failures.
pub fn junit(verdicts: &[Verdict], strict: bool) -> String {
    let failures = verdicts.iter().filter(|v| v.is_bad(strict)).count();
    let skipped = |v: &&Verdict| matches!(v.state, State::Inconclusive(_)) && !strict;
    let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let _ = writeln!(
        out,
        "<testsuite name=\"bitsweep gate\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"{}\">",
        verdicts.len(),
        verdicts.iter().filter(skipped).count()
    );
    for v in verdicts {
        let [model, recipe, task] = &v.cell;
        let name = if v.rule.is_empty() { v.metric.clone() } else { format!("{}: {}", v.metric, v.rule) };
        let class = format!("{model}.{recipe}.{task}");
        let _ = write!(out, "  <testcase classname=\"{}\" name=\"{}\"", xml(&class), xml(&name));
        let numbers = numbers(v);
        let _ = if v.is_bad(strict) {
            writeln!(
                out,
                ">\n    <failure message=\"{}\">{}</failure>\n  </testcase>",
                xml(&message(v)),
                xml(&numbers)
            )
        } else if skipped(&v) {
            writeln!(out, ">\n    <skipped message=\"{}\"/>\n  </testcase>", xml(&message(v)))
        } else {
            writeln!(out, ">\n    <system-out>{}</system-out>\n  </testcase>", xml(&numbers))
        };
    }
    out + "</testsuite>\n"
}

/// `1.42 -> 1.63 (+0.21 ± 0.02, p = 3e-9, n = 40)`.
fn numbers(v: &Verdict) -> String {
    let Some((before, now)) = v.before.zip(v.now) else { return String::new() };
    let mut inside = vec![change(v)];
    if v.p_value.is_some() {
        inside.push(format!("p = {}", p(v)));
    }
    inside.extend(v.n.map(|n| format!("n = {n}")));
    format!("{} -> {} ({})", rounded(before), rounded(now), inside.join(", "))
}

/// A verdict in a line.
fn message(v: &Verdict) -> String {
    let all = [v.state.word().to_owned(), v.rule.clone(), numbers(v), remark(v)];
    all.into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join("; ")
}

/// GitHub's workflow commands: an error a bad verdict, a warning an inconclusive one.
pub fn annotations(verdicts: &[Verdict], strict: bool) -> String {
    // As the runner unescapes them: a property has two characters more.
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for v in verdicts.iter().filter(|v| !matches!(v.state, State::Pass)) {
        let kind = if v.is_bad(strict) { "error" } else { "warning" };
        let _ = writeln!(out, "::{kind} title={}::{}", property(&v.what()), data(&message(v)));
    }
    out
}

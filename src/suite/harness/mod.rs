//! lm-evaluation-harness's task files: its YAML becomes a [`Task`], and all behind it is as for any other task.
//!
//! A key means what it means in release 0.4.13. What would be Python (`!function`), what is not known, and what is known
//! but not computed here are errors that name the file and the key. Nothing is run.
mod config;
mod group;
mod said;
mod scoring;
mod sources;

use super::{data::Place, find::Found, task::Task, yaml::Node};
use crate::{mistake, mistake::Blame, mistake::nearest};
use anyhow::Result;
use config::{Config, texts};
use said::{Said, constant};
use scoring::{CHOICE, CLOZE, GENERATE, ROLLING, filters, metrics, only_first};
use serde_json::{Value, json};
use std::path::Path;

/// The tasks of a file: one, or a group's.
pub fn find(path: &Path) -> Result<Vec<Found>> {
    let config = Config::load(path)?;
    match (config.get("group"), config.get("task")) {
        (None, Some(Node::List(_))) | (Some(_), _) => group::tasks(&config),
        _ => Ok(vec![task(&config, "", None)?]),
    }
}

/// One task. `name`: in place of its own.
fn task(c: &Config, suite: &str, name: Option<&str>) -> Result<Found> {
    c.check()?;
    let label = c.label();
    let Some(name) = name.map(str::to_string).or(c.text("task")?) else {
        mistake!("`{label}`: no `task` names it: a file that others include is no task");
    };
    if name.is_empty() || name.contains(['/', '\\']) {
        mistake!("{} is `{name}`; it is a name, without a slash", c.at("task"));
    }
    let kind = c.text("output_type")?.unwrap_or_else(|| "generate_until".into());
    let (metrics, ask) = match kind.as_str() {
        "multiple_choice" => (metrics(c, CHOICE)?.0, json!({ "choice": choice(c)? })),
        "loglikelihood" => (metrics(c, CLOZE)?.0, json!({ "cloze": cloze(c)? })),
        "loglikelihood_rolling" => {
            let text = target(c)?.words(&c.at("doc_to_target"))?;
            (metrics(c, ROLLING)?.0, json!({ "perplexity": { "text": text, "protocol": "rolling" } }))
        }
        "generate_until" => {
            let (names, exact) = metrics(c, GENERATE)?;
            let (filters, generate) = generate(c, exact)?;
            // Where there are several filters, each one's value.
            let each = |m: &String| filters.iter().map(|f| format!("{m}:{f}")).collect::<Vec<_>>();
            let names = if filters.len() > 1 { names.iter().flat_map(each).collect() } else { names };
            (names, json!({ "generate": generate }))
        }
        other => mistake!(
            "{} is `{other}`{}; there are: {}",
            c.at("output_type"),
            nearest(other, OUTPUTS.iter().copied()),
            OUTPUTS.join(", ")
        ),
    };
    if kind != "generate_until" {
        only_first(c)?;
    }
    let about =
        c.text("task_alias")?.filter(|alias| *alias != name).map_or(String::new(), |a| format!(" ({a})"));
    let mut all = json!({
        "about": format!("lm-evaluation-harness's {name}{about}"),
        "version": version(c),
        "metrics": metrics,
        "data": sources::items(c, &name)?,
        "ask": ask,
    });
    if sources::is_lines(c)? {
        all["fields"] = json!({ "text": r#"{{ text.rstrip("\r\n") }}"# });
    }
    let shots = c.whole("num_fewshot", 0)?;
    if shots > 0 && kind != "loglikelihood_rolling" {
        all["fewshot"] = fewshot(c, shots, &kind, &name)?;
    }
    let text = toml::Table::try_from(&all).blame(format!("`{label}`"))?.to_string();
    Ok(Found {
        suite: suite.into(),
        name,
        task: Task::parse(&label, &text)?,
        place: Place::Folder(c.path.parent().unwrap_or(Path::new("")).to_path_buf()),
        label,
    })
}

const OUTPUTS: &[&str] = &["multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"];

/// The whole part of `metadata.version`: what else it says is in the task itself.
fn version(c: &Config) -> u32 {
    let said = match c.get("metadata") {
        Some(Node::Table(table)) => table.get("version"),
        _ => None,
    };
    match said {
        Some(Node::Int(n)) => u32::try_from(*n).unwrap_or(0),
        Some(Node::Float(x)) if x.is_finite() && *x >= 0. => *x as u32,
        Some(Node::Text(t)) => t.split('.').next().and_then(|first| first.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

fn said(c: &Config, key: &str) -> Result<Said> {
    match c.get(key) {
        Some(node) => Said::read(&c.at(key), node, c.get("doc_to_choice").is_some()),
        None => mistake!("`{}`: no `{key}`", c.label()),
    }
}

fn target(c: &Config) -> Result<Said> {
    said(c, "doc_to_target")
}

/// A delimiter: a text as it stands.
fn delimiter(c: &Config, key: &str, usual: &str) -> Result<String> {
    Ok(c.text(key)?.unwrap_or_else(|| usual.into()))
}

fn description(c: &Config) -> Result<String> {
    match c.get("description") {
        Some(node) => Said::read(&c.at("description"), node, false)?.words(&c.at("description")),
        None => Ok(String::new()),
    }
}

/// `doc_to_choice`: the endings as a task has them, and as an expression.
fn choices(c: &Config) -> Result<(Value, Option<String>)> {
    let at = c.at("doc_to_choice");
    let list: Vec<&Node> = match c.get("doc_to_choice") {
        None => mistake!("`{}`: a multiple_choice task has `doc_to_choice`", c.label()),
        Some(Node::List(list)) => list.iter().collect(),
        Some(Node::Table(table)) => table.0.iter().map(|(_, node)| node).collect(),
        Some(node) => {
            return Ok(match Said::read(&at, node, true)? {
                Said::Number(n) => {
                    mistake!("{at} is {n}; it is a list, a template that gives one, or a field")
                }
                Said::Template(source) => {
                    let expression = Said::Template(source.clone()).expression();
                    (json!(source.trim()), expression)
                }
                Said::Field(name) => {
                    let expression = Said::Field(name).expression();
                    (json!(format!("{{{{ {} }}}}", expression.clone().unwrap_or_default())), expression)
                }
            });
        }
    };
    let text = |(i, node): (usize, &&Node)| match node {
        Node::Text(text) => Ok(text.clone()),
        other => mistake!("{at}: number {} is {}; it is a text", i + 1, other.words()),
    };
    let texts: Vec<String> = list.iter().enumerate().map(text).collect::<Result<_>>()?;
    if texts.is_empty() {
        mistake!("{at} is empty");
    }
    Ok((json!(texts.iter().map(|t| constant(t)).collect::<Vec<_>>()), Some(json!(texts).to_string())))
}

fn choice(c: &Config) -> Result<Value> {
    let gold = match target(c)? {
        Said::Number(n) => n.to_string(),
        // pandas takes a column of digits for numbers.
        field @ Said::Field(_) if c.get("dataset_path") == Some(&Node::Text("csv".into())) => {
            as_text(&format!("{{{{ {} }}}}", field.expression().unwrap_or_default()))
        }
        field @ Said::Field(_) => format!("{{{{ {} | told }}}}", field.expression().unwrap_or_default()),
        Said::Template(source) => as_text(&source),
    };
    Ok(json!({
        "description": description(c)?,
        "prompt": said(c, "doc_to_text")?.words(&c.at("doc_to_text"))?,
        "endings": choices(c)?.0,
        "gold": gold,
        "delimiter": delimiter(c, "target_delimiter", " ")?,
    }))
}

/// A template whose value is the text that it renders, even where it is one expression: `True` is then a text.
fn as_text(source: &str) -> String {
    format!("{{##}}{source}")
}

fn cloze(c: &Config) -> Result<Value> {
    if c.get("doc_to_choice").is_some() {
        mistake!("{}: a loglikelihood task has one ending, `doc_to_target`", c.at("doc_to_choice"));
    }
    Ok(json!({
        "description": description(c)?,
        "prompt": said(c, "doc_to_text")?.words(&c.at("doc_to_text"))?,
        "ending": target(c)?.words(&c.at("doc_to_target"))?,
        "delimiter": delimiter(c, "target_delimiter", " ")?,
    }))
}

/// The filters' names, and what is asked.
fn generate(c: &Config, exact: Value) -> Result<(Vec<String>, Value)> {
    let target = target(c)?;
    let gold = match (c.get("doc_to_choice").is_some(), &target) {
        (true, target) => {
            let index = match target {
                Said::Template(_) => target.expression().map(|e| format!("{e} | int")),
                other => other.expression(),
            };
            let (Some(list), Some(index)) = (choices(c)?.1, index) else {
                mistake!(
                    "{}: with `doc_to_choice`, it is one expression that gives an index",
                    c.at("doc_to_target")
                )
            };
            format!("{{{{ {list}[{index}] }}}}")
        }
        (false, Said::Number(n)) => n.to_string(),
        (false, target) => match target.expression() {
            Some(expression) => format!("{{{{ {expression} | answers }}}}"),
            None => target.words("")?,
        },
    };
    let mut all = json!({
        "description": description(c)?,
        "prompt": said(c, "doc_to_text")?.words(&c.at("doc_to_text"))?,
        "gold": gold,
        "delimiter": delimiter(c, "target_delimiter", " ")?,
        "exact_match": exact,
    });
    written(c, &mut all)?;
    let filters = filters(c)?;
    let names = filters.iter().map(|f| f.name.clone()).collect();
    all["filters"] = serde_json::to_value(filters)?;
    Ok((names, all))
}

/// `generation_kwargs` and `repeats`.
fn written(c: &Config, all: &mut Value) -> Result<()> {
    const KNOWN: &[&str] = &[
        "until",
        "max_gen_toks",
        "max_new_tokens",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "num_beams",
    ];
    let key = |k: &str| format!("generation_kwargs.{k}");
    let said = c.under("generation_kwargs")?;
    for (k, _) in &said.0 {
        if !KNOWN.contains(&k.as_str()) {
            let close = nearest(k, KNOWN.iter().copied());
            mistake!("{}: no such setting{close}; there are: {}", c.at(&key(k)), KNOWN.join(", "));
        }
    }
    let get = |k: &str| said.get(k).filter(|node| **node != Node::Null);
    let number = |k: &str| match get(k) {
        None => Ok(None),
        Some(Node::Int(n)) => Ok(Some(*n as f64)),
        Some(Node::Float(x)) => Ok(Some(*x)),
        // YAML 1.1 has no number without a point and with an exponent.
        Some(Node::Text(text)) if text.parse::<f64>().is_ok_and(f64::is_finite) => Ok(text.parse().ok()),
        Some(other) => mistake!("{} is {}; it is a number", c.at(&key(k)), other.words()),
    };
    let whole = |k: &str| match number(k)? {
        None => Ok(None),
        Some(x) if x.fract() == 0. && (1. ..=1048576.).contains(&x) => Ok(Some(x as usize)),
        Some(x) => mistake!("{} is {x}; it is a whole number, 1 to 1048576", c.at(&key(k))),
    };
    let stop = match said.get("until") {
        None => vec![delimiter(c, "fewshot_delimiter", "\n\n")?],
        Some(node) => texts(&c.at(&key("until")), node)?,
    };
    // An empty text ends no answer.
    let stop: Vec<String> = stop.into_iter().filter(|text| !text.is_empty()).collect();
    all["stop"] = json!(stop);
    if let Some(limit) = whole("max_gen_toks")?.or(whole("max_new_tokens")?) {
        all["limit"] = json!(limit);
    }
    if whole("num_beams")?.is_some_and(|n| n > 1) {
        mistake!("{}: beams are not searched here; it is 1", c.at(&key("num_beams")));
    }
    let temperature = number("temperature")?.unwrap_or(0.);
    let drawn = match get("do_sample") {
        None => temperature > 0.,
        Some(Node::Bool(false)) => false,
        Some(Node::Bool(true)) if temperature > 0. => true,
        Some(Node::Bool(true)) => mistake!("{}: draws need a `temperature` above 0", c.at(&key("do_sample"))),
        Some(other) => mistake!("{} is {}; it is true or false", c.at(&key("do_sample")), other.words()),
    };
    let repeats = c.whole("repeats", 1)?;
    // Of the likeliest token there is only one, however often it is asked for.
    if drawn {
        all["temperature"] = json!(temperature);
        all["samples"] = json!(repeats.max(1));
        if let Some(k) = whole("top_k")? {
            all["top_k"] = json!(k);
        }
        if let Some(p) = number("top_p")? {
            all["top_p"] = json!(p);
        }
    }
    Ok(())
}

/// `num_fewshot` with what belongs to it.
fn fewshot(c: &Config, n: usize, kind: &str, name: &str) -> Result<Value> {
    const KNOWN: &[&str] = &[
        "sampler",
        "split",
        "samples",
        "doc_to_text",
        "doc_to_target",
        "fewshot_delimiter",
        "target_delimiter",
    ];
    let table = c.under("fewshot_config")?;
    let key = |k: &str| c.at(&format!("fewshot_config.{k}"));
    let own = |k: &str| table.get(k).filter(|node| **node != Node::Null);
    for (k, node) in &table.0 {
        if *node != Node::Null && !KNOWN.contains(&k.as_str()) {
            let close = nearest(k, KNOWN.iter().copied());
            mistake!("{}: not read here{close}; there are: {}", key(k), KNOWN.join(", "));
        }
    }
    let text = |k: &str| match own(k) {
        None => Ok(None),
        Some(Node::Text(text)) => Ok(Some(text.clone())),
        Some(other) => mistake!("{} is {}; it is a text", key(k), other.words()),
    };
    let sampler = text("sampler")?.unwrap_or_else(|| "default".into());
    if !["default", "first_n"].contains(&sampler.as_str()) {
        mistake!("{} is `{sampler}`; there are: default, first_n", key("sampler"));
    }
    let split = match table.get("split") {
        Some(_) => text("split")?,
        None => c.text("fewshot_split")?,
    };
    let between = text("fewshot_delimiter")?.map_or_else(|| delimiter(c, "fewshot_delimiter", "\n\n"), Ok)?;
    let mut all = json!({
        "n": n, "sampler": sampler, "between": between,
        // Of two splits that are not named, too.
        "exclude": split == c.text("test_split")?,
    });
    if let Some(delimiter) = text("target_delimiter")? {
        all["delimiter"] = delimiter.into();
    }
    let said = |k: &str, node| Said::read(&key(k), node, c.get("doc_to_choice").is_some());
    if let Some(node) = own("doc_to_text") {
        all["prompt"] = said("doc_to_text", node)?.words(&key("doc_to_text"))?.into();
    }
    if let Some(node) = own("doc_to_target") {
        if kind == "multiple_choice" || c.get("doc_to_choice").is_some() {
            mistake!(
                "{}: with `doc_to_choice`, examples are answered as questions are",
                key("doc_to_target")
            );
        }
        all["answer"] = said("doc_to_target", node)?.words(&key("doc_to_target"))?.into();
    }
    if let Some(data) = sources::pool(c, split.as_deref(), own("samples"), name)? {
        all["data"] = data;
    }
    Ok(all)
}

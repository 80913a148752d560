//! How answers are scored: `metric_list` and `filter_list`.
use super::{
    super::{
        filter::{Chain, Filter, Step},
        yaml::Node,
    },
    config::{Config, texts},
};
use crate::{mistake, mistake::Blame, mistake::nearest};
use anyhow::Result;
use serde_json::{Map, Value, json};

/// A metric: its name in the harness, how it is aggregated, and which way is better.
pub type Known = (&'static str, &'static str, bool);
/// Of `multiple_choice`.
pub const CHOICE: &[Known] = &[
    ("acc", "mean", true),
    ("acc_norm", "mean", true),
    ("acc_bytes", "mean", true),
    ("brier_score", "brier_score", false),
];
/// Of `loglikelihood`.
pub const CLOZE: &[Known] = &[("perplexity", "perplexity", false), ("acc", "mean", true)];
/// Of `loglikelihood_rolling`.
pub const ROLLING: &[Known] = &[
    ("word_perplexity", "weighted_perplexity", false),
    ("byte_perplexity", "weighted_perplexity", false),
    ("bits_per_byte", "bits_per_byte", false),
];
/// Of `generate_until`.
pub const GENERATE: &[Known] = &[("exact_match", "mean", true)];

/// `metric_list`: names, and the settings of `exact_match`.
pub fn metrics(c: &Config, known: &[Known]) -> Result<(Vec<String>, Value)> {
    let mut exact = json!({});
    let Some(list) = c.tables("metric_list")? else {
        let usual = known.iter().map(|(name, ..)| name.to_string());
        // Where nothing is said, a choice has two.
        return Ok((usual.take(if known == CHOICE { 2 } else { 3 }).collect(), exact));
    };
    let at = |name: &str, key: &str| format!("{}: `{name}`: `{key}`", c.at("metric_list"));
    let mut names: Vec<String> = Vec::new();
    for metric in &list {
        let Some(Node::Text(name)) = metric.get("metric") else {
            mistake!("{}: an entry without a text as its `metric`", c.at("metric_list"));
        };
        let Some((_, usual, better)) = known.iter().find(|(known, ..)| known == name) else {
            let all: Vec<&str> = known.iter().map(|(name, ..)| *name).collect();
            mistake!(
                "{}: `{name}` is not computed here{}; of such a task there are: {}. A file of your own can include this one \
                 and say another `metric_list`",
                c.at("metric_list"),
                nearest(name, all.iter().copied()),
                all.join(", ")
            );
        };
        if names.contains(name) {
            mistake!("{}: `{name}` stands twice", c.at("metric_list"));
        }
        names.push(name.clone());
        for (key, node) in metric.0.iter().filter(|(_, node)| *node != Node::Null) {
            match (key.as_str(), node) {
                ("metric" | "weight_by_size", _) | ("hf_evaluate", Node::Bool(false)) => {}
                ("hf_evaluate", Node::Bool(true)) if name == "exact_match" => {}
                ("aggregation", Node::Text(text)) if text == usual => {}
                ("aggregation", other) => {
                    mistake!("{} is {}; here it is {usual}", at(name, key), other.words())
                }
                ("higher_is_better", Node::Bool(b)) if b == better => {}
                ("higher_is_better", other) => {
                    mistake!("{} is {}; here it is {better}", at(name, key), other.words())
                }
                ("ignore_case" | "ignore_punctuation" | "ignore_numbers", Node::Bool(b))
                    if name == "exact_match" =>
                {
                    exact[key] = json!(b);
                }
                ("regexes_to_ignore", node) if name == "exact_match" => {
                    exact[key] = json!(texts(&at(name, key), node)?);
                }
                (_, other) => {
                    mistake!("{} is {}; no such setting is read here", at(name, key), other.words())
                }
            }
        }
    }
    if names.is_empty() {
        mistake!("{} is empty", c.at("metric_list"));
    }
    // The one that has another name here.
    names.iter_mut().filter(|name| *name == "brier_score").for_each(|name| *name = "brier".into());
    Ok((names, exact))
}

/// Log-likelihoods are one a request: there is nothing to filter.
pub fn only_first(c: &Config) -> Result<()> {
    let filters = c.get("filter_list").map(|_| filters(c)).transpose()?.unwrap_or_default();
    let idle = |f: &Filter| matches!(f.steps[..], [] | [Step::TakeFirst]);
    match filters.iter().all(idle) {
        true => Ok(()),
        false => mistake!("{}: only written answers are filtered", c.at("filter_list")),
    }
}

/// `filter_list`.
pub fn filters(c: &Config) -> Result<Vec<Filter>> {
    let Some(list) = c.tables("filter_list")? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for table in &list {
        let Some(Node::Text(name)) = table.get("name") else {
            mistake!("{}: a filter without a text as its `name`", c.at("filter_list"));
        };
        let at = format!("{}: `{name}`", c.at("filter_list"));
        if let Some((key, _)) = table.0.iter().find(|(key, _)| !["name", "filter"].contains(&key.as_str())) {
            mistake!("{at}: no such key `{key}`; there are: name, filter");
        }
        let Some(Node::List(steps)) = table.get("filter") else {
            mistake!("{at}: `filter` is a list of steps, each with its `function`");
        };
        let steps: Vec<Value> = steps.iter().map(|node| step(&at, node)).collect::<Result<_>>()?;
        let filter: Filter = serde_json::from_value(json!({ "name": name, "steps": steps })).blame(&at)?;
        Chain::new(&filter).blame(&at)?;
        all.push(filter);
    }
    Ok(all)
}

/// One step of a filter, as `[ask.generate]` says it.
fn step(at: &str, node: &Node) -> Result<Value> {
    const KNOWN: &[(&str, &[&str])] = &[
        ("regex", &["regex_pattern", "group_select", "fallback"]),
        ("remove_whitespace", &[]),
        ("lowercase", &[]),
        ("uppercase", &[]),
        ("map", &["mapping_dict", "default_value"]),
        ("take_first", &[]),
        ("take_first_k", &["k"]),
        ("majority_vote", &[]),
    ];
    let Node::Table(table) = node else { mistake!("{at}: a step is {}; it is a table", node.words()) };
    let Some(Node::Text(name)) = table.get("function") else {
        mistake!("{at}: a step without a text as its `function`");
    };
    let names = || KNOWN.iter().map(|(name, _)| *name);
    let Some((_, settings)) = KNOWN.iter().find(|(known, _)| known == name) else {
        mistake!(
            "{at}: the filter `{name}` is not here{}; there are: {}",
            nearest(name, names()),
            names().collect::<Vec<_>>().join(", ")
        );
    };
    if let Some((key, _)) = table.0.iter().find(|(k, _)| k != "function" && !settings.contains(&k.as_str())) {
        mistake!("{at}: `{name}` has no `{key}`; it has: {}", settings.join(", "));
    }
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Node::Text(text)) => Ok(Some(text.clone())),
        Some(other) => mistake!("{at}: `{name}`: `{key}` is {}; it is a text", other.words()),
    };
    let whole = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Node::Int(n)) => Ok(Some(*n)),
        Some(other) => mistake!("{at}: `{name}`: `{key}` is {}; it is a whole number", other.words()),
    };
    Ok(match name.as_str() {
        "regex" => {
            let pattern = text("regex_pattern")?.unwrap_or_else(|| r"#### (\-?[0-9\.\,]+)".into());
            let mut find = json!({ "pattern": pattern, "pick": whole("group_select")?.unwrap_or(0) });
            if let Some(fallback) = text("fallback")? {
                find["fallback"] = fallback.into();
            }
            json!({ "regex": find })
        }
        "map" => {
            let Some(Node::Table(words)) = table.get("mapping_dict") else {
                mistake!("{at}: `map`: `mapping_dict` is a table of texts");
            };
            let mut to = Map::new();
            for (from, node) in &words.0 {
                let Node::Text(word) = node else {
                    mistake!("{at}: `map`: `mapping_dict.{from}` is {}; it is a text", node.words())
                };
                to.insert(from.clone(), word.as_str().into());
            }
            let Some(fallback) = text("default_value")? else {
                mistake!("{at}: `map` needs a text as its `default_value`");
            };
            json!({ "map": { "to": to, "fallback": fallback } })
        }
        "take_first_k" => match whole("k")? {
            Some(k) if k > 0 => json!({ "take-first-k": k }),
            _ => mistake!("{at}: `take_first_k` needs `k`, at least 1"),
        },
        "remove_whitespace" => json!("remove-whitespace"),
        "take_first" => json!("take-first"),
        "majority_vote" => json!("majority-vote"),
        same => json!(same),
    })
}

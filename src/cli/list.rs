//! `bitsweep list`.
use super::Exit;
use crate::{
    eval::METRICS,
    model::{families::FAMILIES, load::BUILTIN},
    quant::{
        grid::{FORMATS, levels::LEVELS},
        prepare,
        recipe::NOTATION,
        weight,
    },
    report::charts::CHARTS,
    study::config,
    suite::find,
};
use anyhow::Result;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use std::path::Path;

/// What there is.
#[derive(Args)]
pub struct List {
    /// One kind; all of them without it
    kind: Option<Kind>,
}

/// What can be listed, in the order it is listed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Models,
    Families,
    Recipes,
    Methods,
    Formats,
    Tasks,
    Metrics,
    Charts,
    Studies,
}

impl List {
    pub(super) fn run(self) -> Result<Exit> {
        let kinds: Vec<Kind> = self.kind.map_or_else(|| Kind::value_variants().to_vec(), |k| vec![k]);
        for (i, kind) in kinds.iter().enumerate() {
            if kinds.len() > 1 {
                let name = kind.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default();
                out!("{}{name}", if i > 0 { "\n" } else { "" });
            }
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN);
            let (header, rows) = rows(*kind)?;
            table.set_header(header);
            table.add_rows(rows);
            out!("{table}");
        }
        Ok(Exit::Fine)
    }
}

fn rows(kind: Kind) -> Result<(Vec<&'static str>, Vec<Vec<String>>)> {
    let pair = |name: &str, about: &str| vec![name.to_string(), about.to_string()];
    Ok(match kind {
        Kind::Models => {
            let mut rows: Vec<_> =
                BUILTIN.iter().map(|b| pair(&format!("builtin:{}", b.name), b.about)).collect();
            rows.push(pair("DIRECTORY", "a checkpoint in Hugging Face layout"));
            rows.push(pair(
                "org/name[@revision]",
                "on the Hub; HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE",
            ));
            (vec!["model", "about"], rows)
        }
        Kind::Families => {
            let row = |f: &&dyn crate::model::families::Family| {
                vec![
                    f.name().to_string(),
                    f.model_types().join(" "),
                    f.about().to_string(),
                    f.reference().to_string(),
                    format!("{:e}", f.tolerance()),
                ]
            };
            let header = vec!["family", "model_type", "about", "held to", "within"];
            (header, FAMILIES.iter().map(row).collect())
        }
        Kind::Recipes => (vec!["recipe", "about"], NOTATION.iter().map(|e| pair(e.name, e.about)).collect()),
        Kind::Methods => {
            let all = weight::METHODS.iter().chain(prepare::METHODS);
            (vec!["method", "about"], all.map(|e| pair(e.name, e.about)).collect())
        }
        Kind::Formats => {
            let mut rows: Vec<_> = FORMATS.iter().map(|e| pair(e.name, e.about)).collect();
            rows.extend(LEVELS.iter().map(|l| pair(l.name, l.about)));
            rows.push(pair(
                "groups",
                "weights: along the input, default 128; acts: a token; kv: along a head, default 128",
            ));
            rows.push(pair(
                "skipped",
                "embeddings, norms, biases always; `head` and `*.router` unless a recipe's `skip` says otherwise",
            ));
            (vec!["format", "about"], rows)
        }
        Kind::Tasks => {
            let mut rows = Vec::new();
            for name in find::built_in() {
                for t in find::find(&name, Path::new(""))? {
                    rows.push(vec![
                        name.clone(),
                        t.task.ask.kind().into(),
                        t.task.metrics.join(" "),
                        t.task.about,
                    ]);
                }
            }
            (vec!["task", "kind", "metrics", "about"], rows)
        }
        Kind::Metrics => {
            let row = |m: &crate::eval::Metric| {
                let sense = if m.higher_is_better { "higher" } else { "lower" };
                vec![m.name.to_string(), m.of.join(" "), sense.to_string(), m.about.to_string()]
            };
            (vec!["metric", "task", "better", "about"], METRICS.iter().map(row).collect())
        }
        Kind::Charts => (vec!["chart", "about"], CHARTS.iter().map(|c| pair(c.name(), c.about())).collect()),
        Kind::Studies => {
            (vec!["study"], config::built_in().into_iter().map(|n| vec![n.to_string()]).collect())
        }
    })
}

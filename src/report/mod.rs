//! Draws what a study found from its records and nothing else: `table.csv`, `parts.csv`, `paired.csv`, `profiles.csv`,
//! `published.csv`, `table.md`, charts, `report.html`.
//!
//! The same records give the same bytes. This module never sees a model, nor the clock.
pub mod answer;
pub mod beside;
pub mod charts;
mod detail;
pub mod frame;
pub mod html;
pub mod inside;
pub mod paired;
pub mod plot;
pub mod table;

use crate::{
    published,
    results::{Store, store::replace},
};
use anyhow::{Context, Result};
use frame::Frame;
use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// What [`draw`] left.
pub struct Drawn {
    /// The table for eyes, as in `table.md`.
    pub table: String,
    /// Every file written, in the order of writing.
    pub files: Vec<PathBuf>,
    /// Cells that failed.
    pub failed: usize,
    /// Cells that were skipped.
    pub skipped: usize,
}

/// Draws everything into the store's folder. Charts that an earlier report left and this one does not have are removed.
pub fn draw(store: &Store) -> Result<Drawn> {
    // Two shards that end together draw one after the other.
    let _held = store.hold()?;
    let frame = Frame::read(store)?;
    let mut pictures = Vec::new();
    for chart in charts::CHARTS {
        pictures.extend(chart.draw(&frame).with_context(|| format!("chart `{}`", chart.name()))?);
    }
    let table = table::markdown(&frame);
    let published = published::beside::beside(&frame.records)?;
    // What `inspect` left in the same folder.
    let inside = match inside::read(store.dir())? {
        Some(inside) => inside::with_charts(&inside, &inside::pictures(&inside)?),
        None => String::new(),
    };
    let sections = [
        html::Section {
            id: "published",
            title: "Beside published figures",
            html: beside::section(&published),
        },
        html::Section { id: "inside", title: "Inside the model", html: inside },
    ];
    let page = html::page(&frame, &pictures, &sections);
    let mut files = Vec::new();
    let mut write = |name: String, bytes: &[u8]| -> Result<()> {
        let path = store.dir().join(name);
        replace(&path, bytes)?;
        files.push(path);
        Ok(())
    };
    write("table.csv".to_owned(), table::csv(&frame)?.as_bytes())?;
    let beside = if published.is_empty() { None } else { Some(published::beside::csv(&published)?) };
    for (name, text) in [
        ("parts.csv", table::parts(&frame)?),
        ("paired.csv", paired::csv(&frame)?),
        ("profiles.csv", detail::csv(&frame)?),
        ("published.csv", beside),
    ] {
        match text {
            Some(text) => write(name.to_owned(), text.as_bytes())?,
            // An earlier report's would be read as this one's.
            None => remove(&store.dir().join(name))?,
        }
    }
    write("table.md".to_owned(), table.as_bytes())?;
    for picture in &pictures {
        write(format!("{}.svg", picture.name), picture.svg.as_bytes())?;
        write(format!("{}.png", picture.name), &picture.png)?;
    }
    write("report.html".to_owned(), page.as_bytes())?;
    sweep_out(store.dir(), &files)?;
    let count = |what: &str| frame.records.iter().filter(|r| table::status(r) == what).count();
    Ok(Drawn { table, failed: count("failed"), skipped: count("skipped"), files })
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes charts of ours that are not among `keep`: a chart of a model no longer in the study would be read as one of it.
fn sweep_out(dir: &Path, keep: &[PathBuf]) -> Result<()> {
    let keep: BTreeSet<&PathBuf> = keep.iter().collect();
    let what = || format!("removing old charts from `{}`", dir.display());
    for entry in fs::read_dir(dir).with_context(what)? {
        let path = entry.with_context(what)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let drawn = name.ends_with(".svg") || name.ends_with(".png");
        let ours = charts::CHARTS
            .iter()
            .any(|c| name.strip_prefix(c.name()).is_some_and(|rest| rest.starts_with('-')));
        if drawn && ours && path.is_file() && !keep.contains(&path) {
            fs::remove_file(&path).with_context(what)?;
        }
    }
    Ok(())
}

//! Models by recipes: what is left of an ability, all at a glance.
use super::{Chart, Frame, Picture, one_line, short, swept};
use crate::report::{
    answer::{abilities, left},
    plot::{Heat, Place},
    table::status,
};
use anyhow::Result;

/// One field an ability, where there are two models or more.
pub struct Field;

/// Columns of a picture, at most: more names than that nobody reads.
const COLUMNS: usize = 20;

impl Chart for Field {
    fn name(&self) -> &'static str {
        "heat"
    }
    fn about(&self) -> &'static str {
        "Which models bear which recipes?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        if frame.groups.len() < 2 {
            return Ok(out);
        }
        for ability in abilities(frame) {
            for (part, heat) in fields(frame, &ability).into_iter().enumerate() {
                let number = if part == 0 { String::new() } else { format!("--{}", part + 1) };
                out.push(heat.render(format!("{}-{}{number}", self.name(), super::slug(&ability)))?);
            }
        }
        Ok(out)
    }
}

/// The fields of one ability: percent kept, by model and recipe.
pub fn fields(frame: &Frame, ability: &str) -> Vec<Heat> {
    let mut columns: Vec<String> = Vec::new();
    for group in &frame.groups {
        for line in &group.recipes {
            let label = one_line(&line.label);
            if swept(&frame.records[line.record].recipe).is_some() && !columns.contains(&label) {
                columns.push(label);
            }
        }
    }
    let mut rows: Vec<(String, Vec<Place>)> = Vec::new();
    for group in &frame.groups {
        let mut cells = vec![Place::Empty; columns.len()];
        for (r, line) in group.recipes.iter().enumerate() {
            let Some(at) = columns.iter().position(|c| *c == one_line(&line.label)) else { continue };
            let failed = (0..group.tasks.len()).filter_map(|t| group.cell(r, t)).any(|cell| {
                let record = &frame.records[cell];
                let same = record.task.ability == ability || record.task.name == ability;
                same && status(record) == "failed"
            });
            if let Some(left) = left(frame, group, r).get(ability) {
                // Half of it lost is as dark as all of it: what matters is decided before.
                let lost = ((1. - left.kept) / 0.5).clamp(0., 1.);
                let mark = if failed { " !" } else { "" };
                cells[at] = Place::At(lost, format!("{:.1}{mark}", 100. * left.kept));
            } else if failed {
                cells[at] = Place::Failed;
            }
        }
        if cells.iter().any(|c| *c != Place::Empty) {
            rows.push((short(&group.title), cells));
        }
    }
    // A column that nobody has of this ability says nothing.
    let used: Vec<usize> =
        (0..columns.len()).filter(|&c| rows.iter().any(|(_, cells)| cells[c] != Place::Empty)).collect();
    if rows.len() < 2 {
        return Vec::new();
    }
    used.chunks(COLUMNS)
        .map(|used| Heat {
            title: format!("Which models bear which recipes? {}", one_line(ability)),
            notes: vec![
                "Percent of full precision, on average over the ability's tasks; darker is more lost. Crosses: nothing finished; !: not all did."
                    .to_owned(),
            ],
            columns: used.iter().map(|&c| columns[c].clone()).collect(),
            rows: rows.iter().map(|(name, _)| name.clone()).collect(),
            cells: rows.iter().map(|(_, cells)| used.iter().map(|&c| cells[c].clone()).collect()).collect(),
        })
        .collect()
}

//! A star of axes: what stays of each ability, a polygon a recipe.
use super::{BODY, Drawing, GRID, INK, PALETTE, Pen, SMALL, SOFT, WIDTH, fit, legend, render, top};
use crate::report::charts::Picture;
use anyhow::Result;
use plotters::{prelude::DrawingBackend, style::text_anchor::HPos};
use std::f64::consts::TAU;

/// What a radar shows.
pub struct Radar {
    /// The question it answers.
    pub title: String,
    /// How to read it: a line each.
    pub notes: Vec<String>,
    /// Names of the axes, clockwise from the top.
    pub axes: Vec<String>,
    /// Polygons: a name, and a radius an axis, 1 being full precision; none where nothing is known.
    pub rings: Vec<(String, Vec<Option<f64>>)>,
}

const RADIUS: i32 = 430;
/// What lies farther out is drawn there.
const MOST: f64 = 1.15;

impl Radar {
    /// Draws it. `name` is the files' stem.
    pub fn render(&self, name: String) -> Result<Picture> {
        render(self, name)
    }

    fn legend(&self) -> Result<Vec<Vec<(usize, String, i32)>>> {
        legend(self.rings.iter().enumerate().map(|(i, (name, _))| (i, name.clone())).collect())
    }
}

impl Drawing for Radar {
    fn title(&self) -> &str {
        &self.title
    }
    fn notes(&self) -> &[String] {
        &self.notes
    }
    fn height(&self) -> Result<i32> {
        Ok(top(self.notes.len()) + self.legend()?.len() as i32 * (BODY + 14) + 2 * RADIUS + 200)
    }
    fn draw<DB: DrawingBackend>(&self, pen: &Pen<DB>) -> Result<()> {
        let legend = self.legend()?;
        let begin = top(self.notes.len());
        pen.legend(&legend, begin)?;
        let middle = (WIDTH / 2, begin + legend.len() as i32 * (BODY + 14) + 100 + RADIUS);
        let n = self.axes.len();
        let at = |axis: usize, share: f64| {
            let angle = TAU * axis as f64 / n as f64;
            let far = f64::from(RADIUS) * share / MOST;
            (middle.0 + (far * angle.sin()).round() as i32, middle.1 - (far * angle.cos()).round() as i32)
        };
        for ring in [0.25, 0.5, 0.75, 1.] {
            let points: Vec<(i32, i32)> = (0..=n).map(|i| at(i % n, ring)).collect();
            pen.line(&points, if ring == 1. { SOFT } else { GRID }, 2)?;
        }
        for (i, name) in self.axes.iter().enumerate() {
            pen.line(&[middle, at(i, 1.)], GRID, 2)?;
            let (x, y) = at(i, MOST + 0.07);
            let side = match x - middle.0 {
                d if d > 20 => HPos::Left,
                d if d < -20 => HPos::Right,
                _ => HPos::Center,
            };
            let room = match side {
                HPos::Left => WIDTH - x - 20,
                HPos::Right => x - 20,
                HPos::Center => WIDTH - 100,
            };
            pen.text(&fit(name, BODY, room)?, (x, y), BODY, INK, side)?;
        }
        for (look, (_, radii)) in self.rings.iter().enumerate() {
            let color = PALETTE[look % PALETTE.len()];
            let known: Vec<Option<(i32, i32)>> =
                radii.iter().enumerate().map(|(i, r)| r.map(|r| at(i, r.clamp(0., MOST)))).collect();
            for i in 0..n {
                if let (Some(a), Some(b)) = (known[i], known[(i + 1) % n]) {
                    pen.line(&[a, b], color, 4)?;
                }
            }
            for point in known.into_iter().flatten() {
                pen.marker(point, look)?;
            }
        }
        for ring in [0.5, 1.] {
            let (x, y) = at(0, ring);
            pen.text(&format!("{:.0}%", 100. * ring), (x + 12, y - 4), SMALL, SOFT, HPos::Left)?;
        }
        Ok(())
    }
}

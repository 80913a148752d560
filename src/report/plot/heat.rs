//! A field of coloured cells: rows by columns, each with its number.
use super::{BODY, Drawing, INK, PALETTE, Pen, SMALL, SOFT, WIDTH, fit, render, top, width};
use crate::report::charts::Picture;
use anyhow::Result;
use plotters::{
    prelude::{DrawingBackend, RGBColor},
    style::text_anchor::HPos,
};

/// A cell's colour and text.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// From 0, the palest, to 1, the darkest; and what is written there.
    At(f64, String),
    /// A cell that failed.
    Failed,
    /// Nothing was run.
    Empty,
}

/// What a heat map shows.
pub struct Heat {
    /// The question it answers.
    pub title: String,
    /// How to read it: a line each.
    pub notes: Vec<String>,
    /// Above the columns.
    pub columns: Vec<String>,
    /// Beside the rows.
    pub rows: Vec<String>,
    /// By row, by column.
    pub cells: Vec<Vec<Place>>,
}

/// From no loss to all of it: one hue that grows darker, so that neither colour-blind eyes nor grey print lose the order.
const RAMP: [RGBColor; 6] = [
    RGBColor(0xF4, 0xF7, 0xFB),
    RGBColor(0xC9, 0xDD, 0xEE),
    RGBColor(0x8F, 0xBC, 0xDC),
    RGBColor(0x4A, 0x90, 0xC2),
    RGBColor(0x1F, 0x5F, 0x99),
    RGBColor(0x0B, 0x2F, 0x5B),
];
/// On pale and on dark cells. Not the chart's ink, which a dark page repaints, and a cell it does not.
const ON: [RGBColor; 2] = [RGBColor(0x1C, 0x1C, 0x1C), RGBColor(0xFE, 0xFE, 0xFE)];

fn color(share: f64) -> (RGBColor, RGBColor) {
    let at = share.clamp(0., 1.) * (RAMP.len() - 1) as f64;
    let low = (at.floor() as usize).min(RAMP.len() - 2);
    let part = at - low as f64;
    let mix = |a: u8, b: u8| (f64::from(a) + part * (f64::from(b) - f64::from(a))).round() as u8;
    let (a, b) = (RAMP[low], RAMP[low + 1]);
    let fill = RGBColor(mix(a.0, b.0), mix(a.1, b.1), mix(a.2, b.2));
    (fill, ON[usize::from(share > 0.5)])
}

impl Heat {
    /// Draws it. `name` is the files' stem.
    pub fn render(&self, name: String) -> Result<Picture> {
        render(self, name)
    }

    /// Left of the cells, a cell's width, and how high the columns' names are.
    fn layout(&self) -> Result<(i32, i32, i32)> {
        let mut left = 200;
        for row in &self.rows {
            left = left.max(width(row, BODY)?.min(560) + 70);
        }
        let wide = ((WIDTH - left - 40) / self.columns.len().max(1) as i32).min(190);
        let mut longest = 0;
        for column in &self.columns {
            longest = longest.max(width(column, SMALL)?);
        }
        // Names that do not fit side by side stand upright.
        let high = if longest + 16 > wide { longest.min(360) + 20 } else { SMALL + 20 };
        Ok((left, wide, high))
    }
}

const HIGH: i32 = 54;

impl Drawing for Heat {
    fn title(&self) -> &str {
        &self.title
    }
    fn notes(&self) -> &[String] {
        &self.notes
    }
    fn height(&self) -> Result<i32> {
        Ok(top(self.notes.len()) + self.layout()?.2 + HIGH * self.rows.len() as i32 + 40)
    }
    fn draw<DB: DrawingBackend>(&self, pen: &Pen<DB>) -> Result<()> {
        let (left, wide, high) = self.layout()?;
        let begin = top(self.notes.len()) + high;
        for (i, name) in self.columns.iter().enumerate() {
            let x = left + i as i32 * wide + wide / 2;
            if high > SMALL + 20 {
                pen.upright_from(&fit(name, SMALL, high - 16)?, (x, begin - 10), SMALL)?;
            } else {
                pen.text(name, (x, begin - 12 - SMALL / 2), SMALL, SOFT, HPos::Center)?;
            }
        }
        for (r, (name, cells)) in self.rows.iter().zip(&self.cells).enumerate() {
            let y = begin + r as i32 * HIGH;
            let name = fit(name, BODY, left - 60)?;
            pen.text(&name, (left - 20, y + HIGH / 2), BODY, INK, HPos::Right)?;
            for (c, cell) in cells.iter().enumerate() {
                let x = left + c as i32 * wide;
                let middle = (x + wide / 2, y + HIGH / 2);
                match cell {
                    Place::At(share, text) => {
                        let (fill, ink) = color(*share);
                        pen.fill([x + 1, y + 1, x + wide - 1, y + HIGH - 1], fill)?;
                        let mut size = BODY;
                        while size > 18 && width(text, size)? > wide - 8 {
                            size -= 1;
                        }
                        pen.text(text, middle, size, ink, HPos::Center)?;
                    }
                    Place::Failed => {
                        let (x, y) = middle;
                        pen.line(&[(x - 10, y - 10), (x + 10, y + 10)], PALETTE[1], 5)?;
                        pen.line(&[(x - 10, y + 10), (x + 10, y - 10)], PALETTE[1], 5)?;
                    }
                    Place::Empty => pen.text("–", middle, BODY, SOFT, HPos::Center)?,
                }
            }
        }
        Ok(())
    }
}

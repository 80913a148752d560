//! Lines over categories: what stays of full precision, bit by bit.
use super::{
    BODY, Drawing, GRID, INK, LEADER, PALETTE, Pen, SMALL, SOFT, WIDTH, decade, fit, legend, render, top,
    width,
};
use crate::report::charts::Picture;
use anyhow::Result;
use plotters::{prelude::DrawingBackend, style::text_anchor::HPos};

/// What a chart shows.
pub struct Figure {
    /// The question it answers.
    pub title: String,
    /// How to read it: a line each.
    pub notes: Vec<String>,
    /// Beside the vertical axis.
    pub y_label: String,
    /// How the vertical axis runs.
    pub axis: Axis,
    /// Side by side, three a row, with the same vertical axis.
    pub panels: Vec<Panel>,
}

/// How a vertical axis runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Linear, in percent, with a line at 100.
    Percent,
    /// Logarithmic.
    Log,
}

/// One set of axes.
pub struct Panel {
    /// Above it; may be empty.
    pub title: String,
    /// Below it.
    pub x_label: String,
    /// Categories, left to right; one without a name is not marked.
    pub ticks: Vec<String>,
    /// Where each lies along the axis, from 0 to 1; evenly where it is not said.
    pub places: Vec<f64>,
    /// Dotted levels, such as what a guess would score, each with the look of its series; `None` where it is all theirs.
    pub levels: Vec<(f64, Option<usize>)>,
    /// What is drawn.
    pub series: Vec<Series>,
}

impl Panel {
    /// How wide it is among others: categories, or, where they have places of their own, as many as usual.
    fn slots(&self) -> usize {
        if self.places.is_empty() { self.ticks.len().max(2) } else { 5 }
    }
}

/// One line with its markers.
pub struct Series {
    /// What it is of.
    pub label: String,
    /// Its colour and marker: the same number, the same look in all panels.
    pub look: usize,
    /// By category; categories without a point are bridged.
    pub points: Vec<(usize, Point)>,
}

/// A place on a line.
#[derive(Clone, Copy)]
pub enum Point {
    /// Where the line begins: full precision by definition, without an error.
    Start(f64),
    /// A value, with one standard error.
    At(f64, Option<f64>),
    /// A value, and the lowest and highest of what it stands for.
    Span(f64, [f64; 2]),
    /// A cell that failed: the line breaks, and a cross stands on the axis.
    Failed,
}

impl Figure {
    /// Draws it. `name` is the files' stem.
    pub fn render(&self, name: String) -> Result<Picture> {
        render(self, name)
    }
}

impl Drawing for Figure {
    fn title(&self) -> &str {
        &self.title
    }
    fn notes(&self) -> &[String] {
        &self.notes
    }
    fn height(&self) -> Result<i32> {
        Ok(Layout::of(self)?.height)
    }
    fn draw<DB: DrawingBackend>(&self, pen: &Pen<DB>) -> Result<()> {
        let layout = Layout::of(self)?;
        pen.legend(&layout.legend, layout.legend_top)?;
        for (i, (panel, frame)) in self.panels.iter().zip(&layout.frames).enumerate() {
            pen.axes(self, &layout, panel, frame, i % 3 == 0)?;
            pen.series(self, &layout, panel, frame, self.panels.len() == 1)?;
        }
        Ok(())
    }
}

/// Where things stand, in pixels from the upper left corner.
struct Layout {
    height: i32,
    /// Lines of the legend: look, label, x.
    legend: Vec<Vec<(usize, String, i32)>>,
    legend_top: i32,
    /// Left, top, right, bottom of each panel's axes.
    frames: Vec<[i32; 4]>,
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Layout {
    fn of(figure: &Figure) -> Result<Self> {
        let (low, high, ticks) = range(figure);
        let mut y = top(figure.notes.len());
        // Several panels share one legend; a single one has its labels at the lines' ends.
        let legend_top = y;
        let mut known: Vec<(usize, String)> = Vec::new();
        if figure.panels.len() > 1 {
            for s in figure.panels.iter().flat_map(|p| &p.series) {
                if !known.iter().any(|(_, label)| *label == s.label) {
                    known.push((s.look, s.label.clone()));
                }
            }
        }
        let legend = legend(known)?;
        y += legend.len() as i32 * (BODY + 14);
        let mut labels = 30;
        if let [panel] = &figure.panels[..] {
            for s in &panel.series {
                labels = labels.max(width(&s.label, BODY)? + 70);
            }
        }
        // A name of any length must leave room for the lines.
        let labels = labels.min(WIDTH / 2);
        let mut numbers = 0;
        for (_, text) in &ticks {
            numbers = numbers.max(width(text, SMALL)?);
        }
        let left = 30 + BODY + 30 + numbers + 16;
        let tall = if figure.panels.len() > 3 { 430 } else { 700 };
        let mut frames = Vec::new();
        for row in figure.panels.chunks(3) {
            if row.iter().any(|p| !p.title.is_empty()) {
                y += BODY + 16;
            }
            let slots: usize = row.iter().map(|p| p.slots()).sum();
            // A last row with fewer panels keeps their size.
            let empty: usize =
                if figure.panels.len() > 3 { slots * (3 - row.len()) / row.len().max(1) } else { 0 };
            let gap = 50;
            let room = WIDTH - labels - left - gap * (row.len() as i32 - 1);
            let mut x = left;
            for panel in row {
                let wide = room * panel.slots() as i32 / (slots + empty).max(1) as i32;
                frames.push([x, y, x + wide, y + tall]);
                x += wide + gap;
            }
            y += tall + 30 + SMALL + 16 + BODY + 34;
        }
        Ok(Self { height: y + (y & 1), legend, legend_top, frames, low, high, ticks })
    }

    /// A value's height; what lies outside is drawn at the edge.
    fn y(&self, axis: Axis, frame: &[i32; 4], value: f64) -> i32 {
        let at = |v: f64| if axis == Axis::Log { v.max(f64::MIN_POSITIVE).log10() } else { v };
        let share = (at(value) - at(self.low)) / (at(self.high) - at(self.low));
        frame[3] - (share.clamp(0., 1.) * f64::from(frame[3] - frame[1])).round() as i32
    }
}

/// The vertical axis: its ends and its ticks.
fn range(figure: &Figure) -> (f64, f64, Vec<(f64, String)>) {
    let log = figure.axis == Axis::Log;
    let (mut low, mut high) = if log { (f64::INFINITY, 0f64) } else { (100f64, 100f64) };
    let series = figure.panels.iter().flat_map(|p| &p.series);
    let points = series.flat_map(|s| &s.points);
    for (_, point) in points {
        match *point {
            Point::At(y, error) => {
                // On a logarithmic axis an error may reach below all of it.
                let below = y - error.unwrap_or(0.);
                low = low.min(if log { y.min(below.max(y / 3.)) } else { below });
                high = high.max(y + error.unwrap_or(0.));
            }
            Point::Span(_, [least, most]) => (low, high) = (low.min(least), high.max(most)),
            Point::Start(y) => (low, high) = (low.min(y), high.max(y)),
            Point::Failed => {}
        }
    }
    if log {
        if !(low > 0. && low.is_finite() && high > 0.) {
            (low, high) = (0.001, 1.);
        }
        let mut decades: Vec<i32> = (low.log10().floor() as i32..=high.log10().ceil() as i32).collect();
        if decades.len() < 2 {
            decades.push(decades[0] + 1);
        }
        let ticks = |step: usize| -> Vec<(f64, String)> {
            decades.iter().step_by(step).map(|&d| (10f64.powi(d), decade(d))).collect()
        };
        let (first, last) = (decades[0], decades[decades.len() - 1]);
        return (10f64.powi(first), 10f64.powi(last), ticks(decades.len().div_ceil(9)));
    }
    (low, high) = (low.max(0.), high.min(200.));
    // A flat picture must not magnify noise: four points are shown at least.
    low = low.min(97.);
    high = high.max(101.);
    let step =
        [0.5, 1., 2., 5., 10., 20., 25., 50.].into_iter().find(|s| (high - low) / s <= 8.).unwrap_or(50.);
    let first = (low / step).floor();
    let high = high + 0.02 * (high - first * step);
    let ticks = (first as i32..=(high / step).floor() as i32)
        .map(|i| f64::from(i) * step)
        .map(|v| (v, if step < 1. { format!("{v:.1}") } else { format!("{v:.0}") }))
        .collect();
    (first * step, high, ticks)
}

impl<DB: DrawingBackend> Pen<'_, DB> {
    fn axes(
        &self,
        figure: &Figure,
        layout: &Layout,
        panel: &Panel,
        frame: &[i32; 4],
        first: bool,
    ) -> Result<()> {
        let [left, top, right, bottom] = *frame;
        self.text(&panel.title, ((left + right) / 2, top - 16 - BODY / 2), BODY, INK, HPos::Center)?;
        for (value, label) in &layout.ticks {
            let y = layout.y(figure.axis, frame, *value);
            self.line(&[(left, y), (right, y)], GRID, 2)?;
            if first {
                self.text(label, (left - 16, y), SMALL, SOFT, HPos::Right)?;
            }
        }
        if figure.axis == Axis::Percent {
            let y = layout.y(figure.axis, frame, 100.);
            self.line(&[(left, y), (right, y)], SOFT, 2)?;
        }
        self.line(&[(left, bottom), (right, bottom)], SOFT, 2)?;
        // Names of categories are cut to their slot; where even that is narrow, every few have one.
        let slot = (right - left) / panel.ticks.len().max(1) as i32;
        let every = if panel.places.is_empty() { (70 / slot.max(1)) as usize + 1 } else { 1 };
        for (i, tick) in panel.ticks.iter().enumerate().filter(|(_, tick)| !tick.is_empty()) {
            let x = place(panel, frame, i);
            self.line(&[(x, bottom), (x, bottom + 10)], SOFT, 2)?;
            if i % every == 0 {
                let room = if panel.places.is_empty() { slot * every as i32 - 10 } else { WIDTH };
                let tick = fit(tick, SMALL, room)?;
                self.text(&tick, (x, bottom + 30 + SMALL / 2), SMALL, SOFT, HPos::Center)?;
            }
        }
        self.text(
            &panel.x_label,
            ((left + right) / 2, bottom + 30 + SMALL + 16 + BODY / 2),
            BODY,
            INK,
            HPos::Center,
        )?;
        if first {
            self.upright(&figure.y_label, (30 + BODY / 2, (top + bottom) / 2), bottom - top)?;
        }
        Ok(())
    }

    fn series(
        &self,
        figure: &Figure,
        layout: &Layout,
        panel: &Panel,
        frame: &[i32; 4],
        label: bool,
    ) -> Result<()> {
        let n = panel.series.len() as i32;
        let slot = (frame[2] - frame[0]) / panel.ticks.len().max(1) as i32;
        // Side by side, so that error bars do not hide one another.
        let apart = if panel.places.is_empty() { (slot / 2 / n.max(1)).min(20) } else { 0 };
        let shown = |level: f64| level > layout.low && level < layout.high;
        let levels: Vec<_> = panel.levels.iter().filter(|(level, _)| shown(*level)).collect();
        // Each dots a third of the way at most, so that equal levels stay visible side by side.
        let turns = (levels.len() as i32).clamp(1, 3);
        for (i, (level, look)) in levels.into_iter().enumerate() {
            let color = look.map_or(SOFT, |look| PALETTE[look % PALETTE.len()]);
            let y = layout.y(figure.axis, frame, *level);
            let mut x = frame[0] + 24 * (i as i32 % turns);
            while x + 10 < frame[2] {
                self.line(&[(x, y), (x + 10, y)], color, 3)?;
                x += 24 * turns;
            }
        }
        let mut ends = Vec::new();
        for (i, series) in panel.series.iter().enumerate() {
            let color = PALETTE[series.look % PALETTE.len()];
            let shift = (2 * i as i32 - (n - 1)) * apart / 2;
            let at = |x: usize, y: f64, start: bool| {
                (place(panel, frame, x) + if start { 0 } else { shift }, layout.y(figure.axis, frame, y))
            };
            let mut path = Vec::new();
            let mut errors = Vec::new();
            let mut marks = Vec::new();
            for &(x, point) in &series.points {
                match point {
                    Point::Start(y) => path.push(at(x, y, true)),
                    Point::At(y, error) => {
                        let here = at(x, y, false);
                        path.push(here);
                        marks.push(here);
                        if let Some(e) = error {
                            errors.push((here.0, at(x, y - e, false).1, at(x, y + e, false).1));
                        }
                    }
                    Point::Span(y, [least, most]) => {
                        let here = at(x, y, false);
                        path.push(here);
                        marks.push(here);
                        errors.push((here.0, at(x, least, false).1, at(x, most, false).1));
                    }
                    Point::Failed => {
                        self.line(&path, color, 4)?;
                        path.clear();
                        let (x, y) = (at(x, 0., false).0, frame[3]);
                        self.line(&[(x - 10, y - 10), (x + 10, y + 10)], color, 5)?;
                        self.line(&[(x - 10, y + 10), (x + 10, y - 10)], color, 5)?;
                    }
                }
            }
            self.line(&path, color, 4)?;
            for (x, low, high) in errors {
                self.line(&[(x, low), (x, high)], color, 3)?;
                self.line(&[(x - 8, low), (x + 8, low)], color, 3)?;
                self.line(&[(x - 8, high), (x + 8, high)], color, 3)?;
            }
            if let Some(&end) = marks.last() {
                ends.push((end, series));
            }
            for mark in marks {
                self.marker(mark, series.look)?;
            }
        }
        if label { self.end_labels(ends, frame) } else { Ok(()) }
    }

    /// Names at the lines' ends, moved apart where they would overlap.
    fn end_labels(&self, mut ends: Vec<((i32, i32), &Series)>, frame: &[i32; 4]) -> Result<()> {
        ends.sort_by_key(|(end, series)| (end.1, series.look));
        let step = BODY + 6;
        let mut ys: Vec<i32> = ends.iter().map(|(end, _)| end.1).collect();
        for i in 1..ys.len() {
            ys[i] = ys[i].max(ys[i - 1] + step);
        }
        if let Some(over) = ys.last().map(|y| y - frame[3]).filter(|over| *over > 0) {
            let last = ys.len() - 1;
            ys[last] -= over;
            for i in (0..last).rev() {
                ys[i] = ys[i].min(ys[i + 1] - step);
            }
        }
        let x = frame[2] + 22;
        for ((end, series), y) in ends.into_iter().zip(ys) {
            self.line(&[(end.0 + 16, end.1), (frame[2] - 8, end.1), (x - 4, y)], LEADER, 2)?;
            self.text(&series.label, (x + 4, y), BODY, INK, HPos::Left)?;
        }
        Ok(())
    }
}

/// A category's place.
fn place(panel: &Panel, frame: &[i32; 4], tick: usize) -> i32 {
    if let Some(share) = panel.places.get(tick) {
        return frame[0] + (f64::from(frame[2] - frame[0]) * share.clamp(0., 1.)).round() as i32;
    }
    let n = panel.ticks.len().max(1) as i32;
    frame[0] + (frame[2] - frame[0]) * (2 * tick as i32 + 1) / (2 * n)
}

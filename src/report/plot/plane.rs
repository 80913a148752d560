//! Points and lines over two numeric axes, in panels that share them.
use super::{
    BODY, Drawing, GRID, INK, PALETTE, Pen, SMALL, SOFT, WIDTH, decade, fit, legend, render, top, width,
};
use crate::report::charts::Picture;
use anyhow::Result;
use plotters::{prelude::DrawingBackend, style::text_anchor::HPos};

/// What a plane shows.
pub struct Plane {
    /// The question it answers.
    pub title: String,
    /// How to read it: a line each.
    pub notes: Vec<String>,
    /// Below.
    pub x: Way,
    /// On the left.
    pub y: Way,
    /// Side by side, three a row.
    pub panes: Vec<Pane>,
}

/// How an axis runs.
#[derive(Clone, Debug)]
pub struct Way {
    /// What is on it.
    pub label: String,
    /// By factors, not by sums; what is not above 0 is left out.
    pub log: bool,
    /// A value that is always on it, with a line: full precision, no change.
    pub level: Option<f64>,
}

/// One set of axes.
pub struct Pane {
    /// Above it; may be empty.
    pub title: String,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// A set of points that belong together.
pub struct Line {
    /// What it is of.
    pub label: String,
    /// Its colour and marker: the same number, the same look in all panels.
    pub look: usize,
    /// How points are joined.
    pub run: Run,
    /// In the order in which they are joined.
    pub dots: Vec<Dot>,
}

/// How points are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Markers alone.
    Dots,
    /// Markers and straight lines.
    Line,
    /// Level from each point to the next: histograms, and the best that is to be had for so much.
    Steps,
}

/// A point.
#[derive(Clone, Debug, PartialEq)]
pub struct Dot {
    /// Along.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// One standard error, up and down.
    pub error: Option<f64>,
    /// Written beside it, where there is room; may be empty.
    pub name: String,
}

impl Plane {
    /// Draws it. `name` is the files' stem.
    pub fn render(&self, name: String) -> Result<Picture> {
        render(self, name)
    }
}

/// An axis with its ends and ticks.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn of(way: &Way, values: impl Iterator<Item = f64>) -> Self {
        let usable = |v: &f64| v.is_finite() && (!way.log || *v > 0.);
        let all = values.chain(way.level).filter(usable);
        let (mut low, mut high) =
            all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if !low.is_finite() {
            (low, high) = if way.log { (0.1, 1.) } else { (0., 1.) };
        }
        if way.log {
            // A margin on either side, and a factor of two at least.
            let middle = (low * high).sqrt();
            (low, high) = (low.min(middle / 1.5), high.max(middle * 1.5));
            let margin = (high / low).powf(0.06);
            (low, high) = (low / margin, high * margin);
            let from = low.log10().floor() as i32;
            let to = high.log10().ceil() as i32;
            let marks: &[f64] = match to - from {
                0..=2 => &[1., 2., 3., 5.],
                3 => &[1., 3.],
                _ => &[1.],
            };
            let step = ((to - from) / 9 + 1) as usize;
            let ticks = (from..=to)
                .step_by(step)
                .flat_map(|d| marks.iter().map(move |m| (m * 10f64.powi(d), name(*m, d))))
                .filter(|(v, _)| (low..=high).contains(v))
                .collect();
            return Self { low, high, log: true, ticks };
        }
        if high - low < 1e-12 * high.abs().max(1.) {
            (low, high) = (low - 0.5, high + 0.5);
        }
        let margin = 0.05 * (high - low);
        (low, high) = (low - margin, high + margin);
        let rough = (high - low) / 7.;
        let unit = 10f64.powf(rough.log10().floor());
        let step = unit * [1., 2., 5., 10.].into_iter().find(|m| m * unit >= rough).unwrap_or(10.);
        let places = (-step.log10().floor()).clamp(0., 9.) as usize;
        let first = (low / step).ceil() as i64;
        let last = (high / step).floor() as i64;
        let ticks =
            (first..=last).map(|i| (i as f64 * step, format!("{:.places$}", i as f64 * step + 0.))).collect();
        Self { low, high, log: false, ticks }
    }

    /// From 0 to 1; what lies outside is drawn at the edge.
    fn share(&self, value: f64) -> f64 {
        let at = |v: f64| if self.log { v.max(f64::MIN_POSITIVE).ln() } else { v };
        ((at(value) - at(self.low)) / (at(self.high) - at(self.low))).clamp(0., 1.)
    }
}

/// `m` times ten to the `d`.
fn name(m: f64, d: i32) -> String {
    if m == 1. { decade(d) } else { format!("{}", m * 10f64.powi(d)).chars().take(7).collect() }
}

struct Layout {
    legend: Vec<Vec<(usize, String, i32)>>,
    frames: Vec<[i32; 4]>,
    x: Axis,
    y: Axis,
    height: i32,
}

impl Plane {
    fn layout(&self) -> Result<Layout> {
        let lines = || self.panes.iter().flat_map(|p| &p.lines);
        let dots = || lines().flat_map(|l| &l.dots);
        let x = Axis::of(&self.x, dots().map(|d| d.x));
        let ends = dots().flat_map(|d| {
            let e = d.error.unwrap_or(0.);
            // On a logarithmic axis an error may reach below all of it.
            [d.y, d.y + e, if self.y.log { (d.y - e).max(d.y / 3.) } else { d.y - e }]
        });
        let y = Axis::of(&self.y, ends);
        let mut known: Vec<(usize, String)> = Vec::new();
        for line in lines() {
            if !known.iter().any(|(look, label)| *look == line.look && *label == line.label) {
                known.push((line.look, line.label.clone()));
            }
        }
        let legend = legend(known)?;
        let mut at = top(self.notes.len()) + legend.len() as i32 * (BODY + 14) + 20;
        let mut numbers = 0;
        for (_, text) in &y.ticks {
            numbers = numbers.max(width(text, SMALL)?);
        }
        let left = 30 + BODY + 30 + numbers + 16;
        let columns = self.panes.len().clamp(1, 3) as i32;
        let gap = 50;
        let wide = (WIDTH - 60 - left - gap * (columns - 1)) / columns;
        let tall = if self.panes.len() > 1 { 520 } else { 760 };
        let mut frames = Vec::new();
        for row in self.panes.chunks(3) {
            if row.iter().any(|p| !p.title.is_empty()) {
                at += BODY + 16;
            }
            for i in 0..row.len() as i32 {
                let from = left + i * (wide + gap);
                frames.push([from, at, from + wide, at + tall]);
            }
            at += tall + 30 + SMALL + 16 + BODY + 34;
        }
        Ok(Layout { legend, frames, x, y, height: at })
    }
}

impl Drawing for Plane {
    fn title(&self) -> &str {
        &self.title
    }
    fn notes(&self) -> &[String] {
        &self.notes
    }
    fn height(&self) -> Result<i32> {
        Ok(self.layout()?.height)
    }
    fn draw<DB: DrawingBackend>(&self, pen: &Pen<DB>) -> Result<()> {
        let layout = self.layout()?;
        pen.legend(&layout.legend, top(self.notes.len()))?;
        for (i, (pane, frame)) in self.panes.iter().zip(&layout.frames).enumerate() {
            pen.plane_axes(self, &layout, pane, frame, i % 3 == 0)?;
            pen.plane_lines(self, &layout, pane, frame)?;
        }
        Ok(())
    }
}

impl Layout {
    fn at(&self, frame: &[i32; 4], x: f64, y: f64) -> (i32, i32) {
        let [left, top, right, bottom] = *frame;
        let along = (f64::from(right - left) * self.x.share(x)).round() as i32;
        let up = (f64::from(bottom - top) * self.y.share(y)).round() as i32;
        (left + along, bottom - up)
    }
}

impl<DB: DrawingBackend> Pen<'_, DB> {
    fn plane_axes(
        &self,
        plane: &Plane,
        layout: &Layout,
        pane: &Pane,
        frame: &[i32; 4],
        first: bool,
    ) -> Result<()> {
        let [left, top, right, bottom] = *frame;
        let title = fit(&pane.title, BODY, right - left)?;
        self.text(&title, ((left + right) / 2, top - 16 - BODY / 2), BODY, INK, HPos::Center)?;
        for (value, label) in &layout.y.ticks {
            let y = layout.at(frame, layout.x.low, *value).1;
            self.line(&[(left, y), (right, y)], GRID, 2)?;
            if first {
                self.text(label, (left - 16, y), SMALL, SOFT, HPos::Right)?;
            }
        }
        if let Some(level) = plane.y.level {
            let y = layout.at(frame, layout.x.low, level).1;
            self.line(&[(left, y), (right, y)], SOFT, 2)?;
        }
        if let Some(level) = plane.x.level {
            let x = layout.at(frame, level, layout.y.low).0;
            self.line(&[(x, top), (x, bottom)], SOFT, 2)?;
        }
        self.line(&[(left, bottom), (right, bottom)], SOFT, 2)?;
        let mut free = i32::MIN;
        for (value, label) in &layout.x.ticks {
            let x = layout.at(frame, *value, layout.y.low).0;
            self.line(&[(x, bottom), (x, bottom + 10)], SOFT, 2)?;
            let half = width(label, SMALL)? / 2;
            // Where names would touch, one is left out.
            if x - half > free {
                self.text(label, (x, bottom + 30 + SMALL / 2), SMALL, SOFT, HPos::Center)?;
                free = x + half + 12;
            }
        }
        let below = bottom + 30 + SMALL + 16 + BODY / 2;
        let label = fit(&plane.x.label, BODY, right - left + 40)?;
        self.text(&label, ((left + right) / 2, below), BODY, INK, HPos::Center)?;
        if first {
            self.upright(&plane.y.label, (30 + BODY / 2, (top + bottom) / 2), bottom - top)?;
        }
        Ok(())
    }

    fn plane_lines(&self, plane: &Plane, layout: &Layout, pane: &Pane, frame: &[i32; 4]) -> Result<()> {
        // Boxes that are taken: markers first, then names as they find room.
        let mut taken: Vec<[i32; 4]> = Vec::new();
        let fits = |v: f64, log: bool| v.is_finite() && (!log || v > 0.);
        let usable = |d: &&Dot| fits(d.x, plane.x.log) && fits(d.y, plane.y.log);
        // Steps go down to the axis where there is nothing, also where that is infinitely far.
        let stepped = |d: &&Dot| fits(d.x, plane.x.log) && d.y.is_finite();
        for line in &pane.lines {
            let color = PALETTE[line.look % PALETTE.len()];
            let mut path: Vec<(i32, i32)> = Vec::new();
            let steps = line.run == Run::Steps;
            for dot in line.dots.iter().filter(|d| if steps { stepped(d) } else { usable(d) }) {
                let here = layout.at(frame, dot.x, dot.y);
                if let (Run::Steps, Some(&before)) = (line.run, path.last()) {
                    path.push((here.0, before.1));
                }
                path.push(here);
                if let Some(e) = dot.error {
                    let (low, high) =
                        (layout.at(frame, dot.x, dot.y - e).1, layout.at(frame, dot.x, dot.y + e).1);
                    self.line(&[(here.0, low), (here.0, high)], color, 3)?;
                    self.line(&[(here.0 - 8, low), (here.0 + 8, low)], color, 3)?;
                    self.line(&[(here.0 - 8, high), (here.0 + 8, high)], color, 3)?;
                }
            }
            if line.run != Run::Dots {
                self.line(&path, color, 4)?;
            }
        }
        for line in &pane.lines {
            // Of steps, a few: enough to tell lines apart without colours.
            let every = if line.run == Run::Steps { (line.dots.len() / 5).max(1) } else { 1 };
            let from = if line.run == Run::Steps { line.look % every } else { 0 };
            for dot in line.dots.iter().filter(usable).skip(from).step_by(every) {
                let (x, y) = layout.at(frame, dot.x, dot.y);
                self.marker((x, y), line.look)?;
                taken.push([x - 14, y - 14, x + 14, y + 14]);
            }
        }
        for line in &pane.lines {
            for dot in line.dots.iter().filter(usable).filter(|d| !d.name.is_empty()) {
                let (x, y) = layout.at(frame, dot.x, dot.y);
                let (w, h) = (width(&dot.name, SMALL)?, SMALL / 2 + 3);
                let places = [(18, 0), (-18 - w, 0), (-w / 2, -32), (-w / 2, 32)];
                let boxes = places.map(|(dx, dy)| [x + dx, y + dy - h, x + dx + w, y + dy + h]);
                let inside = |b: &[i32; 4]| {
                    b[0] > frame[0] && b[2] < frame[2] + 30 && b[1] > frame[1] - 20 && b[3] < frame[3]
                };
                let free = |b: &[i32; 4]| {
                    taken.iter().all(|t| b[2] < t[0] || b[0] > t[2] || b[3] < t[1] || b[1] > t[3])
                };
                if let Some(place) = boxes.into_iter().find(|b| inside(b) && free(b)) {
                    self.text(&dot.name, (place[0], place[1] + h), SMALL, INK, HPos::Left)?;
                    taken.push(place);
                }
            }
        }
        Ok(())
    }
}

//! Draws charts through plotters, as SVG and as PNG, from the same pixels' places.
//!
//! Everything is laid out on a canvas of twice the size at which it is read: SVG coordinates are whole numbers in
//! plotters, and a PNG for print wants the pixels. The font is compiled in, so no two machines measure text differently.
//! A [`Drawing`] says how high it is and what stands where; [`render`] has it drawn on both backends.
mod figure;
mod heat;
mod plane;
mod radar;

pub use figure::{Axis, Figure, Panel, Point, Series};
pub use heat::{Heat, Place};
pub use plane::{Dot, Line, Pane, Plane, Run, Way};
pub use radar::Radar;

use super::charts::Picture;
use anyhow::{Result, anyhow};
use plotters::{
    backend::{BitMapBackend, SVGBackend},
    coord::Shift,
    prelude::{
        Circle, DrawingArea, DrawingBackend, IntoDrawingArea, PathElement, Polygon, RGBColor, Rectangle, Text,
    },
    style::{
        Color, FontDesc, FontFamily, FontStyle, FontTransform, TextStyle, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};
use std::io::Write as _;
use std::sync::OnceLock;

/// DejaVu Sans, Latin: `dejavu-LICENSE.txt` beside it.
static FONT: &[u8] = include_bytes!("../charts/dejavu-sans-subset.ttf");

/// Pixels drawn for one pixel read.
const SCALE: i32 = 2;
const WIDTH: i32 = 1800;

/// Okabe and Ito's colours, which the colour-blind tell apart (<https://jfly.uni-koeln.de/color/>), without yellow (too
/// pale on white) and black (kept for text), and a grey.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x6E, 0x6E, 0x6E),
];
/// The page repaints these in the dark, by their values: `page.css`.
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const SOFT: RGBColor = RGBColor(0x59, 0x59, 0x59);
const GRID: RGBColor = RGBColor(0xE4, 0xE4, 0xE4);
const LEADER: RGBColor = RGBColor(0xB4, 0xB4, 0xB4);
const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);

const TITLE: i32 = 46;
const BODY: i32 = 31;
const SMALL: i32 = 27;

/// What can be drawn.
pub trait Drawing {
    /// The question it answers.
    fn title(&self) -> &str;
    /// How to read it: a line each.
    fn notes(&self) -> &[String];
    /// Pixels from top to bottom.
    fn height(&self) -> Result<i32>;
    /// Draws all but title and notes.
    fn draw<DB: DrawingBackend>(&self, pen: &Pen<DB>) -> Result<()>;
}

/// Where what is below the title and `notes` lines of notes begins.
fn top(notes: usize) -> i32 {
    40 + TITLE + 14 + notes as i32 * (SMALL + 12) + 14
}

/// Draws it. `name` is the files' stem.
pub fn render(drawing: &impl Drawing, name: String) -> Result<Picture> {
    register()?;
    let height = drawing.height()?;
    let height = height + (height & 1);
    let size = (WIDTH as u32, height as u32);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        Pen { area: &root, drop: 0. }.page(drawing)?;
        root.present().map_err(plain)?;
    }
    // Read at the size it was laid out for; the view box keeps the precision.
    let drawn = format!("width=\"{WIDTH}\" height=\"{height}\"");
    let read = format!("width=\"{}\" height=\"{}\"", WIDTH / SCALE, height / SCALE);
    let svg = svg.replacen(&drawn, &read, 1);
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
        // plotters sets a text's middle higher in bitmaps than browsers do in SVG.
        Pen { area: &root, drop: 0.11 }.page(drawing)?;
        root.present().map_err(plain)?;
    }
    Ok(Picture { name, title: drawing.title().to_owned(), svg, png: png(&pixels, size.0, size.1)? })
}

/// plotters' errors carry a backend's type and are not all `Send`.
fn plain(e: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing a chart: {e}")
}

fn register() -> Result<()> {
    static DONE: OnceLock<bool> = OnceLock::new();
    let done = *DONE.get_or_init(|| register_font("sans-serif", FontStyle::Normal, FONT).is_ok());
    if done { Ok(()) } else { Err(anyhow!("the built-in font cannot be read")) }
}

/// A text's width in pixels.
fn width(text: &str, size: i32) -> Result<i32> {
    Ok(font(size).layout_box(text).map_err(plain)?.1.0)
}

fn font(size: i32) -> FontDesc<'static> {
    FontDesc::new(FontFamily::SansSerif, f64::from(size), FontStyle::Normal)
}

fn decade(power: i32) -> String {
    match power {
        -4..=0 => format!("{:.*}", -power as usize, 10f64.powi(power)),
        1..=5 => format!("{:.0}", 10f64.powi(power)),
        _ => format!("1e{power}"),
    }
}

/// Lines of a legend: look, label, x. None where there is one thing only.
fn legend(known: Vec<(usize, String)>) -> Result<Vec<Vec<(usize, String, i32)>>> {
    let mut lines: Vec<Vec<(usize, String, i32)>> = Vec::new();
    let known = if known.len() == 1 { Vec::new() } else { known };
    let mut x = i32::MAX;
    for (look, label) in known.into_iter().filter(|(_, l)| !l.is_empty()) {
        let wide = 100 + width(&label, BODY)? + 40;
        if x.saturating_add(wide) > WIDTH - 30 {
            x = 60;
            lines.push(Vec::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push((look, label, x));
        }
        x += wide;
    }
    Ok(lines)
}

/// A text cut to a width, with an ellipsis in its middle.
fn fit(text: &str, size: i32, room: i32) -> Result<String> {
    let mut kept: Vec<char> = text.chars().collect();
    let mut out = text.to_owned();
    while width(&out, size)? > room && kept.len() > 4 {
        kept.remove(kept.len() / 2);
        let half = kept.len() / 2;
        out = kept[..half].iter().chain(&['…']).chain(&kept[half..]).collect();
    }
    Ok(out)
}

/// Draws on one backend.
pub struct Pen<'a, DB: DrawingBackend> {
    area: &'a DrawingArea<DB, Shift>,
    /// By how much of its size a text is set lower.
    drop: f64,
}

impl<DB: DrawingBackend> Pen<'_, DB> {
    fn page(&self, drawing: &impl Drawing) -> Result<()> {
        self.area.fill(&PAPER).map_err(plain)?;
        // A long name must not run out of the picture.
        let mut title = TITLE;
        while title > SMALL && width(drawing.title(), title)? > WIDTH - 80 {
            title -= 1;
        }
        self.text(drawing.title(), (40, 40 + TITLE / 2), title, INK, HPos::Left)?;
        for (i, note) in drawing.notes().iter().enumerate() {
            let y = 40 + TITLE + 14 + i as i32 * (SMALL + 12) + SMALL / 2;
            let mut size = SMALL;
            while size > 18 && width(note, size)? > WIDTH - 80 {
                size -= 1;
            }
            self.text(note, (40, y), size, SOFT, HPos::Left)?;
        }
        drawing.draw(self)
    }

    /// Lines of a legend from `top` on.
    fn legend(&self, lines: &[Vec<(usize, String, i32)>], top: i32) -> Result<()> {
        for (i, line) in lines.iter().enumerate() {
            let y = top + i as i32 * (BODY + 14) + BODY / 2;
            for (look, label, x) in line {
                self.line(&[(*x, y), (x + 80, y)], PALETTE[look % PALETTE.len()], 4)?;
                self.marker((x + 40, y), *look)?;
                self.text(label, (x + 94, y), BODY, INK, HPos::Left)?;
            }
        }
        Ok(())
    }

    /// A filled box.
    fn fill(&self, [left, top, right, bottom]: [i32; 4], color: RGBColor) -> Result<()> {
        self.area.draw(&Rectangle::new([(left, top), (right, bottom)], color.filled())).map_err(plain)
    }

    fn line(&self, points: &[(i32, i32)], color: RGBColor, thick: u32) -> Result<()> {
        if points.len() < 2 {
            return Ok(());
        }
        self.area.draw(&PathElement::new(points.to_vec(), color.stroke_width(thick))).map_err(plain)
    }

    fn text(&self, text: &str, (x, y): (i32, i32), size: i32, color: RGBColor, align: HPos) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let style = TextStyle::from(font(size)).color(&color).pos(Pos::new(align, VPos::Center));
        let drop = (self.drop * f64::from(size)).round() as i32;
        self.area.draw(&Text::new(text.to_owned(), (x, y + drop), style)).map_err(plain)
    }

    /// A text that reads upwards, made smaller until it fits.
    fn upright(&self, text: &str, (x, y): (i32, i32), room: i32) -> Result<()> {
        let mut size = BODY;
        while size > 18 && width(text, size)? > room {
            size -= 1;
        }
        let desc = font(size).transform(FontTransform::Rotate270);
        let style = TextStyle::from(desc).color(&INK).pos(Pos::new(HPos::Center, VPos::Center));
        let drop = (self.drop * f64::from(size)).round() as i32;
        self.area.draw(&Text::new(text.to_owned(), (x + drop, y), style)).map_err(plain)
    }

    /// A text that reads upwards from a point on.
    fn upright_from(&self, text: &str, (x, y): (i32, i32), size: i32) -> Result<()> {
        let desc = font(size).transform(FontTransform::Rotate270);
        let style = TextStyle::from(desc).color(&SOFT).pos(Pos::new(HPos::Center, VPos::Center));
        let drop = (self.drop * f64::from(size)).round() as i32;
        // Around its middle: backends differ in what the end of a turned text is.
        let middle = y - width(text, size)? / 2;
        self.area.draw(&Text::new(text.to_owned(), (x + drop, middle), style)).map_err(plain)
    }

    /// Shape and colour go round together, and apart after the seventh.
    fn marker(&self, (x, y): (i32, i32), look: usize) -> Result<()> {
        let color = PALETTE[look % PALETTE.len()];
        let shape = (look + look / PALETTE.len()) % PALETTE.len();
        for (r, color) in [(15, PAPER), (11, color)] {
            let rim = r + (r - 11);
            let polygon = |corners: &[(i32, i32)]| {
                let corners: Vec<_> = corners.iter().map(|(a, b)| (x + a, y + b)).collect();
                self.area.draw(&Polygon::new(corners, color.filled())).map_err(plain)
            };
            match shape {
                0 => self.area.draw(&Circle::new((x, y), r, color.filled())).map_err(plain)?,
                1 => {
                    let s = r - 1;
                    self.area
                        .draw(&Rectangle::new([(x - s, y - s), (x + s, y + s)], color.filled()))
                        .map_err(plain)?;
                }
                2 => polygon(&[(0, -rim - 2), (rim + 1, r - 2), (-rim - 1, r - 2)])?,
                3 => polygon(&[(0, -rim - 3), (rim + 3, 0), (0, rim + 3), (-rim - 3, 0)])?,
                4 => polygon(&[(0, rim + 2), (rim + 1, 2 - r), (-rim - 1, 2 - r)])?,
                5 => polygon(&[(-rim - 2, 0), (r - 2, -rim - 1), (r - 2, rim + 1)])?,
                _ => {
                    let t = r / 2;
                    polygon(&[
                        (-t, -rim),
                        (t, -rim),
                        (t, -t),
                        (rim, -t),
                        (rim, t),
                        (t, t),
                        (t, rim),
                        (-t, rim),
                        (-t, t),
                        (-rim, t),
                        (-rim, -t),
                        (-t, -t),
                    ])?;
                }
            }
        }
        Ok(())
    }
}

/// RGB pixels as a PNG (RFC 2083): one `IDAT`, each row as the difference from the one above.
fn png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let row = width as usize * 3;
    let mut filtered = Vec::with_capacity(pixels.len() + height as usize);
    let mut above = vec![0; row];
    for line in pixels.chunks_exact(row) {
        filtered.push(2);
        filtered.extend(line.iter().zip(&above).map(|(a, b)| a.wrapping_sub(*b)));
        above.copy_from_slice(line);
    }
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(5));
    zlib.write_all(&filtered)?;
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]);
    // 192 pixels an inch: 75.59 a centimetre.
    let mut density = [7559u32.to_be_bytes(), 7559u32.to_be_bytes()].concat();
    density.push(1);
    for (kind, data) in
        [(b"IHDR", header), (b"pHYs", density), (b"IDAT", zlib.finish()?), (b"IEND", Vec::new())]
    {
        out.extend((data.len() as u32).to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(&data);
        out.extend(kind);
        out.extend(data);
        out.extend(crc.sum().to_be_bytes());
    }
    Ok(out)
}

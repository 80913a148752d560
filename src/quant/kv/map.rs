//! [`Kv`] at the decoder's seam: rows of heads, of tokens or of channels to what the cache gives back.
use super::{
    Kv, Positions, Share, Side,
    nuq::{Book, By, Text},
};
use crate::{
    model::{
        ops::Precision,
        seam::{Age, KvMap, RowMap},
    },
    quant::{
        calibrate::Held,
        grid::{Fit, Format, Grid},
    },
    tensor::rows,
};
use anyhow::ensure;
use candle_core::{Device, Error, Result, Tensor};

/// See the module.
pub struct Cached {
    settings: Kv,
    precision: Precision,
    /// Of each channel of the keys, where they are calibrated.
    ranges: Vec<Range>,
    /// Of keys and of values, where they are fitted.
    books: [Option<Book>; 2],
    probabilities: Option<Probabilities>,
}

/// Of one query and head, over the keys that it sees.
struct Probabilities {
    grid: Grid,
    precision: Precision,
}

impl RowMap for Probabilities {
    fn map(&self, row: &mut [f32]) {
        let exact = row.to_vec();
        snap_row(&self.grid, exact.len(), &exact, row, self.precision);
    }
}

/// What lies outside stays exact.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The smallest value.
    pub low: f32,
    /// The largest.
    pub high: f32,
}

impl Cached {
    /// `seen`: what the cache would hold of a text, where ranges or codebooks are calibrated; `means`: what each key and value of it
    /// means to the model, where that is asked for.
    ///
    /// # Errors
    /// Calibrated ranges without a text, or of keys that are not finite.
    pub fn new(
        settings: &Kv,
        precision: Precision,
        seen: &Held,
        means: Option<&[Tensor; 2]>,
    ) -> anyhow::Result<Self> {
        let mut ranges = Vec::new();
        if settings.keys.per == Share::Calibrated {
            ensure!(!seen.keys.is_empty(), "calibrated ranges of keys without a text");
            let turned = Tensor::cat(&seen.keys, 0)?.to_device(&Device::Cpu)?.t()?.contiguous()?;
            for mut channel in turned.to_vec2::<f32>()? {
                ensure!(channel.iter().all(|x| x.is_finite()), "keys of the calibration text are not finite");
                channel.sort_by(f32::total_cmp);
                ranges.push(Range::between(&channel, settings.keys.outliers));
            }
        }
        let mut books = [None, None];
        let sides = [(&settings.keys, &seen.keys, &ranges[..]), (&settings.values, &seen.values, &[])];
        for (i, (side, held, ranges)) in sides.into_iter().enumerate() {
            let (Some(fitted), Format::Int(int)) = (side.codebook, side.grid.format) else { continue };
            ensure!(!held.is_empty(), "a codebook without a text");
            let x = Tensor::cat(held, 0)?.to_device(&Device::Cpu)?;
            let (width, x) = (x.dim(1)?, x.flatten_all()?.to_vec1::<f32>()?);
            ensure!(x.iter().all(|x| x.is_finite()), "keys or values of the calibration text are not finite");
            let own = means.map(|means| means[i].to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>());
            let counts = own.transpose()?.filter(|_| fitted.by == By::Gradients);
            ensure!(
                counts.as_ref().map(Vec::len).or((fitted.by == By::Even).then_some(x.len())) == Some(x.len()),
                "a codebook by gradients without the gradients of its text"
            );
            let exact = |row: usize| {
                let first = seen.starts.partition_point(|start| *start <= row).checked_sub(1);
                first.is_some_and(|first| row - seen.starts[first] < settings.sinks)
            };
            let text = Text { x: &x, width, counts: counts.as_deref(), exact: &exact };
            books[i] = Some(Book::fit(&text, fitted, int.bits, ranges, side.outliers));
        }
        let probabilities = settings.probabilities.clone().map(|grid| Probabilities { grid, precision });
        Ok(Self { settings: settings.clone(), precision, ranges, books, probabilities })
    }

    /// Fitted codebooks, of keys and of values.
    pub fn books(&self) -> &[Option<Book>; 2] {
        &self.books
    }

    /// With codebooks that are known: how other programs' are held to what is done with them here.
    pub fn with_books(mut self, books: [Option<Book>; 2]) -> Self {
        self.books = books;
        self
    }

    fn side(&self, side: &Side, x: &Tensor) -> Result<Tensor> {
        let (tokens, heads, width) = x.dims3()?;
        match side.per {
            Share::Head => self.rows(side, x),
            Share::Token => self.rows(side, &x.reshape((tokens, heads * width))?)?.reshape(x.shape()),
            Share::Channel => {
                let turned = x.reshape((tokens, heads * width))?.t()?.contiguous()?;
                self.rows(side, &turned)?.t()?.contiguous()?.reshape(x.shape())
            }
            Share::Calibrated => {
                self.calibrated(side, &x.reshape((tokens, heads * width))?)?.reshape(x.shape())
            }
        }
    }

    /// Each row on its own, in groups along it.
    fn rows(&self, side: &Side, x: &Tensor) -> Result<Tensor> {
        if let (Some(book), true) = (&self.books[1], side.codebook.is_some()) {
            let cpu = x.to_device(&Device::Cpu)?.contiguous()?;
            let snapped = rows::map(&cpu, "quantize", |_, x, out| {
                book.token(x, side.outliers, out, self.precision);
            })?;
            return snapped.to_device(x.device());
        }
        if side.outliers == 0. {
            return side.grid.round_rows(x, self.precision).map_err(Error::wrap);
        }
        let width = x.dim(x.rank() - 1)?;
        let cpu = x.to_device(&Device::Cpu)?.contiguous()?;
        let snapped = rows::map(&cpu, "quantize", |_, x, out| {
            let (outside, median) = outliers(x, side.outliers);
            let middle: Vec<f32> =
                x.iter().zip(&outside).map(|(x, o)| if *o { median } else { *x }).collect();
            snap_row(&side.grid, width, &middle, out, self.precision);
            for ((out, x), _) in out.iter_mut().zip(x).zip(&outside).filter(|(_, o)| **o) {
                *out = self.precision.one(*x);
            }
        })?;
        snapped.to_device(x.device())
    }

    /// Each channel in its own range.
    fn calibrated(&self, side: &Side, x: &Tensor) -> Result<Tensor> {
        let Format::Int(int) = side.grid.format else {
            return Err(Error::Msg("calibrated ranges are for integers".into()));
        };
        let book = self.books[0].as_ref();
        let fits: Vec<_> = self.ranges.iter().map(|r| int.fit_range(r.low, r.high, self.precision)).collect();
        let cpu = x.to_device(&Device::Cpu)?.contiguous()?;
        let snapped = rows::map(&cpu, "quantize", |_, x, out| {
            for (((out, &x), fit), range) in out.iter_mut().zip(x).zip(&fits).zip(&self.ranges) {
                let inside = side.outliers == 0. || (range.low..=range.high).contains(&x);
                *out = match (inside, book) {
                    (false, _) => x,
                    (true, Some(book)) => book.one(x, *range, self.precision),
                    (true, None) => fit.one(x),
                };
            }
        })?;
        snapped.to_device(x.device())
    }
}

/// One row, in groups along it.
fn snap_row(grid: &Grid, width: usize, x: &[f32], out: &mut [f32], precision: Precision) {
    let over = grid.over(x, width, precision);
    for (g, group) in grid.groups(width).enumerate() {
        let fit: Fit = over.fit(&x[group.clone()], g);
        fit.snap(&x[group.clone()], &mut out[group]);
    }
}

/// Linear between the two nearest, as `torch.quantile` and `numpy.percentile`; `sorted` is not empty.
pub fn quantile(sorted: &[f32], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    f64::from(below) + (f64::from(above) - f64::from(below)) * at.fract()
}

/// Which values are outliers, half of the share at each end, and the median of all (the lower one of an even number): KVQuant's
/// `get_outliers_dynamic` and `quant_fn_zp`.
pub fn outliers(x: &[f32], share: f64) -> (Vec<bool>, f32) {
    let mut sorted = x.to_vec();
    sorted.sort_by(f32::total_cmp);
    let Some(median) = sorted.get(sorted.len().saturating_sub(1) / 2).copied() else {
        return (Vec::new(), 0.);
    };
    let (low, high) = (quantile(&sorted, share / 2.) as f32, quantile(&sorted, 1. - share / 2.) as f32);
    (x.iter().map(|&x| x <= low || x >= high).collect(), median)
}

impl KvMap for Cached {
    fn ages(&self) -> [Age; 2] {
        [self.settings.keys.age(), self.settings.values.age()]
    }
    fn sinks(&self) -> usize {
        self.settings.sinks
    }
    fn before_positions(&self) -> bool {
        self.settings.positions == Positions::Before
    }
    fn tokens(&self) -> usize {
        if self.settings.joins_tokens() { self.settings.keys.grid.group.max(2) } else { 1 }
    }
    fn keys(&self, k: &Tensor) -> Result<Tensor> {
        self.side(&self.settings.keys, k)
    }
    fn values(&self, v: &Tensor) -> Result<Tensor> {
        self.side(&self.settings.values, v)
    }
    fn queries(&self, q: &Tensor) -> Option<Result<Tensor>> {
        let grid = self.settings.queries.as_ref()?;
        Some(grid.round_rows(q, self.precision).map_err(Error::wrap))
    }
    fn probabilities(&self) -> Option<&dyn RowMap> {
        self.probabilities.as_ref().map(|map| map as &dyn RowMap)
    }
}

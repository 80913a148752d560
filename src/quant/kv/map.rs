//! [`Kv`] at the decoder's seam: rows of heads, of tokens or of channels to what the cache gives back.
use super::{Kv, Positions, Share, Side};
use crate::{
    model::{
        ops::Precision,
        seam::{Age, KvMap, RowMap},
    },
    quant::grid::{Fit, Format, Grid},
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
#[derive(Clone, Copy)]
struct Range {
    low: f32,
    high: f32,
}

impl Cached {
    /// `seen`: keys of a text, `[tokens, kv_heads * head_dim]` each, where ranges are calibrated.
    ///
    /// # Errors
    /// Calibrated ranges without a text, or of keys that are not finite.
    pub fn new(settings: &Kv, precision: Precision, seen: &[Tensor]) -> anyhow::Result<Self> {
        let mut ranges = Vec::new();
        if settings.keys.per == Share::Calibrated {
            ensure!(!seen.is_empty(), "calibrated ranges of keys without a text");
            let outside = settings.keys.outliers / 2.;
            let turned = Tensor::cat(seen, 0)?.to_device(&Device::Cpu)?.t()?.contiguous()?;
            for mut channel in turned.to_vec2::<f32>()? {
                ensure!(channel.iter().all(|x| x.is_finite()), "keys of the calibration text are not finite");
                channel.sort_by(f32::total_cmp);
                ranges.push(Range {
                    low: quantile(&channel, outside) as f32,
                    high: quantile(&channel, 1. - outside) as f32,
                });
            }
        }
        let probabilities = settings.probabilities.clone().map(|grid| Probabilities { grid, precision });
        Ok(Self { settings: settings.clone(), precision, ranges, probabilities })
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
        let fits: Vec<_> = self.ranges.iter().map(|r| int.fit_range(r.low, r.high, self.precision)).collect();
        let cpu = x.to_device(&Device::Cpu)?.contiguous()?;
        let snapped = rows::map(&cpu, "quantize", |_, x, out| {
            for (((out, &x), fit), range) in out.iter_mut().zip(x).zip(&fits).zip(&self.ranges) {
                let inside = side.outliers == 0. || (range.low..=range.high).contains(&x);
                *out = if inside { fit.one(x) } else { x };
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
fn quantile(sorted: &[f32], share: f64) -> f64 {
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

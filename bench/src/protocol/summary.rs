//! Figures with their uncertainty, computed from windows.

use super::run::{Record, Window};
use pith_boards::meters::ModelMeter;
use pith_meter::statistics::Interval;
use pith_meter::{Kind, Scope};
use serde::Serialize;

/// Figures of one variant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Number of windows.
    pub windows: usize,
    /// Windows with throttling; `None` if unknown.
    pub throttled_windows: Option<usize>,
    /// Tokens per second.
    pub tokens_per_s: Interval,
    /// Counted bytes per token: weights, embeddings, keys and values.
    pub bytes_per_token: f64,
    /// Measured bytes per token: one per counter, `None` where a window has no figure.
    pub measured_bytes_per_token: Vec<Option<Interval>>,
    /// One per meter.
    pub energy: Vec<EnergySummary>,
}

/// Figures of one meter for one variant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EnergySummary {
    /// The meter.
    pub meter: String,
    /// Its scope.
    pub scope: Scope,
    /// The kind of its figures.
    pub kind: Kind,
    /// Gross joules per token; `None` where no window has a figure. Modelled figures have no
    /// interval: their coefficients have one.
    pub gross_joules_per_token: Option<Interval>,
    /// Net joules per token: gross less the power at rest. The interval includes the uncertainty of
    /// the power at rest: the spread of the rests' windows, or half of the difference between the
    /// rests before and after, whichever is larger. `None` where a rest has no figure.
    pub net_joules_per_token: Option<Interval>,
    /// Watts at rest, the mean of before and after.
    pub idle_watts: Option<f64>,
    /// Watts after less watts before.
    pub idle_drift_watts: Option<f64>,
    /// Windows without a figure.
    pub missing_windows: usize,
    /// Reason of the first window without a figure; if all windows have one, that of a rest.
    pub reason: Option<String>,
}

impl Summary {
    /// Counted bytes per second.
    pub fn bytes_per_s(&self) -> f64 {
        self.bytes_per_token * self.tokens_per_s.mean
    }
}

impl EnergySummary {
    /// Tokens per gross joule.
    pub fn tokens_per_joule(&self) -> Option<f64> {
        self.gross_joules_per_token.filter(|gross| gross.mean > 0.0).map(|gross| 1.0 / gross.mean)
    }
}

impl Record {
    /// Summaries of all variants.
    pub fn summaries(&self) -> Vec<Summary> {
        self.variants.iter().filter_map(|(name, windows)| self.summary(name, windows)).collect()
    }

    /// Joules per token of each window of a variant, by one meter; `None` where a window has no
    /// figure. For comparisons of variants, window by window.
    pub fn joules_per_token(&self, variant: usize, meter: usize) -> Vec<Option<f64>> {
        let windows = self.variants.get(variant).map_or(&[][..], |(_, windows)| windows);
        windows.iter().map(|window| per_token(window, meter)).collect()
    }

    /// `None` without a window that made a token.
    fn summary(&self, name: &str, windows: &[Window]) -> Option<Summary> {
        let rates: Vec<f64> =
            windows.iter().map(|window| window.work.tokens as f64 / (window.end - window.start)).collect();
        let tokens: usize = windows.iter().map(|window| window.work.tokens).sum();
        if tokens == 0 {
            return None;
        }
        let bytes: u64 = windows.iter().map(|window| ModelMeter::memory_bytes(&window.work.traffic)).sum();
        let told: Option<Vec<bool>> = windows.iter().map(|window| window.throttled).collect();
        Some(Summary {
            name: name.into(),
            windows: windows.len(),
            throttled_windows: told.map(|told| told.into_iter().filter(|slow| *slow).count()),
            tokens_per_s: Interval::of(&rates)?,
            bytes_per_token: bytes as f64 / tokens as f64,
            measured_bytes_per_token: (0..self.counters.len())
                .map(|counter| measured(windows, counter))
                .collect(),
            energy: (0..self.meters.len()).map(|meter| self.energy(windows, meter)).collect(),
        })
    }

    fn energy(&self, windows: &[Window], meter: usize) -> EnergySummary {
        let info = &self.meters[meter];
        let watts = |rest: &[Window]| -> Option<Vec<f64>> {
            let one =
                |window: &Window| Some(window.joules[meter].as_ref().ok()?.0 / (window.end - window.start));
            rest.iter().map(one).collect()
        };
        let rests = watts(&self.idle_before).zip(watts(&self.idle_after));
        let idle = rests.as_ref().and_then(|(before, after)| Interval::of(&[&before[..], after].concat()));
        let drift = rests
            .as_ref()
            .and_then(|(before, after)| Some(Interval::of(after)?.mean - Interval::of(before)?.mean));
        let gross: Vec<f64> = windows.iter().filter_map(|window| per_token(window, meter)).collect();
        let net = |idle: Interval, drift: f64| {
            let seconds = |window: &Window| (window.end - window.start) / window.work.tokens as f64;
            let with_figure: Vec<(f64, f64)> = windows
                .iter()
                .filter_map(|window| Some((per_token(window, meter)?, seconds(window))))
                .collect();
            let net: Vec<f64> =
                with_figure.iter().map(|(joules, seconds)| joules - idle.mean * seconds).collect();
            let mean_seconds = with_figure.iter().map(|(_, seconds)| seconds).sum::<f64>() / net.len() as f64;
            let interval = Interval::of(&net)?;
            let of_idle = idle.half_width.unwrap_or(0.0).max(drift.abs() / 2.0) * mean_seconds;
            Some(Interval { half_width: interval.half_width.map(|half| half.hypot(of_idle)), ..interval })
        };
        // The spread of its windows would be that of the clock. The uncertainty of the coefficients
        // is in their own intervals.
        let shown = |interval: Interval| match info.kind {
            Kind::Modelled => Interval { half_width: None, ..interval },
            Kind::Measured | Kind::Calibrated => interval,
        };
        let mut of_all = windows.iter().chain(&self.idle_before).chain(&self.idle_after);
        let reason = of_all.find_map(|window| window.joules[meter].as_ref().err());
        EnergySummary {
            meter: info.name.clone(),
            scope: info.scope,
            kind: info.kind,
            gross_joules_per_token: Interval::of(&gross).map(shown),
            net_joules_per_token: idle.zip(drift).and_then(|(idle, drift)| net(idle, drift)).map(shown),
            idle_watts: idle.map(|idle| idle.mean),
            idle_drift_watts: drift,
            missing_windows: windows.len() - gross.len(),
            reason: reason.cloned(),
        }
    }
}

fn measured(windows: &[Window], counter: usize) -> Option<Interval> {
    let one = |window: &Window| {
        let bytes = window.measured_bytes[counter].as_ref().ok()?;
        (window.work.tokens > 0).then(|| *bytes as f64 / window.work.tokens as f64)
    };
    Interval::of(&windows.iter().map(one).collect::<Option<Vec<f64>>>()?)
}

fn per_token(window: &Window, meter: usize) -> Option<f64> {
    let joules = window.joules[meter].as_ref().ok()?;
    (window.work.tokens > 0).then(|| joules.0 / window.work.tokens as f64)
}

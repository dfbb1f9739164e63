//! A run over time: ledger lines spread over bins of equal length.

use crate::entry::Entry;
use crate::reader::LedgerFile;
use pith_runtime::Phase;

/// Most bins of a run; each is a row of its table.
const MOST_BINS: usize = 60;

/// A run divided into equal time bins.
pub(crate) struct Bins {
    pub bins: Vec<Bin>,
    /// End of the last line.
    pub end: f64,
    /// Start, end and phase of each stretch of consecutive lines of one phase.
    pub spans: Vec<(f64, f64, Phase)>,
}

/// One time bin.
#[derive(Clone, Default)]
pub(crate) struct Bin {
    pub from: f64,
    pub to: f64,
    prefill_seconds: f64,
    decode_seconds: f64,
    decode_tokens: f64,
    /// Per meter: joules, and the seconds of work they cover.
    energy: Vec<(f64, f64)>,
    pub celsius: Option<f64>,
    pub throttled: Option<bool>,
}

impl Bin {
    /// Phases of the work in this bin.
    pub fn phase(&self) -> &'static str {
        match (self.prefill_seconds > 0.0, self.decode_seconds > 0.0) {
            (true, true) => "prefill, decode",
            (true, false) => "prefill",
            (false, true) => "decode",
            (false, false) => "idle",
        }
    }

    /// Tokens decoded per second of decoding.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.decode_seconds > 0.0).then(|| self.decode_tokens / self.decode_seconds)
    }

    /// Mean power during work, over lines that have a figure.
    pub fn watts(&self, meter: usize) -> Option<f64> {
        let (joules, seconds) = self.energy[meter];
        (seconds > 0.0).then(|| joules / seconds)
    }

    /// Midpoint in time.
    pub fn middle(&self) -> f64 {
        (self.from + self.to) / 2.0
    }
}

impl Bins {
    /// Takes fewer than [`MOST_BINS`] bins where there are few lines, or few new values of a slow
    /// sensor.
    pub fn new(ledger: &LedgerFile) -> Self {
        let entries = &ledger.entries;
        let end = entries.last().map_or(0.0, |entry| entry.start_seconds + entry.seconds);
        let meters = ledger.header.meters.len();
        let values = |meter: usize| {
            entries.iter().filter(|entry| entry.joules[meter].is_some_and(|joules| joules > 0.0)).count()
        };
        let fewest = (0..meters).map(values).filter(|&values| values > 0).fold(entries.len(), usize::min);
        let count = (fewest / 2).clamp(1, MOST_BINS);
        let width = end / count as f64;
        let bin = |index: usize| Bin {
            from: width * index as f64,
            to: if index + 1 == count { end } else { width * (index + 1) as f64 },
            energy: vec![(0.0, 0.0); meters],
            ..Bin::default()
        };
        let mut bins: Vec<Bin> = (0..count).map(bin).collect();
        for entry in entries {
            spread(entry, &mut bins, width);
        }
        Self { bins, end, spans: spans(entries) }
    }
}

/// Distributes a line evenly over the bins it overlaps.
fn spread(entry: &Entry, bins: &mut [Bin], width: f64) {
    let (from, to) = (entry.start_seconds, entry.start_seconds + entry.seconds);
    let index = |time: f64| {
        if width > 0.0 { ((time / width) as usize).min(bins.len() - 1) } else { 0 }
    };
    let (first, last) = (index(from), index(to));
    for bin in &mut bins[first..=last] {
        let seconds = (to.min(bin.to) - from.max(bin.from)).max(0.0);
        let share = if entry.seconds > 0.0 { seconds / entry.seconds } else { 0.0 };
        match entry.phase {
            Phase::Prefill => bin.prefill_seconds += seconds,
            Phase::Decode => {
                bin.decode_seconds += seconds;
                bin.decode_tokens += share * entry.tokens as f64;
            }
        }
        for (sum, joules) in bin.energy.iter_mut().zip(&entry.joules) {
            if let Some(joules) = joules {
                sum.0 += share * joules;
                sum.1 += seconds;
            }
        }
    }
    // Conditions were read at the end of the work.
    let bin = &mut bins[last];
    bin.celsius = bin.celsius.into_iter().chain(entry.conditions.temperature_celsius).reduce(f64::max);
    bin.throttled =
        bin.throttled.into_iter().chain(entry.conditions.throttled).reduce(|one, other| one || other);
}

fn spans(entries: &[Entry]) -> Vec<(f64, f64, Phase)> {
    let mut spans: Vec<(f64, f64, Phase)> = Vec::new();
    for entry in entries {
        let end = entry.start_seconds + entry.seconds;
        match spans.last_mut() {
            Some((_, to, phase)) if *phase == entry.phase => *to = end,
            _ => spans.push((entry.start_seconds, end, entry.phase)),
        }
    }
    spans
}

//! Sums and means of a ledger, with how sure they are.

use crate::header::MeterRecord;
use crate::reader::{Entry, LedgerFile};
use pith_runtime::{Kind, Phase, Traffic};

/// Most windows that a phase is cut into for a confidence interval.
pub const MOST_WINDOWS: usize = 20;
/// Fewest windows, and fewest lines in each, that an interval is computed from.
const FEWEST_WINDOWS: usize = 5;
const FEWEST_LINES: usize = 4;
/// New values a sensor must have given for its mean to be trusted.
const FEWEST_VALUES: usize = 100;

/// A mean over a phase.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The ratio of the sums, over the whole phase.
    pub mean: f64,
    /// Half the width of the 95 % confidence interval; `None` where there are too few lines for one.
    pub half_width: Option<f64>,
    /// Windows that the interval was computed from; 0 where there is none.
    pub windows: usize,
}

/// What one phase cost in all and a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Lines of the ledger.
    pub lines: usize,
    /// Tokens.
    pub tokens: u64,
    /// Time of the work, pauses between lines left out.
    pub seconds: f64,
    /// Bytes.
    pub traffic: Traffic,
    /// Tokens a second; `None` where no time was measured.
    pub tokens_per_second: Option<Estimate>,
    /// One a meter, in the order of the first line.
    pub energy: Vec<Energy>,
    /// Whether the clock was held down in any line; `None` where no line knows.
    pub throttled: Option<bool>,
    /// Highest temperature seen.
    pub hottest_celsius: Option<f64>,
}

/// What one meter says of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Energy {
    /// The meter.
    pub meter: MeterRecord,
    /// Sum over the lines that have a figure; `None` where none has.
    pub joules: Option<f64>,
    /// Joules a token over those lines; `None` where there is no figure or no token.
    pub joules_per_token: Option<Estimate>,
    /// Lines that have a figure.
    pub lines: usize,
    /// Why the figure is not to be trusted, for people.
    pub caution: Option<String>,
}

impl Summary {
    /// The sums of one phase; `None` where it has no line.
    pub fn new(ledger: &LedgerFile, phase: Phase) -> Option<Self> {
        let entries: Vec<&Entry> = ledger.entries.iter().filter(|entry| entry.phase == phase).collect();
        if entries.is_empty() {
            return None;
        }
        let mut traffic = Traffic::default();
        entries.iter().for_each(|entry| traffic += entry.traffic);
        let meters = ledger.header.meters.iter().enumerate();
        let throttled = entries.iter().filter_map(|entry| entry.conditions.throttled);
        let temperatures = entries.iter().filter_map(|entry| entry.conditions.temperature_celsius);
        Some(Self {
            lines: entries.len(),
            tokens: entries.iter().map(|entry| entry.tokens).fold(0, u64::saturating_add),
            seconds: entries.iter().map(|entry| entry.seconds).sum(),
            traffic,
            tokens_per_second: Estimate::new(&entries, |entry| (entry.tokens as f64, entry.seconds)),
            energy: meters.map(|(index, meter)| Energy::new(meter.clone(), index, &entries)).collect(),
            throttled: throttled.reduce(|one, other| one || other),
            hottest_celsius: temperatures.reduce(f64::max),
        })
    }

    /// Bytes of weights and cache a token: what decoding must bring from memory. `None` without tokens.
    pub fn memory_bytes_per_token(&self) -> Option<f64> {
        let bytes = self.traffic.total_bytes() - self.traffic.activation_bytes;
        (self.tokens > 0).then(|| bytes as f64 / self.tokens as f64)
    }

    /// Bytes of weights and cache a second; `None` where no time was measured.
    pub fn memory_bytes_per_second(&self) -> Option<f64> {
        let bytes = self.traffic.total_bytes() - self.traffic.activation_bytes;
        (self.seconds > 0.0).then(|| bytes as f64 / self.seconds)
    }
}

impl Energy {
    fn new(meter: MeterRecord, index: usize, entries: &[&Entry]) -> Self {
        let known: Vec<&Entry> =
            entries.iter().copied().filter(|entry| entry.joules[index].is_some()).collect();
        let of = |entry: &Entry| entry.joules[index].unwrap_or_default();
        let caution = caution(&meter, &known, entries.len(), of);
        let estimate = Estimate::new(&known, |entry| (of(entry), entry.tokens as f64));
        // A model's figures spread as the clock does, and what a slow sensor gives between its values is interpolated.
        let has_interval = meter.kind != Kind::Modelled && new_values(&meter, &known) >= FEWEST_WINDOWS;
        Self {
            joules: (!known.is_empty()).then(|| known.iter().map(|entry| of(entry)).sum()),
            joules_per_token: match has_interval {
                true => estimate,
                false => estimate.map(|estimate| Estimate { half_width: None, windows: 0, ..estimate }),
            },
            lines: known.len(),
            caution,
            meter,
        }
    }
}

/// How many values a sensor gave while these lines were computed, at most.
fn new_values(meter: &MeterRecord, known: &[&Entry]) -> usize {
    let seconds: f64 = known.iter().map(|entry| entry.seconds).sum();
    match meter.period_milliseconds {
        Some(period) if period > 0 => known.len().min((1e3 * seconds / period as f64) as usize),
        _ => known.len(),
    }
}

fn caution(
    meter: &MeterRecord,
    known: &[&Entry],
    lines: usize,
    joules: impl Fn(&Entry) -> f64,
) -> Option<String> {
    let kind = meter.kind;
    let values = known.iter().filter(|entry| joules(entry) > 0.0).count().min(new_values(meter, known));
    if known.is_empty() {
        None
    } else if known.len() < lines {
        Some(format!("no reading in {} of {lines} lines", lines - known.len()))
    } else if kind != Kind::Modelled && values < known.len() && values < FEWEST_VALUES {
        // Slower than the tokens: most lines see no new value, so the ends of the run weigh.
        Some(format!("the sensor gave only {values} new values; run longer"))
    } else {
        None
    }
}

impl Estimate {
    /// `r = Σ y / Σ x`, where `parts` gives a line's y and x.
    ///
    /// The interval is that of a ratio estimator (Cochran, Sampling Techniques, 6.4) over n consecutive windows of
    /// equally many lines, which keeps most of the correlation between neighbours inside a window:
    /// `t · √(n / (n - 1) · Σ (yᵢ - r·xᵢ)²) / Σ x`, with Student's t.
    fn new(entries: &[&Entry], parts: impl Fn(&Entry) -> (f64, f64)) -> Option<Self> {
        let sums = |entries: &[&Entry]| {
            entries
                .iter()
                .map(|entry| parts(entry))
                .fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
        };
        let (above, below) = sums(entries);
        if below <= 0.0 {
            return None;
        }
        let mean = above / below;
        let count = (entries.len() / FEWEST_LINES).min(MOST_WINDOWS);
        if count < FEWEST_WINDOWS {
            return Some(Self { mean, half_width: None, windows: 0 });
        }
        let bound = |window: usize| window * entries.len() / count;
        let squares: f64 = (0..count)
            .map(|window| sums(&entries[bound(window)..bound(window + 1)]))
            .map(|(above, below)| (above - mean * below).powi(2))
            .sum();
        let error = (squares * count as f64 / (count - 1) as f64).sqrt() / below;
        Some(Self { mean, half_width: Some(student(count - 1) * error), windows: count })
    }
}

/// 97.5 % quantile of Student's distribution for 4 to 19 degrees of freedom.
fn student(freedom: usize) -> f64 {
    const QUANTILES: [f64; MOST_WINDOWS - FEWEST_WINDOWS + 1] = [
        2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
        2.101, 2.093,
    ];
    QUANTILES[freedom + 1 - FEWEST_WINDOWS]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_runtime::Conditions;

    fn entries(joules: impl Fn(usize) -> Option<f64>, count: usize) -> Vec<Entry> {
        (0..count)
            .map(|index| Entry {
                start_seconds: index as f64,
                phase: Phase::Decode,
                tokens: 1,
                drafted: 0,
                seconds: 0.5,
                traffic: Traffic::default(),
                joules: vec![joules(index)],
                conditions: Conditions::default(),
            })
            .collect()
    }

    fn energy(kind: Kind, entries: &[Entry]) -> Energy {
        let meter = MeterRecord {
            meter: "m".into(),
            scope: pith_runtime::Scope::Board,
            kind,
            period_milliseconds: None,
        };
        Energy::new(meter, 0, &entries.iter().collect::<Vec<_>>())
    }

    #[test]
    fn few_lines_have_a_mean_and_no_interval() {
        let figure = energy(Kind::Measured, &entries(|_| Some(2.0), 19)).joules_per_token.unwrap();
        assert_eq!(figure, Estimate { mean: 2.0, half_width: None, windows: 0 });
        let figure = energy(Kind::Measured, &entries(|_| Some(2.0), 20)).joules_per_token.unwrap();
        assert_eq!(figure, Estimate { mean: 2.0, half_width: Some(0.0), windows: 5 });
    }

    /// The interval of noisy runs holds the true mean in about 95 of 100.
    #[test]
    fn intervals_hold_the_true_mean() {
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let held = (0..400)
            .filter(|_| {
                let noise: Vec<f64> = (0..200).map(|_| 1.0 + uniform()).collect();
                let figure = energy(Kind::Measured, &entries(|index| Some(noise[index]), 200));
                let figure = figure.joules_per_token.unwrap();
                (figure.mean - 1.5).abs() <= figure.half_width.unwrap()
            })
            .count();
        // Binomial: 400 · 0.95 ± 4 · 4.4.
        assert!((362..=397).contains(&held), "{held} of 400");
    }

    /// A stall makes a rate unsure by the share of the time that it took, and by the same share as its inverse.
    #[test]
    fn a_rate_is_as_unsure_as_its_inverse() {
        let mut entries = entries(|_| None, 100);
        entries[50].seconds = 10.0;
        let all: Vec<&Entry> = entries.iter().collect();
        let rate = Estimate::new(&all, |entry| (entry.tokens as f64, entry.seconds)).unwrap();
        let inverse = Estimate::new(&all, |entry| (entry.seconds, entry.tokens as f64)).unwrap();
        assert!((rate.mean - 100.0 / 59.5).abs() < 1e-12 && (rate.mean * inverse.mean - 1.0).abs() < 1e-12);
        let relative = [rate, inverse].map(|estimate| estimate.half_width.unwrap() / estimate.mean);
        assert!((relative[0] - relative[1]).abs() < 1e-12, "{relative:?}");
        assert!(relative[0] > 0.2 && relative[0] < 0.5, "{relative:?}");
    }

    #[test]
    fn missing_and_slow_readings_are_said() {
        let some = energy(Kind::Measured, &entries(|index| (index % 4 != 0).then_some(1.0), 40));
        assert_eq!((some.joules, some.lines), (Some(30.0), 30));
        assert_eq!(some.joules_per_token.unwrap().mean, 1.0);
        assert_eq!(some.caution.unwrap(), "no reading in 10 of 40 lines");
        let none = energy(Kind::Measured, &entries(|_| None, 40));
        assert_eq!((none.joules, none.joules_per_token, none.caution), (None, None, None));
        let slow = |index: usize| Some(if index.is_multiple_of(10) { 10.0 } else { 0.0 });
        assert!(energy(Kind::Measured, &entries(slow, 40)).caution.unwrap().contains("only 4 new values"));
        assert_eq!(energy(Kind::Modelled, &entries(slow, 40)).caution, None);
        assert_eq!(energy(Kind::Measured, &entries(slow, 4000)).caution, None);
    }
}

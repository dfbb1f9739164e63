//! Sums and means of a ledger, with confidence intervals.

use crate::entry::Entry;
use crate::header::MeterRecord;
use crate::reader::LedgerFile;
use pith_meter::statistics::Ratio;
use pith_meter::{Kind, Traffic};
use pith_runtime::Phase;

/// Fewest new sensor values for which an interval is computed.
const FEWEST_INTERVAL_VALUES: usize = 5;
/// Fewest new sensor values for which a mean is trusted.
const FEWEST_VALUES: usize = 100;

/// Cost of one phase, in total and per token.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Number of ledger lines.
    pub lines: usize,
    /// Tokens.
    pub tokens: u64,
    /// Time spent working, without the pauses between lines.
    pub seconds: f64,
    /// Bytes moved.
    pub traffic: Traffic,
    /// Tokens per second; `None` where no time was measured.
    pub tokens_per_second: Option<Ratio>,
    /// One per meter, in the order of the first line.
    pub energy: Vec<Energy>,
    /// Whether any line saw the clock throttled; `None` where no line knows.
    pub throttled: Option<bool>,
    /// Highest temperature.
    pub hottest_celsius: Option<f64>,
}

/// Energy of a phase by one meter.
#[derive(Clone, Debug, PartialEq)]
pub struct Energy {
    /// The meter.
    pub meter: MeterRecord,
    /// Sum over the lines that have a figure; `None` where none has.
    pub joules: Option<f64>,
    /// Joules per token over those lines; `None` without a figure or a token.
    pub joules_per_token: Option<Ratio>,
    /// Number of lines that have a figure.
    pub lines: usize,
    /// Why the figure is unreliable, as text for people.
    pub caution: Option<String>,
}

impl Summary {
    /// Sums of one phase; `None` where it has no line.
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
            tokens_per_second: ratio(&entries, |entry| (entry.tokens as f64, entry.seconds)),
            energy: meters.map(|(index, meter)| Energy::new(meter.clone(), index, &entries)).collect(),
            throttled: throttled.reduce(|one, other| one || other),
            hottest_celsius: temperatures.reduce(f64::max),
        })
    }

    /// Bytes of weights and cache per token, which decoding must read from memory. `None` without
    /// tokens.
    pub fn memory_bytes_per_token(&self) -> Option<f64> {
        let bytes = self.traffic.total_bytes() - self.traffic.activation_bytes;
        (self.tokens > 0).then(|| bytes as f64 / self.tokens as f64)
    }

    /// Bytes of weights and cache per second; `None` where no time was measured.
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
        let ratio = ratio(&known, |entry| (of(entry), entry.tokens as f64));
        // No interval for models, whose figures only vary with the clock, nor for slow sensors,
        // whose intermediate values are interpolated.
        let has_interval =
            meter.kind != Kind::Modelled && new_values(&meter, &known) >= FEWEST_INTERVAL_VALUES;
        Self {
            joules: (!known.is_empty()).then(|| known.iter().map(|entry| of(entry)).sum()),
            joules_per_token: match has_interval {
                true => ratio,
                false => ratio.map(Ratio::without_interval),
            },
            lines: known.len(),
            caution,
            meter,
        }
    }
}

/// Ratio of the sums of the two numbers that `parts` returns for each line.
fn ratio(entries: &[&Entry], parts: impl Fn(&Entry) -> (f64, f64)) -> Option<Ratio> {
    Ratio::of(&entries.iter().map(|entry| parts(entry)).collect::<Vec<_>>())
}

/// Upper bound on the values that a sensor gave during these lines.
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
        // The sensor is slower than the tokens: most lines see no new value, so the ends of the run
        // count.
        Some(format!("the sensor gave only {values} new values; run longer"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_meter::{Conditions, Scope};

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
        let meter = MeterRecord { meter: "m".into(), scope: Scope::Board, kind, period_milliseconds: None };
        Energy::new(meter, 0, &entries.iter().collect::<Vec<_>>())
    }

    #[test]
    fn a_modelled_figure_and_a_slow_sensors_have_no_interval() {
        let figure = |kind, count| energy(kind, &entries(|_| Some(2.0), count)).joules_per_token.unwrap();
        assert_eq!(figure(Kind::Measured, 20), Ratio { mean: 2.0, half_width: Some(0.0), windows: 5 });
        assert_eq!(figure(Kind::Measured, 19).half_width, None);
        assert_eq!(figure(Kind::Modelled, 20), Ratio { mean: 2.0, half_width: None, windows: 0 });
        let all = entries(|_| Some(2.0), 20);
        let mut meter = energy(Kind::Measured, &all).meter;
        // 10 s of work give four values of such a sensor.
        meter.period_milliseconds = Some(2500);
        let slow = Energy::new(meter, 0, &all.iter().collect::<Vec<_>>());
        assert_eq!(slow.joules_per_token, Some(Ratio { mean: 2.0, half_width: None, windows: 0 }));
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

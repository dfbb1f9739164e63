//! Cost of every token: time, bytes, energy.

use pith_meter::{Conditions, Joules, Meter, Observer, Reading, Traffic};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Phase of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Tokens of the prompt, many at a time.
    Prefill,
    /// Generated tokens: one at a time, or several with drafting.
    Decode,
}

/// The cost of one decoded token, or of a whole prompt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenCost {
    /// Prompt or reply.
    pub phase: Phase,
    /// Tokens that share this cost. In decoding: 1, plus the accepted draft tokens.
    pub tokens: usize,
    /// Draft tokens computed in the same call, accepted or not.
    pub drafted: usize,
    /// Start of the work, since the ledger was made, on a monotonic clock.
    #[serde(rename = "start_seconds", serialize_with = "as_seconds")]
    pub start: Duration,
    /// Wall-clock time.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// Bytes read and written.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// One reading per meter, in the meters' order.
    pub energy: Vec<Reading>,
    /// State of the machine after the work; all unknown without an observer.
    #[serde(flatten)]
    pub conditions: Conditions,
}

/// Sums of the costs of a phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Tokens.
    pub tokens: usize,
    /// Draft tokens, accepted or not.
    pub drafted: usize,
    /// Wall-clock time.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub elapsed: Duration,
    /// Bytes read and written.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// One reading per meter; no figure where any of its readings has none.
    pub energy: Vec<Reading>,
}

/// Records the cost of tokens: [`Ledger::start`] before the work, [`Ledger::record`] after it.
///
/// Every cost is added to its phase's totals and passed to the sink, if there is one. The ledger
/// also keeps each cost, unless [`Ledger::totals_only`] asked for constant memory.
pub struct Ledger {
    meters: Vec<Metered>,
    observer: Option<Box<dyn Observer>>,
    sink: Option<Box<Sink>>,
    made: Instant,
    started: Option<Instant>,
    /// A measured cost whose token count is not known yet.
    open: Option<TokenCost>,
    keeps_costs: bool,
    costs: Vec<TokenCost>,
    prefill: Totals,
    decode: Totals,
}

type Sink = dyn FnMut(&TokenCost) + Send;

struct Metered {
    meter: Box<dyn Meter>,
    name: Arc<str>,
    before: Option<Joules>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            meters: Vec::new(),
            observer: None,
            sink: None,
            made: Instant::now(),
            started: None,
            open: None,
            keeps_costs: true,
            costs: Vec::new(),
            prefill: Totals::default(),
            decode: Totals::default(),
        }
    }
}

impl Ledger {
    /// A ledger of time and bytes only.
    pub fn new() -> Self {
        Self::default()
    }

    /// A ledger that also reads `meters`.
    pub fn with_meters(meters: Vec<Box<dyn Meter>>) -> Self {
        let meters = meters
            .into_iter()
            .map(|meter| Metered { name: meter.name().into(), meter, before: None })
            .collect();
        Self { meters, ..Self::default() }
    }

    /// Asks `observer` for the machine's state after every cost.
    pub fn with_observer(mut self, observer: Box<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Passes every cost to `sink` as soon as it is complete, between two tokens.
    pub fn with_sink(mut self, sink: impl FnMut(&TokenCost) + Send + 'static) -> Self {
        self.sink = Some(Box::new(sink));
        self
    }

    /// Keeps sums only, so that memory stays constant: [`Ledger::costs`] is empty.
    pub fn totals_only(mut self) -> Self {
        self.keeps_costs = false;
        self
    }

    /// Marks the start of work. A meter whose reading fails now gives no figure for this work. A
    /// failed reading is repeated once first: it may only report an earlier gap, which does not
    /// concern this work.
    pub fn start(&mut self) {
        for Metered { meter, before, .. } in &mut self.meters {
            *before = meter.energy().or_else(|_| meter.energy()).ok();
        }
        self.started = Some(Instant::now());
    }

    /// Marks the end of the work begun at the last [`Ledger::start`]. Panics if there was none.
    pub fn record(&mut self, phase: Phase, tokens: usize, traffic: Traffic) {
        self.measure(phase, tokens, traffic);
        self.close();
    }

    /// [`Ledger::record`] for a cost completed by [`Ledger::share`]: takes time and energy now.
    pub(crate) fn measure(&mut self, phase: Phase, tokens: usize, traffic: Traffic) {
        let started = self.started.take().expect("start comes before record");
        let elapsed = started.elapsed();
        let energy = self.meters.iter_mut().map(|metered| metered.read(elapsed, &traffic)).collect();
        let conditions = self.observer.as_mut().map(|observer| observer.conditions()).unwrap_or_default();
        let start = started.duration_since(self.made);
        self.open =
            Some(TokenCost { phase, tokens, drafted: 0, start, elapsed, traffic, energy, conditions });
    }

    /// Completes the measured cost: of `drafted` tokens, `accepted` share it.
    pub(crate) fn share(&mut self, drafted: usize, accepted: usize) {
        if let Some(cost) = &mut self.open {
            cost.drafted += drafted;
            cost.tokens += accepted;
        }
        self.close();
    }

    fn close(&mut self) {
        let Some(cost) = self.open.take() else { return };
        match cost.phase {
            Phase::Prefill => self.prefill.add(&cost),
            Phase::Decode => self.decode.add(&cost),
        }
        if let Some(sink) = &mut self.sink {
            sink(&cost);
        }
        if self.keeps_costs {
            self.costs.push(cost);
        }
    }

    /// All recorded costs in order; empty after [`Ledger::totals_only`].
    pub fn costs(&self) -> &[TokenCost] {
        &self.costs
    }

    /// Forgets all costs and sums; keeps meters, observer, sink and clock.
    pub fn clear(&mut self) {
        self.costs.clear();
        self.prefill = Totals::default();
        self.decode = Totals::default();
    }

    /// Sums over one phase.
    pub fn totals(&self, phase: Phase) -> Totals {
        match phase {
            Phase::Prefill => self.prefill.clone(),
            Phase::Decode => self.decode.clone(),
        }
    }
}

impl Totals {
    /// `None` where nothing was recorded.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (seconds > 0.0).then(|| self.tokens as f64 / seconds)
    }

    fn add(&mut self, cost: &TokenCost) {
        self.tokens += cost.tokens;
        self.drafted += cost.drafted;
        self.elapsed += cost.elapsed;
        self.traffic += cost.traffic;
        if self.energy.is_empty() {
            self.energy.clone_from(&cost.energy);
            return;
        }
        for (sum, reading) in self.energy.iter_mut().zip(&cost.energy) {
            sum.joules = sum.joules.zip(reading.joules).map(|(sum, joules)| sum + joules);
        }
    }
}

impl Metered {
    fn read(&mut self, elapsed: Duration, traffic: &Traffic) -> Reading {
        self.meter.observe(elapsed, traffic);
        let after = self.meter.energy().ok();
        let joules = self.before.take().zip(after).map(|(before, after)| after - before);
        Reading { meter: Arc::clone(&self.name), scope: self.meter.scope(), kind: self.meter.kind(), joules }
    }
}

fn as_seconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_meter::{Kind, MeterError, Scope};

    /// A meter of one nanojoule per byte of weights; fails at the listed readings.
    struct Model {
        total: f64,
        reads: usize,
        failures: &'static [usize],
    }

    impl Meter for Model {
        fn name(&self) -> &str {
            "bytes"
        }

        fn scope(&self) -> Scope {
            Scope::Board
        }

        fn kind(&self) -> Kind {
            Kind::Modelled
        }

        fn energy(&mut self) -> Result<Joules, MeterError> {
            self.reads += 1;
            if self.failures.contains(&self.reads) {
                return Err(MeterError { meter: "bytes".into(), reason: "as asked".into() });
            }
            Ok(Joules(self.total))
        }

        fn observe(&mut self, _elapsed: Duration, traffic: &Traffic) {
            self.total += traffic.weight_bytes as f64;
        }
    }

    fn ledger(failures: &'static [usize]) -> Ledger {
        let mut ledger = Ledger::with_meters(vec![Box::new(Model { total: 5.0, reads: 0, failures })]);
        for (phase, tokens, weight_bytes) in
            [(Phase::Prefill, 7, 100), (Phase::Decode, 1, 10), (Phase::Decode, 1, 30)]
        {
            ledger.start();
            ledger.record(phase, tokens, Traffic { weight_bytes, ..Traffic::default() });
        }
        ledger
    }

    #[test]
    fn phases_are_summed_apart() {
        let ledger = ledger(&[]);
        let (prefill, decode) = (ledger.totals(Phase::Prefill), ledger.totals(Phase::Decode));
        assert_eq!((prefill.tokens, prefill.traffic.weight_bytes), (7, 100));
        assert_eq!((decode.tokens, decode.traffic.weight_bytes), (2, 40));
        assert_eq!(decode.energy[0].joules, Some(Joules(40.0)));
        let elapsed: Duration = ledger.costs().iter().map(|cost| cost.elapsed).sum();
        assert_eq!(elapsed, prefill.elapsed + decode.elapsed);
    }

    #[test]
    fn a_missing_reading_is_none_and_never_zero() {
        // Reading 6 is the one after the last token.
        let ledger = ledger(&[6]);
        assert_eq!(ledger.costs()[1].energy[0].joules, Some(Joules(10.0)));
        assert_eq!(ledger.costs()[2].energy[0].joules, None);
        assert_eq!(ledger.totals(Phase::Decode).energy[0].joules, None);
        assert_eq!(ledger.totals(Phase::Prefill).energy[0].joules, Some(Joules(100.0)));
        assert_eq!(Ledger::new().totals(Phase::Decode).tokens_per_second(), None);
    }

    /// One degree warmer per query; throttles from 61 °C.
    struct Warming(f64);

    impl Observer for Warming {
        fn conditions(&mut self) -> Conditions {
            self.0 += 1.0;
            let throttled = Some(self.0 >= 61.0);
            Conditions { temperature_celsius: Some(self.0), frequency_hz: None, throttled }
        }
    }

    #[test]
    fn costs_go_to_the_sink_complete_and_need_not_be_kept() {
        let (sender, costs) = std::sync::mpsc::channel();
        let mut ledger = Ledger::new()
            .with_observer(Box::new(Warming(59.0)))
            .with_sink(move |cost| sender.send(cost.clone()).unwrap())
            .totals_only();
        ledger.start();
        ledger.record(Phase::Prefill, 7, Traffic::default());
        ledger.start();
        ledger.measure(Phase::Decode, 1, Traffic::default());
        assert_eq!(costs.try_iter().count(), 1, "nobody knows yet how many tokens the second has");
        ledger.share(4, 2);
        let cost = costs.try_recv().unwrap();
        assert_eq!((cost.tokens, cost.drafted), (3, 4));
        assert_eq!(cost.conditions.temperature_celsius, Some(61.0));
        assert_eq!(cost.conditions.throttled, Some(true));
        assert_eq!(ledger.totals(Phase::Decode).tokens, 3);
        assert!(ledger.costs().is_empty());
    }

    #[test]
    fn work_begins_after_the_work_before_it() {
        let ledger = ledger(&[]);
        for pair in ledger.costs().windows(2) {
            assert!(pair[0].start + pair[0].elapsed <= pair[1].start);
        }
        assert_eq!(ledger.costs()[0].conditions, Conditions::default());
    }

    #[test]
    fn a_cleared_ledger_has_no_sums() {
        let mut ledger = ledger(&[]);
        let start = ledger.costs()[2].start;
        ledger.clear();
        assert_eq!(ledger.totals(Phase::Decode), Totals::default());
        ledger.start();
        ledger.record(Phase::Decode, 1, Traffic::default());
        assert!(ledger.costs()[0].start > start, "the clock goes on");
    }

    #[test]
    fn every_cost_is_an_object_of_json() {
        let ledger = ledger(&[2]);
        let lines: Vec<_> = ledger.costs().iter().map(|cost| serde_json::to_value(cost).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["phase"], &lines[0]["tokens"]), (&"prefill".into(), &7.into()));
        assert_eq!(lines[0]["energy"][0]["joules"], serde_json::Value::Null);
        assert_eq!(lines[2]["weight_bytes"], 30);
        assert_eq!(lines[2]["energy"][0]["joules"], 30.0);
        assert_eq!(lines[2]["energy"][0]["scope"], "board");
        assert!(lines[2]["seconds"].is_number());
    }
}

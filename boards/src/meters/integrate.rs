//! Integration of power samples to energy.

/// Upper limit of plausible power; a sensor above it is wrong.
pub(crate) const MAX_WATTS: f64 = 10_000.0;

/// The trapezoidal integral of power over time.
///
/// Between the last sample and now the last value is held. A figure for less than a sampling period
/// is therefore interpolated; a sum over many samples is right to within one sample at each end.
///
/// If samples are missing for longer than the allowed gap, the energy of that time is unknown. The
/// next figure is an error, for any caller, and a difference across the gap has no value. Later
/// ones have.
#[derive(Debug)]
pub struct Integrator {
    gap_seconds: f64,
    joules: f64,
    last: Option<(f64, f64)>,
    reported: f64,
    /// The reason for a gap; the next figure takes it as its error.
    broken: Option<String>,
    /// The reason why the last sample failed.
    failure: Option<String>,
}

impl Integrator {
    /// Samples further apart than `gap_seconds` leave a gap.
    pub fn new(gap_seconds: f64) -> Self {
        Self { gap_seconds, joules: 0.0, last: None, reported: 0.0, broken: None, failure: None }
    }

    /// Adds a sample of `watts` at `seconds`, on any monotonic clock.
    pub fn push(&mut self, seconds: f64, watts: f64) {
        if !(0.0..=MAX_WATTS).contains(&watts) {
            return self.fail(format!("found {watts} W, expected 0 to {MAX_WATTS} W"));
        }
        if !seconds.is_finite() {
            return self.fail(format!("found a time of {seconds} s"));
        }
        if let Some((before, watts_before)) = self.last {
            let elapsed = seconds - before;
            if elapsed <= 0.0 {
                self.broken = Some(format!("the clock went from {before} s to {seconds} s"));
            } else if elapsed > self.gap_seconds {
                self.broken = Some(self.hole(elapsed));
            } else {
                self.joules += (watts_before + watts) / 2.0 * elapsed;
            }
        }
        self.last = Some((seconds, watts));
        self.failure = None;
    }

    /// Records a failed sample.
    pub fn fail(&mut self, reason: String) {
        self.failure = Some(reason);
    }

    /// Joules from the first sample until `seconds`. Never falls.
    pub fn energy(&mut self, seconds: f64) -> Result<f64, String> {
        let Some((last, watts)) = self.last else {
            return Err(self.failure.clone().unwrap_or_else(|| "no sample yet".into()));
        };
        let held = (seconds - last).max(0.0);
        if held > self.gap_seconds {
            // Reported once: later figures all lie after the gap.
            self.broken = None;
            return Err(self.hole(held));
        }
        if let Some(reason) = self.broken.take() {
            return Err(reason);
        }
        // If power fell, the held value was too high; the energy already reported stays.
        self.reported = self.reported.max(self.joules + watts * held);
        Ok(self.reported)
    }

    fn hole(&self, elapsed: f64) -> String {
        let because = self.failure.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("no sample for {elapsed:.2} s{because}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_integrates_to_its_triangle() {
        let mut sum = Integrator::new(1.0);
        for step in 0..=100 {
            sum.push(step as f64 * 0.1, step as f64 * 0.2);
        }
        assert!((sum.energy(10.0).unwrap() - 100.0).abs() < 1e-9);
        assert!((sum.energy(10.25).unwrap() - 105.0).abs() < 1e-9, "the last value holds");
    }

    #[test]
    fn figures_between_samples_never_fall_and_come_right_again() {
        let mut sum = Integrator::new(1.0);
        sum.push(0.0, 10.0);
        let held = sum.energy(0.4).unwrap();
        sum.push(0.5, 0.0);
        let after = sum.energy(0.5).unwrap();
        assert!((held - 4.0).abs() < 1e-9 && after >= held, "{held} {after}");
        for step in 6..=20 {
            sum.push(step as f64 * 0.1, 10.0);
        }
        assert!((sum.energy(2.0).unwrap() - (2.5 + 0.5 + 14.0)).abs() < 1e-9);
    }

    #[test]
    fn a_hole_costs_one_figure_and_no_more() {
        let mut sum = Integrator::new(0.5);
        assert!(sum.energy(0.0).unwrap_err().contains("no sample"));
        sum.push(0.0, 1.0);
        sum.push(0.4, 1.0);
        let before = sum.energy(0.4).unwrap();
        sum.fail("the file is gone".into());
        sum.push(2.0, 1.0);
        let message = sum.energy(2.0).unwrap_err();
        assert!(message.contains("1.60 s") && message.contains("the file is gone"), "{message}");
        assert_eq!(sum.energy(2.0), Ok(before), "energy of the hole is not made up");
        sum.push(2.4, 1.0);
        assert!((sum.energy(2.4).unwrap() - before - 0.4).abs() < 1e-9);
        assert!(sum.energy(3.0).unwrap_err().contains("0.60 s"), "nothing for too long");
    }

    #[test]
    fn impossible_samples_and_clocks_that_go_back_give_no_figure() {
        let mut sum = Integrator::new(1.0);
        sum.push(0.0, -1.0);
        assert!(sum.energy(0.0).unwrap_err().contains("-1 W"));
        for wrong in [f64::NAN, f64::INFINITY, 1e9] {
            sum.push(0.0, wrong);
            assert!(sum.energy(0.0).is_err(), "{wrong}");
        }
        sum.push(1.0, 1.0);
        sum.push(0.5, 1.0);
        assert!(sum.energy(0.6).unwrap_err().contains("clock"));
        assert!(sum.energy(0.6).is_ok());
    }
}

//! The energy model of a board without a sensor.

use pith_meter::{Joules, Scope};
use serde::{Deserialize, Serialize};

/// Origin of a model's coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Shipped with the board's profile.
    Shipped,
    /// Fitted on this machine, or to a table of measurements.
    Calibrated,
}

/// A coefficient with its confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedEstimate")]
pub struct Estimate {
    /// The coefficient: finite and not negative.
    value: f64,
    /// The 95 % confidence interval, lower end first, if known. The lower end may be negative.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval95: Option<[f64; 2]>,
}

/// `joules = joules_per_byte · bytes + joules_per_operation · operations + idle_watts · seconds`.
///
/// Every figure of this model is [`Kind::Modelled`](pith_meter::Kind::Modelled), even with measured
/// coefficients.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnergyModel {
    /// Whether the coefficients were shipped or fitted.
    pub kind: ModelKind,
    /// Source of the coefficients: the publication, or the instrument and the number of
    /// measurements.
    pub source: String,
    /// Scope of the energy: that of the instrument behind the coefficients.
    pub scope: Scope,
    /// Joules per byte read from or written to memory.
    pub joules_per_byte: Estimate,
    /// Joules per operation (a multiplication or an addition); `None` if the observations do not
    /// separate it from the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joules_per_operation: Option<Estimate>,
    /// Watts drawn at all times. If all other coefficients are 0, the watts of a busy machine.
    pub idle_watts: Estimate,
}

/// The model's form in a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedEstimate {
    value: f64,
    interval95: Option<[f64; 2]>,
}

impl Estimate {
    /// A coefficient and its interval. The error names the impossible number.
    pub fn new(value: f64, interval95: Option<[f64; 2]>) -> Result<Self, String> {
        if !value.is_finite() || value < 0.0 {
            return Err(format!("a coefficient is {value}, expected a finite number that is not negative"));
        }
        if let Some([low, high]) = interval95
            && !(low.is_finite() && high.is_finite() && low <= value && value <= high)
        {
            return Err(format!("the interval {low} to {high} does not hold its coefficient {value}"));
        }
        Ok(Self { value, interval95 })
    }

    /// The coefficient.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The 95 % confidence interval, lower end first.
    pub fn interval95(&self) -> Option<[f64; 2]> {
        self.interval95
    }
}

impl TryFrom<UncheckedEstimate> for Estimate {
    type Error = String;

    fn try_from(unchecked: UncheckedEstimate) -> Result<Self, String> {
        Self::new(unchecked.value, unchecked.interval95)
    }
}

impl EnergyModel {
    /// Whether the model distinguishes a busy machine from an idle one. If bytes and operations
    /// cost nothing, its only power was fitted to busy machines and is not the idle power.
    pub fn tells_work_from_rest(&self) -> bool {
        self.joules_per_byte.value > 0.0
            || self.joules_per_operation.is_some_and(|estimate| estimate.value > 0.0)
    }

    /// Joules per byte where memory alone limits speed: the byte's own joules plus the idle watts
    /// over the byte's time. `None` if the model has idle watts and the rate is unknown.
    pub fn joules_per_byte_read(&self, bytes_per_s: Option<f64>) -> Option<f64> {
        let watts = self.idle_watts.value;
        let seconds_per_byte = if watts == 0.0 { 0.0 } else { 1.0 / bytes_per_s? };
        Some(self.joules_per_byte.value + watts * seconds_per_byte)
    }

    /// Energy of work that moved `bytes`, did `operations` and took `seconds`. Without a
    /// coefficient for operations they cost nothing.
    pub fn joules(&self, bytes: u64, operations: u64, seconds: f64) -> Joules {
        let each_operation = self.joules_per_operation.map_or(0.0, |estimate| estimate.value);
        Joules(
            self.joules_per_byte.value * bytes as f64
                + each_operation * operations as f64
                + self.idle_watts.value * seconds,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{
        "kind": "shipped", "source": "a paper", "scope": "board",
        "joules_per_byte": {"value": 2e-10, "interval95": [1e-10, 3e-10]},
        "joules_per_operation": {"value": 1e-12},
        "idle_watts": {"value": 2.5}
    }"#;

    #[test]
    fn the_sum_is_the_formula() {
        let model: EnergyModel = serde_json::from_str(TEXT).unwrap();
        let Joules(joules) = model.joules(1_000_000_000, 2_000_000_000, 0.5);
        assert!((joules - (0.2 + 0.002 + 1.25)).abs() < 1e-12, "{joules}");
        let without = EnergyModel { joules_per_operation: None, ..model };
        let Joules(joules) = without.joules(1_000_000_000, 2_000_000_000, 0.5);
        assert!((joules - 1.45).abs() < 1e-12, "{joules}");
    }

    #[test]
    fn a_byte_read_costs_its_own_joules_and_its_time() {
        let model: EnergyModel = serde_json::from_str(TEXT).unwrap();
        let joules = model.joules_per_byte_read(Some(1e10)).unwrap();
        assert!((joules - (2e-10 + 2.5e-10)).abs() < 1e-20, "{joules}");
        assert_eq!(model.joules_per_byte_read(None), None);
        let idle_watts = Estimate::new(0.0, None).unwrap();
        assert_eq!(EnergyModel { idle_watts, ..model }.joules_per_byte_read(None), Some(2e-10));
    }

    #[test]
    fn a_model_written_is_the_model_read() {
        let model: EnergyModel = serde_json::from_str(TEXT).unwrap();
        let text = serde_json::to_string(&model).unwrap();
        assert_eq!(serde_json::from_str::<EnergyModel>(&text).unwrap(), model);
    }

    #[test]
    fn impossible_coefficients_are_refused_with_their_values() {
        let read = |from: &str, to: &str| {
            serde_json::from_str::<EnergyModel>(&TEXT.replace(from, to)).unwrap_err().to_string()
        };
        assert!(read("2.5", "-2.5").contains("-2.5"), "{}", read("2.5", "-2.5"));
        assert!(read("[1e-10, 3e-10]", "[3e-10, 4e-10]").contains("does not hold"));
        assert!(read("\"source\"", "\"sauce\"").contains("sauce"));
        assert!(Estimate::new(f64::NAN, None).is_err() && Estimate::new(f64::INFINITY, None).is_err());
        assert!(Estimate::new(1.0, Some([0.0, f64::NAN])).is_err());
    }
}

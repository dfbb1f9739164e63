//! A meter that computes energy by the board's model.

use crate::energy_model::EnergyModel;
use pith_meter::{Joules, Kind, Meter, MeterError, Scope, Traffic};
use std::time::Duration;

/// Computes energy from time and traffic; every figure is [`Kind::Modelled`].
pub struct ModelMeter {
    model: EnergyModel,
    operations_per_activation_byte: Option<f64>,
    joules: f64,
}

impl ModelMeter {
    /// A meter over `model`.
    ///
    /// `operations_per_activation_byte`: the runtime does not count operations. Both operations and
    /// activation bytes grow in proportion to the tokens, whether tokens run one by one or
    /// together, so one model has a fixed ratio of the two. An energy model with a coefficient for
    /// operations needs this ratio to give figures.
    pub fn new(model: EnergyModel, operations_per_activation_byte: Option<f64>) -> Self {
        Self { model, operations_per_activation_byte, joules: 0.0 }
    }

    /// Bytes to and from memory: weights, embeddings, keys and values. Activations between layers
    /// stay in the caches.
    pub fn memory_bytes(traffic: &Traffic) -> u64 {
        traffic.weight_bytes + traffic.embedding_bytes + traffic.kv_read_bytes + traffic.kv_write_bytes
    }

    fn needs_operations(&self) -> bool {
        self.model.joules_per_operation.is_some_and(|estimate| estimate.value() > 0.0)
    }
}

impl Meter for ModelMeter {
    fn name(&self) -> &str {
        "model"
    }

    fn scope(&self) -> Scope {
        self.model.scope
    }

    fn kind(&self) -> Kind {
        Kind::Modelled
    }

    fn energy(&mut self) -> Result<Joules, MeterError> {
        if self.needs_operations() && self.operations_per_activation_byte.is_none() {
            let reason = "the model of energy counts operations, and how many there are is not known".into();
            return Err(MeterError { meter: "model".into(), reason });
        }
        Ok(Joules(self.joules))
    }

    fn observe(&mut self, elapsed: Duration, traffic: &Traffic) {
        let operations = self.operations_per_activation_byte.unwrap_or(0.0) * traffic.activation_bytes as f64;
        let bytes = Self::memory_bytes(traffic);
        self.joules += self.model.joules(bytes, operations as u64, elapsed.as_secs_f64()).0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::energy_model::{Estimate, ModelKind};

    fn model(each_operation: Option<f64>) -> EnergyModel {
        let estimate = |value| Estimate::new(value, None).unwrap();
        EnergyModel {
            kind: ModelKind::Shipped,
            source: "a test".into(),
            scope: Scope::Board,
            joules_per_byte: estimate(1e-9),
            joules_per_operation: each_operation.map(estimate),
            idle_watts: estimate(2.0),
        }
    }

    #[test]
    fn time_bytes_and_operations_are_paid_for() {
        let traffic =
            Traffic { weight_bytes: 900, kv_read_bytes: 100, activation_bytes: 50, ..Traffic::default() };
        let mut meter = ModelMeter::new(model(Some(1e-6)), Some(2.0));
        meter.observe(Duration::from_millis(500), &traffic);
        let Joules(joules) = meter.energy().unwrap();
        assert!((joules - (1.0 + 1e-6 + 1e-4)).abs() < 1e-12, "{joules}");
        assert_eq!((meter.kind(), meter.scope()), (Kind::Modelled, Scope::Board));
    }

    #[test]
    fn operations_that_nobody_counted_are_not_taken_for_none() {
        assert!(ModelMeter::new(model(Some(1e-6)), None).energy().unwrap_err().reason.contains("operations"));
        assert!(ModelMeter::new(model(None), None).energy().is_ok());
    }
}

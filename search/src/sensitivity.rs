//! Sensitivities: the divergence that each choice for each matrix causes while all others are
//! dense.

use crate::bench::Bench;
use crate::budget::Budget;
use crate::error::SearchError;
use crate::journal::Journal;
use crate::knapsack::Point;
use crate::space::Space;
use crate::tiles::Tiles;
use pith_format::Unit;

/// Floor of divergences, because their logarithms are interpolated.
const LEAST: f64 = 1e-12;

/// The divergence that one choice for one matrix causes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sensitivity {
    /// Mean divergence, in nats.
    pub kl: f64,
    /// Whether `kl` is interpolated, ln KL linear in bits, rather than measured.
    pub interpolated: bool,
}

/// The sensitivities of all matrices to all choices.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivities(Vec<Vec<Sensitivity>>);

impl Sensitivities {
    /// `measured[tensor][choice]`, `None` if not measured; `bits` of the choices, ascending. Every
    /// tensor needs at least one measurement.
    pub fn new(bits: &[f64], measured: &[Vec<Option<f64>>]) -> Self {
        Self(measured.iter().map(|of_tensor| interpolated(bits, of_tensor)).collect())
    }

    /// The sensitivities of a tensor, choice by choice.
    pub fn of(&self, tensor: usize) -> &[Sensitivity] {
        &self.0[tensor]
    }

    /// The sum over an assignment: its divergence if sensitivities added up.
    pub fn predicted(&self, assignment: &[u8]) -> f64 {
        self.0
            .iter()
            .zip(assignment)
            .map(|(sensitivities, &choice)| sensitivities[usize::from(choice)].kl)
            .sum()
    }

    pub(crate) fn items(&self, space: &Space, budget: &Budget) -> Vec<Vec<Point>> {
        let point = |tensor, (choice, sensitivity): (usize, &Sensitivity)| Point {
            cost: budget.cost(space, tensor, choice),
            sensitivity: sensitivity.kl,
        };
        let of_tensor = |(tensor, sensitivities): (usize, &Vec<Sensitivity>)| {
            sensitivities.iter().enumerate().map(|sensitivity| point(tensor, sensitivity)).collect()
        };
        self.0.iter().enumerate().map(of_tensor).collect()
    }
}

fn interpolated(bits: &[f64], measured: &[Option<f64>]) -> Vec<Sensitivity> {
    let known: Vec<(f64, f64)> = bits
        .iter()
        .zip(measured)
        .filter_map(|(&bits, kl)| Some((bits, kl.as_ref()?.max(LEAST).ln())))
        .collect();
    let at = |bits: f64| {
        let after = known.partition_point(|&(known, _)| known < bits).clamp(1, known.len().max(2) - 1);
        let (&(low, from), &(high, to)) = (&known[after - 1], known.get(after).unwrap_or(&known[after - 1]));
        let share = if high > low { ((bits - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
        (from + share * (to - from)).exp()
    };
    let sensitivity = |(&bits, measured): (&f64, &Option<f64>)| match *measured {
        Some(kl) => Sensitivity { kl, interpolated: false },
        None => Sensitivity { kl: at(bits), interpolated: true },
    };
    bits.iter().zip(measured).map(sensitivity).collect()
}

/// Measures every sensitivity that the journal lacks: layer by layer, the model with one matrix
/// replaced. The layers before it are the dense model's and are computed once.
pub(crate) fn measure(
    space: &Space,
    bench: &Bench<'_>,
    tiles: &mut Tiles<'_>,
    journal: &mut Journal,
    choices: &[usize],
) -> Result<Sensitivities, SearchError> {
    let names: Vec<String> = space.choices().iter().map(ToString::to_string).collect();
    let mut table = vec![vec![None; names.len()]; space.tensors().len()];
    let mut walk = None;
    bench.progress.begin("measuring sensitivities", (choices.len() * table.len()) as u64, Unit::Rounds);
    for (index, tensor) in space.tensors().iter().enumerate() {
        let name = tensor.id.to_string();
        for &choice in choices {
            let kl = match journal.sensitivity(&name, &names[choice]) {
                Some(kl) => kl,
                None => {
                    let model = tiles.model_of_one(index, choice)?;
                    let kl = if tensor.embeds {
                        bench.divergence(model, bench.window_count())?
                    } else {
                        let dense = match walk.as_mut() {
                            Some(walk) => walk,
                            None => walk.insert(bench.dense_walk()?),
                        };
                        dense.advance(tensor.first_layer)?;
                        dense.branch(model)?.divergence()?
                    };
                    journal.add_sensitivity(&name, &names[choice], kl)?;
                    kl
                }
            };
            table[index][choice] = Some(kl);
            bench.progress.advance(1);
        }
    }
    let bits: Vec<f64> = space.choices().iter().map(|choice| choice.bits()).collect();
    Ok(Sensitivities::new(&bits, &table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_lies_on_a_line_of_logarithms() {
        let bits = [2.0, 3.0, 4.0, 6.0];
        let sensitivities =
            Sensitivities::new(&bits, &[vec![Some(1.0), None, None, Some(1e-4)], vec![Some(0.5); 4]]);
        let kl: Vec<f64> = sensitivities.of(0).iter().map(|sensitivity| sensitivity.kl).collect();
        let expected = [1.0, 0.1, 0.01, 1e-4];
        assert!(
            kl.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 1e-12),
            "{kl:?}"
        );
        let interpolated: Vec<bool> =
            sensitivities.of(0).iter().map(|sensitivity| sensitivity.interpolated).collect();
        assert_eq!(interpolated, [false, true, true, false]);
        assert!((sensitivities.predicted(&[1, 2]) - 0.6).abs() < 1e-12);
        // A single measurement holds for all choices, and zero divergence has no logarithm.
        let sensitivities = Sensitivities::new(
            &bits,
            &[vec![None, Some(0.25), None, None], vec![Some(0.0), None, None, Some(0.0)]],
        );
        assert!(sensitivities.of(0).iter().all(|sensitivity| (sensitivity.kl - 0.25).abs() < 1e-12));
        assert!(sensitivities.of(1).iter().all(|sensitivity| sensitivity.kl < 1e-11));
    }
}

//! What each choice for each matrix costs in divergence, the other matrices being dense.

use crate::bench::Bench;
use crate::budget::Budget;
use crate::error::SearchError;
use crate::journal::Journal;
use crate::knapsack::Point;
use crate::space::Space;
use crate::tiles::Tiles;
use pith_format::Unit;

/// Divergences below this are taken as this: their logarithms are interpolated.
const LEAST: f64 = 1e-12;

/// The divergence that one choice for one matrix causes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damage {
    /// Mean divergence, in nats.
    pub kl: f64,
    /// Not measured: ln KL goes linearly over bits between those that were.
    pub interpolated: bool,
}

/// Those of all matrices and choices.
#[derive(Clone, Debug, PartialEq)]
pub struct Damages(Vec<Vec<Damage>>);

impl Damages {
    /// `measured[tensor][choice]`, `None` where it was not; `bits` of the choices, ascending. Every tensor has one measured
    /// at least.
    pub fn new(bits: &[f64], measured: &[Vec<Option<f64>>]) -> Self {
        Self(measured.iter().map(|of_tensor| interpolated(bits, of_tensor)).collect())
    }

    /// Of a tensor, choice by choice.
    pub fn of(&self, tensor: usize) -> &[Damage] {
        &self.0[tensor]
    }

    /// The sum for an assignment: what its divergence would be if damages added up.
    pub fn predicted(&self, assignment: &[u8]) -> f64 {
        self.0.iter().zip(assignment).map(|(damages, &choice)| damages[usize::from(choice)].kl).sum()
    }

    pub(crate) fn items(&self, space: &Space, budget: &Budget) -> Vec<Vec<Point>> {
        let point = |tensor, (choice, damage): (usize, &Damage)| Point {
            cost: budget.cost(space, tensor, choice),
            damage: damage.kl,
        };
        let of_tensor = |(tensor, damages): (usize, &Vec<Damage>)| {
            damages.iter().enumerate().map(|damage| point(tensor, damage)).collect()
        };
        self.0.iter().enumerate().map(of_tensor).collect()
    }
}

fn interpolated(bits: &[f64], measured: &[Option<f64>]) -> Vec<Damage> {
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
    let damage = |(&bits, measured): (&f64, &Option<f64>)| match *measured {
        Some(kl) => Damage { kl, interpolated: false },
        None => Damage { kl: at(bits), interpolated: true },
    };
    bits.iter().zip(measured).map(damage).collect()
}

/// Measures what the journal lacks: for each matrix, layer by layer, the model with that matrix alone replaced. What is
/// before its layer is the dense model's and is computed once.
pub(crate) fn measure(
    space: &Space,
    bench: &Bench<'_>,
    tiles: &mut Tiles<'_>,
    journal: &mut Journal,
    choices: &[usize],
) -> Result<Damages, SearchError> {
    let names: Vec<String> = space.choices().iter().map(ToString::to_string).collect();
    let mut table = vec![vec![None; names.len()]; space.tensors().len()];
    let mut walk = None;
    bench.progress.begin("measuring damages", (choices.len() * table.len()) as u64, Unit::Rounds);
    for (index, tensor) in space.tensors().iter().enumerate() {
        let name = tensor.id.to_string();
        for &choice in choices {
            let kl = match journal.damage(&name, &names[choice]) {
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
                    journal.add_damage(&name, &names[choice], kl)?;
                    kl
                }
            };
            table[index][choice] = Some(kl);
            bench.progress.advance(1);
        }
    }
    let bits: Vec<f64> = space.choices().iter().map(|choice| choice.bits()).collect();
    Ok(Damages::new(&bits, &table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_lies_on_a_line_of_logarithms() {
        let bits = [2.0, 3.0, 4.0, 6.0];
        let damages = Damages::new(&bits, &[vec![Some(1.0), None, None, Some(1e-4)], vec![Some(0.5); 4]]);
        let kl: Vec<f64> = damages.of(0).iter().map(|damage| damage.kl).collect();
        let expected = [1.0, 0.1, 0.01, 1e-4];
        assert!(
            kl.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0).abs() < 1e-12),
            "{kl:?}"
        );
        let interpolated: Vec<bool> = damages.of(0).iter().map(|damage| damage.interpolated).collect();
        assert_eq!(interpolated, [false, true, true, false]);
        assert!((damages.predicted(&[1, 2]) - 0.6).abs() < 1e-12);
        // One alone is all there is to say, and no divergence has a logarithm.
        let damages = Damages::new(
            &bits,
            &[vec![None, Some(0.25), None, None], vec![Some(0.0), None, None, Some(0.0)]],
        );
        assert!(damages.of(0).iter().all(|damage| (damage.kl - 0.25).abs() < 1e-12));
        assert!(damages.of(1).iter().all(|damage| damage.kl < 1e-11));
    }
}

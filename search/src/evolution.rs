//! Improves an assignment by the true divergence (after EvoPress, Sieberling et al. 2024). An
//! offspring gives some matrices more bits and others fewer, within the budget. Each generation
//! measures its offspring on few windows, the best of them on more, and the last one on all. That
//! one replaces the parent if it is better.

use crate::bench::Bench;
use crate::budget::Budget;
use crate::error::SearchError;
use crate::journal::Journal;
use crate::random::Random;
use crate::space::{Assignment, Space};
use crate::tiles::Tiles;
use pith_format::Unit;
use std::time::Instant;

/// Offspring per generation.
pub(crate) const OFFSPRING: usize = 8;

/// Most matrices that one offspring gives more bits.
const STEPS: usize = 3;

/// Most draws per generation: a small space may have too few offspring.
const DRAWS: usize = 200;

/// The parts that an evolution uses.
pub(crate) struct Evolution<'a, 'b, 'c> {
    pub space: &'a Space,
    pub budget: &'a Budget,
    pub refine: bool,
    pub bench: &'a Bench<'b>,
    pub tiles: &'a mut Tiles<'c>,
    pub journal: &'a mut Journal,
}

/// The result of an evolution.
#[derive(Clone, Debug)]
pub(crate) struct Evolved {
    pub best: Assignment,
    pub kl: f64,
    pub generations: usize,
}

/// Windows of the stages before the last.
pub(crate) fn stages(windows: usize) -> Vec<usize> {
    let mut stages = vec![windows.div_ceil(16), windows.div_ceil(4)];
    stages.dedup();
    stages.retain(|&count| count < windows);
    stages
}

impl Evolution<'_, '_, '_> {
    /// The mean divergence of an assignment on the first `windows` windows, from the journal if
    /// known.
    pub fn divergence(&mut self, assignment: &[u8], windows: usize) -> Result<f64, SearchError> {
        if let Some(kl) = self.journal.divergence(assignment, windows) {
            return Ok(kl);
        }
        let kl = self.bench.divergence(self.tiles.model(assignment)?, windows)?;
        self.journal.add_divergence(assignment, windows, kl)?;
        Ok(kl)
    }

    /// Runs up to `generations`; none begins after `deadline`. The same seed gives the same
    /// generations.
    pub fn run(
        &mut self,
        start: Assignment,
        generations: usize,
        seed: u64,
        deadline: Instant,
    ) -> Result<Evolved, SearchError> {
        let mut random = Random::new(seed);
        let stages = self.bench.stages();
        let all = self.bench.window_count();
        let kl = self.divergence(&start, all)?;
        let mut evolved = Evolved { best: start, kl, generations: 0 };
        self.bench.progress.begin("evolving", generations as u64, Unit::Rounds);
        while evolved.generations < generations && Instant::now() < deadline {
            let mut candidates = offspring(&evolved.best, self.space.choices().len(), &mut random, |child| {
                self.budget.fits(self.space, child, self.refine)
            });
            for (index, &windows) in stages.iter().enumerate() {
                let mut measured = Vec::with_capacity(candidates.len());
                for candidate in candidates {
                    measured.push((self.divergence(&candidate, windows)?, candidate));
                }
                measured.sort_by(|(a, _), (b, _)| a.total_cmp(b));
                if windows == all {
                    if let Some((kl, best)) = measured.into_iter().next().filter(|(kl, _)| *kl < evolved.kl) {
                        (evolved.kl, evolved.best) = (kl, best);
                    }
                    break;
                }
                // One candidate reaches the last stage; each earlier cut keeps twice as many, at
                // most 8.
                let kept = 1usize << (stages.len() - 2 - index).min(3);
                candidates = measured.into_iter().take(kept).map(|(_, candidate)| candidate).collect();
            }
            evolved.generations += 1;
            self.bench.progress.advance(1);
        }
        Ok(evolved)
    }
}

/// Distinct offspring, none equal to the parent.
fn offspring(
    parent: &[u8],
    choice_count: usize,
    random: &mut Random,
    fits: impl Fn(&[u8]) -> bool,
) -> Vec<Assignment> {
    let mut children: Vec<Assignment> = Vec::with_capacity(OFFSPRING);
    for _ in 0..DRAWS {
        let child = mutated(parent, choice_count, random, &fits);
        if let Some(child) = child.filter(|child| child != parent && !children.contains(child)) {
            children.push(child);
            if children.len() == OFFSPRING {
                break;
            }
        }
    }
    children
}

/// Raises the choices of some matrices, then lowers others until the child fits; `None` if it
/// cannot.
fn mutated(
    parent: &[u8],
    choice_count: usize,
    random: &mut Random,
    fits: &impl Fn(&[u8]) -> bool,
) -> Option<Assignment> {
    let mut child = parent.to_vec();
    // Small changes are more likely.
    let steps = 1 + random.below(STEPS).min(random.below(STEPS));
    for _ in 0..steps {
        let raised = pick(random, &child, |index| usize::from(child[index]) + 1 < choice_count)?;
        child[raised] += 1;
    }
    while !fits(&child) {
        let lowered = pick(random, &child, |index| child[index] > 0 && child[index] <= parent[index])?;
        child[lowered] -= 1;
    }
    Some(child)
}

fn pick(random: &mut Random, child: &[u8], may: impl Fn(usize) -> bool) -> Option<usize> {
    let allowed: Vec<usize> = (0..child.len()).filter(|&index| may(index)).collect();
    (!allowed.is_empty()).then(|| allowed[random.below(allowed.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offspring_keep_the_budget_and_differ() {
        let sizes = [5usize, 1, 3, 8, 2, 2];
        let cost =
            |child: &[u8]| -> usize { child.iter().zip(sizes).map(|(&c, size)| usize::from(c) * size).sum() };
        let parent = [1, 2, 0, 1, 2, 1];
        let limit = cost(&parent);
        let mut random = Random::new(3);
        for _ in 0..50 {
            let children = offspring(&parent, 4, &mut random, |child| cost(child) <= limit);
            assert_eq!(children.len(), OFFSPRING);
            for (index, child) in children.iter().enumerate() {
                assert!(cost(child) <= limit && child.iter().all(|&choice| choice < 4) && *child != parent);
                assert!(!children[..index].contains(child));
            }
        }
    }

    #[test]
    fn a_space_without_room_has_no_offspring() {
        let mut random = Random::new(3);
        assert!(offspring(&[1, 1], 2, &mut random, |_| true).is_empty());
        assert!(offspring(&[0, 0], 2, &mut random, |child| child == [0, 0]).is_empty());
    }

    #[test]
    fn stages_are_parts_of_the_windows() {
        assert_eq!(stages(64), [4, 16]);
        assert_eq!(stages(2), [1]);
        assert!(stages(1).is_empty());
    }
}

//! Dynamic programming: one choice for each item, with small summed cost and small summed
//! sensitivity. Of all combinations so far it keeps those that no other beats in both.

/// Most points kept after an item. Beyond that the cost axis is cut into this many equal parts, and
/// each keeps its point of the smallest sensitivity with its exact cost: a step is about 0.01 % of
/// the span.
const POINT_LIMIT: usize = 8192;

/// The cost and the sensitivity of a choice or of a combination.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Bytes.
    pub cost: u64,
    /// Nats.
    pub sensitivity: f64,
}

/// The combinations that no other beats, by ascending cost and descending sensitivity.
#[derive(Clone, Debug)]
pub struct Frontier {
    points: Vec<Point>,
    /// For every item, one step per combination kept after it.
    stages: Vec<Vec<Step>>,
}

/// The last choice of a combination, and the index of the combination it extends.
#[derive(Clone, Copy, Debug)]
struct Step {
    choice: u8,
    before: u32,
}

impl Frontier {
    /// Builds the frontier. Each item needs at least one choice and has at most 256.
    pub fn new(items: &[Vec<Point>]) -> Self {
        let mut points = vec![Point { cost: 0, sensitivity: 0.0 }];
        let mut stages = Vec::with_capacity(items.len());
        for choices in items {
            assert!((1..=256).contains(&choices.len()), "an item of {} choices", choices.len());
            let mut candidates = Vec::with_capacity(points.len() * choices.len());
            for (before, point) in points.iter().enumerate() {
                for (choice, added) in choices.iter().enumerate() {
                    let (cost, sensitivity) =
                        (point.cost + added.cost, point.sensitivity + added.sensitivity);
                    let step = Step { choice: choice as u8, before: before as u32 };
                    candidates.push((Point { cost, sensitivity }, step));
                }
            }
            let kept = thinned(unbeaten(candidates));
            stages.push(kept.iter().map(|(_, step)| *step).collect());
            points = kept.into_iter().map(|(point, _)| point).collect();
        }
        Self { points, stages }
    }

    /// Cost and sensitivity of the combinations.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The choice for every item in a combination. Panics if there is no such point.
    pub fn choices(&self, point: usize) -> Vec<u8> {
        let mut at = point;
        let mut choices: Vec<u8> = self
            .stages
            .iter()
            .rev()
            .map(|stage| {
                let Step { choice, before } = stage[at];
                at = before as usize;
                choice
            })
            .collect();
        choices.reverse();
        choices
    }
}

/// Keeps each candidate with less sensitivity than all candidates of at most its cost.
fn unbeaten(mut candidates: Vec<(Point, Step)>) -> Vec<(Point, Step)> {
    candidates.sort_by(|(a, _), (b, _)| a.cost.cmp(&b.cost).then(a.sensitivity.total_cmp(&b.sensitivity)));
    let mut least = f64::INFINITY;
    candidates.retain(|(point, _)| {
        let better = point.sensitivity < least;
        least = least.min(point.sensitivity);
        better
    });
    candidates
}

fn thinned(points: Vec<(Point, Step)>) -> Vec<(Point, Step)> {
    if points.len() <= POINT_LIMIT {
        return points;
    }
    let (first, last) = (points[0].0.cost, points[points.len() - 1].0.cost);
    let part =
        |point: &Point| (point.cost - first) as u128 * POINT_LIMIT as u128 / (last - first + 1) as u128;
    // The cheapest always stays: it decides whether a budget can be met.
    let mut kept: Vec<(Point, Step)> = vec![points[0]];
    for &candidate in &points[1..] {
        match kept.last_mut() {
            Some(last) if part(&last.0) == part(&candidate.0) && last.0.cost != first => *last = candidate,
            _ => kept.push(candidate),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn items(random: &mut Random, count: usize, choices: usize) -> Vec<Vec<Point>> {
        let item = |random: &mut Random| {
            let size = 1 + random.below(50) as u64;
            let worth = random.unit();
            (0..choices as u64)
                .map(|choice| Point {
                    cost: size * (2 + choice),
                    sensitivity: worth * 0.3f64.powi(choice as i32) * (0.5 + random.unit()),
                })
                .collect()
        };
        (0..count).map(|_| item(random)).collect()
    }

    /// Every combination, as a number with one digit per item.
    fn all(items: &[Vec<Point>]) -> Vec<Point> {
        let mut sums = vec![Point { cost: 0, sensitivity: 0.0 }];
        for choices in items {
            sums = sums
                .iter()
                .flat_map(|sum| {
                    choices.iter().map(|choice| Point {
                        cost: sum.cost + choice.cost,
                        sensitivity: sum.sensitivity + choice.sensitivity,
                    })
                })
                .collect();
        }
        sums
    }

    #[test]
    fn the_frontier_is_that_of_all_combinations() {
        let mut random = Random::new(1);
        for round in 0..20 {
            let items = items(&mut random, 2 + round % 5, 1 + round % 4);
            let (frontier, all) = (Frontier::new(&items), all(&items));
            for (index, point) in frontier.points().iter().enumerate() {
                let best = all.iter().filter(|sum| sum.cost <= point.cost).map(|sum| sum.sensitivity);
                let best = best.fold(f64::INFINITY, f64::min);
                assert!((best - point.sensitivity).abs() < 1e-12, "{best} at {point:?}");
                let choices = frontier.choices(index);
                let cost: u64 = choices.iter().zip(&items).map(|(&c, item)| item[c as usize].cost).sum();
                let sensitivity: f64 =
                    choices.iter().zip(&items).map(|(&c, item)| item[c as usize].sensitivity).sum();
                assert!(cost == point.cost && (sensitivity - point.sensitivity).abs() < 1e-12);
            }
            let cheapest = all.iter().map(|sum| sum.cost).min().unwrap();
            let least = all.iter().map(|sum| sum.sensitivity).fold(f64::INFINITY, f64::min);
            assert_eq!(frontier.points()[0].cost, cheapest);
            assert!((frontier.points().last().unwrap().sensitivity - least).abs() < 1e-12);
        }
    }

    #[test]
    fn a_frontier_that_is_thinned_loses_little() {
        let mut random = Random::new(2);
        let mut items = items(&mut random, 40, 5);
        // Costs without a common divisor: the number of distinct sums explodes.
        items
            .iter_mut()
            .flatten()
            .for_each(|point| point.cost = point.cost * 100_003 + random.below(99_991) as u64);
        let frontier = Frontier::new(&items);
        let points = frontier.points();
        assert!(points.len() > 1000 && points.len() <= POINT_LIMIT + 1, "{}", points.len());
        assert!(
            points
                .windows(2)
                .all(|pair| pair[0].cost < pair[1].cost && pair[0].sensitivity > pair[1].sensitivity)
        );
        // The relaxed problem's bound: no combination of that cost is below the sum of the items'
        // convex hulls.
        let cheapest: u64 = items.iter().map(|item| item.iter().map(|point| point.cost).min().unwrap()).sum();
        assert_eq!(points[0].cost, cheapest);
        for &share in &[0.2, 0.5, 0.8] {
            let limit = cheapest as f64 + share * (points.last().unwrap().cost - cheapest) as f64;
            let found = points[points.partition_point(|point| point.cost as f64 <= limit) - 1].sensitivity;
            let bound = relaxed(&items, limit);
            assert!(found >= bound - 1e-9 && found <= bound * 1.02 + 1e-3, "{found} against {bound}");
        }
    }

    /// max over λ ≥ 0 of Σ min (sensitivity + λ cost) − λ limit, a lower bound by duality.
    fn relaxed(items: &[Vec<Point>], limit: f64) -> f64 {
        let dual = |lambda: f64| {
            let of = |item: &Vec<Point>| {
                item.iter()
                    .map(|point| point.sensitivity + lambda * point.cost as f64)
                    .fold(f64::INFINITY, f64::min)
            };
            items.iter().map(of).sum::<f64>() - lambda * limit
        };
        (0..4000).map(|step| dual(1e-12 * 1.01f64.powi(step))).fold(f64::NEG_INFINITY, f64::max)
    }

    #[test]
    fn no_items_have_one_combination() {
        let frontier = Frontier::new(&[]);
        assert_eq!(frontier.points(), [Point { cost: 0, sensitivity: 0.0 }]);
        assert!(frontier.choices(0).is_empty());
    }
}

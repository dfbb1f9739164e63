//! Right answers per task.

use crate::tasks::Item;
use pith_meter::statistics::{Share, mcnemar};
use serde::Serialize;

/// Results per task and in total.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskReport {
    /// Tasks in the order of first appearance.
    pub tasks: Vec<TaskResult>,
    /// All items.
    pub all: TaskResult,
}

/// Results of one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskResult {
    /// Name of the task; `all` for the total.
    pub task: String,
    /// Share of items answered correctly.
    pub right: Share,
    /// Comparison with another model, if there is one.
    pub against: Option<Flips>,
}

/// Comparison of two models' answers to the same items.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flips {
    /// Share of items that the other model answered correctly.
    pub right: Share,
    /// Items that only the other model answered correctly.
    pub lost: usize,
    /// Items that only the other model answered wrongly.
    pub gained: usize,
    /// [`mcnemar`] of `lost` and `gained`.
    pub p_value: f64,
}

impl TaskReport {
    /// Counts `right`, and another model's answers if given. Each slice has one element per item;
    /// there is at least one item.
    pub fn of(items: &[Item], right: &[bool], against: Option<&[bool]>) -> Self {
        assert_eq!(items.len(), right.len());
        assert!(against.is_none_or(|against| against.len() == right.len()));
        let mut names: Vec<&str> = Vec::new();
        for item in items {
            if !names.contains(&item.task.as_str()) {
                names.push(&item.task);
            }
        }
        let result = |name: &str, wanted: &dyn Fn(&Item) -> bool| {
            let chosen = || (0..items.len()).filter(|&index| wanted(&items[index]));
            let share =
                |right: &[bool]| Share::of(chosen().filter(|&index| right[index]).count(), chosen().count());
            let flips = |other: &[bool]| {
                let only =
                    |one: &[bool], two: &[bool]| chosen().filter(|&index| one[index] && !two[index]).count();
                let (lost, gained) = (only(other, right), only(right, other));
                Flips { right: share(other), lost, gained, p_value: mcnemar(lost, gained) }
            };
            TaskResult { task: name.into(), right: share(right), against: against.map(flips) }
        };
        Self {
            tasks: names.iter().map(|name| result(name, &|item| item.task == *name)).collect(),
            all: result("all", &|_| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flips_are_counted_both_ways() {
        let item =
            |task: &str| Item { line: 1, task: task.into(), prompt: String::new(), answer: String::new() };
        let items: Vec<Item> = ["a", "b", "a", "b", "b"].map(item).into();
        let right = [true, true, false, false, false];
        let other = [true, false, true, true, true];
        let report = TaskReport::of(&items, &right, Some(&other));
        let counts = |result: &TaskResult| {
            let flips = result.against.as_ref().unwrap();
            (result.right.count, result.right.total, flips.right.count, flips.lost, flips.gained)
        };
        assert_eq!(report.tasks.iter().map(|result| &*result.task).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(counts(&report.tasks[0]), (1, 2, 2, 1, 0));
        assert_eq!(counts(&report.tasks[1]), (1, 3, 2, 2, 1));
        assert_eq!(counts(&report.all), (2, 5, 4, 3, 1));
        assert!((report.all.against.unwrap().p_value - 10.0 / 16.0).abs() < 1e-12);
        assert_eq!(TaskReport::of(&items, &right, None).all.against, None);
    }
}

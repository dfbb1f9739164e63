//! Progress of a long run. One trait for conversions, calibrations, evaluations and searches, so
//! that one bar shows them all.

/// Unit of a step's count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes of weights.
    Bytes,
    /// Tokens of a text.
    Tokens,
    /// Windows of a text.
    Windows,
    /// Questions of a task.
    Items,
    /// Measurements of a search, or its generations.
    Rounds,
}

/// Receives the progress of a run. `()` ignores it.
///
/// A run consists of steps, one after another; a step counts its units up to its total. Every
/// method has a default, so that an implementation names only what it shows.
pub trait Progress: Sync {
    /// A step begins, of `total` units. It replaces the step before.
    fn begin(&self, _step: &str, _total: u64, _unit: Unit) {}

    /// The part of the step that is next, such as a tensor's name.
    fn item(&self, _name: &str) {}

    /// `count` more units of the step are done.
    fn advance(&self, _count: u64) {}

    /// A line for people: a plan, a decision.
    fn say(&self, _line: &str) {}

    /// Whether to stop. Asked several times a second where the work allows it; the run then ends
    /// with its error for interruptions and leaves no output.
    fn is_interrupted(&self) -> bool {
        false
    }
}

impl Progress for () {}

//! One line of a ledger after the first.

use pith_meter::{Conditions, Traffic};
use pith_runtime::Phase;

/// One line after the first: the cost of a token, of the tokens of one pass, or of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Start of the work, in seconds since the ledger was created.
    pub start_seconds: f64,
    /// Prompt or reply.
    pub phase: Phase,
    /// Tokens that share the cost.
    pub tokens: u64,
    /// Tokens drafted, accepted or not.
    pub drafted: u64,
    /// Wall-clock time.
    pub seconds: f64,
    /// Bytes moved.
    pub traffic: Traffic,
    /// One per meter of the header, in its order.
    pub joules: Vec<Option<f64>>,
    /// The machine's state.
    pub conditions: Conditions,
}

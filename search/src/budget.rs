//! Limits of a file's cost.

use crate::error::SearchError;
use crate::knapsack::Frontier;
use crate::space::{Assignment, Space};
use std::fmt;

/// Energy of a decoded token: `joules_per_byte · bytes + joules_per_operation · operations`. Bytes
/// are the weights that the token reads; operations are two for each weight it multiplies. Keys,
/// values and activations are left out: they are the same for every assignment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EnergyRule {
    /// Joules per byte of weights, including the board's power while the byte is read.
    pub joules_per_byte: f64,
    /// Joules per multiplication or addition.
    pub joules_per_operation: f64,
}

impl EnergyRule {
    /// Joules of a token that reads `token_bytes`.
    pub fn joules(&self, space: &Space, token_bytes: u64) -> f64 {
        self.joules_per_byte * token_bytes as f64 + self.joules_per_operation * space.operations() as f64
    }
}

/// An upper bound of the file's size or of its cost per token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Bytes of the file.
    FileBytes(u64),
    /// Bytes of weights that a decoded token reads.
    BytesPerToken(u64),
    /// Bits per weight over all matrices, embedding and head included.
    BitsPerWeight(f64),
    /// Joules of a decoded token.
    JoulesPerToken {
        /// The bound.
        joules: f64,
        /// The rule for computing joules.
        rule: EnergyRule,
    },
}

impl Budget {
    /// Fails unless the bound is finite and above 0.
    pub(crate) fn check(&self) -> Result<(), SearchError> {
        let limit = self.limit();
        if limit.is_finite() && limit > 0.0 {
            return Ok(());
        }
        let expected = "a number above 0".into();
        Err(SearchError::Option { option: "budget", found: limit.to_string(), expected })
    }

    /// The bound.
    pub fn limit(&self) -> f64 {
        match *self {
            Budget::FileBytes(bytes) | Budget::BytesPerToken(bytes) => bytes as f64,
            Budget::BitsPerWeight(bits) => bits,
            Budget::JoulesPerToken { joules, .. } => joules,
        }
    }

    /// This budget with a bound `factor` times as large.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        let bytes = |bytes: u64| (bytes as f64 * factor).round() as u64;
        match *self {
            Budget::FileBytes(limit) => Budget::FileBytes(bytes(limit)),
            Budget::BytesPerToken(limit) => Budget::BytesPerToken(bytes(limit)),
            Budget::BitsPerWeight(limit) => Budget::BitsPerWeight(limit * factor),
            Budget::JoulesPerToken { joules, rule } => {
                Budget::JoulesPerToken { joules: joules * factor, rule }
            }
        }
    }

    /// The cost of an assignment, in the bound's unit.
    pub fn measure(&self, space: &Space, assignment: &[u8], refine: bool) -> f64 {
        match self {
            Budget::FileBytes(_) => space.file_bytes(assignment, refine) as f64,
            Budget::BytesPerToken(_) => space.token_bytes(assignment) as f64,
            Budget::BitsPerWeight(_) => space.bits_per_weight(assignment),
            Budget::JoulesPerToken { rule, .. } => rule.joules(space, space.token_bytes(assignment)),
        }
    }

    /// Whether an assignment is within the budget.
    pub fn fits(&self, space: &Space, assignment: &[u8], refine: bool) -> bool {
        self.measure(space, assignment, refine) <= self.limit()
    }

    /// The cost of one choice: bytes stored, or bytes read per token.
    pub(crate) fn cost(&self, space: &Space, tensor: usize, choice: usize) -> u64 {
        match self {
            Budget::FileBytes(_) | Budget::BitsPerWeight(_) => space.matrix_bytes(tensor, choice),
            Budget::BytesPerToken(_) | Budget::JoulesPerToken { .. } => space.read_bytes(tensor, choice),
        }
    }

    /// Upper bound of the summed [costs](Budget::cost) within the budget.
    fn cost_limit(&self, space: &Space) -> f64 {
        match *self {
            Budget::FileBytes(bytes) | Budget::BytesPerToken(bytes) => bytes as f64,
            Budget::BitsPerWeight(bits) => bits * space.weight_count() as f64 / 8.0,
            Budget::JoulesPerToken { joules, rule } => match rule.joules_per_byte > 0.0 {
                true => (joules - rule.joules(space, 0)) / rule.joules_per_byte,
                false => f64::INFINITY,
            },
        }
    }

    /// The combination within the budget with the smallest sum of sensitivities; `None` if none
    /// fits.
    pub(crate) fn pick(&self, space: &Space, frontier: &Frontier, refine: bool) -> Option<Assignment> {
        let limit = self.cost_limit(space);
        let end = frontier.points().partition_point(|point| point.cost as f64 <= limit);
        // Alignment and everything beside the matrices are known for whole assignments only.
        let assignments = (0..end).rev().map(|point| frontier.choices(point));
        assignments.into_iter().find(|assignment| self.fits(space, assignment, refine))
    }

    /// Formats a bound or a cost with its unit.
    pub fn show(&self, value: f64) -> String {
        match self {
            Budget::FileBytes(_) => format!("{value:.0} bytes"),
            Budget::BytesPerToken(_) => format!("{value:.0} bytes per token"),
            Budget::BitsPerWeight(_) => format!("{value:.4} bits per weight"),
            Budget::JoulesPerToken { .. } => format!("{value:.6} J per token"),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.show(self.limit()))
    }
}

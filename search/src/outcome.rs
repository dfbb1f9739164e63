//! The result of a search.

use crate::budget::Budget;
use crate::sensitivity::Sensitivities;
use crate::space::{Assignment, Space};
use pith_converter::Recipe;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Budgets in the frontier's table, as multiples of the one asked for.
pub(crate) const FRONTIER: [f64; 11] = [0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5];

/// The figures of one assignment.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the assignment.
    pub name: String,
    /// Length of its file, in bytes.
    pub file_bytes: u64,
    /// Bytes of weights that a decoded token reads.
    pub bytes_per_token: u64,
    /// Bits per weight over all matrices.
    pub bits_per_weight: f64,
    /// Joules of a decoded token, by the board's energy model; `None` without a model.
    pub joules_per_token: Option<f64>,
    /// The sum of sensitivities: KL if they added up.
    pub predicted_kl: f64,
    /// Measured mean divergence on the search's text, every matrix rounded once.
    pub measured_kl: Option<f64>,
    /// Measured mean divergence of the written file.
    pub file_kl: Option<f64>,
    /// The choice for each matrix, by name.
    pub tensors: BTreeMap<String, String>,
}

/// A search's file and the figures behind it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The file.
    pub output: PathBuf,
    /// Its recipe.
    pub recipe: Recipe,
    /// The choice for each matrix.
    pub assignment: Assignment,
    /// Length of the file, computed before writing.
    pub predicted_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// All candidates; the last row is the file itself.
    pub rows: Vec<Row>,
    /// The smallest sum of sensitivities at budgets around the one asked for, by ascending budget.
    pub frontier: Vec<Row>,
    /// Remarks for the user.
    pub notes: Vec<String>,
    /// Perplexity of the dense model on the search's text.
    pub dense_perplexity: f64,
    /// Tokens of the search's text.
    pub eval_tokens: usize,
    /// Measurements found in the journal.
    pub resumed: usize,
    /// All measurements.
    pub measurements: usize,
    /// Generations of the evolution.
    pub generations: usize,
    /// Time since the start of this run.
    pub elapsed: Duration,
}

impl Row {
    pub(crate) fn new(
        name: String,
        space: &Space,
        sensitivities: &Sensitivities,
        budget: &Budget,
        refine: bool,
        assignment: &[u8],
    ) -> Self {
        let bytes_per_token = space.token_bytes(assignment);
        let choice = |choice: &u8| space.choices()[usize::from(*choice)].to_string();
        let ids = space.tensors().iter().map(|tensor| tensor.id.to_string());
        Self {
            name,
            file_bytes: space.file_bytes(assignment, refine),
            bytes_per_token,
            bits_per_weight: space.bits_per_weight(assignment),
            joules_per_token: match budget {
                Budget::JoulesPerToken { rule, .. } => Some(rule.joules(space, bytes_per_token)),
                _ => None,
            },
            predicted_kl: sensitivities.predicted(assignment),
            measured_kl: None,
            file_kl: None,
            tensors: ids.zip(assignment.iter().map(choice)).collect(),
        }
    }
}

impl Outcome {
    /// Both tables as comma-separated values, without the choices for the matrices.
    pub fn to_csv(&self) -> String {
        let mut text = "table,name,file_bytes,bytes_per_token,bits_per_weight,joules_per_token,predicted_kl,\
                        measured_kl,file_kl\n"
            .to_string();
        let some = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        for (table, rows) in [("frontier", &self.frontier), ("measured", &self.rows)] {
            for row in rows {
                let _ = writeln!(
                    text,
                    "{table},{},{},{},{},{},{},{},{}",
                    row.name.replace(',', ";"),
                    row.file_bytes,
                    row.bytes_per_token,
                    row.bits_per_weight,
                    some(row.joules_per_token),
                    row.predicted_kl,
                    some(row.measured_kl),
                    some(row.file_kl),
                );
            }
        }
        text
    }

    /// All of it, as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "output": self.output.display().to_string(),
            "recipe": self.recipe.to_toml(),
            "predicted_bytes": self.predicted_bytes,
            "file_bytes": self.file_bytes,
            "frontier": self.frontier,
            "measured": self.rows,
            "notes": self.notes,
            "dense_perplexity": self.dense_perplexity,
            "eval_tokens": self.eval_tokens,
            "resumed_measurements": self.resumed,
            "measurements": self.measurements,
            "generations": self.generations,
            "seconds": self.elapsed.as_secs_f64(),
        })
    }
}

//! What a search found.

use crate::budget::Budget;
use crate::damage::Damages;
use crate::space::{Assignment, Space};
use pith_converter::Recipe;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Bounds of the frontier's table, as shares of the one asked for.
pub(crate) const FRONTIER: [f64; 11] = [0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.35, 1.5];

/// An assignment in figures.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which it is.
    pub name: String,
    /// Length of its file.
    pub file_bytes: u64,
    /// Bytes of weights that a decoded token reads.
    pub bytes_per_token: u64,
    /// Over all matrices.
    pub bits_per_weight: f64,
    /// Of a decoded token, by the board's model, where one was given.
    pub joules_per_token: Option<f64>,
    /// The sum of damages: what KL would be if they added up.
    pub predicted_kl: f64,
    /// Measured mean divergence on the search's text, of the matrices rounded once.
    pub measured_kl: Option<f64>,
    /// Measured mean divergence of a file that was written.
    pub file_kl: Option<f64>,
    /// What each matrix gets.
    pub tensors: BTreeMap<String, String>,
}

/// A search's file and how it came about.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The file.
    pub output: PathBuf,
    /// What made it.
    pub recipe: Recipe,
    /// The choice for each matrix.
    pub assignment: Assignment,
    /// Length of the file as it was computed before it was written.
    pub predicted_bytes: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// The file itself, as the last row; before it what it was chosen from.
    pub rows: Vec<Row>,
    /// The least damage at several budgets around the one asked for, by ascending budget.
    pub frontier: Vec<Row>,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Perplexity of the dense model on the search's text.
    pub dense_perplexity: f64,
    /// Tokens of the search's text.
    pub eval_tokens: usize,
    /// Measurements that were there already.
    pub resumed: usize,
    /// All measurements.
    pub measurements: usize,
    /// Generations of the evolution.
    pub generations: usize,
    /// From the beginning of this run.
    pub elapsed: Duration,
}

impl Row {
    pub(crate) fn new(
        name: String,
        space: &Space,
        damages: &Damages,
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
            predicted_kl: damages.predicted(assignment),
            measured_kl: None,
            file_kl: None,
            tensors: ids.zip(assignment.iter().map(choice)).collect(),
        }
    }
}

impl Outcome {
    /// Both tables as comma-separated values, without what each matrix gets.
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

    /// Everything, as JSON.
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

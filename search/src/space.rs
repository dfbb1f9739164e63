//! The search space: matrices, choices, and the cost of a whole assignment.

use crate::choice::Choice;
use crate::error::SearchError;
use pith_converter::passes::gptq::Feedback;
use pith_converter::{Override, Quantizer, Recipe};
use pith_format::{Entry, Kind, Metadata, Role, TensorId, TensorPlan, planned_bytes};
use pith_runtime::Model;

/// One choice index for every matrix of a [`Space`], in its order.
pub type Assignment = Vec<u8>;

/// A matrix with a choice of encodings.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Role and layer.
    pub id: TensorId,
    /// Rows, without padding.
    pub rows: usize,
    /// Columns, without padding.
    pub cols: usize,
    /// Its rounding method.
    pub quantizer: Quantizer,
    /// Whether every decoded token reads all of it; otherwise it is looked up by rows.
    pub streamed: bool,
    /// The first layer whose results it changes; the number of layers if it changes only the
    /// logits.
    pub(crate) first_layer: usize,
    /// Whether it changes the first layer's input.
    pub(crate) embeds: bool,
}

/// Matrices and their choices.
#[derive(Clone, Debug)]
pub struct Space {
    tensors: Vec<Tensor>,
    choices: Vec<Choice>,
    plan: Vec<TensorPlan>,
    metadata: Metadata,
    fixed_token_bytes: u64,
}

impl Space {
    /// The matrices of a dense model, with `choices` in any order; duplicates are removed. A matrix
    /// whose Hessian exceeds `memory` is rounded to nearest.
    pub fn new(model: &Model, mut choices: Vec<Choice>, memory: Option<u64>) -> Result<Self, SearchError> {
        choices.sort_by(|a, b| a.bits().total_cmp(&b.bits()));
        choices.dedup();
        if choices.len() < 2 {
            let found = choices.iter().map(Choice::to_string).collect::<Vec<_>>().join(", ");
            return Err(SearchError::Option {
                option: "encodings",
                found,
                expected: "at least two to choose from".into(),
            });
        }
        let (config, index) = (model.config(), model.index());
        let layer_count = config.layers.len();
        let tensor = |entry: &Entry| {
            let (rows, cols) = (entry.rows as usize, entry.cols as usize);
            let fits = memory.is_none_or(|limit| Feedback::peak_bytes(cols, true) as u64 <= limit);
            let looked_up = match entry.id.role {
                Role::TokenEmbedding => !config.tied_head,
                Role::PositionEmbedding => true,
                _ => false,
            };
            let embeds = matches!(entry.id.role, Role::TokenEmbedding | Role::PositionEmbedding);
            Tensor {
                id: entry.id,
                rows,
                cols,
                quantizer: if fits && !looked_up { Quantizer::Gptq } else { Quantizer::Nearest },
                streamed: !looked_up,
                first_layer: entry.id.layer.unwrap_or(if embeds { 0 } else { layer_count }),
                embeds,
            }
        };
        let matrices = index.entries().iter().filter(|entry| entry.kind() == Kind::Matrix);
        let mut tensors: Vec<Tensor> = matrices.map(tensor).collect();
        if tensors.is_empty() {
            return Err(SearchError::NoTensors { model: config.name.clone() });
        }
        // Matrices that share inputs stay together, and partial passes run in layer order.
        tensors.sort_by_key(|tensor| tensor.first_layer);
        let plan = index.entries().iter().map(|entry| TensorPlan {
            id: entry.id,
            encoding: entry.encoding,
            rows: entry.rows as usize,
            cols: entry.cols as usize,
        });
        let vectors = index.entries().iter().filter(|entry| entry.kind() == Kind::Vector);
        Ok(Self {
            tensors,
            choices,
            plan: plan.collect(),
            metadata: model.metadata().clone(),
            fixed_token_bytes: vectors.map(|entry| entry.bytes).sum(),
        })
    }

    /// The matrices.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The choices, from the fewest bits to the most.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The same choice for every matrix.
    pub fn uniform(&self, choice: usize) -> Assignment {
        vec![choice as u8; self.tensors.len()]
    }

    /// One choice for the layers, another for embeddings and head.
    pub(crate) fn of_two(&self, layers: usize, outer: usize) -> Assignment {
        let choice = |tensor: &Tensor| if tensor.id.layer.is_some() { layers } else { outer };
        self.tensors.iter().map(|tensor| choice(tensor) as u8).collect()
    }

    /// Bytes of a matrix.
    pub(crate) fn matrix_bytes(&self, tensor: usize, choice: usize) -> u64 {
        let Tensor { rows, cols, .. } = self.tensors[tensor];
        self.choices[choice].bytes(rows, cols)
    }

    /// Bytes of a matrix that a decoded token reads.
    pub(crate) fn read_bytes(&self, tensor: usize, choice: usize) -> u64 {
        let (bytes, choice) = (self.matrix_bytes(tensor, choice), self.choices[choice]);
        let Tensor { id, cols, .. } = self.tensors[tensor];
        id.reads(&self.metadata.model, bytes, choice.row_bytes(cols)).bytes()
    }

    /// Bytes of weights that a decoded token reads: the streamed tensors, vectors included, and the
    /// rows looked up.
    pub fn token_bytes(&self, assignment: &[u8]) -> u64 {
        self.fixed_token_bytes + self.sum(assignment, Self::read_bytes)
    }

    /// Bits per weight over all matrices, scales and padding included.
    pub fn bits_per_weight(&self, assignment: &[u8]) -> f64 {
        8.0 * self.sum(assignment, Self::matrix_bytes) as f64 / self.weight_count() as f64
    }

    /// Number of weights of all matrices.
    pub fn weight_count(&self) -> u64 {
        self.tensors.iter().map(|tensor| (tensor.rows * tensor.cols) as u64).sum()
    }

    /// Multiplications and additions in the matrices, per decoded token.
    pub fn operations(&self) -> u64 {
        let streamed = self.tensors.iter().filter(|tensor| tensor.streamed);
        streamed.map(|tensor| 2 * (tensor.rows * tensor.cols) as u64).sum()
    }

    /// Length of the file of this assignment's recipe.
    pub fn file_bytes(&self, assignment: &[u8], refine: bool) -> u64 {
        let choice = |id: TensorId| self.tensors.iter().position(|tensor| tensor.id == id);
        let mut plan = self.plan.clone();
        for tensor in &mut plan {
            if let Some(index) = choice(tensor.id) {
                tensor.encoding = Some(self.choices[usize::from(assignment[index])].encoding());
            }
        }
        let recipe = self.recipe(assignment, refine);
        let mut metadata = self.metadata.clone();
        metadata.provenance.recipe = recipe.to_string();
        metadata.provenance.recipe_file = recipe.is_of_file().then(|| recipe.to_toml());
        planned_bytes(&plan, &metadata).expect("the shapes of an open file")
    }

    /// The recipe of an assignment. The most common choice of the layers' weights comes first, then
    /// the exceptions by name.
    pub fn recipe(&self, assignment: &[u8], refine: bool) -> Recipe {
        let choice_of = |index: usize| self.choices[usize::from(assignment[index])].encoding();
        let mut weights = vec![0usize; self.choices.len()];
        for (tensor, &choice) in self.tensors.iter().zip(assignment) {
            if tensor.id.layer.is_some() {
                weights[usize::from(choice)] += tensor.rows * tensor.cols;
            }
        }
        let most = (0..weights.len()).max_by_key(|&choice| weights[choice]).expect("two choices or more");
        let of = |role| self.tensors.iter().position(|tensor| tensor.id.role == role).map(choice_of);
        let mut recipe = Recipe::new(self.choices[most].encoding());
        recipe.name = Some("search".into());
        recipe.embedding = of(Role::TokenEmbedding);
        recipe.head = of(Role::Head).or(recipe.embedding).map(Into::into);
        let by_gptq = self.tensors.iter().any(|tensor| tensor.quantizer == Quantizer::Gptq);
        recipe.quantizer = if by_gptq { Quantizer::Gptq } else { Quantizer::Nearest };
        recipe.refine = refine && by_gptq;
        for (index, tensor) in self.tensors.iter().enumerate() {
            let expected = match tensor.id.role {
                Role::TokenEmbedding | Role::Head => Some(choice_of(index)),
                Role::PositionEmbedding => recipe.embedding,
                _ => Some(recipe.matrices),
            };
            let encoding = Some(choice_of(index)).filter(|_| expected != Some(choice_of(index)));
            let quantizer = Some(tensor.quantizer).filter(|&quantizer| quantizer != recipe.quantizer);
            if encoding.is_some() || quantizer.is_some() {
                recipe.overrides.push(Override { pattern: tensor.id.to_string(), encoding, quantizer });
            }
        }
        recipe
    }

    /// Share of a forward pass's products from `first_layer` on.
    pub(crate) fn share_from(&self, first_layer: usize) -> f64 {
        let weights = |tensor: &Tensor| (tensor.rows * tensor.cols) as f64;
        let multiplied = || self.tensors.iter().filter(|tensor| tensor.streamed);
        let after = |tensor: &&Tensor| tensor.id.layer.is_none_or(|layer| layer >= first_layer);
        let all: f64 = multiplied().map(weights).sum();
        multiplied().filter(after).map(weights).sum::<f64>() / all
    }

    fn sum(&self, assignment: &[u8], bytes: impl Fn(&Self, usize, usize) -> u64) -> u64 {
        assignment.iter().enumerate().map(|(tensor, &choice)| bytes(self, tensor, usize::from(choice))).sum()
    }
}

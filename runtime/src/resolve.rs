//! From a file's directory to the model's parts: every tensor is looked up once, and every tensor has a use.

use crate::model::{Layer, Linear, Norm, Stored, Vector};
use pith_format::{Entry, FormatError, Index, LayerConfig, Matrix, NormKind, Role, TensorId};
use std::collections::HashSet;

/// Looks tensors up and remembers which were taken.
pub(crate) struct Resolver<'a> {
    file: &'a [u8],
    index: &'a Index,
    layer: Option<usize>,
    taken: HashSet<TensorId>,
}

impl<'a> Resolver<'a> {
    pub fn new(file: &'a [u8], index: &'a Index) -> Self {
        Self { file, index, layer: None, taken: HashSet::new() }
    }

    /// Resolves a layer.
    pub fn layer(&mut self, layer_index: usize, config: &LayerConfig) -> Result<Layer, FormatError> {
        self.layer = Some(layer_index);
        let layer = Layer {
            attention_norm: self.norm(Role::AttentionNorm, Some(Role::AttentionNormBias))?,
            query: self.linear(Role::Query, Role::QueryBias)?,
            key: self.linear(Role::Key, Role::KeyBias)?,
            value: self.linear(Role::Value, Role::ValueBias)?,
            query_norm: self.optional_vector(Role::QueryNorm)?,
            key_norm: self.optional_vector(Role::KeyNorm)?,
            output: self.linear(Role::AttentionOutput, Role::AttentionOutputBias)?,
            attention_post_norm: self.optional_norm(Role::AttentionPostNorm, None)?,
            ffn_norm: match config.parallel {
                true => self.optional_norm(Role::FfnNorm, Some(Role::FfnNormBias))?,
                false => Some(self.norm(Role::FfnNorm, Some(Role::FfnNormBias))?),
            },
            gate: match self.has(Role::Gate) {
                true => Some(self.linear(Role::Gate, Role::GateBias)?),
                false => None,
            },
            up: self.linear(Role::Up, Role::UpBias)?,
            down: self.linear(Role::Down, Role::DownBias)?,
            ffn_post_norm: self.optional_norm(Role::FfnPostNorm, None)?,
        };
        self.layer = None;
        Ok(layer)
    }

    /// A matrix that must be there.
    pub fn matrix(&mut self, role: Role) -> Result<Stored, FormatError> {
        let id = self.id(role);
        let matrix = self.index.matrix(self.file, id)?;
        let entry = self.index.entry(id).ok_or(FormatError::MissingTensor { tensor: id })?;
        self.taken.insert(id);
        let start = entry.offset as usize;
        Ok(Stored {
            encoding: matrix.encoding(),
            rows: matrix.rows(),
            cols: matrix.cols(),
            range: start..start + entry.bytes as usize,
            own: None,
        })
    }

    /// A matrix that may be there.
    pub fn optional_matrix(&mut self, role: Role) -> Result<Option<Stored>, FormatError> {
        self.has(role).then(|| self.matrix(role)).transpose()
    }

    /// A vector that may be there.
    pub fn optional_vector(&mut self, role: Role) -> Result<Option<Vector>, FormatError> {
        self.has(role).then(|| self.vector(role)).transpose()
    }

    /// A norm that must be there; its bias only if the model's norms have one.
    pub fn norm(&mut self, weight: Role, bias: Option<Role>) -> Result<Norm, FormatError> {
        let weight = self.vector(weight)?;
        let with_bias = self.index.metadata().model.norm == NormKind::Layer;
        let bias = match bias.filter(|_| with_bias) {
            Some(bias) => self.optional_vector(bias)?,
            None => None,
        };
        Ok(Norm { weight, bias })
    }

    /// A norm that may be there.
    pub fn optional_norm(&mut self, weight: Role, bias: Option<Role>) -> Result<Option<Norm>, FormatError> {
        self.has(weight).then(|| self.norm(weight, bias)).transpose()
    }

    /// Whether there is a tokenizer, which is looked at when it is asked for.
    pub fn tokenizer(&mut self) -> bool {
        self.taken.insert(self.id(Role::Tokenizer));
        self.has(Role::Tokenizer)
    }

    /// The first tensor that nothing asked for, and why nothing did.
    pub fn unused(&self) -> Option<(&'a Entry, &'static str)> {
        let entry = self.index.entries().iter().find(|entry| !self.taken.contains(&entry.id))?;
        let reason = match entry.id.role {
            Role::Head => "the head is tied to the embedding",
            Role::GateBias => "the layer has no gate",
            Role::AttentionNormBias | Role::FfnNormBias | Role::OutputNormBias => {
                "root-mean-square norms have no bias, nor has a norm that is not there"
            }
            _ => "the forward pass does not know it",
        };
        Some((entry, reason))
    }

    fn vector(&mut self, role: Role) -> Result<Vector, FormatError> {
        let id = self.id(role);
        let values = self.index.vector(self.file, id)?;
        self.taken.insert(id);
        Ok(Vector::new(values))
    }

    fn linear(&mut self, weight: Role, bias: Role) -> Result<Linear, FormatError> {
        Ok(Linear { weight: self.matrix(weight)?, bias: self.optional_vector(bias)? })
    }

    fn has(&self, role: Role) -> bool {
        self.index.entry(self.id(role)).is_some()
    }

    fn id(&self, role: Role) -> TensorId {
        TensorId { role, layer: self.layer }
    }
}

impl Stored {
    /// The matrix in the file it was resolved in, or what stands in for it.
    pub fn of<'a>(&'a self, file: &'a [u8]) -> Matrix<'a> {
        let bytes = self.own.as_deref().unwrap_or_else(|| &file[self.range.clone()]);
        Matrix::new(self.encoding, self.rows, self.cols, bytes).expect("checked when the model was opened")
    }
}

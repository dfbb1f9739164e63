//! From a file's directory to the model's parts. Every tensor is looked up once and must have a
//! use.

use crate::weights::{Attention, FeedForward, Layer, Linear, Norm, Stored, Vector};
use pith_format::{Entry, FormatError, Index, Mixer, NormKind, Role, TensorId};
use std::collections::HashSet;

/// Reason why a layer cannot run.
pub(crate) enum Unresolved {
    /// The file is incomplete.
    Format(FormatError),
    /// The forward pass does not support this kind of layer.
    Kind { layer_index: usize, half: &'static str, kind: &'static str },
}

impl From<FormatError> for Unresolved {
    fn from(error: FormatError) -> Self {
        Unresolved::Format(error)
    }
}

/// Looks tensors up and records which were used.
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
    pub fn layer(&mut self, layer_index: usize, config: &pith_format::Layer) -> Result<Layer, Unresolved> {
        self.layer = Some(layer_index);
        let unknown = |half, kind| Err(Unresolved::Kind { layer_index, half, kind });
        let attention = match &config.mixer {
            Mixer::Attention(attention) => Some(self.attention(attention.qk_norm)?),
            Mixer::None {} => None,
            other => return unknown("mixer", other.kind()),
        };
        let feed_forward = match &config.feed_forward {
            pith_format::FeedForward::Gated(_) => Some(self.feed_forward(true, config.parallel)?),
            pith_format::FeedForward::Plain(_) => Some(self.feed_forward(false, config.parallel)?),
            pith_format::FeedForward::None {} => None,
            other => return unknown("feed-forward", other.kind()),
        };
        self.layer = None;
        Ok(Layer { attention, feed_forward })
    }

    fn attention(&mut self, qk_norm: bool) -> Result<Attention, FormatError> {
        Ok(Attention {
            norm: self.norm(Role::MixerNorm, Some(Role::MixerNormBias))?,
            query: self.linear(Role::Query, Role::QueryBias)?,
            key: self.linear(Role::Key, Role::KeyBias)?,
            value: self.linear(Role::Value, Role::ValueBias)?,
            head_norms: match qk_norm {
                true => Some([self.vector(Role::QueryNorm)?, self.vector(Role::KeyNorm)?]),
                false => None,
            },
            output: self.linear(Role::AttentionOutput, Role::AttentionOutputBias)?,
            post_norm: self.optional_norm(Role::MixerPostNorm, None)?,
        })
    }

    fn feed_forward(&mut self, gated: bool, parallel: bool) -> Result<FeedForward, FormatError> {
        Ok(FeedForward {
            norm: match parallel {
                true => self.optional_norm(Role::FfnNorm, Some(Role::FfnNormBias))?,
                false => Some(self.norm(Role::FfnNorm, Some(Role::FfnNormBias))?),
            },
            gate: match gated {
                true => Some(self.linear(Role::Gate, Role::GateBias)?),
                false => None,
            },
            up: self.linear(Role::Up, Role::UpBias)?,
            down: self.linear(Role::Down, Role::DownBias)?,
            post_norm: self.optional_norm(Role::FfnPostNorm, None)?,
        })
    }

    /// A required matrix.
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
            blocks: self.index.blocks(id).cloned(),
        })
    }

    /// An optional matrix.
    pub fn optional_matrix(&mut self, role: Role) -> Result<Option<Stored>, FormatError> {
        self.has(role).then(|| self.matrix(role)).transpose()
    }

    /// An optional vector.
    pub fn optional_vector(&mut self, role: Role) -> Result<Option<Vector>, FormatError> {
        self.has(role).then(|| self.vector(role)).transpose()
    }

    /// A required norm; its bias only where the model's norms have one.
    pub fn norm(&mut self, weight: Role, bias: Option<Role>) -> Result<Norm, FormatError> {
        let weight = self.vector(weight)?;
        let with_bias = self.index.metadata().model.norm == NormKind::Layer;
        let bias = match bias.filter(|_| with_bias) {
            Some(bias) => self.optional_vector(bias)?,
            None => None,
        };
        Ok(Norm { weight, bias })
    }

    /// An optional norm.
    pub fn optional_norm(&mut self, weight: Role, bias: Option<Role>) -> Result<Option<Norm>, FormatError> {
        self.has(weight).then(|| self.norm(weight, bias)).transpose()
    }

    /// Whether the file has a tokenizer; it is parsed at first use.
    pub fn tokenizer(&mut self) -> bool {
        self.taken.insert(self.id(Role::Tokenizer));
        self.has(Role::Tokenizer)
    }

    /// The first unused tensor, and the reason.
    pub fn unused(&self) -> Option<(&'a Entry, &'static str)> {
        let entry = self.index.entries().iter().find(|entry| !self.taken.contains(&entry.id))?;
        let reason = match entry.id.role {
            Role::Head => "the head is tied to the embedding",
            Role::MixerNormBias | Role::FfnNormBias | Role::OutputNormBias => {
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
        TensorId { role, layer: self.layer, expert: None }
    }
}

//! The residual stream and the values of every head in a rotated basis.
//!
//! With `R` orthogonal, a norm without weights gives `norm(x R) = norm(x) R`. So the weights of norms move into the matrices
//! behind them, what writes to the stream (embedding, output, down) is followed by `R`, and what reads it (query, key, value,
//! gate, up, head) begins with `Rᵀ`: QuaRot's `R1`. Attention mixes the values of a head over positions and not over its
//! columns, so values are rotated head by head and the output projection back: its `R2`.

use std::sync::Arc;

use pith_format::{ModelConfig, NormKind, Role, TensorId};

use super::PassError;
use super::change::Changes;
use super::rotation::Rotation;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::families::Binding;
use crate::checkpoint::rows::read_vector;

/// The rotations of a model. A tied head becomes a matrix of its own: the last norm's weights move into it.
///
/// Fails for models whose residual stream cannot be rotated: those of layer norms, and of norms on what is written to it.
pub(crate) fn hadamard(
    checkpoint: &Checkpoint,
    model: &mut ModelConfig,
    bindings: &mut Vec<Binding>,
) -> Result<Changes, PassError> {
    let refused = |reason: String| Err(PassError::Transform { name: "hadamard", reason });
    if model.norm == NormKind::Layer {
        return refused("layer norms take the mean of what they read, which no rotation leaves alone".into());
    }
    let fixed = [
        Role::EmbeddingNorm,
        Role::MixerNormBias,
        Role::MixerPostNorm,
        Role::FfnNormBias,
        Role::FfnPostNorm,
        Role::OutputNormBias,
    ];
    if let Some(binding) = bindings.iter().find(|binding| fixed.contains(&binding.id.role)) {
        return refused(format!("{} acts on the columns of the residual stream", binding.id));
    }
    if model.tied_head {
        untie(model, bindings);
    }
    let gain = |id: TensorId| -> Result<Option<Arc<[f32]>>, PassError> {
        let norm = bindings.iter().find(|binding| binding.id == id);
        Ok(norm.map(|norm| read_vector(checkpoint, norm).map(Arc::from)).transpose()?)
    };
    let stream = Arc::new(Rotation::new(model.hidden_len));
    let mut changes = Changes::default();
    let mut heads: Option<Arc<Rotation>> = None;
    for (index, layer) in model.layers.iter().enumerate() {
        let id = |role| TensorId::layer(role, index);
        let before_attention = gain(id(Role::MixerNorm))?;
        let before_ffn = match gain(id(Role::FfnNorm))? {
            // A parallel layer of one norm.
            None if layer.parallel => before_attention.clone(),
            gain => gain,
        };
        for (roles, gain) in [
            (&[Role::Query, Role::Key, Role::Value][..], &before_attention),
            (&[Role::Gate, Role::Up][..], &before_ffn),
        ] {
            for &role in roles {
                let change = changes.entry(id(role));
                change.col_scales.clone_from(gain);
                change.col_rotation = Some(Arc::clone(&stream));
            }
        }
        let head_dim = layer.attention().map_or(1, |attention| attention.head_dim);
        let head = match &heads {
            Some(known) if known.len() == head_dim => Arc::clone(known),
            _ => Arc::new(Rotation::new(head_dim)),
        };
        heads = Some(Arc::clone(&head));
        for role in [Role::Value, Role::ValueBias] {
            changes.entry(id(role)).row_rotation = Some(Arc::clone(&head));
        }
        changes.entry(id(Role::AttentionOutput)).col_rotation = Some(head);
        for role in [Role::AttentionOutput, Role::AttentionOutputBias, Role::Down, Role::DownBias] {
            changes.entry(id(role)).row_rotation = Some(Arc::clone(&stream));
        }
        for role in [Role::MixerNorm, Role::FfnNorm] {
            changes.entry(id(role)).ones = true;
        }
    }
    for role in [Role::TokenEmbedding, Role::PositionEmbedding] {
        changes.entry(TensorId::model(role)).col_rotation = Some(Arc::clone(&stream));
    }
    let last = gain(TensorId::model(Role::OutputNorm))?;
    let head = changes.entry(TensorId::model(Role::Head));
    head.col_scales = last;
    head.col_rotation = Some(stream);
    changes.entry(TensorId::model(Role::OutputNorm)).ones = true;
    Ok(changes)
}

/// Gives the model a head that is a copy of the embedding.
fn untie(model: &mut ModelConfig, bindings: &mut Vec<Binding>) {
    model.tied_head = false;
    let embedding = bindings.iter().find(|binding| binding.id.role == Role::TokenEmbedding);
    let embedding = embedding.expect("every model has an embedding").clone();
    let head = Binding { id: TensorId::model(Role::Head), ..embedding };
    // In the file's order.
    let at = bindings.iter().position(|binding| binding.id.role == Role::HeadBias).unwrap_or(bindings.len());
    bindings.insert(at, head);
}

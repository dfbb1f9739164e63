//! Rotations of the residual stream and of the values of every head.
//!
//! With `R` orthogonal, a norm without weights gives `norm(x R) = norm(x) R`. So the weights of
//! norms move into the matrices behind them. Matrices that write to the stream (embedding, output,
//! down) are followed by `R`; matrices that read it (query, key, value, gate, up, head) begin with
//! `Rᵀ`: QuaRot's `R1`. Attention mixes a head's values over positions, not over columns, so values
//! are rotated head by head and the output projection rotates them back: QuaRot's `R2`.

use std::sync::Arc;

use pith_format::{NormKind, Role, TILE_ROWS, TensorId};

use super::change::Changes;
use super::rotation::Rotation;
use super::{Extent, Group, Outline, Pass, PassError, PassReport, Planned};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::families::Binding;
use crate::checkpoint::rows::read_vector;
use crate::recipe::Transform;
use crate::statistics::Statistics;

/// Pass that rotates the weights of a model whose residual stream allows it.
#[derive(Default)]
pub(crate) struct Hadamard {
    changes: Changes,
    /// The head was tied to the embedding: the file grows by its bytes.
    untied: bool,
}

impl Pass for Hadamard {
    fn name(&self) -> &'static str {
        Transform::Hadamard.name()
    }

    fn reshape(&mut self, checkpoint: &Checkpoint, outline: &mut Outline) -> Result<(), PassError> {
        self.untied = outline.model.tied_head;
        self.changes = rotations(checkpoint, outline)?;
        Ok(())
    }

    fn extent(&self, id: TensorId) -> Extent {
        self.changes.extent(id)
    }

    fn apply(&self, group: &mut Group, _: Option<&Statistics>) -> Result<PassReport, PassError> {
        let mut report = self.changes.apply(group);
        for member in group.members.iter().filter(|member| self.untied && member.id.role == Role::Head) {
            let encoding = member.encoding.expect("the head is a matrix");
            let tiles = member.cols.div_ceil(encoding.tile_cols()) * member.rows().div_ceil(TILE_ROWS);
            report.bytes_saved -= (tiles * encoding.tile_bytes()) as i64;
        }
        Ok(report)
    }
}

/// Finds the rotations of a model. A tied head becomes a matrix of its own, because the last norm's
/// weights move into it.
///
/// Fails where the residual stream cannot be rotated: for layer norms, and for norms on the outputs
/// of blocks.
fn rotations(checkpoint: &Checkpoint, outline: &mut Outline) -> Result<Changes, PassError> {
    let refused = |reason: String| Err(PassError::Transform { name: Transform::Hadamard.name(), reason });
    if outline.model.norm == NormKind::Layer {
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
    if let Some(tensor) = outline.tensors.iter().find(|tensor| fixed.contains(&tensor.id.role)) {
        return refused(format!("{} acts on the columns of the residual stream", tensor.id));
    }
    if outline.model.tied_head {
        untie(outline);
    }
    let (outline, model) = (&*outline, &outline.model);
    let gain = |id: TensorId| -> Result<Option<Arc<[f32]>>, PassError> {
        let norm = outline.find(id).map(|norm| read_vector(checkpoint, &norm.source));
        Ok(norm.transpose()?.map(Arc::from))
    };
    let stream = Arc::new(Rotation::new(model.hidden_len));
    let mut changes = Changes::default();
    let mut heads: Option<Arc<Rotation>> = None;
    for (index, layer) in model.layers.iter().enumerate() {
        let id = |role| TensorId::layer(role, index);
        let before_attention = gain(id(Role::MixerNorm))?;
        let before_ffn = match gain(id(Role::FfnNorm))? {
            // A parallel layer with one norm.
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
fn untie(outline: &mut Outline) {
    let embedding = outline.head().clone();
    outline.model.tied_head = false;
    let id = TensorId::model(Role::Head);
    let head = Planned { id, source: Binding { id, ..embedding.source }, ..embedding };
    // In the file's order.
    let tensors = &mut outline.tensors;
    let at = tensors.iter().position(|tensor| tensor.id.role == Role::HeadBias).unwrap_or(tensors.len());
    tensors.insert(at, head);
}

//! The identity of a model, which a file of activation statistics must match.

use pith_format::Provenance;

use crate::recipe::Transform;

/// The change of basis that a file went through.
pub(crate) fn recorded(provenance: &Provenance) -> Option<Transform> {
    provenance.passes.iter().find_map(|pass| Transform::of_name(&pass.name))
}

/// Identifies a model by the inputs of its matrices: the checkpoint's checksum, and the change of
/// basis if there was one.
pub(crate) fn identity(provenance: &Provenance) -> String {
    identity_of(&provenance.source.checksum, recorded(provenance))
}

/// [`identity`] of a file that is not written yet.
pub(crate) fn identity_of(checksum: &str, transform: Option<Transform>) -> String {
    match transform {
        Some(transform) => format!("{checksum}:{}", transform.name()),
        None => checksum.into(),
    }
}

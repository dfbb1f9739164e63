//! The file that will be written, before any weight is read.

use pith_format::{Encoding, Kind, ModelConfig, Role, TensorId, TensorPlan};

use crate::checkpoint::families::Binding;
use crate::recipe::Quantizer;

/// The model and its tensors, in the order of the file.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    pub(crate) model: ModelConfig,
    pub(crate) tensors: Vec<Planned>,
}

/// A tensor of the file.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) id: TensorId,
    /// Source of its weights. Its id differs where a pass added the tensor.
    pub(crate) source: Binding,
    /// `None` for a vector, and for a matrix until encodings are chosen.
    pub(crate) encoding: Option<Encoding>,
    /// The quantizer; `None`: nearest level, by the weights alone.
    pub(crate) quantizer: Option<Quantizer>,
    /// The source's codes can be repacked without loss, as long as no pass changes the weights.
    pub(crate) may_repack: bool,
}

impl Outline {
    pub(crate) fn new(model: ModelConfig, bindings: Vec<Binding>) -> Self {
        let tensors = bindings.into_iter().map(Planned::of).collect();
        Self { model, tensors }
    }

    /// The tensor `id`, where the file has it.
    pub(crate) fn find(&self, id: TensorId) -> Option<&Planned> {
        self.tensors.iter().find(|tensor| tensor.id == id)
    }

    /// The matrix that gives logits.
    pub(crate) fn head(&self) -> &Planned {
        let role = if self.model.tied_head { Role::TokenEmbedding } else { Role::Head };
        self.find(TensorId::model(role))
            .expect("every model has an embedding, and a head where it is not tied")
    }

    /// The tensors as the writer lays them out; shapes are those of the model.
    pub(crate) fn plan(&self) -> impl Iterator<Item = TensorPlan> {
        self.tensors.iter().map(|tensor| {
            let (rows, cols) = tensor.id.shape(&self.model).expect("every tensor is one that its layer has");
            TensorPlan { id: tensor.id, encoding: tensor.encoding, rows, cols }
        })
    }
}

impl Planned {
    fn of(source: Binding) -> Self {
        Self { id: source.id, source, encoding: None, quantizer: None, may_repack: false }
    }

    pub(crate) fn is_matrix(&self) -> bool {
        self.id.role.kind() == Kind::Matrix
    }
}

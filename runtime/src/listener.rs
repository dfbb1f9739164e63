//! Observing the inputs of matrices during a forward pass.

use pith_format::{ModelConfig, Role};
use pith_kernels::Operand;
use std::fmt;

/// A place in the forward pass where one or more matrices read activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// Input of query, key and value.
    Attention,
    /// Input of the projection of the heads' outputs.
    Output,
    /// Input of gate and up. In a parallel layer without its own norm, the same as
    /// [`Site::Attention`].
    Ffn,
    /// Input of the feed-forward block's last matrix.
    Down,
    /// Input of the head.
    Head,
}

impl Site {
    /// The sites of a layer, in the order of use.
    pub const OF_LAYER: [Site; 4] = [Site::Attention, Site::Output, Site::Ffn, Site::Down];

    /// Input site of the matrix with this role. `None` for roles that are no matrix or only looked
    /// up. A tied head is the embedding's matrix and reads at the site of [`Role::Head`].
    pub fn of(role: Role) -> Option<Site> {
        match role {
            Role::Query | Role::Key | Role::Value => Some(Site::Attention),
            Role::AttentionOutput => Some(Site::Output),
            Role::Gate | Role::Up => Some(Site::Ffn),
            Role::Down => Some(Site::Down),
            Role::Head | Role::HeadResidual => Some(Site::Head),
            _ => None,
        }
    }

    /// Name in files and reports.
    pub fn name(self) -> &'static str {
        match self {
            Site::Attention => "attention",
            Site::Output => "output",
            Site::Ffn => "ffn",
            Site::Down => "down",
            Site::Head => "head",
        }
    }

    /// Columns of the matrices that read at this site; `None` where the layer lacks that half.
    /// Panics if `layer` is out of range, or is `None` for a site inside a layer.
    pub fn cols(self, config: &ModelConfig, layer: Option<usize>) -> Option<usize> {
        let layer = || &config.layers[layer.expect("a layer's site")];
        match self {
            Site::Head => Some(config.hidden_len),
            Site::Attention => layer().attention().map(|_| config.hidden_len),
            Site::Output => layer().attention().map(|dims| dims.query_len()),
            Site::Ffn => layer().dense().map(|_| config.hidden_len),
            Site::Down => layer().dense().map(|dims| dims.len),
        }
    }

    /// Sites of a layer in the order of use, with the columns of their matrices. `None` gives the
    /// head's site. Panics if there is no such layer.
    pub fn all(config: &ModelConfig, layer: Option<usize>) -> impl Iterator<Item = (Site, usize)> {
        let sites: &[Site] = if layer.is_some() { &Site::OF_LAYER } else { &[Site::Head] };
        sites.iter().filter_map(move |&site| Some((site, site.cols(config, layer)?)))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// Receives the inputs of matrices.
pub trait Listener {
    /// Called before matrices read `inputs` at `site`. `layer`: `None` for the head. A sequence
    /// arrives in chunks, in token order.
    fn input(&mut self, layer: Option<usize>, site: Site, inputs: Inputs<'_>);
}

/// Inputs of a matrix for some tokens.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a>(Operand<'a>);

impl<'a> Inputs<'a> {
    pub(crate) fn new(operand: Operand<'a>) -> Self {
        Self(operand)
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.0.tokens()
    }

    /// Values per token.
    pub fn cols(&self) -> usize {
        self.0.cols()
    }

    /// One row per token, before any rounding for integer kernels.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a [f32]> {
        let cols = self.cols();
        self.0.floats.chunks_exact(self.0.stride()).map(move |row| &row[..cols])
    }
}

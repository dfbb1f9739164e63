//! Who hears what each matrix of a pass reads, and where.

use pith_format::{ModelConfig, Role};
use pith_kernels::Operand;
use std::fmt;

/// A place of the forward pass where matrices read activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// What query, key and value read.
    Attention,
    /// What the projection of the heads' outputs reads.
    Output,
    /// What gate and up read; in a parallel layer without a norm of its own the same as [`Site::Attention`].
    Ffn,
    /// What the feed-forward block's last matrix reads.
    Down,
    /// What the head reads.
    Head,
}

impl Site {
    /// The sites of a layer, in the order of use.
    pub const OF_LAYER: [Site; 4] = [Site::Attention, Site::Output, Site::Ffn, Site::Down];

    /// What the matrix of that role reads; `None` of what is no matrix, or is only looked up. A tied head is the
    /// embedding's matrix and reads what [`Role::Head`] reads.
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

    /// Columns of the matrices that read it; `None` where the layer lacks that half. Panics if `layer` is not below the
    /// number of layers, or is `None` of what is a layer's.
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

    /// The sites that a layer has, in the order of use, with the columns of the matrices that read each; those of no
    /// layer are the head's. Panics if there is no such layer.
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

/// Hears what matrices read.
pub trait Listener {
    /// Matrices are about to read these. `layer`: `None` for the head. A chunk of a sequence at a time, in the order
    /// of its tokens.
    fn input(&mut self, layer: Option<usize>, site: Site, inputs: Inputs<'_>);
}

/// What a matrix reads of some tokens.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a>(Operand<'a>);

impl<'a> Inputs<'a> {
    pub(crate) fn new(operand: Operand<'a>) -> Self {
        Self(operand)
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.0.tokens()
    }

    /// Values of a token.
    pub fn cols(&self) -> usize {
        self.0.cols()
    }

    /// Every token's values, before kernels that multiply integers round them.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &'a [f32]> {
        let cols = self.cols();
        self.0.floats.chunks_exact(self.0.stride()).map(move |row| &row[..cols])
    }
}

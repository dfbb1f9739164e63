//! The sets of this folder: each multiplies a matrix of int8 codes by the method that suits the
//! token count.

use super::blocks;
use super::dot::{Dot, Sdot};
use super::panel::{self, Grouped};
use super::smull::Smull;
use crate::activations::Operand;
use pith_format::Matrix;
use std::arch::is_aarch64_feature_detected;

/// A set of kernels; a value of it proves that the CPU can run them.
pub trait Set: Copy + Send + Sync + 'static {
    /// Its name.
    const NAME: &'static str;
    /// Method of summing the products of few tokens.
    type Dot: Dot;

    /// Proof that the CPU can use this method.
    fn dot(self) -> Self::Dot;

    /// See [`Kernels::mat_mul`](crate::Kernels::mat_mul). A token's results do not depend on the
    /// number of tokens, to the last bit.
    fn mat_mul<E: Grouped>(self, block: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]);
}

/// For every aarch64 core. The multiplier is the bottleneck, in 16 bits as in 8, so panels gain
/// nothing.
#[derive(Clone, Copy)]
pub struct Plain;

impl Set for Plain {
    const NAME: &'static str = "neon";
    type Dot = Smull;

    fn dot(self) -> Smull {
        Smull
    }

    fn mat_mul<E: Grouped>(self, block: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        blocks::mat_mul(block, w, x, y);
    }
}

/// For cores with `sdot`.
#[derive(Clone, Copy)]
pub struct Dotprod(Sdot);

impl Dotprod {
    /// Fewest tokens for which a panel pays, by the model of a core like the Cortex-A76.
    const PANEL_TOKENS: usize = 24;

    /// Detects the feature.
    pub fn detect() -> Option<Self> {
        Sdot::detect().map(Self)
    }
}

impl Set for Dotprod {
    const NAME: &'static str = "neon-dotprod";
    type Dot = Sdot;

    fn dot(self) -> Sdot {
        self.0
    }

    fn mat_mul<E: Grouped>(self, block: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        match x.tokens() {
            Self::PANEL_TOKENS.. if E::IS_PLAIN => panel::mat_mul::<E, _>(self.0, w, x, y),
            _ => few_tokens(self.0, block, w, x, y),
        }
    }
}

/// For cores with `smmla` too, whose width a single token cannot fill.
#[derive(Clone, Copy)]
pub struct I8mm(Sdot, Smmla);

/// The instruction `smmla`; made only by [`I8mm::detect`].
#[derive(Clone, Copy)]
pub struct Smmla(());

impl I8mm {
    /// Fewest tokens for which a panel pays. Lower than for [`Dotprod`], since its micro-kernel
    /// takes half the time.
    const PANEL_TOKENS: usize = 8;

    /// Detects both features.
    pub fn detect() -> Option<Self> {
        let smmla = is_aarch64_feature_detected!("i8mm").then_some(Smmla(()))?;
        Some(Self(Sdot::detect()?, smmla))
    }
}

impl Set for I8mm {
    const NAME: &'static str = "neon-i8mm";
    type Dot = Sdot;

    fn dot(self) -> Sdot {
        self.0
    }

    fn mat_mul<E: Grouped>(self, block: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        match x.tokens() {
            Self::PANEL_TOKENS.. if E::IS_PLAIN => panel::mat_mul::<E, _>(self.1, w, x, y),
            _ => few_tokens(self.0, block, w, x, y),
        }
    }
}

/// [`blocks::mat_mul`] compiled with the instruction that its sums use.
fn few_tokens<E: Grouped>(_proof: Sdot, block: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
    #[target_feature(enable = "dotprod")]
    fn with_dotprod<E: Grouped>(block: E, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        blocks::mat_mul(block, w, x, y);
    }
    // SAFETY: a value of `Sdot` exists only where dotprod was detected.
    unsafe { with_dotprod(block, w, x, y) }
}

//! One suite for every kernel of [`pith_kernels::available`], against `reference`.
//!
//! A new instruction set needs no line here. Inputs and outputs end where an unreadable page
//! begins, so an access beyond them always crashes. Bounds are computed from the inputs in
//! [`bound`].

mod activations;
mod attention;
mod bound;
mod guard;
mod matrices;
mod registry;
mod rng;
mod vectors;

use guard::Guarded;
use pith_kernels::{Activations, Kernels, Operand, available, reference::Reference};

/// Kernels for slow tests. Where every instruction is emulated, `reference` and `portable` are left
/// out: they are the same on every machine.
pub fn most_kernels() -> Vec<&'static dyn Kernels> {
    available().split_off(if is_emulated() { 2 } else { 0 })
}

/// Whether every instruction is emulated, as `.ci/qemu-runner` declares.
pub fn is_emulated() -> bool {
    std::env::var_os("PITH_QEMU_CPU").is_some()
}

/// Activations in which every slice ends at a guard page.
pub struct Inputs {
    shape: Activations,
    floats: Guarded<f32>,
    codes: Guarded<i8>,
    scales: Guarded<f32>,
    sums: Guarded<i32>,
    half_sums: Guarded<i32>,
}

impl Inputs {
    /// `tokens × cols` values, rounded by `reference`.
    pub fn new(tokens: usize, cols: usize, mut value: impl FnMut(usize, usize) -> f32) -> Self {
        let mut shape = Activations::new(tokens, cols);
        shape.set(&Reference, tokens, cols, |token, out| {
            for (col, out) in out.iter_mut().enumerate() {
                *out = value(token, col);
            }
        });
        let operand = shape.operand();
        let (floats, codes) = (Guarded::from_slice(operand.floats), Guarded::from_slice(operand.codes));
        let (scales, sums) = (Guarded::from_slice(operand.scales), Guarded::from_slice(operand.sums));
        let half_sums = Guarded::from_slice(operand.half_sums);
        Self { shape, floats, codes, scales, sums, half_sums }
    }

    /// The view that kernels take.
    pub fn operand(&self) -> Operand<'_> {
        let mut operand = self.shape.operand();
        (operand.floats, operand.codes) = (&self.floats, &self.codes);
        (operand.scales, operand.sums) = (&self.scales, &self.sums);
        operand.half_sums = &self.half_sums;
        operand
    }
}

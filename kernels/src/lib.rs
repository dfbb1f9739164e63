//! Matrix and vector kernels, one folder per instruction set, behind one trait.
//!
//! ```text
//! reference   f64, one line per formula, never fast: the oracle of the others' tests
//! portable    `wide`: runs everywhere; the trait's provided bodies
//! avx2        x86-64 with AVX2, FMA and F16C
//! avxvnni     x86-64 with AVX-VNNI besides
//! avx512      x86-64 with AVX-512 F/BW/VL/VNNI
//! neon        aarch64: `neon` for every core (Cortex-A53, A72), `neon-dotprod` (A76),
//!             `neon-i8mm` (A510, A710 on)
//! ```
//! [`available`] lists the kernels this CPU can run, slowest first; [`probe`] measures its
//! ceilings.

mod activations;
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 uses it yet"))]
mod attention;
// With the macro `inlined!`, which the modules of x86-64 after it use too.
#[cfg(target_arch = "x86_64")]
#[macro_use]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "x86_64")]
mod blocks;
mod ceiling;
#[cfg(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", target_feature = "neon", target_endian = "little")
))]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 uses some constants"))]
mod coded;
mod kv;
#[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
mod neon;
#[cfg(target_arch = "x86_64")]
mod panels;
mod portable;
pub mod probe;
pub mod reference;
#[cfg(any(
    target_arch = "x86_64",
    all(target_arch = "aarch64", target_feature = "neon", target_endian = "little")
))]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 uses some functions"))]
mod tiles;

pub use activations::{
    ACTIVATION_GROUP, Activations, Form, MIN_PACKED, Operand, PACKED_TOKENS, PackedGroup, Part, pack_rows,
    padded_len,
};
pub use attention::{ATTENTION_QUERIES, ATTENTION_SPAN, ATTENTION_TAIL, Attention, AttentionScratch};
pub use kv::{KV4_BYTES, KV4_GROUP, KV4_LEVELS, KvRows};

use pith_format::{ActivationFunction, Encoding, Matrix};

/// Calls of [`Kernels::mat_mul`] with fewer tokens than this give each token the bits of
/// [`Kernels::mat_vec`]. So verifying a drafted token computes exactly what decoding it would.
pub const FEW_TOKENS: usize = 12;

/// The operations of a forward pass. The provided bodies are the portable path; an instruction set
/// overrides the operations it speeds up.
///
/// All slices are dense and row-major. Panics where lengths disagree. Inputs are finite; a result
/// that overflows f32 is ±∞ or NaN, never undefined.
pub trait Kernels: Send + Sync {
    /// Name, as reports show it and [`by_name`] takes it.
    fn name(&self) -> &'static str;

    /// `y[r] = Σ_c w[r,c] · x[c]`, `w: rows × cols`, `x`: one token of `cols`, `y: rows`.
    ///
    /// `x` enters as codes for encodings of [`Operation::Integer`](pith_format::Operation), as
    /// floats for the others. Accumulates integers exactly within a group of 32 columns and in f32
    /// across groups; differs from [`reference::mat_vec`] by at most `cols · ε · Σ|w·x|`.
    fn mat_vec(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
        portable::mat_vec(w, x, y)
    }

    /// `y[t][r] = Σ_c w[r,c] · x[t,c]` for every token `t` of `x`. `y` has one slice of `rows` per
    /// token, so that bands of a larger matrix write straight to their place.
    ///
    /// As exact as [`Self::mat_vec`], except with [packed](Operand::packed) activations where
    /// [`Self::rounds_again`].
    /// For fewer than [`FEW_TOKENS`] tokens the results equal [`Self::mat_vec`]'s to the bit.
    fn mat_mul(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        portable::mat_mul(w, x, y)
    }

    /// Whether products of many tokens are faster with [packed](Operand::packed) activations.
    fn packs(&self) -> bool {
        false
    }

    /// Whether [`Self::mat_mul`] reads only the packed activations, where they exist, for this
    /// encoding.
    fn reads_packed(&self, _encoding: Encoding) -> bool {
        false
    }

    /// Whether [`Self::mat_mul`] with packed activations rounds weights again, to 8 bits with one
    /// scale per row and hundreds of columns.
    fn rounds_again(&self, _encoding: Encoding) -> bool {
        false
    }

    /// Rounds activations to int8 in groups of 32 ([`ACTIVATION_GROUP`]): `scale = max|x| / 127`,
    /// `code = round_ties_even(x · (1 / scale))`, `sum = Σ code`. A group whose scale is below the
    /// smallest normal f32 becomes zeros. Every implementation gives the same bits.
    ///
    /// Lengths: `x` and `codes` a multiple of 32; `scales` and `sums` one per group.
    fn quantize(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        portable::quantize(x, codes, scales, sums)
    }

    /// `out[i] = x[i] / √(mean(x²) + ε) · weight[i]`.
    fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        portable::rms_norm(x, weight, epsilon, out)
    }

    /// `out[i] = (x[i] − mean(x)) / √(var(x) + ε) · weight[i] + bias[i]`; `None` is a bias of
    /// zeros.
    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
        portable::layer_norm(x, weight, bias, epsilon, out)
    }

    /// Rotates the first `2 · cos.len()` dimensions of every head in `x` (`heads × head_dim`):
    /// `(x[i], x[i+d]) ← (x[i]·cos[i] − x[i+d]·sin[i], x[i+d]·cos[i] + x[i]·sin[i])`,
    /// `d = cos.len()`.
    fn rope(&self, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        portable::rope(x, head_dim, cos, sin)
    }

    /// `x[i] = exp(x[i] − max x) / Σ exp(x − max x)`. An empty slice stays empty; −∞ becomes 0.
    fn softmax(&self, x: &mut [f32]) {
        portable::softmax(x)
    }

    /// `x[i] = f(x[i])`.
    fn activate(&self, function: ActivationFunction, x: &mut [f32]) {
        portable::activate(function, x)
    }

    /// `gate[i] = f(gate[i]) · up[i]`.
    fn activate_gated(&self, function: ActivationFunction, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        self.activate(function, gate);
        for (gate, up) in gate.iter_mut().zip(up) {
            *gate *= up;
        }
    }

    /// `out[q,p] = scale · Σ_d queries[q,d] · keys[p,d]` for all query heads that share a key head;
    /// reads the keys once.
    ///
    /// `queries: n × head_dim`, `out: n × positions`.
    fn scores(&self, queries: &[f32], keys: KvRows<'_>, scale: f32, out: &mut [f32]) {
        portable::scores(queries, keys, scale, out)
    }

    /// `out[q,d] = Σ_p weights[q,p] · values[p,d]`; `weights: n × positions`, `out: n × head_dim`.
    fn mix(&self, weights: &[f32], values: KvRows<'_>, out: &mut [f32]) {
        portable::mix(weights, values, out)
    }

    /// Adds the attention of `task`'s queries over its run of positions (at most
    /// [`ATTENTION_SPAN`]) to `records`: one record of `head_dim + `[`ATTENTION_TAIL`] floats per
    /// query, token by token:
    ///
    /// ```text
    /// Σ_p 2^(e_p − m) · values[p] ‖ m ‖ Σ_p 2^(e_p − m),    e_p = log₂ e · score_p,    m = max_p e_p
    /// ```
    ///
    /// A record of zeros stands for no positions. The first part divided by the last is the
    /// attention. A query's record does not depend on the other queries of the call; only
    /// [`Attention::few`] may change its last bits.
    fn attention(&self, task: &Attention<'_>, scratch: &mut AttentionScratch, records: &mut [f32]) {
        portable::attention(self, task, scratch, records)
    }

    /// Adds the records in `parts` to those in `total`, as if one call of [`Self::attention`] had
    /// followed another.
    fn merge_attention(&self, head_dim: usize, parts: &[f32], total: &mut [f32]) {
        attention::merge(head_dim, parts, total, portable::blend)
    }
}

/// Kernels that this CPU can run, slowest first: the last is the one to use.
pub fn available() -> Vec<&'static dyn Kernels> {
    let list: Vec<&'static dyn Kernels> = vec![&reference::Reference, &portable::Portable];
    #[cfg(target_arch = "x86_64")]
    let list = {
        let avx2 = avx2::Avx2::detect().map(|kernels| kernels as &dyn Kernels);
        let avx_vnni = avxvnni::AvxVnni::detect().map(|kernels| kernels as &dyn Kernels);
        let avx512 = avx512::Avx512::detect().map(|kernels| kernels as &dyn Kernels);
        list.into_iter().chain(avx2).chain(avx_vnni).chain(avx512).collect::<Vec<_>>()
    };
    #[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
    let list = [list, neon::available()].concat();
    list
}

/// The fastest kernels that this CPU can run.
pub fn best() -> &'static dyn Kernels {
    available().pop().expect("portable is always there")
}

/// The kernels of this name, if this CPU can run them.
pub fn by_name(name: &str) -> Option<&'static dyn Kernels> {
    available().into_iter().find(|kernels| kernels.name() == name)
}

//! Matrix and vector kernels, one folder an instruction set, behind one trait.
//!
//! ```text
//! reference   f64, one line a formula, never fast: what the others are tested against
//! portable    `wide`: runs everywhere; the trait's provided bodies
//! avx2        x86-64 with AVX2, FMA and F16C
//! avxvnni     x86-64 with AVX-VNNI besides
//! avx512      x86-64 with AVX-512 F/BW/VL/VNNI
//! neon        aarch64: `neon` for every core (Cortex-A53, A72), `neon-dotprod` (A76), `neon-i8mm` (A510, A710 on)
//! ```
//! [`available`] lists what this CPU can run, slowest first; [`probe`] says what it could give at most.

mod activations;
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 has tiles yet"))]
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod coded;
mod kv;
#[cfg(all(target_arch = "aarch64", target_feature = "neon", target_endian = "little"))]
mod neon;
#[cfg(target_arch = "x86_64")]
mod panels;
mod portable;
pub mod probe;
pub mod reference;

pub use activations::{
    ACTIVATION_GROUP, Activations, Form, MIN_PACKED, Operand, PACKED_TOKENS, PackedGroup, Part, pack_rows,
    padded_len,
};
pub use attention::{ATTENTION_QUERIES, ATTENTION_SPAN, ATTENTION_TAIL, Attention, AttentionScratch};
pub use kv::{KV4_BYTES, KV4_GROUP, KV4_LEVELS, KvRows};

use pith_format::{ActivationFunction, Encoding, Matrix};

/// Fewer tokens than this in one [`Kernels::mat_mul`] get the bits that [`Kernels::mat_vec`] gives for each of them:
/// what is computed for tokens that were guessed is what will be computed for them.
pub const FEW_TOKENS: usize = 12;

/// The operations of a forward pass. The provided bodies are the portable path; an instruction set overrides what
/// it speeds up.
///
/// All slices are dense and row-major. Lengths that disagree panic. Inputs are finite; a result that overflows f32
/// is ±∞ or NaN, never undefined.
pub trait Kernels: Send + Sync {
    /// Name for reports and for forcing it.
    fn name(&self) -> &'static str;

    /// `y[r] = Σ_c w[r,c] · x[c]`, `w: rows × cols`, `x`: one token of `cols`, `y: rows`.
    ///
    /// Encodings of [`Operation::Integer`](pith_format::Operation) multiply with the codes of `x`, the others with
    /// its floats. Accumulates integers exactly within a group of 32 columns and in f32 across groups; differs from
    /// [`reference::mat_vec`] by at most `cols · ε · Σ|w·x|`.
    fn mat_vec(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
        portable::mat_vec(w, x, y)
    }

    /// `y[t][r] = Σ_c w[r,c] · x[t,c]` for every token `t` of `x`; one slice of `rows` a token, so that bands of a
    /// larger matrix write to where their results belong. As exact as [`Self::mat_vec`], but for
    /// [packed](Operand::packed) activations: there weights may be rounded again, to 8 bits with one scale for a row and
    /// hundreds of columns. The same to the bit for fewer than [`FEW_TOKENS`] tokens.
    fn mat_mul(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
        portable::mat_mul(w, x, y)
    }

    /// Whether products of many tokens are faster with [packed](Operand::packed) activations.
    fn packs(&self) -> bool {
        false
    }

    /// Whether [`Self::mat_mul`] reads packed activations alone, where there are any, with a matrix of this encoding.
    fn reads_packed(&self, _encoding: Encoding) -> bool {
        false
    }

    /// Rounds activations to int8 in groups of 32 ([`ACTIVATION_GROUP`]): `scale = max|x| / 127`,
    /// `code = round_ties_even(x · (1 / scale))`, `sum = Σ code`; a group whose scale is below the smallest normal
    /// f32 becomes zeros. Every implementation gives the same bits.
    ///
    /// `x` and `codes`: a multiple of 32; `scales` and `sums`: one for every group.
    fn quantize(&self, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]) {
        portable::quantize(x, codes, scales, sums)
    }

    /// `out[i] = x[i] / √(mean(x²) + ε) · weight[i]`.
    fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        portable::rms_norm(x, weight, epsilon, out)
    }

    /// `out[i] = (x[i] − mean(x)) / √(var(x) + ε) · weight[i] + bias[i]`; no bias is a bias of zeros.
    fn layer_norm(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, epsilon: f32, out: &mut [f32]) {
        portable::layer_norm(x, weight, bias, epsilon, out)
    }

    /// Turns the first `2 · cos.len()` dimensions of every head in `x` (`heads × head_dim`):
    /// `(x[i], x[i+d]) ← (x[i]·cos[i] − x[i+d]·sin[i], x[i+d]·cos[i] + x[i]·sin[i])`, `d = cos.len()`.
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

    /// `out[q,p] = scale · Σ_d queries[q,d] · keys[p,d]`: all query heads that share a key head, one read of the keys.
    ///
    /// `queries: n × head_dim`, `out: n × positions`.
    fn scores(&self, queries: &[f32], keys: KvRows<'_>, scale: f32, out: &mut [f32]) {
        portable::scores(queries, keys, scale, out)
    }

    /// `out[q,d] = Σ_p weights[q,p] · values[p,d]`; `weights: n × positions`, `out: n × head_dim`.
    fn mix(&self, weights: &[f32], values: KvRows<'_>, out: &mut [f32]) {
        portable::mix(weights, values, out)
    }

    /// Adds to `records` what the queries of `task` get from its run of positions: at most [`ATTENTION_SPAN`], and one
    /// record of `head_dim + `[`ATTENTION_TAIL`] floats a query, token by token:
    ///
    /// ```text
    /// Σ_p 2^(e_p − m) · values[p] ‖ m ‖ Σ_p 2^(e_p − m),    e_p = log₂ e · score_p,    m = max_p e_p
    /// ```
    ///
    /// A record of zeros is one of no positions. The first part over the last is attention. A query's record is the
    /// same whatever other queries are in the call.
    fn attention(&self, task: &Attention<'_>, scratch: &mut AttentionScratch, records: &mut [f32]) {
        portable::attention(self, task, scratch, records)
    }

    /// Adds the records in `parts` to those in `total`: as if one call of [`Self::attention`] had followed another.
    fn merge_attention(&self, head_dim: usize, parts: &[f32], total: &mut [f32]) {
        attention::merge(head_dim, parts, total, portable::blend)
    }
}

/// What this CPU can run, slowest first: the last is the one to use.
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

/// The fastest that this CPU can run.
pub fn best() -> &'static dyn Kernels {
    available().pop().expect("portable is always there")
}

/// The kernels of that name, if this CPU can run them.
pub fn by_name(name: &str) -> Option<&'static dyn Kernels> {
    available().into_iter().find(|kernels| kernels.name() == name)
}

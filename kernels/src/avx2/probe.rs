//! Ceilings: int8 multiply-adds on registers, reads of whole cache lines.

use super::Avx2;
use super::memory::load_bytes;
use crate::ceiling::{Line, MultiplyLoop};
use std::arch::x86_64::*;
use std::hint::black_box;

/// Independent chains, enough to hide the latency of a multiplication.
const CHAINS: usize = 12;
/// Prefetch distance.
const AHEAD_BYTES: usize = 4096;

/// The instruction and its loop, if this CPU has it.
pub fn multiply_loop() -> Option<MultiplyLoop> {
    Avx2::detect()?;
    if is_x86_feature_detected!("avxvnni") {
        // SAFETY: the features were found just now.
        return Some(("vpdpbusd, 256 bits", |turns| unsafe { multiply_vnni(turns) }));
    }
    // SAFETY: `detect` found the feature just now.
    Some(("vpmaddubsw", |turns| unsafe { multiply(turns) }))
}

#[target_feature(enable = "avx2,avxvnni")]
fn multiply_vnni(turns: u64) -> u64 {
    let (codes, x) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(-5)));
    let mut sums = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, codes, x);
        }
    }
    black_box(sums);
    turns * CHAINS as u64 * 32
}

/// Each product feeds the next, so that the compiler can drop none. The sums are part of a kernel's
/// cost.
#[target_feature(enable = "avx2")]
fn multiply(turns: u64) -> u64 {
    let x = black_box(_mm256_set1_epi8(-5));
    let mut products = black_box([_mm256_set1_epi8(3); CHAINS]);
    for _ in 0..turns {
        for product in &mut products {
            *product = _mm256_maddubs_epi16(*product, x);
        }
    }
    black_box(products);
    turns * CHAINS as u64 * 32
}

/// Prefetches the line [`AHEAD_BYTES`] behind this one.
#[inline]
#[target_feature(enable = "sse")]
pub fn prefetch(line: &Line) {
    let ahead = line.as_ptr().wrapping_add(AHEAD_BYTES).cast();
    _mm_prefetch::<_MM_HINT_T0>(ahead)
}

/// All lines or'ed together, folded to 8 bytes.
pub fn read<const K: usize, const AHEAD: bool>(_: Avx2, streams: [&[Line]; K]) -> u64 {
    // SAFETY: a value of `Avx2` exists only where `detect` found the feature.
    unsafe { read_lines::<K, AHEAD>(streams) }
}

#[target_feature(enable = "avx2")]
fn read_lines<const K: usize, const AHEAD: bool>(streams: [&[Line]; K]) -> u64 {
    let count = streams[0].len();
    let streams = streams.map(|stream| &stream[..count]);
    let mut bits = [_mm256_setzero_si256(); K];
    for line in 0..count {
        for (bits, stream) in bits.iter_mut().zip(streams) {
            if AHEAD {
                prefetch(&stream[line]);
            }
            for half in stream[line].as_chunks().0 {
                *bits = _mm256_or_si256(*bits, load_bytes(half));
            }
        }
    }
    let all = bits.into_iter().fold(_mm256_setzero_si256(), |all, bits| _mm256_or_si256(all, bits));
    let two = _mm_or_si128(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    let one = _mm_or_si128(two, _mm_unpackhi_epi64(two, two));
    _mm_cvtsi128_si64(one) as u64
}

//! Ceilings: int8 multiply-adds on registers, reads of whole cache lines.

use super::Avx512;
use super::memory::load_line;
use crate::avx2::probe::prefetch;
use crate::ceiling::{Line, MultiplyLoop};
use std::arch::x86_64::*;
use std::hint::black_box;

/// Independent chains, enough to hide the latency of `vpdpbusd`.
const CHAINS: usize = 16;

/// The instruction and its loop, if this CPU has it.
pub fn multiply_loop() -> Option<MultiplyLoop> {
    Avx512::detect()?;
    // SAFETY: `detect` found the features just now.
    Some(("vpdpbusd, 512 bits", |turns| unsafe { multiply(turns) }))
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn multiply(turns: u64) -> u64 {
    let (codes, x) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(-5)));
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..turns {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, codes, x);
        }
    }
    black_box(sums);
    turns * CHAINS as u64 * 64
}

/// All lines or'ed together, folded to 8 bytes.
pub fn read<const K: usize, const AHEAD: bool>(_: Avx512, streams: [&[Line]; K]) -> u64 {
    // SAFETY: a value of `Avx512` exists only where `detect` found the features.
    unsafe { read_lines::<K, AHEAD>(streams) }
}

#[target_feature(enable = "avx512f")]
fn read_lines<const K: usize, const AHEAD: bool>(streams: [&[Line]; K]) -> u64 {
    let count = streams[0].len();
    let streams = streams.map(|stream| &stream[..count]);
    let mut bits = [_mm512_setzero_si512(); K];
    for line in 0..count {
        for (bits, stream) in bits.iter_mut().zip(streams) {
            if AHEAD {
                prefetch(&stream[line]);
            }
            *bits = _mm512_or_si512(*bits, load_line(&stream[line]));
        }
    }
    let all = bits.into_iter().fold(_mm512_setzero_si512(), |all, bits| _mm512_or_si512(all, bits));
    _mm512_reduce_or_epi64(all) as u64
}

//! Ceilings: int8 multiply-adds on registers, reads of whole cache lines.

use super::dot::Sdot;
use super::lanes::*;
use crate::ceiling::{Line, MultiplyLoop};
use std::arch::asm;
use std::hint::black_box;

/// Independent chains, enough to hide the latency of a multiplication.
const CHAINS: usize = 16;
/// Prefetch distance.
const AHEAD_BYTES: usize = 4096;

/// The CPU's fastest instruction and its loop.
pub fn multiply_loop() -> MultiplyLoop {
    match Sdot::detect() {
        Some(_) => ("sdot", sdot),
        None => ("smlal and smlal2", smlal),
    }
}

/// Only for CPUs on which [`Sdot::detect`] found the instruction.
fn sdot(turns: u64) -> u64 {
    let (a, b) = (black_box(splat_i32(0x0301_0203)), black_box(splat_i32(0x0501_0205)));
    let mut sums = [splat_i32(0); CHAINS];
    for _ in 0..turns {
        for sum in &mut sums {
            // SAFETY: an instruction on registers alone; `multiply_loop` hands this function out
            // where it exists.
            unsafe {
                asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) *sum,
                    in(vreg) a, in(vreg) b, options(pure, nomem, nostack, preserves_flags));
            }
        }
    }
    black_box(sums);
    turns * CHAINS as u64 * 16
}

fn smlal(turns: u64) -> u64 {
    let codes = black_box(bytes_of(splat_i32(0x0301_0203)));
    let x = black_box(bytes_of(splat_i32(0x0501_0205)));
    let mut sums = [mul_low(codes, x); CHAINS];
    for _ in 0..turns {
        for pair in sums.as_chunks_mut::<2>().0 {
            pair[0] = mul_add_low(pair[0], codes, x);
            pair[1] = mul_add_high(pair[1], codes, x);
        }
    }
    black_box(sums);
    turns * CHAINS as u64 * 8
}

/// All lines or'ed together, folded to 8 bytes.
pub fn read<const K: usize, const AHEAD: bool>(streams: [&[Line]; K]) -> u64 {
    let count = streams[0].len();
    let streams = streams.map(|stream| &stream[..count]);
    let mut bits = [[0u64; 2]; K];
    for line in 0..count {
        for (bits, stream) in bits.iter_mut().zip(streams) {
            if AHEAD {
                prefetch(&stream[line]);
            }
            for quarter in stream[line].as_chunks::<16>().0 {
                let (low, high) = quarter.split_at(8);
                bits[0] |= u64::from_le_bytes(*low.first_chunk().expect("8 bytes"));
                bits[1] |= u64::from_le_bytes(*high.first_chunk().expect("8 bytes"));
            }
        }
    }
    bits.as_flattened().iter().fold(0, |all, bits| all | bits)
}

/// Prefetches the line [`AHEAD_BYTES`] behind this one.
#[inline(always)]
fn prefetch(line: &Line) {
    let ahead = line.as_ptr().wrapping_add(AHEAD_BYTES);
    // SAFETY: a prefetch reads nothing that the program sees, whatever the address.
    unsafe {
        asm!("prfm pldl1keep, [{0}]", in(reg) ahead, options(nostack, preserves_flags, readonly));
    }
}

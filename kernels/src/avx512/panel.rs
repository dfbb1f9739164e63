//! Panels of 32 rows with `vpdpbusd`: tiles of 32 rows × 6 tokens, whose integer and float sums take 24 registers.

use super::Avx512;
use super::memory::{broadcast, load_floats_of, load_halves, load_line, store_floats};
use crate::blocks::Groups;
use crate::panels::{Codes, Expand, Panel, Scales, Sums, expand};
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

/// Blocks of a panel.
pub const BLOCKS: usize = 2;

impl Panel<BLOCKS> for Avx512 {
    const TOKENS: usize = 6;

    fn expand<E: Expand>(
        &self,
        tiles: &[u8],
        block: usize,
        codes: &mut Codes<BLOCKS>,
        scales: &mut Scales<BLOCKS>,
    ) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { expand_tiles::<E>(tiles, block, codes, scales) }
    }

    fn add<const T: usize>(
        &self,
        codes: &Codes<BLOCKS>,
        scales: &Scales<BLOCKS>,
        offset: i32,
        x: [Groups<'_>; T],
        sums: &mut Sums<BLOCKS, T>,
    ) {
        // SAFETY: a value of `Avx512` exists only where `detect` found the features.
        unsafe { add(codes, scales, offset, x, sums) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn expand_tiles<E: Expand>(
    tiles: &[u8],
    block: usize,
    codes: &mut Codes<BLOCKS>,
    scales: &mut Scales<BLOCKS>,
) {
    expand::<BLOCKS, E>(tiles, block, codes, scales, |halves| {
        let mut out = [0.0; TILE_ROWS];
        store_floats(load_halves(halves), &mut out);
        out
    });
}

/// A sum of a group starts at what the offset of its codes adds too much, so it is exact in i32.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add<const T: usize>(
    codes: &Codes<BLOCKS>,
    scales: &Scales<BLOCKS>,
    offset: i32,
    x: [Groups<'_>; T],
    sums: &mut Sums<BLOCKS, T>,
) {
    let count = x[0].scales.len();
    let (codes, scales) = (&codes[..count], &scales[..count]);
    assert!(x.iter().all(|x| (x.codes.len(), x.scales.len(), x.sums.len()) == (count, count, count)));
    let offset_bits = _mm_cvtsi32_si128(offset.trailing_zeros() as i32);
    let mut floats = [[_mm512_setzero_ps(); BLOCKS]; T];
    for (floats, sums) in floats.iter_mut().zip(sums.iter()) {
        for (floats, sums) in floats.iter_mut().zip(sums) {
            *floats = load_floats_of(sums);
        }
    }
    for group in 0..count {
        let mut whole = [[_mm512_setzero_si512(); BLOCKS]; T];
        for (whole, x) in whole.iter_mut().zip(&x) {
            // SAFETY: `group < count`, the length of `sums`.
            let sum = _mm512_set1_epi32(*unsafe { x.sums.get_unchecked(group) });
            *whole = [_mm512_sub_epi32(_mm512_setzero_si512(), _mm512_sll_epi32(sum, offset_bits)); BLOCKS];
        }
        for (four, lines) in codes[group].iter().enumerate() {
            let lines = [load_line(&lines[0]), load_line(&lines[1])];
            for (whole, x) in whole.iter_mut().zip(&x) {
                // SAFETY: `group < count`, the length of `codes`.
                let x = unsafe { x.codes.get_unchecked(group) };
                let x = broadcast(&x.as_chunks().0[four]);
                for (whole, line) in whole.iter_mut().zip(lines) {
                    *whole = _mm512_dpbusd_epi32(*whole, line, x);
                }
            }
        }
        for ((floats, whole), x) in floats.iter_mut().zip(whole).zip(&x) {
            // SAFETY: `group < count`, the length of `scales`.
            let x = _mm512_set1_ps(*unsafe { x.scales.get_unchecked(group) });
            for ((floats, whole), scales) in floats.iter_mut().zip(whole).zip(&scales[group]) {
                let scale = _mm512_mul_ps(load_floats_of(scales), x);
                *floats = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, *floats);
            }
        }
    }
    for (floats, sums) in floats.into_iter().zip(sums) {
        for (floats, sums) in floats.into_iter().zip(sums) {
            store_floats(floats, sums);
        }
    }
}

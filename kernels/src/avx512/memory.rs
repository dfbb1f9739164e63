//! Loads and stores of whole registers, and prefetches of rows. Argument types fix the length
//! accessed, which makes them safe.

use crate::KvRows;
use crate::avx2::fetch;
use crate::blocks::Sums;
use half::f16;
use pith_format::TILE_ROWS;
use std::arch::x86_64::*;

inlined! {
    /// A line of codes: 16 rows × 4 columns.
    pub fn load_line(line: &[u8; 64]) -> __m512i {
        // SAFETY: the reference covers the 64 bytes read; no alignment is asked for.
        unsafe { _mm512_loadu_si512(line.as_ptr().cast()) }
    }
}

inlined! {
    pub fn store_line(from: __m512i, to: &mut [u8; 64]) {
        // SAFETY: `to` covers the 64 bytes written; no alignment is asked for.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), from) }
    }
}

inlined! {
    /// 16 little-endian f32, one per row.
    pub fn load_floats(line: &[u8; 64]) -> __m512 {
        // SAFETY: the reference covers the 64 bytes read; no alignment is asked for.
        unsafe { _mm512_loadu_ps(line.as_ptr().cast()) }
    }
}

inlined! {
    /// 16 little-endian f16, one per row, widened.
    pub fn load_halves(halves: &[u8; 32]) -> __m512 {
        // SAFETY: the reference covers the 32 bytes read; no alignment is asked for.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
    }
}

inlined! {
    /// 16 f32, one per row.
    pub fn load_floats_of(rows: &[f32; TILE_ROWS]) -> __m512 {
        // SAFETY: the reference covers the 64 bytes read; no alignment is asked for.
        unsafe { _mm512_loadu_ps(rows.as_ptr()) }
    }
}

inlined! {
    pub fn store_floats(from: __m512, to: &mut [f32; TILE_ROWS]) {
        // SAFETY: `to` covers the 64 bytes written; no alignment is asked for.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), from) }
    }
}

inlined! {
    /// 16 i32, one per row.
    pub fn load_integers(rows: &[i32; TILE_ROWS]) -> __m512i {
        // SAFETY: the reference covers the 64 bytes read; no alignment is asked for.
        unsafe { _mm512_loadu_si512(rows.as_ptr().cast()) }
    }
}

inlined! {
    pub fn store_integers(from: __m512i, to: &mut [i32; TILE_ROWS]) {
        // SAFETY: `to` covers the 64 bytes written; no alignment is asked for.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), from) }
    }
}

inlined! {
    /// Four codes, repeated for every row.
    pub fn broadcast(codes: &[i8; 4]) -> __m512i {
        // SAFETY: the reference covers the 4 bytes read; no alignment is asked for.
        _mm512_set1_epi32(unsafe { codes.as_ptr().cast::<i32>().read_unaligned() })
    }
}

inlined! {
    /// 16 signed bytes, one per row, as 32-bit integers.
    pub fn load_signed_rows(bytes: &[u8; TILE_ROWS]) -> __m512i {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        _mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    }
}

inlined! {
    /// 16 bytes, one per row, as 32-bit integers.
    pub fn load_rows(bytes: &[u8; TILE_ROWS]) -> __m512i {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    }
}

inlined! {
    /// 16 little-endian words, one per row, as 32-bit integers.
    pub fn load_words(words: &[u8; 32]) -> __m512i {
        // SAFETY: the reference covers the 32 bytes read; no alignment is asked for.
        _mm512_cvtepu16_epi32(unsafe { _mm256_loadu_si256(words.as_ptr().cast()) })
    }
}

inlined! {
    /// A table for `vpshufb`, in every lane of 128 bits.
    pub fn broadcast_table(table: &[u8; 16]) -> __m512i {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
    }
}

inlined! {
    /// Register sums as floats.
    pub fn store_all<const N: usize>(sums: [__m512; N]) -> Sums<N> {
        let mut out = [[0.0; TILE_ROWS]; N];
        for (sums, out) in sums.into_iter().zip(&mut out) {
            store_floats(sums, out);
        }
        out
    }
}

inlined! {
    pub fn load(floats: &[f32; 16]) -> __m512 {
        // SAFETY: the reference covers the 64 bytes read; no alignment is asked for.
        unsafe { _mm512_loadu_ps(floats.as_ptr()) }
    }
}

inlined! {
    pub fn load_f16(halves: &[f16; 16]) -> __m512 {
        // SAFETY: the reference covers the 32 bytes read; no alignment is asked for.
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.as_ptr().cast()) })
    }
}

inlined! {
    /// 16 signed bytes, as floats.
    pub fn load_codes(codes: &[i8; 16]) -> __m512 {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(codes.as_ptr().cast()) }))
    }
}

inlined! {
    pub fn store(from: __m512, to: &mut [f32; 16]) {
        // SAFETY: the reference covers the 64 bytes written; no alignment is asked for.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), from) }
    }
}

/// Prefetches up to four rows from `first` on.
#[inline]
pub fn fetch_rows(rows: KvRows<'_>, first: usize) {
    let end = rows.positions();
    fetch(rows.slice(first.min(end)..(first + 4).min(end)));
}

//! Loads and stores of whole registers. Argument types fix the length accessed, which makes them
//! safe.

use crate::KvRows;
use half::f16;
use std::arch::asm;
use std::arch::x86_64::*;

/// Prefetches `bytes` into the L2 cache.
pub fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        // SAFETY: a hint, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast()) }
    }
}

/// Distance of prefetches into the L1 cache, in bytes.
const NEAR: usize = 2048;

/// The same within large tiles, beyond the tile.
const NEAR_TILE: usize = 1024;

/// Distance of prefetches into the L2 cache, in bytes. It reaches the next page of 4 KiB, which
/// hardware prefetchers do not enter by themselves. Further ahead it costs more than it gains.
const FAR: usize = 4096;

/// Prefetches what lies behind `tile`: near into the L1 cache, far into the L2 cache.
///
/// The distances are those of a sweep on Zen 4, with two threads that read 400 MB in large pages.
/// A near distance of 4 KiB alone, which leaves the hardware prefetcher nothing to see, gave 0.83
/// times the bytes per second of a plain read with q4, 0.6 with q6; these give 0.95 to 1.1 with
/// nearly every encoding. Decision 22 has the figures.
#[inline(always)]
pub fn prefetch_ahead(tile: &[u8]) {
    prefetch_to::<_MM_HINT_T0>(tile, NEAR);
    prefetch_to::<_MM_HINT_T1>(tile, FAR);
}

/// [`prefetch_ahead`] for one part of a large tile: a core has only so many lines in flight. It
/// looks a tile further, because the scales at the end of a tile are needed at its beginning.
#[inline(always)]
pub fn prefetch_part(part: &[u8], tile: &[u8]) {
    prefetch_to::<_MM_HINT_T0>(part, NEAR_TILE + tile.len());
    prefetch_to::<_MM_HINT_T1>(part, FAR + tile.len());
}

/// Prefetches as many bytes as `tile` has, `distance` bytes behind its beginning.
#[inline(always)]
pub fn prefetch_behind(tile: &[u8], distance: usize) {
    prefetch_to::<_MM_HINT_T0>(tile, distance);
}

#[inline(always)]
fn prefetch_to<const CACHE: i32>(tile: &[u8], distance: usize) {
    for line in tile.chunks(64) {
        // SAFETY: a hint, which reads nothing; an address behind the matrix does no harm.
        unsafe { _mm_prefetch::<CACHE>(line.as_ptr().wrapping_add(distance).cast()) }
    }
}

inlined! {
    /// Codes of 8 rows × 4 columns.
    pub fn load_bytes(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: the reference covers the 32 bytes read; no alignment is asked for.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }
}

inlined! {
    /// 8 little-endian f32.
    pub fn load_float_bytes(bytes: &[u8; 32]) -> __m256 {
        // SAFETY: the reference covers the 32 bytes read; no alignment is asked for.
        unsafe { _mm256_loadu_ps(bytes.as_ptr().cast()) }
    }
}

inlined! {
    /// 8 little-endian f16, widened.
    pub fn load_half_bytes(bytes: &[u8; 16]) -> __m256 {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
    }
}

inlined! {
    pub fn load_floats(floats: &[f32; 8]) -> __m256 {
        // SAFETY: the reference covers the 32 bytes read; no alignment is asked for.
        unsafe { _mm256_loadu_ps(floats.as_ptr()) }
    }
}

inlined! {
    pub fn load_halves(halves: &[f16; 8]) -> __m256 {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves.as_ptr().cast()) })
    }
}

inlined! {
    /// 8 signed bytes, as floats.
    pub fn load_codes(codes: &[i8; 8]) -> __m256 {
        // SAFETY: the reference covers the 8 bytes read; no alignment is asked for.
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(codes.as_ptr().cast()) }))
    }
}

inlined! {
    /// 16 levels, one byte each.
    pub fn load_levels(levels: &[i8; 16]) -> __m128i {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        unsafe { _mm_loadu_si128(levels.as_ptr().cast()) }
    }
}

inlined! {
    /// 32 codes of 4 bits.
    pub fn load_kv4(codes: &[u8; 16]) -> __m128i {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        unsafe { _mm_loadu_si128(codes.as_ptr().cast()) }
    }
}

inlined! {
    /// One f16, widened.
    pub fn widen_half(half: f16) -> f32 {
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half.to_bits()))))
    }
}

inlined! {
    /// Four codes, repeated for every row.
    pub fn broadcast(codes: &[i8; 4]) -> __m256i {
        // SAFETY: the reference covers the 4 bytes read; no alignment is asked for.
        _mm256_set1_epi32(unsafe { codes.as_ptr().cast::<i32>().read_unaligned() })
    }
}

inlined! {
    pub fn store_floats(from: __m256, to: &mut [f32; 8]) {
        // SAFETY: the reference covers the 32 bytes written; no alignment is asked for.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), from) }
    }
}

inlined! {
    pub fn store_codes(from: __m256i, to: &mut [i8; 32]) {
        // SAFETY: the reference covers the 32 bytes written; no alignment is asked for.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), from) }
    }
}

inlined! {
    pub fn store_bytes(from: __m256i, to: &mut [u8; 32]) {
        // SAFETY: the reference covers the 32 bytes written; no alignment is asked for.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), from) }
    }
}

inlined! {
    /// 8 i32, one per row.
    pub fn load_integers(rows: &[i32; 8]) -> __m256i {
        // SAFETY: the reference covers the 32 bytes read; no alignment is asked for.
        unsafe { _mm256_loadu_si256(rows.as_ptr().cast()) }
    }
}

inlined! {
    /// 8 signed bytes, one per row, as 32-bit integers.
    pub fn load_signed_rows(bytes: &[u8; 8]) -> __m256i {
        // SAFETY: the reference covers the 8 bytes read; no alignment is asked for.
        _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
    }
}

inlined! {
    /// 8 bytes, one per row, as 32-bit integers.
    pub fn load_rows(bytes: &[u8; 8]) -> __m256i {
        // SAFETY: the reference covers the 8 bytes read; no alignment is asked for.
        _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
    }
}

inlined! {
    /// 8 little-endian words, one per row, as 32-bit integers.
    pub fn load_words(words: &[u8; 16]) -> __m256i {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        _mm256_cvtepu16_epi32(unsafe { _mm_loadu_si128(words.as_ptr().cast()) })
    }
}

inlined! {
    /// A table for `vpshufb`, in both lanes of 128 bits.
    pub fn broadcast_table(table: &[u8; 16]) -> __m256i {
        // SAFETY: the reference covers the 16 bytes read; no alignment is asked for.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
    }
}

inlined! {
    pub fn store_integers(from: __m256i, to: &mut [i32; 8]) {
        // SAFETY: the reference covers the 32 bytes written; no alignment is asked for.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), from) }
    }
}

/// `sum` unchanged, through empty inline assembly. Otherwise the compiler reorders 16-bit additions
/// until the sums of all tokens no longer fit the registers.
#[inline]
#[target_feature(enable = "avx2")]
pub fn in_turn(mut sum: __m256i) -> __m256i {
    // SAFETY: nothing is done.
    unsafe { asm!("/* {} */", inout(ymm_reg) sum, options(nomem, nostack, preserves_flags)) }
    sum
}

/// Halves of a line or of 16 numbers: 8 rows each.
#[inline(always)]
pub fn halves<T, const N: usize, const HALF: usize>(whole: &[T; N]) -> &[[T; HALF]; 2] {
    whole.as_chunks().0.first_chunk().expect("twice a half")
}

/// [`halves`] to write to.
#[inline(always)]
pub fn halves_mut<T, const N: usize, const HALF: usize>(whole: &mut [T; N]) -> &mut [[T; HALF]; 2] {
    whole.as_chunks_mut().0.first_chunk_mut().expect("twice a half")
}

/// Up to 7 values, then `fill`.
#[inline]
pub fn padded<T: Copy>(rest: &[T], fill: T) -> [T; 8] {
    let mut out = [fill; 8];
    out[..rest.len()].copy_from_slice(rest);
    out
}

inlined! {
    pub fn sum_lanes(x: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

inlined! {
    pub fn max_lanes(x: __m256) -> f32 {
        let four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    }
}

/// Prefetches rows into the L2 cache.
pub fn fetch(rows: KvRows<'_>) {
    match rows {
        KvRows::F32 { rows, .. } => fetch_slice(rows),
        KvRows::F16 { rows, .. } => fetch_slice(rows),
        KvRows::Q8 { codes, .. } => fetch_slice(codes),
        KvRows::Q4 { codes, scales, .. } => {
            fetch_slice(codes);
            fetch_slice(scales);
        }
    }
}

fn fetch_slice<T>(values: &[T]) {
    for line in values.iter().step_by(64 / size_of::<T>()) {
        // SAFETY: a prefetch is a hint: whatever the address, it neither faults nor changes
        // anything; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(line).cast()) }
    }
}

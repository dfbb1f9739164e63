//! Pith's block decoders against ggml's own `dequantize_row_*`, bit for bit, on golden and random
//! blocks.
//!
//! Behind the feature `ggml-oracle`. The crate `ggml-sys` is unsuitable: its ggml predates GGUF,
//! has other layouts (f32 scales, interleaved nibbles) and no K-quants.
#![cfg(all(feature = "ggml-oracle", target_arch = "x86_64"))]

use std::path::PathBuf;

use ggml_sys_bleedingedge as ggml;
use pith_converter::checkpoint::SourceType;

/// The identifiers known to this ggml, which predates BF16.
const TYPES: [(SourceType, ggml::ggml_type); 13] = [
    (SourceType::F16, ggml::ggml_type_GGML_TYPE_F16),
    (SourceType::Q4_0, ggml::ggml_type_GGML_TYPE_Q4_0),
    (SourceType::Q4_1, ggml::ggml_type_GGML_TYPE_Q4_1),
    (SourceType::Q5_0, ggml::ggml_type_GGML_TYPE_Q5_0),
    (SourceType::Q5_1, ggml::ggml_type_GGML_TYPE_Q5_1),
    (SourceType::Q8_0, ggml::ggml_type_GGML_TYPE_Q8_0),
    (SourceType::Iq4Nl, ggml::ggml_type_GGML_TYPE_IQ4_NL),
    (SourceType::Q2K, ggml::ggml_type_GGML_TYPE_Q2_K),
    (SourceType::Q3K, ggml::ggml_type_GGML_TYPE_Q3_K),
    (SourceType::Q4K, ggml::ggml_type_GGML_TYPE_Q4_K),
    (SourceType::Q5K, ggml::ggml_type_GGML_TYPE_Q5_K),
    (SourceType::Q6K, ggml::ggml_type_GGML_TYPE_Q6_K),
    (SourceType::Iq4Xs, ggml::ggml_type_GGML_TYPE_IQ4_XS),
];

/// ggml's values for whole blocks.
fn ggml_decode(dtype: SourceType, id: ggml::ggml_type, stored: &[u8]) -> Vec<f32> {
    let values = stored.len() / dtype.block_bytes() * dtype.block_len();
    assert_eq!(stored.len() % dtype.block_bytes(), 0);
    // ggml's blocks hold 16-bit fields, so the copy is aligned for them.
    let mut aligned = vec![0u64; stored.len().div_ceil(8)];
    for (word, bytes) in aligned.iter_mut().zip(stored.chunks(8)) {
        let mut padded = [0; 8];
        padded[..bytes.len()].copy_from_slice(bytes);
        *word = u64::from_ne_bytes(padded);
    }
    let mut out = vec![f32::NAN; values];
    // SAFETY: `id` is one of ggml's own constants, below its GGML_TYPE_COUNT, the only requirement.
    let traits = unsafe { ggml::ggml_internal_get_type_traits(id) };
    assert_eq!(
        (traits.blck_size as usize, traits.type_size),
        (dtype.block_len(), dtype.block_bytes()),
        "{dtype}"
    );
    let decode = traits.to_float.unwrap_or_else(|| panic!("ggml cannot decode {dtype}"));
    // SAFETY: `aligned` holds `values / blck_size` whole blocks of ggml's own size, `out` exactly
    // `values` floats, a whole number of blocks; both outlive the call and do not overlap.
    unsafe { decode(aligned.as_ptr().cast(), out.as_mut_ptr(), values as i64) };
    out
}

/// ggml fills its table of f16 values when a context is created.
fn initialise_ggml() {
    let params =
        ggml::ggml_init_params { mem_size: 1 << 16, mem_buffer: std::ptr::null_mut(), no_alloc: true };
    // SAFETY: a null buffer tells ggml to allocate `mem_size` bytes itself.
    let context = unsafe { ggml::ggml_init(params) };
    assert!(!context.is_null());
    // SAFETY: `context` came from `ggml_init`, is not null and is not used again.
    unsafe { ggml::ggml_free(context) };
}

fn assert_same(dtype: SourceType, id: ggml::ggml_type, stored: &[u8]) -> usize {
    let expected = ggml_decode(dtype, id, stored);
    let mut found = vec![f32::NAN; expected.len()];
    dtype.decode(stored, &mut found).expect("all types of the table are loadable");
    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
        // The bits of a NaN depend on the processor.
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{dtype}, value {i}: {found:e} is not ggml's {expected:e}");
    }
    found.len()
}

#[test]
fn golden_blocks_decode_as_ggml_decodes_them() {
    initialise_ggml();
    for (dtype, id) in TYPES {
        let name = format!("golden/blocks/{}.bin", dtype.name().to_lowercase());
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let stored_bytes = u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        assert!(assert_same(dtype, id, &bytes[8..8 + stored_bytes]) > 0);
    }
}

#[test]
fn random_blocks_decode_as_ggml_decodes_them() {
    initialise_ggml();
    let mut state = 2u64;
    for (dtype, id) in TYPES {
        let stored: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(dtype.block_bytes() * 4_096)
        .collect();
        assert_eq!(assert_same(dtype, id, &stored), dtype.block_len() * 4_096);
    }
}

#[test]
fn every_f16_decodes_as_ggml_decodes_it() {
    initialise_ggml();
    let stored: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    assert_eq!(assert_same(SourceType::F16, ggml::ggml_type_GGML_TYPE_F16, &stored), 1 << 16);
}

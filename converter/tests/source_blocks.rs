//! Every decoder against the values that the `gguf` package gives, bit for bit (`tests/golden/blocks/make.py`).

use std::path::PathBuf;

use pith_converter::checkpoint::SourceType;

/// Stored bytes and expected values of a golden file.
fn golden(dtype: SourceType) -> (Vec<u8>, Vec<f32>) {
    let name = format!("../tests/golden/blocks/{}.bin", dtype.name().to_lowercase());
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (stored, values) = bytes[8..].split_at(word(0) as usize);
    let values: Vec<f32> = values.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    assert_eq!(values.len(), word(4) as usize);
    (stored.to_vec(), values)
}

/// The types that files hold; the matrices of quantized checkpoints are put together in `source_packed.rs`.
fn stored_types() -> impl Iterator<Item = SourceType> {
    SourceType::ALL.iter().copied().filter(|dtype| dtype.is_loadable() && *dtype != SourceType::Packed)
}

#[test]
fn every_loadable_type_decodes_to_the_golden_bits() {
    for dtype in stored_types() {
        let (stored, expected) = golden(dtype);
        let mut found = vec![f32::NAN; expected.len()];
        dtype.decode(&stored, &mut found).unwrap();
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{dtype}, value {i}: {found} is not {expected}");
        }
    }
}

#[test]
fn a_block_decodes_alone_as_among_others() {
    for dtype in stored_types() {
        let (stored, expected) = golden(dtype);
        let blocks = stored.chunks(dtype.block_bytes()).zip(expected.chunks(dtype.block_len()));
        for (block, expected) in blocks {
            let mut found = vec![f32::NAN; dtype.block_len()];
            dtype.decode(block, &mut found).unwrap();
            assert!(found.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{dtype}");
        }
    }
}

#[test]
fn no_block_decodes_to_no_value() {
    for &dtype in SourceType::ALL {
        assert_eq!(dtype.decode(&[], &mut []).is_some(), dtype.is_loadable(), "{dtype}");
    }
}

#[test]
#[should_panic(expected = "bytes are not whole blocks")]
fn a_part_of_a_block_is_refused() {
    SourceType::Q8_0.decode(&[0; 33], &mut [0.0; 32]);
}

#[test]
#[should_panic(expected = "output length")]
fn an_output_of_another_length_is_refused() {
    SourceType::Q8_0.decode(&[0; 34], &mut [0.0; 31]);
}

//! Files with blocks of different sizes, and the places of tensors.

use super::*;
use crate::config::tests::tiny;
use crate::index::Index;
use crate::provenance::Provenance;
use crate::role::Role;
use crate::{Matrix, checksum};

const ROWS: usize = 40;
const COLS: usize = 8;

fn metadata() -> Metadata {
    let mut model = tiny();
    model.vocab_len = ROWS;
    Metadata { model, chat_template: None, sampling: None, provenance: Provenance::default() }
}

fn embedding() -> TensorId {
    TensorId::model(Role::TokenEmbedding)
}

/// Block `n` lacks columns `0..n`.
fn weights() -> Vec<f32> {
    let at = |index: usize| {
        let (row, col) = (index / COLS, index % COLS);
        if col < 3 * (row / 16) { 0.0 } else { index as f32 + 1.0 }
    };
    (0..ROWS * COLS).map(at).collect()
}

/// An indexed matrix between a vector and another indexed one.
fn file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.pith");
    let matrix = |id, rows| TensorPlan { id, encoding: Some(Encoding::Columns), rows, cols: COLS };
    let norm = TensorId::layer(Role::MixerNorm, 0);
    let plan = [
        matrix(embedding(), ROWS),
        TensorPlan { id: norm, encoding: None, rows: COLS, cols: 1 },
        matrix(TensorId::layer(Role::Up, 0), 12),
    ];
    let mut writer = Writer::create(&path, &plan).unwrap();
    assert!(writer.write(embedding(), &[0; 64]).unwrap_err().to_string().contains("block by block"));
    for block in weights().chunks(16 * COLS) {
        writer.write_block(embedding(), &Encoding::Columns.encode_block(block, COLS)).unwrap();
    }
    assert!(writer.write_block(norm, &[0; 32]).unwrap_err().to_string().contains("bytes of"));
    writer.write(norm, &[0; 4 * COLS]).unwrap();
    let block = Encoding::Columns.encode_block(&weights()[..12 * COLS], COLS);
    writer.write_block(TensorId::layer(Role::Up, 0), &block).unwrap();
    writer.finish(&metadata()).unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn blocks_of_different_sizes_come_back() {
    let file = file();
    let index = Index::parse(&file).unwrap();
    index.verify(&file, |_| ()).unwrap();
    let matrix = index.matrix(&file, embedding()).unwrap();
    let sizes: Vec<_> = (0..3).map(|block| matrix.block(block).len()).collect();
    // A byte of bits and 64 bytes per column, padded to whole lines.
    assert_eq!(sizes, [9 * 64, 6 * 64, 3 * 64]);
    let mut row = [0.0; COLS];
    for (expected, index) in weights().chunks(COLS).zip(0..) {
        matrix.decode_row(index, &mut row);
        assert_eq!(row, expected, "row {index}");
    }
    let band = matrix.band(1..3);
    assert_eq!((band.rows(), band.bytes().len(), band.block(1).len()), (24, 9 * 64, 3 * 64));
    band.decode_row(23, &mut row);
    assert_eq!(row, weights()[39 * COLS..]);
    assert_eq!(index.reads(&index.entries()[0]).streamed, 18 * 64);
    assert_eq!(index.reads(&index.entries()[0]).looked_up, 6 * 64);
}

#[test]
fn blocks_that_no_encoder_writes_decode_to_something() {
    for len in [0, 1, 2, 63, 64, 200] {
        let mut weights = [1.0; 16 * 16];
        Encoding::Columns.decode(&vec![0xff; len], 100, 6, &mut weights);
    }
}

/// The number at `at`: an offset or a length of the header.
fn u64_at(bytes: &[u8], at: usize) -> usize {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize
}

fn reseal(bytes: &mut [u8]) {
    let section = |at: usize| u64_at(bytes, at)..u64_at(bytes, at) + u64_at(bytes, at + 8);
    let directory = u64_at(bytes, 72);
    let covered = [&bytes[..120], &bytes[section(40)], &bytes[section(56)], &bytes[directory..]].concat();
    let sum = checksum(&covered);
    bytes[120..128].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn a_forged_block_index_is_refused() {
    let sound = file();
    let index_offset = u64_at(&sound, 56);
    assert_eq!(u64_at(&sound, 64), 16, "four blocks");
    for block in 0..4 {
        for size in [0u32, 1, 2, 10, u32::MAX] {
            let mut forged = sound.clone();
            forged[index_offset + 4 * block..][..4].copy_from_slice(&size.to_le_bytes());
            reseal(&mut forged);
            let error = Index::parse(&forged).unwrap_err();
            assert!(matches!(error, FormatError::TensorSize { .. }), "block {block}, {size}: {error}");
        }
    }
    // One block more in one matrix and one less in the next: the sums still match the index, but
    // not the tensors.
    let mut forged = sound.clone();
    forged[index_offset..][..16].rotate_left(8);
    reseal(&mut forged);
    assert!(matches!(Index::parse(&forged).unwrap_err(), FormatError::TensorSize { .. }));
    // An indexed encoding for a tensor without an index: the vector's.
    let mut forged = sound.clone();
    let directory = u64_at(&sound, 72);
    forged[directory + 3] = Encoding::F32.tag();
    reseal(&mut forged);
    assert!(matches!(Index::parse(&forged).unwrap_err(), FormatError::BlockIndex { .. }));
}

#[test]
fn every_truncation_and_changed_byte_of_an_indexed_file_is_an_error() {
    let mut bytes = file();
    let check = |bytes: &[u8]| Index::parse(bytes).and_then(|index| index.verify(bytes, |_| ()));
    for length in 0..bytes.len() {
        assert!(check(&bytes[..length]).is_err(), "truncated to {length}");
    }
    for at in 0..bytes.len() {
        bytes[at] ^= 0x40;
        assert!(check(&bytes).is_err(), "byte {at}");
        bytes[at] ^= 0x40;
    }
    check(&bytes).unwrap();
}

#[test]
fn an_index_must_fit_its_matrix() {
    let bytes = [0; 192];
    let matrix = |blocks: &[u64]| Matrix::indexed(Encoding::Columns, 20, 4, &bytes, blocks).is_ok();
    assert!(matrix(&[0, 64, 192]));
    for wrong in [&[0, 64][..], &[0, 64, 128], &[64, 64, 192], &[0, 256, 192], &[0, 64, 128, 192], &[]] {
        assert!(!matrix(wrong), "{wrong:?}");
    }
    assert!(Matrix::indexed(Encoding::F32, 20, 4, &bytes, &[0, 64, 192]).is_err());
}

#[test]
fn padding_takes_less_than_a_hundredth() {
    let layer = |bytes: usize, layers: usize| {
        let mut model = tiny();
        model.layers = vec![model.layers[0].clone(); layers];
        let ids = (0..layers)
            .flat_map(|layer| [TensorId::layer(Role::MixerNorm, layer), TensorId::layer(Role::Up, layer)]);
        let rows = |id: TensorId| if id.role == Role::Up { bytes / 64 } else { 8 };
        let plan: Vec<_> = ids
            .map(|id| TensorPlan {
                id,
                encoding: (id.role == Role::Up).then_some(Encoding::F32),
                rows: rows(id),
                cols: if id.role == Role::Up { 16 } else { 1 },
            })
            .collect();
        let entries = lay_out(&plan).unwrap();
        let used: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let last = entries.last().unwrap();
        (last.offset + last.bytes - used - HEADER_BYTES as u64, used)
    };
    for bytes in [20_000, 100_000, 0x10_0000 - 64, 0x10_0000, 0x20_0040, 0x7f_ff00, 0x80_0040, 30_000_000] {
        let (padding, used) = layer(bytes, 12);
        assert!(padding * 100 <= used, "{bytes}: {padding} of {used}");
    }
}

#[test]
fn tiles_of_nested_matrices_may_come_in_bands() {
    let folder = tempfile::tempdir().unwrap();
    let encoding = Encoding::Q8N3;
    let matrix = TensorPlan { id: embedding(), encoding: Some(encoding), rows: ROWS, cols: COLS };
    let norm = TensorPlan { id: TensorId::layer(Role::MixerNorm, 0), encoding: None, rows: COLS, cols: 1 };
    let blocks: Vec<Vec<u8>> =
        weights().chunks(16 * COLS).map(|rows| encoding.encode_block(rows, COLS)).collect();
    let write = |name: &str, put: &dyn Fn(&mut Writer)| {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, &[matrix, norm]).unwrap();
        put(&mut writer);
        writer.write(norm.id, &[0; 4 * COLS]).unwrap();
        let data_bytes = writer.data_bytes();
        let Err(error) = writer.finish(&metadata()) else { return std::fs::read(&path).unwrap() };
        panic!("{name}, {data_bytes} bytes: {error}")
    };
    let whole =
        write("whole", &|writer| writer.write(embedding(), &encoding.stored(blocks.concat())).unwrap());
    let banded = write("banded", &|writer| {
        for block in &blocks {
            writer.write_tiles(embedding(), block).unwrap();
        }
    });
    assert!(whole == banded);
    let mut writer = Writer::create(&folder.path().join("wrong"), &[matrix, norm]).unwrap();
    assert!(writer.write_tiles(embedding(), &blocks[0][1..]).is_err());
    writer.write_tiles(embedding(), &blocks[0]).unwrap();
    let mixed = writer.write(embedding(), &blocks[1]).unwrap_err();
    assert!(matches!(mixed, FormatError::WriteOrder { .. }), "{mixed}");
    assert!(writer.write_tiles(embedding(), &blocks.concat()).is_err());
}

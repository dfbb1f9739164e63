//! A `.pith` file: as is, and with a corrected checksum so that the fuzzer gets past it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pith_format::{Index, Kind};
use pith_runtime::{KvType, Model, Session, SessionOptions};
use std::sync::Arc;

fuzz_target!(|data: &[u8]| {
    try_file(data);
    if let Some(forged) = forge(data) {
        try_file(&forged);
    }
});

fn try_file(data: &[u8]) {
    let Ok(index) = Index::parse(data) else { return };
    let verified = index.verify(data, |_| ());
    for entry in index.entries() {
        match entry.kind() {
            Kind::Matrix => {
                let matrix = index.matrix(data, entry.id).expect("parse checked it");
                let mut row = vec![0.0; matrix.cols()];
                matrix.decode_row(matrix.rows() - 1, &mut row);
            }
            Kind::Vector => assert_eq!(index.vector(data, entry.id).expect("parse checked it").len() as u64, entry.rows),
            Kind::Bytes => assert_eq!(index.bytes(data, entry.id).expect("parse checked it").len() as u64, entry.bytes),
        }
    }
    run(data);
    let _ = verified;
}

/// A file that parses may be run: any result is fine, a panic is not.
fn run(data: &[u8]) {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a temporary file");
    std::fs::write(file.path(), data).expect("room for it");
    let Ok(model) = Model::open(file.path()) else { return };
    let _ = model.tokenizer();
    let options =
        SessionOptions { context_len: Some(4), kv_type: KvType::Q8, threads: Some(1), ..SessionOptions::default() };
    let Ok(mut session) = Session::new(Arc::new(model), options) else { return };
    let _ = session.prefill(&[0, 0]);
    let _ = session.step(0);
}

/// The same file with the correct checksum of header, metadata and directory.
fn forge(data: &[u8]) -> Option<Vec<u8>> {
    let at = |offset: usize| -> Option<usize> {
        let bytes = data.get(offset..offset + 8)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let (metadata, metadata_bytes, directory, entries) = (at(40)?, at(48)?, at(56)?, at(64)?);
    let metadata = data.get(metadata..metadata.checked_add(metadata_bytes)?)?;
    let directory = data.get(directory..directory.checked_add(entries.checked_mul(64)?)?)?;
    let sum = pith_format::checksum(&[data.get(..120)?, metadata, directory].concat());
    let mut forged = data.to_vec();
    forged.get_mut(120..128)?.copy_from_slice(&sum.to_le_bytes());
    Some(forged)
}

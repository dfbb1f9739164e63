//! Files of released versions must open for ever and give what they gave.
//!
//! `tests/golden/format/vN.pith` was written once by `pith convert` of that version from
//! `tests/golden/families/llama3_untied` (`--encoding q4 --embedding q8 --head f16`), `vN.npy` by `pith logits` with the
//! reference kernels and an f32 cache over the first 24 ids of `families/tokens.json`.

use pith_format::{Encoding, VERSION};
use pith_runtime::{KvType, Model, Session, SessionOptions};
use pith_tests::{all_logits, difference, golden, read_npy};
use std::collections::BTreeSet;
use std::sync::Arc;

#[test]
fn every_released_version_opens_and_gives_its_logits() {
    let tokens = std::fs::read_to_string(golden().join("families/tokens.json")).unwrap();
    let tokens: Vec<u32> = serde_json::from_str(&tokens).unwrap();
    for version in 1..=VERSION {
        let path = golden().join(format!("format/v{version}.pith"));
        let model = Arc::new(Model::open(&path).unwrap_or_else(|error| panic!("version {version}: {error}")));
        model.index().verify(model.bytes(), |_| ()).unwrap();
        let encodings: BTreeSet<_> =
            model.index().entries().iter().filter_map(|entry| entry.encoding).collect();
        assert_eq!(encodings, BTreeSet::from([Encoding::Q4, Encoding::Q8, Encoding::F16]));
        let ((rows, _), expected) = read_npy(&path.with_extension("npy"));
        // Activations are rounded to 8 bits: where two kernels differ in the last bit of a float, a code may differ and
        // the logits with it. The reference computes in f64 and gives the same everywhere.
        let options = SessionOptions {
            context_len: Some(rows),
            kv_type: KvType::F32,
            threads: Some(1),
            kernels: Some("reference".into()),
            ..SessionOptions::default()
        };
        let mut session = Session::new(Arc::clone(&model), options).unwrap();
        let (worst, largest) = difference(&all_logits(&mut session, &tokens[..rows]), &expected);
        assert!(worst <= 1e-5 * largest, "version {version}: {worst} of {largest}");
    }
}

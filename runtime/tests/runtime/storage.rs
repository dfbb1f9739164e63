//! The same model from a file, from inside a longer file, and from memory.

use crate::support::{Built, llama, tokens};
use pith_format::{Encoding, Role};
use pith_runtime::{LayerRun, Model, Pages, Reason, RuntimeError, Session, SessionOptions};
use std::fs::{File, OpenOptions};
use std::sync::Arc;

fn built() -> Built {
    let mut plan = llama();
    plan.encoding = Encoding::Q4;
    plan.roles.push(Role::HeadResidual);
    plan.build()
}

fn options() -> SessionOptions {
    SessionOptions { threads: Some(2), batch: Some(8), ..SessionOptions::default() }
}

/// Logits of a prompt and of some steps after it.
fn logits(model: Model) -> Vec<Vec<f32>> {
    let mut session = Session::new(Arc::new(model), options()).unwrap();
    let text = tokens(20, 301);
    let mut all = vec![session.prefill(&text[..13]).unwrap().to_vec()];
    all.extend(text[13..].iter().map(|&token| session.step(token).unwrap().to_vec()));
    all
}

/// A longer file with the model's bytes at `offset`.
fn inside(built: &Built, offset: u64) -> (File, u64) {
    let bytes = std::fs::read(&built.path).unwrap();
    let path = built.folder.path().join(format!("archive-{offset}"));
    std::fs::write(&path, [&vec![0xa5; offset as usize], &bytes[..], &[0x5a; 70_000]].concat()).unwrap();
    (File::open(path).unwrap(), bytes.len() as u64)
}

#[test]
fn a_model_answers_alike_wherever_its_bytes_are() {
    let built = built();
    let bytes = std::fs::read(&built.path).unwrap();
    let expected = logits(Model::open(&built.path).unwrap());
    assert!(logits(Model::load(&built.path).unwrap()) == expected, "a copy");
    assert!(logits(Model::from_bytes(bytes.clone()).unwrap()) == expected, "owned");
    assert!(logits(Model::from_bytes(Arc::<[u8]>::from(bytes.clone())).unwrap()) == expected, "shared");
    // At several addresses within a cache line.
    for at in [1, 3, 17, 63] {
        let moved: &'static [u8] = [&vec![0; at], &bytes[..]].concat().leak();
        assert!(logits(Model::from_bytes(&moved[at..]).unwrap()) == expected, "in memory from {at} on");
    }
    for offset in [1, 64, 4096, 65_537] {
        let (file, len) = inside(&built, offset);
        let model = Model::open_at(file, offset, len).unwrap();
        assert_eq!((model.path(), model.bytes()), (None, &bytes[..]));
        assert!(logits(model) == expected, "in a file from {offset} on");
    }
}

#[test]
fn what_is_no_model_is_named_by_where_it_lies() {
    let built = built();
    let (file, len) = inside(&built, 17);
    let message = Model::open_at(file.try_clone().unwrap(), 18, len).unwrap_err().to_string();
    assert!(message.starts_with(&format!("{len} bytes from 18 on of an open file: ")), "{message}");
    let message = Model::open_at(file, 17, len + 80_000).unwrap_err().to_string();
    assert!(message.contains(&format!("{}", 17 + len + 80_000)), "{message}");
    let message = Model::from_bytes(vec![1; 100]).unwrap_err().to_string();
    assert!(message.starts_with("a model in memory: "), "{message}");
}

#[test]
fn a_file_that_shrank_is_an_error_before_the_next_pass() {
    let built = built();
    let len = std::fs::metadata(&built.path).unwrap().len();
    let model = built.open();
    let mut session = Session::new(Arc::clone(&model), options()).unwrap();
    let mut run = LayerRun::new(Arc::clone(&model), options()).unwrap();
    let copy = Model::load(&built.path).unwrap();
    session.prefill(&[1, 2, 3]).unwrap();
    let mut hidden = vec![0.0; 3 * model.config().hidden_len];
    run.embed(&[1, 2, 3], &mut hidden).unwrap();

    let cut = |len| OpenOptions::new().write(true).open(&built.path).unwrap().set_len(len).unwrap();
    cut(len - 1);
    let is_short = |error: RuntimeError| match error {
        RuntimeError::FileTooShort { path, expected_bytes, found_bytes } => {
            assert_eq!(path, built.path.display().to_string());
            assert_eq!((expected_bytes, found_bytes), (len, len - 1));
        }
        error => panic!("{error}"),
    };
    is_short(session.step(4).unwrap_err());
    is_short(session.step_all(&[4, 5]).unwrap_err());
    is_short(session.logits_of(&[4, 5], |_, _| {}).unwrap_err());
    assert_eq!(session.tokens(), [1, 2, 3], "nothing was appended");
    is_short(session.resume(&[1, 9]).unwrap_err());
    is_short(run.embed(&[1, 2, 3], &mut hidden).unwrap_err());
    is_short(run.layer_unheard(0, &mut hidden).unwrap_err());
    // A copy is not affected.
    logits(copy);
    // Once the bytes are back, reading continues.
    cut(len);
    session.resume(&[1, 2, 3, 4]).unwrap();
}

#[test]
fn a_small_model_and_one_in_memory_stay_where_they_are() {
    let built = built();
    let options = SessionOptions { memory: Some(u64::MAX), ..options() };
    let model = Model::open(&built.path).unwrap().prefer_large_pages(&options).unwrap();
    assert_eq!(*model.pages(), Pages::Mapped(Reason::Small));
    let bytes = std::fs::read(&built.path).unwrap();
    let model = Model::from_bytes(bytes).unwrap().prefer_large_pages(&options).unwrap();
    assert_eq!(*model.pages(), Pages::Given);
    let model = Model::load(&built.path).unwrap();
    assert!(matches!(model.pages(), Pages::Copied { bytes, .. } if *bytes == model.bytes().len() as u64));
}

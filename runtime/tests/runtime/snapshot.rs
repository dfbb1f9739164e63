//! Sessions saved, restored and shared, against sessions that computed everything themselves.

use crate::support::{Built, Plan, is_emulated, llama, tokens};
use pith_format::Encoding;
use pith_runtime::{KvType, Model, RuntimeError, Session, SessionOptions};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

fn options(kv_type: KvType, context_len: usize) -> SessionOptions {
    SessionOptions {
        kv_type,
        context_len: Some(context_len),
        threads: Some(1),
        batch: Some(5),
        ..SessionOptions::default()
    }
}

fn session(model: &Arc<Model>, kv_type: KvType, context_len: usize) -> Session {
    Session::new(Arc::clone(model), options(kv_type, context_len)).unwrap()
}

/// The most likely tokens in turn, starting from the session's logits.
fn greedy(session: &mut Session, count: usize) -> Vec<u32> {
    let likeliest = |logits: &[f32]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let mut chosen = Vec::new();
    for _ in 0..count {
        let token = likeliest(session.logits()).unwrap() as u32;
        session.step(token).unwrap();
        chosen.push(token);
    }
    chosen
}

/// A saved session of four tokens, with logits in the file.
fn saved(built: &Built, model: &Arc<Model>) -> (PathBuf, Vec<f32>) {
    let path = built.folder.path().join("saved.session");
    let mut session = session(model, KvType::F16, 16);
    session.prefill(&[7, 8, 9, 10]).unwrap();
    session.save(&path).unwrap();
    (path, session.logits().to_vec())
}

#[test]
fn a_restored_session_goes_on_as_one_that_computed_everything() {
    let (built, mut cut) = (llama().build(), 17usize);
    let model = built.open();
    let text = tokens(45, 301);
    let path = built.folder.path().join("cut.session");
    for kv_type in KvType::ALL {
        for round in 0..if is_emulated() { 4 } else { 20 } {
            cut = (cut * 29 + 11) % 44 + 1;
            let mut first = session(&model, kv_type, 48);
            // Some sequences are prompts, others grow token by token.
            if round % 2 == 0 {
                first.prefill(&text[..cut]).unwrap();
            } else {
                text[..cut].iter().for_each(|&token| drop(first.step(token).unwrap().to_vec()));
            }
            let bytes = first.save(&path).unwrap();
            assert_eq!(bytes, fs::metadata(&path).unwrap().len());
            let mut restored = session(&model, kv_type, 64);
            restored.prefill(&[3, 1, 4]).unwrap();
            assert_eq!(restored.restore(&path).unwrap(), cut);
            assert_eq!((restored.tokens(), restored.logits()), (&text[..cut], first.logits()));
            let mut computed = session(&model, kv_type, 64);
            computed.prefill(&text[..cut]).unwrap();
            assert_eq!(greedy(&mut restored, 15), greedy(&mut computed, 15), "{kv_type}, cut at {cut}");
        }
    }
}

#[test]
fn a_prefix_without_logits_has_its_last_token_computed_again() {
    let built = llama().build();
    let model = built.open();
    let path = built.folder.path().join("prefix.session");
    let text = tokens(20, 301);
    let mut long = session(&model, KvType::F16, 32);
    long.prefill(&text).unwrap();
    for count in [1, 6, 13] {
        let short = long.save_prefix(&path, count).unwrap();
        let mut restored = session(&model, KvType::F16, 32);
        restored.restore(&path).unwrap();
        let mut computed = session(&model, KvType::F16, 32);
        computed.prefill(&text[..count]).unwrap();
        assert_eq!(restored.tokens(), &text[..count]);
        let pairs = restored.logits().iter().zip(computed.logits());
        assert!(pairs.clone().all(|(a, b)| (a - b).abs() <= 1e-3), "{count}");
        assert_eq!(greedy(&mut restored, 10), greedy(&mut computed, 10));
        assert!(restored.save(&path).unwrap() > short, "now there are logits");
    }
    // Logits of other tokens are not saved: truncate, then restore the length another way.
    long.truncate(10);
    long.logits_of(&text[10..], |_, _| ()).unwrap();
    long.save(&path).unwrap();
    let bytes = fs::metadata(&path).unwrap().len();
    assert_eq!(bytes, 128 + 20 * 4 + 20 * 288);
    assert_eq!(long.save_prefix(&path, 0).unwrap(), 128);
    assert_eq!(long.restore(&path).unwrap(), 0);
    assert_eq!(long.position(), 0);
}

#[test]
fn every_truncation_and_every_changed_byte_is_refused() {
    let built = llama().build();
    let model = built.open();
    let (path, _) = saved(&built, &model);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 128 + 4 * 4 + 4 * 301 + 4 * 288);
    let mut session = session(&model, KvType::F16, 16);
    session.prefill(&[1, 2]).unwrap();
    let before = session.logits().to_vec();
    let mut refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = session.restore(&path).unwrap_err();
        assert!(session.restore_common(&path, &[7, 8, 9]).is_err());
        assert_eq!((session.tokens(), session.logits()), (&[1, 2][..], &before[..]));
        error
    };
    for len in 0..bytes.len() {
        let error = refused(&bytes[..len]);
        match len {
            0..8 => assert!(matches!(error, RuntimeError::SessionMagic { .. }), "{error}"),
            _ => assert!(
                matches!(error, RuntimeError::SessionSize { found_bytes, .. } if found_bytes == len as u64),
                "{error}"
            ),
        }
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(refused(&longer), RuntimeError::SessionSize { .. }));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let error = refused(&changed);
        match at {
            0..8 => assert!(matches!(error, RuntimeError::SessionMagic { .. }), "{error}"),
            8..12 => assert!(matches!(error, RuntimeError::SessionVersion { .. }), "{error}"),
            12..128 => {
                assert!(matches!(error, RuntimeError::SessionDamaged { part: "header", .. }), "{error}")
            }
            _ => assert!(matches!(error, RuntimeError::SessionDamaged { part: "contents", .. }), "{error}"),
        }
    }
    // The complete file is accepted again.
    fs::write(&path, &bytes).unwrap();
    assert_eq!(session.restore(&path).unwrap(), 4);
}

#[test]
fn another_model_cache_or_rotation_is_refused() {
    let built = llama().build();
    let model = built.open();
    let (path, _) = saved(&built, &model);
    let refusal = |plan: &Plan, kv_type, context_len| {
        let mut session = session(&plan.build().open(), kv_type, context_len);
        session.prefill(&[5]).unwrap();
        let message = session.restore(&path).unwrap_err().to_string();
        assert_eq!(session.tokens(), [5]);
        message
    };
    let mut other = llama();
    other.encoding = Encoding::F16;
    let message = refusal(&other, KvType::F16, 16);
    assert!(message.contains("saved.session: the session was made with model "), "{message}");
    for (kv_type, name) in [(KvType::Q8, "q8"), (KvType::Q4, "q4")] {
        let message = refusal(&llama(), kv_type, 16);
        assert!(message.contains(&format!("cache type f16, this one has {name}")), "{message}");
    }
    let message = refusal(&llama(), KvType::F16, 3);
    assert!(message.contains("4 tokens do not fit in a context of 3"), "{message}");

    // The same file has other rotary frequencies in a longer context.
    let mut plan = llama();
    let table = &mut plan.config.rope[0];
    table.long_inv_freq = Some(table.inv_freq.iter().map(|frequency| frequency / 4.0).collect());
    table.long_from = Some(32);
    let built = plan.build();
    let model = built.open();
    let (path, _) = saved(&built, &model);
    let mut longer = session(&model, KvType::F16, 40);
    let message = longer.restore(&path).unwrap_err().to_string();
    assert!(message.contains("rotary frequencies"), "{message}");
    assert!(longer.copy_prefix_from(&session(&model, KvType::F16, 32), 0).is_err());
    assert_eq!(session(&model, KvType::F16, 32).restore(&path).unwrap(), 4);
}

#[test]
fn what_is_no_session_file_is_named() {
    let built = llama().build();
    let mut session = session(&built.open(), KvType::F16, 16);
    let message = session.restore(&built.path).unwrap_err().to_string();
    assert!(message.contains("model.pith: not a session file"), "{message}");
    let message = session.restore(built.folder.path()).unwrap_err().to_string();
    assert!(message.contains("directory"), "{message}");
    let missing = built.folder.path().join("none");
    assert!(session.restore(&missing).unwrap_err().to_string().contains("none: open:"));
    let message = session.save(&missing.join("x")).unwrap_err().to_string();
    assert!(message.contains("none/x") && message.contains("folder"), "{message}");
}

#[test]
fn saving_replaces_and_leaves_nothing_else() {
    let built = llama().build();
    let model = built.open();
    let (path, logits) = saved(&built, &model);
    saved(&built, &model);
    let mut names: Vec<_> =
        fs::read_dir(built.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["model.pith", "saved.session"]);
    // A folder is in the way: the temporary file is removed.
    let folder = built.folder.path().join("folder");
    fs::create_dir_all(folder.join("inner")).unwrap();
    let mut session = session(&model, KvType::F16, 16);
    session.restore(&path).unwrap();
    assert_eq!(session.logits(), logits);
    let message = session.save(&folder).unwrap_err().to_string();
    assert!(message.contains("folder") || message.contains("regular file"), "{message}");
    assert_eq!(fs::read_dir(built.folder.path()).unwrap().count(), 3);
}

#[test]
fn only_what_a_prompt_shares_with_a_file_is_taken() {
    let built = llama().build();
    let model = built.open();
    let path = built.folder.path().join("long.session");
    let text = tokens(40, 301);
    let mut long = session(&model, KvType::F16, 48);
    long.prefill(&text).unwrap();
    long.save(&path).unwrap();

    let mut prompt = text[..12].to_vec();
    prompt.extend([290, 291, 292]);
    // A context shorter than the file.
    let mut short = session(&model, KvType::F16, 20);
    assert!(matches!(short.restore(&path), Err(RuntimeError::SessionTooLong { token_count: 40, .. })));
    assert_eq!(short.restore_common(&path, &prompt).unwrap(), 12);
    assert_eq!(short.tokens(), &text[..12]);
    let before = short.traffic().kv_write_bytes;
    assert_eq!(short.resume(&prompt).unwrap(), 12);
    assert_eq!(short.traffic().kv_write_bytes - before, 3 * 288);
    let mut computed = session(&model, KvType::F16, 20);
    computed.prefill(&prompt).unwrap();
    assert_eq!(greedy(&mut short, 5), greedy(&mut computed, 5));
    // The session's tokens are kept where the file has no more.
    assert_eq!(short.restore_common(&path, &prompt).unwrap(), 15);
    assert_eq!(short.position(), 20);
    // The file's last token comes with its logits.
    let mut same = session(&model, KvType::F16, 48);
    assert_eq!(same.restore_common(&path, &text).unwrap(), 40);
    assert_eq!(same.logits(), long.logits());
    assert_eq!(same.restore_common(&path, &[]).unwrap(), 0);
}

/// A prompt's last token has other bits alone than in the prompt's batch, where activations are
/// packed. A second run must begin with the bits of the first.
#[test]
fn a_prompt_that_is_all_in_the_file_is_not_computed_again() {
    let built = Plan { encoding: Encoding::Q4, ..llama() }.build();
    let model = built.open();
    let path = built.folder.path().join("prompt.session");
    let text = tokens(40, 301);
    for kv_type in KvType::ALL {
        let open = || {
            let options = SessionOptions { batch: Some(32), ..options(kv_type, 48) };
            Session::new(Arc::clone(&model), options).unwrap()
        };
        let mut first = open();
        first.prefill(&text).unwrap();
        first.save_prefix(&path, 40).unwrap();
        let logits = first.logits().to_vec();
        let mut second = open();
        assert_eq!(second.restore_common(&path, &text).unwrap(), 40);
        assert_eq!(second.resume(&text).unwrap(), 40);
        assert_eq!((second.traffic().total_bytes(), second.last_traffic().total_bytes()), (0, 0));
        assert_eq!(second.logits(), logits);
        assert_eq!(greedy(&mut second, 6), greedy(&mut first, 6), "{kv_type}");
        // Without its logits the last token is computed.
        second.truncate(40);
        assert_eq!(second.resume(&text).unwrap(), 39);
    }
}

#[test]
fn a_prefix_is_shared_between_sessions() {
    let built = llama().build();
    let model = built.open();
    let text = tokens(30, 301);
    for kv_type in KvType::ALL {
        let mut first = session(&model, kv_type, 48);
        first.prefill(&text).unwrap();
        let mut second = session(&model, kv_type, 40);
        second.prefill(&[9; 33]).unwrap();
        second.copy_prefix_from(&first, 17).unwrap();
        assert_eq!(second.tokens(), &text[..17]);
        let mut prompt = text[..17].to_vec();
        prompt.extend([1, 2]);
        assert_eq!(second.resume(&prompt).unwrap(), 17);
        let mut computed = session(&model, kv_type, 40);
        computed.prefill(&prompt).unwrap();
        assert_eq!(greedy(&mut second, 12), greedy(&mut computed, 12), "{kv_type}");
        second.copy_prefix_from(&first, 30).unwrap();
        assert_eq!(second.logits(), first.logits());
        let mut tiny = session(&model, kv_type, 8);
        tiny.prefill(&[4]).unwrap();
        let message = tiny.copy_prefix_from(&first, 9).unwrap_err().to_string();
        assert!(message.contains("the other session: 9 tokens"), "{message}");
        assert_eq!(tiny.tokens(), [4]);
    }
    let (first, mut other) = (session(&model, KvType::F16, 8), session(&model, KvType::F32, 8));
    assert!(matches!(other.copy_prefix_from(&first, 0), Err(RuntimeError::SessionMismatch { .. })));
}

//! Models larger than the memory limit, compared with the same models in memory. A separate binary,
//! since the process's own memory counts too.

#[path = "support/mod.rs"]
mod support;

use pith_format::{Role, TensorId};
use pith_runtime::{Model, Pages, Placement, Reason, RuntimeError, Session, SessionOptions};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use support::{Built, Plan, llama, tokens};

/// Lets one test run at a time.
fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Layers of 6 MB and a head of 16 MB, so that the head takes several bands.
fn large() -> Built {
    plan().build()
}

fn plan() -> Plan {
    let mut plan = llama();
    plan.config.hidden_len = 512;
    plan.config.vocab_len = 8000;
    plan.config.layers.iter_mut().for_each(|layer| support::dense(layer).len = 1024);
    plan.roles.push(Role::HeadBias);
    plan.weight = |role, row, col| match role {
        Role::OutputNorm => None,
        _ => Some(((row * 7919 + col * 104_729 + row * col) % 2003) as f32 / 20_000.0 - 0.05),
    };
    plan
}

fn options(memory: Option<u64>) -> SessionOptions {
    SessionOptions { memory, threads: Some(2), batch: Some(8), ..SessionOptions::default() }
}

/// The least memory that a session reports, plus a little for growth of the process.
fn least(model: &Model) -> u64 {
    match Placement::new(model, &options(Some(1))) {
        Err(RuntimeError::MemoryLimit { memory_bytes: 1, least_bytes }) => least_bytes + (4 << 20),
        other => panic!("{other:?}"),
    }
}

/// Runs every operation of a session; returns the logits.
fn logits(session: &mut Session) -> Vec<Vec<f32>> {
    let text = tokens(30, 8000);
    let mut all = vec![session.prefill(&text[..19]).unwrap().to_vec()];
    for token in &text[19..] {
        all.push(session.step(*token).unwrap().to_vec());
    }
    session.truncate(7);
    session.logits_of(&text[..3], |_, logits| all.push(logits.to_vec())).unwrap();
    session.reset();
    all.push(session.step(5).unwrap().to_vec());
    all
}

#[test]
fn streamed_weights_give_the_same_bits() {
    let _alone = alone();
    let built = large();
    let model = built.open();
    let mut plain = Session::new(Arc::clone(&model), options(None)).unwrap();
    assert!(plain.placement().is_none());
    let expected = logits(&mut plain);
    for (more, streamed) in [(0, 6), (8 << 20, 5), (1 << 32, 0)] {
        // Measured again each time: an emulator's code is part of the process and grows.
        let memory = Some(least(&model) + more);
        let mut session = Session::new(Arc::clone(&model), options(memory)).unwrap();
        let placement = session.placement().unwrap().clone();
        let names: Vec<_> = placement.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["layer 0", "layer 1", "layer 2", "head 1/3", "head 2/3", "head 3/3"]);
        let count = placement.parts.iter().filter(|part| part.streamed).count();
        assert!(count.abs_diff(streamed) <= 1 && (count == 0) == (streamed == 0), "{count} of {streamed}");
        let weights: u64 = placement.parts.iter().map(|part| part.bytes).sum();
        assert_eq!(placement.kept_bytes() + placement.streamed_bytes(), weights);
        assert_eq!(placement.disk.is_some(), count > 0);
        assert_eq!(placement.tokens_per_second().is_some(), count > 0);
        assert!(logits(&mut session) == expected, "{count} streamed");
        assert_eq!(session.traffic().weight_bytes, plain.traffic().weight_bytes);
        assert!(session.locked_bytes() <= placement.kept_bytes());
    }
}

/// With one stage, both matrices of a head are streamed together; with two, only the first.
#[test]
fn a_head_in_two_parts_is_streamed() {
    let _alone = alone();
    let mut plan = plan();
    plan.roles.push(Role::HeadResidual);
    plan.weight = |role, row, col| match role {
        Role::OutputNorm => None,
        Role::HeadResidual => Some(((row * 31 + col * 17) % 101) as f32 / 100_000.0 - 0.0005),
        _ => Some(((row * 7919 + col * 104_729 + row * col) % 2003) as f32 / 20_000.0 - 0.05),
    };
    let built = plan.build();
    let model = built.open();
    let head_bytes = |placement: &Placement| -> u64 {
        placement.parts.iter().filter(|part| part.name.starts_with("head")).map(|part| part.bytes).sum()
    };
    let residual = model.index().entry(TensorId::model(Role::HeadResidual)).unwrap().bytes;
    let first = model.index().entry(TensorId::model(Role::TokenEmbedding)).unwrap().bytes;
    for (two_stage_logits, kept) in [(false, first + residual), (true, first)] {
        let of = |memory| SessionOptions { two_stage_logits, ..options(memory) };
        let mut plain = Session::new(Arc::clone(&model), of(None)).unwrap();
        let mut session = Session::new(Arc::clone(&model), of(Some(least(&model)))).unwrap();
        let placement = session.placement().unwrap().clone();
        assert_eq!(head_bytes(&placement), kept);
        assert!(placement.parts.iter().any(|part| part.streamed && part.name.starts_with("head")));
        assert!(logits(&mut session) == logits(&mut plain), "two stages: {two_stage_logits}");
        // With enough memory for everything nothing is left out.
        let whole = Placement::new(&model, &of(Some(1 << 40))).unwrap();
        assert_eq!(head_bytes(&whole), first + residual);
    }
}

#[test]
fn sessions_end_while_they_read_ahead() {
    let _alone = alone();
    let built = large();
    let model = built.open();
    for steps in 0..6 {
        let memory = Some(least(&model));
        let mut session = Session::new(Arc::clone(&model), options(memory)).unwrap();
        for token in 0..steps {
            session.step(token).unwrap();
        }
    }
}

#[test]
fn too_little_memory_names_both_numbers() {
    let _alone = alone();
    let built = large();
    let error = Session::new(built.open(), options(Some(12_345_678))).err().unwrap();
    let RuntimeError::MemoryLimit { memory_bytes: 12_345_678, least_bytes } = error else {
        panic!("{error}")
    };
    let message = error.to_string();
    assert!(message.contains("12345678") && message.contains(&least_bytes.to_string()), "{message}");
    assert!(least_bytes > (24 + 6) << 20, "the reserve and the largest part");
}

#[test]
fn weights_are_locked_where_the_system_permits() {
    let _alone = alone();
    let built = large();
    let options = SessionOptions { lock: true, ..options(None) };
    match Session::new(built.open(), options) {
        Ok(session) => {
            let placement = session.placement().unwrap();
            assert_eq!(placement.streamed_bytes(), 0);
            assert_eq!(session.locked_bytes(), placement.kept_bytes());
        }
        Err(error) => assert!(error.to_string().contains("ulimit -l"), "{error}"),
    }
}

#[test]
fn a_copy_in_large_pages_is_made_where_it_fits_and_computes_the_same() {
    let _alone = alone();
    let built = large();
    let open = || Model::open(&built.path).unwrap();
    let bytes = open().bytes().len() as u64;
    let mut expected = Session::new(Arc::new(open()), options(None)).unwrap();
    let expected = logits(&mut expected);
    assert_eq!(*open().pages(), Pages::Mapped(Reason::NotAsked));
    let settled = |memory| open().prefer_large_pages(&options(memory)).unwrap();
    // Only Linux says what its pages are, and some of its systems have no large ones.
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let none = setting.map_or(true, |setting| setting.contains("[never]"));
    if none {
        assert_eq!(*settled(Some(u64::MAX)).pages(), Pages::Mapped(Reason::NoLargePages));
    } else {
        assert_copies(bytes, &expected, &settled);
    }
}

/// On a system with large pages: copies are made where they fit, and compute what is `expected`.
fn assert_copies(bytes: u64, expected: &[Vec<f32>], settled: &dyn Fn(Option<u64>) -> Model) {
    assert_eq!(*settled(None).pages(), Pages::Mapped(Reason::NoLimit));
    let Pages::Mapped(Reason::Memory { needed, limit: 1 }) = *settled(Some(1)).pages() else {
        panic!("{}", settled(Some(1)).pages());
    };
    assert!(needed > bytes + bytes / 4 && needed < 10 * bytes, "{needed} for {bytes}");
    // The process itself counts, and grows a little from call to call.
    assert!(matches!(settled(Some(needed / 2)).pages(), Pages::Mapped(Reason::Memory { .. })));
    let model = settled(Some(needed + (64 << 20)));
    match model.pages() {
        Pages::Copied { bytes: copied, large_bytes: Some(_), .. } => assert_eq!(*copied, bytes),
        Pages::Mapped(Reason::LargeAlready) => {}
        other => panic!("{other}"),
    }
    // A copy stays as it is.
    let model = model.prefer_large_pages(&options(None)).unwrap();
    assert!(logits(&mut Session::new(Arc::new(model), options(None)).unwrap()) == expected);
}

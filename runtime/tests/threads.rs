//! Thread count of a process with many sessions.

#![cfg(target_os = "linux")]

#[path = "support/mod.rs"]
mod support;

use pith_runtime::{Engine, EngineOptions, Session, SessionOptions};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// The only test of this binary, so that no other starts or ends threads meanwhile.
#[test]
fn a_hundred_sessions_share_one_pool() {
    let (model, before) = (support::llama().build().open(), threads());
    let options = EngineOptions { threads: Some(3), ..EngineOptions::default() };
    let engine = Engine::new(options).unwrap();
    assert_eq!(threads(), before + 2);
    let open = |_| {
        let options = SessionOptions { batch: Some(8), ..SessionOptions::default() };
        Session::with_engine(&engine, Arc::clone(&model), options).unwrap()
    };
    let mut sessions: Vec<Session> = (0..100).map(open).collect();
    let logits: Vec<Vec<f32>> =
        sessions.iter_mut().map(|session| session.prefill(&[1, 2, 3]).unwrap().to_vec()).collect();
    assert!(logits.iter().all(|of_one| *of_one == logits[0]));
    assert!(sessions.iter().all(|session| session.threads() == 3 && Arc::ptr_eq(session.engine(), &engine)));
    println!("{} threads with 100 sessions, {before} before", threads());
    assert_eq!(threads(), before + 2);
    drop((sessions, engine));
    // The system still lists a thread for a moment after it was joined.
    let begin = Instant::now();
    while threads() > before && begin.elapsed() < Duration::from_secs(60) {
        std::thread::yield_now();
    }
    assert_eq!(threads(), before);
}

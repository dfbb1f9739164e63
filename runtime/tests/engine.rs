//! Sessions that share an engine.

#[path = "support/mod.rs"]
mod support;

use pith_format::Encoding;
use pith_runtime::{Engine, EngineOptions, LayerRun, Model, RuntimeError, Session, SessionOptions};
use std::sync::{Arc, Barrier};
use support::{Built, llama, tokens};

/// Large enough that threads get work.
fn built() -> Built {
    let mut plan = llama();
    plan.encoding = Encoding::Q8;
    plan.config.hidden_len = 96;
    plan.config.layers.iter_mut().for_each(|layer| support::dense(layer).len = 800);
    plan.build()
}

fn engine(threads: usize) -> Arc<Engine> {
    Engine::new(EngineOptions { threads: Some(threads), ..EngineOptions::default() }).unwrap()
}

fn open(engine: &Arc<Engine>, model: &Arc<Model>) -> Session {
    let options = SessionOptions { context_len: Some(64), batch: Some(8), ..SessionOptions::default() };
    Session::with_engine(engine, Arc::clone(model), options).unwrap()
}

/// Logits of a prompt and of steps after it, with different tokens for every `seed`.
fn logits(session: &mut Session, seed: usize) -> Vec<Vec<f32>> {
    let text: Vec<u32> = tokens(40, 301).into_iter().map(|token| (token + seed as u32) % 301).collect();
    session.reset();
    let mut all = vec![session.prefill(&text[..21]).unwrap().to_vec()];
    all.extend(text[21..].iter().map(|&token| session.step(token).unwrap().to_vec()));
    all
}

#[test]
fn sessions_used_at_once_compute_what_they_compute_alone() {
    let built = built();
    let model = built.open();
    for threads in [1, 3] {
        let engine = engine(threads);
        let expected: Vec<_> = (0..4).map(|seed| logits(&mut open(&engine, &model), seed)).collect();
        let begin = Barrier::new(4);
        std::thread::scope(|scope| {
            for (seed, expected) in expected.iter().enumerate() {
                let (mut session, begin) = (open(&engine, &model), &begin);
                scope.spawn(move || {
                    begin.wait();
                    for _ in 0..3 {
                        assert!(logits(&mut session, seed) == *expected, "session {seed}, {threads} threads");
                    }
                });
            }
        });
    }
}

/// The calling thread's CPUs as the system reports them.
#[cfg(target_os = "linux")]
fn cpus_allowed() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap().to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn the_calling_thread_may_run_wherever_it_might_before() {
    let built = built();
    let (model, before) = (built.open(), cpus_allowed());
    // This process may not be allowed CPU 0.
    let cpu = (0..1024).find(|&cpu| {
        let options = EngineOptions { cpus: Some(vec![cpu]), ..EngineOptions::default() };
        Engine::new(options).is_ok()
    });
    for pin_threads in [false, true] {
        let options = SessionOptions {
            cpus: Some(vec![cpu.unwrap()]),
            threads: Some(2),
            pin_threads,
            ..SessionOptions::default()
        };
        let mut session = Session::new(Arc::clone(&model), options.clone()).unwrap();
        assert_eq!(cpus_allowed(), before);
        session.prefill(&[1, 2, 3]).unwrap();
        session.step(4).unwrap();
        assert_eq!(cpus_allowed(), before);
        let mut run = LayerRun::new(Arc::clone(&model), options).unwrap();
        run.embed(&[1], &mut vec![0.0; 96]).unwrap();
        drop((session, run));
        assert_eq!(cpus_allowed(), before);
    }
    let options = SessionOptions { cpus: Some(vec![0, 1023]), ..SessionOptions::default() };
    Session::new(model, options).err().expect("a CPU that no machine of these tests has");
    assert_eq!(cpus_allowed(), before, "what failed changed nothing");
}

#[test]
fn what_belongs_to_the_engine_is_not_given_to_a_session() {
    let built = built();
    let (model, engine) = (built.open(), engine(2));
    let plain = SessionOptions::default;
    for (name, options) in [
        ("threads", SessionOptions { threads: Some(2), ..plain() }),
        ("pin_threads", SessionOptions { pin_threads: true, ..plain() }),
        ("cpus", SessionOptions { cpus: Some(vec![0]), ..plain() }),
        ("kernels", SessionOptions { kernels: Some("portable".into()), ..plain() }),
    ] {
        match Session::with_engine(&engine, Arc::clone(&model), options) {
            Err(RuntimeError::Option { option, .. }) => assert_eq!(option, name),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{name} was taken"),
        }
    }
}

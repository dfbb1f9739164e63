//! Tokens per second of one sequence, and of several in one pass:
//! `cargo run --release --example batch -- MODEL.pith [THREADS]`.

use pith_runtime::{Engine, EngineOptions, Model, Session, SessionOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Sequences in one pass.
const COUNTS: [usize; 4] = [1, 2, 4, 8];

/// Tokens of each sequence before the first pass, and passes per measurement.
const PROMPT_LEN: usize = 64;
const PASSES: usize = 32;

/// Measurements of each count, interleaved.
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = std::env::args().collect::<Vec<_>>();
    let (model, threads) = match &args[..] {
        [_, model] => (model, None),
        [_, model, threads] => (model, Some(threads.parse()?)),
        _ => return Err("usage: batch MODEL [THREADS]".into()),
    };
    let model = Arc::new(Model::open(Path::new(model))?);
    let engine = Engine::new(EngineOptions { threads, ..EngineOptions::default() })?;
    let options = SessionOptions { context_len: Some(PROMPT_LEN + PASSES), ..SessionOptions::default() };
    let open = || Session::with_engine(&engine, Arc::clone(&model), options.clone());
    let mut sessions = (0..COUNTS[COUNTS.len() - 1]).map(|_| open()).collect::<Result<Vec<_>, _>>()?;
    let token = |index: usize| (index * 7919 % model.config().vocab_len) as u32;
    for (index, session) in sessions.iter_mut().enumerate() {
        session.prefill(&(0..PROMPT_LEN).map(|at| token(index + at)).collect::<Vec<_>>())?;
    }
    let mut rates = COUNTS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (count, rates) in COUNTS.into_iter().zip(&mut rates) {
            let begin = Instant::now();
            for pass in 0..PASSES {
                let batch = sessions[..count].iter_mut().enumerate();
                let mut batch: Vec<_> =
                    batch.map(|(index, session)| (session, token(index + pass))).collect();
                engine.step(&mut batch)?;
            }
            rates.push((count * PASSES) as f64 / begin.elapsed().as_secs_f64());
            sessions[..count].iter_mut().for_each(|session| session.truncate(PROMPT_LEN));
        }
    }
    println!("{} threads, {}; the median of {ROUNDS} rounds", engine.threads(), engine.kernels());
    let medians = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    for (count, median) in COUNTS.into_iter().zip(medians) {
        println!("{count} sequences: {median:8.2} tokens/s, {:.2} times one", median / medians[0]);
    }
    Ok(())
}

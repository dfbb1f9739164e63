//! Containment of panics: a pass holds the engine's threads while it runs, and a panic in it
//! becomes an error of the call.

use crate::error::RuntimeError;
use crate::exec::Exec;
use crate::session::Session;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

impl Session {
    /// Runs `compute`, a [pass]. A panic in it, on any thread, becomes an error. After any error
    /// the session holds its first `keep` tokens and stays usable.
    ///
    /// Everything left half done is computed again before it is read: cache rows from `keep` on,
    /// buffers, the lists of [`Exec`](crate::exec::Exec). Only the logits could be mistaken for
    /// those of the sequence.
    pub(crate) fn contain(
        &mut self,
        keep: usize,
        compute: impl FnOnce(&mut Self) -> Result<(), RuntimeError>,
    ) -> Result<(), RuntimeError> {
        pass(self, |session| &mut session.exec, compute).inspect_err(|_| {
            self.tokens.truncate(keep);
            self.logits_position = 0;
        })
    }
}

/// Runs `compute` with the threads of the engine of `exec`. A panic in it, on any thread, becomes
/// an error.
pub(crate) fn pass<T: ?Sized>(
    owner: &mut T,
    exec: impl Fn(&mut T) -> &mut Exec,
    compute: impl FnOnce(&mut T) -> Result<(), RuntimeError>,
) -> Result<(), RuntimeError> {
    exec(owner).begin();
    let computed = catch_unwind(AssertUnwindSafe(|| compute(owner)));
    exec(owner).end();
    computed.unwrap_or_else(|payload| Err(RuntimeError::Panic { message: message(&*payload) }))
}

/// The message given to `panic!`.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use crate::model::Model;
    use crate::options::SessionOptions;
    use crate::pool::Pool;
    use pith_format::Matrix;
    use pith_kernels::{Kernels, Operand, by_name};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    const THREADS: usize = 3;
    const BATCH: usize = 4;

    /// Portable kernels with one failing call.
    #[derive(Default)]
    struct Faulty {
        /// Calls so far, and the number of the failing one; number 0 never comes.
        calls: AtomicUsize,
        fatal: AtomicUsize,
        /// Counts only calls on the pool's own threads.
        on_worker: AtomicBool,
    }

    impl Faulty {
        /// Starts counting.
        fn arm(&self, fatal: usize, on_worker: bool) {
            self.on_worker.store(on_worker, Ordering::SeqCst);
            self.calls.store(0, Ordering::SeqCst);
            self.fatal.store(fatal, Ordering::SeqCst);
        }

        /// Stops counting; returns the calls so far.
        fn disarm(&self) -> usize {
            self.fatal.store(0, Ordering::SeqCst);
            self.calls.load(Ordering::SeqCst)
        }

        fn call(&self) {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            if self.on_worker.load(Ordering::SeqCst) && !name.starts_with("pith-") {
                return;
            }
            if self.calls.fetch_add(1, Ordering::SeqCst) + 1 == self.fatal.load(Ordering::SeqCst) {
                panic!("the kernel failed on {name}");
            }
        }
    }

    impl Kernels for Faulty {
        fn name(&self) -> &'static str {
            "faulty"
        }

        fn mat_vec(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [f32]) {
            self.call();
            by_name("portable").unwrap().mat_vec(w, x, y);
        }

        fn mat_mul(&self, w: Matrix<'_>, x: Operand<'_>, y: &mut [&mut [f32]]) {
            self.call();
            by_name("portable").unwrap().mat_mul(w, x, y);
        }

        fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
            self.call();
            by_name("portable").unwrap().rms_norm(x, weight, epsilon, out);
        }
    }

    fn session(model: &Arc<Model>, kernels: &'static dyn Kernels) -> Session {
        let engine = Arc::new(Engine::of(kernels, Pool::new(THREADS, false).unwrap()));
        let options = SessionOptions { batch: Some(BATCH), ..SessionOptions::default() };
        Session::with_engine(&engine, Arc::clone(model), options).unwrap()
    }

    /// An operation that computes, and its logits. All begin after six tokens and append nine, in
    /// three chunks.
    type Operation = fn(&mut Session, &[u32]) -> Result<Vec<f32>, RuntimeError>;

    const OPERATIONS: [(&str, Operation); 5] = [
        ("prefill", |session, tokens| session.prefill(&tokens[6..]).map(<[f32]>::to_vec)),
        ("step", |session, tokens| {
            for &token in &tokens[6..14] {
                session.step(token)?;
            }
            session.step(tokens[14]).map(<[f32]>::to_vec)
        }),
        ("resume", |session, tokens| {
            assert_eq!(session.resume(tokens)?, 6);
            Ok(session.logits().to_vec())
        }),
        ("logits_of", |session, tokens| {
            let mut all = Vec::new();
            session.logits_of(&tokens[6..], |_, logits| all.extend_from_slice(logits)).map(|()| all)
        }),
        ("step_all", |session, tokens| {
            session.step_all(&tokens[6..])?;
            Ok((0..9).flat_map(|index| session.logits_at(index).to_vec()).collect())
        }),
    ];

    /// Brings a session to the first six tokens.
    fn begin(session: &mut Session, tokens: &[u32]) {
        session.reset();
        session.prefill(&tokens[..6]).unwrap();
    }

    #[test]
    fn a_panic_in_any_kernel_call_is_an_error_and_the_session_goes_on() {
        let model = support::llama().build().open();
        let tokens = support::tokens(15, 301);
        let faulty: &'static Faulty = Box::leak(Box::default());
        let (mut session, mut sound) =
            (session(&model, faulty), session(&model, by_name("portable").unwrap()));
        for (name, operation) in OPERATIONS {
            begin(&mut sound, &tokens);
            let expected = operation(&mut sound, &tokens).unwrap();
            begin(&mut session, &tokens);
            faulty.arm(0, false);
            operation(&mut session, &tokens).unwrap();
            let calls = faulty.disarm();
            assert!(calls > 100, "{name}: {calls} calls");
            // Every seventh call, so that each matrix, layer and chunk is covered.
            for call in (1..=calls).step_by(7).chain([calls]) {
                begin(&mut session, &tokens);
                faulty.arm(call, false);
                let error = operation(&mut session, &tokens).expect_err("the panic was swallowed");
                assert!(faulty.disarm() >= call);
                assert!(matches!(error, RuntimeError::Panic { .. }), "{name}, call {call}: {error}");
                assert!(error.to_string().starts_with("computing failed: the kernel failed on "), "{error}");
                let kept = session.position();
                assert!(if name == "step" { (6..15).contains(&kept) } else { kept == 6 }, "{name}: {kept}");
                assert_eq!(session.tokens(), &tokens[..kept]);
                session.truncate(6);
                assert_eq!(operation(&mut session, &tokens).unwrap(), expected, "{name} after call {call}");
                assert_eq!(session.tokens(), &tokens);
            }
        }
    }

    #[test]
    fn a_panic_in_a_batch_leaves_every_sequence_as_it_was() {
        let model = support::llama().build().open();
        let tokens = support::tokens(15, 301);
        let faulty: &'static Faulty = Box::leak(Box::default());
        let engine = Arc::new(Engine::of(faulty, Pool::new(THREADS, false).unwrap()));
        let open = |count: usize| {
            let options = SessionOptions { batch: Some(BATCH), ..SessionOptions::default() };
            let mut session = Session::with_engine(&engine, Arc::clone(&model), options).unwrap();
            session.prefill(&tokens[..count]).unwrap();
            session
        };
        // More sequences than one group takes, so that the last pass may fail after others.
        let mut sessions: Vec<Session> = (1..7).map(open).collect();
        let step = |sessions: &mut [Session]| {
            engine.step(&mut sessions.iter_mut().map(|session| (session, 9)).collect::<Vec<_>>())
        };
        let expected: Vec<Vec<f32>> = (1..7).map(|count| open(count).step(9).unwrap().to_vec()).collect();
        faulty.arm(0, false);
        step(&mut sessions).unwrap();
        let calls = faulty.disarm();
        for call in (1..=calls).step_by(7).chain([calls]) {
            sessions.iter_mut().zip(1..).for_each(|(session, count)| session.truncate(count));
            faulty.arm(call, false);
            let error = step(&mut sessions).expect_err("the panic was swallowed");
            faulty.disarm();
            assert!(matches!(error, RuntimeError::Panic { .. }), "call {call}: {error}");
            for (session, count) in sessions.iter().zip(1..) {
                assert_eq!((session.tokens(), session.logits_position), (&tokens[..count], 0));
            }
            step(&mut sessions).unwrap();
            assert!(sessions.iter().zip(&expected).all(|(session, logits)| session.logits() == logits));
        }
    }

    #[test]
    fn a_panic_on_another_thread_is_the_callers_error() {
        let model = support::llama().build().open();
        let tokens = support::tokens(15, 301);
        let faulty: &'static Faulty = Box::leak(Box::default());
        let mut session = session(&model, faulty);
        for (name, operation) in OPERATIONS {
            let started = Instant::now();
            // The pool leaves out stragglers for a while on a busy machine.
            let error = loop {
                faulty.disarm();
                begin(&mut session, &tokens);
                faulty.arm(1, true);
                if let Err(error) = operation(&mut session, &tokens) {
                    break error.to_string();
                }
                assert!(started.elapsed() < Duration::from_secs(60), "{name}: no other thread ever had work");
            };
            faulty.disarm();
            assert!(error.starts_with("computing failed: the kernel failed on pith-"), "{name}: {error}");
        }
    }

    #[test]
    fn logits_of_a_call_that_failed_are_not_saved() {
        let model = support::llama().build().open();
        let tokens = support::tokens(15, 301);
        let faulty: &'static Faulty = Box::leak(Box::default());
        let mut session = session(&model, faulty);
        begin(&mut session, &tokens);
        assert_eq!(session.logits_position, 6);
        faulty.arm(1, false);
        session.step(tokens[6]).unwrap_err();
        assert_eq!((session.position(), session.logits_position), (6, 0));
    }

    #[test]
    fn every_panic_has_a_message() {
        let caught = |panic: fn()| message(&*catch_unwind(panic).unwrap_err());
        assert_eq!(caught(|| panic!("plain")), "plain");
        assert_eq!(caught(|| panic!("number {}", 7)), "number 7");
        assert_eq!(caught(|| std::panic::panic_any(7)), "a panic without a message");
    }
}

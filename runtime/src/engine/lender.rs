//! A resource lent to one thread at a time, first come, first served.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

/// Lends a `T` to one borrower at a time.
///
/// With a mutex alone, a borrower that returns it and asks again at once, as a long prompt does,
/// would overtake everyone who waits.
pub(super) struct Lender<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    /// `None` while it is lent.
    here: Option<T>,
    waiting: VecDeque<Arc<Waiter<T>>>,
}

struct Waiter<T> {
    thread: Thread,
    given: Mutex<Option<T>>,
}

impl<T> Lender<T> {
    pub fn new(thing: T) -> Self {
        Self { state: Mutex::new(State { here: Some(thing), waiting: VecDeque::new() }) }
    }

    /// Waits until it is free and all earlier requests are served.
    pub fn lend(&self) -> T {
        let mut state = lock(&self.state);
        if let Some(thing) = state.here.take() {
            return thing;
        }
        let waiter = Arc::new(Waiter { thread: std::thread::current(), given: Mutex::new(None) });
        state.waiting.push_back(Arc::clone(&waiter));
        drop(state);
        loop {
            if let Some(thing) = lock(&waiter.given).take() {
                return thing;
            }
            std::thread::park();
        }
    }

    /// Returns it, to the borrower that has waited longest.
    pub fn take_back(&self, thing: T) {
        let mut state = lock(&self.state);
        let Some(waiter) = state.waiting.pop_front() else {
            state.here = Some(thing);
            return;
        };
        drop(state);
        *lock(&waiter.given) = Some(thing);
        waiter.thread.unpark();
    }
}

/// A lock that ignores poisoning. Only an allocation can panic under it, and the content is then
/// still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn one_borrower_at_a_time() {
        const THREADS: usize = 4;
        const ROUNDS: usize = if cfg!(miri) { 5 } else { 2000 };
        let lender = Lender::new(0usize);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let count = lender.lend();
                        lender.take_back(count + 1);
                    }
                });
            }
        });
        assert_eq!(lender.lend(), THREADS * ROUNDS);
    }

    #[test]
    fn first_come_first_served() {
        let lender = Lender::new(Vec::new());
        let mut held = lender.lend();
        let (told, order) = channel();
        std::thread::scope(|scope| {
            for borrower in 0..3 {
                let (lender, told) = (&lender, told.clone());
                scope.spawn(move || {
                    let mut list: Vec<usize> = lender.lend();
                    list.push(borrower);
                    lender.take_back(list);
                    told.send(borrower).unwrap();
                });
                // The next borrower starts once this one waits.
                while lock(&lender.state).waiting.len() <= borrower {
                    std::thread::yield_now();
                }
            }
            held.push(9);
            lender.take_back(held);
            // Later borrowers now queue behind the others.
            let list = lender.lend();
            assert!(list.starts_with(&[9, 0]), "{list:?}");
            lender.take_back(list);
        });
        drop(told);
        assert_eq!(order.iter().count(), 3);
        assert_eq!(lender.lend(), [9, 0, 1, 2]);
    }
}

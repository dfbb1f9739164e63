//! Tests of the pool alone. Miri runs every step a thousand times slower and finds errors that no
//! clock shows: fewer rounds under it, and no test of time.

use super::*;

#[test]
fn every_chunk_is_visited_once() {
    for threads in [1, 2, 3, 7] {
        let mut pool = Pool::new(threads, false).unwrap();
        for len in [0usize, 1, 5, 64, if cfg!(miri) { 130 } else { 1000 }] {
            for chunk_len in [1, 3, 64] {
                let (mut data, mut counts) = (vec![0usize; len], vec![0usize; threads]);
                pool.for_chunks(threads, &mut data, chunk_len, &mut counts, |index, chunk, count| {
                    chunk.iter_mut().for_each(|value| *value += index + 1);
                    *count += 1;
                });
                assert_eq!(counts.iter().sum::<usize>(), len.div_ceil(chunk_len));
                assert!(data.iter().enumerate().all(|(at, &value)| value == at / chunk_len + 1));
            }
        }
    }
}

#[test]
fn threads_that_parked_come_back() {
    let mut pool = Pool::new(3, false).unwrap();
    for round in 0..20 {
        let mut data = [0; 3];
        pool.for_chunks(3, &mut data, 1, &mut [(); 3], |_, chunk, _| {
            // Gives the caller time to park too.
            std::thread::sleep(Duration::from_micros(200));
            chunk[0] = 1;
        });
        assert_eq!(data, [1; 3]);
        std::thread::sleep(Duration::from_micros(20 * round));
    }
}

#[test]
fn a_signal_just_as_a_thread_parks_wakes_it() {
    let mut pool = Pool::new(2, false).unwrap();
    let begin = Instant::now();
    let mut round = 0;
    // A virtual millisecond takes Miri about as long as a second elsewhere.
    while begin.elapsed() < if cfg!(miri) { Duration::from_millis(20) } else { Duration::from_secs(1) } {
        let mut data = [0; 2];
        pool.for_chunks(2, &mut data, 1, &mut [(); 2], |_, chunk, _| chunk[0] = 1);
        assert_eq!(data, [1; 2]);
        // Around the moment at which the worker stops spinning, a little later each round.
        round = (round + 1) % 400;
        let pause = SPIN + Duration::from_nanos(100 * round);
        let paused = Instant::now();
        while paused.elapsed() < pause {}
    }
}

/// Number of threads of `pool` that took one of three pieces of work each. The last is a straggler
/// if `late`.
fn threads_of(pool: &mut Pool, late: bool) -> usize {
    let mut ids = [std::thread::current().id(); 3];
    pool.for_chunks(3, &mut ids, 1, &mut [(); 3], |index, id, _| {
        id[0] = std::thread::current().id();
        // Long enough that every thread takes one.
        let pause = if late && index == 2 { 20 * STRAGGLER_WAIT } else { Duration::from_micros(300) };
        std::thread::sleep(pause);
    });
    ids.iter().collect::<std::collections::HashSet<_>>().len()
}

/// Times are compared only where a short stop of the machine cannot change the answer.
#[test]
fn a_straggler_is_left_out_for_a_while() {
    let mut pool = Pool::new(3, false).unwrap();
    let left_out = |pool: &Pool| pool.workers.iter().filter_map(|worker| worker.leave_until).max();
    let mut before = Instant::now();
    assert_eq!(threads_of(&mut pool, true), 3);
    for _ in 0..100 {
        if left_out(&pool).is_some() {
            break;
        }
        // The caller itself was stopped while it should have waited.
        before = Instant::now();
        threads_of(&mut pool, true);
    }
    let until = left_out(&pool).expect("nobody is left out, however late");
    assert!(cfg!(miri) || until - before >= 20 * STRAGGLER_WAIT + LEAVE[0], "left out for too short a time");
    assert_eq!(pool.workers.iter().filter(|worker| worker.leave_until.is_some()).count(), 1);

    let set = |pool: &mut Pool, until: Instant| {
        pool.workers.iter_mut().filter_map(|worker| worker.leave_until.as_mut()).for_each(|at| *at = until);
    };
    set(&mut pool, Instant::now() + Duration::from_secs(3600));
    assert_eq!(threads_of(&mut pool, false), 2, "who is left out took part");
    set(&mut pool, Instant::now());
    assert_eq!(threads_of(&mut pool, false), 3, "who was left out for long enough did not come back");
}

#[test]
fn the_limit_holds() {
    let mut pool = Pool::new(3, false).unwrap();
    let caller = std::thread::current().id();
    let mut ids = [caller; 10];
    pool.for_chunks(1, &mut ids, 1, &mut [()], |_, id, _| id[0] = std::thread::current().id());
    assert_eq!(ids, [caller; 10]);
}

#[test]
fn a_panic_is_passed_on_and_the_pool_lives() {
    let mut pool = Pool::new(3, true).unwrap();
    for culprit in 0..3 {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.for_chunks(3, &mut [0; 3], 1, &mut [(); 3], |index, _, _| {
                assert!(index != culprit, "number {culprit}");
            });
        }));
        let payload = result.expect_err("the panic was swallowed");
        assert_eq!(payload.downcast_ref::<String>().unwrap(), &format!("number {culprit}"));
        let mut data = [0; 5];
        pool.for_chunks(3, &mut data, 1, &mut [(); 3], |index, chunk, _| chunk[0] = index);
        assert_eq!(data, [0, 1, 2, 3, 4]);
    }
}

/// Runs `body` on its own thread, whose affinity it may change, and fails if it hangs.
fn within_a_minute(body: impl FnOnce() + Send + 'static) {
    let (done, end) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        body();
        done.send(()).unwrap();
    });
    match end.recv_timeout(Duration::from_secs(60)) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        // Passes a panic on.
        _ => thread.join().unwrap(),
    }
}

/// Gives every thread a part and counts them.
fn count_up(pool: &mut Pool, rounds: usize) {
    let threads = pool.threads();
    let mut counts = vec![0; threads];
    for _ in 0..rounds {
        pool.for_chunks(threads, &mut counts, 1, &mut vec![(); threads], |_, count, _| count[0] += 1);
    }
    assert_eq!(counts, vec![rounds; threads]);
}

const ROUNDS: usize = if cfg!(miri) { 3 } else { 300 };

#[test]
fn more_pinned_threads_than_cpus_run() {
    within_a_minute(|| {
        // This thread and those it starts may use one CPU only: there is none to pin the others to.
        affinity::pin_to(0);
        for pin in [false, true] {
            count_up(&mut Pool::new(8, pin).unwrap(), ROUNDS);
        }
    });
}

#[test]
fn cpus_that_are_taken_away_end_no_call() {
    within_a_minute(|| {
        let mut pool = Pool::new(4, false).unwrap();
        count_up(&mut pool, ROUNDS);
        // From now on all threads share the first CPU; the pool does not know.
        pool.for_chunks(4, &mut [(); 4], 1, &mut [(); 4], |_, _, _| {
            affinity::pin_to(0);
            // Long enough that every thread takes one.
            std::thread::sleep(Duration::from_millis(2));
        });
        count_up(&mut pool, ROUNDS);
    });
}

/// Random pools, jobs and panics for `PITH_STRESS_SECONDS`, 1 unless given.
#[test]
fn random_jobs_are_done_or_their_panic_passed_on() {
    let seconds = std::env::var("PITH_STRESS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let begin = Instant::now();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % end as u64) as usize
    };
    let mut round = 0;
    while if cfg!(miri) { round < 8 } else { begin.elapsed() < Duration::from_secs(seconds) } {
        round += 1;
        let mut pool = Pool::new(1 + below(8), below(2) == 0).unwrap();
        for _ in 0..below(if cfg!(miri) { 6 } else { 60 }) {
            let (len, chunk_len, limit) = (below(200), 1 + below(20), 1 + below(8));
            // At most two, each at a chunk that may not exist.
            let culprits = [below(400), below(400)];
            let (mut data, mut scratch) = (vec![0usize; len], vec![0usize; 8]);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.for_chunks(limit, &mut data, chunk_len, &mut scratch, |index, chunk, count| {
                    if culprits.contains(&index) {
                        // Avoids the message that `panic!` prints.
                        resume_unwind(Box::new(index));
                    }
                    chunk.iter_mut().for_each(|value| *value += index + 1);
                    *count += 1;
                });
            }));
            let chunks = len.div_ceil(chunk_len);
            match result {
                Ok(()) => {
                    assert!(culprits.iter().all(|&culprit| culprit >= chunks), "round {round}");
                    assert!(data.iter().enumerate().all(|(at, &value)| value == at / chunk_len + 1));
                    assert_eq!(scratch.iter().sum::<usize>(), chunks);
                }
                Err(payload) => {
                    let index = *payload.downcast::<usize>().unwrap();
                    assert!(culprits.contains(&index) && index < chunks, "round {round}");
                    assert!(
                        data.iter().enumerate().all(|(at, &value)| [0, at / chunk_len + 1].contains(&value))
                    );
                }
            }
            if below(4) == 0 && !cfg!(miri) {
                std::thread::sleep(Duration::from_micros(below(150) as u64));
            }
        }
    }
}

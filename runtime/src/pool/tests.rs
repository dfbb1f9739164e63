//! The pool alone. Under Miri, which runs every step a thousand times slower and finds what a clock cannot, fewer rounds
//! and nothing about time.

use super::*;

#[test]
fn every_chunk_is_visited_once() {
    for threads in [1, 2, 3, 7] {
        let mut pool = Pool::new(threads, false).unwrap();
        for len in [0usize, 1, 5, 64, 1000] {
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
            // The caller gets to park too.
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
    while begin.elapsed() < Duration::from_secs(1) {
        let mut data = [0; 2];
        pool.for_chunks(2, &mut data, 1, &mut [(); 2], |_, chunk, _| chunk[0] = 1);
        assert_eq!(data, [1; 2]);
        // Around the moment at which the worker gives up spinning, a little later each round.
        round = (round + 1) % 400;
        let pause = SPIN + Duration::from_nanos(100 * round);
        let paused = Instant::now();
        while paused.elapsed() < pause {}
    }
}

#[test]
fn who_is_late_is_left_out_for_a_while() {
    let mut pool = Pool::new(3, false).unwrap();
    let caller = std::thread::current().id();
    let mut threads_of = |late: bool| {
        let mut ids = [caller; 3];
        pool.for_chunks(3, &mut ids, 1, &mut [(); 3], |index, id, _| {
            id[0] = std::thread::current().id();
            // Everyone has to take one.
            let pause = if late && index == 2 { 20 * LATE } else { Duration::from_micros(300) };
            std::thread::sleep(pause);
        });
        ids.iter().collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!(threads_of(true), 3);
    let left = Instant::now();
    assert!(threads_of(false) < 3);
    while threads_of(false) < 3 {
        assert!(left.elapsed() < 100 * LEAVE[1], "it never comes back");
    }
    assert!(left.elapsed() >= LEAVE[0]);
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

//! Which CPU a thread runs on.

/// Pins the calling thread to the `index`-th CPU that this process may use. Says whether that was done; where the
/// system has no such call, or refuses, the thread stays where the scheduler wants it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn pin_to(index: usize) -> bool {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: all zeros is the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `allowed` is a set of `size` bytes, 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size, &mut allowed) } != 0 {
        return false;
    }
    let cpus = 0..libc::CPU_SETSIZE as usize;
    // SAFETY: `cpu` is below the size of the set.
    let Some(cpu) = cpus.filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &allowed) }).nth(index) else {
        return false;
    };
    // SAFETY: all zeros is the empty set.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` is below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut one) };
    // SAFETY: `one` is a set of `size` bytes, 0 is the calling thread.
    unsafe { libc::sched_setaffinity(0, size, &one) == 0 }
}

/// Keeps the calling thread, and threads that it starts from now on, on these CPUs.
///
/// Fails, and names the first that cannot be had, where the system refuses one of them.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn stay_on(cpus: &[usize]) -> Result<(), String> {
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: all zeros is the empty set.
    let mut wanted: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus {
        if cpu >= libc::CPU_SETSIZE as usize {
            return Err(format!("CPU {cpu} is beyond {}", libc::CPU_SETSIZE - 1));
        }
        // SAFETY: `cpu` is below the size of the set.
        unsafe { libc::CPU_SET(cpu, &mut wanted) };
    }
    // SAFETY: all zeros is the empty set.
    let mut before: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `before` is a set of `size` bytes, 0 is the calling thread.
    let known = unsafe { libc::sched_getaffinity(0, size, &mut before) } == 0;
    // SAFETY: `wanted` is a set of `size` bytes, 0 is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size, &wanted) } != 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    // SAFETY: all zeros is the empty set.
    let mut given: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `given` is a set of `size` bytes, 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size, &mut given) } != 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    // The system leaves out without a word what a group of processes may not use.
    // SAFETY: every `cpu` was found to be below the size of the set above.
    let missing = cpus.iter().find(|&&cpu| !unsafe { libc::CPU_ISSET(cpu, &given) });
    let Some(missing) = missing else { return Ok(()) };
    if known {
        // SAFETY: `before` is a set of `size` bytes, 0 is the calling thread. It was in force before.
        unsafe { libc::sched_setaffinity(0, size, &before) };
    }
    Err(format!("the system does not give CPU {missing}"))
}

/// Other systems have no such call without further dependencies.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn pin_to(_index: usize) -> bool {
    false
}

/// Other systems have no such call without further dependencies.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn stay_on(_cpus: &[usize]) -> Result<(), String> {
    Err("this system has no call for that".into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn a_pinned_thread_has_one_cpu_left() {
        std::thread::spawn(|| {
            assert!(super::pin_to(0));
            assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
            assert!(!super::pin_to(1));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_stays_where_it_was_put_and_so_do_those_it_starts() {
        std::thread::spawn(|| {
            let cpus = || std::thread::available_parallelism().unwrap().get();
            let before = cpus();
            assert!(super::stay_on(&[1_000_000]).unwrap_err().contains("1000000"));
            assert!(super::stay_on(&[]).is_err());
            assert!(super::stay_on(&[1023]).is_err(), "a CPU that no machine of these tests has");
            assert!(super::stay_on(&[0, 1023]).unwrap_err().contains("1023"));
            assert_eq!(cpus(), before, "what failed changed nothing");
            super::stay_on(&[0]).unwrap();
            assert_eq!(cpus(), 1);
            assert_eq!(std::thread::spawn(cpus).join().unwrap(), 1);
        })
        .join()
        .unwrap();
    }
}

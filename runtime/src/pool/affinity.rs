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

/// Other systems have no such call without further dependencies.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn pin_to(_index: usize) -> bool {
    false
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
}

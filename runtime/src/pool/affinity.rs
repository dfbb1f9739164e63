//! Which CPU a thread runs on.

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{CpuSet, Visit, pin_to};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use other::{CpuSet, Visit, pin_to};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::io;

    /// Some CPUs, as the system's calls take them.
    #[derive(Clone, Copy)]
    pub(crate) struct CpuSet(libc::cpu_set_t);

    /// The calling thread is on other CPUs than its own until this is dropped, on the same thread.
    pub(crate) struct Visit {
        home: CpuSet,
    }

    impl CpuSet {
        /// These CPUs. Fails, and names the first that cannot be had, where the system refuses one of them.
        pub fn new(cpus: &[usize]) -> Result<Self, String> {
            let mut wanted = Self::empty();
            for &cpu in cpus {
                if cpu >= libc::CPU_SETSIZE as usize {
                    return Err(format!("CPU {cpu} is beyond {}", libc::CPU_SETSIZE - 1));
                }
                wanted.insert(cpu);
            }
            let home = Self::of_this_thread().map_err(|error| error.to_string())?;
            wanted.apply().map_err(|error| error.to_string())?;
            let _visit = Visit { home };
            let given = Self::of_this_thread().map_err(|error| error.to_string())?;
            // The system leaves out without a word what a group of processes may not use.
            match cpus.iter().find(|&&cpu| !given.contains(cpu)) {
                Some(missing) => Err(format!("the system does not give CPU {missing}")),
                None => Ok(wanted),
            }
        }

        /// Moves the calling thread onto these CPUs. `None` where it is kept on just these already, or where the system
        /// refuses now what it gave before: then it computes where it is.
        pub fn visit(&self) -> Option<Visit> {
            let home = Self::of_this_thread().ok()?;
            // SAFETY: both are sets.
            let is_here = unsafe { libc::CPU_EQUAL(&home.0, &self.0) };
            if is_here {
                return None;
            }
            self.apply().ok()?;
            Some(Visit { home })
        }

        fn empty() -> Self {
            // SAFETY: all zeros is the empty set.
            Self(unsafe { std::mem::zeroed() })
        }

        fn of_this_thread() -> io::Result<Self> {
            let mut set = Self::empty();
            // SAFETY: the set has that size; 0 is the calling thread.
            match unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set.0) } {
                0 => Ok(set),
                _ => Err(io::Error::last_os_error()),
            }
        }

        fn apply(&self) -> io::Result<()> {
            // SAFETY: the set has that size; 0 is the calling thread.
            match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }

        /// Panics if there can be no such CPU in a set.
        fn insert(&mut self, cpu: usize) {
            assert!(cpu < libc::CPU_SETSIZE as usize);
            // SAFETY: `cpu` is below the size of the set.
            unsafe { libc::CPU_SET(cpu, &mut self.0) }
        }

        fn contains(&self, cpu: usize) -> bool {
            // SAFETY: `cpu` is below the size of the set, which is looked at first.
            cpu < libc::CPU_SETSIZE as usize && unsafe { libc::CPU_ISSET(cpu, &self.0) }
        }
    }

    impl Drop for Visit {
        fn drop(&mut self) {
            // It was in force before. Where the system has taken those CPUs away meanwhile, the thread stays.
            let _ = self.home.apply();
        }
    }

    /// Pins the calling thread to the `index`-th CPU that this process may use. Says whether that was done; where the
    /// system refuses, the thread stays where the scheduler wants it.
    pub(crate) fn pin_to(index: usize) -> bool {
        let Ok(allowed) = CpuSet::of_this_thread() else { return false };
        let mut cpus = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| allowed.contains(cpu));
        let Some(cpu) = cpus.nth(index) else { return false };
        let mut one = CpuSet::empty();
        one.insert(cpu);
        one.apply().is_ok()
    }
}

/// Other systems have no such calls without further dependencies.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod other {
    #[derive(Clone, Copy)]
    pub(crate) struct CpuSet;

    pub(crate) struct Visit;

    impl CpuSet {
        pub fn new(_cpus: &[usize]) -> Result<Self, String> {
            Err("this system has no call for that".into())
        }

        pub fn visit(&self) -> Option<Visit> {
            None
        }
    }

    pub(crate) fn pin_to(_index: usize) -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{CpuSet, pin_to};

    fn cpus() -> usize {
        std::thread::available_parallelism().unwrap().get()
    }

    #[test]
    fn a_pinned_thread_has_one_cpu_left() {
        std::thread::spawn(|| {
            assert!(pin_to(0));
            assert_eq!(cpus(), 1);
            assert!(!pin_to(1));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_visits_and_comes_home_and_those_it_starts_meanwhile_stay() {
        std::thread::spawn(|| {
            let before = cpus();
            let refused = |cpus: &[usize]| CpuSet::new(cpus).err().unwrap();
            assert!(refused(&[1_000_000]).contains("1000000"));
            refused(&[]);
            refused(&[1023]);
            assert!(refused(&[0, 1023]).contains("1023"), "a CPU that no machine of these tests has");
            let first = CpuSet::new(&[0]).unwrap();
            assert_eq!(cpus(), before, "asking changed nothing");
            let visit = first.visit();
            assert_eq!((cpus(), std::thread::spawn(cpus).join().unwrap()), (1, 1));
            drop(visit);
            assert_eq!(cpus(), before);
            assert!(pin_to(0));
            assert!(first.visit().is_none(), "it is there already");
        })
        .join()
        .unwrap();
    }
}

//! CPU affinity of threads.

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{CpuSet, Visit, pin_to};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use other::{CpuSet, Visit, pin_to};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::io;

    /// A set of CPUs in the form of the system's calls.
    #[derive(Clone, Copy)]
    pub(crate) struct CpuSet(libc::cpu_set_t);

    /// Moves the calling thread to other CPUs until this is dropped, on the same thread.
    pub(crate) struct Visit {
        home: CpuSet,
    }

    impl CpuSet {
        /// A set of these CPUs. Fails where the system refuses one of them, and names the first
        /// such.
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
            // The system silently drops CPUs that a control group may not use.
            match cpus.iter().find(|&&cpu| !given.contains(cpu)) {
                Some(missing) => Err(format!("the system does not give CPU {missing}")),
                None => Ok(wanted),
            }
        }

        /// Moves the calling thread to these CPUs. `None` where it is already bound to exactly
        /// these, or where the system now refuses what it allowed before: the thread then computes
        /// where it is.
        pub fn visit(&self) -> Option<Visit> {
            let home = Self::of_this_thread().ok()?;
            // SAFETY: both are valid sets.
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

        /// Panics if the set cannot hold this CPU number.
        fn insert(&mut self, cpu: usize) {
            assert!(cpu < libc::CPU_SETSIZE as usize);
            // SAFETY: `cpu` is below the size of the set.
            unsafe { libc::CPU_SET(cpu, &mut self.0) }
        }

        fn contains(&self, cpu: usize) -> bool {
            // SAFETY: `cpu` is below the size of the set, which is checked first.
            cpu < libc::CPU_SETSIZE as usize && unsafe { libc::CPU_ISSET(cpu, &self.0) }
        }
    }

    impl Drop for Visit {
        fn drop(&mut self) {
            // This set was in force before. If the system has since taken those CPUs away, the
            // thread stays.
            let _ = self.home.apply();
        }
    }

    /// Pins the calling thread to the `index`-th CPU that this process may use. Returns whether it
    /// succeeded; where the system refuses, the scheduler places the thread.
    pub(crate) fn pin_to(index: usize) -> bool {
        let Ok(allowed) = CpuSet::of_this_thread() else { return false };
        let mut cpus = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| allowed.contains(cpu));
        let Some(cpu) = cpus.nth(index) else { return false };
        let mut one = CpuSet::empty();
        one.insert(cpu);
        one.apply().is_ok()
    }
}

/// Other systems need further dependencies for such calls.
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

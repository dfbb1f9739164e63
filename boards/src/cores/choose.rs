//! Choice of cores and of the number of threads.

use super::{Cores, Cpu, cpu_list};
use crate::error::MachineError;
use serde::Serialize;

/// The user's request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// Number of threads.
    pub threads: Option<usize>,
    /// The only CPUs to use, by number.
    pub cpus: Option<&'a [usize]>,
}

/// The number of threads, and their CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// Number of threads; `None` if the system reports nothing about its cores.
    pub threads: Option<usize>,
    /// The CPUs that threads are pinned to; `None` leaves them to the scheduler.
    pub cpus: Option<Vec<usize>>,
    /// The reason, in a few words.
    pub reason: String,
}

impl Cores {
    /// Numbers of the big cores.
    ///
    /// By capacity, cores with more than half of the largest: all threads get equal shares of a
    /// matrix, so a core of half the speed slows the others down. Without capacities, by highest
    /// frequency, cores with at least four fifths of the largest: small cores in mixed processors
    /// run at three quarters or less, while cores of one kind differ by a few percent. All cores,
    /// if neither is known for all.
    pub(super) fn big(&self, cpus: &[&Cpu]) -> Vec<usize> {
        let all = |figure: fn(&Cpu) -> Option<u64>| -> Option<Vec<(usize, u64)>> {
            cpus.iter().map(|cpu| figure(cpu).map(|value| (cpu.index, value))).collect()
        };
        let most = |figures: &[(usize, u64)]| figures.iter().map(|(_, value)| *value).max().unwrap_or(0);
        let pick = |figures: Vec<(usize, u64)>, is_big: &dyn Fn(u64, u64) -> bool| {
            let most = most(&figures);
            figures.into_iter().filter(|(_, value)| is_big(*value, most)).map(|(index, _)| index).collect()
        };
        if let Some(capacities) = all(|cpu| cpu.capacity) {
            return pick(capacities, &|value, most| 2 * value > most);
        }
        if let Some(frequencies) = all(|cpu| cpu.max_hz) {
            return pick(frequencies, &|value, most| 5 * value >= 4 * most);
        }
        cpus.iter().map(|cpu| cpu.index).collect()
    }

    /// Chooses the number of threads and their CPUs.
    ///
    /// Without a request: one thread per big core that this process may use, however many logical
    /// cores share it, and no more than the control groups' time allows. If there are smaller
    /// cores, threads are kept off them.
    ///
    /// Fails if a requested CPU does not exist, is offline or not allowed, or if there are more
    /// threads than CPUs.
    pub fn choose(&self, wanted: Wanted<'_>) -> Result<Choice, MachineError> {
        if let Some(cpus) = wanted.cpus {
            return self.choose_listed(cpus, wanted.threads);
        }
        let may = |cpu: &&Cpu| self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&cpu.index));
        let usable: Vec<&Cpu> = self.cpus.iter().filter(may).collect();
        if usable.is_empty() {
            let reason = "the system does not tell its cores".into();
            return Ok(Choice { threads: wanted.threads, cpus: None, reason });
        }
        let big = self.big(&usable);
        let mixed = big.len() < usable.len();
        let cores = self.hardware(&big);
        let mut reason = match mixed {
            true => {
                format!("{cores} big of {} cores (CPUs {})", self.hardware(&indices(&usable)), cpu_list(&big))
            }
            false => format!("{cores} cores"),
        };
        if big.len() > cores {
            reason += &format!(", {} logical", big.len());
        }
        let threads = match wanted.threads {
            Some(threads) => {
                reason = format!("{threads} asked for; {reason}");
                threads
            }
            None => self.within_quota(cores, &mut reason),
        };
        // A request beyond the number of big cores needs the small ones too. They are listed in
        // full, because an earlier session may have pinned this thread to the big ones.
        let cpus = mixed.then(|| if threads <= big.len() { big } else { indices(&usable) });
        Ok(Choice { threads: Some(threads), cpus, reason })
    }

    fn choose_listed(&self, cpus: &[usize], threads: Option<usize>) -> Result<Choice, MachineError> {
        let wrong = |reason: String| MachineError::Cpus { list: cpu_list(cpus), reason };
        let list = |wanted: &dyn Fn(&usize) -> bool| {
            let found: Vec<usize> = cpus.iter().copied().filter(|cpu| wanted(cpu)).collect();
            (!found.is_empty()).then(|| cpu_list(&found))
        };
        let known = indices(&self.cpus.iter().collect::<Vec<_>>());
        if cpus.is_empty() || known.is_empty() {
            let reason = if cpus.is_empty() { "names no CPU" } else { "the system does not tell its CPUs" };
            return Err(wrong(reason.into()));
        }
        if let Some(off) = list(&|cpu| self.offline.contains(cpu)) {
            return Err(wrong(format!("{off} is switched off; there are {}", cpu_list(&known))));
        }
        if let Some(missing) = list(&|cpu| !known.contains(cpu)) {
            return Err(wrong(format!("{missing} does not exist; there are {}", cpu_list(&known))));
        }
        if let Some(allowed) = &self.allowed
            && let Some(denied) = list(&|cpu| !allowed.contains(cpu))
        {
            let allowed = cpu_list(allowed);
            return Err(wrong(format!("this process may not run on {denied}; it may on {allowed}")));
        }
        if let Some(threads) = threads.filter(|&threads| threads > cpus.len()) {
            return Err(wrong(format!(
                "{threads} threads were asked for, more than the {} CPUs",
                cpus.len()
            )));
        }
        let mut reason = format!("CPUs {} asked for", cpu_list(cpus));
        let threads = threads.unwrap_or_else(|| self.within_quota(cpus.len(), &mut reason));
        Ok(Choice { threads: Some(threads), cpus: Some(cpus.to_vec()), reason })
    }

    /// No more threads than whole cores in the groups' time, at least one.
    fn within_quota(&self, threads: usize, reason: &mut String) -> usize {
        let Some(quota) = self.quota_cpus else { return threads };
        // A thread with half a core's time becomes a straggler.
        let whole = (quota.floor() as usize).max(1);
        if whole < threads {
            *reason += &format!(", of which the control group leaves time for {quota:.2}");
        }
        threads.min(whole)
    }

    /// Number of physical cores behind some logical ones.
    fn hardware(&self, cpus: &[usize]) -> usize {
        let listed = self.cpus.iter().filter(|cpu| cpus.contains(&cpu.index));
        let mut siblings: Vec<usize> = listed.map(|cpu| cpu.first_sibling).collect();
        siblings.sort_unstable();
        siblings.dedup();
        siblings.len()
    }
}

fn indices(cpus: &[&Cpu]) -> Vec<usize> {
    cpus.iter().map(|cpu| cpu.index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cores with the given capacity and frequency in GHz, each physical.
    fn cores(figures: &[(Option<u64>, Option<f64>)]) -> Cores {
        let cpu = |(index, &(capacity, ghz)): (usize, &(Option<u64>, Option<f64>))| Cpu {
            index,
            name: None,
            capacity,
            max_hz: ghz.map(|ghz| (ghz * 1e9) as u64),
            allowed_hz: None,
            current_hz: None,
            first_sibling: index,
        };
        Cores { cpus: figures.iter().enumerate().map(cpu).collect(), ..Cores::default() }
    }

    fn phone() -> Cores {
        let capacities = [300, 300, 300, 300, 870, 870, 870, 1024];
        cores(&capacities.map(|capacity| (Some(capacity), Some(2.0))))
    }

    fn default(cores: &Cores) -> (Option<usize>, Option<Vec<usize>>) {
        let choice = cores.choose(Wanted::default()).unwrap();
        (choice.threads, choice.cpus)
    }

    #[test]
    fn the_big_cores_of_a_phone_are_chosen_by_capacity() {
        assert_eq!(default(&phone()), (Some(4), Some(vec![4, 5, 6, 7])));
        let reason = phone().choose(Wanted::default()).unwrap().reason;
        assert!(reason.contains("4 big of 8 cores (CPUs 4-7)"), "{reason}");
    }

    #[test]
    fn without_capacities_the_highest_frequency_decides() {
        let rk3588 = cores(&[1.8, 1.8, 1.8, 1.8, 2.4, 2.4, 2.3, 2.3].map(|ghz| (None, Some(ghz))));
        assert_eq!(default(&rk3588), (Some(4), Some(vec![4, 5, 6, 7])));
        let desktop = cores(&[5.0, 5.2, 4.9, 5.0].map(|ghz| (None, Some(ghz))));
        assert_eq!(default(&desktop), (Some(4), None), "cores of one kind are left to the scheduler");
        // One missing figure disables the frequencies.
        let mut partly = rk3588.clone();
        partly.cpus[0].max_hz = None;
        assert_eq!(default(&partly), (Some(8), None));
        assert_eq!(default(&Cores::default()), (None, None));
    }

    #[test]
    fn logical_cores_that_share_hardware_get_one_thread() {
        let mut hybrid = cores(&[4.8, 4.8, 4.8, 4.8, 3.5, 3.5].map(|ghz| (None, Some(ghz))));
        (hybrid.cpus[1].first_sibling, hybrid.cpus[3].first_sibling) = (0, 2);
        assert_eq!(default(&hybrid), (Some(2), Some(vec![0, 1, 2, 3])));
    }

    #[test]
    fn the_mask_and_the_groups_limit_the_choice() {
        let mut phone = phone();
        phone.allowed = Some(vec![0, 1, 4, 5]);
        assert_eq!(default(&phone), (Some(2), Some(vec![4, 5])));
        phone.allowed = Some(vec![0, 1]);
        assert_eq!(default(&phone), (Some(2), None), "the biggest of those allowed");
        phone.allowed = None;
        for (quota, threads) in [(2.5, 2), (0.3, 1), (100.0, 4)] {
            phone.quota_cpus = Some(quota);
            assert_eq!(default(&phone).0, Some(threads), "{quota}");
        }
        phone.quota_cpus = Some(2.5);
        assert!(phone.choose(Wanted::default()).unwrap().reason.contains("2.50"));
    }

    #[test]
    fn threads_that_are_asked_for_are_given() {
        let choose = |threads| {
            let choice = phone().choose(Wanted { threads: Some(threads), cpus: None }).unwrap();
            (choice.threads, choice.cpus)
        };
        assert_eq!(choose(2), (Some(2), Some(vec![4, 5, 6, 7])));
        assert_eq!(choose(8), (Some(8), Some((0..8).collect())));
    }

    #[test]
    fn cpus_that_are_asked_for_are_checked() {
        let mut phone = phone();
        let choose = |cores: &Cores, cpus: &[usize], threads| {
            let choice = cores.choose(Wanted { threads, cpus: Some(cpus) });
            choice.map(|choice| (choice.threads, choice.cpus)).map_err(|error| error.to_string())
        };
        assert_eq!(choose(&phone, &[0, 7], None).unwrap(), (Some(2), Some(vec![0, 7])));
        assert_eq!(choose(&phone, &[0, 7], Some(1)).unwrap(), (Some(1), Some(vec![0, 7])));
        let message = choose(&phone, &[6, 8, 9], None).unwrap_err();
        assert!(
            message.contains("6,8-9") && message.contains("8-9 does not exist; there are 0-7"),
            "{message}"
        );
        let message = choose(&phone, &[6, 7], Some(3)).unwrap_err();
        assert!(message.contains("3 threads") && message.contains("2 CPUs"), "{message}");
        phone.allowed = Some(vec![0, 1]);
        let message = choose(&phone, &[1, 7], None).unwrap_err();
        assert!(message.contains("may not run on 7; it may on 0-1"), "{message}");
        phone.offline = vec![8];
        assert!(choose(&phone, &[8], None).unwrap_err().contains("8 is switched off"));
        assert!(choose(&Cores::default(), &[0], None).unwrap_err().contains("does not tell"));
        assert!(choose(&phone, &[], None).unwrap_err().contains("names no CPU"));
    }
}

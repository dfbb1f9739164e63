//! Processor time that other programs used while a child ran.

use anyhow::Context;
use std::time::Instant;

/// Linux reports times to programs in hundredths of a second, whatever the kernel's tick.
const TICKS_PER_S: f64 = 100.0;

/// A moment: busy time of all processors, of this process, and of its ended children.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    busy_ticks: u64,
    own_ticks: u64,
    at: Instant,
}

impl Moment {
    /// Reads both counters.
    pub fn now() -> anyhow::Result<Self> {
        let read = |path: &str| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {path}, which Linux has"))
        };
        let (all, own) = (read("/proc/stat")?, read("/proc/self/stat")?);
        Ok(Self {
            busy_ticks: busy_ticks(&all)
                .context("/proc/stat does not begin with the times of all processors")?,
            own_ticks: own_ticks(&own).context("/proc/self/stat holds no times")?,
            at: Instant::now(),
        })
    }

    /// Processors that others kept busy since then, on average: 0.5 is half of one. Time stolen by
    /// a virtual machine's host counts.
    pub fn foreign_cores(&self) -> anyhow::Result<f64> {
        let now = Self::now()?;
        let seconds = (now.at - self.at).as_secs_f64();
        Ok(foreign(now.busy_ticks - self.busy_ticks, now.own_ticks - self.own_ticks, seconds))
    }
}

fn foreign(busy_ticks: u64, own_ticks: u64, seconds: f64) -> f64 {
    busy_ticks.saturating_sub(own_ticks) as f64 / TICKS_PER_S / seconds.max(1.0 / TICKS_PER_S)
}

/// All ticks except idle and disk wait; guests are part of the first two.
fn busy_ticks(stat: &str) -> Option<u64> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, nice, system, _idle, _wait, rest @ ..] = times.as_slice() else { return None };
    Some(user + nice + system + rest.iter().take(3).sum::<u64>())
}

/// utime, stime, cutime, cstime, the 14th to 17th field; the second field, the name, may contain
/// spaces.
fn own_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let times: Vec<&str> = fields.split_whitespace().skip(11).take(4).collect();
    let times: Vec<u64> = times.into_iter().map(str::parse).collect::<Result<_, _>>().ok()?;
    (times.len() == 4).then(|| times.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_counters_are_read() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(busy_ticks(stat), Some(100 + 20 + 30 + 6 + 7 + 8));
        assert_eq!(busy_ticks("intr 5"), None);
        let own = "42 (a ) b) R 1 42 1 0 -1 4194560 99 98 0 0 11 12 13 14 20 0 1 0 5 6 7";
        assert_eq!(own_ticks(own), Some(11 + 12 + 13 + 14));
        assert_eq!(own_ticks("42 (x) R 1 2"), None);
    }

    #[test]
    fn what_is_not_ours_is_foreign() {
        assert_eq!(foreign(300, 200, 2.0), 0.5);
        // The counters are read in sequence and may disagree by a tick.
        assert_eq!(foreign(10, 11, 0.5), 0.0);
    }

    #[test]
    fn a_child_of_ours_is_not_foreign() {
        let before = Moment::now().unwrap();
        let status = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
            .status()
            .unwrap();
        assert!(status.success());
        let after = Moment::now().unwrap();
        assert!(after.own_ticks > before.own_ticks);
        assert!(before.foreign_cores().unwrap() >= 0.0);
    }
}

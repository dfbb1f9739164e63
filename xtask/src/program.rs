//! Runs a program for its output, and measures its time and memory.

use anyhow::Context;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Polling interval of a program's memory. The system keeps the peak, so only a growth in the last
/// interval is missed.
const EVERY: Duration = Duration::from_millis(100);

/// Output and cost of a run.
#[derive(Debug)]
pub struct Ran {
    /// Standard output, as JSON.
    pub said: Value,
    pub seconds: f64,
    /// Peak resident memory; `None` if the system does not report it.
    pub peak_bytes: Option<u64>,
}

/// Runs `command`, which prints JSON. An error holds the command and its standard error.
pub fn run(mut command: Command) -> anyhow::Result<Ran> {
    let started = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child =
        command.spawn().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let (id, (done, wait)) = (child.id(), channel());
    let watcher = std::thread::spawn(move || peak_bytes(id, &wait));
    let output = child.wait_with_output();
    let seconds = started.elapsed().as_secs_f64();
    drop(done);
    let peak_bytes = watcher.join().expect("the watcher does not panic");
    let output = output.with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{command:?} ended with {}: {errors}", output.status);
    let said = serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?}"))?;
    Ok(Ran { said, seconds, peak_bytes })
}

/// Peak memory of a process until `done` is closed.
fn peak_bytes(id: u32, done: &Receiver<()>) -> Option<u64> {
    let mut peak = None;
    loop {
        peak = status_peak(id).max(peak);
        if done.recv_timeout(EVERY) == Err(RecvTimeoutError::Disconnected) {
            return peak;
        }
    }
}

/// `VmHWM` of `/proc/ID/status`, in bytes.
fn status_peak(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_run_gives_what_was_printed_and_taken() {
        let ran = run(shell("sleep 0.3; echo '{\"a\": [1, 2]}'")).unwrap();
        assert_eq!(ran.said["a"][1], 2);
        assert!((0.3..30.0).contains(&ran.seconds), "{}", ran.seconds);
        if cfg!(target_os = "linux") {
            assert!(ran.peak_bytes.unwrap() > 100_000, "{:?}", ran.peak_bytes);
        }
    }

    #[test]
    fn failures_say_what_the_program_said() {
        let message = |script| run(shell(script)).unwrap_err().to_string();
        assert!(message("echo no room >&2; exit 4").contains("no room"));
        assert!(message("echo not JSON").contains("not JSON"));
        assert!(run(Command::new("/nonexistent/x")).unwrap_err().to_string().contains("cannot start"));
    }
}

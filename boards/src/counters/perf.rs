//! Counts from the kernel's perf events.

use super::event::Event;
use perf_event::events::Software;
use perf_event::{Builder, Counter};
use std::io::ErrorKind;

/// Events counted together.
pub struct PerfCount {
    counters: Vec<(String, Counter)>,
}

impl PerfCount {
    /// Starts counting: for the whole machine if the event's unit serves it, otherwise for this
    /// process and the threads it starts later.
    pub fn open(events: &[Event]) -> Result<Self, String> {
        let mut counters = Vec::new();
        for event in events {
            // One place per processor of the unit, or one for this process.
            let places: Vec<Option<usize>> = match event.cpus.as_slice() {
                [] => vec![None],
                cpus => cpus.iter().copied().map(Some).collect(),
            };
            for cpu in places {
                let counter = open(event, cpu).map_err(|error| match error.kind() {
                    ErrorKind::PermissionDenied => format!(
                        "{} may not be counted; allow it until the next start with: sudo sysctl \
                         kernel.perf_event_paranoid=-1",
                        event.name
                    ),
                    ErrorKind::NotFound => format!("{}: the kernel knows no such event here", event.name),
                    _ => format!("{}: {error}", event.name),
                })?;
                counters.push((event.name.clone(), counter));
            }
        }
        Ok(Self { counters })
    }

    /// The sum over all events since they were opened. With more events than hardware counters,
    /// counts are scaled up by the share of time they ran.
    pub fn read(&mut self) -> Result<u64, String> {
        let mut sum = 0.0;
        for (name, counter) in &mut self.counters {
            let data = counter.read_full().map_err(|error| format!("{name}: {error}"))?;
            let share = match (data.time_enabled(), data.time_running()) {
                (Some(enabled), Some(running)) if !enabled.is_zero() => {
                    running.as_secs_f64() / enabled.as_secs_f64()
                }
                _ => 1.0,
            };
            if share <= 0.0 {
                return Err(format!("{name}: no counter was free for it"));
            }
            sum += data.count() as f64 / share;
        }
        Ok(sum as u64)
    }
}

fn open(event: &Event, cpu: Option<usize>) -> std::io::Result<Counter> {
    let mut builder = Builder::new(Software::DUMMY);
    let attributes = builder.attrs_mut();
    attributes.type_ = event.unit;
    attributes.config = event.config[0];
    attributes.config1 = event.config[1];
    attributes.config2 = event.config[2];
    match cpu {
        // Units outside the cores cannot separate kernel from user accesses and refuse the
        // exclusion.
        Some(cpu) => builder.any_pid().one_cpu(cpu).exclude_kernel(false).exclude_hv(false),
        None => builder.observe_self().any_cpu().inherit(true),
    };
    let mut counter = builder.build()?;
    counter.enable()?;
    Ok(counter)
}

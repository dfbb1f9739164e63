//! What machine this is: board, processor, caches, memory, as the operating system tells it; what is known of such a
//! board beforehand, with who says so ([`profile`]); which cores a model should run on ([`Cores`]); how hot it is, and
//! whether it is slowed down ([`Heat`]). And what it costs to use it: [`meters`] of energy, [`counters`] of memory
//! traffic, the ceiling of its memory, and a model for where there is no meter. The protocol of measuring is in
//! `pith-bench`.
//!
//! Everything is read below a root folder that is a parameter, so that recorded trees of real boards serve as tests.
#![forbid(unsafe_code)]

mod bandwidth;
pub mod calibrate;
mod cores;
pub mod counters;
mod cpu;
mod error;
mod heat;
mod machine;
mod memory;
pub mod meters;
mod model;
pub mod profile;

pub use bandwidth::{Ceiling, Streamer, buffer_bytes, ceilings};
pub use cores::{Choice, CoreClass, Cores, Cpu, Wanted, cpu_list, cpu_quota_below, parse_cpu_list};
pub use cpu::{Cache, CacheKind, Processor};
pub use error::MeasureError;
pub use heat::{Gauge, Heat, Stretch, Throttle, Watch, Zone};
pub use machine::{Machine, MachineError};
pub use memory::{available_memory, available_memory_below};
pub use model::{EnergyModel, Estimate, ModelKind};

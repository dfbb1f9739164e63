//! What machine this is: board, processor, caches, memory, as the operating system tells it; what is known of such a
//! board beforehand, with who says so ([`profile`]); which cores a model should run on ([`Cores`]); how hot it is, and
//! whether it is slowed down ([`Heat`]).
//!
//! Everything is read below a root folder that is a parameter, so that recorded trees of real boards serve as tests.
#![forbid(unsafe_code)]

mod cores;
mod cpu;
mod heat;
mod machine;
mod memory;
mod model;
pub mod profile;

pub use cores::{Choice, CoreClass, Cores, Cpu, Wanted, cpu_list, cpu_quota_below, parse_cpu_list};
pub use cpu::{Cache, CacheKind, Processor};
pub use heat::{Conditions, Gauge, Heat, Stretch, Throttle, Watch, Zone};
pub use machine::{Machine, MachineError};
pub use memory::{available_memory, available_memory_below};
pub use model::{EnergyModel, Estimate, ModelKind};

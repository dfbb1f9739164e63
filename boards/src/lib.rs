//! Facts about the machine and meters for its energy.
//!
//! [`Machine`] holds board, processor, caches and memory as the operating system reports them;
//! [`profile`] adds published facts about a known board, each with its source. [`Cores`] chooses
//! the cores for a model, and [`Heat`] reports temperature and throttling. [`meters`] measure
//! energy, or model it where there is no sensor; [`counters`] measure memory traffic, and
//! [`bandwidth`](ceilings) the ceiling of memory speed. The measurement protocol is in
//! `pith-bench`.
//!
//! All files are read below a root folder given as a parameter, so recorded trees of real boards
//! serve as tests.
#![forbid(unsafe_code)]

mod bandwidth;
mod cores;
pub mod counters;
mod cpu;
pub mod energy_fit;
mod energy_model;
mod error;
mod heat;
mod machine;
mod memory;
pub mod meters;
pub mod profile;
mod sysfs;
mod unusable;

pub use bandwidth::{Ceiling, Streamer, buffer_bytes, ceilings};
pub use cores::{Choice, CoreClass, Cores, Cpu, Wanted, cpu_list, cpu_quota_below, parse_cpu_list};
pub use cpu::{Cache, CacheKind, Processor};
pub use energy_model::{EnergyModel, Estimate, ModelKind};
pub use error::{MachineError, MeasureError};
pub use heat::{Gauge, Heat, Stretch, Throttle, Watch, Zone};
pub use machine::Machine;
pub use memory::{available_memory, available_memory_below};
pub use unusable::Unusable;

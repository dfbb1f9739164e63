//! What machine this is: board, processor, caches, memory, as the operating system tells it, and what it costs to use it:
//! meters of energy, counters of memory traffic, the ceiling of its memory, a model for where there is no meter, and the
//! protocol by which all this is measured.
//!
//! Everything is read below a root folder that is a parameter, so that recorded trees of real boards serve as tests.
#![forbid(unsafe_code)]

mod bandwidth;
pub mod calibrate;
pub mod counters;
mod cpu;
mod error;
mod machine;
mod memory;
pub mod meters;
mod model;
pub mod protocol;

pub use bandwidth::{Ceiling, Streamer, buffer_bytes, ceilings};
pub use cpu::{Cache, CacheKind, Processor};
pub use error::MeasureError;
pub use machine::{Machine, MachineError};
pub use memory::{available_memory, available_memory_below};
pub use model::{EnergyModel, Estimate, ModelKind};

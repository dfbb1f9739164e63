//! What machine this is: board, processor, caches, memory, as the operating system tells it.
//!
//! Everything is read below a root folder that is a parameter, so that recorded trees of real boards serve as tests.
#![forbid(unsafe_code)]

mod cpu;
mod machine;
mod memory;
mod model;

pub use cpu::{Cache, CacheKind, Processor};
pub use machine::{Machine, MachineError};
pub use memory::{available_memory, available_memory_below};
pub use model::{EnergyModel, Estimate, ModelKind};

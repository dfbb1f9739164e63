//! Options that several commands share: one file a group, with what the group leads to. None names
//! a command.

pub mod prompt_cache;
pub mod recording;
pub mod reply;
pub mod sampler;
pub mod session;

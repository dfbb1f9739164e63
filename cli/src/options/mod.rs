//! Options shared by several commands: one file per group, with the code that applies it. No group
//! knows a command.

pub mod prompt_cache;
pub mod recording;
pub mod reply;
pub mod sampler;
pub mod session;
pub mod template;

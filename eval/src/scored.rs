//! Choice of the scored positions.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Scored positions of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scored {
    /// The second half, so that each position has half a window before it, as in llama.cpp.
    #[default]
    SecondHalf,
    /// Every position that has a token after it.
    All,
}

impl fmt::Display for Scored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Scored::SecondHalf => "second-half",
            Scored::All => "all",
        })
    }
}

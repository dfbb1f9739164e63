//! Where the weights lie in memory, and why.

use super::large::large_bytes;
use std::fmt;
use std::time::{Duration, Instant};

/// Where a model's weights lie, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Pages {
    /// In the file's own pages, shared with other processes.
    Mapped(Reason),
    /// In memory that the caller gave.
    Given,
    /// In a copy in memory.
    Copied {
        /// Size of the copy.
        bytes: u64,
        /// Part of it in large pages; `None` where the system does not tell.
        large_bytes: Option<u64>,
        /// Time that copying took.
        time: Duration,
    },
}

/// Why a file stays mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Nobody asked for a copy.
    NotAsked,
    /// It is so small that nothing would be gained.
    Small,
    /// The system has no large pages, or never gives them.
    NoLargePages,
    /// The file's own pages are large.
    LargeAlready,
    /// The session's memory limit, or the memory available, is too small for a copy.
    Memory {
        /// Bytes that a copy and the session would need.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The session has no memory limit, so nobody knows whether a copy fits.
    NoLimit,
    /// The system refused memory for a copy.
    Refused,
}

impl fmt::Display for Pages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        match self {
            Self::Mapped(reason) => write!(formatter, "mapped ({reason})"),
            Self::Given => formatter.write_str("in memory"),
            Self::Copied { bytes, large_bytes, time } => {
                write!(formatter, "{:.0} MB copied in {:.2} s", megabytes(*bytes), time.as_secs_f64())?;
                match large_bytes {
                    Some(large) => {
                        let share = *large.min(bytes) as f64 / *bytes as f64;
                        write!(formatter, ", {:.0} % in large pages", 100.0 * share)
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        match self {
            Self::NotAsked => formatter.write_str("no copy asked for"),
            Self::Small => formatter.write_str("too small to gain by large pages"),
            Self::NoLargePages => formatter.write_str("this system gives no large pages"),
            Self::LargeAlready => formatter.write_str("its pages are large"),
            Self::Memory { needed, limit } => write!(
                formatter,
                "a copy in large pages needs {:.0} MB, {:.0} MB are there",
                megabytes(*needed),
                megabytes(*limit)
            ),
            Self::NoLimit => formatter.write_str("no memory limit known"),
            Self::Refused => formatter.write_str("the system refused memory for a copy"),
        }
    }
}

impl Pages {
    /// Those of a copy in `bytes` that was begun at this moment.
    pub(crate) fn of_copy(bytes: &[u8], begin: Instant) -> Self {
        let (time, large_bytes) = (begin.elapsed(), large_bytes(bytes));
        Self::Copied { bytes: bytes.len() as u64, large_bytes, time }
    }

    /// `mapped`, `given` or `copied`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mapped(_) => "mapped",
            Self::Given => "given",
            Self::Copied { .. } => "copied",
        }
    }
}

//! Types that [`probe`](crate::probe) shares with the loops of each instruction set.

/// 64 bytes: the unit of memory transfers.
pub(crate) type Line = [u8; 64];

/// An instruction, and a loop of the given number of iterations that returns the count of its
/// multiplications.
pub(crate) type MultiplyLoop = (&'static str, fn(u64) -> u64);

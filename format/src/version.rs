//! What tells a `.pith` file, and its version.

/// Not text: a text-mode transfer changes it visibly. A high bit, the name, CR LF, end-of-file.
pub const MAGIC: [u8; 8] = *b"\x89PITH\r\n\x1a";

/// Version of the format that this crate reads and writes. Version 1 was never released.
pub const VERSION: u32 = 2;

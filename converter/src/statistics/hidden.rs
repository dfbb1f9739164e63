//! The hidden states of all sequences between two layers: in memory, or in an unnamed file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::error::StatisticsError;

/// `tokens × hidden_len` values of every sequence, one sequence after the other.
pub(super) enum Hidden {
    Memory(Vec<f32>),
    /// A file that the system removes with the process, and a buffer for one sequence.
    File {
        file: File,
        values: Vec<f32>,
        bytes: Vec<u8>,
    },
}

impl Hidden {
    /// `values` in all, at most `longest` in a sequence; in an unnamed file in `folder` unless
    /// `in_memory`.
    pub fn new(
        values: usize,
        longest: usize,
        in_memory: bool,
        folder: &Path,
    ) -> Result<Self, StatisticsError> {
        if in_memory {
            return Ok(Hidden::Memory(vec![0.0; values]));
        }
        let file = tempfile::tempfile_in(folder).map_err(failed(folder, "create a temporary file"))?;
        file.set_len(4 * values as u64).map_err(failed(folder, "make room for the hidden states"))?;
        Ok(Hidden::File { file, values: vec![0.0; longest], bytes: Vec::with_capacity(4 * longest) })
    }

    /// Bytes that stay in memory.
    pub fn bytes(values: usize, longest: usize, in_memory: bool) -> u64 {
        if in_memory { 4 * values as u64 } else { 8 * longest as u64 }
    }

    /// Passes the `len` values from `first` on to `work`, and keeps its changes.
    pub fn with<X: From<StatisticsError>>(
        &mut self,
        (first, len): (usize, usize),
        folder: &Path,
        work: impl FnOnce(&mut [f32]) -> Result<(), X>,
    ) -> Result<(), X> {
        match self {
            Hidden::Memory(values) => work(&mut values[first..first + len]),
            Hidden::File { file, values, bytes } => {
                let values = &mut values[..len];
                bytes.resize(4 * len, 0);
                read(file, first, bytes).map_err(failed(folder, "read the hidden states"))?;
                for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
                work(values)?;
                for (value, bytes) in values.iter().zip(bytes.as_chunks_mut().0) {
                    *bytes = value.to_le_bytes();
                }
                write(file, first, bytes).map_err(failed(folder, "write the hidden states"))?;
                Ok(())
            }
        }
    }
}

fn read(file: &mut File, first: usize, bytes: &mut [u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(4 * first as u64))?;
    file.read_exact(bytes)
}

fn write(file: &mut File, first: usize, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(4 * first as u64))?;
    file.write_all(bytes)
}

fn failed<'a>(path: &'a Path, action: &'static str) -> impl Fn(io::Error) -> StatisticsError + 'a {
    move |source| StatisticsError::Io { path: path.into(), action, source }
}

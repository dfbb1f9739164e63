//! The stored tensors of a packed matrix.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::super::file::SourceFile;
use super::super::{CheckpointError, SourceType, TensorInfo};

/// Types of scales.
pub(super) const FLOATS: &[SourceType] = &[SourceType::F16, SourceType::Bf16, SourceType::F32];
/// Types of packed words and of indices.
pub(super) const WORDS: &[SourceType] = &[SourceType::I32];

/// One of these tensors, as `lines × width`; a vector is one line. Neither is 0.
#[derive(Clone, Debug)]
pub(super) struct Part {
    info: TensorInfo,
}

impl Part {
    pub(super) fn name(&self) -> &str {
        &self.info.name
    }

    pub(super) fn lines(&self) -> usize {
        self.info.rows()
    }

    pub(super) fn width(&self) -> usize {
        self.info.cols()
    }

    pub(super) fn dtype(&self) -> SourceType {
        self.info.dtype
    }

    /// The stored bytes of a rectangle of the part, line after line.
    pub(super) fn window(
        &self,
        files: &[SourceFile],
        lines: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Vec<u8>, CheckpointError> {
        let value_bytes = self.info.dtype.block_bytes();
        let file = &files[self.info.file];
        let offset =
            |line: usize| self.info.offset + ((line * self.width() + columns.start) * value_bytes) as u64;
        let line_bytes = columns.len() * value_bytes;
        let mut bytes = vec![0; lines.len() * line_bytes];
        if line_bytes == 0 {
            return Ok(bytes);
        }
        if columns.len() == self.width() {
            file.read_at(offset(lines.start), &mut bytes)?;
            return Ok(bytes);
        }
        let each = |(index, out): (usize, &mut [u8])| file.read_at(offset(lines.start + index), out);
        bytes.par_chunks_mut(line_bytes).with_min_len(64).enumerate().try_for_each(each)?;
        Ok(bytes)
    }

    /// A rectangle as 32-bit words.
    pub(super) fn words(
        &self,
        files: &[SourceFile],
        lines: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Vec<u32>, CheckpointError> {
        let bytes = self.window(files, lines, columns)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&word| u32::from_le_bytes(word)).collect())
    }

    /// A rectangle as floats.
    pub(super) fn floats(
        &self,
        files: &[SourceFile],
        lines: Range<usize>,
        columns: Range<usize>,
    ) -> Result<Vec<f32>, CheckpointError> {
        let bytes = self.window(files, lines, columns)?;
        let mut values = vec![0.0; bytes.len() / self.info.dtype.block_bytes()];
        self.info.dtype.decode(&bytes, &mut values).expect("scales are of a type that decodes");
        Ok(values)
    }
}

/// The tensors of a checkpoint, while matrices are assembled.
pub(super) struct Parts<'a> {
    folder: &'a Path,
    files: &'a [SourceFile],
    by_name: HashMap<&'a str, &'a TensorInfo>,
    used: Vec<&'a TensorInfo>,
}

impl<'a> Parts<'a> {
    pub(super) fn new(folder: &'a Path, files: &'a [SourceFile], tensors: &'a [TensorInfo]) -> Self {
        let by_name = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        Self { folder, files, by_name, used: Vec::new() }
    }

    /// The folder of the checkpoint.
    pub(super) fn path(&self) -> &Path {
        self.folder
    }

    /// Clears the list of taken tensors.
    pub(super) fn begin(&mut self) {
        self.used.clear();
    }

    /// The tensors taken since [`Parts::begin`].
    pub(super) fn end(&mut self) -> Vec<&'a TensorInfo> {
        std::mem::take(&mut self.used)
    }

    /// The tensor `base.ending`, of one of `types`; an error where it is missing.
    pub(super) fn take(
        &mut self,
        base: &str,
        ending: &str,
        types: &[SourceType],
    ) -> Result<Part, CheckpointError> {
        self.find(base, ending, types)?.ok_or_else(|| CheckpointError::MissingPart {
            path: self.folder.into(),
            matrix: base.into(),
            part: format!("{base}.{ending}"),
        })
    }

    /// The tensor `base.ending`, of one of `types`, if it exists.
    pub(super) fn find(
        &mut self,
        base: &str,
        ending: &str,
        types: &[SourceType],
    ) -> Result<Option<Part>, CheckpointError> {
        let Some(&info) = self.by_name.get(format!("{base}.{ending}").as_str()) else { return Ok(None) };
        self.used.push(info);
        let part = Part { info: info.clone() };
        if !types.contains(&info.dtype) {
            let names: Vec<_> = types.iter().map(|dtype| dtype.name()).collect();
            return Err(self.wrong(&part, format!("values of {}", names.join(" or "))));
        }
        if info.shape.len() > 2 || info.shape.contains(&0) {
            return Err(self.wrong(&part, "one or two dimensions, none of them 0".into()));
        }
        Ok(Some(part))
    }

    /// An error unless the part is `lines × width`.
    pub(super) fn check(&self, part: &Part, lines: usize, width: usize) -> Result<(), CheckpointError> {
        if (part.lines(), part.width()) == (lines, width) {
            return Ok(());
        }
        Err(self.wrong(part, format!("shape [{lines}, {width}]")))
    }

    /// The error for a part of wrong type or shape.
    pub(super) fn wrong(&self, part: &Part, expected: String) -> CheckpointError {
        CheckpointError::PartShape {
            path: self.folder.into(),
            tensor: part.name().into(),
            dtype: part.dtype(),
            shape: part.info.shape.clone(),
            expected,
        }
    }

    /// The error for an invalid value in a part.
    pub(super) fn wrong_value(
        &self,
        part: &Part,
        place: String,
        found: String,
        expected: String,
    ) -> CheckpointError {
        CheckpointError::PartValue {
            path: self.folder.into(),
            tensor: part.name().into(),
            found: format!("{place} is {found}"),
            expected,
        }
    }

    /// All words of a small part.
    pub(super) fn words(&self, part: &Part) -> Result<Vec<u32>, CheckpointError> {
        part.words(self.files, 0..part.lines(), 0..part.width())
    }

    /// All bytes of a small part.
    pub(super) fn bytes(&self, part: &Part) -> Result<Vec<u8>, CheckpointError> {
        part.window(self.files, 0..part.lines(), 0..part.width())
    }
}

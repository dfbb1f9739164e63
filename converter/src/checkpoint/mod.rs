//! Reading of checkpoints: opens one, lists its tensors, and loads any tensor or range of rows as
//! f32.
//!
//! Sources are Hugging Face folders and GGUF files. Opening checks everything in a file, so loading
//! fails only where the disk fails, the file changes, or a type has no decoder.

mod decode;
mod error;
pub(crate) mod families;
pub(crate) mod file;
pub mod gguf;
pub(crate) mod huggingface;
mod packed;
pub(crate) mod rows;
pub(crate) mod safetensors;
pub(crate) mod survey;
mod tensor;
mod tokenizer;
mod types;
pub(crate) mod vocabulary;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

pub use error::CheckpointError;
pub use gguf::GgufMetadata;
pub use tensor::TensorInfo;
pub use tokenizer::{TokenizerFiles, TokenizerSource};
pub use types::SourceType;
pub use vocabulary::load_tokenizer;

pub(crate) use decode::packed::scale_and_code;

use file::SourceFile;
use packed::Packed;

const CHECKSUM_CHUNK_BYTES: u64 = 1 << 20;

/// Kinds of checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A folder with `config.json` and safetensors.
    HuggingFace,
    /// One GGUF file or the parts of a split one.
    Gguf,
}

/// An open checkpoint; usable from many threads at once.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<SourceFile>,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    /// Matrices of a quantized checkpoint, each stored in several tensors.
    packed: HashMap<String, Packed>,
    about: About,
}

#[derive(Debug)]
enum About {
    HuggingFace { config: Value, text_config: Option<Value>, generation_config: Option<Value> },
    Gguf(GgufMetadata),
}

impl Checkpoint {
    /// Opens a Hugging Face folder, a GGUF file or the first file of a split GGUF.
    ///
    /// Reads and checks all headers, no weights. A GGUF file without tensors (a vocabulary) is
    /// valid.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let (files, tensors, packed, about) = if path.is_dir() {
            let folder = huggingface::open(path)?;
            let (config, generation_config) = (folder.config, folder.generation_config);
            let (tensors, packed) = packed::open(path, &config, &folder.files, folder.tensors)?;
            let text_config = families::text_config(&config);
            (folder.files, tensors, packed, About::HuggingFace { config, text_config, generation_config })
        } else {
            let file = SourceFile::open(path)?;
            check_magic(&file)?;
            let (files, tensors, metadata) = gguf::open(file)?;
            (files, tensors, HashMap::new(), About::Gguf(metadata))
        };
        let mut by_name = HashMap::with_capacity(tensors.len());
        for (index, tensor) in tensors.iter().enumerate() {
            if by_name.insert(tensor.name.clone(), index).is_some() {
                let (path, tensor) = (files[tensor.file].path().into(), tensor.name.clone());
                return Err(CheckpointError::DuplicateTensor { path, tensor });
            }
        }
        Ok(Self { path: path.into(), files, tensors, by_name, packed, about })
    }

    /// The kind of checkpoint.
    pub fn kind(&self) -> SourceKind {
        match self.about {
            About::HuggingFace { .. } => SourceKind::HuggingFace,
            About::Gguf(_) => SourceKind::Gguf,
        }
    }

    /// The path given to [`Checkpoint::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files that hold the tensors.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(SourceFile::path)
    }

    /// The file that holds the tensor called `name`; for a tensor of several parts that of its
    /// codes.
    pub(crate) fn file_of(&self, name: &str) -> &Path {
        self.tensor(name).map_or(&self.path, |tensor| self.file(tensor).path())
    }

    /// All tensors, ordered by file and by position in the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// All values of a tensor, row-major.
    pub fn load_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let tensor = self.find(name)?;
        tensor.check_loadable(self.file(tensor))?;
        let mut out = vec![0.0; tensor.elements()];
        self.load_rows_f32(name, 0..tensor.rows(), &mut out)?;
        Ok(out)
    }

    /// The values of `rows`, decoded a chunk at a time on all cores; `out` has `rows.len() · cols`
    /// of them.
    ///
    /// Rows are those of the tensor seen as [`TensorInfo::rows`] × [`TensorInfo::cols`]: a vector
    /// is one row, the matrices of a stack follow each other.
    pub fn load_rows_f32(
        &self,
        name: &str,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), CheckpointError> {
        let tensor = self.find(name)?;
        let Some(packed) = self.packed.get(name) else {
            return tensor.read_f32(self.file(tensor), rows, out);
        };
        let expected = tensor.values_of(&rows)?;
        if out.len() != expected {
            return Err(CheckpointError::OutputLen { tensor: name.into(), expected, found: out.len() });
        }
        let stored = packed.read(&self.files, rows)?;
        tensor.dtype.decode(&stored, out).expect("packed matrices can be loaded");
        Ok(())
    }

    /// The stored bytes of a tensor, for a lossless repack of block formats.
    pub fn raw(&self, name: &str) -> Result<Vec<u8>, CheckpointError> {
        self.raw_rows(name, 0..self.find(name)?.rows())
    }

    /// The stored bytes of `rows`. For a matrix of a quantized checkpoint: values of
    /// [`SourceType::Packed`], assembled while they are read.
    pub fn raw_rows(&self, name: &str, rows: Range<usize>) -> Result<Vec<u8>, CheckpointError> {
        let tensor = self.find(name)?;
        let Some(packed) = self.packed.get(name) else {
            return tensor.read_raw(self.file(tensor), rows);
        };
        tensor.values_of(&rows)?;
        packed.read(&self.files, rows)
    }

    /// Whether several tensors of the files make up this one.
    pub fn is_packed(&self, name: &str) -> bool {
        self.packed.contains_key(name)
    }

    /// `config.json` of a Hugging Face folder.
    pub fn config(&self) -> Option<&Value> {
        match &self.about {
            About::HuggingFace { config, .. } => Some(config),
            About::Gguf(_) => None,
        }
    }

    /// The configuration of the language model: `config.json`, or its part in a model of more than
    /// text.
    pub(crate) fn text_config(&self) -> Option<&Value> {
        match &self.about {
            About::HuggingFace { config, text_config, .. } => Some(text_config.as_ref().unwrap_or(config)),
            About::Gguf(_) => None,
        }
    }

    /// `generation_config.json` of a Hugging Face folder that has one.
    pub fn generation_config(&self) -> Option<&Value> {
        match &self.about {
            About::HuggingFace { generation_config, .. } => generation_config.as_ref(),
            About::Gguf(_) => None,
        }
    }

    /// The keys of a GGUF file; for a split one, those of its first part.
    pub fn metadata(&self) -> Option<&GgufMetadata> {
        match &self.about {
            About::HuggingFace { .. } => None,
            About::Gguf(metadata) => Some(metadata),
        }
    }

    /// The tokenizer's description. Reads the files of a Hugging Face folder again at each call.
    pub fn tokenizer_files(&self) -> Result<TokenizerSource<'_>, CheckpointError> {
        Ok(match &self.about {
            About::HuggingFace { .. } => TokenizerSource::Files(Box::new(TokenizerFiles::read(&self.path)?)),
            About::Gguf(metadata) => TokenizerSource::Gguf(metadata),
        })
    }

    /// XXH3-128 of the weight files, concatenated in the order of [`Self::files`]: the result of
    /// `cat FILES | xxhsum -H2`. Reads every byte once.
    pub fn checksum(&self) -> Result<u128, CheckpointError> {
        let mut hash = Xxh3::new();
        let mut buffer = Vec::new();
        for file in &self.files {
            let mut offset = 0;
            while offset < file.bytes() {
                let count = CHECKSUM_CHUNK_BYTES.min(file.bytes() - offset);
                buffer.resize(count as usize, 0);
                file.read_at(offset, &mut buffer)?;
                hash.update(&buffer);
                offset += count;
            }
        }
        Ok(hash.digest128())
    }

    fn find(&self, name: &str) -> Result<&TensorInfo, CheckpointError> {
        self.tensor(name)
            .ok_or_else(|| CheckpointError::NoSuchTensor { path: self.path.clone(), tensor: name.into() })
    }

    fn file(&self, tensor: &TensorInfo) -> &SourceFile {
        &self.files[tensor.file]
    }
}

/// Checks the first bytes of a GGUF file.
fn check_magic(file: &SourceFile) -> Result<(), CheckpointError> {
    let mut found = [0; gguf::MAGIC.len()];
    let count = file.bytes().min(found.len() as u64) as usize;
    file.read_at(0, &mut found[..count])?;
    if found != gguf::MAGIC {
        let found = String::from_utf8_lossy(&found[..count]).into_owned();
        return Err(CheckpointError::NotACheckpoint { path: file.path().into(), found });
    }
    Ok(())
}

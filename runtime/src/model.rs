//! An opened file: configuration, place of each weight, tokenizer on demand.

use crate::error::RuntimeError;
use crate::resolve::{Resolver, Unresolved};
use crate::storage::{Extent, ModelBytes, Pages, Reason, Storage, open_file};
use crate::weights::{Layer, Norm, Stored, Vector};
use pith_format::{Encoding, FormatError, Index, Matrix, Metadata, ModelConfig, Role, TensorId};
use pith_tokenizer::Tokenizer;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// An opened and checked `.pith` file. Share it between sessions in an `Arc`.
pub struct Model {
    /// Path, if it was opened by path.
    path: Option<PathBuf>,
    /// Name in error messages.
    name: String,
    storage: Storage,
    pages: Pages,
    index: Index,
    has_tokenizer: bool,
    tokenizer: OnceLock<Tokenizer>,
    pub(crate) embedding: Stored,
    pub(crate) positions: Option<Stored>,
    pub(crate) embedding_norm: Option<Norm>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) output_norm: Norm,
    /// `None` where the head is tied to the embedding.
    pub(crate) head: Option<Stored>,
    pub(crate) head_bias: Option<Vector>,
    /// Residual matrix of the head or of the tied embedding: `head = first + residual`.
    pub(crate) head_residual: Option<Stored>,
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Model").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Model {
    /// Maps a file and checks everything except the weights, which are read at use.
    ///
    /// Takes milliseconds for any file size. `pith inspect --verify` also reads the weights.
    ///
    /// # The file must not change
    ///
    /// A mapped file is safe while nobody truncates or overwrites it, like the executable of a
    /// running program. Replace a file by renaming another over it, as `pith convert` does: open
    /// models then keep the old one. Before each pass a session compares the file's length with the
    /// length at opening, and returns [`RuntimeError::FileTooShort`] if it shrank. A file truncated
    /// during a pass ends the process (`SIGBUS`), and overwritten bytes change the results; no
    /// check can detect either in time. Where other programs may write to the file, use a copy:
    /// [`Model::load`].
    ///
    /// Where the system cannot map files (WebAssembly), this reads the file into memory.
    pub fn open(path: &Path) -> Result<Self, RuntimeError> {
        let (name, (file, extent)) = (path.display().to_string(), open_file(path)?);
        let storage = Storage::open(&name, file, extent)?;
        Self::check(Some(path), name, storage)
    }

    /// [`Model::open`] on a copy of the file in memory, in large pages where the system has them:
    /// they need fewer address translations, and later changes to the file do not matter. The copy
    /// takes as much memory as the file and is not shared with other processes.
    pub fn load(path: &Path) -> Result<Self, RuntimeError> {
        let (name, (file, extent)) = (path.display().to_string(), open_file(path)?);
        let begin = Instant::now();
        let storage = Storage::copy(&name, &file, extent)?;
        let pages = Pages::of_copy(&storage, begin);
        Ok(Self::check(Some(path), name, storage)?.in_pages(pages))
    }

    /// [`Model::open`] on `len` bytes at `offset` of an open file: a model inside an archive, or a
    /// file known only by its descriptor (Android's assets). Any offset works; multiples of 64 are
    /// fastest.
    ///
    /// The file must not change, see [`Model::open`].
    pub fn open_at(file: File, offset: u64, len: u64) -> Result<Self, RuntimeError> {
        let name = format!("{len} bytes from {offset} on of an open file");
        let storage = Storage::open(&name, file, Extent { offset, len })?;
        Self::check(None, name, storage)
    }

    /// This model with a copy of its file in memory, or the model as it was and the error.
    pub(crate) fn copied(mut self) -> Result<Self, (Box<Self>, RuntimeError)> {
        let begin = Instant::now();
        match self.storage.copied(&self.name) {
            Ok(Some(storage)) => {
                self.pages = Pages::of_copy(&storage, begin);
                self.storage = storage;
            }
            Ok(None) => {}
            Err(error) => return Err((Box::new(self), error)),
        }
        Ok(self)
    }

    /// Opens a model in memory: a `Vec<u8>`, an `Arc<[u8]>`, or a part of the program
    /// (`include_bytes!`).
    pub fn from_bytes(bytes: impl Into<ModelBytes>) -> Result<Self, RuntimeError> {
        Self::check(None, "a model in memory".into(), Storage::Bytes(bytes.into()))
    }

    fn check(path: Option<&Path>, name: String, storage: Storage) -> Result<Self, RuntimeError> {
        let wrong = |source| RuntimeError::Format { path: name.clone(), source };
        let index = Index::parse(&storage).map_err(wrong)?;
        let config = &index.metadata().model;
        let mut resolver = Resolver::new(&storage, &index);
        let embedding = resolver.matrix(Role::TokenEmbedding).map_err(wrong)?;
        let positions = resolver.optional_matrix(Role::PositionEmbedding).map_err(wrong)?;
        let embedding_norm = resolver.optional_norm(Role::EmbeddingNorm, None).map_err(wrong)?;
        let layers = config
            .layers
            .iter()
            .enumerate()
            .map(|(layer_index, layer)| resolver.layer(layer_index, layer))
            .collect::<Result<_, _>>()
            .map_err(|error| match error {
                Unresolved::Format(source) => wrong(source),
                Unresolved::Kind { layer_index, half, kind } => {
                    RuntimeError::LayerKind { path: name.clone(), layer_index, half, kind }
                }
            })?;
        let output_norm = resolver.norm(Role::OutputNorm, Some(Role::OutputNormBias)).map_err(wrong)?;
        let head = match config.tied_head {
            true => None,
            false => Some(resolver.matrix(Role::Head).map_err(wrong)?),
        };
        let head_bias = resolver.optional_vector(Role::HeadBias).map_err(wrong)?;
        let head_residual = resolver.optional_matrix(Role::HeadResidual).map_err(wrong)?;
        let has_tokenizer = resolver.tokenizer();
        if let Some((entry, reason)) = resolver.unused() {
            return Err(RuntimeError::UnusedTensor { path: name, tensor: entry.id, reason });
        }
        Ok(Self {
            path: path.map(Path::to_path_buf),
            has_tokenizer,
            tokenizer: OnceLock::new(),
            embedding,
            positions,
            embedding_norm,
            layers,
            output_norm,
            head,
            head_bias,
            head_residual,
            name,
            pages: if storage.is_mapped() { Pages::Mapped(Reason::NotAsked) } else { Pages::Given },
            storage,
            index,
        })
    }

    /// This model with one matrix replaced by `tiles` of `encoding`, of the same shape, to
    /// try an encoding before a file is written.
    ///
    /// [`Model::index`], [`Model::bytes`] and everything computed from the directory
    /// ([`Model::streamed_bytes`], a [`Placement`](crate::Placement)) stay those of the file.
    pub fn with_matrix(
        mut self,
        id: TensorId,
        encoding: Encoding,
        tiles: Arc<[u8]>,
    ) -> Result<Self, RuntimeError> {
        let path = self.name.clone();
        let wrong = |source| RuntimeError::Format { path: path.clone(), source };
        let stored = self.stored(id).ok_or_else(|| wrong(FormatError::MissingTensor { tensor: id }))?;
        Matrix::new(encoding, stored.rows, stored.cols, &tiles).map_err(wrong)?;
        stored.encoding = encoding;
        (stored.own, stored.blocks) = (Some(tiles), None);
        Ok(self)
    }

    /// The place of a matrix.
    fn stored(&mut self, id: TensorId) -> Option<&mut Stored> {
        let Some(layer_index) = id.layer else {
            return match id.role {
                Role::TokenEmbedding => Some(&mut self.embedding),
                Role::PositionEmbedding => self.positions.as_mut(),
                Role::Head => self.head.as_mut(),
                Role::HeadResidual => self.head_residual.as_mut(),
                _ => None,
            };
        };
        self.layers.get_mut(layer_index)?.matrix(id.role)
    }

    /// The file's path, if the model was opened by path.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The file's path, or a description of the model where it has none; for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Dimensions and mechanisms.
    pub fn config(&self) -> &ModelConfig {
        &self.index.metadata().model
    }

    /// Configuration, chat template, provenance.
    pub fn metadata(&self) -> &Metadata {
        self.index.metadata()
    }

    /// The file's directory.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.storage
    }

    /// The file's tokenizer, loaded at the first call.
    pub fn tokenizer(&self) -> Result<&Tokenizer, RuntimeError> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        if !self.has_tokenizer {
            return Err(RuntimeError::NoTokenizer { path: self.name.clone() });
        }
        let blob = self
            .index
            .bytes(&self.storage, TensorId::model(Role::Tokenizer))
            .map_err(|source| RuntimeError::Format { path: self.name.clone(), source })?;
        let tokenizer = Tokenizer::from_blob(blob)?;
        Ok(self.tokenizer.get_or_init(|| tokenizer))
    }

    /// Bytes of all tensors that a decoded token streams: all in the directory except the tokenizer
    /// and embeddings that are only looked up. With [two-stage
    /// logits](crate::SessionOptions::two_stage_logits) a token streams only a small part of
    /// [`Role::HeadResidual`].
    pub fn streamed_bytes(&self) -> u64 {
        self.index.total_reads().streamed
    }

    /// Bytes of embedding that a token looks up: the blocks of 16 rows that hold its rows.
    pub fn looked_up_bytes(&self) -> u64 {
        self.index.total_reads().looked_up
    }

    /// Where the weights lie in memory, and why.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// This model with a remark on where its weights lie.
    pub(crate) fn in_pages(self, pages: Pages) -> Self {
        Self { pages, ..self }
    }

    /// Storage of the file's bytes.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The matrix of the logits.
    pub(crate) fn head_matrix(&self) -> &Stored {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Byte ranges of a layer's matrices.
    pub(crate) fn layer_ranges(&self, layer_index: usize) -> Vec<Range<usize>> {
        self.layers[layer_index].matrices().map(|stored| stored.range.clone()).collect()
    }

    /// Fails if the file is now too short; see [`Model::open`].
    pub(crate) fn check_length(&self) -> Result<(), RuntimeError> {
        self.storage.check(&self.name)
    }

    /// Asks the system for large pages under everything that a token streams: they need fewer
    /// address translations. Works where the file is not in memory yet, or was written in large
    /// pieces. `with_residual`: includes the head's residual matrix.
    pub(crate) fn ask_for_large_pages(&self, with_residual: bool) {
        let layers = (0..self.layers.len()).flat_map(|index| self.layer_ranges(index));
        let residual = self.head_residual.iter().filter(|_| with_residual);
        let head = std::iter::once(self.head_matrix()).chain(residual).map(|stored| stored.range.clone());
        self.storage.prefer_large_pages(layers.chain(head).collect());
    }

    /// Tells the system that a layer's weights will be read soon; after the last layer, the head's.
    pub(crate) fn will_need(&self, layer_index: usize) {
        let of_layer = |index: usize| {
            let ranges = || self.layers[index].matrices().map(|stored| &stored.range);
            Some(ranges().map(|range| range.start).min()?..ranges().map(|range| range.end).max()?)
        };
        // An empty layer has nothing to prefetch.
        let range = if layer_index < self.layers.len() {
            of_layer(layer_index)
        } else {
            Some(self.head_matrix().range.clone())
        };
        range.into_iter().for_each(|range| self.storage.will_need(range));
    }
}

//! The file of activation statistics: safetensors, written as a stream.

use std::collections::BTreeMap;
use std::io::{BufWriter, Seek, Write};
use std::path::Path;

use pith_format::{ModelConfig, Replacement};
use pith_runtime::{Model, Site};
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::Xxh3;

use super::error::StatisticsError;
use super::sites::site_name;
use super::text::CalibrationText;
use crate::identity::identity;

/// Version of the layout that this program writes and reads.
pub(super) const VERSION: &str = "1";

/// The vectors of a site, in the order of the file.
pub(super) const MOMENTS: [&str; 3] = ["mean_square", "mean", "mean_abs"];

/// Name of the matrix of pair means.
pub(super) const GRAM: &str = "gram";

/// Name of the additional matrix for a pair of models: `E[(x − x̂) x̂ᵀ]`, row by row.
pub(super) const CROSS: &str = "cross";

/// Bytes written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Metadata of a file of activation statistics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatisticsInfo {
    /// Checksum of the compressed file, in statistics of a pair of models.
    pub compressed_checksum: Option<String>,
    /// Version of the program that wrote the file.
    pub pith: String,
    /// Name of the model.
    pub model: String,
    /// Checksum of the `.pith` file, hexadecimal:
    /// [`Index::checksum`](pith_format::Index::checksum).
    pub model_checksum: String,
    /// Checksum of the checkpoint, from the `.pith` file's provenance.
    pub source_checksum: String,
    /// Number of layers.
    pub layers: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// Number of sequences.
    pub sequences: usize,
    /// Tokens of a window.
    pub context: usize,
    /// Whether the file holds means of pairs.
    pub hessians: bool,
    /// Name of the text's file; `None` where the model wrote the text.
    pub text: Option<String>,
    /// XXH3-128 of the text's file.
    pub text_checksum: Option<String>,
    /// XXH3-128 of the tokens.
    pub tokens_checksum: String,
}

impl StatisticsInfo {
    /// Whether the statistics are of a dense model and a compressed one.
    pub fn is_pair(&self) -> bool {
        self.compressed_checksum.is_some()
    }

    pub(super) fn new(
        model: &Model,
        compressed: Option<&Model>,
        text: &CalibrationText,
        hessians: bool,
    ) -> Self {
        Self {
            compressed_checksum: compressed.map(|model| format!("{:016x}", model.index().checksum())),
            pith: env!("CARGO_PKG_VERSION").into(),
            model: model.config().name.clone(),
            model_checksum: format!("{:016x}", model.index().checksum()),
            source_checksum: identity(&model.metadata().provenance),
            layers: model.config().layers.len(),
            tokens: text.tokens(),
            sequences: text.sequences.len(),
            context: text.window,
            hessians,
            text: text.file.clone(),
            text_checksum: text.checksum.clone(),
            tokens_checksum: text.tokens_checksum(),
        }
    }

    fn to_metadata(&self) -> BTreeMap<&'static str, String> {
        let mut metadata = BTreeMap::from([
            ("pith_calibration", VERSION.to_string()),
            ("pith", self.pith.clone()),
            ("model", self.model.clone()),
            ("model_checksum", self.model_checksum.clone()),
            ("source_checksum", self.source_checksum.clone()),
            ("layers", self.layers.to_string()),
            ("tokens", self.tokens.to_string()),
            ("sequences", self.sequences.to_string()),
            ("context", self.context.to_string()),
            ("hessians", self.hessians.to_string()),
            ("tokens_checksum", self.tokens_checksum.clone()),
        ]);
        let text = [
            ("text", &self.text),
            ("text_checksum", &self.text_checksum),
            ("compressed_checksum", &self.compressed_checksum),
        ];
        metadata.extend(text.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))));
        metadata
    }

    /// Parses a file's metadata; `path` is for messages.
    pub(super) fn parse(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self, StatisticsError> {
        let wrong = |field, found: &str, expected: &str| StatisticsError::Field {
            path: path.into(),
            field,
            found: found.into(),
            expected: expected.into(),
        };
        let text = |field| {
            let value = metadata.get(field).cloned();
            value.ok_or_else(|| wrong(field, "", "a value, as every calibration has"))
        };
        let number = |field| {
            let value = text(field)?;
            value.parse::<usize>().map_err(|_| wrong(field, &value, "a number"))
        };
        let version = text("pith_calibration")?;
        if version != VERSION {
            return Err(wrong("pith_calibration", &version, VERSION));
        }
        let hessians = text("hessians")?;
        Ok(Self {
            pith: text("pith")?,
            model: text("model")?,
            model_checksum: text("model_checksum")?,
            source_checksum: text("source_checksum")?,
            layers: number("layers")?,
            tokens: number("tokens")?,
            sequences: number("sequences")?,
            context: number("context")?,
            hessians: hessians.parse().map_err(|_| wrong("hessians", &hessians, "true or false"))?,
            compressed_checksum: metadata.get("compressed_checksum").cloned(),
            text: metadata.get("text").cloned(),
            text_checksum: metadata.get("text_checksum").cloned(),
            tokens_checksum: text("tokens_checksum")?,
        })
    }
}

/// Names and lengths of a file's tensors, in its order.
pub(super) fn tensor_plan(config: &ModelConfig, hessians: bool, pair: bool) -> Vec<(String, usize)> {
    let layers = (0..config.layers.len()).map(Some).chain([None]);
    let places = layers.flat_map(|layer| Site::all(config, layer).map(move |site| (layer, site)));
    places
        .flat_map(|(layer, (site, cols))| {
            let moments = MOMENTS.map(|name| (tensor_name(layer, site, name), cols));
            let gram = hessians.then(|| (tensor_name(layer, site, GRAM), packed_len(cols)));
            let cross = pair.then(|| (tensor_name(layer, site, CROSS), cols * cols));
            moments.into_iter().chain(gram).chain(cross)
        })
        .collect()
}

/// `layers.3.down.mean_square`, `head.gram`.
pub(super) fn tensor_name(layer: Option<usize>, site: Site, what: &str) -> String {
    format!("{}.{what}", site_name(layer, site))
}

/// Values on and above the diagonal of a square.
pub(super) fn packed_len(cols: usize) -> usize {
    cols * (cols + 1) / 2
}

/// The folder that a file lies in.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the tensors of a plan in its order. The file appears when it is complete.
pub(super) struct Writer {
    out: BufWriter<Replacement>,
    tensors: Vec<(String, usize)>,
    metadata: BTreeMap<&'static str, String>,
    checksums: Vec<u64>,
    /// Values of the current tensor written so far, and their hash.
    written: usize,
    hash: Xxh3,
    bytes: Vec<u8>,
}

impl Writer {
    /// Begins the file with a header that has no checksums yet.
    pub fn new(
        file: Replacement,
        tensors: Vec<(String, usize)>,
        info: &StatisticsInfo,
    ) -> Result<Self, StatisticsError> {
        let mut writer = Self {
            out: BufWriter::with_capacity(WRITE_BYTES, file),
            checksums: Vec::with_capacity(tensors.len()),
            tensors,
            metadata: info.to_metadata(),
            written: 0,
            hash: Xxh3::new(),
            bytes: Vec::new(),
        };
        let header = writer.header();
        writer.put(&header)?;
        Ok(writer)
    }

    /// Appends values to the current tensor.
    pub fn write(&mut self, values: &[f32]) -> Result<(), StatisticsError> {
        let len = self.tensors[self.checksums.len()].1;
        self.written += values.len();
        assert!(self.written <= len, "values of one tensor");
        self.bytes.clear();
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.hash.update(&self.bytes);
        if self.written == len {
            self.checksums.push(self.hash.digest());
            self.hash.reset();
            self.written = 0;
        }
        let bytes = std::mem::take(&mut self.bytes);
        self.put(&bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StatisticsError> {
        let written = self.out.write_all(bytes);
        Ok(written.map_err(|source| self.out.get_ref().failed("write", source))?)
    }

    /// Writes the checksums into the header, syncs, and gives the file its name. Returns its length
    /// in bytes.
    pub fn finish(mut self) -> Result<u64, StatisticsError> {
        assert_eq!(self.checksums.len(), self.tensors.len(), "every tensor is there");
        let header = self.header();
        let written = self.out.stream_position().and_then(|file_bytes| {
            self.out.rewind()?;
            self.out.write_all(&header)?;
            self.out.flush()?;
            Ok(file_bytes)
        });
        let file_bytes = written.map_err(|source| self.out.get_ref().failed("write", source))?;
        let (file, _) = self.out.into_parts();
        file.commit()?;
        Ok(file_bytes)
    }

    /// Length and JSON of the header. Its size does not depend on whether the checksums are known.
    fn header(&self) -> Vec<u8> {
        let checksum = |index| self.checksums.get(index).copied().unwrap_or(0);
        let checksums: String =
            (0..self.tensors.len()).map(|index| format!("{:016x}", checksum(index))).collect();
        let mut header = Map::new();
        let mut metadata = json!(self.metadata);
        metadata["checksums"] = checksums.into();
        header.insert("__metadata__".into(), metadata);
        let mut start = 0;
        for (name, len) in &self.tensors {
            let end = start + 4 * len;
            let entry: Value = json!({"dtype": "F32", "shape": [len], "data_offsets": [start, end]});
            header.insert(name.clone(), entry);
            start = end;
        }
        let mut json = Value::Object(header).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut json);
        bytes
    }
}

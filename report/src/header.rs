//! The first line of a ledger: model, run, machine and meters.

use jiff::Timestamp;
use pith_format::{Index, Role};
use pith_meter::{Kind, Meter, Scope};
use pith_runtime::{KvType, Session};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the schema that this crate writes, and the newest that it reads. `docs/ledger.md` has
/// its history.
pub const SCHEMA: u32 = 1;

/// Description of a run, written before the first token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`]; the field's name marks the file as a ledger.
    pub pith_ledger: u32,
    /// Version of the program.
    pub pith: String,
    /// Start of the run by the machine's clock, RFC 3339 in UTC. May be wrong on a board without a
    /// clock battery.
    pub started: Option<String>,
    /// The model file.
    pub model: ModelRecord,
    /// How the model was run.
    pub run: RunRecord,
    /// The machine.
    pub machine: MachineRecord,
    /// Memory bandwidth as probed on this machine.
    pub bandwidth: Option<Bandwidth>,
    /// Meters of energy, in the order of every line's figures.
    pub meters: Vec<MeterRecord>,
}

/// A model file, from its own directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Name of the model.
    pub name: String,
    /// Name of the file, without its folder.
    pub file: String,
    /// Its size.
    pub file_bytes: u64,
    /// Checksum, hexadecimal, of its header, metadata and directory; the directory holds a checksum
    /// of every tensor.
    pub file_checksum: String,
    /// Checksum, hexadecimal, of the weights it was converted from. Empty where the converter knew
    /// none.
    pub source_checksum: String,
    /// Recipe of its conversion.
    pub recipe: String,
    /// Bytes of weights read per decoded token.
    pub decode_weight_bytes: u64,
    /// Bytes in the file, by role and encoding.
    pub by_role: Vec<RoleBytes>,
    /// Bytes in the file, by layer. The first entry holds the tensors outside layers.
    pub by_layer: Vec<LayerBytes>,
}

/// Tensors of one role in one encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleBytes {
    /// Name of the role, as in `docs/format.md`.
    pub role: String,
    /// Encoding; `None` for vectors and for the tokenizer.
    pub encoding: Option<String>,
    /// Number of tensors.
    pub tensors: u64,
    /// Bytes, padding included.
    pub bytes: u64,
}

/// Size of one layer in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBytes {
    /// Index from 0; `None` for tensors outside layers: embedding, head, tokenizer.
    pub layer: Option<u64>,
    /// Bytes of attention's tensors.
    pub attention_bytes: u64,
    /// Bytes of the feed-forward block's tensors.
    pub ffn_bytes: u64,
    /// Bytes of other tensors.
    pub other_bytes: u64,
}

/// How a model was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Name of the kernels.
    pub kernels: String,
    /// Threads.
    pub threads: u64,
    /// Storage type of cached keys and values: f32, f16, q8 or q4.
    pub kv: String,
    /// Maximum sequence length, in tokens.
    pub context_len: u64,
    /// Prompt tokens processed together.
    pub batch: u64,
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRecord {
    /// Name of the board, as it reports itself.
    pub board: Option<String>,
    /// The processor.
    pub processor: Option<String>,
    /// Number of cores.
    pub cores: Option<u64>,
    /// Size of main memory.
    pub memory_bytes: Option<u64>,
}

/// Measured rate of reading memory: the ceiling of decoding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes per second.
    pub bytes_per_second: f64,
    /// Number of reading threads.
    pub threads: Option<u64>,
    /// Origin of the figure, as text for people.
    pub source: String,
}

/// A source of energy figures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MeterRecord {
    /// Its name.
    pub meter: String,
    /// Scope of its figures.
    pub scope: Scope,
    /// Kind of its figures: measured, calibrated or modelled.
    pub kind: Kind,
    /// Update interval in milliseconds; absent where it is unknown or figures are computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_milliseconds: Option<u64>,
}

impl Header {
    /// Describes what `session` will do on `machine` from now on.
    pub fn new(session: &Session, machine: MachineRecord, meters: &[Box<dyn Meter>]) -> Self {
        Self {
            pith_ledger: SCHEMA,
            pith: env!("CARGO_PKG_VERSION").into(),
            started: Timestamp::from_second(Timestamp::now().as_second()).ok().map(|time| time.to_string()),
            model: ModelRecord::new(session),
            run: RunRecord::new(session),
            machine,
            bandwidth: None,
            meters: meters.iter().map(|meter| MeterRecord::new(meter.as_ref())).collect(),
        }
    }
}

impl ModelRecord {
    /// Describes the model file of a session.
    pub fn new(session: &Session) -> Self {
        let model = session.model();
        let metadata = model.metadata();
        let index = model.index();
        let file =
            model.path().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        Self {
            name: metadata.model.name.clone(),
            file: file.unwrap_or_default(),
            file_bytes: index.file_bytes(),
            file_checksum: format!("{:016x}", index.checksum()),
            source_checksum: metadata.provenance.source.checksum.clone(),
            recipe: metadata.provenance.recipe.clone(),
            decode_weight_bytes: model.streamed_bytes(),
            by_role: by_role(index),
            by_layer: by_layer(index, metadata.model.layers.len()),
        }
    }

    /// The encoding with the most bytes among the layers' matrices; if layers have none, among all
    /// matrices.
    pub fn main_encoding(&self) -> Option<&str> {
        let mut bytes = BTreeMap::<&str, (u64, u64)>::new();
        for record in &self.by_role {
            let Some(encoding) = &record.encoding else { continue };
            let is_layer = record.role.starts_with("attention") || record.role.starts_with("ffn");
            let sums = bytes.entry(encoding).or_default();
            sums.0 = sums.0.saturating_add(if is_layer { record.bytes } else { 0 });
            sums.1 = sums.1.saturating_add(record.bytes);
        }
        bytes.into_iter().max_by_key(|(_, sums)| *sums).map(|(encoding, _)| encoding)
    }
}

impl RunRecord {
    fn new(session: &Session) -> Self {
        Self {
            kernels: session.kernels().into(),
            threads: session.threads() as u64,
            kv: kv_name(session.kv_type()).into(),
            context_len: session.context_len() as u64,
            batch: session.batch() as u64,
        }
    }
}

impl MeterRecord {
    /// Describes a meter.
    pub fn new(meter: &dyn Meter) -> Self {
        Self {
            meter: meter.name().into(),
            scope: meter.scope(),
            kind: meter.kind(),
            period_milliseconds: None,
        }
    }
}

fn kv_name(kv: KvType) -> &'static str {
    match kv {
        KvType::F32 => "f32",
        KvType::F16 => "f16",
        KvType::Q8 => "q8",
        KvType::Q4 => "q4",
    }
}

fn by_role(index: &Index) -> Vec<RoleBytes> {
    let mut sums = BTreeMap::<(Role, Option<&str>), (u64, u64)>::new();
    for entry in index.entries() {
        let (tensors, bytes) =
            sums.entry((entry.id.role, entry.encoding.map(|encoding| encoding.name()))).or_default();
        *tensors += 1;
        *bytes += entry.bytes;
    }
    sums.into_iter()
        .map(|((role, encoding), (tensors, bytes))| RoleBytes {
            role: role.name().into(),
            encoding: encoding.map(Into::into),
            tensors,
            bytes,
        })
        .collect()
}

fn by_layer(index: &Index, layer_count: usize) -> Vec<LayerBytes> {
    let layers = (0..layer_count as u64).map(|layer| LayerBytes { layer: Some(layer), ..Default::default() });
    let mut all: Vec<_> = std::iter::once(LayerBytes::default()).chain(layers).collect();
    for entry in index.entries() {
        let record = &mut all[entry.id.layer.map_or(0, |layer| layer + 1)];
        let name = entry.id.role.name();
        *if name.starts_with("attention.") {
            &mut record.attention_bytes
        } else if name.starts_with("ffn.") {
            &mut record.ffn_bytes
        } else {
            &mut record.other_bytes
        } += entry.bytes;
    }
    all
}

//! Small random models, written by the format's own writer.

use pith_format::{
    ActivationFunction, Attention, Dense, Encoding, FeedForward, Kind, Layer, Metadata, Mixer, ModelConfig,
    NormKind, Provenance, Role, RopeTable, Scope, SourceRecord, TILE_ROWS, TensorId, TensorPlan, Writer,
    encode_block,
};
use pith_runtime::{Model, RuntimeError};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;

/// Tensors of every model, where its layers have a place for them.
const REQUIRED: &[Role] = &[
    Role::TokenEmbedding,
    Role::MixerNorm,
    Role::Query,
    Role::QueryNorm,
    Role::KeyNorm,
    Role::Key,
    Role::Value,
    Role::AttentionOutput,
    Role::FfnNorm,
    Role::Gate,
    Role::Up,
    Role::Down,
    Role::OutputNorm,
];

/// A model to be written.
#[derive(Clone)]
pub struct Plan {
    pub config: ModelConfig,
    /// Roles besides the required ones.
    pub roles: Vec<Role>,
    /// Tensors left out.
    pub without: Vec<TensorId>,
    pub encoding: Encoding,
    pub tokenizer: Option<Vec<u8>>,
    /// Weights by role, row and column; `None` means random.
    pub weight: fn(Role, usize, usize) -> Option<f32>,
}

/// A written model, the folder it lies in, and the weights as the file holds them.
#[allow(dead_code, reason = "each test binary uses its part")]
pub struct Built {
    pub folder: TempDir,
    pub path: PathBuf,
    pub weights: HashMap<TensorId, Vec<f64>>,
}

/// Whether every instruction is emulated (set by `.ci/qemu-runner`): expensive tests then do less.
#[allow(dead_code, reason = "each test binary uses its part")]
pub fn is_emulated() -> bool {
    std::env::var_os("PITH_QEMU_CPU").is_some()
}

pub fn layer() -> Layer {
    let attention = Attention {
        query_heads: vec![2; 2],
        head_dim: 12,
        scale: 0.29,
        softcap: None,
        qk_norm: false,
        window: None,
        rope: Some(0),
    };
    let dense = Dense { len: 168, activation: ActivationFunction::Silu };
    Layer { mixer: Mixer::Attention(attention), feed_forward: FeedForward::Gated(dense), parallel: false }
}

/// The attention of a layer of these plans.
#[allow(dead_code, reason = "each test binary uses its part")]
pub fn attention(layer: &mut Layer) -> &mut Attention {
    match &mut layer.mixer {
        Mixer::Attention(attention) => attention,
        other => panic!("a mixer of kind {}", other.kind()),
    }
}

/// The feed-forward block of a layer of these plans.
#[allow(dead_code, reason = "each test binary uses its part")]
pub fn dense(layer: &mut Layer) -> &mut Dense {
    match &mut layer.feed_forward {
        FeedForward::Gated(dense) | FeedForward::Plain(dense) => dense,
        other => panic!("a feed-forward block of kind {}", other.kind()),
    }
}

/// Removes the gate from a layer.
#[allow(dead_code, reason = "each test binary uses its part")]
pub fn ungate(layer: &mut Layer) {
    layer.feed_forward = FeedForward::Plain(*dense(layer));
}

/// Three layers in the style of Llama.
pub fn llama() -> Plan {
    let inv_freq = |dim: usize, base: f32| -> Vec<f32> {
        (0..dim / 2).map(|i| base.powf(-2.0 * i as f32 / dim as f32)).collect()
    };
    let table = |dim, base, magnitude| RopeTable {
        dim,
        inv_freq: inv_freq(dim, base),
        magnitude,
        long_inv_freq: None,
        long_from: None,
    };
    Plan {
        config: ModelConfig {
            name: "random".into(),
            family: "llama".into(),
            vocab_len: 301,
            hidden_len: 72,
            context_len: 64,
            norm: NormKind::Rms,
            norm_epsilon: 1e-5,
            embedding_scale: 1.0,
            tied_head: true,
            logit_softcap: None,
            bos: Some(1),
            eos: vec![2],
            rope: vec![table(12, 10000.0, 1.0), table(8, 100.0, 1.25)],
            layers: vec![layer(); 3],
        },
        roles: Vec::new(),
        without: Vec::new(),
        encoding: Encoding::F32,
        tokenizer: None,
        weight: |_, _, _| None,
    }
}

impl Plan {
    pub fn build(&self) -> Built {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pith");
        let mut random = Random(1234);
        let mut weights = HashMap::new();
        let plans = self.tensors();
        let mut writer = Writer::create(&path, &plans).unwrap();
        for plan in &plans {
            if plan.id.role == Role::Tokenizer {
                writer.write(plan.id, self.tokenizer.as_ref().unwrap()).unwrap();
                continue;
            }
            let (mean, spread) = match plan.id.role.name() {
                name if name.contains("bias") => (0.0, 0.3),
                name if name.contains("norm") => (1.0, 0.3),
                name if name.contains("embedding") => (0.0, 1.0),
                _ => (0.0, 1.7 / (plan.cols as f32).sqrt()),
            };
            let mut any = || mean + spread * random.next();
            let at = |index: usize| (self.weight)(plan.id.role, index / plan.cols, index % plan.cols);
            let values: Vec<f32> =
                (0..plan.rows * plan.cols).map(|index| at(index).unwrap_or_else(&mut any)).collect();
            let (bytes, stored) = store(plan, &values);
            writer.write(plan.id, &bytes).unwrap();
            weights.insert(plan.id, stored);
        }
        let provenance = Provenance {
            converter: "test".into(),
            source: SourceRecord::default(),
            recipe: "random".into(),
            recipe_file: None,
            passes: Vec::new(),
        };
        let (model, chat_template, sampling) = (self.config.clone(), None, None);
        let metadata = Metadata { model, chat_template, sampling, provenance };
        writer.finish(&metadata).unwrap();
        Built { folder, path, weights }
    }

    fn tensors(&self) -> Vec<TensorPlan> {
        let layers = self.config.layers.len();
        let mut ids = Vec::new();
        let has = |role: &Role| {
            REQUIRED.contains(role)
                || self.roles.contains(role)
                || (*role == Role::Head && !self.config.tied_head)
                || (*role == Role::Tokenizer && self.tokenizer.is_some())
        };
        let of =
            |scope: Scope| Role::ALL.iter().copied().filter(move |role| role.scope() == scope).filter(has);
        ids.extend(of(Scope::Model).filter(|role| role.tag() < 10).map(TensorId::model));
        for index in 0..layers {
            ids.extend(of(Scope::Layer).map(|role| TensorId::layer(role, index)));
        }
        ids.extend(of(Scope::Model).filter(|role| role.tag() >= 10).map(TensorId::model));
        ids.retain(|id| id.role == Role::Tokenizer || id.shape(&self.config).is_some());
        ids.retain(|id| !self.without.contains(id));
        ids.into_iter()
            .map(|id| {
                let shape = id.shape(&self.config);
                let (rows, cols) = shape.unwrap_or_else(|| (self.tokenizer.as_ref().unwrap().len(), 1));
                let encoding = (id.role.kind() == Kind::Matrix).then_some(self.encoding);
                TensorPlan { id, encoding, rows, cols }
            })
            .collect()
    }
}

impl Built {
    pub fn open(&self) -> Arc<Model> {
        Arc::new(Model::open(&self.path).unwrap())
    }

    #[allow(dead_code, reason = "each test binary uses its part")]
    pub fn error(&self) -> RuntimeError {
        Model::open(&self.path).unwrap_err()
    }
}

/// Bytes for the file, and the values they represent.
fn store(plan: &TensorPlan, values: &[f32]) -> (Vec<u8>, Vec<f64>) {
    let Some(encoding) = plan.encoding else {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        return (bytes, values.iter().map(|&value| f64::from(value)).collect());
    };
    let (rows, cols) = (plan.rows, plan.cols);
    let mut bytes = vec![0; encoding.matrix_bytes(rows as u64, cols as u64).unwrap() as usize];
    let block_bytes = bytes.len() / rows.div_ceil(TILE_ROWS);
    for (values, block) in values.chunks(TILE_ROWS * cols).zip(bytes.chunks_mut(block_bytes)) {
        encode_block(encoding, values, cols, block);
    }
    let bytes = encoding.stored(bytes);
    let matrix = pith_format::Matrix::new(encoding, rows, cols, &bytes).unwrap();
    let mut stored = vec![0.0f32; rows * cols];
    for (row, stored) in stored.chunks_exact_mut(cols).enumerate() {
        matrix.decode_row(row, stored);
    }
    (bytes, stored.into_iter().map(f64::from).collect())
}

/// Tokens below `vocab_len`.
#[allow(dead_code, reason = "each test binary uses its part")]
pub fn tokens(count: usize, vocab_len: usize) -> Vec<u32> {
    (0..count).map(|index| ((index * index * 31 + index * 7 + 3) % vocab_len) as u32).collect()
}

struct Random(u64);

impl Random {
    /// From −1 to 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

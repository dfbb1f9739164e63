//! Writes `v2/`: one small file for each encoding, each kind of layer and each kind of tokenizer.
//!
//! `cargo test -p pith-tests --test compatibility -- --ignored write_golden_files`
//!
//! Files of a released version never change. A new encoding or kind of layer adds a file.

use pith_format::{
    ActivationFunction, Attention, Dense, Encoding, Experts, FeedForward, GatedLinearRecurrence, Index, Kind,
    Layer, Metadata, Mixer, ModelConfig, NormKind, PassRecord, Provenance, Role, RopeTable, Sampling, Scope,
    ScoreFunction, ShortConvolution, SourceRecord, TILE_ROWS, TensorId, TensorPlan, Writer, checksum,
};
use pith_tokenizer::Tokenizer;
use pith_tokenizer::source::{GgufVocab, from_gguf, from_tokenizer_json};
use std::collections::BTreeMap;
use std::path::Path;

/// A golden file to write.
pub struct Plan {
    pub name: String,
    pub model: ModelConfig,
    /// Encoding of every matrix; with a residual matrix of the head, that one is q8.
    pub encoding: Encoding,
    /// Optional tensors of this model.
    pub optional: Vec<Role>,
    pub tokenizer: Option<Tokenizer>,
    pub sampling: Option<Sampling>,
}

/// Tensors that a model may lack. All others with a shape are present.
const OPTIONAL: &[Role] = &[
    Role::Tokenizer,
    Role::PositionEmbedding,
    Role::EmbeddingNorm,
    Role::MixerNormBias,
    Role::QueryBias,
    Role::KeyBias,
    Role::ValueBias,
    Role::AttentionOutputBias,
    Role::MixerPostNorm,
    Role::ConvolutionInputBias,
    Role::ConvolutionKernelBias,
    Role::ConvolutionOutputBias,
    Role::FfnNormBias,
    Role::GateBias,
    Role::UpBias,
    Role::DownBias,
    Role::FfnPostNorm,
    Role::RouterBias,
    Role::SharedRouter,
    Role::OutputNormBias,
    Role::Head,
    Role::HeadBias,
    Role::HeadResidual,
];

/// All golden files.
pub fn plans() -> Vec<Plan> {
    let encodings = Encoding::ALL.iter().map(|&encoding| of_encoding(encoding));
    encodings.chain(runnable()).chain(of_new_kinds()).chain(tokenizers()).chain(samplings()).collect()
}

/// Two tiles per block, the last one padded with zero columns, and a last block padded with zero
/// rows.
fn of_encoding(encoding: Encoding) -> Plan {
    let layer = Layer { mixer: Mixer::None {}, feed_forward: gated(24), parallel: false };
    let model = ModelConfig { hidden_len: encoding.tile_cols() + 8, ..model(vec![layer]) };
    plan(&format!("encoding-{encoding}"), Plan { encoding, ..of_model(model) })
}

fn runnable() -> [Plan; 8] {
    let layer = |mixer, feed_forward| Layer { mixer, feed_forward, parallel: false };
    let usual = || layer(Mixer::Attention(attention()), gated(20));
    let capped = Attention { softcap: Some(20.0), qk_norm: true, window: Some(3), ..attention() };
    let uneven = Attention { query_heads: vec![3, 1], ..attention() };
    let placed = Attention { rope: None, ..attention() };
    let plain = FeedForward::Plain(Dense { len: 20, activation: ActivationFunction::GeluTanh });
    let beside = Layer { parallel: true, ..layer(Mixer::Attention(attention()), plain.clone()) };
    let biases = [
        Role::MixerNormBias,
        Role::QueryBias,
        Role::KeyBias,
        Role::ValueBias,
        Role::AttentionOutputBias,
        Role::FfnNormBias,
        Role::UpBias,
        Role::DownBias,
        Role::OutputNormBias,
    ];
    let of_biases = |more: &[Role]| [&biases[..], more].concat();
    let of_layers = |layers| of_model(model(layers));
    let layer_norm = |layers| ModelConfig { norm: NormKind::Layer, ..model(layers) };
    let gemma = ModelConfig {
        embedding_scale: 4.5,
        logit_softcap: Some(30.0),
        ..model(vec![layer(Mixer::Attention(capped), gated(20)), usual()])
    };
    let untied = ModelConfig { tied_head: false, ..model(vec![usual()]) };
    [
        plan("layer-attention-gated", of_layers(vec![usual(), usual()])),
        plan(
            "layer-attention-plain",
            Plan {
                optional: of_biases(&[Role::PositionEmbedding, Role::EmbeddingNorm, Role::HeadBias]),
                ..of_model(layer_norm(vec![layer(Mixer::Attention(placed), plain)]))
            },
        ),
        plan(
            "layer-qk-norm",
            Plan { optional: vec![Role::MixerPostNorm, Role::FfnPostNorm], ..of_model(gemma) },
        ),
        plan("layer-parallel", Plan { optional: of_biases(&[]), ..of_model(layer_norm(vec![beside])) }),
        plan("layer-uneven-heads", of_layers(vec![layer(Mixer::Attention(uneven), gated(20))])),
        plan("layer-mixer-none", of_layers(vec![usual(), layer(Mixer::None {}, gated(20))])),
        plan(
            "layer-feed-forward-none",
            of_layers(vec![usual(), layer(Mixer::Attention(attention()), FeedForward::None {})]),
        ),
        plan(
            "head-residual",
            Plan {
                encoding: Encoding::Q4,
                optional: vec![Role::Head, Role::HeadResidual],
                ..of_model(untied)
            },
        ),
    ]
}

/// Kinds of layer in the format that no runtime runs yet.
fn of_new_kinds() -> [Plan; 4] {
    let after_usual = |mixer, feed_forward| {
        let layer = |mixer, feed_forward| Layer { mixer, feed_forward, parallel: false };
        let usual = layer(Mixer::Attention(attention()), gated(20));
        of_model(model(vec![usual, layer(mixer, feed_forward)]))
    };
    let experts = Experts {
        count: 4,
        per_token: 2,
        expert: Dense { len: 12, activation: ActivationFunction::Silu },
        gated: true,
        score: ScoreFunction::Sigmoid,
        normalized: true,
        scale: 2.5,
        shared: Some(Dense { len: 20, activation: ActivationFunction::Silu }),
    };
    let plain = Experts {
        gated: false,
        score: ScoreFunction::Softmax,
        normalized: false,
        scale: 1.0,
        shared: None,
        ..experts.clone()
    };
    let recurrence =
        GatedLinearRecurrence { key_heads: 2, value_heads: 4, key_dim: 4, value_dim: 6, kernel_len: 4 };
    let convolution = ShortConvolution { channels: 24, kernel_len: 3 };
    let biases =
        [Role::ConvolutionInputBias, Role::ConvolutionKernelBias, Role::ConvolutionOutputBias].to_vec();
    let attention = || Mixer::Attention(attention());
    [
        plan(
            "layer-short-convolution",
            Plan { optional: biases, ..after_usual(Mixer::ShortConvolution(convolution), gated(20)) },
        ),
        plan(
            "layer-gated-linear-recurrence",
            after_usual(Mixer::GatedLinearRecurrence(recurrence), gated(20)),
        ),
        plan(
            "layer-experts",
            Plan {
                optional: vec![Role::RouterBias, Role::SharedRouter],
                ..after_usual(attention(), FeedForward::Experts(experts))
            },
        ),
        plan("layer-experts-plain", after_usual(attention(), FeedForward::Experts(plain))),
    ]
}

fn tokenizers() -> [Plan; 3] {
    let of = |tokenizer: Tokenizer| {
        let layer = Layer { mixer: Mixer::None {}, feed_forward: gated(4), parallel: false };
        let model = ModelConfig {
            vocab_len: tokenizer.vocab_len(),
            hidden_len: 4,
            eos: Vec::new(),
            ..model(vec![layer])
        };
        Plan { optional: vec![Role::Tokenizer], tokenizer: Some(tokenizer), ..of_model(model) }
    };
    [
        plan("tokenizer-bpe", of(bpe())),
        plan("tokenizer-spm", of(spm())),
        plan("tokenizer-unigram", of(unigram())),
    ]
}

/// Recommended sampling: every setting, and some of them.
fn samplings() -> [Plan; 2] {
    let of = |sampling| {
        let layer = Layer { mixer: Mixer::None {}, feed_forward: gated(4), parallel: false };
        let model = ModelConfig { hidden_len: 4, ..model(vec![layer]) };
        Plan { sampling: Some(sampling), ..of_model(model) }
    };
    let some = Sampling { temperature: Some(0.0), top_k: Some(0), ..Sampling::default() };
    let all = Sampling {
        temperature: Some(0.7),
        top_k: Some(20),
        top_p: Some(0.95),
        min_p: Some(0.05),
        repeat_penalty: Some(1.1),
        repeat_window: Some(64),
    };
    [plan("sampling-all", of(all)), plan("sampling-some", of(some))]
}

/// Byte-level, with added tokens of both stages and an id without a token.
fn bpe() -> Tokenizer {
    let json = r#"{
        "added_tokens": [
            {"id": 0, "content": "<s>", "special": true},
            {"id": 20, "content": "<mask>", "lstrip": true, "normalized": false},
            {"id": 21, "content": "low", "single_word": true, "normalized": true}],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE",
            "vocab": {"h": 1, "e": 2, "l": 3, "o": 4, "w": 5, "r": 6, "d": 7, "Ġ": 8, "Ã": 9, "©": 10, "Ċ": 11,
                "he": 12, "ll": 13, "hell": 14, "hello": 15, "Ġw": 16, "or": 17, "Ã©": 18},
            "merges": ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ã ©"]}}"#;
    from_tokenizer_json(json.as_bytes()).expect("a sound tokenizer")
}

/// sentencepiece's merges by score, with byte tokens.
fn spm() -> Tokenizer {
    let pieces = ["▁", "h", "e", "l", "o", "▁h", "el", "lo", "▁hel", "▁hello"];
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let tokens: Vec<String> = ["<unk>", "<s>", "</s>"]
        .map(String::from)
        .into_iter()
        .chain(bytes)
        .chain(pieces.map(String::from))
        .collect();
    let token_types = [&[2, 3, 3][..], &[6; 256], &[1; 10]].concat();
    let scores: Vec<f32> =
        (0..tokens.len()).map(|id| if id < 259 { 0.0 } else { 259.5 - id as f32 }).collect();
    let vocab = GgufVocab {
        model: "llama",
        tokens: &tokens,
        scores: &scores,
        token_types: &token_types,
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        ..GgufVocab::default()
    };
    from_gguf(&vocab).expect("a sound vocabulary")
}

/// Scores that f32 cannot represent.
fn unigram() -> Tokenizer {
    let json = r#"{
        "added_tokens": [{"id": 0, "content": "<unk>", "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
        "model": {"type": "Unigram", "unk_id": 0,
            "vocab": [["<unk>", 0.0], ["▁", -2.1], ["h", -3.3], ["e", -3.1], ["l", -3.2], ["o", -3.4],
                ["▁he", -2.7], ["llo", -4.9], ["▁hello", -8.3]]}}"#;
    from_tokenizer_json(json.as_bytes()).expect("a sound tokenizer")
}

fn attention() -> Attention {
    Attention {
        query_heads: vec![2, 2],
        head_dim: 8,
        scale: 0.35,
        softcap: None,
        qk_norm: false,
        window: None,
        rope: Some(0),
    }
}

fn gated(len: usize) -> FeedForward {
    FeedForward::Gated(Dense { len, activation: ActivationFunction::Silu })
}

fn model(layers: Vec<Layer>) -> ModelConfig {
    let rope = RopeTable {
        dim: 6,
        inv_freq: vec![1.0, 0.21, 0.046],
        magnitude: 1.0,
        long_inv_freq: Some(vec![0.5, 0.105, 0.023]),
        long_from: Some(24),
    };
    ModelConfig {
        name: "golden".into(),
        family: "golden".into(),
        vocab_len: 40,
        hidden_len: 24,
        context_len: 32,
        norm: NormKind::Rms,
        norm_epsilon: 1e-5,
        embedding_scale: 1.0,
        tied_head: true,
        logit_softcap: None,
        bos: Some(0),
        eos: vec![1, 39],
        rope: vec![rope],
        layers,
    }
}

fn of_model(model: ModelConfig) -> Plan {
    let (optional, tokenizer, sampling) = (Vec::new(), None, None);
    Plan { name: String::new(), model, encoding: Encoding::F16, optional, tokenizer, sampling }
}

fn plan(name: &str, plan: Plan) -> Plan {
    Plan { name: name.into(), ..plan }
}

impl Plan {
    /// Writes the file to `path`.
    pub fn write(&self, path: &Path) {
        let ids = self.tensors();
        let blob = self.tokenizer.as_ref().map(Tokenizer::to_blob).unwrap_or_default();
        let plan = |&id: &TensorId| {
            let (rows, cols) = id.shape(&self.model).unwrap_or((blob.len(), 1));
            TensorPlan { id, encoding: self.encoding_of(id.role), rows, cols }
        };
        let plans: Vec<TensorPlan> = ids.iter().map(plan).collect();
        let mut writer = Writer::create(path, &plans).expect("a folder that can be written");
        for TensorPlan { id, encoding, rows, cols } in plans {
            let bytes = match (id.role.kind(), encoding) {
                (Kind::Matrix, Some(encoding)) => {
                    let weights = self.weights(id, rows, cols);
                    let blocks = weights.chunks(TILE_ROWS * cols);
                    encoding.stored(blocks.flat_map(|rows| encoding.encode_block(rows, cols)).collect())
                }
                (Kind::Vector, _) => {
                    self.vector(id, rows).iter().flat_map(|value| value.to_le_bytes()).collect()
                }
                _ => blob.clone(),
            };
            writer.write(id, &bytes).expect("the next tensor of the plan");
        }
        writer.finish(&self.metadata()).expect("a sound configuration");
    }

    fn tensors(&self) -> Vec<TensorId> {
        let has = |role: &&Role| !OPTIONAL.contains(role) || self.optional.contains(role);
        let (before, after): (Vec<Role>, Vec<Role>) = Role::ALL
            .iter()
            .filter(|role| role.scope() == Scope::Model)
            .filter(has)
            .partition(|role| **role < Role::MixerNorm);
        let of_layer = |index: usize| {
            let layer = &self.model.layers[index];
            let roles = Role::ALL.iter().filter(|role| role.scope() == Scope::Layer).filter(has);
            roles.flat_map(move |&role| match layer.experts() {
                Some(experts) if role.is_of_expert() => {
                    (0..experts.count).map(|expert| TensorId::expert(role, index, expert)).collect()
                }
                _ => vec![TensorId::layer(role, index)],
            })
        };
        let layers = (0..self.model.layers.len()).flat_map(of_layer);
        let all = before
            .into_iter()
            .map(TensorId::model)
            .chain(layers)
            .chain(after.into_iter().map(TensorId::model));
        all.filter(|id| id.role == Role::Tokenizer || id.shape(&self.model).is_some()).collect()
    }

    fn encoding_of(&self, role: Role) -> Option<Encoding> {
        let encoding = if role == Role::HeadResidual { Encoding::Q8 } else { self.encoding };
        (role.kind() == Kind::Matrix).then_some(encoding)
    }

    /// Of every 16 rows one is zero, one has scales that are f16 subnormals, one is large.
    fn weights(&self, id: TensorId, rows: usize, cols: usize) -> Vec<f32> {
        let mut random = self.random(id);
        let spread = (cols as f32).sqrt();
        let factor = |row: usize| match row % TILE_ROWS {
            3 => 0.0,
            5 => 1.0 / 65536.0,
            7 => 4.0,
            _ => 1.0,
        };
        let rows = (0..rows).map(factor);
        rows.flat_map(|factor| (0..cols).map(|_| random() * factor / spread).collect::<Vec<_>>()).collect()
    }

    fn vector(&self, id: TensorId, len: usize) -> Vec<f32> {
        let mut random = self.random(id);
        let name = id.role.name();
        let centre = if name.ends_with("norm") { 1.0 } else { 0.0 };
        (0..len).map(|_| centre + random() / 4.0).collect()
    }

    /// Numbers from −1 to 1, the same for a file and tensor on every machine: splitmix64.
    fn random(&self, id: TensorId) -> impl FnMut() -> f32 {
        let mut state = checksum(format!("{} {id}", self.name).as_bytes());
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ z >> 31) >> 40) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    fn metadata(&self) -> Metadata {
        let source = SourceRecord {
            kind: "huggingface".into(),
            name: self.name.clone(),
            tensor_bytes: 0,
            checksum: String::new(),
        };
        let passes = vec![PassRecord { name: "none".into(), zeros: 0, bytes_saved: -1 }];
        Metadata {
            model: self.model.clone(),
            chat_template: self.tokenizer.is_some().then(|| "{{ messages[0].content }}".into()),
            sampling: self.sampling,
            provenance: Provenance {
                converter: "golden".into(),
                source,
                recipe: self.encoding.to_string(),
                recipe_file: Some(format!("default = \"{}\"\n", self.encoding)),
                passes,
            },
        }
    }
}

/// Checksum of the values of every matrix and vector, row by row in f32.
pub fn decoded(index: &Index, file: &[u8]) -> BTreeMap<String, String> {
    let values = |id: TensorId, rows: usize, cols: usize| match id.role.kind() {
        Kind::Matrix => {
            let matrix = index.matrix(file, id).expect("a matrix of the directory");
            let mut values = vec![0.0; rows * cols];
            values.chunks_exact_mut(cols).enumerate().for_each(|(row, out)| matrix.decode_row(row, out));
            values
        }
        _ => index.vector(file, id).expect("a vector of the directory"),
    };
    let tensors = index.entries().iter().filter(|entry| entry.kind() != Kind::Bytes);
    let sums = tensors.map(|entry| {
        let values = values(entry.id, entry.rows as usize, entry.cols as usize);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (entry.id.to_string(), format!("{:016x}", checksum(&bytes)))
    });
    sums.collect()
}

/// Writes a two-dimensional float32 NumPy file.
pub fn write_npy(path: &Path, cols: usize, values: &[f32]) {
    let shape = format!("({}, {cols})", values.len() / cols);
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    while !(head.len() + 11).is_multiple_of(64) {
        head.push(' ');
    }
    head.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((head.len() as u16).to_le_bytes());
    bytes.extend(head.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).expect("a folder that can be written");
}

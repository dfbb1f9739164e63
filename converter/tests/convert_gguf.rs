//! What GGUF keys mean beyond those of the golden files.

mod source_support;

use std::path::PathBuf;

use pith_converter::checkpoint::SourceType;
use pith_converter::{ConvertError, ConvertOptions, SourceSummary, convert, inspect_source};
use pith_format::{Encoding, Index, ModelConfig, Role, Sampling, TensorId};
use source_support::{Gguf, f32_bytes};
use tempfile::TempDir;

const F32: u32 = 0;
/// Value types of GGUF.
const INT: u32 = 5;
const FLOAT: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;

/// Two layers, 2 heads of 8, 16 wide; `extra` adds keys and tensors.
fn llama(extra: impl Fn(Gguf) -> Gguf) -> Result<ModelConfig, ConvertError> {
    Ok(inspect(|file| extra(float(file, EPSILON, 1e-5)))?.model)
}

const EPSILON: &str = "llama.attention.layer_norm_rms_epsilon";

/// The same without an epsilon.
fn inspect(extra: impl Fn(Gguf) -> Gguf) -> Result<SourceSummary, ConvertError> {
    let (_folder, path) = written(extra);
    inspect_source(&path)
}

fn written(extra: impl Fn(Gguf) -> Gguf) -> (TempDir, PathBuf) {
    written_with(None, extra)
}

/// With `down`, the type and the bytes of 256 × 16 weights, for `ffn_down`.
fn written_with(down: Option<(u32, &[u8])>, extra: impl Fn(Gguf) -> Gguf) -> (TempDir, PathBuf) {
    let feed_forward_len = if down.is_some() { 256 } else { 24 };
    let mut file = Gguf::new()
        .key_string("general.architecture", "llama")
        .key_u32("llama.context_length", 64)
        .key_u32("llama.embedding_length", 16)
        .key_u32("llama.block_count", 2)
        .key_u32("llama.feed_forward_length", feed_forward_len)
        .key_u32("llama.attention.head_count", 2);
    let feed_forward_len = u64::from(feed_forward_len);
    let tensor = |file: Gguf, name: &str, ne: &[u64]| {
        file.tensor(name, ne, F32, &f32_bytes(&vec![0.5; ne.iter().product::<u64>() as usize]))
    };
    file = tensor(file, "token_embd.weight", &[16, 10]);
    file = tensor(file, "output_norm.weight", &[16]);
    for layer in 0..2 {
        for (name, ne) in [
            ("attn_norm", vec![16]),
            ("attn_q", vec![16, 16]),
            ("attn_k", vec![16, 16]),
            ("attn_v", vec![16, 16]),
            ("attn_output", vec![16, 16]),
            ("ffn_norm", vec![16]),
            ("ffn_gate", vec![16, feed_forward_len]),
            ("ffn_up", vec![16, feed_forward_len]),
        ] {
            file = tensor(file, &format!("blk.{layer}.{name}.weight"), &ne);
        }
        let (dtype, bytes) =
            down.map_or((F32, f32_bytes(&[0.5; 24 * 16])), |(dtype, bytes)| (dtype, bytes.into()));
        file = file.tensor(&format!("blk.{layer}.ffn_down.weight"), &[feed_forward_len, 16], dtype, &bytes);
    }
    source_support::file("model.gguf", &extra(file).bytes())
}

fn float(file: Gguf, key: &str, value: f32) -> Gguf {
    file.key(key, FLOAT, &value.to_le_bytes())
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (&found, &expected) in found.iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() <= 1e-6 * expected, "{found} is not {expected}");
    }
}

#[test]
fn keys_that_are_missing_have_defaults() {
    let model = llama(|file| file).unwrap();
    let attention = model.layers[1].attention().unwrap();
    assert_eq!((&attention.query_heads[..], attention.head_dim, attention.window), (&[1, 1][..], 8, None));
    assert!(model.tied_head && model.vocab_len == 10 && model.bos.is_none() && model.eos.is_empty());
    assert_close(&model.rope[0].inv_freq, &[1.0, 0.1, 0.01, 0.001]);
}

#[test]
fn tokens_that_end_a_reply_are_collected() {
    let model = llama(|file| {
        file.key_u32("tokenizer.ggml.bos_token_id", 1)
            .key_u32("tokenizer.ggml.eos_token_id", 2)
            .key_u32("tokenizer.ggml.eot_token_id", 3)
            .key_u32("tokenizer.ggml.eom_token_id", 2)
    });
    let model = model.unwrap();
    assert_eq!((model.bos, model.eos), (Some(1), vec![2, 3]));
    // Those that no key names are found by their spelling.
    let model = llama(|file| {
        let tokens = ["a", "<|im_start|>", "<|endoftext|>", "<|im_end|>"];
        let elements: Vec<u8> = tokens
            .iter()
            .flat_map(|token| [&(token.len() as u64).to_le_bytes()[..], token.as_bytes()].concat())
            .collect();
        file.key_u32("tokenizer.ggml.eos_token_id", 2).key_array(
            "tokenizer.ggml.tokens",
            STRING,
            tokens.len() as u64,
            &elements,
        )
    });
    assert_eq!(model.unwrap().eos, [2, 3]);
}

#[test]
fn windows_follow_the_pattern() {
    let windows = |extra: &dyn Fn(Gguf) -> Gguf| {
        let model = llama(|file| extra(file.key_u32("llama.attention.sliding_window", 16))).unwrap();
        model.layers.iter().map(|layer| layer.attention().unwrap().window.unwrap_or(0)).collect::<Vec<_>>()
    };
    let pattern = "llama.attention.sliding_window_pattern";
    assert_eq!(windows(&|file| file), [16, 16]);
    assert_eq!(windows(&|file| file.key_u32(pattern, 2)), [16, 0]);
    assert_eq!(windows(&|file| file.key_array(pattern, BOOL, 2, &[0, 1])), [0, 16]);
    let error = llama(|file| {
        file.key_u32("llama.attention.sliding_window", 16).key_array(pattern, BOOL, 3, &[0, 1, 1])
    });
    assert!(error.unwrap_err().to_string().contains("a list of 2 flags"));
    let unlimited = llama(|file| file.key_u32("llama.attention.sliding_window", 0)).unwrap();
    assert_eq!(unlimited.layers[0].attention().unwrap().window, None);
}

#[test]
fn rope_scalings_are_applied() {
    let scaled = |name: &'static str| {
        llama(move |file| {
            let file = file.key_string("llama.rope.scaling.type", name);
            float(file, "llama.rope.scaling.factor", 4.0)
                .key_u32("llama.rope.scaling.original_context_length", 16)
        })
    };
    assert_close(&scaled("linear").unwrap().rope[0].inv_freq, &[0.25, 0.025, 0.0025, 0.00025]);
    // Range: 8·ln(16/64π)/(2 ln 10⁴) < 0 → 0, 8·ln(16/2π)/(2 ln 10⁴) = 0.41 → 1: all but the first are divided.
    let yarn = &scaled("yarn").unwrap().rope[0];
    assert_close(&yarn.inv_freq, &[1.0, 0.025, 0.0025, 0.00025]);
    assert_close(&[yarn.magnitude], &[0.1 * 4f64.ln() + 1.0]);
}

#[test]
fn divisors_of_frequencies_are_read() {
    let factors = |name: &'static str, values: &'static [f32]| {
        move |file: Gguf| file.tensor(name, &[values.len() as u64], F32, &f32_bytes(values))
    };
    let model = llama(factors("rope_freqs.weight", &[1.0, 1.0, 2.0, 8.0])).unwrap();
    assert_close(&model.rope[0].inv_freq, &[1.0, 0.1, 0.005, 0.000125]);
    let error = llama(factors("rope_freqs.weight", &[1.0, 2.0])).unwrap_err().to_string();
    assert!(error.contains("rope_freqs.weight") && error.contains("a list of 4"), "{error}");
    let error = llama(factors("rope_factors_long.weight", &[1.0; 4])).unwrap_err().to_string();
    assert!(error.contains("one scaling"), "{error}");
}

#[test]
fn a_missing_epsilon_is_an_error() {
    let error = inspect(|file| file).unwrap_err().to_string();
    assert!(error.contains(&format!("{EPSILON} is missing, expected a number")), "{error}");
}

#[test]
fn mechanisms_of_other_families_are_named() {
    let warnings = |key: &'static str, value: f32| {
        inspect(move |file| float(float(file, EPSILON, 1e-5), key, value)).unwrap().warnings
    };
    let found = warnings("llama.attn_logit_softcapping", 50.0);
    assert!(found.len() == 1 && found[0].contains("attn_logit_softcapping is f32 50"), "{found:?}");
    assert!(warnings("llama.attn_logit_softcapping", 0.0).is_empty());
    assert!(warnings("llama.logit_scale", 1.0).is_empty());
    assert_eq!(warnings("llama.logit_scale", 0.5).len(), 1);
}

/// A matrix of a type, 16 rows of 256 weights, by the blocks of its golden file that have usual
/// scales; and the values that they decode to.
fn matrix_of(dtype: SourceType) -> (Vec<u8>, Vec<f32>) {
    let name = format!("../tests/golden/blocks/{}.bin", dtype.name().to_lowercase());
    let golden = std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let stored = &golden[8..][..u32::from_le_bytes(*golden.first_chunk().unwrap()) as usize];
    let usual = &stored[8 * dtype.block_bytes()..];
    let blocks = 16 * 256 / dtype.block_len();
    let bytes: Vec<u8> =
        usual.chunks_exact(dtype.block_bytes()).cycle().take(blocks).flatten().copied().collect();
    let mut values = vec![0.0; 16 * 256];
    dtype.decode(&bytes, &mut values).unwrap();
    (bytes, values)
}

#[test]
fn types_of_gguf_are_carried_or_rounded_with_a_warning() {
    for (id, dtype, encoding) in [
        (21, SourceType::Iq3S, Some(Encoding::Q6K)),
        (41, SourceType::Q1_0, Some(Encoding::Ternary)),
        (42, SourceType::Q2_0, Some(Encoding::Q4G64)),
        (16, SourceType::Iq2Xxs, None),
        (17, SourceType::Iq2Xs, None),
        (22, SourceType::Iq2S, None),
        (18, SourceType::Iq3Xxs, None),
        (19, SourceType::Iq1S, None),
        (29, SourceType::Iq1M, None),
        (40, SourceType::Nvfp4, None),
    ] {
        assert_eq!(SourceType::from_ggml_id(id), Some(dtype));
        let (bytes, expected) = matrix_of(dtype);
        let (folder, path) = written_with(Some((id, &bytes)), |file| float(file, EPSILON, 1e-5));
        let output = folder.path().join("model.pith");
        let report = convert(&path, &output, &ConvertOptions::default(), &()).unwrap();
        let file = std::fs::read(&output).unwrap();
        let index = Index::parse(&file).unwrap();
        let matrix = index.matrix(&file, TensorId::layer(Role::Down, 1)).unwrap();
        assert_eq!(matrix.encoding(), encoding.unwrap_or(Encoding::Q8), "{dtype}");
        let mut found = vec![0.0; 16 * 256];
        found.chunks_exact_mut(256).enumerate().for_each(|(row, found)| matrix.decode_row(row, found));
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        for (found, expected) in found.chunks(32).zip(expected.chunks(32)) {
            // Half a step of 8 bits, and the rounding of the scale.
            let allowed = if encoding.is_some() { 0.0 } else { 0.51 / 127.0 * largest(expected) };
            let error = largest(&found.iter().zip(expected).map(|(a, b)| a - b).collect::<Vec<_>>());
            assert!(error <= allowed, "{dtype}: {error} and {allowed}");
        }
        let warned = report.warnings.iter().any(|warning| {
            warning.contains(&format!("2 quantized matrices are decoded and rounded again: \"blk.0.ffn_down.weight\" has the blocks of {dtype}"))
        });
        assert_eq!(warned, encoding.is_none(), "{dtype}: {:?}", report.warnings);
    }
}

#[test]
fn a_scale_that_is_no_number_is_an_error_that_names_the_file() {
    let (mut bytes, _) = matrix_of(SourceType::Iq3S);
    // Block 5 is row 5.
    bytes[5 * SourceType::Iq3S.block_bytes()..][..2].copy_from_slice(&[0x00, 0x7C]);
    let (folder, path) = written_with(Some((21, &bytes)), |file| float(file, EPSILON, 1e-5));
    let output = folder.path().join("model.pith");
    let error = convert(&path, &output, &ConvertOptions::default(), &()).unwrap_err().to_string();
    for part in [
        &*path.display().to_string(),
        "\"blk.0.ffn_down.weight\"",
        "row 5, column 0 is",
        "a block of IQ3_S that stores the scale or minimum inf",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

/// A code that Q8_0 may have and q8 has not.
#[test]
fn codes_that_no_encoding_has_are_clipped_with_a_warning() {
    // 128 blocks: a scale of 1, codes of 2, in two of them a first code of −128.
    let mut bytes = [&[0x00, 0x3C][..], &[2; 32]].concat().repeat(128);
    (bytes[2], bytes[34 * 20 + 2]) = (0x80, 0x80);
    let (folder, path) = written_with(Some((8, &bytes)), |file| float(file, EPSILON, 1e-5));
    let output = folder.path().join("model.pith");
    let report = convert(&path, &output, &ConvertOptions::default(), &()).unwrap();
    // Both layers have this matrix.
    let expected = "4 codes of -128, which no encoding has, became -127";
    assert!(report.warnings.iter().any(|warning| warning == expected), "{:?}", report.warnings);
    let file = std::fs::read(&output).unwrap();
    let index = Index::parse(&file).unwrap();
    let matrix = index.matrix(&file, TensorId::layer(Role::Down, 0)).unwrap();
    let mut row = vec![0.0; 256];
    matrix.decode_row(0, &mut row);
    assert_eq!((row[0], &row[1..4]), (-127.0, &[2.0; 3][..]));
}

#[test]
fn a_vocabulary_of_merges_needs_them() {
    let words = |words: &[&str]| -> Vec<u8> {
        let word = |word: &&str| [&(word.len() as u64).to_le_bytes()[..], word.as_bytes()].concat();
        words.iter().flat_map(word).collect()
    };
    let tokens = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "ab"];
    let convert_with = |merges: Option<&[&str]>| {
        let (folder, path) = written(|file| {
            let file = float(file, EPSILON, 1e-5)
                .key_string("tokenizer.ggml.model", "gpt2")
                .key_string("tokenizer.ggml.pre", "gpt-2")
                .key_array("tokenizer.ggml.tokens", STRING, 10, &words(&tokens));
            match merges {
                Some(merges) => {
                    file.key_array("tokenizer.ggml.merges", STRING, merges.len() as u64, &words(merges))
                }
                None => file,
            }
        });
        convert(&path, &folder.path().join("model.pith"), &ConvertOptions::default(), &())
    };
    let error = convert_with(None).unwrap_err().to_string();
    assert!(error.contains("\"tokenizer.ggml.merges\""), "{error}");
    convert_with(Some(&["a b"])).unwrap();
}

#[test]
fn recommended_sampling_comes_along() {
    let (folder, path) = written(|file| {
        let file = float(float(file, EPSILON, 1e-5), "general.sampling.temp", 0.6);
        let file = float(file, "general.sampling.penalty_repeat", 1.1);
        file.key_u32("general.sampling.top_k", 20)
            .key("general.sampling.penalty_last_n", INT, &(-1i32).to_le_bytes())
            .key_u32("general.sampling.mirostat", 2)
    });
    let output = folder.path().join("model.pith");
    let report = convert(&path, &output, &ConvertOptions::default(), &()).unwrap();
    let index = Index::parse(&std::fs::read(&output).unwrap()).unwrap();
    let expected = Sampling {
        temperature: Some(0.6),
        top_k: Some(20),
        repeat_penalty: Some(1.1),
        // The context.
        repeat_window: Some(64),
        ..Sampling::default()
    };
    assert_eq!(index.metadata().sampling, Some(expected));
    assert!(report.warnings.iter().any(|warning| warning.contains("mirostat is 2")), "{:?}", report.warnings);

    let (folder, path) = written(|file| float(float(file, EPSILON, 1e-5), "general.sampling.top_p", -0.5));
    let output = folder.path().join("model.pith");
    let error = convert(&path, &output, &ConvertOptions::default(), &()).unwrap_err().to_string();
    assert!(error.contains("sampling.top_p is -0.5, expected above 0"), "{error}");
}

#[test]
fn heads_must_divide_the_width() {
    let model = |heads: u32, more: fn(Gguf) -> Gguf| {
        let (_folder, path) = source_support::file(
            "model.gguf",
            &more(
                Gguf::new()
                    .key_string("general.architecture", "llama")
                    .key_u32("llama.context_length", 64)
                    .key_u32("llama.embedding_length", 16)
                    .key_u32("llama.block_count", 1)
                    .key_u32("llama.feed_forward_length", 24)
                    .key_u32("llama.attention.head_count", heads),
            )
            .bytes(),
        );
        inspect_source(&path).unwrap_err().to_string()
    };
    assert!(
        model(3, |file| file).contains("head_count is u32 3, expected a divisor of embedding_length, 16")
    );
    assert!(model(3, |file| file.key_u32("llama.attention.key_length", 5)).contains("epsilon"));
}

#[test]
fn what_is_not_supported_is_named() {
    for (key, value, expected) in [
        ("llama.expert_count", 8, "mixtures of experts"),
        ("llama.attention.value_length", 4, "expected 8"),
        ("llama.rope.dimension_count", 10, "at most 8"),
        ("llama.vocab_size", 11, "[11, 16]"),
    ] {
        let error = llama(|file| file.key_u32(key, value)).unwrap_err().to_string();
        assert!(error.contains(expected), "{key}: {error}");
    }
    let error = llama(|file| file.key("llama.attention.causal", BOOL, &[0])).unwrap_err().to_string();
    assert!(error.contains("attention.causal") && error.contains("expected true"), "{error}");
    let error = llama(|file| file.key_string("llama.rope.scaling.type", "ntk")).unwrap_err().to_string();
    assert!(error.contains("none, linear, yarn or longrope"), "{error}");
}

//! Every golden checkpoint converts, and each transform of the families' tables puts the values where they belong.

mod convert_support;

use std::fs;

use convert_support::{Converted, copy, copy_tensor, families, reconfigured, rename, source, with};
use pith_converter::checkpoint::Checkpoint;
use pith_converter::{Recipe, inspect_source};
use pith_format::{Encoding, Kind, Role, Sampling, TensorId};
use serde_json::json;

fn layer(role: Role) -> TensorId {
    TensorId::layer(role, 1)
}

fn model(role: Role) -> TensorId {
    TensorId::model(role)
}

/// The source's values, and the number of its columns.
fn stored(name: &str, tensor: &str) -> (Vec<f32>, usize) {
    let checkpoint = Checkpoint::open(&source(name)).unwrap();
    (checkpoint.load_f32(tensor).unwrap(), checkpoint.tensor(tensor).unwrap().cols())
}

/// Rows `map(0), map(1), …` of the source are the rows of the file.
fn assert_rows(file: &Converted, id: TensorId, name: &str, tensor: &str, map: impl Fn(usize) -> usize) {
    let (values, cols) = stored(name, tensor);
    for row in 0..file.index.entry(id).unwrap().rows as usize {
        assert_eq!(file.row(id, row), values[map(row) * cols..][..cols], "{id}, row {row}");
    }
}

#[test]
fn every_golden_checkpoint_converts() {
    let mut count = 0;
    for folder in fs::read_dir(families()).unwrap() {
        let name = folder.unwrap().file_name().to_string_lossy().into_owned();
        if !families().join(&name).is_dir() {
            continue;
        }
        let file = Converted::golden(&name, Encoding::F32);
        let model = &file.index.metadata().model;
        assert!(name.trim_start_matches("gguf_").starts_with(&model.family[..4]), "{name}: {}", model.family);
        assert_eq!(model.tied_head, !file.has(Role::Head), "{name}");
        let summary = inspect_source(&source(&name)).unwrap();
        assert_eq!(&summary.model, model, "{name}");
        assert_eq!(file.report.tensors.len(), file.index.entries().len(), "{name}");
        let bytes: u64 = file.report.by_encoding().values().map(|total| total.bytes).sum();
        assert_eq!(bytes, file.index.entries().iter().map(|entry| entry.bytes).sum::<u64>(), "{name}");
        let stray = |warning: &String| warning.contains("mechanism") || warning.contains("differs");
        assert!(!file.report.warnings.iter().any(stray), "{name}: {:?}", file.report.warnings);
        count += 1;
    }
    assert!(count >= 39, "{count} checkpoints");
}

#[test]
fn plain_tensors_are_what_they_were() {
    let name = "llama2_tied";
    let file = Converted::golden(name, Encoding::F32);
    for (role, tensor) in [
        (Role::Query, "self_attn.q_proj.weight"),
        (Role::AttentionOutput, "self_attn.o_proj.weight"),
        (Role::Gate, "mlp.gate_proj.weight"),
        (Role::Down, "mlp.down_proj.weight"),
    ] {
        assert_rows(&file, layer(role), name, &format!("model.layers.1.{tensor}"), |row| row);
    }
    assert_rows(&file, model(Role::TokenEmbedding), name, "model.embed_tokens.weight", |row| row);
    let bias = stored(name, "model.layers.1.mlp.up_proj.bias").0;
    assert_eq!(file.vector(layer(Role::UpBias)), bias);
}

#[test]
fn fused_rows_are_split() {
    let (file, qkv) = (Converted::golden("phi3", Encoding::F32), "model.layers.1.self_attn.qkv_proj.weight");
    // 4 heads, 2 key heads, head_dim 12; ffn_len 80.
    assert_rows(&file, layer(Role::Query), "phi3", qkv, |row| row);
    assert_rows(&file, layer(Role::Key), "phi3", qkv, |row| 48 + row);
    assert_rows(&file, layer(Role::Value), "phi3", qkv, |row| 72 + row);
    let gate_up = "model.layers.1.mlp.gate_up_proj.weight";
    assert_rows(&file, layer(Role::Gate), "phi3", gate_up, |row| row);
    assert_rows(&file, layer(Role::Up), "phi3", gate_up, |row| 80 + row);
}

#[test]
fn parts_of_each_head_are_gathered() {
    let name = "gpt_neox";
    let (file, qkv) = (Converted::golden(name, Encoding::F32), "gpt_neox.layers.1.attention.query_key_value");
    // 3 heads of 16 dimensions, each with its query, key and value.
    for (part, role, bias) in
        [(0, Role::Query, Role::QueryBias), (1, Role::Key, Role::KeyBias), (2, Role::Value, Role::ValueBias)]
    {
        let map = |row: usize| row / 16 * 48 + part * 16 + row % 16;
        assert_rows(&file, layer(role), name, &format!("{qkv}.weight"), map);
        let stored = stored(name, &format!("{qkv}.bias")).0;
        let expected: Vec<f32> = (0..48).map(|row| stored[map(row)]).collect();
        assert_eq!(file.vector(layer(bias)), expected);
    }
}

#[test]
fn matrices_of_inputs_and_outputs_are_turned() {
    let (name, tensor) = ("gpt2", "h.1.attn.c_attn.weight");
    let file = Converted::golden(name, Encoding::F32);
    let (values, cols) = stored(name, tensor);
    assert_eq!(cols, 120);
    for row in 0..40 {
        let expected: Vec<f32> = (0..40).map(|col| values[col * cols + 40 + row]).collect();
        assert_eq!(file.row(layer(Role::Key), row), expected);
    }
    assert_eq!(file.vector(layer(Role::KeyBias)), stored(name, "h.1.attn.c_attn.bias").0[40..80]);
}

#[test]
fn pairs_of_gguf_become_halves() {
    let name = "gguf_llama2";
    let file = Converted::golden(name, Encoding::F32);
    let map = |row: usize| row / 16 * 16 + row % 8 * 2 + row % 16 / 8;
    assert_rows(&file, layer(Role::Query), name, "blk.1.attn_q.weight", map);
    assert_rows(&file, layer(Role::Key), name, "blk.1.attn_k.weight", map);
    assert_rows(&file, layer(Role::Value), name, "blk.1.attn_v.weight", |row| row);
    assert_rows(
        &Converted::golden("gguf_qwen2", Encoding::F32),
        layer(Role::Query),
        "gguf_qwen2",
        "blk.1.attn_q.weight",
        |row| row,
    );
}

#[test]
fn gemma_norms_gain_one_unless_they_have_it() {
    let file = Converted::golden("gemma3", Encoding::F32);
    for (role, tensor) in [
        (Role::MixerPostNorm, "post_attention_layernorm"),
        (Role::FfnNorm, "pre_feedforward_layernorm"),
        (Role::QueryNorm, "self_attn.q_norm"),
    ] {
        let stored = stored("gemma3", &format!("model.layers.1.{tensor}.weight")).0;
        let expected: Vec<f32> = stored.iter().map(|weight| weight + 1.0).collect();
        assert_eq!(file.vector(layer(role)), expected);
    }
    let file = Converted::golden("gguf_gemma3", Encoding::F32);
    assert_eq!(file.vector(layer(Role::FfnNorm)), stored("gguf_gemma3", "blk.1.ffn_norm.weight").0);
}

#[test]
fn a_head_that_differs_from_its_tied_embedding_is_used() {
    let folder = reconfigured("llama2", &json!({"tie_word_embeddings": true}));
    let options = with(Recipe::new(Encoding::F32));
    let file = Converted::new(folder.path(), &options).unwrap();
    assert!(!file.index.metadata().model.tied_head);
    assert_rows(&file, model(Role::Head), "llama2", "lm_head.weight", |row| row);
    let warnings = &file.report.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("lm_head.weight differs")), "{warnings:?}");

    // An equal copy says nothing new.
    copy_tensor(folder.path(), "model.embed_tokens.weight", "lm_head.weight");
    let file = Converted::new(folder.path(), &options).unwrap();
    assert!(file.index.metadata().model.tied_head && !file.has(Role::Head));
    assert!(!file.report.warnings.iter().any(|warning| warning.contains("lm_head")));
}

#[test]
fn keys_that_contradict_each_other_or_the_family_are_named() {
    let message = |over| {
        let folder = reconfigured("llama2", &over);
        Converted::new(folder.path(), &Default::default()).err().unwrap().to_string()
    };
    let found = message(json!({"n_head": 2}));
    assert!(found.contains("n_head is 2, expected 4, as num_attention_heads says"), "{found}");
    let found = message(json!({"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": null}));
    assert!(found.contains("num_attention_heads is 5, expected a divisor of the hidden size"), "{found}");
    for (over, named) in [
        (json!({"final_logit_softcapping": 30.0}), Some("final_logit_softcapping is 30.0")),
        (json!({"sliding_window": 8}), Some("sliding_window is 8")),
        (json!({"sliding_window": 8, "use_sliding_window": false}), None),
        (json!({"logits_scaling": 1, "clip_qkv": null, "use_qk_norm": false}), None),
        (json!({"residual_multiplier": 0.22}), Some("residual_multiplier is 0.22")),
    ] {
        let folder = reconfigured("llama2", &over);
        let warnings = inspect_source(folder.path()).unwrap().warnings;
        let found: Vec<_> = warnings.iter().filter(|warning| warning.contains("no such mechanism")).collect();
        assert_eq!(found.len(), usize::from(named.is_some()), "{over}: {warnings:?}");
        assert!(named.is_none_or(|named| found[0].starts_with(named)), "{warnings:?}");
    }
}

#[test]
fn without_a_head_the_embedding_serves() {
    let folder = reconfigured("llama2_tied", &json!({"tie_word_embeddings": false}));
    let file = Converted::new(folder.path(), &Default::default()).unwrap();
    assert!(file.index.metadata().model.tied_head);
    assert!(file.report.warnings.iter().any(|warning| warning.contains("tie_word_embeddings is false")));
}

#[test]
fn metadata_says_where_the_file_came_from() {
    let file = Converted::golden("qwen3", Encoding::Q4);
    let metadata = file.index.metadata();
    let checkpoint = Checkpoint::open(&source("qwen3")).unwrap();
    let record = &metadata.provenance.source;
    assert_eq!((record.kind.as_str(), record.name.as_str()), ("huggingface", "qwen3"));
    assert_eq!(record.checksum, format!("{:032x}", checkpoint.checksum().unwrap()));
    assert_eq!(record.tensor_bytes, checkpoint.tensors().map(|tensor| tensor.bytes).sum::<u64>());
    assert_eq!(metadata.provenance.recipe, "q4, embedding q8, head q8");
    assert_eq!((metadata.model.bos, metadata.model.eos.as_slice()), (Some(1), &[2][..]));
    let encoding = |id| file.index.entry(id).unwrap().encoding;
    assert_eq!(encoding(model(Role::TokenEmbedding)), Some(Encoding::Q8));
    assert_eq!(encoding(layer(Role::Query)), Some(Encoding::Q4));
    assert_eq!(encoding(layer(Role::QueryNorm)), None);
    assert!(
        file.index.entries().iter().all(|entry| (entry.kind() == Kind::Matrix) == entry.encoding.is_some())
    );
}

#[test]
fn tokenizers_and_templates_come_along() {
    let file = Converted::golden("gguf_llama_q8_0", Encoding::Q8);
    assert!(file.has(Role::Tokenizer) && file.report.warnings.is_empty(), "{:?}", file.report.warnings);
    let tokenizer = pith_tokenizer::Tokenizer::from_blob(file.bytes_of(model(Role::Tokenizer))).unwrap();
    assert_eq!(tokenizer.vocab_len(), file.index.metadata().model.vocab_len);

    let folder = copy("llama2");
    fs::write(folder.path().join("vocab.json"), r#"{"a": 0, "b": 1, "ab": 2, "<s>": 3}"#).unwrap();
    fs::write(folder.path().join("merges.txt"), "#version: 0.2\na b\n").unwrap();
    fs::write(folder.path().join("special_tokens_map.json"), r#"{"bos_token": {"content": "<s>"}}"#).unwrap();
    fs::write(folder.path().join("added_tokens.json"), r#"{"<x>": 4}"#).unwrap();
    let templates = r#"{"add_bos_token": true, "chat_template": [{"name": "default", "template": "T"}]}"#;
    fs::write(folder.path().join("tokenizer_config.json"), templates).unwrap();
    let file = Converted::new(folder.path(), &Default::default()).unwrap();
    let tokenizer = pith_tokenizer::Tokenizer::from_blob(file.bytes_of(model(Role::Tokenizer))).unwrap();
    assert_eq!(tokenizer.encode("aba<x>", true).unwrap(), [3, 2, 0, 4]);
    assert_eq!(file.index.metadata().chat_template.as_deref(), Some("T"));

    let loaded = pith_converter::load_tokenizer(folder.path()).unwrap();
    assert_eq!(loaded.to_blob(), tokenizer.to_blob());
    let loaded = pith_converter::load_tokenizer(&source("gguf_gpt2")).unwrap();
    assert!(loaded.vocab_len() > 0);

    fs::write(folder.path().join("vocab.json"), "{").unwrap();
    let error = Converted::new(folder.path(), &Default::default()).err().unwrap();
    assert!(error.to_string().contains("vocab.json"), "{error}");
}

/// The tensors of a converted file.
fn checksums(file: &Converted) -> Vec<(TensorId, u64)> {
    file.index.entries().iter().map(|entry| (entry.id, entry.checksum)).collect()
}

#[test]
fn models_inside_wrappers_are_the_same_models() {
    let plain = Converted::golden("gemma3", Encoding::Q8);
    for (inner, outer) in [
        ("model.", "model.language_model."),
        ("", "language_model."),
        ("", "_orig_mod."),
        ("", "base_model.model."),
    ] {
        let folder = copy("gemma3");
        let wrapped = |name: &str| match name.strip_prefix(inner) {
            Some(rest) => format!("{outer}{rest}"),
            None => name.to_string(),
        };
        rename(folder.path(), wrapped, &[]);
        let file = Converted::new(folder.path(), &with(Recipe::new(Encoding::Q8))).unwrap();
        assert_eq!(checksums(&file), checksums(&plain), "{outer}");
    }
}

/// The form of Gemma 3's larger models: a configuration within another, and tensors that see.
#[test]
fn the_language_model_of_a_model_of_more_than_text_is_converted() {
    let plain = Converted::golden("gemma3", Encoding::Q8);
    let folder = copy("gemma3");
    let path = folder.path().join("config.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    text["model_type"] = json!("gemma3_text");
    let config = json!({"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
        "eos_token_id": [2, 3], "text_config": text, "vision_config": {"hidden_size": 8}});
    fs::write(&path, config.to_string()).unwrap();
    let senses =
        ["vision_tower.vision_model.post_layernorm.weight", "multi_modal_projector.mm_soft_emb_norm.weight"];
    rename(folder.path(), |name| format!("language_model.{name}"), &senses);
    fs::write(folder.path().join("chat_template.json"), r#"{"chat_template": "T"}"#).unwrap();
    let file = Converted::new(folder.path(), &with(Recipe::new(Encoding::Q8))).unwrap();
    assert_eq!(checksums(&file), checksums(&plain));
    let metadata = file.index.metadata();
    assert_eq!((metadata.model.eos.as_slice(), metadata.chat_template.as_deref()), (&[2, 3][..], Some("T")));
    let warnings = &file.report.warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with("2 tensors that see or hear")), "{warnings:?}");

    // The error of an unknown type names the types that configurations have.
    let config = json!({"model_type": "x", "text_config": {"model_type": "gemma3n_text"}});
    fs::write(&path, config.to_string()).unwrap();
    let message = Converted::new(folder.path(), &Default::default()).err().unwrap().to_string();
    assert!(message.contains("\"gemma3n_text\"; known are llama") && message.contains("gemma3_text, gemma3"));
}

#[test]
fn recommended_sampling_comes_along() {
    let sampling = |generation: serde_json::Value| {
        let folder = copy("llama2");
        fs::write(folder.path().join("generation_config.json"), generation.to_string()).unwrap();
        let file = Converted::new(folder.path(), &Default::default()).unwrap();
        (file.index.metadata().sampling, file.report.warnings)
    };
    let (found, _) = sampling(json!({"do_sample": true, "temperature": 0.7, "top_k": 64, "top_p": 0.95,
        "min_p": null, "repetition_penalty": 1.05, "eos_token_id": [2, 3]}));
    let expected = Sampling {
        temperature: Some(0.7),
        top_k: Some(64),
        top_p: Some(0.95),
        repeat_penalty: Some(1.05),
        repeat_window: Some(128),
        ..Sampling::default()
    };
    assert_eq!(found, Some(expected));
    // A model that does not sample chooses the most likely token.
    let greedy = Sampling { temperature: Some(0.0), ..Sampling::default() };
    assert_eq!(sampling(json!({"do_sample": false, "top_k": 50})).0, Some(greedy));
    assert_eq!(sampling(json!({"eos_token_id": 2})).0, None);
    let (found, warnings) = sampling(json!({"num_beams": 4}));
    assert!(found.is_none() && warnings.iter().any(|warning| warning.contains("num_beams is 4")));
    let (_, warnings) = sampling(json!({"stop_strings": ["x"], "bad_words_ids": [], "min_new_tokens": 2}));
    let said = warnings.join("; ");
    assert!(said.contains("stop_strings") && said.contains("min_new_tokens is 2"), "{said}");
    assert!(!said.contains("bad_words_ids"), "{said}");
}

#[test]
fn a_checkpoint_without_a_tokenizer_converts_with_a_warning() {
    let file = Converted::golden("qwen3", Encoding::Q8);
    assert!(!file.has(Role::Tokenizer));
    assert!(file.report.warnings[0].contains("no tokenizer"), "{:?}", file.report.warnings);
}

//! What stops a conversion is named, and leaves nothing behind.

mod convert_support;

use std::fs;
use std::path::Path;

use convert_support::{copy, reconfigured, source, spoil, with};
use pith_converter::{CheckpointError, ConvertError, ConvertOptions, Recipe, convert};
use pith_format::{Encoding, Index, ReplaceError};
use serde_json::json;

const NAN: u16 = 0x7fc0;
const MINUS_INFINITY: u16 = 0xff80;
/// 2¹⁷ in bfloat16.
const LARGE: u16 = 0x4800;

/// The error of converting `source`; checks that it left no file.
fn error(source: &Path, options: &ConvertOptions) -> ConvertError {
    let folder = tempfile::tempdir().unwrap();
    let error = convert(source, &folder.path().join("model.pith"), options, &()).unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    error
}

fn message(source: &Path) -> String {
    error(source, &ConvertOptions::default()).to_string()
}

#[test]
fn an_unknown_family_is_named_beside_the_known() {
    let folder = reconfigured("llama2", &json!({"model_type": "rwkv"}));
    let message = message(folder.path());
    for part in ["rwkv", "llama", "gpt_neox", "smollm3", folder.path().to_str().unwrap()] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn the_class_names_the_family_where_the_type_is_missing() {
    let folder = reconfigured("llama2", &json!({"model_type": null}));
    let output = folder.path().join("out.pith");
    assert_eq!(convert(folder.path(), &output, &ConvertOptions::default(), &()).unwrap().family, "llama");
}

#[test]
fn a_missing_tensor_is_named_with_its_role() {
    let folder = reconfigured("llama2", &json!({"num_hidden_layers": 4}));
    let error = error(folder.path(), &ConvertOptions::default());
    assert!(matches!(error, ConvertError::Checkpoint(CheckpointError::MissingTensor { .. })));
    let message = error.to_string();
    assert!(message.contains("model.layers.3.input_layernorm.weight"), "{message}");
    assert!(message.contains("layers.3.mixer.norm"), "{message}");
}

#[test]
fn biases_that_the_configuration_promises_must_be_there() {
    let folder = reconfigured("llama2", &json!({"attention_bias": true}));
    assert!(message(folder.path()).contains("model.layers.0.self_attn.q_proj.bias"));
}

#[test]
fn a_tensor_without_a_role_stops_the_conversion() {
    let folder = reconfigured("llama2", &json!({"num_hidden_layers": 2}));
    let error = error(folder.path(), &ConvertOptions::default());
    assert!(
        matches!(&error, ConvertError::Checkpoint(CheckpointError::UnknownTensor { tensor, family: "llama", .. }) if tensor.contains(".2."))
    );
    let folder = reconfigured("llama2_tied", &json!({"mlp_bias": false}));
    assert!(message(folder.path()).contains("_proj.bias"));
}

#[test]
fn a_wrong_shape_is_named_with_both() {
    for (over, parts) in [
        (json!({"vocab_size": 130}), ["embed_tokens", "[131, 48]", "[130, 48]"]),
        (json!({"intermediate_size": 81}), ["gate_proj", "[80, 48]", "[81, 48]"]),
        (json!({"num_key_value_heads": 1}), ["k_proj", "[48, 48]", "[12, 48]"]),
    ] {
        let folder = reconfigured("llama2", &over);
        let error = error(folder.path(), &ConvertOptions::default());
        assert!(matches!(error, ConvertError::Checkpoint(CheckpointError::SourceShape { .. })), "{error}");
        let message = error.to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn weights_that_are_no_numbers_are_found() {
    for (tensor, index, bits, parts) in [
        ("model.layers.1.mlp.up_proj.weight", 48 * 33 + 7, NAN, ["row 33, column 7", "NaN"]),
        ("model.embed_tokens.weight", 48 * 130 + 47, MINUS_INFINITY, ["row 130, column 47", "-inf"]),
        ("model.norm.weight", 5, NAN, ["row 5, column 0", "NaN"]),
    ] {
        let folder = copy("llama2");
        spoil(folder.path(), tensor, index, bits);
        for encoding in [Encoding::F32, Encoding::Q4] {
            let error = error(folder.path(), &with(Recipe::new(encoding)));
            assert!(matches!(error, ConvertError::Checkpoint(CheckpointError::NotFinite { .. })));
            let message = error.to_string();
            assert!(message.contains(tensor) && parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }
}

#[test]
fn weights_beyond_f16_need_f32() {
    let folder = copy("llama2");
    spoil(folder.path(), "model.layers.1.mlp.up_proj.weight", 48 * 2 + 3, LARGE);
    let cases = [(Encoding::F16, "±65504"), (Encoding::Q8, "±65504"), (Encoding::Q3A, "±13888")];
    for (encoding, limit) in cases {
        let error = error(folder.path(), &with(Recipe::new(encoding)));
        let message = error.to_string();
        assert!(message.contains(limit), "{message}");
        assert!(
            matches!(error, ConvertError::Overflow { row: 2, column: 3, value: 131072.0, .. }),
            "{message}"
        );
        assert!(message.contains("--encoding f32"), "{message}");
    }
    let output = folder.path().join("out.pith");
    convert(folder.path(), &output, &with(Recipe::new(Encoding::F32)), &()).unwrap();
}

#[test]
fn weights_below_f16_need_f32() {
    let tensor = "model.layers.1.mlp.up_proj.weight";
    let folder = copy("llama2");
    // 2⁻⁶⁰ in bfloat16, and zeros.
    (0..80 * 48)
        .for_each(|index| spoil(folder.path(), tensor, index, if index == 48 * 2 + 3 { 0x2180 } else { 0 }));
    for encoding in Encoding::ALL.iter().copied().filter(|&encoding| encoding != Encoding::F32) {
        let error = error(folder.path(), &with(Recipe::new(encoding)));
        let message = error.to_string();
        assert!(matches!(error, ConvertError::Underflow { row: 2, column: 3, .. }), "{encoding}: {message}");
        assert!(
            message.contains(tensor) && message.contains("e-19") && message.contains("--encoding f32"),
            "{message}"
        );
    }
    let output = folder.path().join("out.pith");
    convert(folder.path(), &output, &with(Recipe::new(Encoding::F32)), &()).unwrap();
    // A matrix of zeros is one.
    spoil(folder.path(), tensor, 48 * 2 + 3, 0);
    convert(folder.path(), &folder.path().join("zeros.pith"), &with(Recipe::new(Encoding::Q4)), &()).unwrap();
}

/// One row of a matrix, such as that of an unused token, is no error, but it is said.
#[test]
fn rows_below_f16_are_a_warning() {
    let tensor = "model.layers.1.mlp.up_proj.weight";
    let folder = copy("llama2");
    // 2⁻⁶⁰ in bfloat16.
    (0..48).for_each(|column| spoil(folder.path(), tensor, 48 * 20 + column, 0x2180));
    for encoding in Encoding::ALL {
        let output = folder.path().join(format!("{encoding}.pith"));
        let report = convert(folder.path(), &output, &with(Recipe::new(*encoding)), &()).unwrap();
        let is_said = |warning: &String| {
            warning.contains("weights of 1 rows are lost") && warning.contains("in row 20, column")
        };
        let said = report.warnings.iter().filter(|warning| is_said(warning)).count();
        assert_eq!(said, usize::from(*encoding != Encoding::F32), "{encoding}: {:?}", report.warnings);
    }
}

#[test]
fn an_output_is_overwritten_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("model.pith");
    fs::write(&output, "precious").unwrap();
    let options = ConvertOptions::default();
    let error = convert(&source("gpt2"), &output, &options, &()).unwrap_err();
    assert!(
        matches!(error, ConvertError::Replace(ReplaceError::Exists { .. }))
            && error.to_string().contains("--force")
    );
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    let options = ConvertOptions { force: true, name: Some("mine".into()), ..options };
    convert(&source("gpt2"), &output, &options, &()).unwrap();
    assert_eq!(Index::parse(&fs::read(&output).unwrap()).unwrap().metadata().model.name, "mine");
}

#[test]
fn the_checkpoint_is_never_overwritten() {
    let folder = copy("gguf_gpt2");
    let options = ConvertOptions { force: true, ..ConvertOptions::default() };
    let file = folder.path().join("model.gguf");
    let error = convert(&file, &file, &options, &()).unwrap_err();
    assert!(matches!(error, ConvertError::Replace(ReplaceError::Input { .. })));
    let folder = copy("gpt2");
    let weights = folder.path().join("model.safetensors");
    let error = convert(folder.path(), &weights, &options, &()).unwrap_err();
    assert!(matches!(error, ConvertError::Replace(ReplaceError::Input { .. })));
}

#[test]
fn an_output_in_no_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("none/model.pith");
    let error = convert(&source("gpt2"), &output, &ConvertOptions::default(), &()).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

//! Changes of basis preserve the model's results.

use pith_converter::statistics::{CalibrationText, Statistics, StatisticsOptions, TextOptions};
use pith_converter::{
    CompressOptions, Compression, ConvertError, ConvertOptions, ExportOptions, ExportType, Quantizer, Recipe,
    Transform, convert, export,
};
use pith_format::{Encoding, Role, TensorId};
use pith_runtime::{Model, SessionOptions};
use pith_tests::{
    Converted, all_logits, convert_all, convert_with, difference, exact_session, golden, is_emulated, wren,
};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Tolerance, relative to the largest logit.
const TOLERANCE: f32 = 1e-4;

fn recipe(encoding: Encoding, transform: Transform) -> Recipe {
    Recipe {
        embedding: Some(encoding),
        head: Some(encoding.into()),
        transform: Some(transform),
        ..Recipe::new(encoding)
    }
}

fn tokens(model: &Model) -> Vec<u32> {
    let vocab_len = model.config().vocab_len;
    (0..48).map(|index: usize| ((index * index * 31 + index * 7 + 3) % vocab_len) as u32).collect()
}

/// The largest difference of the logits, relative to the largest logit.
fn logits_differ(one: &Converted, other: &Converted) -> f32 {
    let tokens = tokens(&one.open());
    let logits =
        |converted: &Converted| all_logits(&mut exact_session(&converted.open(), tokens.len()), &tokens);
    let (worst, largest) = difference(&logits(one), &logits(other));
    worst / largest
}

/// The activation statistics, with Hessians, of a converted model.
fn calibrate(dense: &Converted) -> PathBuf {
    let model = dense.open();
    let tokens = tokens(&model);
    let text = CalibrationText { window: tokens.len(), sequences: vec![tokens], file: None, checksum: None };
    let session = SessionOptions { threads: Some(2), ..SessionOptions::default() };
    let options = StatisticsOptions { hessians: true, session, ..StatisticsOptions::default() };
    let path = dense.folder.path().join("calibration.safetensors");
    Statistics::collect(&model, &text, &options, &path, &()).unwrap();
    path
}

fn family(name: &str) -> PathBuf {
    golden().join("families").join(name)
}

/// Families and the embedded model; only the first two under emulation.
fn affordable<'a>(families: &'a [PathBuf], wren: &'a PathBuf) -> Vec<&'a PathBuf> {
    if is_emulated() { families.iter().take(2).collect() } else { families.iter().chain([wren]).collect() }
}

#[test]
fn rotated_models_give_the_same_logits() {
    let families =
        ["llama2", "llama3_untied", "mistral_tied", "qwen2", "qwen3", "phi3", "smollm3"].map(family);
    let wren = wren();
    for source in affordable(&families, &wren) {
        let plain = convert_all(source, Encoding::F32);
        let rotated = convert_with(source, recipe(Encoding::F32, Transform::Hadamard));
        let relative = logits_differ(&plain, &rotated);
        println!("{} {relative:.1e}", source.display());
        assert!(relative <= TOLERANCE, "{}: {relative:e}", source.display());
        let (plain, rotated) = (plain.open(), rotated.open());
        assert_eq!(rotated.metadata().provenance.passes[0].name, "hadamard");
        assert!(!rotated.config().tied_head);
        // With the norm's weights folded in, the rotation of the stream keeps the length of a
        // value's row; the rotation of heads does not.
        let bytes = plain.index().bytes(plain.bytes(), TensorId::layer(Role::MixerNorm, 0)).unwrap();
        let gain: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let ones = vec![1.0; gain.len()];
        let lengths = |role| {
            [(&plain, &gain), (&rotated, &ones)].map(|(model, gain)| {
                let matrix = model.index().matrix(model.bytes(), TensorId::layer(role, 0)).unwrap();
                let mut row = vec![0.0; matrix.cols()];
                matrix.decode_row(1, &mut row);
                row.iter().zip(gain).map(|(value, gain)| (value * gain).powi(2)).sum::<f32>().sqrt()
            })
        };
        for (role, is_kept) in [(Role::Query, true), (Role::Value, false)] {
            let [before, after] = lengths(role);
            let close = (before - after).abs() <= 1e-4 * before;
            assert_eq!(close, is_kept, "{} of {}: {before}, {after}", role.name(), source.display());
        }
    }
}

#[test]
fn scaled_models_give_the_same_logits() {
    // One with layer norms, one with parallel layers, some with biases, some with shared values.
    let families =
        ["gpt_neox", "qwen2", "llama2", "qwen3_untied", "gemma2", "gemma3", "phi3", "gpt2"].map(family);
    let (wren, mut changed) = (wren(), HashSet::new());
    for source in affordable(&families, &wren) {
        let plain = convert_all(source, Encoding::F32);
        let scaled = convert_scaled(source, &calibrate(&plain));
        let relative = logits_differ(&plain, &scaled);
        println!("{} {relative:.1e}", source.display());
        assert!(relative <= TOLERANCE, "{}: {relative:e}", source.display());
        let (plain, scaled) = (plain.open(), scaled.open());
        assert_eq!(scaled.metadata().provenance.passes[0].name, "awq");
        for entry in plain.index().entries() {
            let bytes = |model: &Model| model.index().bytes(model.bytes(), entry.id).unwrap().to_vec();
            if bytes(&plain) != bytes(&scaled) {
                changed.insert(entry.id.role);
            }
        }
    }
    // Each kind of place has a scale that helps in some layer.
    let places = [Role::MixerNorm, Role::Query, Role::Value, Role::AttentionOutput, Role::Up, Role::Down];
    for role in places {
        assert!(changed.contains(&role), "{} never changed", role.name());
    }
}

/// The source's codes are decoded first.
#[test]
fn quantized_checkpoints_are_rotated() {
    for name in ["gptq_asym", "awq", "packed_4bit"] {
        let source = golden().join("quantized").join(name);
        let plain = convert_all(&source, Encoding::F32);
        let rotated = convert_with(&source, recipe(Encoding::F32, Transform::Hadamard));
        let relative = logits_differ(&plain, &rotated);
        println!("{name} {relative:.1e}");
        assert!(relative <= TOLERANCE, "{name}: {relative:e}");
        assert_eq!(rotated.open().metadata().provenance.passes[0].name, "hadamard");
    }
}

#[test]
fn a_rotated_head_can_be_in_two_parts() {
    let source = family("llama2_tied");
    let with_head = |head: &str| {
        let head = Some(head.parse().unwrap());
        convert_with(&source, Recipe { head, ..recipe(Encoding::F32, Transform::Hadamard) })
    };
    let [whole, split, first] = ["f32", "q4-g64+q4", "q4-g64"].map(with_head);
    assert!(split.open().index().entry(TensorId::model(Role::HeadResidual)).is_some());
    // Two times four bits hold as much as eight, sixteen times finer than the first four.
    let [split, first] = [split, first].map(|converted| logits_differ(&whole, &converted));
    println!("{split:.1e}, the first part alone {first:.1e}");
    assert!(0.0 < split && split < 0.15 * first, "{split}, the first part alone {first}");
}

fn convert_scaled(source: &Path, calibration: &Path) -> Converted {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pith");
    let options = ConvertOptions {
        recipe: recipe(Encoding::F32, Transform::Awq),
        calibration: Some(calibration.into()),
        ..ConvertOptions::default()
    };
    convert(source, &path, &options, &()).unwrap();
    Converted { path, folder }
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let refused = |source: &Path, transform, calibration: Option<&Path>| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pith");
        let options = ConvertOptions {
            recipe: recipe(Encoding::Q4, transform),
            calibration: calibration.map(Path::to_path_buf),
            ..ConvertOptions::default()
        };
        let error = convert(source, &path, &options, &()).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
        error
    };
    for (name, expected) in [("gpt2", "layer norms"), ("gemma2", "layers.0.mixer.post_norm")] {
        let error = refused(&family(name), Transform::Hadamard, None).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let error = refused(&wren(), Transform::Awq, None);
    assert!(error.to_string().contains("needs a calibration with Hessians"), "{error}");
    // The statistics of the original matrices' inputs do not fit rotated ones.
    let dense = convert_all(&wren(), Encoding::F16);
    let error = refused(&wren(), Transform::Hadamard, Some(&calibrate(&dense)));
    assert!(matches!(error, ConvertError::Statistics(_)), "{error}");
}

/// The whole pipeline: rotated, calibrated after that, rounded twice.
#[test]
fn rotated_models_are_calibrated_as_they_are() {
    let source = if is_emulated() { family("llama2") } else { wren() };
    let folder = tempfile::tempdir().unwrap();
    let options = CompressOptions {
        text_options: TextOptions { tokens: Some(256), window: Some(64) },
        ..CompressOptions::default()
    };
    let mut compression = Compression::new(&source, folder.path(), options, &()).unwrap();
    let mut write = |transform, refine| {
        let recipe = Recipe { quantizer: Quantizer::Gptq, refine, ..recipe(Encoding::Q4NL, transform) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.pith");
        compression.write(&ConvertOptions { recipe, ..Default::default() }, &path, &()).unwrap();
        Converted { path, folder }
    };
    let (rotated, scaled) = (write(Transform::Hadamard, true), write(Transform::Awq, false));
    let plain = convert_all(&source, Encoding::F32);
    let coarse = logits_differ(&plain, &convert_all(&source, Encoding::Q2));
    for converted in [rotated, scaled] {
        let relative = logits_differ(&plain, &converted);
        println!("{relative}, in q2 {coarse}");
        assert!(relative < 0.5 * coarse && relative > 0.0, "{relative}, in q2 {coarse}");
    }
}

#[test]
fn rotated_weights_can_be_exported() {
    let source = family("llama2_tied");
    let rotated = convert_with(&source, recipe(Encoding::F32, Transform::Hadamard));
    let model = rotated.open();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("exported");
    let options = |like| ExportOptions { like, dtype: ExportType::F32, ..ExportOptions::default() };
    let error =
        export(model.index(), model.bytes(), &output, &options(Some(source.clone())), &()).unwrap_err();
    assert!(error.to_string().contains("export without --like"), "{error}");
    assert!(!output.exists());
    export(model.index(), model.bytes(), &output, &options(None), &()).unwrap();
    let relative = logits_differ(&convert_all(&source, Encoding::F32), &convert_all(&output, Encoding::F32));
    assert!(relative <= TOLERANCE, "{relative:e}");
}

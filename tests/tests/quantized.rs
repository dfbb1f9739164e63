//! Quantized Hugging Face checkpoints from the common packages (`tests/golden/quantized`), against
//! the logits of `transformers` over the weights those packages decode; and exported files.

use pith_converter::{ConvertOptions, ExportOptions, ExportType, Recipe, Report, convert, export};
use pith_format::{Encoding, Index, Kind, Matrix, Role, TensorId};
use pith_runtime::{KvType, Model, Session, SessionOptions};
use pith_tests::{all_logits, convert_all, convert_with, difference, exact_session, golden, read_npy};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn folder(name: &str) -> PathBuf {
    golden().join("quantized").join(name)
}

fn folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden().join("quantized")).unwrap();
    let mut folders: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 13, "{} folders", folders.len());
    folders
}

fn tokens() -> Vec<u32> {
    let text = std::fs::read_to_string(golden().join("families/tokens.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Largest difference from the golden logits, relative to the largest of them.
fn apart(model: &Arc<Model>, folder: &Path) -> f32 {
    let ((rows, _), expected) = read_npy(&folder.join("logits.npy"));
    let found = all_logits(&mut exact_session(model, rows), &tokens()[..rows]);
    let (worst, largest) = difference(&found, &expected);
    worst / largest
}

/// A file whose matrices hold the source's codes.
struct Kept {
    report: Report,
    model: Arc<Model>,
    _folder: TempDir,
}

fn keep(source: &Path) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pith");
    let options = ConvertOptions { recipe: Recipe { keep: true, ..Recipe::default() }, ..Default::default() };
    let report = convert(source, &path, &options, &()).unwrap();
    Kept { report, model: Arc::new(Model::open(&path).unwrap()), _folder: folder }
}

fn values(matrix: &Matrix<'_>) -> Vec<f32> {
    let mut values = vec![0.0; matrix.rows() * matrix.cols()];
    values.chunks_exact_mut(matrix.cols()).enumerate().for_each(|(row, out)| matrix.decode_row(row, out));
    values
}

fn matrices(index: &Index) -> impl Iterator<Item = TensorId> {
    index.entries().iter().map(|entry| entry.id).filter(|id| id.role.kind() == Kind::Matrix)
}

#[test]
fn imported_weights_give_the_logits_of_the_decoded_model() {
    for folder in folders() {
        let relative = apart(&convert_all(&folder, Encoding::F32).open(), &folder);
        println!("{:<20} {relative:.1e}", folder.file_name().unwrap().to_string_lossy());
        assert!(relative <= 1e-4, "{}: {relative:e}", folder.display());
    }
}

#[test]
fn carried_codes_decode_to_the_very_weights() {
    // The encodings of the layers' matrices, and whether the scales are exact in f16.
    for (name, widest, exact) in [
        ("gptq", Encoding::Q4, true),
        ("gptq_row", Encoding::Q8, true),
        ("gptq_asym", Encoding::Q8, true),
        ("gptq_2bit", Encoding::Q4, true),
        ("gptq_3bit", Encoding::Q4, true),
        ("awq", Encoding::Q8, true),
        ("packed_4bit", Encoding::Q4G64, true),
        ("packed_4bit_asym", Encoding::Q8, true),
        ("int_8bit", Encoding::Q8, true),
        ("packed_8bit", Encoding::Q8, true),
        ("bitnet", Encoding::Q4G64, false),
        ("bitnet_auto", Encoding::Q4G64, true),
    ] {
        let (kept, plain) = (keep(&folder(name)), convert_all(&folder(name), Encoding::F32).open());
        let inexact = kept.report.warnings.iter().any(|warning| warning.contains("rounded to f16"));
        assert_eq!(inexact, !exact, "{name}: {:?}", kept.report.warnings);
        let clipped = kept.report.warnings.iter().any(|warning| warning.contains("codes of -128"));
        assert_eq!(
            clipped,
            name.contains("8bit") || name == "gptq_row",
            "{name}: {:?}",
            kept.report.warnings
        );
        for id in matrices(kept.model.index()).filter(|id| id.layer.is_some()) {
            let stored = kept.model.index().matrix(kept.model.bytes(), id).unwrap();
            let expected = values(&plain.index().matrix(plain.bytes(), id).unwrap());
            assert!(stored.encoding().bits_per_weight() <= widest.bits_per_weight(), "{name}: {id}");
            let report = kept.report.tensors.iter().find(|tensor| tensor.id == id).unwrap();
            assert!(report.repacked, "{name}: {id}");
            for (found, expected) in values(&stored).into_iter().zip(expected) {
                let bound = if exact { 0.0 } else { expected.abs() / 2048.0 };
                // A code of −128, which no encoding has, becomes −127.
                let is_clipped = clipped && found == expected * 127.0 / 128.0;
                assert!((found - expected).abs() <= bound || is_clipped, "{name}: {id}: {found}, {expected}");
            }
        }
    }
}

#[test]
fn codes_in_any_order_of_groups_are_rounded_again_and_said_to_be() {
    let kept = keep(&folder("gptq_desc_act"));
    let warning = kept.report.warnings.iter().find(|warning| warning.contains("rounded again")).unwrap();
    assert!(warning.contains("7 quantized matrices") && warning.contains("several scales"), "{warning}");
    assert!(apart(&kept.model, &folder("gptq_desc_act")) < 0.3);
}

#[test]
fn kept_files_stay_near_the_decoded_model() {
    for name in ["gptq", "awq", "packed_4bit", "bitnet"] {
        let ((rows, _), expected) = read_npy(&folder(name).join("logits.npy"));
        // Kernels with panels requantize activations of many tokens; these multiply with the codes
        // themselves.
        let kernels = Some("portable".to_string());
        let options =
            SessionOptions { kernels, kv_type: KvType::F32, threads: Some(1), ..Default::default() };
        let mut session = Session::new(keep(&folder(name)).model, options).unwrap();
        let (worst, largest) = difference(&all_logits(&mut session, &tokens()[..rows]), &expected);
        println!("{name:<20} {:.1e}", worst / largest);
        // The weights are the same; activations are rounded to 8 bits.
        assert!(worst <= 0.02 * largest, "{name}: {worst} of {largest}");
    }
}

/// Exports a model and returns the folder.
fn exported(model: &Model, like: Option<&Path>, dtype: ExportType, shard_bytes: u64) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("exported");
    let options = ExportOptions { like: like.map(Path::to_path_buf), dtype, shard_bytes };
    let report = export(model.index(), model.bytes(), &output, &options, &()).unwrap();
    for file in &report.files {
        assert!(output.join(file).is_file(), "{file}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the folder stays");
    (folder, output)
}

/// Asserts that every tensor of two files holds the same values.
fn assert_same(one: &Model, two: &Model, what: &str) {
    assert_eq!(one.config().layers, two.config().layers, "{what}");
    for entry in one.index().entries() {
        let id = entry.id;
        match id.role.kind() {
            Kind::Matrix => {
                let of = |model: &Model| values(&model.index().matrix(model.bytes(), id).unwrap());
                assert_eq!(of(one), of(two), "{what}: {id}");
            }
            Kind::Vector => {
                let of = |model: &Model| model.index().vector(model.bytes(), id).unwrap();
                assert_eq!(of(one), of(two), "{what}: {id}");
            }
            Kind::Bytes => {}
        }
    }
}

#[test]
fn every_family_comes_back_bit_for_bit() {
    let families = std::fs::read_dir(golden().join("families")).unwrap();
    let folders =
        families.map(|entry| entry.unwrap().path()).filter(|path| path.join("config.json").exists());
    let mut count = 0;
    for folder in folders {
        let model = convert_all(&folder, Encoding::Q4).open();
        let (_guard, output) = exported(&model, Some(&folder), ExportType::F32, 40_000);
        assert!(output.join("model.safetensors.index.json").exists(), "{}", folder.display());
        let again = convert_all(&output, Encoding::F32).open();
        assert_same(&model, &again, &folder.display().to_string());
        count += 1;
    }
    assert!(count >= 20, "{count} families");
}

#[test]
fn plain_families_come_back_without_their_original() {
    for name in ["llama2", "llama2_tied", "mistral", "qwen2", "qwen2_window", "qwen3", "smollm3_untied"] {
        let model = convert_all(&golden().join("families").join(name), Encoding::Q8).open();
        let (_guard, output) = exported(&model, None, ExportType::F32, u64::MAX);
        let again = convert_all(&output, Encoding::F32).open();
        assert_same(&model, &again, name);
        assert_eq!(model.config().rope, again.config().rope, "{name}");
    }
}

#[test]
fn a_head_in_two_parts_comes_back_as_their_sum() {
    let folder = golden().join("families/llama2_tied");
    let recipe = Recipe { head: Some("q4-g64+q4".parse().unwrap()), ..Recipe::default() };
    let model = convert_with(&folder, recipe).open();
    let id = TensorId::model(Role::TokenEmbedding);
    let of = |model: &Model, id| values(&model.index().matrix(model.bytes(), id).unwrap());
    let parts = of(&model, id).into_iter().zip(of(&model, TensorId::model(Role::HeadResidual)));
    let expected: Vec<f32> = parts.map(|(first, rest)| first + rest).collect();
    let (_guard, output) = exported(&model, Some(&folder), ExportType::F32, u64::MAX);
    assert_eq!(of(&convert_all(&output, Encoding::F32).open(), id), expected);
}

#[test]
fn a_quantized_checkpoint_comes_back_plain() {
    let kept = keep(&folder("awq"));
    let (_guard, output) = exported(&kept.model, Some(&folder("awq")), ExportType::F32, u64::MAX);
    let config = std::fs::read_to_string(output.join("config.json")).unwrap();
    assert!(!config.contains("quantization_config") && config.contains("\"float32\""), "{config}");
    assert_same(&kept.model, &convert_all(&output, Encoding::F32).open(), "awq");
}

#[test]
fn what_cannot_be_exported_is_named_and_leaves_nothing() {
    let families = golden().join("families");
    let model = |name: &str| convert_all(&families.join(name), Encoding::F32).open();
    let place = tempfile::tempdir().unwrap();
    let attempt = |model: &Model, like: Option<&str>, dtype, output: &Path| {
        let options =
            ExportOptions { like: like.map(|like| families.join(like)), dtype, ..ExportOptions::default() };
        export(model.index(), model.bytes(), output, &options, &()).unwrap_err().to_string()
    };
    let output = place.path().join("out");
    for (name, like, expected) in [
        ("gemma2", None, "family \"gemma2\" cannot be told from the file"),
        ("llama3", None, "rotary frequencies are scaled; give its folder with --like"),
        ("llama2", Some("llama3"), "in the file"),
        ("llama2", Some("gguf_llama2/model.gguf"), "is no folder with config.json"),
    ] {
        let message = attempt(&model(name), like, ExportType::F32, &output);
        assert!(message.contains(expected), "{name}: {message}");
    }
    let llama = model("llama2");
    let message = attempt(&llama, None, ExportType::F32, place.path().parent().unwrap());
    assert!(message.contains("is no empty folder"), "{message}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

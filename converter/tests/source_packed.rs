//! Quantized checkpoints that are wrong: each error names the tensor and what was found.

mod source_support;

use std::path::Path;

use pith_converter::checkpoint::{Checkpoint, CheckpointError};
use serde_json::{Value, json};
use source_support::*;
use tempfile::TempDir;

/// Tensors of a checkpoint in the making: name, type, shape, bytes.
type Tensors = Vec<(&'static str, &'static str, Vec<u64>, Vec<u8>)>;

fn words(count: usize, value: u32) -> Vec<u8> {
    value.to_le_bytes().repeat(count)
}

fn halves(count: usize, value: f32) -> Vec<u8> {
    half::f16::from_f32(value).to_le_bytes().repeat(count)
}

fn checkpoint(config: &Value, tensors: &Tensors) -> TempDir {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let from = data.len() as u64;
        data.extend(bytes);
        header.insert((*name).into(), entry(dtype, shape, from, data.len() as u64));
    }
    let bytes = safetensors(&Value::Object(header).to_string(), &data);
    let folder = folder(&[("model.safetensors", &bytes)]);
    std::fs::write(folder.path().join("config.json"), json!({"quantization_config": config}).to_string())
        .unwrap();
    folder
}

/// Opens and reads all that there is.
fn read(path: &Path) -> Result<Vec<Vec<f32>>, CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    checkpoint
        .tensors()
        .filter(|tensor| tensor.dtype.is_loadable())
        .map(|tensor| checkpoint.load_f32(&tensor.name))
        .collect()
}

fn gptq() -> (Value, Tensors) {
    let config = json!({"quant_method": "gptq", "bits": 4, "group_size": 8, "checkpoint_format": "gptq"});
    let tensors = vec![
        ("a.qweight", "I32", vec![2, 8], words(16, 0x7654_3210)),
        ("a.qzeros", "I32", vec![2, 1], words(2, 0x7777_7777)),
        ("a.scales", "F16", vec![2, 8], halves(16, 0.5)),
        ("a.g_idx", "I32", vec![16], (0..16u32).flat_map(|col| (col / 8).to_le_bytes()).collect()),
    ];
    (config, tensors)
}

fn awq() -> (Value, Tensors) {
    let config = json!({"quant_method": "awq", "bits": 4, "group_size": 4, "version": "GEMM"});
    let tensors = vec![
        ("a.qweight", "I32", vec![8, 1], words(8, 0x7531_6420)),
        ("a.qzeros", "I32", vec![2, 1], words(2, 0)),
        ("a.scales", "F16", vec![2, 8], halves(16, 1.0)),
    ];
    (config, tensors)
}

fn packed() -> (Value, Tensors) {
    let scheme =
        json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 8});
    let config = json!({"quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": scheme}}});
    let shape = [2i64, 12].into_iter().flat_map(i64::to_le_bytes).collect();
    let tensors = vec![
        ("a.weight_packed", "I32", vec![2, 2], words(4, 0xfedc_ba98)),
        ("a.weight_scale", "F32", vec![2, 2], f32_bytes(&[1.0, 2.0, 3.0, 4.0])),
        ("a.weight_shape", "I64", vec![2], shape),
    ];
    (config, tensors)
}

fn bitnet() -> (Value, Tensors) {
    let config = json!({"quant_method": "bitnet"});
    let tensors = vec![
        ("a.weight", "U8", vec![1, 3], vec![0b10_01_00_10, 0b01_01_01_01, 0b00_00_00_00]),
        ("a.weight_scale", "F32", vec![1], f32_bytes(&[4.0])),
    ];
    (config, tensors)
}

#[test]
fn values_are_scale_times_code_less_zero() {
    let (config, tensors) = gptq();
    let found = read(checkpoint(&config, &tensors).path()).unwrap();
    // Stored zero points of 7 stand for 8.
    let row: Vec<f32> = (0..16).map(|col| 0.5 * ((col % 8) as f32 - 8.0)).collect();
    assert_eq!(found, [row.repeat(8)]);

    let (config, tensors) = awq();
    let found = read(checkpoint(&config, &tensors).path()).unwrap();
    let rows: Vec<f32> = (0..8).flat_map(|row| [row as f32; 8]).collect();
    assert_eq!(found, [rows]);

    let (config, tensors) = packed();
    let found = read(checkpoint(&config, &tensors).path()).unwrap();
    let row = |scales: [f32; 2]| (0..12).map(move |col| scales[col / 8] * (col % 8) as f32);
    assert_eq!(found, [row([1.0, 2.0]).chain(row([3.0, 4.0])).collect::<Vec<_>>()]);

    let (config, tensors) = bitnet();
    let found = read(checkpoint(&config, &tensors).path()).unwrap();
    let codes = [1, 0, -1, -1, 0, -1, 0, 0, -1, 1, 0, -1];
    assert_eq!(found, [codes.map(|code| code as f32 / 4.0).to_vec()]);
}

#[test]
fn rows_are_read_apart_as_together() {
    for (config, tensors) in [gptq(), awq(), packed(), bitnet()] {
        let folder = checkpoint(&config, &tensors);
        let source = Checkpoint::open(folder.path()).unwrap();
        let info = source.tensor("a.weight").unwrap().clone();
        assert!(source.is_packed("a.weight"));
        assert_eq!(info.bytes, tensors.iter().map(|tensor| tensor.3.len() as u64).sum::<u64>());
        let all = source.load_f32("a.weight").unwrap();
        for start in 0..=info.rows() {
            for end in start..=info.rows() {
                let mut rows = vec![0.0; (end - start) * info.cols()];
                source.load_rows_f32("a.weight", start..end, &mut rows).unwrap();
                assert_eq!(rows, all[start * info.cols()..end * info.cols()], "{start}..{end}");
            }
        }
        let beyond = source.raw_rows("a.weight", 0..info.rows() + 1);
        assert_error!(beyond, CheckpointError::Rows { .. });
    }
}

#[test]
fn a_quantization_that_is_not_read_is_named() {
    let over = |base: Value, pointer: &str, value: Value| {
        let mut config = base;
        match config.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => config[pointer.trim_start_matches('/')] = value,
        }
        config
    };
    let ct = || packed().0;
    let group = "/config_groups/group_0/weights";
    for (config, expected) in [
        (json!({"quant_method": "fp8"}), "quantization_config.quant_method is \"fp8\", expected gptq, awq"),
        (json!([1]), "quantization_config is a list of 1, expected an object"),
        (over(gptq().0, "/bits", json!(5)), "bits is 5, expected one of 2, 3, 4, 8 bits"),
        (over(gptq().0, "/checkpoint_format", json!("marlin")), "checkpoint_format is \"marlin\""),
        (over(gptq().0, "/pack_dtype", json!("int8")), "pack_dtype is \"int8\""),
        (over(gptq().0, "/group_size", json!(0)), "group_size is 0"),
        (over(awq().0, "/version", json!("gemv")), "version is \"gemv\", expected gemm"),
        (over(awq().0, "/bits", json!(3)), "bits is 3, expected one of 4 bits"),
        (over(ct(), "/format", json!("float-quantized")), "format is \"float-quantized\""),
        (over(ct(), "/format", json!("marlin-24")), "format is \"marlin-24\""),
        (
            over(ct(), "/kv_cache_scheme", json!({"num_bits": 8})),
            "kv_cache_scheme is an object, expected none",
        ),
        (over(ct(), "/sparsity_config", json!({"format": "sparse-24-bitmask"})), "sparsity_config.format is"),
        (
            over(ct(), &format!("{group}/type"), json!("float")),
            "group_0.weights.type is \"float\", expected int",
        ),
        (over(ct(), &format!("{group}/num_bits"), json!(6)), "group_0.weights.num_bits is 6"),
        (over(ct(), &format!("{group}/strategy"), json!("block")), "strategy is \"block\""),
        (
            over(ct(), "/config_groups/group_0", json!({"input_activations": {"num_bits": 8}})),
            "group_0.input_activations is an object, expected none: only checkpoints whose weights",
        ),
        (over(ct(), "/config_groups", json!({})), "config_groups is an object, expected one that quantizes"),
        (
            json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}),
            "quantization_mode is \"online\", expected offline",
        ),
        (json!({"quant_method": "bitnet", "linear_class": "x"}), "linear_class is \"x\""),
        (json!({"quant_method": "bitnet", "use_rms_norm": true}), "use_rms_norm is true"),
    ] {
        let folder = checkpoint(&config, &gptq().1);
        let message = assert_error!(read(folder.path()), CheckpointError::Quantization { .. });
        assert!(message.contains(expected), "{config}: {message}");
    }
    let folder = checkpoint(&gptq().0, &bitnet().1);
    let message = assert_error!(read(folder.path()), CheckpointError::Quantization { .. });
    assert!(message.contains("NAME.qweight, of which there are none"), "{message}");
}

#[test]
fn a_missing_part_is_named() {
    for ((config, tensors), optional) in [(gptq(), "a.g_idx"), (awq(), ""), (packed(), ""), (bitnet(), "")] {
        for lost in 1..tensors.len() {
            let mut rest = tensors.clone();
            let name = rest.remove(lost).0;
            let folder = checkpoint(&config, &rest);
            if name == optional {
                assert!(read(folder.path()).is_ok());
                continue;
            }
            let message = assert_error!(read(folder.path()), CheckpointError::MissingPart { .. });
            assert!(message.contains(&format!("\"a\" has no tensor {name:?}")), "{message}");
        }
    }
}

#[test]
fn parts_that_do_not_go_together_are_named() {
    type Form = fn() -> (Value, Tensors);
    type Part = (&'static str, Vec<u64>, Vec<u8>);
    let cases: [(Form, usize, Part); 9] = [
        (gptq, 0, ("I32", vec![3, 8], words(24, 0))),
        (gptq, 1, ("I32", vec![2, 2], words(4, 0))),
        (gptq, 2, ("F16", vec![2, 7], halves(14, 1.0))),
        (gptq, 3, ("I64", vec![16], vec![0; 128])),
        (awq, 1, ("I32", vec![1, 1], words(1, 0))),
        (awq, 2, ("F16", vec![2, 8, 1], halves(16, 1.0))),
        (packed, 0, ("I32", vec![2, 3], words(6, 0))),
        (packed, 1, ("F32", vec![2, 3], f32_bytes(&[1.0; 6]))),
        (bitnet, 1, ("F32", vec![3], f32_bytes(&[1.0; 3]))),
    ];
    for (form, at, (dtype, shape, bytes)) in cases {
        let (config, mut tensors) = form();
        let name = tensors[at].0;
        tensors[at] = (name, dtype, shape, bytes);
        let message =
            assert_error!(read(checkpoint(&config, &tensors).path()), CheckpointError::PartShape { .. });
        assert!(message.contains(dtype) && message.contains("expected"), "{name}: {message}");
    }
}

#[test]
fn impossible_values_are_named() {
    type Form = fn() -> (Value, Tensors);
    let cases: [(Form, usize, usize, Vec<u8>, &str); 8] = [
        (gptq, 3, 12, 2u32.to_le_bytes().into(), "\"a.g_idx\": column 3 is 2, expected a group from 0 to 1"),
        (gptq, 3, 0, u32::MAX.to_le_bytes().into(), "\"a.g_idx\": column 0 is -1"),
        (
            gptq,
            2,
            2 * 9,
            vec![0, 0],
            "\"a.scales\": row 1, group 1 is 0, expected a finite number other than 0",
        ),
        (awq, 2, 0, halves(1, f32::INFINITY), "\"a.scales\": row 0, group 0 is inf"),
        (packed, 1, 12, f32::NAN.to_le_bytes().into(), "\"a.weight_scale\": row 1, group 1 is NaN"),
        (packed, 2, 8, 17i64.to_le_bytes().into(), "\"a.weight_packed\""),
        (
            packed,
            2,
            8,
            (-1i64).to_le_bytes().into(),
            "\"a.weight_shape\": the shape is [2, -1], expected 2 rows",
        ),
        (
            bitnet,
            0,
            1,
            vec![0b00_11_00_00],
            "\"a.weight\": row 2, column 1 is 3 in two bits, expected 0, 1 or 2",
        ),
    ];
    for (form, tensor, at, bytes, expected) in cases {
        let (config, mut tensors) = form();
        tensors[tensor].3[at..at + bytes.len()].copy_from_slice(&bytes);
        let message = read(checkpoint(&config, &tensors).path()).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    let (config, mut tensors) = bitnet();
    tensors[1].3 = f32_bytes(&[0.0]);
    let message =
        assert_error!(read(checkpoint(&config, &tensors).path()), CheckpointError::PartValue { .. });
    assert!(message.contains("\"a.weight_scale\": row 0, group 0 is inf"), "{message}");
}

#[test]
fn no_bit_of_a_quantized_checkpoint_does_harm() {
    for (config, tensors) in [gptq(), awq(), packed(), bitnet()] {
        let folder = checkpoint(&config, &tensors);
        let path = folder.path().join("model.safetensors");
        let good = std::fs::read(&path).unwrap();
        assert!(read(folder.path()).is_ok());
        for at in 0..good.len() {
            for bit in [0, 3, 7] {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                std::fs::write(&path, &bytes).unwrap();
                if let Ok(tensors) = read(folder.path()) {
                    // A name that was spoiled leaves nothing to be packed, or an orphan beside it.
                    assert!(tensors.iter().flatten().count() <= 16 * good.len(), "byte {at}");
                }
            }
        }
    }
}

#[test]
fn parts_without_a_configuration_are_named() {
    let (_, tensors) = gptq();
    let folder = checkpoint(&Value::Null, &tensors);
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::NoQuantization { tensor, .. } if tensor == "a.qweight"),
        "{error}"
    );
    assert!(error.to_string().contains("has no quantization_config"), "{error}");
}

//! Which encoding a matrix gets, and what stays of its values.

mod convert_support;

use convert_support::{Converted, source, with};
use pith_converter::checkpoint::Checkpoint;
use pith_converter::{ConvertOptions, QuantizedSource, Recipe, Transform};
use pith_format::{Encoding, Role, TensorId};

const VALUE: TensorId = TensorId::layer(Role::Value, 0);
const DOWN: TensorId = TensorId::layer(Role::Down, 0);
const QUERY: TensorId = TensorId::layer(Role::Query, 0);
const EMBEDDING: TensorId = TensorId::model(Role::TokenEmbedding);

fn stored(name: &str, tensor: &str) -> Vec<f32> {
    Checkpoint::open(&source(name)).unwrap().load_f32(tensor).unwrap()
}

fn carried(file: &Converted, id: TensorId) -> bool {
    file.report.tensors.iter().find(|tensor| tensor.id == id).unwrap().repacked
}

#[test]
fn q4_0_and_q8_0_are_carried_over_without_loss() {
    for (name, encoding) in [("gguf_llama_q4_0", Encoding::Q4), ("gguf_llama_q8_0", Encoding::Q8)] {
        let file = Converted::golden(name, encoding);
        assert!(carried(&file, VALUE) && carried(&file, DOWN) && carried(&file, QUERY), "{name}");
        assert_eq!(file.matrix(VALUE), stored(name, "blk.0.attn_v.weight"), "{name}");
        // 96 columns: the last tile is half empty.
        assert_eq!(file.matrix(DOWN), stored(name, "blk.0.ffn_down.weight"), "{name}");
        assert_eq!(file.matrix(EMBEDDING), stored(name, "token_embd.weight"), "{name}");
        // Rows that change places take their blocks with them: 4 heads of 16.
        let (query, values) = (file.matrix(QUERY), stored(name, "blk.0.attn_q.weight"));
        for row in 0..64 {
            let from = row / 16 * 16 + row % 8 * 2 + row % 16 / 8;
            assert_eq!(query[row * 64..][..64], values[from * 64..][..64], "{name}, row {row}");
        }
    }
}

fn rule(encoding: Encoding, quantized: QuantizedSource) -> ConvertOptions {
    ConvertOptions { quantized, ..with(Recipe::new(encoding)) }
}

#[test]
fn a_quantized_source_is_rounded_again_where_that_is_asked_for_and_shorter() {
    let name = "gguf_llama_q4_0";
    let narrow = |encoding| Converted::new(&source(name), &rule(encoding, QuantizedSource::Narrow));
    let file = narrow(Encoding::Q3).unwrap();
    assert!(!carried(&file, VALUE));
    assert!(file.report.warnings.iter().any(|warning| warning.contains("rounded again")));
    let error = narrow(Encoding::Q5).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("× Q4_0") && error.contains("bytes without knowledge"), "{error}");
    assert!(carried(&Converted::golden(name, Encoding::Q3), VALUE), "the default is to carry");
    let refused = Converted::new(&source(name), &rule(Encoding::Q3, QuantizedSource::Refuse));
    let error = refused.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("already quantized (") && error.contains("--requantize"), "{error}");
    let same = Converted::new(&source(name), &rule(Encoding::Q4, QuantizedSource::Refuse)).unwrap();
    assert!(carried(&same, VALUE), "these are its own codes");
}

/// A change of basis rounds codes again like any recipe.
#[test]
fn codes_in_another_basis_are_rounded_again_where_that_is_shorter() {
    let convert = |encoding, quantized| {
        let recipe = Recipe { transform: Some(Transform::Hadamard), ..Recipe::new(encoding) };
        Converted::new(&source("gguf_llama_q4_0"), &ConvertOptions { quantized, ..with(recipe) })
    };
    let file = convert(Encoding::Q3, QuantizedSource::Narrow).unwrap();
    let warnings = file.report.warnings.join("; ");
    assert!(warnings.contains("× Q4_0") && warnings.contains("changed by hadamard"), "{warnings}");
    let error = |quantized| convert(Encoding::Q8, quantized).map(|_| ()).unwrap_err().to_string();
    assert!(error(QuantizedSource::Narrow).contains("bytes without knowledge"));
    assert!(error(QuantizedSource::Carry).contains("already quantized"));
}

#[test]
fn a_carried_file_says_so() {
    let recipe_of = |file: &Converted| file.index.metadata().provenance.recipe.clone();
    assert_eq!(recipe_of(&Converted::golden("gguf_llama_mixed", Encoding::Q4)), "carried");
    assert_eq!(
        recipe_of(&Converted::golden("gguf_llama_q4_0", Encoding::F16)),
        "f16, embedding f16, head f16"
    );
}

#[test]
fn floats_hold_decoded_values() {
    for rule_of in [QuantizedSource::Carry, QuantizedSource::Refuse, QuantizedSource::Narrow] {
        let file = Converted::new(&source("gguf_llama_q4_0"), &rule(Encoding::F32, rule_of)).unwrap();
        assert!(!carried(&file, VALUE));
        assert_eq!(file.matrix(VALUE), stored("gguf_llama_q4_0", "blk.0.attn_v.weight"));
    }
}

#[test]
fn every_tensor_of_a_mixed_source_is_carried() {
    for recipe in [Recipe { keep: true, ..Recipe::default() }, Recipe::default()] {
        let file = Converted::new(&source("gguf_llama_mixed"), &with(recipe)).unwrap();
        let encoding = |id| file.index.entry(id).unwrap().encoding.unwrap();
        assert_eq!(encoding(EMBEDDING), Encoding::F16, "BF16 has no encoding of its own");
        assert_eq!(encoding(TensorId::model(Role::Head)), Encoding::Q8);
        assert!(carried(&file, TensorId::model(Role::Head)) && !carried(&file, EMBEDDING));
        assert_eq!(encoding(TensorId::layer(Role::Key, 0)), Encoding::F16);
        for (id, tensor) in [(VALUE, "attn_v"), (DOWN, "ffn_down")] {
            assert!(carried(&file, id), "{tensor}");
            assert_eq!(file.matrix(id), stored("gguf_llama_mixed", &format!("blk.0.{tensor}.weight")));
        }
        let found = [VALUE, DOWN, QUERY].map(encoding);
        assert!(
            found.iter().all(|encoding| [Encoding::Q41, Encoding::Q50, Encoding::Q51].contains(encoding))
        );
        let head = stored("gguf_llama_mixed", "output.weight");
        assert_eq!(file.matrix(TensorId::model(Role::Head)), head);
    }
}

#[test]
fn errors_of_rounding_are_measured() {
    for (encoding, low, high) in [
        (Encoding::F32, 0.0, 0.0),
        (Encoding::F16, 0.0, 1e-3),
        (Encoding::Q8, 1e-3, 1e-2),
        (Encoding::Q4, 0.04, 0.12),
    ] {
        let options = ConvertOptions { measure: true, ..with(Recipe::new(encoding)) };
        let file = Converted::new(&source("mistral"), &options).unwrap();
        for tensor in file.report.tensors.iter().filter(|tensor| tensor.encoding == Some(encoding)) {
            let error = tensor.relative_error.unwrap();
            assert!((low..=high).contains(&error), "{encoding}, {}: {error}", tensor.id);
            let cols = file.index.entry(tensor.id).unwrap().cols as usize;
            assert_eq!(file.matrix(tensor.id).len() % cols, 0);
        }
    }
    let file = Converted::golden("mistral", Encoding::Q8);
    assert!(file.report.tensors.iter().all(|tensor| tensor.relative_error.is_none()));
}

/// The reported error is that of the values in the file.
#[test]
fn a_measured_error_is_the_true_one() {
    let options = ConvertOptions { measure: true, ..with(Recipe::new(Encoding::Q4)) };
    let file = Converted::new(&source("mistral"), &options).unwrap();
    let weights = stored("mistral", "model.layers.0.mlp.down_proj.weight");
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let error = squares(&mut weights.iter().zip(file.matrix(DOWN)).map(|(w, v)| w - v));
    let expected = (error / squares(&mut weights.iter().copied())).sqrt();
    let reported =
        file.report.tensors.iter().find(|tensor| tensor.id == DOWN).unwrap().relative_error.unwrap();
    assert!((reported - expected).abs() < 1e-9 * expected, "{reported} is not {expected}");
}

/// Both parts of a head together are about as exact as 8 bits, in what is reported and in what is stored.
#[test]
fn a_head_in_two_parts_adds_up_to_its_weights() {
    for (name, id, tensor) in [
        ("mistral", TensorId::model(Role::Head), "lm_head.weight"),
        ("gemma2", EMBEDDING, "model.embed_tokens.weight"),
    ] {
        let recipe = Recipe { head: Some("q4-g64+q4".parse().unwrap()), ..Recipe::default() };
        let options = ConvertOptions { measure: true, ..with(recipe) };
        let file = Converted::new(&source(name), &options).unwrap();
        let rest = TensorId::model(Role::HeadResidual);
        let encoding = |id| file.index.entry(id).unwrap().encoding;
        assert_eq!((encoding(id), encoding(rest)), (Some(Encoding::Q4G64), Some(Encoding::Q4)), "{name}");
        assert_eq!(file.index.entries().last().unwrap().id, rest, "read last, stored last");
        assert!(file.index.metadata().provenance.recipe.ends_with("head q4-g64+q4"));

        let weights = stored(name, tensor);
        let parts = file.matrix(id).into_iter().zip(file.matrix(rest));
        let square = |value: f32| f64::from(value).powi(2);
        let error: f64 = weights.iter().zip(parts).map(|(w, (first, rest))| square(w - (first + rest))).sum();
        let expected = (error / weights.iter().map(|&w| square(w)).sum::<f64>()).sqrt();
        let reported = |id| file.report.tensors.iter().find(|t| t.id == id).unwrap().relative_error.unwrap();
        assert!((reported(rest) - expected).abs() < 1e-3 * expected, "{} is not {expected}", reported(rest));
        let eight = Converted::new(
            &source(name),
            &ConvertOptions { measure: true, ..with(Recipe::new(Encoding::Q8)) },
        );
        let eight = eight.unwrap().report.tensors.into_iter().find(|tensor| tensor.id == id).unwrap();
        assert!(reported(rest) < 1.6 * eight.relative_error.unwrap(), "{name}: {expected}");
        assert!(reported(id) > 8.0 * reported(rest), "{name}: the first part alone is rough");
    }
}

//! Published configurations, and their translation.

use pith_format::{ActivationFunction, ModelConfig};
use serde_json::{Value, json};

use super::config::Config;
use super::family::Translation;
use super::{FAMILIES, huggingface};
use crate::checkpoint::CheckpointError;

/// A small configuration of one family, overridden by `over`; null there removes a key.
fn translate(model_type: &str, over: Value) -> Result<Translation, CheckpointError> {
    let mut config = json!({
        "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    });
    for (key, value) in over.as_object().unwrap() {
        config[key] = value.clone();
    }
    let family = FAMILIES.iter().find(|family| family.model_types.contains(&model_type)).unwrap();
    huggingface::translate(family, &Config::new("config.json".into(), &config), None, 100)
}

fn model(model_type: &str, over: Value) -> ModelConfig {
    let model = translate(model_type, over).unwrap().model;
    model.validate().unwrap();
    model
}

fn message(model_type: &str, over: Value) -> String {
    translate(model_type, over).unwrap_err().to_string()
}

fn first(model: &ModelConfig) -> &pith_format::Attention {
    model.layers[0].attention().unwrap()
}

fn windows(model: &ModelConfig) -> Vec<usize> {
    model.layers.iter().map(|layer| layer.attention().unwrap().window.unwrap_or(0)).collect()
}

fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (&found, &expected) in found.iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() <= 1e-6 * expected, "{found} is not {expected}");
    }
}

fn llama3_2() -> Value {
    json!({"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3"})
}

/// Frequencies that transformers 5 gives for Llama 3.2 1B.
#[test]
fn llama3_frequencies_are_those_of_transformers() {
    let over = json!({"head_dim": 64, "max_position_embeddings": 131072, "rope_theta": 500000.0,
        "rope_scaling": llama3_2()});
    let table = &model("llama", over).rope[0];
    let found = [0, 1, 8, 14, 15, 16, 17, 18, 24, 31].map(|index| table.inv_freq[index]);
    assert_close(
        &found,
        &[
            1.0,
            0.663601279,
            0.0376060307,
            0.00321144611,
            0.00129054801,
            0.000429556705,
            9.70828623e-05,
            1.94616387e-05,
            1.66196742e-06,
            9.41830649e-08,
        ],
    );
    assert_eq!((table.dim, table.magnitude), (64, 1.0));
}

#[test]
fn both_forms_of_a_rope_configuration_mean_the_same() {
    let mut parameters = llama3_2();
    parameters["rope_theta"] = json!(500000.0);
    let old = model("llama", json!({"rope_theta": 500000.0, "rope_scaling": llama3_2()}));
    assert_eq!(old, model("llama", json!({"rope_parameters": parameters})));

    let old = json!({"rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window": 16,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let new = json!({"sliding_window": 16, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}});
    assert_eq!(model("gemma3_text", old), model("gemma3_text", new));
}

/// Frequencies that transformers 5 gives, for Qwen2.5's setting and for one that uses every key.
#[test]
fn yarn_frequencies_are_those_of_transformers() {
    let scaling = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768});
    let over = json!({"head_dim": 128, "max_position_embeddings": 32768, "rope_theta": 1e6, "rope_scaling": scaling});
    let table = &model("qwen2", over).rope[0];
    let found = [0, 22, 23, 24, 30, 39, 40, 41, 63].map(|index| table.inv_freq[index]);
    assert_close(
        &found,
        &[
            1.0,
            0.00865964312,
            0.00697830599,
            0.00537532149,
            0.00106436096,
            6.4903943e-05,
            4.44569851e-05,
            3.58253164e-05,
            3.10234441e-07,
        ],
    );
    assert_close(&[table.magnitude], &[1.138629436111989]);

    let scaling = json!({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16, "beta_fast": 4,
        "beta_slow": 0.5, "mscale": 0.7, "mscale_all_dim": 1.0, "truncate": false});
    let table = &model("llama", json!({"rope_theta": 100.0, "rope_scaling": scaling})).rope[0];
    assert_close(
        &table.inv_freq,
        &[1.0, 0.388342232, 0.120533988, 0.0222284924, 0.0125, 0.0070292661, 0.00395284733, 0.00222284929],
    );
    assert_close(&[table.magnitude], &[0.9483558523503399]);
}

/// Frequencies that transformers 5 gives up to and beyond the original context.
#[test]
fn longrope_frequencies_are_those_of_transformers() {
    for name in ["longrope", "su", "yarn"] {
        let over = json!({"head_dim": 16, "partial_rotary_factor": 0.75, "max_position_embeddings": 131072,
            "original_max_position_embeddings": 4096, "rope_scaling": {"type": name,
            "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 2.0], "long_factor": [1.0, 1.5, 3.0, 9.0, 22.0, 60.0]}});
        let table = &model("phi3", over).rope[0];
        assert_close(
            &table.inv_freq,
            &[1.0, 0.205184266, 0.0421962552, 0.00833333284, 0.00153888157, 0.000232079474],
        );
        assert_close(
            table.long_inv_freq.as_ref().unwrap(),
            &[1.0, 0.14362897, 0.0154719604, 0.00111111114, 9.79288307e-05, 7.73598276e-06],
        );
        assert_eq!((table.dim, table.long_from), (12, Some(4096)));
        assert_close(&[table.magnitude], &[1.1902380714238083]);
    }
}

#[test]
fn dynamic_scaling_leaves_the_context_as_it_is() {
    let scaled = translate("llama", json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}})).unwrap();
    assert_eq!(scaled.model, model("llama", json!({})));
    assert!(scaled.warnings[0].contains("up to 64 tokens"), "{:?}", scaled.warnings);
}

#[test]
fn part_of_a_head_turns_in_neox() {
    let table = &model("gpt_neox", json!({"rotary_pct": 0.5, "rotary_emb_base": 100})).rope[0];
    assert_eq!(table.dim, 8);
    assert_close(&table.inv_freq, &[1.0, 0.316227766, 0.1, 0.0316227766]);
    assert_eq!(model("gpt_neox", json!({})).rope[0].dim, 4);
}

#[test]
fn windows_are_where_the_family_has_them() {
    let of = |name: &str, over: Value| windows(&model(name, over));
    assert_eq!(of("mistral", json!({"sliding_window": 16})), [16; 4]);
    assert_eq!(of("mistral", json!({"sliding_window": null})), [0; 4]);
    assert_eq!(of("mistral", json!({})), [4096; 4]);
    assert_eq!(of("phi3", json!({"sliding_window": 16})), [16; 4]);
    assert_eq!(of("phi3", json!({})), [0; 4]);
    let off = json!({"sliding_window": 16, "max_window_layers": 0});
    assert_eq!(of("qwen2", off), [0; 4]);
    let on = json!({"sliding_window": 16, "max_window_layers": 3, "use_sliding_window": true});
    assert_eq!(of("qwen2", on.clone()), [0, 0, 0, 16]);
    assert_eq!(of("qwen3", on), [0, 0, 0, 16]);
    let types = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"];
    let listed = json!({"sliding_window": 16, "layer_types": types, "use_sliding_window": true});
    for family in ["qwen2", "gemma2", "gemma3_text", "smollm3"] {
        assert_eq!(of(family, listed.clone()), [0, 16, 0, 16], "{family}");
    }
    assert_eq!(of("gemma2", json!({"sliding_window": 16})), [16, 0, 16, 0]);
    assert_eq!(
        of("gemma3_text", json!({"sliding_window": 16, "sliding_window_pattern": 3})),
        [16, 16, 0, 16]
    );
    let smol = json!({"sliding_window": 16, "use_sliding_window": true, "no_rope_layers": [1, 0, 1, 0]});
    assert_eq!(of("smollm3", smol), [0, 16, 0, 16]);
}

#[test]
fn layers_without_positions_are_those_marked_zero() {
    let rope = |over| {
        let layers = model("smollm3", over).layers;
        layers.iter().map(|layer| layer.attention().unwrap().rope).collect::<Vec<_>>()
    };
    assert_eq!(rope(json!({})), [Some(0), Some(0), Some(0), None]);
    assert_eq!(rope(json!({"no_rope_layer_interval": 2})), [Some(0), None, Some(0), None]);
    assert_eq!(rope(json!({"no_rope_layers": [0, 1, 1, 0]})), [None, Some(0), Some(0), None]);
    assert!(message("smollm3", json!({"no_rope_layers": [1]})).contains("a list of 4"));
}

#[test]
fn gemma_scales_and_caps() {
    let gemma2 = model("gemma2", json!({"query_pre_attn_scalar": 16, "head_dim": 32}));
    assert_eq!((gemma2.embedding_scale, first(&gemma2).scale), (8.0, 0.25));
    assert_eq!((first(&gemma2).softcap, gemma2.logit_softcap), (Some(50.0), Some(30.0)));
    assert!(gemma2.tied_head);
    let uncapped = model("gemma2", json!({"attn_logit_softcapping": null, "final_logit_softcapping": null}));
    assert_eq!((first(&uncapped).softcap, uncapped.logit_softcap), (None, None));
    let gemma3 = model("gemma3_text", json!({"num_hidden_layers": 7}));
    assert_eq!((first(&gemma3).head_dim, first(&gemma3).softcap), (256, None));
    let tables: Vec<_> = gemma3.layers.iter().map(|layer| layer.attention().unwrap().rope.unwrap()).collect();
    assert_eq!(tables, [1, 1, 1, 1, 1, 0, 1]);
    assert_eq!(gemma3.layers[0].dense().unwrap().activation, ActivationFunction::GeluTanh);
}

#[test]
fn gpt2_goes_by_its_own_keys() {
    let config = json!({"n_embd": 48, "n_head": 4, "n_layer": 2, "n_positions": 72, "vocab_size": 100,
        "hidden_size": null, "num_attention_heads": null, "num_key_value_heads": null, "num_hidden_layers": null,
        "max_position_embeddings": null, "intermediate_size": null, "layer_norm_epsilon": 1e-3,
        "scale_attn_by_inverse_layer_idx": true, "bos_token_id": 50256, "eos_token_id": [50256, 3]});
    let Translation { model, warnings } = translate("gpt2", config).unwrap();
    let (attention, dense) = (model.layers[1].attention().unwrap(), model.layers[1].dense().unwrap());
    assert_eq!((model.context_len, dense.len), (72, 192));
    assert_eq!((attention.kv_heads(), attention.head_dim), (4, 12));
    assert!(model.rope.is_empty() && attention.rope.is_none() && model.tied_head);
    assert_close(&[attention.scale], &[12f64.powf(-0.5) / 2.0]);
    assert_eq!((model.bos, model.eos, model.norm_epsilon), (None, vec![3], 1e-3));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn what_is_not_supported_is_named() {
    for (family, over, expected) in [
        ("llama", json!({"num_local_experts": 8}), "num_local_experts is 8, expected none: mixtures"),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "mrope"}}),
            "rope_type is \"mrope\", expected default, linear,",
        ),
        ("llama", json!({"rope_scaling": {"type": "linear"}}), "rope_scaling: factor is missing"),
        ("llama", json!({"hidden_act": "relu"}), "hidden_act is \"relu\", expected silu"),
        (
            "qwen2",
            json!({"layer_types": vec!["chunked_attention"; 4]}),
            "layer_types is a list of 4, expected nothing but",
        ),
        ("gemma2", json!({"layer_types": ["full_attention"]}), "expected a list of 4"),
        ("gemma2", json!({"sliding_window": null}), "sliding_window is null, expected a number"),
        ("gemma3_text", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention is true"),
        ("llama", json!({"num_hidden_layers": 5000}), "num_hidden_layers is 5000, expected at most 4096"),
        ("llama", json!({"num_attention_heads": 0}), "num_attention_heads is 0"),
        ("llama", json!({"hidden_size": 1u64 << 40}), "hidden_size is 1099511627776"),
        (
            "phi3",
            json!({"rope_scaling": {"type": "su", "short_factor": [1.0]}}),
            "short_factor is a list of 1",
        ),
        ("llama", json!({"partial_rotary_factor": 1.5}), "partial_rotary_factor is 1.5"),
        ("phi3", json!({"intermediate_size": null}), "intermediate_size is null"),
    ] {
        let message = message(family, over.clone());
        assert!(message.contains(expected) && message.starts_with("config.json"), "{over}: {message}");
    }
}

#[test]
fn numbers_that_make_no_frequencies_are_rejected() {
    for over in [json!({"rope_theta": -1.0}), json!({"rope_scaling": {"type": "linear", "factor": 0.0}})] {
        let model = translate("llama", over.clone()).unwrap().model;
        assert!(model.validate().unwrap_err().to_string().contains("rope[0].inv_freq"), "{over}");
    }
}

#[test]
fn tables_name_each_role_once() {
    for family in FAMILIES {
        for rules in [family.tensors, family.gguf_tensors] {
            let mut roles: Vec<_> =
                rules.iter().flat_map(|rules| rules.iter().map(|rule| rule.role)).collect();
            let count = roles.len();
            roles.sort();
            roles.dedup();
            assert_eq!(roles.len(), count, "{}", family.name);
        }
    }
}

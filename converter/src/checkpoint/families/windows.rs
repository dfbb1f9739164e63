//! The layers with a sliding window, which `config.json` states in several ways.

use pith_format::ModelConfig;

use super::config::Config;
use super::layers::attentions;
use crate::checkpoint::CheckpointError;

/// First sliding layer where `max_window_layers` is missing: the default of `transformers`.
const DEFAULT_WINDOW_LAYERS: usize = 28;

/// Kinds of layer in `layer_types` and `rope_parameters`.
pub(super) const FULL: &str = "full_attention";
pub(super) const SLIDING: &str = "sliding_attention";

/// Whether each layer slides: by `layer_types`, or by `default`.
pub(super) fn sliding_layers(
    config: &Config<'_>,
    layer_count: usize,
    default: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, CheckpointError> {
    let Some(types) = config.texts("layer_types")? else {
        return Ok((0..layer_count).map(default).collect());
    };
    if types.len() != layer_count {
        return Err(config.error("layer_types", format!("a list of {layer_count}, one a layer")));
    }
    let slides = |&name: &&str| match name {
        FULL => Some(false),
        SLIDING => Some(true),
        _ => None,
    };
    let known = types.iter().map(slides).collect::<Option<Vec<_>>>();
    known.ok_or_else(|| config.error("layer_types", format!("nothing but {FULL} and {SLIDING}")))
}

/// Sets the window of the sliding layers.
pub(super) fn set_windows(
    config: &Config<'_>,
    model: &mut ModelConfig,
    sliding: &[bool],
    window: Option<usize>,
) -> Result<(), CheckpointError> {
    for (attention, _) in attentions(model).zip(sliding).filter(|(_, slides)| **slides) {
        let window = window.ok_or_else(|| config.error("sliding_window", "a number, since layers slide"))?;
        attention.window = Some(window);
    }
    Ok(())
}

/// The window, if `use_sliding_window` is set.
pub(super) fn switched_window(config: &Config<'_>) -> Result<Option<usize>, CheckpointError> {
    let used = config.flag("use_sliding_window", false)?;
    Ok(if used { config.count(&["sliding_window"])? } else { None })
}

/// Sets the window of the layers from `max_window_layers` on, if a window is switched on.
pub(super) fn set_late_windows(config: &Config<'_>, model: &mut ModelConfig) -> Result<(), CheckpointError> {
    let window = switched_window(config)?;
    // Zero is valid here, unlike for dimensions.
    let first = config.number(&["max_window_layers"])?.unwrap_or(DEFAULT_WINDOW_LAYERS as f64);
    let sliding =
        sliding_layers(config, model.layers.len(), |index| window.is_some() && index as f64 >= first)?;
    set_windows(config, model, &sliding, window)
}

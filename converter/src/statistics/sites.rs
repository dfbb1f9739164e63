//! The places where matrices read, and their names.

use pith_runtime::Site;

/// The sites of a layer, or of the head.
pub(super) fn sites(layer: Option<usize>) -> &'static [Site] {
    if layer.is_some() { &Site::OF_LAYER } else { &[Site::Head] }
}

/// A site's name in files and messages: `layers.3.down`, `head`.
pub(super) fn site_name(layer: Option<usize>, site: Site) -> String {
    match layer {
        Some(layer) => format!("layers.{layer}.{site}"),
        None => site.to_string(),
    }
}

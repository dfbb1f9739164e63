//! The places where matrices read, and their names.

use pith_runtime::Site;

/// A site's name in files and messages: `layers.3.down`, `head`.
pub(super) fn site_name(layer: Option<usize>, site: Site) -> String {
    match layer {
        Some(layer) => format!("layers.{layer}.{site}"),
        None => site.to_string(),
    }
}

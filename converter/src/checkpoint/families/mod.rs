//! Model families. A family is a table: its names, the role of each source tensor, and the meaning
//! of its configuration. No other module tells families apart.
//!
//! To add one: a file here with a [`Family`], which may use the tables and rules of [`tables`],
//! [`sandwich`] and [`windows`], and its line in [`FAMILIES`].

mod binding;
mod config;
mod family;
mod gemma2;
mod gemma3;
mod gguf;
mod gpt2;
mod gpt_neox;
mod head;
mod huggingface;
mod keys;
mod layers;
mod llama;
mod mistral;
mod original;
mod phi3;
mod qwen2;
mod qwen3;
mod resolve;
mod rope;
mod rule;
mod sampling;
mod sandwich;
mod smollm3;
mod stray;
mod tables;
#[cfg(test)]
mod tests;
mod windows;
mod wrapper;

use family::Family;

pub(crate) use binding::Binding;
pub(crate) use original::{original_bindings, original_config};
pub(crate) use resolve::Architecture;
pub(crate) use rule::RowMap;
pub(crate) use sampling::stated_sampling;
pub(crate) use wrapper::text_config;

/// The registry.
const FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &phi3::FAMILY,
    &smollm3::FAMILY,
    &gpt2::FAMILY,
    &gpt_neox::FAMILY,
];

/// Whether the vocabulary of a GGUF file drops the white space after special tokens.
pub(crate) fn strips_after_special(architecture: &str) -> bool {
    let family = FAMILIES.iter().find(|family| family.gguf_names.contains(&architecture));
    family.is_some_and(|family| family.strips_after_special)
}

/// The names by which configurations and GGUF files call all families, for messages.
fn known_names() -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in FAMILIES.iter().flat_map(|family| family.model_types.iter().chain(family.gguf_names)) {
        if !names.contains(name) {
            names.push(name);
        }
    }
    names.join(", ")
}

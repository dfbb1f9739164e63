//! The encoding of every matrix: the recipe's, or that of the source's own codes.

use pith_format::{Encoding, TensorId};

use super::{ConvertOptions, QuantizedSource};
use crate::checkpoint::SourceType;
use crate::checkpoint::families::Binding;
use crate::error::ConvertError;
use crate::passes::{Outline, repack};
use crate::recipe::Recipe;

/// Sets the encoding and the quantizer of every matrix, by the recipe. Returns the recipe with its
/// head's encoding filled in.
pub(super) fn choose_encodings(
    outline: &mut Outline,
    options: &ConvertOptions,
) -> Result<Recipe, ConvertError> {
    let (recipe, rule) = (options.recipe.clone(), options.quantized);
    let tied_head = outline.model.tied_head;
    let is_quantized =
        outline.tensors.iter().any(|tensor| tensor.is_matrix() && tensor.source.is_quantized());
    let head = outline.head();
    let recipe = match choose(&recipe, rule, is_quantized, head.id, &head.source, tied_head) {
        Choice::Carried(encoding) => recipe.with_head(Some(encoding)),
        _ => recipe.with_head(None),
    };
    let (mut refused, mut carried, mut rounded) = (Vec::new(), None, false);
    for tensor in outline.tensors.iter_mut().filter(|tensor| tensor.is_matrix()) {
        let encoding = match choose(&recipe, rule, is_quantized, tensor.id, &tensor.source, tied_head) {
            Choice::Rounded(encoding) => {
                rounded |= tensor.source.is_quantized();
                encoding
            }
            Choice::Carried(encoding) => {
                carried = carried.or(tensor.source.is_quantized().then(|| tensor.source.clone()));
                encoding
            }
            Choice::Refused(encoding) => {
                refused.push(tensor.source.clone());
                encoding
            }
        };
        tensor.may_repack = tensor.source.is_repacked(encoding);
        tensor.encoding = Some(encoding);
        tensor.quantizer = Some(recipe.quantizer(tensor.id));
    }
    if let Some(first) = refused.first() {
        let (types, tensor) = (types_of(outline), first.tensor.clone());
        return Err(ConvertError::Quantized { types, tensor, recipe: recipe.to_string() });
    }
    match carried {
        Some(first) if rule == QuantizedSource::Narrow && !rounded => {
            let (types, bits) = (types_of(outline), first.source_bits());
            Err(ConvertError::NothingToRequantize {
                types,
                tensor: first.tensor,
                bits,
                recipe: recipe.to_string(),
            })
        }
        _ => Ok(recipe),
    }
}

/// The encoding of a matrix, and what it means for its source.
#[derive(Clone, Copy)]
enum Choice {
    /// That of the source's own values.
    Carried(Encoding),
    /// The recipe's.
    Rounded(Encoding),
    /// The recipe's, which would round codes again.
    Refused(Encoding),
}

/// Chooses an encoding by the recipe and the rule for quantized sources. `is_quantized`: any matrix of
/// the source is.
fn choose(
    recipe: &Recipe,
    rule: QuantizedSource,
    is_quantized: bool,
    id: TensorId,
    source: &Binding,
    tied_head: bool,
) -> Choice {
    // A matrix that changes has no codes to repack.
    let kept = source.kept().filter(|_| recipe.transform.is_none());
    let asked = recipe.encoding(id, kept, tied_head);
    if Some(asked) == kept {
        return Choice::Carried(asked);
    }
    if asked.grouped().is_none() {
        return Choice::Rounded(asked);
    }
    let rule = match rule {
        QuantizedSource::Carry if recipe.transform.is_some() => QuantizedSource::Refuse,
        rule => rule,
    };
    match (rule, source.is_quantized()) {
        (QuantizedSource::Carry, true) => kept.map_or(Choice::Rounded(Encoding::Q8), Choice::Carried),
        (QuantizedSource::Carry, false) if is_quantized => Choice::Carried(kept.unwrap_or(Encoding::F16)),
        (QuantizedSource::Refuse, true) => Choice::Refused(asked),
        (QuantizedSource::Narrow, true) if asked.bits_per_weight() >= source.source_bits() => {
            kept.map_or(Choice::Rounded(asked), Choice::Carried)
        }
        _ => Choice::Rounded(asked),
    }
}

/// The types of the source's matrices with their numbers, most frequent first: `81 × Q5_0, 27 ×
/// Q4_K`.
fn types_of(outline: &Outline) -> String {
    let mut counts: Vec<(SourceType, usize)> = Vec::new();
    for tensor in outline.tensors.iter().filter(|tensor| tensor.is_matrix()) {
        match counts.iter_mut().find(|(dtype, _)| *dtype == tensor.source.dtype) {
            Some((_, count)) => *count += 1,
            None => counts.push((tensor.source.dtype, 1)),
        }
    }
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let named: Vec<String> = counts
        .iter()
        .map(|(dtype, count)| match dtype {
            SourceType::Packed => format!("{count} × codes of a quantized checkpoint"),
            dtype => format!("{count} × {dtype}"),
        })
        .collect();
    named.join(", ")
}

/// Warnings about the checkpoint's codes.
pub(super) fn warnings_of(outline: &Outline, recipe: &Recipe) -> Vec<String> {
    let encoded = outline.tensors.iter().filter_map(|tensor| Some((&tensor.source, tensor.encoding?)));
    match recipe.transform {
        None => {
            let rounds = |(source, encoding): (&Binding, Encoding)| repack::rounds(source, encoding);
            let types = encoded.clone().any(rounds).then(|| types_of(outline));
            let source = types.map(|types| format!("the source is already quantized: {types}"));
            source.into_iter().chain(repack::warnings(encoded)).collect()
        }
        Some(transform) if outline.tensors.iter().any(|tensor| tensor.source.survey.is_some()) => {
            let name = transform.name();
            vec![format!("the codes of quantized matrices are decoded, changed by {name} and rounded again")]
        }
        Some(_) => Vec::new(),
    }
}

//! The encoding of every matrix: the recipe's, or that of the source's own codes.

use pith_format::{Encoding, TensorId};

use super::{ConvertOptions, QuantizedSource};
use crate::checkpoint::SourceType;
use crate::checkpoint::families::Binding;
use crate::error::ConvertError;
use crate::passes::{Outline, repack};
use crate::recipe::Recipe;

/// Sets the encoding and the quantizer of every matrix, by the recipe. Returns the recipe with its
/// head's encoding filled in, and whether a quantized source is carried, whatever the recipe says.
pub(super) fn choose_encodings(
    outline: &mut Outline,
    options: &ConvertOptions,
) -> Result<(Recipe, bool), ConvertError> {
    let (recipe, rule) = (options.recipe.clone(), options.quantized);
    let tied_head = outline.model.tied_head;
    let is_quantized =
        outline.tensors.iter().any(|tensor| tensor.is_matrix() && tensor.source.is_quantized());
    let head = outline.head();
    let recipe = match choose(&recipe, rule, is_quantized, head.id, &head.source, tied_head) {
        Choice::Carried(encoding) => recipe.with_head(Some(encoding)),
        _ => recipe.with_head(None),
    };
    let (mut refused, mut carried, mut rounded, mut wider) = (Vec::new(), None, false, None);
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
            Choice::Widened(encoding) => {
                wider = wider.or(Some(tensor.source.clone()));
                encoding
            }
            Choice::Refused(encoding) => {
                refused.push((tensor.source.clone(), encoding));
                encoding
            }
        };
        tensor.may_repack = tensor.source.is_repacked(encoding);
        tensor.encoding = Some(encoding);
        tensor.quantizer = Some(recipe.quantizer(tensor.id));
    }
    let longer = |first: Binding| {
        let (types, bits) = (types_of(sources(outline)), first.source_bits());
        ConvertError::NothingToRequantize { types, tensor: first.tensor, bits, recipe: recipe.to_string() }
    };
    if let Some((first, _)) = refused.first() {
        if refused.iter().all(|(source, encoding)| !is_narrower(*encoding, source)) {
            return Err(longer(first.clone()));
        }
        let (types, tensor) = (types_of(sources(outline)), first.tensor.clone());
        return Err(ConvertError::Quantized { types, tensor, recipe: recipe.to_string() });
    }
    let is_carried = rule == QuantizedSource::Carry && carried.is_some();
    match carried.or(wider) {
        Some(first) if rule == QuantizedSource::Narrow && !rounded => Err(longer(first)),
        _ => Ok((recipe, is_carried)),
    }
}

/// The encoding of a matrix, and what it means for its source.
#[derive(Clone, Copy)]
enum Choice {
    /// That of the source's own values.
    Carried(Encoding),
    /// The recipe's.
    Rounded(Encoding),
    /// The recipe's, which rounds codes again and takes no fewer bits.
    Widened(Encoding),
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
    if recipe.keep && rule == QuantizedSource::Carry && source.is_quantized() && kept.is_none() {
        return Choice::Rounded(Encoding::Q8);
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
        (QuantizedSource::Narrow, true) if !is_narrower(asked, source) => {
            kept.map_or(Choice::Widened(asked), Choice::Carried)
        }
        _ => Choice::Rounded(asked),
    }
}

/// Whether a quantized matrix has fewer bits in this encoding than as it is carried: in those of its
/// source, or in q8 where no encoding holds its codes.
fn is_narrower(encoding: Encoding, source: &Binding) -> bool {
    let carried = match source.kept() {
        Some(_) => source.source_bits(),
        None => Encoding::Q8.bits_per_weight(),
    };
    encoding.bits_per_weight() < carried
}

/// The matrices of the source.
fn sources(outline: &Outline) -> impl Iterator<Item = &Binding> {
    outline.tensors.iter().filter(|tensor| tensor.is_matrix()).map(|tensor| &tensor.source)
}

/// The types of the source's matrices with their numbers, most frequent first: `81 × Q5_0, 27 ×
/// Q4_K`.
pub(super) fn types_of<'a>(matrices: impl Iterator<Item = &'a Binding>) -> String {
    let mut counts: Vec<(SourceType, usize)> = Vec::new();
    for source in matrices {
        match counts.iter_mut().find(|(dtype, _)| *dtype == source.dtype) {
            Some((_, count)) => *count += 1,
            None => counts.push((source.dtype, 1)),
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
            let types = encoded.clone().any(rounds).then(|| types_of(sources(outline)));
            let source = types.map(|types| format!("the source is already quantized: {types}"));
            source.into_iter().chain(repack::warnings(encoded)).collect()
        }
        Some(transform) if encoded.clone().any(|(source, _)| source.is_quantized()) => {
            let (types, name) = (types_of(sources(outline)), transform.name());
            vec![
                format!("the source is already quantized: {types}"),
                format!("the codes of quantized matrices are decoded, changed by {name} and rounded again"),
            ]
        }
        Some(_) => Vec::new(),
    }
}

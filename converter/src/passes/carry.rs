//! Codes that a source already holds: which encodings can take them over without rounding them again.

use pith_format::Encoding;

use crate::checkpoint::SourceType;
use crate::checkpoint::families::Binding;
use crate::checkpoint::survey::CLIPPED;

impl Binding {
    /// Whether the source's codes and scales become the file's, rather than be decoded and rounded again.
    pub(crate) fn is_carried(&self, encoding: Encoding) -> bool {
        let Some(grouped) = encoding.grouped().filter(|_| self.offset == 0.0) else { return false };
        match self.dtype {
            SourceType::Q4_0 => encoding == Encoding::Q4,
            SourceType::Q8_0 => encoding == Encoding::Q8,
            SourceType::Packed => self.survey.as_ref().is_some_and(|survey| survey.fits(&grouped)),
            _ => false,
        }
    }

    /// The encoding that holds the source's values as they are: its own type, or the narrowest for its codes.
    pub(crate) fn kept(&self) -> Option<Encoding> {
        match self.dtype {
            SourceType::F32 => Some(Encoding::F32),
            SourceType::F16 => Some(Encoding::F16),
            _ => {
                let fitting = Encoding::ALL.iter().copied().filter(|&encoding| self.is_carried(encoding));
                fitting.min_by(|one, other| one.bits_per_weight().total_cmp(&other.bits_per_weight()))
            }
        }
    }
}

/// What a person should know of packed matrices that get these encodings.
pub(crate) fn warnings<'a>(matrices: impl Iterator<Item = (&'a Binding, Encoding)>) -> Vec<String> {
    let (mut rounded, mut inexact, mut clipped) = (Vec::new(), Vec::new(), Vec::new());
    for (binding, encoding) in matrices {
        let Some(survey) = binding.survey.as_ref().filter(|_| encoding.grouped().is_some()) else { continue };
        if !binding.is_carried(encoding) {
            rounded.push((binding, survey, encoding));
            continue;
        }
        if !survey.exact {
            inexact.push(binding);
        }
        if survey.low < CLIPPED {
            clipped.push(binding);
        }
    }
    let mut warnings = Vec::new();
    if let Some((first, survey, encoding)) = rounded.first() {
        let advice = match first.kept() {
            Some(kept) => format!("--encoding keep would store it as {kept} without"),
            None => "no encoding holds them as they are".into(),
        };
        warnings.push(format!(
            "the codes of {} quantized matrices are decoded and rounded again: {:?} has {}, which {encoding} does not hold; {advice}",
            rounded.len(),
            first.tensor,
            survey.about(),
        ));
    }
    if let Some(first) = inexact.first() {
        warnings.push(format!(
            "the scales of {} quantized matrices are rounded to f16, a relative error of up to 1/2048, their codes kept: {:?} is the first",
            inexact.len(),
            first.tensor
        ));
    }
    if let Some(first) = clipped.first() {
        warnings.push(format!(
            "codes of -128, which no encoding has, become -127 in {} quantized matrices, the others kept: {:?} is the first",
            clipped.len(),
            first.tensor
        ));
    }
    warnings
}

//! Survey of the codes and scales of a quantized matrix: the requirements on an encoding.

use half::f16;
use pith_format::Encoding;
use pith_format::encoding::Grouped;

use super::scale_and_code;

/// Largest relative error of a number rounded to a normal f16.
const F16_ROUNDING: f32 = 1.0 / 2048.0;

/// Replacement for a code of −128, which symmetric encodings of 8 bits lack. The error, one step in
/// the outermost weight of a group, is less than that of rounding all weights again.
pub(crate) const CLIPPED: i16 = -127;

/// Requirements of a packed matrix on an encoding.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Survey {
    pub(crate) low: i16,
    pub(crate) high: i16,
    /// The widest group of any encoding within which no scale changes; 0 where there is none.
    pub(crate) group_cols: usize,
    /// Whether every scale is an f16 number.
    pub(crate) exact: bool,
    /// Whether every scale is within [`F16_ROUNDING`] of an f16 number.
    pub(crate) near: bool,
}

impl Survey {
    /// The survey of no values.
    pub(super) fn empty() -> Self {
        Self { low: 0, high: 0, group_cols: widths().max().unwrap_or(0), exact: true, near: true }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
            group_cols: self.group_cols.min(other.group_cols),
            exact: self.exact && other.exact,
            near: self.near && other.near,
        }
    }

    pub(super) fn of_row(stored: &[u8]) -> Self {
        let values = stored.as_chunks().0;
        let mut survey = Self::empty();
        let mut last = None;
        for &value in values {
            let (scale, code) = scale_and_code(value);
            (survey.low, survey.high) = (survey.low.min(code), survey.high.max(code));
            if last != Some(scale) {
                last = Some(scale);
                let rounded = f16::from_f32(scale).to_f32();
                survey.exact &= rounded == scale;
                survey.near &= (rounded - scale).abs() <= F16_ROUNDING * scale.abs();
            }
        }
        let scale = |value: &[u8; 6]| scale_and_code(*value).0;
        let even = |&width: &usize| {
            values.chunks(width).all(|group| group.iter().all(|value| scale(value) == scale(&group[0])))
        };
        survey.group_cols = widths().filter(even).max().unwrap_or(0);
        survey
    }

    /// Whether the encoding holds these codes and groups.
    pub(crate) fn fits(&self, grouped: &Grouped) -> bool {
        let (low, high) = grouped.code_range();
        let in_range = i16::from(low) <= self.low.max(CLIPPED) && self.high <= i16::from(high);
        grouped.is_uniform()
            && in_range
            && i16::from(i8::MIN) <= self.low
            && self.near
            && grouped.group_cols <= self.group_cols
    }

    /// Why no encoding of such codes fits, or the loss: part of a sentence.
    pub(crate) fn about(&self) -> String {
        let codes = format!("codes from {} to {}", self.low, self.high);
        match (self.group_cols, self.near) {
            (0, _) => format!("{codes}, columns of several scales side by side"),
            (_, false) => format!("{codes}, scales below what f16 can hold"),
            (width, true) => format!("{codes}, one scale for {width} columns or more"),
        }
    }
}

/// The group widths of all encodings. Each divides the next: scales constant over one width are
/// constant over all smaller ones.
fn widths() -> impl Iterator<Item = usize> {
    Encoding::ALL.iter().filter_map(|encoding| encoding.grouped()).map(|grouped| grouped.group_cols)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[(f32, i16)]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|(scale, code)| [&scale.to_le_bytes()[..], &code.to_le_bytes()].concat())
            .collect()
    }

    fn fitting(values: &[(f32, i16)]) -> Vec<Encoding> {
        let survey = Survey::of_row(&row(values));
        let fits = |encoding: &Encoding| encoding.grouped().is_some_and(|grouped| survey.fits(&grouped));
        Encoding::ALL.iter().copied().filter(fits).collect()
    }

    #[test]
    fn codes_and_groups_choose_the_encoding() {
        let values = |width: usize, code: i16| -> Vec<(f32, i16)> {
            (0..128).map(|col| ((1 + col / width) as f32 * 0.25, if col == 5 { code } else { 1 })).collect()
        };
        let held = |width, code, encoding| fitting(&values(width, code)).contains(&encoding);
        assert!(held(128, -8, Encoding::Q4) && held(128, -8, Encoding::Q4G64) && held(128, -8, Encoding::Q8));
        assert!(held(32, 7, Encoding::Q4) && !held(32, 7, Encoding::Q4G64));
        assert!(!held(64, 8, Encoding::Q4) && held(64, 8, Encoding::Q8));
        assert!(
            held(64, -128, Encoding::Q8) && !held(64, -129, Encoding::Q8) && !held(64, 128, Encoding::Q8)
        );
        assert!(fitting(&values(16, 1)).is_empty());
    }

    #[test]
    fn every_width_divides_the_next() {
        let mut all: Vec<_> = widths().collect();
        all.sort();
        assert!(all.windows(2).all(|pair| pair[1].is_multiple_of(pair[0])), "{all:?}");
    }

    #[test]
    fn scales_must_come_near_f16() {
        assert!(fitting(&[(0.1, 1); 32]).contains(&Encoding::Q4));
        assert!(!Survey::of_row(&row(&[(0.1, 1); 32])).exact);
        assert!(Survey::of_row(&row(&[(0.125, 1); 32])).exact);
        assert!(fitting(&[(1e-9, 1); 32]).is_empty() && fitting(&[(1e9, 1); 32]).is_empty());
    }
}

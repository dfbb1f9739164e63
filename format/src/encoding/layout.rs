//! The layout of tiles with codes in [planes](super::planes): the plane of the low bits, that of
//! the high bits, then scales and minima as in [multiplier](super::multiplier).

use super::multiplier::Multiplier;
use super::planes::{self, plane_bytes};
use super::{Codes, TILE_ROWS};

/// Parameters of a tile's layout.
pub(super) struct Layout {
    /// Columns of the tile.
    pub cols: usize,
    /// Bits of the plane of low bits.
    pub low: usize,
    /// Bits of the plane of high bits; 0 where there is none.
    pub high: usize,
    pub group_cols: usize,
    pub scale: Multiplier,
    pub minimum: Option<Multiplier>,
    /// The levels of all codes.
    pub levels: &'static [i8],
}

impl Layout {
    const fn low_bytes(&self) -> usize {
        plane_bytes(self.low, self.cols)
    }

    const fn code_bytes(&self) -> usize {
        self.low_bytes() + plane_bytes(self.high, self.cols)
    }

    const fn groups(&self) -> usize {
        self.cols / self.group_cols
    }

    /// Bytes of the tile.
    pub const fn bytes(&self) -> usize {
        let groups = self.groups();
        let minima = match &self.minimum {
            Some(minimum) => minimum.half_bytes(groups) + minimum.integer_bytes(groups),
            None => 0,
        };
        self.code_bytes() + self.scale.half_bytes(groups) + self.scale.integer_bytes(groups) + minima
    }

    /// Bytes of the parts behind the codes: halves of scales and minima, integers of scales; those
    /// of minima are the rest.
    const fn parts(&self) -> [usize; 3] {
        let groups = self.groups();
        let minima = match &self.minimum {
            Some(minimum) => minimum.half_bytes(groups),
            None => 0,
        };
        [self.scale.half_bytes(groups), minima, self.scale.integer_bytes(groups)]
    }

    /// Whether minima are in the words of the scales.
    const fn shares_words(&self) -> bool {
        matches!(self.minimum, Some(Multiplier::Zero { .. }))
    }

    pub fn pack(&self, codes: &Codes<'_>, bytes: &mut [u8]) {
        let groups = self.groups();
        let factors_of = |multiplier: &Multiplier| TILE_ROWS * multiplier.integers(groups);
        let minima = self
            .minimum
            .as_ref()
            .map_or((0, 0), |minimum| (TILE_ROWS * minimum.values(groups), factors_of(minimum)));
        assert_eq!((codes.levels.len(), bytes.len()), (TILE_ROWS * self.cols, self.bytes()));
        let scales = (TILE_ROWS * self.scale.values(groups), factors_of(&self.scale));
        assert_eq!((codes.scales.len(), codes.factors.len()), scales, "scales and their factors");
        assert_eq!((codes.minima.len(), codes.min_factors.len()), minima, "minima and their factors");
        let mut code_of = [u8::MAX; 256];
        for (code, &level) in self.levels.iter().enumerate().rev() {
            code_of[usize::from(level as u8)] = code as u8;
        }
        let mut indices: Vec<u8> =
            codes.levels.iter().map(|&level| code_of[usize::from(level as u8)]).collect();
        assert!(!indices.contains(&u8::MAX), "a value is no level of the encoding");
        bytes.fill(0);
        let (planes, rest) = bytes.split_at_mut(self.code_bytes());
        let (low, high) = planes.split_at_mut(self.low_bytes());
        planes::write(self.low, self.cols, &indices, low);
        if self.high > 0 {
            indices.iter_mut().for_each(|index| *index >>= self.low);
            planes::write(self.high, self.cols, &indices, high);
        }
        let [scale_halves, min_halves, scale_integers] = self.parts();
        let (scale_halves, rest) = rest.split_at_mut(scale_halves);
        let (min_halves, rest) = rest.split_at_mut(min_halves);
        let (scale_integers, min_integers) = rest.split_at_mut(scale_integers);
        self.scale.write(codes.scales, codes.factors, scale_halves, scale_integers);
        if let Some(minimum) = &self.minimum {
            let min_halves = if self.shares_words() { scale_halves } else { min_halves };
            minimum.write(codes.minima, codes.min_factors, min_halves, min_integers);
        }
    }

    pub fn decode(&self, bytes: &[u8], weights: &mut [f32]) {
        assert_eq!((weights.len(), bytes.len()), (TILE_ROWS * self.cols, self.bytes()));
        let (planes, rest) = bytes.split_at(self.code_bytes());
        let (low, high) = planes.split_at(self.low_bytes());
        let mut codes = [0u8; TILE_ROWS * super::MAX_TILE_COLS];
        let codes = &mut codes[..TILE_ROWS * self.cols];
        planes::read(self.low, self.cols, low, 0, codes);
        if self.high > 0 {
            planes::read(self.high, self.cols, high, self.low, codes);
        }
        let mut values = [0.0f32; 64];
        values.iter_mut().zip(self.levels).for_each(|(value, &level)| *value = f32::from(level));
        let [scale_halves, min_halves, scale_integers] = self.parts();
        let (scale_halves, rest) = rest.split_at(scale_halves);
        let (min_halves, rest) = rest.split_at(min_halves);
        let min_halves = if self.shares_words() { scale_halves } else { min_halves };
        let (scale_integers, min_integers) = rest.split_at(scale_integers);
        let groups = self.groups();
        for group in 0..groups {
            let scales = self.scale.read(scale_halves, scale_integers, group, groups);
            let minima = self.minimum.as_ref();
            let minima = minima.map(|minimum| minimum.read(min_halves, min_integers, group, groups));
            for (row, scale) in scales.into_iter().enumerate() {
                let at = row * self.cols + group * self.group_cols;
                let (weights, codes) =
                    (&mut weights[at..][..self.group_cols], &codes[at..][..self.group_cols]);
                for (weight, &code) in weights.iter_mut().zip(codes) {
                    *weight = scale * values[usize::from(code & 63)];
                }
                if let Some(minima) = &minima {
                    weights.iter_mut().for_each(|weight| *weight += minima[row]);
                }
            }
        }
    }
}

/// Declares tiles: columns, bits of the `low` and `high` planes, columns of a group, the storage of
/// scales and of minima, and how many of the codes' levels may be written.
macro_rules! tiles {
    ($($(#[$about:meta])* $tile:ident, $cols:literal columns, $low:literal + $high:literal bits, groups of $group:literal, $scale:expr, $minimum:expr, $used:literal of $levels:expr;)*) => {$(
        $(#[$about])*
        pub struct $tile;

        impl $tile {
            const LAYOUT: $crate::encoding::layout::Layout = $crate::encoding::layout::Layout {
                cols: $cols, low: $low, high: $high, group_cols: $group, scale: $scale, minimum: $minimum, levels: &$levels,
            };
        }

        impl $crate::encoding::Tile for $tile {
            const COLS: usize = $cols;
            const BYTES: usize = Self::LAYOUT.bytes();
            const OPERATION: $crate::encoding::Operation = $crate::encoding::Operation::Integer;
            const GROUPED: Option<$crate::encoding::Grouped> = Some($crate::encoding::Grouped {
                group_cols: $group,
                levels: Self::LAYOUT.levels.split_at($used).0,
                scale: $scale,
                minimum: $minimum,
                pack: |codes, bytes| Self::LAYOUT.pack(codes, bytes),
            });

            fn encode(weights: &[f32], bytes: &mut [u8]) {
                $crate::encoding::rounding::encode(&Self::GROUPED.expect("set above"), $cols, weights, None, bytes);
            }

            fn decode(bytes: &[u8], weights: &mut [f32]) {
                Self::LAYOUT.decode(bytes, weights);
            }
        }
    )*};
}
pub(super) use tiles;

/// Uniform levels for all `COUNT` codes, from `first` on.
pub(super) const fn uniform<const COUNT: usize>(first: i8) -> [i8; COUNT] {
    let (mut levels, mut index) = ([0; COUNT], 0);
    while index < COUNT {
        levels[index] = index as i8 + first;
        index += 1;
    }
    levels
}

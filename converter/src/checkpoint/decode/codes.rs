//! Blocks of codes, scales and minima, and their values.

use pith_format::Encoding;
use pith_format::encoding::rounding::{Shared, Stored};

/// Values of the largest block.
const MAX_BLOCK_LEN: usize = 256;

/// Groups of a block at most.
pub(crate) const MAX_GROUPS: usize = 16;

/// Reads one block: writes the level of each value and the parameters of each group.
pub(crate) type Unpack = fn(bytes: &[u8], levels: &mut [i8], groups: &mut [Stored]) -> Shared;

/// A type whose blocks hold the codes, scales and minima of an encoding, so that they can be
/// carried into a file unchanged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CodeBlocks {
    /// The encoding that holds them. Its groups are those of the blocks.
    pub(crate) encoding: Encoding,
    pub(crate) unpack: Unpack,
}

impl CodeBlocks {
    /// The first scale or minimum of a block that is not a finite number.
    pub(crate) fn not_finite(&self, block: &[u8], block_len: usize) -> Option<f32> {
        let (mut levels, mut groups) = ([0; MAX_BLOCK_LEN], [Stored::default(); MAX_GROUPS]);
        let groups = &mut groups[..block_len / self.encoding.grouped()?.group_cols];
        let shared = (self.unpack)(block, &mut levels[..block_len], groups);
        let own = groups.iter().flat_map(|group| [group.scale, group.minimum]);
        [shared.scale, shared.minimum].into_iter().chain(own).find(|number| !number.is_finite())
    }

    /// The values of whole blocks of `block_bytes` each.
    ///
    /// A product of scale and level is exact in f32, so only the addition of a minimum rounds.
    pub(crate) fn decode(&self, bytes: &[u8], block_bytes: usize, block_len: usize, out: &mut [f32]) {
        let grouped = self.encoding.grouped().expect("an encoding of codes");
        let (mut levels, mut groups) = ([0; MAX_BLOCK_LEN], [Stored::default(); MAX_GROUPS]);
        let levels = &mut levels[..block_len];
        let groups = &mut groups[..block_len / grouped.group_cols];
        for (bytes, out) in bytes.chunks_exact(block_bytes).zip(out.chunks_exact_mut(block_len)) {
            let shared = (self.unpack)(bytes, levels, groups);
            let values = out.chunks_exact_mut(grouped.group_cols);
            for ((out, levels), stored) in
                values.zip(levels.chunks_exact(grouped.group_cols)).zip(&mut *groups)
            {
                let affine = stored.affine(&grouped, shared);
                for (out, &level) in out.iter_mut().zip(levels) {
                    *out = affine.scale * f32::from(level);
                }
                if grouped.minimum.is_some() {
                    out.iter_mut().for_each(|out| *out += affine.minimum);
                }
            }
        }
    }
}

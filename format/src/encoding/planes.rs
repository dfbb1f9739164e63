//! Bit planes: the places of code bits in a tile, for codes of fewer than eight bits.
//!
//! A code of 3, 5 or 6 bits is cut into planes of 4, 2 and 1 bits, the lowest bits in the widest
//! plane. A plane consists of whole lines, so a code's parts lie in the same byte lane of a few
//! lines and are joined by a shift and a mask. Each run of 64 columns has its own `2 · BITS` lines.
//! Each line holds `8 / BITS` groups of four columns ("fours"):
//!
//! ```text
//! four f (0..16) of a run:   line f % (2 · BITS), bits BITS · (f / (2 · BITS)) and up
//! byte j of a line:          row j / 4, column 4f + j % 4 of the run
//! ```

use super::TILE_ROWS;

/// Columns that share a set of lines. The columns of a tile of planes are a multiple of it.
const RUN: usize = 64;

/// Bytes of a plane of `cols` columns.
pub(super) const fn plane_bytes(bits: usize, cols: usize) -> usize {
    TILE_ROWS * cols * bits / 8
}

/// Adds the lowest `bits` bits of every code (16 × `cols`, row-major) to a plane of zeros.
pub(super) fn write(bits: usize, cols: usize, codes: &[u8], plane: &mut [u8]) {
    assert_eq!((codes.len(), plane.len()), (TILE_ROWS * cols, plane_bytes(bits, cols)));
    let mask = (1u8 << bits) - 1;
    for (row, codes) in codes.chunks_exact(cols).enumerate() {
        for (col, code) in codes.iter().enumerate() {
            let (line, shift) = place(bits, col);
            plane[64 * line + 4 * row + col % 4] |= (code & mask) << shift;
        }
    }
}

/// Adds the bits of a plane, times `1 << at`, to the codes (16 × `cols`, row-major).
pub(super) fn read(bits: usize, cols: usize, plane: &[u8], at: usize, codes: &mut [u8]) {
    assert_eq!((codes.len(), plane.len()), (TILE_ROWS * cols, plane_bytes(bits, cols)));
    let mask = (1u8 << bits) - 1;
    // Row by row, four columns of a line at a time: compilers vectorise this order.
    for (row, codes) in codes.chunks_exact_mut(cols).enumerate() {
        for (four, codes) in codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let (line, shift) = place(bits, 4 * four);
            let bytes: &[u8; 4] =
                plane[64 * line + 4 * row..].first_chunk().expect("a row has four bytes a line");
            for (code, byte) in codes.iter_mut().zip(bytes) {
                *code |= (byte >> shift & mask) << at;
            }
        }
    }
}

/// Line and shift of a column.
fn place(bits: usize, col: usize) -> (usize, usize) {
    let (run, four, lines) = (col / RUN, col % RUN / 4, 2 * bits);
    (run * lines + four % lines, bits * (four / lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLS: usize = 128;

    #[test]
    fn planes_give_back_what_was_written() {
        let codes: Vec<u8> = (0..TILE_ROWS * COLS).map(|i| (i * 37 + i / 11) as u8 & 63).collect();
        let (mut low, mut high) = (vec![0; plane_bytes(4, COLS)], vec![0; plane_bytes(2, COLS)]);
        write(4, COLS, &codes, &mut low);
        let rest: Vec<u8> = codes.iter().map(|code| code >> 4).collect();
        write(2, COLS, &rest, &mut high);
        let mut found = vec![0; codes.len()];
        read(4, COLS, &low, 0, &mut found);
        read(2, COLS, &high, 4, &mut found);
        assert_eq!(found, codes);
    }

    #[test]
    fn every_bit_of_a_plane_belongs_to_one_column() {
        for bits in [1, 2, 4] {
            let mut seen = vec![0u8; plane_bytes(bits, COLS)];
            for col in 0..COLS {
                let (line, shift) = place(bits, col);
                let bits = (((1u16 << bits) - 1) << shift) as u8;
                let byte = &mut seen[64 * line + col % 4];
                assert_eq!(*byte & bits, 0, "column {col}");
                *byte |= bits;
            }
            for line in seen.chunks_exact(64) {
                assert_eq!(line[..4], [0xff; 4]);
            }
        }
    }
}

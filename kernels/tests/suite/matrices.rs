use crate::bound::{self, Bounded, assert_within};
use crate::guard::Guarded;
use crate::rng::Rng;
use crate::{Inputs, is_emulated, most_kernels};
use half::f16;
use pith_format::encoding::{Codes, Multiplier};
use pith_format::{Encoding, Matrix, TILE_ROWS};
use pith_kernels::{FEW_TOKENS, Kernels, Operand, available};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Content of a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fill {
    /// Codes of every bit pattern, scales of both signs up to 0.1.
    Random,
    /// All bytes of the codes equal: 0x80 is Q8's −128, 0x00 is Q4's −8.
    Bytes(u8),
    /// Random codes, subnormal scales.
    Tiny,
    /// Random codes, the largest scales.
    Large,
}

impl Fill {
    fn scale(self, rng: &mut Rng) -> f16 {
        match self {
            Fill::Random => f16::from_f32(0.1 * rng.float()),
            Fill::Bytes(_) => f16::from_f32(0.05),
            Fill::Tiny => f16::from_bits(1 + (rng.byte() as u16)),
            Fill::Large => f16::MAX,
        }
    }

    fn weight(self, rng: &mut Rng) -> f32 {
        match self {
            Fill::Random => rng.float(),
            Fill::Bytes(byte) => f32::from(byte as i8),
            Fill::Tiny => 1e-40 * rng.float(),
            Fill::Large => 65504.0 * rng.float(),
        }
    }
}

/// Tiles of a `rows × cols` matrix. The padding is filled like the values: a kernel must not trust
/// it.
fn tiles(encoding: Encoding, rows: usize, cols: usize, fill: Fill, rng: &mut Rng) -> Guarded<u8> {
    let mut bytes = vec![0; encoding.matrix_bytes(rows as u64, cols as u64).unwrap() as usize];
    let len = TILE_ROWS * encoding.tile_cols();
    let Some(grouped) = encoding.grouped() else {
        for tile in bytes.chunks_exact_mut(encoding.tile_bytes()) {
            let weights: Vec<f32> = (0..len).map(|_| fill.weight(rng)).collect();
            encoding.encode_tile(&weights, tile);
        }
        return Guarded::from_slice(&bytes);
    };
    let groups = encoding.tile_cols() / grouped.group_cols;
    let multipliers = [Some(grouped.scale), grouped.minimum];
    // Each scale and minimum by `value`, the codes and factors those of all zero bits or so.
    let pack = |value: &mut dyn FnMut(Multiplier) -> f32| {
        let mut tile = vec![0; encoding.tile_bytes()];
        let [scales, minima] = multipliers.map(|multiplier| -> Vec<f32> {
            multiplier.map_or(Vec::new(), |multiplier| {
                (0..TILE_ROWS * multiplier.values(groups)).map(|_| value(multiplier)).collect()
            })
        });
        let [factors, min_factors] = multipliers.map(|multiplier| -> Vec<i8> {
            multiplier.map_or(Vec::new(), |multiplier| {
                let integer = |value: &mut dyn FnMut(Multiplier) -> f32| match multiplier {
                    Multiplier::Zero { .. } => value(multiplier) as i8,
                    _ => multiplier.factors()[0],
                };
                (0..TILE_ROWS * multiplier.integers(groups)).map(|_| integer(value)).collect()
            })
        });
        let levels = vec![grouped.levels[0]; len];
        let codes = Codes {
            levels: &levels,
            scales: &scales,
            factors: &factors,
            minima: &minima,
            min_factors: &min_factors,
        };
        (grouped.pack)(&codes, &mut tile);
        tile
    };
    let zeros = pack(&mut |_| 0.0);
    let ones = pack(&mut |multiplier| match multiplier {
        Multiplier::Exponent | Multiplier::Float9 => f32::MAX,
        Multiplier::Zero { .. } => 127.0,
        Multiplier::Half | Multiplier::Fraction { .. } | Multiplier::Factors(_) => {
            f16::from_bits(0xffff).to_f32()
        }
    });
    for tile in bytes.chunks_exact_mut(encoding.tile_bytes()) {
        let values = pack(&mut |multiplier| match multiplier {
            Multiplier::Exponent | Multiplier::Float9 => fill.scale(rng).to_f32().abs(),
            Multiplier::Zero { .. } => f32::from(rng.byte() & 127),
            Multiplier::Half | Multiplier::Factors(_) => fill.scale(rng).to_f32(),
            // The largest f16 is the first part's.
            Multiplier::Fraction { shift } => fill.scale(rng).to_f32() / (1u32 << shift) as f32,
        });
        for (index, (out, value)) in tile.iter_mut().zip(values).enumerate() {
            *out = match fill {
                _ if zeros[index] != ones[index] => value,
                Fill::Bytes(byte) => byte,
                _ => rng.byte(),
            };
        }
    }
    Guarded::from_slice(&encoding.stored(bytes))
}

/// Random activations whose groups differ in size.
fn random_inputs(tokens: usize, cols: usize, rng: &mut Rng) -> Inputs {
    Inputs::new(tokens, cols, |token, col| rng.float() * 4.0f32.powi(((token + col / 32) % 5) as i32 - 2))
}

fn mat_vec(kernel: &dyn Kernels, w: Matrix<'_>, x: Operand<'_>) -> Guarded<f32> {
    let mut y = Guarded::filled(f32::NAN, w.rows());
    kernel.mat_vec(w, x, &mut y);
    y
}

/// One slice per token.
fn rows_of(y: &mut [f32], rows: usize) -> Vec<&mut [f32]> {
    y.chunks_mut(rows).collect()
}

fn mat_mul(kernel: &dyn Kernels, w: Matrix<'_>, x: Operand<'_>) -> Guarded<f32> {
    let mut y = Guarded::filled(f32::NAN, x.tokens() * w.rows());
    kernel.mat_mul(w, x, &mut rows_of(&mut y, w.rows()));
    y
}

const ROWS: [usize; 6] = [1, 15, 16, 17, 33, 48];
const COLS: [usize; 12] = [1, 4, 31, 32, 33, 63, 64, 65, 128, 172, 256, 300];

#[test]
fn mat_vec_holds_for_every_shape() {
    for &encoding in Encoding::ALL {
        for rows in ROWS {
            for cols in COLS {
                let mut rng = Rng::new((rows * 1000 + cols) as u64);
                let bytes = tiles(encoding, rows, cols, Fill::Random, &mut rng);
                let w = Matrix::new(encoding, rows, cols, &bytes).unwrap();
                let inputs = random_inputs(1, cols, &mut rng);
                let expected = bound::mat_mul(w, inputs.operand());
                for kernel in available() {
                    let what = format!("{} {encoding} {rows} × {cols}", kernel.name());
                    assert_within(&what, &mat_vec(kernel, w, inputs.operand()), expected.by(kernel));
                }
            }
        }
    }
}

#[test]
fn the_first_part_is_a_matrix_of_its_encoding() {
    let (rows, cols, tokens) = (33, 300, 25);
    for &encoding in Encoding::ALL {
        let Some(first) = encoding.first() else { continue };
        let mut rng = Rng::new(5);
        let bytes = tiles(encoding, rows, cols, Fill::Random, &mut rng);
        let part = Matrix::new(encoding, rows, cols, &bytes).unwrap().first().unwrap();
        // Alone, where an unreadable page follows.
        let alone =
            Guarded::from_slice(&bytes[..first.matrix_bytes(rows as u64, cols as u64).unwrap() as usize]);
        let alone = Matrix::new(first, rows, cols, &alone).unwrap();
        let inputs = random_inputs(tokens, cols, &mut rng);
        for kernel in available() {
            let [found, expected] = [part, alone].map(|w| mat_mul(kernel, w, inputs.operand()).to_vec());
            assert_eq!(found, expected, "{} {encoding}", kernel.name());
            let first = inputs.operand().token(0);
            let [found, expected] = [part, alone].map(|w| mat_vec(kernel, w, first).to_vec());
            assert_eq!(found, expected, "{} {encoding}, one token", kernel.name());
        }
    }
}

#[test]
fn a_few_tokens_have_the_bits_of_each_alone() {
    for &encoding in Encoding::ALL {
        for (rows, cols) in [(33, 300), (17, 2500)] {
            let mut rng = Rng::new(cols as u64);
            let bytes = tiles(encoding, rows, cols, Fill::Random, &mut rng);
            let w = Matrix::new(encoding, rows, cols, &bytes).unwrap();
            for tokens in 1..FEW_TOKENS {
                let inputs = random_inputs(tokens, cols, &mut rng);
                for kernel in most_kernels() {
                    let together = mat_mul(kernel, w, inputs.operand());
                    for (token, found) in together.chunks_exact(rows).enumerate() {
                        let alone = mat_vec(kernel, w, inputs.operand().token(token));
                        let same = found.iter().zip(alone.iter()).all(|(a, b)| a.to_bits() == b.to_bits());
                        let name = kernel.name();
                        assert!(same, "{name} {encoding} {rows} × {cols}: token {token} of {tokens}");
                    }
                }
            }
        }
    }
}

#[test]
fn matrices_hold_at_the_extremes() {
    // ±1 everywhere rounds to ±127 everywhere: the largest possible sums.
    type Value = fn(usize, usize) -> f32;
    let inputs: [(&str, Value); 6] = [
        ("zeros", |_, _| 0.0),
        ("all 127", |_, _| 1.0),
        ("all −127", |_, _| -1.0),
        ("±127", |token, col| if (token + col) % 2 == 0 { 1.0 } else { -1.0 }),
        ("tiny", |token, col| 1e-36 * (col as f32 - 90.0 + token as f32)),
        ("large", |token, col| 1e24 * (90.0 - col as f32 + token as f32)),
    ];
    let fills = [0x00, 0x80, 0x7f, 0xff, 0x88, 0x0f, 0xf0]
        .map(Fill::Bytes)
        .into_iter()
        .chain([Fill::Tiny, Fill::Large]);
    for fill in fills {
        for &encoding in Encoding::ALL {
            let (rows, cols) = (17, 172);
            let bytes = tiles(encoding, rows, cols, fill, &mut Rng::new(7));
            let w = Matrix::new(encoding, rows, cols, &bytes).unwrap();
            for (name, value) in inputs {
                let inputs = Inputs::new(2, cols, value);
                let expected = bound::mat_mul(w, inputs.operand());
                for kernel in available() {
                    let what = format!("{} {encoding}, weights {fill:?}, activations {name}", kernel.name());
                    assert_within(&what, &mat_mul(kernel, w, inputs.operand()), expected.by(kernel));
                    let first = inputs.operand().token(0);
                    assert_within(&what, &mat_vec(kernel, w, first), &expected.by(kernel)[..rows]);
                }
            }
        }
    }
}

/// Products of the largest shape that is emulated.
const MOST_EMULATED: usize = 500_000;

#[test]
fn mat_mul_holds_and_equals_mat_vecs() {
    let shapes = [
        (1, 17, 172),
        (2, 16, 64),
        (2, 1, 1),
        (3, 33, 33),
        (5, 15, 300),
        (5, 48, 4),
        (13, 17, 128),
        (13, 16, 31),
        (17, 1, 65),
        (33, 33, 63),
        (33, 16, 256),
        (12, 49, 1100),
        (20, 16, 2304),
        // Sizes at which kernels switch to panels, and panel edges: 4 tokens, 8 rows, 32 rows, 512
        // columns.
        (7, 9, 65),
        (8, 24, 32),
        (11, 40, 129),
        (23, 17, 96),
        (24, 7, 512),
        (26, 41, 513),
        (27, 8, 1100),
    ];
    // The largest shapes take most of the time, and differ from others in nothing that emulation
    // would show.
    let shapes = shapes.into_iter().filter(|(tokens, rows, cols)| {
        let products = tokens * rows * cols;
        !is_emulated() || products < MOST_EMULATED
    });
    for &encoding in Encoding::ALL {
        for (tokens, rows, cols) in shapes.clone() {
            let mut rng = Rng::new((tokens * 10000 + rows * 100 + cols) as u64);
            let bytes = tiles(encoding, rows, cols, Fill::Random, &mut rng);
            let w = Matrix::new(encoding, rows, cols, &bytes).unwrap();
            let inputs = random_inputs(tokens, cols, &mut rng);
            let expected = bound::mat_mul(w, inputs.operand());
            for kernel in most_kernels() {
                let what = format!("{} {encoding} {tokens} tokens, {rows} × {cols}", kernel.name());
                let (y, expected) = (mat_mul(kernel, w, inputs.operand()), expected.by(kernel));
                assert_within(&what, &y, expected);
                for (token, (y, expected)) in
                    y.chunks_exact(rows).zip(expected.chunks_exact(rows)).enumerate()
                {
                    let alone = mat_vec(kernel, w, inputs.operand().token(token));
                    let around = |(&y, bounded): (&f32, &Bounded)| Bounded {
                        value: f64::from(y),
                        error: 2.0 * bounded.error,
                    };
                    let expected: Vec<_> = y.iter().zip(expected).map(around).collect();
                    assert_within(&format!("{what}, token {token} alone"), &alone, &expected);
                }
            }
        }
    }
}

#[test]
fn many_tokens_hold_at_the_extremes() {
    type Value = fn(usize, usize) -> f32;
    let inputs: [(&str, Value); 3] = [
        ("all −127", |_, _| -1.0),
        ("±127", |token, col| if (token + col) % 2 == 0 { 1.0 } else { -1.0 }),
        ("large", |token, col| 1e24 * (90.0 - col as f32 + token as f32)),
    ];
    let (tokens, rows, cols) = (24, 9, 68);
    for fill in [Fill::Bytes(0x00), Fill::Bytes(0x80), Fill::Bytes(0xff), Fill::Tiny, Fill::Large] {
        for &encoding in Encoding::ALL {
            let bytes = tiles(encoding, rows, cols, fill, &mut Rng::new(11));
            let w = Matrix::new(encoding, rows, cols, &bytes).unwrap();
            for (name, value) in inputs {
                let inputs = Inputs::new(tokens, cols, value);
                let expected = bound::mat_mul(w, inputs.operand());
                for kernel in available() {
                    let what = format!("{} {encoding}, weights {fill:?}, activations {name}", kernel.name());
                    assert_within(&what, &mat_mul(kernel, w, inputs.operand()), expected.by(kernel));
                }
            }
        }
    }
}

/// Each aarch64 kernel adds the same products in the same order for any number of tokens.
#[cfg(target_arch = "aarch64")]
#[test]
fn a_token_among_others_has_the_bits_of_one_alone() {
    for &encoding in Encoding::ALL {
        for (tokens, rows, cols) in [(3, 17, 200), (6, 16, 128), (9, 25, 300), (29, 41, 650)] {
            let mut rng = Rng::new((tokens * 10000 + rows * 100 + cols) as u64);
            let bytes = tiles(encoding, rows, cols, Fill::Random, &mut rng);
            let w = Matrix::new(encoding, rows, cols, &bytes).unwrap();
            let inputs = random_inputs(tokens, cols, &mut rng);
            for kernel in available().into_iter().filter(|kernel| kernel.name().starts_with("neon")) {
                let y = mat_mul(kernel, w, inputs.operand());
                for (token, together) in y.chunks_exact(rows).enumerate() {
                    let alone = mat_vec(kernel, w, inputs.operand().token(token));
                    let bits =
                        |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    let what = format!("{} {encoding} {tokens} × {rows} × {cols}, {token}", kernel.name());
                    assert_eq!(bits(together), bits(&alone), "{what}");
                }
            }
        }
    }
}

#[test]
fn lengths_that_disagree_panic() {
    let (rows, cols) = (17, 65);
    for &encoding in Encoding::ALL {
        let bytes = tiles(encoding, rows, cols, Fill::Random, &mut Rng::new(3));
        let w = Matrix::new(encoding, rows, cols, &bytes).unwrap();
        let right = Inputs::new(2, cols, |_, _| 1.0);
        let narrow = Inputs::new(2, cols - 1, |_, _| 1.0);
        // A caller can assemble a view by hand, so its lengths must be checked.
        let mut cut = right.operand();
        (cut.floats, cut.codes) = (&cut.floats[1..], &cut.codes[1..]);
        (cut.scales, cut.sums) = (&cut.scales[1..], &cut.sums[1..]);
        cut.half_sums = &cut.half_sums[1..];
        for kernel in available() {
            let panics = |x: Operand<'_>, len: usize| {
                let mut y = Guarded::filled(0.0, len);
                catch_unwind(AssertUnwindSafe(|| kernel.mat_mul(w, x, &mut rows_of(&mut y, rows)))).is_err()
            };
            let what = format!("{} {encoding}", kernel.name());
            assert!(!panics(right.operand(), 2 * rows), "{what}: the right lengths");
            assert!(panics(right.operand(), 2 * rows - 1), "{what}: y too short");
            assert!(panics(right.operand(), 2 * rows + 1), "{what}: y too long");
            assert!(panics(narrow.operand(), 2 * rows), "{what}: x too narrow");
            assert!(panics(cut, 2 * rows), "{what}: a view cut short");
            let mut y = Guarded::filled(0.0, 2 * rows);
            let two_tokens = AssertUnwindSafe(|| kernel.mat_vec(w, right.operand(), &mut y));
            assert!(catch_unwind(two_tokens).is_err(), "{what}: mat_vec of two tokens");
        }
    }
}

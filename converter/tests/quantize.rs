//! GPTQ beside the algorithm as it was published, in f64 and with nothing clever.

use pith_converter::passes::gptq::{Feedback, FeedbackError};
use pith_converter::passes::hqq::hqq;
use pith_converter::passes::nearest::nearest;
use pith_converter::passes::{Rounded, output_error};
use pith_format::Encoding;
use pith_format::encoding::Multiplier;
use pith_format::encoding::rounding::{Affine, Nearest, fit};

/// The encodings that layers are rounded to.
const ROUNDED: [Encoding; 15] = [
    Encoding::Q41,
    Encoding::Q50,
    Encoding::Q51,
    Encoding::Iq4Nl,
    Encoding::Q4K,
    Encoding::Q5K,
    Encoding::Q6K,
    Encoding::Q6,
    Encoding::Q5,
    Encoding::Q4,
    Encoding::Q4G64,
    Encoding::Q4NL,
    Encoding::Q3,
    Encoding::Q2,
    Encoding::Ternary,
];

struct Random(u64);

impl Random {
    /// About normal, of variance 1.
    fn next(&mut self) -> f64 {
        let mut sum = 0.0;
        for _ in 0..12 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            sum += (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        }
        sum - 6.0
    }
}

/// `E[x xᵀ]` of inputs that depend on each other, some columns larger than others.
fn gram(cols: usize, tokens: usize, random: &mut Random) -> Vec<f32> {
    let mut sums = vec![0.0f64; cols * cols];
    let mut x = vec![0.0; cols];
    for _ in 0..tokens {
        let common = random.next();
        for (col, x) in x.iter_mut().enumerate() {
            *x = (random.next() + 0.7 * common) * if col % 17 == 0 { 5.0 } else { 1.0 };
        }
        for (row, &a) in x.iter().enumerate() {
            sums[row * cols..][..cols].iter_mut().zip(&x).for_each(|(sum, b)| *sum += a * b);
        }
    }
    sums.iter().map(|sum| (sum / tokens as f64) as f32).collect()
}

fn weights(rows: usize, cols: usize, random: &mut Random) -> Vec<f32> {
    (0..rows * cols).map(|_| (0.02 * random.next()) as f32).collect()
}

/// The upper Cholesky factor of the damped Hessian's inverse, as the paper has it.
fn inverse_factor(gram: &[f32], cols: usize, damping: f64) -> Vec<f64> {
    let mean = (0..cols).map(|i| f64::from(gram[i * cols + i])).sum::<f64>() / cols as f64;
    let mut work: Vec<f64> = gram.iter().map(|&value| f64::from(value)).collect();
    (0..cols).for_each(|i| work[i * cols + i] += damping * mean);
    let mut inverse = vec![0.0; cols * cols];
    (0..cols).for_each(|i| inverse[i * cols + i] = 1.0);
    for pivot in 0..cols {
        let scale = work[pivot * cols + pivot];
        for col in 0..cols {
            work[pivot * cols + col] /= scale;
            inverse[pivot * cols + col] /= scale;
        }
        for row in (0..cols).filter(|&row| row != pivot) {
            let factor = work[row * cols + pivot];
            for col in 0..cols {
                work[row * cols + col] -= factor * work[pivot * cols + col];
                inverse[row * cols + col] -= factor * inverse[pivot * cols + col];
            }
        }
    }
    let mut upper = vec![0.0; cols * cols];
    for row in 0..cols {
        for col in row..cols {
            let before: f64 = (0..row).map(|k| upper[k * cols + row] * upper[k * cols + col]).sum();
            let rest = inverse[row * cols + col] - before;
            upper[row * cols + col] = if row == col { rest.sqrt() } else { rest / upper[row * cols + row] };
        }
    }
    upper
}

/// One row as the paper has it, beside what was found: the first column where the levels differ, with how near its weight was
/// to the middle between two levels (in steps), and how many groups up to there chose the scale that was found. A scale that
/// nearly ties serves as well, and the found one is taken.
///
/// Weights under the mask become zero, as in SparseGPT: the others see the error of that as of any rounding.
fn published(
    encoding: Encoding,
    row: &[f32],
    mask: &[bool],
    factor: &[f64],
    found: (&[i8], &[Affine]),
) -> (Option<(usize, f64)>, usize) {
    let (cols, grouped) = (row.len(), encoding.grouped().unwrap());
    let nearest = Nearest::new(&grouped);
    let mut w: Vec<f64> = row.iter().map(|&weight| f64::from(weight)).collect();
    let (mut same, mut scale, mut minimum) = (0, 0.0, 0.0);
    for j in 0..cols {
        if j % grouped.group_cols == 0 {
            let group = j..(j + grouped.group_cols).min(cols);
            let importance: Vec<f64> = group.clone().map(|k| 1.0 / factor[k * cols + k].powi(2)).collect();
            let narrow = |values: &[f64]| -> Vec<f32> { values.iter().map(|&value| value as f32).collect() };
            let free = free(&w[group.clone()], &mask[group.clone()], factor, j, cols);
            let cost = |affine: Affine| -> f64 {
                let (scale, minimum) = (f64::from(affine.scale), f64::from(affine.minimum));
                let level = |weight: f64| f64::from(nearest.level(((weight - minimum) / scale) as f32));
                let error = |weight: f64| weight - minimum - scale * level(weight);
                let terms = free.iter().zip(&importance);
                terms.map(|(&w, importance)| importance * error(w).powi(2)).sum()
            };
            let own = fit(&grouped, &narrow(&free), Some(&narrow(&importance)));
            // As it is stored.
            let minimum_of = |minimum: Multiplier| minimum.storable(own.minimum);
            let own = Affine {
                scale: grouped.scale.storable(own.scale),
                minimum: grouped.minimum.map_or(0.0, minimum_of),
            };
            let found = found.1[j / grouped.group_cols];
            same += usize::from(own == found);
            // Candidates that tie are then fitted, each to its own levels.
            assert!(cost(found) <= 1.01 * cost(own), "{encoding} column {j}: {found:?}, not {own:?}");
            (scale, minimum) = (f64::from(found.scale), f64::from(found.minimum));
        }
        let x = (w[j] - minimum) / scale;
        let level = if mask[j] { 0.0 } else { nearest.level(x as f32) };
        if level as i8 != found.0[j] {
            let middles =
                grouped.levels.windows(2).map(|pair| (f64::from(pair[0]) + f64::from(pair[1])) / 2.0);
            let margin = middles.map(|middle| (x - middle).abs()).fold(f64::INFINITY, f64::min);
            return (Some((j, margin)), same);
        }
        let error = (w[j] - minimum - scale * f64::from(level)) / factor[j * cols + j];
        for k in j + 1..cols {
            w[k] -= error * factor[j * cols + k];
        }
    }
    (None, same)
}

/// The weights of a group that begins at column `first`, as they would be if those under the mask became zero and the
/// others were not rounded.
fn free(weights: &[f64], mask: &[bool], factor: &[f64], first: usize, cols: usize) -> Vec<f64> {
    let mut free = weights.to_vec();
    for at in (0..free.len()).filter(|&at| mask[at]) {
        let row = &factor[(first + at) * cols + first..][..free.len()];
        let error = free[at] / row[at];
        free[at] = 0.0;
        free[at + 1..].iter_mut().zip(&row[at + 1..]).for_each(|(free, factor)| *free -= error * factor);
    }
    free
}

#[test]
fn gptq_is_the_published_algorithm() {
    gptq_is_published(|_| false);
}

#[test]
fn masked_gptq_is_the_published_algorithm() {
    gptq_is_published(|at| at * 2654435761 % 1009 < 504);
}

fn gptq_is_published(is_masked: impl Fn(usize) -> bool) {
    let (rows, cols) = (24, 256);
    let mut random = Random(3);
    let gram = gram(cols, 700, &mut random);
    let weights = weights(rows, cols, &mut random);
    let factor = inverse_factor(&gram, cols, 0.01);
    let feedback = Feedback::new(&gram, cols, 0.01, None).unwrap();
    let mask: Vec<bool> = (0..rows * cols).map(is_masked).collect();
    let any = mask.contains(&true);
    for encoding in ROUNDED {
        let grouped = encoding.grouped().unwrap();
        if grouped.has_factors() || any && !grouped.has_zero() {
            continue;
        }
        let groups = cols / grouped.group_cols;
        let found = feedback.round(encoding, &weights, any.then_some(&mask));
        let affine: Vec<Affine> = (0..rows * groups)
            .map(|group| Affine {
                scale: found.parameters.scales[group],
                minimum: found.parameters.minima.get(group).copied().unwrap_or(0.0),
            })
            .collect();
        let mut zeros = found.values(cols).into_iter().zip(&mask);
        assert!(zeros.all(|(value, &masked)| !masked || value == 0.0), "{encoding}");
        let (mut whole, mut scales) = (0, 0);
        for row in 0..rows {
            let found = (&found.levels[row * cols..][..cols], &affine[row * groups..][..groups]);
            let (first, same) = {
                let (weights, mask) = (&weights[row * cols..][..cols], &mask[row * cols..][..cols]);
                published(encoding, weights, mask, &factor, found)
            };
            scales += same;
            whole += usize::from(first.is_none());
            // From a weight that f32 and f64 see on two sides of a middle on, a row goes its own way.
            if let Some((j, margin)) = first {
                assert!(margin < 1e-3, "{encoding} row {row} column {j}: {margin} from a middle");
            }
        }
        assert!(whole * 10 >= rows * 9, "{encoding}: {whole} of {rows} rows are the same to the end");
        assert!(
            scales * 10 >= rows * groups * 9,
            "{encoding}: {scales} of {} scales are the same",
            rows * groups
        );
    }
}

#[test]
fn gptq_costs_less_than_the_nearest_levels() {
    let (rows, cols) = (40, 300);
    let mut random = Random(11);
    let gram = gram(cols, 900, &mut random);
    let weights = weights(rows, cols, &mut random);
    let diagonal: Vec<f32> = (0..cols).map(|i| gram[i * cols + i]).collect();
    let feedback = Feedback::new(&gram, cols, 0.01, None).unwrap();
    let cost = |rounded: &Rounded| output_error(&weights, &rounded.values(cols), cols, &gram);
    for encoding in ROUNDED {
        let plain = cost(&nearest(encoding, &weights, cols, None));
        let weighted = cost(&nearest(encoding, &weights, cols, Some(&diagonal)));
        let gptq = cost(&feedback.round(encoding, &weights, None));
        assert!(gptq < plain && gptq < weighted, "{encoding}: {gptq}, nearest {plain}, {weighted}");
    }
}

/// What is packed is what was decided, for every way to decide.
#[test]
fn tiles_hold_what_was_rounded() {
    let (rows, cols) = (19, 200);
    let mut random = Random(5);
    let gram = gram(cols, 300, &mut random);
    let weights = weights(rows, cols, &mut random);
    let feedback = Feedback::new(&gram, cols, 0.01, None).unwrap();
    for encoding in ROUNDED {
        let ways = [
            nearest(encoding, &weights, cols, None),
            hqq(encoding, &weights, cols),
            feedback.round(encoding, &weights, None),
        ];
        for rounded in ways {
            let mut bytes = vec![0xff; rounded.bytes()];
            rounded.pack(&mut bytes);
            let matrix = pith_format::Matrix::new(encoding, rows, cols, &bytes).unwrap();
            let mut row = vec![0.0; cols];
            for (index, expected) in rounded.values(cols).chunks_exact(cols).enumerate() {
                matrix.decode_row(index, &mut row);
                assert_eq!(row, expected, "{encoding} row {index}");
            }
        }
    }
}

/// Inputs that another matrix has changed by a known map: the shifted weights undo it as far as they are let.
#[test]
fn shifted_weights_suit_the_inputs_that_there_are() {
    let (rows, cols) = (16, 128);
    let mut random = Random(9);
    let dense = gram(cols, 2000, &mut random);
    // x̂ = 0.9 x, so E[x̂ x̂ᵀ] = 0.81 H and E[(x − x̂) x̂ᵀ] = 0.09 H.
    let times = |factor: f32| -> Vec<f32> { dense.iter().map(|value| factor * value).collect() };
    let (gram, cross) = (times(0.81), times(0.09));
    let weights = weights(rows, cols, &mut random);
    let plain = Feedback::new(&gram, cols, 1e-6, None).unwrap();
    let shifted = Feedback::new(&gram, cols, 1e-6, Some(&cross)).unwrap();
    let size = |rounded: Rounded| -> f64 {
        let values = rounded.values(cols);
        weights.iter().zip(&values).map(|(w, v)| f64::from(w * v)).sum::<f64>()
            / weights.iter().map(|w| f64::from(w * w)).sum::<f64>()
    };
    let (one, other) =
        (size(plain.round(Encoding::Q6, &weights, None)), size(shifted.round(Encoding::Q6, &weights, None)));
    assert!((one - 1.0).abs() < 0.01, "{one}");
    // 0.3 of the way to 1 / 0.9.
    assert!((other - (1.0 + 0.3 / 9.0)).abs() < 0.01, "{other}");
}

#[test]
fn hessians_that_cannot_be_factored_are_named() {
    let feedback = |gram: &[f32]| Feedback::new(gram, 2, 0.01, None).map(|feedback| feedback.damping());
    assert!(matches!(feedback(&[1.0, 0.0, 0.0, f32::NAN]), Err(FeedbackError::Diagonal { column: 1, .. })));
    assert!(matches!(feedback(&[0.0; 4]), Err(FeedbackError::Diagonal { column: 0, .. })));
    assert!(matches!(feedback(&[1.0, 9.0, 9.0, 1.0]), Err(FeedbackError::Singular { .. })));
    // Of rank one: damping is enough, and raised where it is not.
    assert_eq!(feedback(&[1.0, 1.0, 1.0, 1.0]), Ok(0.01));
    assert_eq!(feedback(&[1.0, 1.05, 1.05, 1.0]), Ok(0.1));
}

use crate::bound::{self, Bounded, assert_within};
use crate::guard::Guarded;
use crate::rng::Rng;
use pith_format::ActivationFunction;
use pith_kernels::available;

/// Values of one size, of many sizes, tiny ones, huge ones with a common offset.
fn vectors(len: usize, rng: &mut Rng) -> Vec<Vec<f32>> {
    let mixed = (0..len).map(|_| rng.float() * 10.0f32.powi((rng.byte() % 12) as i32 - 6)).collect();
    let offset = rng.floats(len, 1.0).iter().map(|x| 1000.0 + x).collect();
    vec![rng.floats(len, 1.0), mixed, rng.floats(len, 1e-30), rng.floats(len, 1e15), offset, vec![0.0; len]]
}

const LENS: [usize; 11] = [1, 3, 7, 8, 9, 16, 31, 64, 172, 576, 1001];

#[test]
fn norms_hold() {
    for len in LENS {
        let mut rng = Rng::new(400 + len as u64);
        let weight = Guarded::from_slice(&rng.floats(len, 2.0));
        let bias = Guarded::from_slice(&rng.floats(len, 2.0));
        for x in vectors(len, &mut rng) {
            let x = Guarded::from_slice(&x);
            let rms = bound::rms_norm(&x, &weight, 1e-5);
            for kernel in available() {
                let mut out = Guarded::filled(f32::NAN, len);
                kernel.rms_norm(&x, &weight, 1e-5, &mut out);
                assert_within(&format!("{} rms_norm of {len}", kernel.name()), &out, &rms);
            }
            for bias in [None, Some(&bias[..])] {
                let layer = bound::layer_norm(&x, &weight, bias, 1e-5);
                for kernel in available() {
                    let mut out = Guarded::filled(f32::NAN, len);
                    kernel.layer_norm(&x, &weight, bias, 1e-5, &mut out);
                    assert_within(&format!("{} layer_norm of {len}", kernel.name()), &out, &layer);
                }
            }
        }
    }
}

#[test]
fn rope_holds_and_leaves_the_rest_alone() {
    // (heads, head_dim, rotated dimensions)
    for (heads, head_dim, rotated) in [
        (1, 2, 2),
        (3, 8, 8),
        (2, 31, 30),
        (5, 64, 64),
        (2, 80, 32),
        (1, 128, 128),
        (4, 16, 6),
        (2, 8, 0),
        (0, 8, 8),
    ] {
        let mut rng = Rng::new(500 + head_dim as u64);
        let angles = rng.floats(rotated / 2, 100.0);
        let cos = Guarded::from_slice(&angles.iter().map(|a| a.cos()).collect::<Vec<_>>());
        let sin = Guarded::from_slice(&angles.iter().map(|a| a.sin()).collect::<Vec<_>>());
        let x = rng.floats(heads * head_dim, 10.0);
        let expected = bound::rope(&x, head_dim, &cos, &sin);
        for kernel in available() {
            let mut out = Guarded::from_slice(&x);
            kernel.rope(&mut out, head_dim, &cos, &sin);
            assert_within(&format!("{} rope of {heads} × {head_dim}", kernel.name()), &out, &expected);
        }
    }
}

#[test]
fn softmax_holds() {
    let mut rng = Rng::new(600);
    let mut cases = vec![vec![], vec![-3.5], vec![f32::MAX], vec![f32::MAX, -f32::MAX], vec![1.0; 9]];
    for len in [7, 8, 9, 16, 17, 100, 1000] {
        cases.push(rng.floats(len, 10.0));
        cases.push(rng.floats(len, 120.0));
        cases.push(rng.floats(len, 1e30));
        let masked = (0..len).map(|i| if i % 3 == 1 { f32::NEG_INFINITY } else { rng.float() }).collect();
        cases.push(masked);
    }
    cases.push((0..300).map(|i| -0.5 * i as f32).collect());
    cases.push((0..64).map(|i| if i == 63 { 0.0 } else { f32::NEG_INFINITY }).collect());
    for x in cases {
        let expected = bound::softmax(&x);
        for kernel in available() {
            let mut out = Guarded::from_slice(&x);
            kernel.softmax(&mut out);
            assert_within(&format!("{} softmax of {}", kernel.name(), x.len()), &out, &expected);
            for (x, out) in x.iter().zip(out.iter()) {
                assert!(*x != f32::NEG_INFINITY || *out == 0.0, "{}: −∞ became {out}", kernel.name());
            }
        }
    }
}

const FUNCTIONS: [ActivationFunction; 3] =
    [ActivationFunction::Silu, ActivationFunction::Gelu, ActivationFunction::GeluTanh];

/// Arguments where the functions bend, where their powers leave f32, and the tiniest numbers.
fn arguments() -> Vec<f32> {
    let mut x: Vec<f32> = (-1000..=1000).map(|i| i as f32 * 0.1).collect();
    x.extend((-400..=400).map(|i| i as f32 * 0.013));
    x.extend([0.0, -0.0, 1e-10, -1e-10, 1e-38, -1e-38, 1e-40, -1e-40, f32::from_bits(1), 1e-20, -1e-20]);
    x.extend([87.3, 87.4, 88.0, 88.4, 88.7, 88.8, 89.0, 104.0, 1e4, 1e10].iter().flat_map(|&x| [x, -x]));
    x
}

#[test]
fn activations_hold() {
    for function in FUNCTIONS {
        for x in [arguments(), vec![], vec![0.5], vec![-2.0; 7], vec![3.0; 9]] {
            let expected: Vec<_> = x.iter().map(|&x| bound::activation(function, x)).collect();
            for kernel in available() {
                let mut out = Guarded::from_slice(&x);
                kernel.activate(function, &mut out);
                assert_within(&format!("{} {function:?}", kernel.name()), &out, &expected);
            }
        }
    }
}

#[test]
fn gated_activations_hold() {
    for function in FUNCTIONS {
        for len in [0, 1, 8, 13, 172] {
            let mut rng = Rng::new(700 + len as u64);
            let gate = rng.floats(len, 12.0);
            let up = Guarded::from_slice(&rng.floats(len, 50.0));
            let scale = |(&gate, &up): (&f32, &f32)| {
                let Bounded { value, error } = bound::activation(function, gate);
                let value = value * f64::from(up);
                let error = error * f64::from(up).abs() + bound::EPSILON * value.abs() + bound::SMALLEST;
                Bounded { value, error }
            };
            let expected: Vec<_> = gate.iter().zip(up.iter()).map(scale).collect();
            for kernel in available() {
                let mut out = Guarded::from_slice(&gate);
                kernel.activate_gated(function, &mut out, &up);
                assert_within(&format!("{} gated {function:?} of {len}", kernel.name()), &out, &expected);
            }
        }
    }
}

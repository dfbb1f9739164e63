use crate::bound::{self, assert_within};
use crate::guard::Guarded;
use crate::rng::Rng;
use half::f16;
use pith_kernels::{KvRows, available};

/// One cache in every form it can have.
struct Cache {
    head_dim: usize,
    f32: Guarded<f32>,
    f16: Guarded<f16>,
    codes: Guarded<i8>,
    scales: Guarded<f16>,
}

impl Cache {
    fn new(positions: usize, head_dim: usize, limit: f32, rng: &mut Rng) -> Self {
        let len = positions * head_dim;
        let mut codes: Vec<i8> = (0..len).map(|_| rng.byte() as i8).collect();
        if let Some(code) = codes.first_mut() {
            *code = -128;
        }
        Self {
            head_dim,
            f32: Guarded::from_slice(&rng.floats(len, limit)),
            f16: Guarded::from_slice(&rng.halves(len, limit.min(60000.0))),
            codes: Guarded::from_slice(&codes),
            scales: Guarded::from_slice(&rng.halves(positions, (limit / 127.0).min(500.0))),
        }
    }

    fn forms(&self) -> [(&'static str, KvRows<'_>); 3] {
        let head_dim = self.head_dim;
        [
            ("f32", KvRows::F32 { head_dim, rows: &self.f32 }),
            ("f16", KvRows::F16 { head_dim, rows: &self.f16 }),
            ("q8", KvRows::Q8 { head_dim, codes: &self.codes, scales: &self.scales }),
        ]
    }
}

/// `(head_dim, positions, queries, limit)`
const CASES: [(usize, usize, usize, f32); 18] = [
    (4, 1, 1, 1.0),
    (4, 9, 3, 1.0),
    (8, 2, 8, 1.0),
    (8, 300, 1, 1.0),
    (31, 1, 5, 1.0),
    (31, 17, 2, 1.0),
    (31, 64, 7, 1e-6),
    (32, 3, 4, 1.0),
    (32, 65, 1, 1.0),
    (64, 7, 1, 1e4),
    (64, 33, 4, 1.0),
    (64, 300, 6, 1.0),
    (80, 5, 2, 1.0),
    (80, 31, 8, 1.0),
    (128, 16, 3, 1.0),
    (128, 129, 1, 1.0),
    (256, 4, 1, 1.0),
    (256, 19, 5, 1.0),
];

#[test]
fn scores_hold() {
    for (case, (head_dim, positions, count, limit)) in CASES.into_iter().enumerate() {
        let mut rng = Rng::new(200 + case as u64);
        let cache = Cache::new(positions, head_dim, limit, &mut rng);
        let queries = Guarded::from_slice(&rng.floats(count * head_dim, 3.0));
        let scale = 1.0 / (head_dim as f32).sqrt();
        for (form, keys) in cache.forms() {
            let expected: Vec<_> = (0..count * positions)
                .map(|i| {
                    let query = &queries[i / positions * head_dim..][..head_dim];
                    bound::sum(query.iter().enumerate().map(|(dim, &query)| {
                        f64::from(scale) * f64::from(query) * f64::from(keys.get(i % positions, dim))
                    }))
                })
                .collect();
            for kernel in available() {
                let mut out = Guarded::filled(f32::NAN, count * positions);
                kernel.scores(&queries, keys, scale, &mut out);
                let what = format!("{} {form}, {count} queries, {positions} × {head_dim}", kernel.name());
                assert_within(&what, &out, &expected);
            }
        }
    }
}

#[test]
fn mix_holds() {
    for (case, (head_dim, positions, count, limit)) in CASES.into_iter().enumerate() {
        let mut rng = Rng::new(300 + case as u64);
        let cache = Cache::new(positions, head_dim, limit, &mut rng);
        let weights: Vec<f32> = (0..count * positions).map(|_| rng.float().max(0.0)).collect();
        let weights = Guarded::from_slice(&weights);
        for (form, values) in cache.forms() {
            let expected: Vec<_> = (0..count * head_dim)
                .map(|i| {
                    let weights = &weights[i / head_dim * positions..][..positions];
                    bound::sum(weights.iter().enumerate().map(|(position, &weight)| {
                        f64::from(weight) * f64::from(values.get(position, i % head_dim))
                    }))
                })
                .collect();
            for kernel in available() {
                let mut out = Guarded::filled(f32::NAN, count * head_dim);
                kernel.mix(&weights, values, &mut out);
                let what = format!("{} {form}, {count} queries, {positions} × {head_dim}", kernel.name());
                assert_within(&what, &out, &expected);
            }
        }
    }
}

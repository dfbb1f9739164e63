use crate::bound::{self, assert_within};
use crate::guard::Guarded;
use crate::most_kernels;
use crate::rng::Rng;
use half::f16;
use pith_kernels::{
    ATTENTION_SPAN, ATTENTION_TAIL, Attention, AttentionScratch, KV4_BYTES, KV4_GROUP, Kernels, KvRows,
    available,
};
use std::ops::Range;

/// One cache in every storage type.
struct Cache {
    head_dim: usize,
    f32: Guarded<f32>,
    f16: Guarded<f16>,
    codes: Guarded<i8>,
    scales: Guarded<f16>,
    nibbles: Guarded<u8>,
    group_scales: Guarded<f16>,
}

impl Cache {
    fn new(positions: usize, head_dim: usize, limit: f32, rng: &mut Rng) -> Self {
        let len = positions * head_dim;
        let mut codes: Vec<i8> = (0..len).map(|_| rng.byte() as i8).collect();
        if let Some(code) = codes.first_mut() {
            *code = -128;
        }
        let groups = positions * head_dim.div_ceil(KV4_GROUP);
        let nibbles: Vec<u8> = (0..groups * KV4_BYTES).map(|_| rng.byte()).collect();
        Self {
            head_dim,
            f32: Guarded::from_slice(&rng.floats(len, limit)),
            f16: Guarded::from_slice(&rng.halves(len, limit.min(60000.0))),
            codes: Guarded::from_slice(&codes),
            scales: Guarded::from_slice(&rng.halves(positions, (limit / 127.0).min(500.0))),
            nibbles: Guarded::from_slice(&nibbles),
            group_scales: Guarded::from_slice(&rng.halves(groups, (limit / 127.0).min(500.0))),
        }
    }

    fn forms(&self) -> [(&'static str, KvRows<'_>); 4] {
        let head_dim = self.head_dim;
        [
            ("f32", KvRows::F32 { head_dim, rows: &self.f32 }),
            ("f16", KvRows::F16 { head_dim, rows: &self.f16 }),
            ("q8", KvRows::Q8 { head_dim, codes: &self.codes, scales: &self.scales }),
            ("q4", KvRows::Q4 { head_dim, codes: &self.nibbles, scales: &self.group_scales }),
        ]
    }
}

/// `(head_dim, positions, queries, limit)`
const CASES: [(usize, usize, usize, f32); 19] = [
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
    (112, 70, 6, 1.0),
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

/// Shape of a whole call: its tokens are the last of `positions`.
#[derive(Clone, Copy, Debug)]
struct Shape {
    head_dim: usize,
    positions: usize,
    group: usize,
    tokens: usize,
    window: usize,
    softcap: Option<f32>,
}

const SHAPES: [Shape; 17] = {
    const fn shape(head_dim: usize, positions: usize, group: usize, tokens: usize) -> Shape {
        Shape { head_dim, positions, group, tokens, window: usize::MAX, softcap: None }
    }
    [
        shape(4, 1, 1, 1),
        shape(8, 9, 3, 9),
        shape(12, 70, 2, 5),
        shape(31, 16, 5, 1),
        shape(31, 300, 1, 50),
        shape(64, 64, 4, 12),
        shape(64, 600, 4, 1),
        shape(64, 515, 3, 17),
        shape(80, 130, 8, 8),
        shape(128, 257, 49, 2),
        shape(48, 70, 7, 2),
        shape(112, 300, 5, 1),
        shape(288, 20, 2, 1),
        shape(256, 40, 6, 3),
        Shape { window: 37, ..shape(64, 560, 2, 25) },
        Shape { window: 1, softcap: Some(3.0), ..shape(20, 290, 7, 8) },
        Shape { window: 300, softcap: Some(50.0), ..shape(96, 330, 3, 40) },
    ]
};

impl Shape {
    fn task<'a>(&self, keys: KvRows<'a>, values: KvRows<'a>, queries: &'a [f32]) -> Attention<'a> {
        Attention {
            keys,
            values,
            start: 0,
            queries,
            // The stride leaves room for a second key head.
            stride: 2 * self.group * self.head_dim,
            group: self.group,
            first: self.positions - self.tokens,
            tokens: self.tokens,
            window: self.window,
            scale: 1.0 / (self.head_dim as f32).sqrt(),
            softcap: self.softcap,
            few: false,
            next: None,
        }
    }
}

/// `task` restricted to some of its tokens and to the run with this index.
fn part<'a>(task: &Attention<'a>, tokens: Range<usize>, run: usize) -> Option<Attention<'a>> {
    let seen = task.visible(tokens.start).start..task.visible(tokens.end - 1).end;
    let run = seen.start.max(run * ATTENTION_SPAN)..seen.end.min((run + 1) * ATTENTION_SPAN);
    (!run.is_empty()).then(|| Attention {
        keys: task.keys.slice(run.clone()),
        values: task.values.slice(run.clone()),
        start: run.start,
        queries: &task.queries[tokens.start * task.stride..],
        first: task.first + tokens.start,
        tokens: tokens.len(),
        ..*task
    })
}

/// Records of some tokens over all runs, concatenated or merged.
fn records(kernel: &dyn Kernels, task: &Attention<'_>, tokens: Range<usize>, merged: bool) -> Vec<f32> {
    let mut scratch = AttentionScratch::new(task.keys.head_dim());
    let mut total = vec![0.0; tokens.len() * task.group * task.record_len()];
    for run in 0..task.keys.positions().div_ceil(ATTENTION_SPAN) {
        let Some(part) = part(task, tokens.clone(), run) else { continue };
        if !merged {
            kernel.attention(&part, &mut scratch, &mut total);
            continue;
        }
        let mut records = Guarded::filled(0.0, total.len());
        kernel.attention(&part, &mut scratch, &mut records);
        kernel.merge_attention(task.keys.head_dim(), &records, &mut total);
    }
    total
}

/// Queries as [`Shape::task`] expects them: the slice ends behind the last token's.
fn queries(shape: Shape, rng: &mut Rng) -> Guarded<f32> {
    let len = (2 * shape.tokens - 1) * shape.group * shape.head_dim;
    Guarded::from_slice(&rng.floats(len, 3.0))
}

#[test]
fn attention_holds() {
    for (case, shape) in SHAPES.into_iter().enumerate() {
        let mut rng = Rng::new(400 + case as u64);
        let keys = Cache::new(shape.positions, shape.head_dim, 1.0, &mut rng);
        let values = Cache::new(shape.positions, shape.head_dim, 2.0, &mut rng);
        let queries = queries(shape, &mut rng);
        for ((form, keys), (_, values)) in keys.forms().into_iter().zip(values.forms()) {
            let task = shape.task(keys, values, &queries);
            let expected = bound::attention(&task);
            let ways = most_kernels().into_iter().flat_map(|kernel| [(kernel, false), (kernel, true)]);
            for (kernel, few) in ways {
                let task = Attention { few, ..task };
                let records = records(kernel, &task, 0..shape.tokens, false);
                let found: Vec<f32> = records
                    .chunks_exact(task.record_len())
                    .flat_map(|record| {
                        let (mixed, [_, sum]) = record.split_last_chunk::<ATTENTION_TAIL>().unwrap();
                        mixed.iter().map(move |mixed| mixed / sum)
                    })
                    .collect();
                assert_within(&format!("{} {form}, {shape:?}, few: {few}", kernel.name()), &found, &expected);
            }
        }
    }
}

/// A token's result must not depend on the tokens computed with it, nor on how runs are divided
/// among calls.
#[test]
fn attention_is_the_same_however_it_is_cut() {
    for (case, shape) in SHAPES.into_iter().enumerate() {
        let mut rng = Rng::new(500 + case as u64);
        let cache = Cache::new(shape.positions, shape.head_dim, 1.0, &mut rng);
        let queries = queries(shape, &mut rng);
        for (form, rows) in cache.forms() {
            let task = shape.task(rows, rows, &queries);
            let ways = most_kernels().into_iter().flat_map(|kernel| [(kernel, false), (kernel, true)]);
            for (kernel, few) in ways {
                let task = Attention { few, next: few.then_some(rows), ..task };
                let what = format!("{} {form}, {shape:?}, few: {few}", kernel.name());
                let whole = records(kernel, &task, 0..shape.tokens, false);
                assert!(whole == records(kernel, &task, 0..shape.tokens, true), "{what}, merged");
                let token_len = task.group * task.record_len();
                for (token, expected) in whole.chunks_exact(token_len).enumerate() {
                    let alone = records(kernel, &task, token..token + 1, false);
                    assert!(expected == alone, "{what}, token {token}");
                }
            }
        }
    }
}

#[test]
fn positions_out_of_sight_leave_records_as_they_are() {
    let (head_dim, positions) = (16, 40);
    let mut rng = Rng::new(600);
    let cache = Cache::new(positions, head_dim, 1.0, &mut rng);
    let queries = rng.floats(head_dim, 1.0);
    let shape = Shape { head_dim, positions, group: 1, tokens: 1, window: 30, softcap: None };
    for (form, rows) in cache.forms() {
        for (start, first) in [(41, 40), (0, 70), (500, 3)] {
            let task = Attention { start, first, ..shape.task(rows, rows, &queries) };
            for kernel in available() {
                let mut records: Vec<f32> = (0..head_dim + ATTENTION_TAIL).map(|i| i as f32).collect();
                let before = records.clone();
                kernel.attention(&task, &mut AttentionScratch::new(head_dim), &mut records);
                assert_eq!(records, before, "{} {form}, {first} from {start}", kernel.name());
            }
        }
    }
}

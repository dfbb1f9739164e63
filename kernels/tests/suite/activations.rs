use crate::guard::Guarded;
use crate::rng::Rng;
use pith_kernels::{ACTIVATION_GROUP, available, reference};

/// Groups with difficult rounding.
fn groups() -> Vec<(&'static str, Vec<f32>)> {
    let mut rng = Rng::new(11);
    let group = |f: &mut dyn FnMut(usize) -> f32| (0..ACTIVATION_GROUP).map(f).collect::<Vec<f32>>();
    let smallest_scale = 127.0 * f32::MIN_POSITIVE;
    vec![
        ("zeros", group(&mut |_| 0.0)),
        ("negative zeros", group(&mut |_| -0.0)),
        ("random", group(&mut |_| rng.float())),
        ("ties", group(&mut |i| if i == 0 { 127.0 } else { i as f32 - 15.5 })),
        ("negative extreme", group(&mut |i| if i == 31 { -508.0 } else { i as f32 * 2.0 })),
        ("all the largest", group(&mut |i| if i % 2 == 0 { f32::MAX } else { -f32::MAX })),
        ("subnormals", group(&mut |i| f32::from_bits(i as u32 * 1000 + 1))),
        ("smallest scale", group(&mut |i| smallest_scale * (i as f32 / 31.0))),
        ("below the smallest scale", group(&mut |i| smallest_scale.next_down() * (i as f32 / 31.0))),
        ("one outlier", group(&mut |i| if i == 7 { 1e20 } else { 1e-20 * i as f32 })),
        ("near ties", group(&mut |i| if i == 0 { 1.0 } else { (i as f32 - 0.5) / 127.0 })),
    ]
}

#[test]
fn quantize_gives_the_same_bits_everywhere() {
    let mut cases: Vec<_> = groups();
    let together = cases.iter().flat_map(|(_, values)| values.clone()).collect();
    cases.push(("all groups", together));
    cases.push(("no group", Vec::new()));
    for seed in 0..8 {
        let mut rng = Rng::new(100 + seed);
        let limit = 10.0f32.powi(seed as i32 * 9 - 30);
        cases.push(("random", rng.floats(ACTIVATION_GROUP * (seed as usize + 1), limit)));
    }
    for (name, x) in cases {
        let (x, group_count) = (Guarded::from_slice(&x), x.len() / ACTIVATION_GROUP);
        let mut expected = (vec![1i8; x.len()], vec![9.0f32; group_count], vec![9i32; group_count]);
        reference::quantize(&x, &mut expected.0, &mut expected.1, &mut expected.2);
        for kernel in available() {
            let mut codes = Guarded::filled(1i8, x.len());
            let mut scales = Guarded::filled(9.0f32, group_count);
            let mut sums = Guarded::filled(9i32, group_count);
            kernel.quantize(&x, &mut codes, &mut scales, &mut sums);
            let what = format!("{}, {name}", kernel.name());
            assert_eq!(codes[..], expected.0, "codes, {what}");
            let bits = |scales: &[f32]| scales.iter().map(|scale| scale.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&scales), bits(&expected.1), "scales, {what}");
            assert_eq!(sums[..], expected.2, "sums, {what}");
        }
    }
}

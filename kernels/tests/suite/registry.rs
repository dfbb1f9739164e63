use pith_kernels::{available, best, by_name};

#[test]
fn names_are_unique_and_lead_back() {
    let kernels = available();
    println!("available: {}", kernels.iter().map(|kernels| kernels.name()).collect::<Vec<_>>().join(", "));
    for (index, kernel) in kernels.iter().enumerate() {
        assert_eq!(by_name(kernel.name()).map(|found| found.name()), Some(kernel.name()));
        assert!(kernels[..index].iter().all(|earlier| earlier.name() != kernel.name()), "{}", kernel.name());
    }
    assert!(by_name("abacus").is_none());
}

#[test]
fn the_best_is_the_last() {
    assert_eq!(best().name(), available().last().unwrap().name());
    assert_eq!(
        available()[..2].iter().map(|kernels| kernels.name()).collect::<Vec<_>>(),
        ["reference", "portable"]
    );
}

/// Every feature of the CPU must be used.
#[test]
#[cfg(target_arch = "x86_64")]
fn detected_instruction_sets_are_available() {
    let names: Vec<_> = available().iter().map(|kernels| kernels.name()).collect();
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    assert_eq!(names.contains(&"avx2"), avx2, "{names:?}");
    assert_eq!(names.contains(&"avx-vnni"), avx2 && is_x86_feature_detected!("avxvnni"), "{names:?}");
    assert_eq!(names.contains(&"avx512-vnni"), avx2 && avx512, "{names:?}");
}

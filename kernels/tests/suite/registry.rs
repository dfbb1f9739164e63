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

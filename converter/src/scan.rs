//! Search in the weights of a matrix.

use rayon::prelude::*;

/// Weights that a thread looks at without a branch, before it looks for the one among them.
const RUN: usize = 4096;

/// Index of the first weight for which `is_wrong` holds, found on all cores.
pub(crate) fn first_index(weights: &[f32], is_wrong: impl Fn(f32) -> bool + Sync) -> Option<usize> {
    let runs = weights.par_chunks(RUN).enumerate();
    runs.find_map_first(|(run, weights)| {
        let any = weights.iter().fold(false, |any, &weight| any | is_wrong(weight));
        any.then(|| {
            let within = weights.iter().position(|&weight| is_wrong(weight)).expect("one of them is");
            run * RUN + within
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_is_found() {
        let mut weights = vec![1.0; 3 * RUN + 5];
        assert_eq!(first_index(&weights, |weight| !weight.is_finite()), None);
        for at in [3 * RUN + 4, 2 * RUN, RUN + 17, RUN - 1, 0] {
            weights[at] = f32::NAN;
            assert_eq!(first_index(&weights, |weight| !weight.is_finite()), Some(at));
        }
        assert_eq!(first_index(&[], |_| true), None);
    }
}

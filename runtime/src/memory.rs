//! Large allocations that fail with an error instead of ending the process.

use crate::error::RuntimeError;

/// `count` default values (zeros), fresh from the system where possible: pages that are never touched take no memory.
///
/// Asks for the room first, since `vec!` aborts where there is none.
pub(crate) fn zeros<T: Default + Clone>(what: &'static str, count: usize) -> Result<Vec<T>, RuntimeError> {
    probe(what, count.checked_mul(size_of::<T>()))?;
    Ok(vec![T::default(); count])
}

/// Whether the system gives `bytes` in one piece; `None` is a number that overflowed.
pub(crate) fn probe(what: &'static str, bytes: Option<usize>) -> Result<(), RuntimeError> {
    let refused = || RuntimeError::Memory { what, bytes: bytes.map_or(u64::MAX, |bytes| bytes as u64) };
    Vec::<u8>::new().try_reserve_exact(bytes.ok_or_else(refused)?).map_err(|_| refused())
}

/// The product, `None` where it overflows.
pub(crate) fn product(factors: &[usize]) -> Option<usize> {
    factors.iter().try_fold(1usize, |product, &factor| product.checked_mul(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_does_not_give_is_an_error() {
        let error = zeros::<f32>("the test", usize::MAX / 8).unwrap_err().to_string();
        assert!(error.starts_with("the test needs"), "{error}");
        let error = zeros::<f32>("the test", usize::MAX / 2).unwrap_err().to_string();
        assert!(error.contains(&u64::MAX.to_string()), "{error}");
        assert_eq!(zeros::<u16>("the test", 3).unwrap(), [0; 3]);
        assert_eq!((product(&[3, 4]), product(&[usize::MAX, 2])), (Some(12), None));
    }
}

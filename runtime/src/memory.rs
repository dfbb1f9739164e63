//! Large allocations that fail with an error instead of ending the process.

use crate::error::RuntimeError;
use bytemuck::Pod;
#[cfg(any(unix, windows))]
use memmap2::MmapMut;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// Zeros in fresh pages: untouched pages take no memory, regardless of earlier use of the
/// allocator. Where the system has no such call, the allocator provides them.
#[derive(Debug)]
pub(crate) struct Zeros<T> {
    #[cfg(any(unix, windows))]
    pages: MmapMut,
    /// Words, for an alignment that suits any number.
    #[cfg(not(any(unix, windows)))]
    pages: Vec<u64>,
    len: usize,
    values: PhantomData<T>,
}

impl<T: Pod> Zeros<T> {
    /// `count` zeros, at least one.
    pub fn new(what: &'static str, count: usize) -> Result<Self, RuntimeError> {
        const { assert!(align_of::<T>() <= align_of::<u64>()) };
        let len = count.max(1);
        let bytes = len.checked_mul(size_of::<T>());
        let refused = || RuntimeError::Memory { what, bytes: bytes.map_or(u64::MAX, |bytes| bytes as u64) };
        // The system's calls take a signed length.
        let bytes = bytes.filter(|&bytes| isize::try_from(bytes).is_ok()).ok_or_else(refused)?;
        #[cfg(any(unix, windows))]
        let pages = MmapMut::map_anon(bytes).map_err(|_| refused())?;
        #[cfg(not(any(unix, windows)))]
        let pages = zeros(what, bytes.div_ceil(size_of::<u64>()))?;
        Ok(Self { pages, len, values: PhantomData })
    }

    /// Asks for large pages; call before touching them. Advice: where the system refuses, pages
    /// stay small.
    pub fn prefer_large_pages(&self) {
        #[cfg(target_os = "linux")]
        let _ = self.pages.advise(memmap2::Advice::HugePage);
    }
}

impl<T: Pod> Deref for Zeros<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.pages)[..self.len]
    }
}

impl<T: Pod> DerefMut for Zeros<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.pages)[..self.len]
    }
}

/// `count` default values (zeros), fresh from the system where possible: untouched pages take no
/// memory.
///
/// Tests the allocation first, since `vec!` aborts on failure.
pub(crate) fn zeros<T: Default + Clone>(what: &'static str, count: usize) -> Result<Vec<T>, RuntimeError> {
    probe(what, count.checked_mul(size_of::<T>()))?;
    Ok(vec![T::default(); count])
}

/// Fails if the system does not give `bytes` in one piece. `None` stands for a size that
/// overflowed.
pub(crate) fn probe(what: &'static str, bytes: Option<usize>) -> Result<(), RuntimeError> {
    let refused = || RuntimeError::Memory { what, bytes: bytes.map_or(u64::MAX, |bytes| bytes as u64) };
    Vec::<u8>::new().try_reserve_exact(bytes.ok_or_else(refused)?).map_err(|_| refused())
}

/// The product; `None` on overflow.
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
        let error = Zeros::<f32>::new("the test", usize::MAX / 2).unwrap_err().to_string();
        assert!(error.starts_with("the test needs"), "{error}");
        let error = Zeros::<f32>::new("the test", usize::MAX / 8).unwrap_err().to_string();
        assert!(error.starts_with("the test needs"), "{error}");
        assert_eq!(*Zeros::<u16>::new("the test", 3).unwrap(), [0; 3]);
        assert_eq!((product(&[3, 4]), product(&[usize::MAX, 2])), (Some(12), None));
    }
}

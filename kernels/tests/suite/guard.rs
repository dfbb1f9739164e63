//! Slices that end exactly where an unreadable page begins.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// `len` values, followed directly by a page that can be neither read nor written.
pub struct Guarded<T: Copy> {
    base: *mut libc::c_void,
    mapped_bytes: usize,
    data: *mut T,
    len: usize,
    owner: PhantomData<T>,
}

impl<T: Copy> Guarded<T> {
    pub fn from_slice(values: &[T]) -> Self {
        let data_bytes = size_of_val(values);
        // SAFETY: sysconf reads a constant of the system.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let body_bytes = data_bytes.next_multiple_of(page_bytes);
        let mapped_bytes = body_bytes + page_bytes;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
        // SAFETY: a fresh anonymous mapping touches no existing memory.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped_bytes, protection, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        let guard = base.wrapping_byte_add(body_bytes);
        // SAFETY: `guard` is the last page of the mapping just made; nothing points there.
        let result = unsafe { libc::mprotect(guard, page_bytes, libc::PROT_NONE) };
        assert_eq!(result, 0, "mprotect: {}", std::io::Error::last_os_error());
        let data = guard.wrapping_byte_sub(data_bytes).cast::<T>();
        assert!(data.is_aligned(), "the size of T is a multiple of its alignment, and pages are aligned");
        // SAFETY: `data` is aligned and has room for `values` before the guard; the mapping is new,
        // so no overlap.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), data, values.len()) };
        Self { base, mapped_bytes, data, len: values.len(), owner: PhantomData }
    }

    pub fn filled(value: T, len: usize) -> Self {
        Self::from_slice(&vec![value; len])
    }
}

impl<T: Copy> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `data` holds `len` initialised values until drop (see `from_slice`).
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}

impl<T: Copy> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data, self.len) }
    }
}

impl<T: Copy> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: `base` and `mapped_bytes` are the mapping made in `from_slice`, unmapped only
        // here.
        unsafe { libc::munmap(self.base, self.mapped_bytes) };
    }
}

//! Functions that are inlined wherever they are called.

/// A function for callers with the CPU features of its module, always inlined into them.
///
/// `#[inline(always)]` does not go with `#[target_feature]`, and with `#[inline]` alone the compiler
/// may decide otherwise for a reason elsewhere: a call in the loop over groups halves the speed of a
/// kernel. So the features are those of the caller.
macro_rules! inlined {
    ($(#[$meta:meta])* $vis:vis fn $($rest:tt)*) => {
        inlined!(@ [$(#[$meta])* #[inline(always)] #[allow(unused_unsafe)] $vis fn] $($rest)*);
    };
    (@ [$($head:tt)*] { $($body:tt)* }) => {
        // SAFETY: kernels of an instruction set are reached through a value that exists only where
        // its features were found.
        $($head)* { unsafe { $($body)* } }
    };
    (@ [$($head:tt)*] $next:tt $($rest:tt)*) => {
        inlined!(@ [$($head)* $next] $($rest)*);
    };
}

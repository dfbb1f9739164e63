//! Who wants to hear how far an evaluation is.

/// Hears how far an evaluation is; `()` does not listen.
pub trait Progress {
    /// `total` pieces, windows or items, will be done.
    fn begin(&self, total: u64);
    /// One piece is done.
    fn advance(&self);
}

impl Progress for () {
    fn begin(&self, _: u64) {}
    fn advance(&self) {}
}

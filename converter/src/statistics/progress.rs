//! What a run over a text says while it runs.

/// Hears how far a calibration is.
pub trait CalibrationProgress: Sync {
    /// A step of that name begins, of so many tokens.
    fn begin(&self, _step: &str, _tokens: u64) {}
    /// So many more tokens of the step are done.
    fn advance(&self, _tokens: u64) {}
    /// Whether to stop; asked between sequences.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// Hears nothing.
impl CalibrationProgress for () {}

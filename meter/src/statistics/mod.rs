//! Means, shares and differences, with their uncertainty.
//!
//! | type | of | uncertainty |
//! |---|---|---|
//! | [`Interval`] | repeated measurements of one thing | Student's t |
//! | [`Ratio`] | consecutive parts of one run | ratio estimator over windows |
//! | [`Estimate`], [`Spread`] | many independent values | standard error, percentiles |
//! | [`Share`] | yes-or-no cases | Wilson's interval |
//! | [`MedianRange`] | a few measurements on a busy machine | the ends |
//!
//! [`compare`] compares two variants measured in turns, [`mcnemar`] two models on the same cases.

mod interval;
mod ratio;
mod share;
mod spread;
mod student;

pub use interval::{Comparison, Interval, compare};
pub use ratio::{MAX_WINDOWS, Ratio};
pub use share::{Share, mcnemar};
pub use spread::{Estimate, MedianRange, Spread, percentile};
pub use student::{NORMAL_95, student_95};

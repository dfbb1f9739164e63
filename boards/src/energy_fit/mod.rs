//! Energy calibration: the energy of a byte, an operation and a second on this machine.

mod fit;
mod save;
mod table;

pub use fit::{Alternative, Coefficient, Fit, Observation, Residual, Term, fit};
pub use save::{OWN_PROFILE, OwnProfile, read_model, write_profile};
pub use table::read_table;

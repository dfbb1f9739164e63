//! Ctrl-C: the first asks the running work to stop, the second ends the program.

use std::sync::atomic::{AtomicUsize, Ordering};

static PRESSED: AtomicUsize = AtomicUsize::new(0);

/// The exit code of a program stopped by Ctrl-C.
pub const EXIT_CODE: u8 = 130;

/// Counts Ctrl-C from now on; the first one no longer ends the program.
pub fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if PRESSED.fetch_add(1, Ordering::Relaxed) > 0 {
            std::process::exit(EXIT_CODE.into());
        }
    })?;
    Ok(())
}

/// Whether Ctrl-C was pressed since [`clear`].
pub fn pressed() -> bool {
    PRESSED.load(Ordering::Relaxed) > 0
}

/// Resets the count.
pub fn clear() {
    PRESSED.store(0, Ordering::Relaxed);
}

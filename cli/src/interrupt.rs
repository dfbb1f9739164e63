//! Ctrl-C, and the signals that end a program: the first asks the running work to stop, the second
//! ends the program.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

static PRESSED: AtomicUsize = AtomicUsize::new(0);

/// The number of the signal that asked the program to end; 0 is none.
static ENDED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// The exit code of a program stopped by Ctrl-C.
const EXIT_CODE: u8 = 130;

/// Counts Ctrl-C from now on; the first one no longer ends the program.
pub fn listen() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if PRESSED.fetch_add(1, Ordering::Relaxed) > 0 {
            std::process::exit(EXIT_CODE.into());
        }
    })?;
    Ok(())
}

/// [`listen`], and the same for the signals TERM and HUP, for work that leaves files behind where
/// it is not stopped in order.
pub fn listen_to_the_end() -> anyhow::Result<()> {
    listen()?;
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGTERM};
        use signal_hook::flag;
        let again = Arc::new(std::sync::atomic::AtomicBool::new(false));
        for signal in [SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register_usize(signal, Arc::clone(&ENDED), signal as usize)?;
        }
    }
    Ok(())
}

/// Whether Ctrl-C was pressed since [`clear`], or the program was asked to end.
pub fn pressed() -> bool {
    PRESSED.load(Ordering::Relaxed) > 0 || ENDED.load(Ordering::Relaxed) > 0
}

/// The exit code of a program that was stopped.
pub fn exit_code() -> u8 {
    match ENDED.load(Ordering::Relaxed) {
        0 => EXIT_CODE,
        signal => 128 + signal as u8,
    }
}

/// Resets the count.
pub fn clear() {
    PRESSED.store(0, Ordering::Relaxed);
}

//! Progress on standard error.

use crate::interrupt;
use indicatif::{ProgressBar, ProgressStyle};
use pith_converter::statistics::CalibrationProgress;
use pith_search::SearchProgress;
use std::time::Duration;

/// Shows each step of some work.
pub struct Bar {
    bar: ProgressBar,
    hidden: bool,
    /// Shown beside the bar instead of the names of steps.
    name: Option<String>,
}

impl Bar {
    /// A bar that shows nothing yet, and nothing ever where it is `hidden`.
    pub fn new(hidden: bool) -> Self {
        Self {
            bar: if hidden { ProgressBar::hidden() } else { ProgressBar::no_length() },
            hidden,
            name: None,
        }
    }

    /// A bar that shows `name`, such as a file's, and not the names of steps.
    pub fn named(hidden: bool, name: String) -> Self {
        let mut bar = Self::new(hidden);
        bar.name = Some(name);
        bar
    }

    /// Shows that something of unknown length goes on.
    pub fn spin(&self, message: &str) {
        self.style("{msg} {spinner}");
        self.bar.set_message(message.to_string());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    /// Takes it from the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn style(&self, template: &str) {
        self.bar.set_style(ProgressStyle::with_template(template).expect("a template of known fields"));
    }

    fn start(&self, template: &str, total: u64) {
        self.bar.disable_steady_tick();
        self.style(template);
        self.bar.reset();
        self.bar.set_length(total);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

impl pith_converter::Progress for Bar {
    fn begin(&self, total_bytes: u64) {
        self.start("{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}", total_bytes);
    }

    fn tensor(&self, name: &str) {
        self.bar.set_message(name.to_string());
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn is_interrupted(&self) -> bool {
        interrupt::pressed()
    }
}

impl CalibrationProgress for Bar {
    fn begin(&self, step: &str, tokens: u64) {
        self.start("{msg:16} {bar:32} {human_pos}/{human_len} tokens {per_sec} {eta}", tokens);
        self.bar.set_message(step.to_string());
    }

    fn advance(&self, tokens: u64) {
        self.bar.inc(tokens);
    }

    fn is_interrupted(&self) -> bool {
        interrupt::pressed()
    }
}

impl pith_format::Progress for Bar {
    fn begin(&self, step: &str, total: u64, _unit: pith_format::Unit) {
        self.start("{bar:32} {pos}/{len} {eta} {wide_msg}", total);
        self.bar.set_message(self.name.clone().unwrap_or_else(|| step.to_string()));
    }

    fn advance(&self, count: u64) {
        self.bar.inc(count);
    }
}

impl SearchProgress for Bar {
    fn say(&self, line: &str) {
        if !self.hidden {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    fn begin_step(&self, step: &str, total: u64) {
        self.start("{msg:20} {bar:32} {pos}/{len} {eta}", total);
        self.bar.set_message(step.to_string());
    }

    fn advance_step(&self) {
        self.bar.inc(1);
    }
}

//! Progress on standard error.

use crate::interrupt;
use indicatif::{ProgressBar, ProgressStyle};
use pith_format::{Progress, Unit};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

/// Shows each step of a task.
pub struct Bar {
    bar: ProgressBar,
    hidden: bool,
    /// Shown beside the bar instead of the names of steps.
    name: Option<String>,
    /// The kind of the last step that was printed, where lines stand for the bar.
    phase: Mutex<Option<String>>,
}

impl Bar {
    /// An empty bar; a `hidden` one never shows anything.
    pub fn new(hidden: bool) -> Self {
        Self {
            bar: if hidden { ProgressBar::hidden() } else { ProgressBar::no_length() },
            hidden,
            name: None,
            phase: Mutex::new(None),
        }
    }

    /// From now on each kind of step is a line, where standard error is no terminal that shows the bar.
    pub fn name_phases(&self) {
        if !self.hidden && !std::io::stderr().is_terminal() {
            *self.phase.lock().expect("nothing panics under this lock") = Some(String::new());
        }
    }

    /// Prints a step of another kind than the last.
    fn print_phase(&self, step: &str) {
        let mut phase = self.phase.lock().expect("nothing panics under this lock");
        let kind = step.split(' ').next().unwrap_or_default();
        if let Some(last) = phase.as_mut().filter(|last| *last != kind) {
            eprintln!("{step}");
            *last = kind.into();
        }
    }

    /// A bar that shows `name`, such as a file's, instead of the names of steps.
    pub fn named(hidden: bool, name: String) -> Self {
        let mut bar = Self::new(hidden);
        bar.name = Some(name);
        bar
    }

    /// Shows progress of unknown length.
    pub fn spin(&self, message: &str) {
        self.style("{msg} {spinner}");
        self.bar.set_message(message.to_string());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    /// Removes the bar from the screen.
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

impl Progress for Bar {
    fn begin(&self, step: &str, total: u64, unit: Unit) {
        let template = match unit {
            Unit::Bytes => "{bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}",
            Unit::Tokens => "{msg:16} {bar:32} {human_pos}/{human_len} tokens {per_sec} {eta}",
            Unit::Windows | Unit::Items => "{bar:32} {pos}/{len} {eta} {wide_msg}",
            Unit::Rounds => "{msg:20} {bar:32} {pos}/{len} {eta}",
        };
        self.print_phase(step);
        self.start(template, total);
        self.bar.set_message(self.name.clone().unwrap_or_else(|| step.to_string()));
    }

    fn item(&self, name: &str) {
        self.bar.set_message(name.to_string());
    }

    fn advance(&self, count: u64) {
        self.bar.inc(count);
    }

    fn say(&self, line: &str) {
        if !self.hidden {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    fn is_interrupted(&self) -> bool {
        interrupt::pressed()
    }
}

//! The choice between a mapped file and a copy in large pages.
//!
//! Decoding reads all weights for every token. In pages of 4 KiB that is an address translation for
//! every 64 lines, and each may read memory itself. Large pages make most of them unnecessary. Few
//! systems have them for files, most have them for other memory.

use crate::error::RuntimeError;
use crate::model::Model;
use crate::options::SessionOptions;
use crate::placement::Placement;
use crate::storage::{Pages, Reason, has_large_pages, large_bytes};

/// Smaller files are not worth a copy: they fit caches, or nearly.
const MIN_BYTES: u64 = 32 << 20;

/// Places of a file whose pages are looked at.
const SAMPLES: usize = 32;

/// A large page.
const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// Memory that stays free beside a copy is at least this part of it.
const SPARE_SHARE: u64 = 4;

impl Model {
    /// Copies a mapped model into large pages where tokens then cost less time: where the system
    /// has large pages, not already for the file, and a session with these options fits
    /// [its memory limit](SessionOptions::memory) beside the copy, with a quarter of the copy to
    /// spare. Otherwise the model stays as it is. [`Model::pages`] says what was done and why.
    /// Results are the same.
    ///
    /// Takes as long as reading the file once. The copy is not shared with other processes, and
    /// later changes to the file do not matter to it.
    ///
    /// Fails where reading the file fails, or the options do not suit the model.
    pub fn prefer_large_pages(self, options: &SessionOptions) -> Result<Self, RuntimeError> {
        if !self.storage().is_mapped() {
            return Ok(self);
        }
        if let Some(reason) = self.reason_to_stay(options)? {
            return Ok(self.in_pages(Pages::Mapped(reason)));
        }
        match self.copied() {
            Err((model, RuntimeError::Memory { .. })) => Ok(model.in_pages(Pages::Mapped(Reason::Refused))),
            copied => copied.map_err(|(_, error)| error),
        }
    }

    fn reason_to_stay(&self, options: &SessionOptions) -> Result<Option<Reason>, RuntimeError> {
        let bytes = self.bytes().len() as u64;
        if bytes < MIN_BYTES {
            return Ok(Some(Reason::Small));
        }
        if !has_large_pages() {
            return Ok(Some(Reason::NoLargePages));
        }
        let Some(limit) = options.memory else { return Ok(Some(Reason::NoLimit)) };
        let plan = Placement::new(self, &SessionOptions { memory: None, ..options.clone() })?;
        let session = plan.kv_bytes.saturating_add(plan.working_bytes);
        let needed = session.saturating_add(bytes + bytes / SPARE_SHARE);
        if needed > limit {
            return Ok(Some(Reason::Memory { needed, limit }));
        }
        Ok(self.is_in_large_pages().then_some(Reason::LargeAlready))
    }

    /// Whether nearly all of a mapped file is in large pages, by the pages of a few places.
    fn is_in_large_pages(&self) -> bool {
        self.ask_for_large_pages(true);
        let bytes = self.bytes();
        let places = bytes.len() / SAMPLES;
        (0..SAMPLES).for_each(|sample| self.storage().touch(sample * places..sample * places + 1));
        let large = large_bytes(bytes).unwrap_or(0);
        large >= SAMPLES as u64 * LARGE_PAGE_BYTES * 7 / 8
    }
}

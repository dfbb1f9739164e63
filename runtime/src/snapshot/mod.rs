//! Sessions on disk, and prefixes shared in memory: what was computed once is not computed again.
//!
//! `docs/format.md` has the file. The logits of the last token are saved with it, where the session has them: they
//! cost as much room as a few tokens, and computing them again would read the whole model and could round otherwise
//! than the call that gave them did.

mod file;
mod header;

use crate::error::RuntimeError;
use crate::session::Session;
use file::{Limit, Verified, Writer, positions_a_chunk};
use header::{Header, Identity};
use std::path::Path;

impl Session {
    /// Saves the sequence: tokens, keys, values, and the logits of what follows. Returns the file's length in bytes.
    ///
    /// The file appears under its name when it is whole and on the disk; until then another of that name stays.
    pub fn save(&self, path: &Path) -> Result<u64, RuntimeError> {
        self.save_prefix(path, self.position())
    }

    /// [`Session::save`] for the first `count` tokens. Panics if there are not as many.
    ///
    /// Logits are in the file only where `count` is the whole sequence and its last call gave them, exact ones.
    pub fn save_prefix(&self, path: &Path, count: usize) -> Result<u64, RuntimeError> {
        assert!(count <= self.position(), "{count} of {} tokens", self.position());
        let current = count > 0 && count == self.position() && count == self.logits_position;
        // Logits of two stages are not for a session that wants exact ones.
        let with_logits = current && !self.head.is_staged();
        let logits = if with_logits { &self.logits[..] } else { &[] };
        let mut writer = Writer::create(path)?;
        for token in &self.tokens[..count] {
            writer.put(&token.to_le_bytes())?;
        }
        for logit in logits {
            writer.put(&logit.to_le_bytes())?;
        }
        for cache in &self.caches {
            writer.put_layer(cache, count)?;
        }
        writer.finish(Header {
            identity: Identity::of(self),
            token_count: count as u64,
            logit_count: logits.len() as u64,
            body_checksum: 0,
        })
    }

    /// Makes the sequence of a file that was saved the session's, as if it had been computed; returns its length.
    ///
    /// The context may be longer than that of the session that was saved, as long as the model's frequencies are the
    /// same for both. Afterwards [`Session::logits`] are what follows the last token: a file that lacks them has its
    /// last token computed again.
    ///
    /// The whole file is checked first. On an error the session is as it was, unless the file fails or is written to
    /// between the check and the reading: then the session is empty.
    pub fn restore(&mut self, path: &Path) -> Result<usize, RuntimeError> {
        let (identity, vocab_len) = (Identity::of(self), self.logits.len());
        let limit = Limit::Whole { context_len: self.context_len };
        let file = Verified::open(path, &identity, vocab_len, limit)?;
        let count = file.tokens.len();
        self.take(file, count)?;
        if let Some(&last) = self.tokens.last()
            && self.logits_position != count
        {
            self.truncate(count - 1);
            self.prefill(&[last])?;
        }
        Ok(count)
    }

    /// Takes from a file what it and `tokens` have in common from the beginning, unless the session has as much of
    /// it already. Returns how many of `tokens` the session then begins with; [`Session::resume`] computes the rest.
    ///
    /// The file may be longer than the context. Checks and errors are those of [`Session::restore`].
    pub fn restore_common(&mut self, path: &Path, tokens: &[u32]) -> Result<usize, RuntimeError> {
        let (identity, vocab_len) = (Identity::of(self), self.logits.len());
        let limit = Limit::First(tokens.len().min(self.context_len));
        let file = Verified::open(path, &identity, vocab_len, limit)?;
        let (present, common) = (common(&self.tokens, tokens), common(&file.tokens, tokens));
        if present >= common {
            return Ok(present);
        }
        self.take(file, common)?;
        Ok(common)
    }

    /// Makes the first `count` tokens of another session of the same model this one's whole sequence, without
    /// computing anything. Panics if the other has not as many.
    ///
    /// Afterwards the logits are the other's where they were its last token's; otherwise they are to be computed, as
    /// [`Session::resume`] does. On an error the session is as it was.
    pub fn copy_prefix_from(&mut self, other: &Session, count: usize) -> Result<(), RuntimeError> {
        assert!(count <= other.position(), "{count} of {} tokens", other.position());
        let place = "the other session";
        Identity::of(other).check(place, &Identity::of(self))?;
        if count > self.context_len {
            let (token_count, context_len) = (count as u64, self.context_len);
            return Err(RuntimeError::SessionTooLong { path: place.into(), token_count, context_len });
        }
        let mut bytes = Vec::new();
        for (cache, from) in self.caches.iter_mut().zip(&other.caches) {
            let step = positions_a_chunk(from);
            for first in (0..count).step_by(step) {
                bytes.clear();
                from.export(first..count.min(first + step), &mut bytes);
                cache.import(first, &bytes);
            }
        }
        self.tokens.clear();
        self.tokens.extend_from_slice(&other.tokens[..count]);
        self.logits_position = 0;
        let exact_enough = self.head.is_staged() || !other.head.is_staged();
        if count == other.position() && count == other.logits_position && exact_enough {
            self.logits.copy_from_slice(&other.logits);
            self.logits_position = count;
        }
        Ok(())
    }

    /// Makes the first `count` tokens of a checked file the whole sequence.
    fn take(&mut self, mut file: Verified, count: usize) -> Result<(), RuntimeError> {
        self.reset();
        file.layers(&mut self.caches, count)?;
        if count as u64 == file.header.token_count && file.header.logit_count > 0 {
            file.logits(&mut self.logits)?;
            self.logits_position = count;
        }
        self.tokens.extend_from_slice(&file.tokens[..count]);
        Ok(())
    }
}

/// How many tokens both begin with.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

//! Sessions saved to disk and prefixes shared in memory, so that nothing is computed twice.
//!
//! `docs/format.md` defines the file. It holds the last token's logits where the session has them.
//! They take as much room as a few tokens; computing them again would read the whole model, and
//! could round differently.

mod file;
mod header;

use crate::error::RuntimeError;
use crate::session::Session;
use file::{Limit, Verified, Writer, positions_a_chunk};
use header::{Header, Identity};
use std::path::Path;

impl Session {
    /// Saves the sequence: tokens, keys, values, and the logits of the last token. Returns the
    /// file's length in bytes.
    ///
    /// The file appears under its name only when it is complete and on disk; until then an older
    /// file of that name stays.
    pub fn save(&self, path: &Path) -> Result<u64, RuntimeError> {
        self.save_prefix(path, self.position())
    }

    /// [`Session::save`] for the first `count` tokens. Panics if the sequence is shorter.
    ///
    /// The file holds logits only where `count` is the whole sequence and its last call computed
    /// exact ones.
    pub fn save_prefix(&self, path: &Path, count: usize) -> Result<u64, RuntimeError> {
        assert!(count <= self.position(), "{count} of {} tokens", self.position());
        let current = count > 0 && count == self.position() && count == self.logits_position;
        // Two-stage logits must not reach a session that wants exact ones.
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

    /// Replaces the session's sequence with a saved one, as if it had been computed; returns its
    /// length.
    ///
    /// The context may be longer than the saved session's if the model's rotary frequencies are the
    /// same for both. Afterwards [`Session::logits`] are those of the last token; where the file
    /// lacks them, the last token is computed again.
    ///
    /// The whole file is checked first. On an error the session is unchanged, unless the file fails
    /// or changes between the check and the reading: then the session is empty.
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

    /// Takes the common prefix of a file and `tokens`, unless the session already has as much of
    /// it. Returns how many of `tokens` the session then holds; [`Session::resume`] computes the
    /// others.
    ///
    /// The file may be longer than the context. Checks and errors as in [`Session::restore`].
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

    /// Replaces the sequence with the first `count` tokens of another session of the same model,
    /// without computing anything. Panics if the other sequence is shorter.
    ///
    /// Afterwards the logits are the other session's if they belong to its last token; otherwise
    /// [`Session::resume`] computes them. On an error the session is unchanged.
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

    /// Replaces the sequence with the first `count` tokens of a checked file.
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

/// Length of the common prefix.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

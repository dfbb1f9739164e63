//! Behaviour when a context is full.

use crate::error::RuntimeError;

/// Policy for a sequence that outgrows the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FullContext {
    /// The reply ends; a prompt that does not fit is an error.
    #[default]
    Stop,
    /// The first `keep` tokens stay, half of the others are dropped, and the remaining half is
    /// computed again at its new positions. Exact but slow. Repeated as often as needed, also for
    /// the prompt.
    Shift {
        /// Tokens that always stay.
        keep: usize,
    },
}

impl FullContext {
    /// Tokens dropped per shift; `None` where nothing shifts.
    ///
    /// Fails where the kept tokens leave no room for half of the others.
    pub(crate) fn block(self, context_len: usize) -> Result<Option<usize>, RuntimeError> {
        let FullContext::Shift { keep } = self else { return Ok(None) };
        match context_len.saturating_sub(keep) / 2 {
            0 => Err(RuntimeError::Option {
                option: "number of tokens to keep",
                found: keep.to_string(),
                expected: format!("2 less than the context of {context_len} at most"),
            }),
            block => Ok(Some(block)),
        }
    }

    /// Fits `sequence` into `context_len`. Returns it unchanged where it fits or nothing shifts;
    /// otherwise drops whole blocks. Also returns the number of blocks dropped.
    ///
    /// The cuts are at the same places for any length of the sequence. A conversation that is
    /// rendered again for every turn therefore keeps the session's prefix.
    pub(crate) fn fit(self, sequence: &[u32], context_len: usize) -> Result<(Vec<u32>, usize), RuntimeError> {
        let (block, over) = (self.block(context_len)?, sequence.len().saturating_sub(context_len));
        let (Some(block), FullContext::Shift { keep }) = (block, self) else {
            return Ok((sequence.to_vec(), 0));
        };
        let blocks = over.div_ceil(block);
        let (kept, rest) = sequence.split_at(keep.min(sequence.len()));
        Ok(([kept, &rest[blocks * block..]].concat(), blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_keeps_the_beginning_and_drops_half_of_the_rest() {
        let sequence: Vec<u32> = (0..11).collect();
        let shift = FullContext::Shift { keep: 2 };
        assert_eq!(shift.fit(&sequence[..10], 10).unwrap(), (sequence[..10].to_vec(), 0));
        assert_eq!(shift.fit(&sequence, 10).unwrap(), (vec![0, 1, 6, 7, 8, 9, 10], 1));
        // Growing one token at a time, or fitting all at once, cuts at the same places.
        let long: Vec<u32> = (0..100).collect();
        let mut grown = Vec::new();
        for (index, &token) in long.iter().enumerate() {
            grown.push(token);
            grown = shift.fit(&grown, 10).unwrap().0;
            assert_eq!(shift.fit(&long[..=index], 10).unwrap().0, grown);
            assert!(grown.len() <= 10);
        }
        assert_eq!(FullContext::Stop.fit(&sequence, 10).unwrap(), (sequence, 0));
    }

    #[test]
    fn a_context_without_room_for_a_half_is_refused() {
        for (keep, context_len) in [(9, 10), (10, 10), (usize::MAX, 10), (0, 1)] {
            let error = FullContext::Shift { keep }.fit(&[1, 2, 3], context_len).unwrap_err().to_string();
            assert!(
                error.contains(&format!("keep is {keep}, expected 2 less than the context of")),
                "{error}"
            );
        }
        assert_eq!(FullContext::Shift { keep: 8 }.fit(&[0; 11], 10).unwrap().0.len(), 10);
    }
}

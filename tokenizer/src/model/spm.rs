//! Byte-pair encoding by scores, after the rules of sentencepiece and llama.cpp.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::{byte_fallback_table, byte_ids};
use crate::TokenizerError;
use crate::vocab::Vocab;

/// Index that ends the chain.
const END: u32 = u32::MAX;

pub(crate) struct Spm {
    pub scores: Vec<f64>,
    unk: Option<u32>,
    bytes: Box<[Option<u32>; 256]>,
}

/// A stretch of the piece; it is empty once merged into the one before it.
#[derive(Clone, Copy)]
struct Symbol {
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
}

/// Two neighbours whose concatenation is a token.
struct Pair {
    score: f64,
    left: u32,
    right: u32,
    len: u32,
}

impl Ord for Pair {
    /// Largest score first, then leftmost.
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Pair {}

#[derive(Default)]
pub(crate) struct Scratch {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Pair>,
}

impl Spm {
    pub fn new(vocab: &Vocab, scores: Vec<f64>, unk: Option<u32>) -> Self {
        Self { scores, unk, bytes: byte_fallback_table(vocab) }
    }

    pub fn encode(
        &self,
        vocab: &Vocab,
        piece: &str,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let Scratch { symbols, queue } = scratch;
        symbols.clear();
        queue.clear();
        for (index, (start, character)) in (0u32..).zip(piece.char_indices()) {
            let (start, len) = (start as u32, character.len_utf8() as u32);
            symbols.push(Symbol { start, len, prev: index.checked_sub(1).unwrap_or(END), next: index + 1 });
        }
        if let Some(last) = symbols.last_mut() {
            last.next = END;
        }
        for right in 1..symbols.len() as u32 {
            self.enqueue(vocab, piece, symbols, queue, right - 1, right);
        }
        while let Some(pair) = queue.pop() {
            let (left, right) = (symbols[pair.left as usize], symbols[pair.right as usize]);
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            symbols[pair.left as usize] = Symbol { len: pair.len, next: right.next, ..left };
            symbols[pair.right as usize].len = 0;
            if right.next != END {
                symbols[right.next as usize].prev = pair.left;
                self.enqueue(vocab, piece, symbols, queue, pair.left, right.next);
            }
            if left.prev != END {
                self.enqueue(vocab, piece, symbols, queue, left.prev, pair.left);
            }
        }
        self.emit(vocab, piece, symbols, ids)
    }

    fn enqueue(
        &self,
        vocab: &Vocab,
        piece: &str,
        symbols: &[Symbol],
        queue: &mut BinaryHeap<Pair>,
        left: u32,
        right: u32,
    ) {
        let len = symbols[left as usize].len + symbols[right as usize].len;
        let start = symbols[left as usize].start;
        if let Some(id) = vocab.find(&piece.as_bytes()[start as usize..(start + len) as usize]) {
            queue.push(Pair { score: self.scores[id as usize], left, right, len });
        }
    }

    fn emit(
        &self,
        vocab: &Vocab,
        piece: &str,
        symbols: &[Symbol],
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut after_unknown = false;
        for symbol in symbols.iter().filter(|symbol| symbol.len > 0) {
            let text = &piece.as_bytes()[symbol.start as usize..(symbol.start + symbol.len) as usize];
            let unknown = if let Some(id) = vocab.find(text) {
                ids.push(id);
                false
            } else if let Some(bytes) = byte_ids(&self.bytes, text) {
                ids.extend(bytes);
                false
            } else {
                let reason = "a character has no token, and there is no unknown token";
                let unk = self.unk.ok_or_else(|| TokenizerError::encode(piece, reason))?;
                if !after_unknown {
                    ids.push(unk);
                }
                true
            };
            after_unknown = unknown;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::Kind;

    fn encode(
        tokens: &[(Kind, &str, f64)],
        unk: Option<u32>,
        piece: &str,
    ) -> Result<Vec<u32>, TokenizerError> {
        let mut vocab = Vocab::default();
        tokens.iter().for_each(|(kind, text, _)| vocab.push(*kind, text.as_bytes()));
        let scores = tokens.iter().map(|(_, _, score)| *score).collect();
        let mut ids = Vec::new();
        Spm::new(&vocab, scores, unk).encode(&vocab, piece, &mut Scratch::default(), &mut ids)?;
        Ok(ids)
    }

    #[test]
    fn larger_scores_merge_first_then_the_leftmost() {
        let tokens = [
            (Kind::Text, "a", 0.0),
            (Kind::Text, "b", 0.0),
            (Kind::Text, "ab", -2.0),
            (Kind::Text, "ba", -1.0),
            (Kind::Text, "aba", -3.0),
        ];
        assert_eq!(encode(&tokens, None, "aba").unwrap(), [4]);
        assert_eq!(encode(&tokens, None, "abab").unwrap(), [4, 1]);
        assert_eq!(encode(&tokens, None, "baba").unwrap(), [3, 3]);
    }

    #[test]
    fn unknown_characters_become_bytes_or_one_unknown_token_or_an_error() {
        let bytes = [(Kind::Literal, "<unk>", 0.0), (Kind::Text, "a", 0.0), (Kind::Byte, "x", 0.0)];
        assert_eq!(encode(&bytes, Some(0), "axyya").unwrap(), [1, 2, 0, 1]);
        assert!(encode(&bytes, None, "y").is_err());
    }
}

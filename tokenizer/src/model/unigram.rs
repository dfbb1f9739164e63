//! The unigram model: dynamic programming over byte positions finds the most likely token sequence.

use super::{byte_fallback_table, byte_ids};
use crate::TokenizerError;
use crate::vocab::{Kind, Vocab};

/// Distance of an unknown character's score below the lowest score.
const UNKNOWN_PENALTY: f64 = 10.0;

pub(crate) struct Unigram {
    pub scores: Vec<f64>,
    unk: Option<u32>,
    fallback: Option<Box<[Option<u32>; 256]>>,
    single_precision: bool,
    unknown_score: f64,
    longest: usize,
}

/// The best path to a position; its last token begins at `start`.
#[derive(Clone, Copy)]
struct Best {
    score: f64,
    start: u32,
    /// `None` for an unknown character.
    id: Option<u32>,
}

#[derive(Default)]
pub(crate) struct Scratch {
    best: Vec<Option<Best>>,
    path: Vec<(Option<u32>, u32, u32)>,
}

impl Unigram {
    pub fn new(
        vocab: &Vocab,
        scores: Vec<f64>,
        unk: Option<u32>,
        byte_fallback: bool,
        single_precision: bool,
    ) -> Self {
        // sentencepiece leaves out control tokens and bytes; Hugging Face counts every token.
        let counts = |id: &usize| !single_precision || vocab.kind(*id as u32) == Kind::Text;
        let lowest = (0..scores.len()).filter(counts).map(|id| scores[id]).fold(f64::INFINITY, f64::min);
        Self {
            unk,
            fallback: byte_fallback.then(|| byte_fallback_table(vocab)),
            single_precision,
            unknown_score: if lowest.is_finite() { lowest - UNKNOWN_PENALTY } else { -UNKNOWN_PENALTY },
            longest: vocab.longest_text(),
            scores,
        }
    }

    pub fn encode(
        &self,
        vocab: &Vocab,
        piece: &str,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let Scratch { best, path } = scratch;
        best.clear();
        best.resize(piece.len() + 1, None);
        for (start, character) in piece.char_indices() {
            let so_far = if start == 0 { 0.0 } else { best[start].map_or(0.0, |best| best.score) };
            let mut reach = |end: usize, score: f64, id: Option<u32>| {
                let score = self.round(so_far + score);
                if best[end].is_none_or(|best| score > best.score) {
                    best[end] = Some(Best { score, start: start as u32, id });
                }
            };
            let first_end = start + character.len_utf8();
            let mut single = false;
            for end in
                (first_end..=piece.len().min(start + self.longest)).filter(|end| piece.is_char_boundary(*end))
            {
                if let Some(id) = vocab.find(&piece.as_bytes()[start..end]) {
                    reach(end, self.scores[id as usize], Some(id));
                    single |= end == first_end;
                }
            }
            if !single {
                reach(first_end, self.unknown_score, None);
            }
        }
        path.clear();
        let mut end = piece.len();
        while let Some(step) = best[end] {
            path.push((step.id, step.start, end as u32));
            end = step.start as usize;
        }
        self.emit(piece, path.iter().rev(), ids)
    }

    fn emit<'a>(
        &self,
        piece: &str,
        path: impl Iterator<Item = &'a (Option<u32>, u32, u32)>,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut after_unknown = false;
        for (id, start, end) in path {
            if let Some(id) = id {
                ids.push(*id);
                after_unknown = false;
                continue;
            }
            let text = &piece.as_bytes()[*start as usize..*end as usize];
            if let Some(bytes) = self.fallback.as_ref().and_then(|bytes| byte_ids(bytes, text)) {
                ids.extend(bytes);
                continue;
            }
            let reason = "a character has no token, and there is no unknown token";
            let unk = self.unk.ok_or_else(|| TokenizerError::encode(piece, reason))?;
            if !after_unknown {
                ids.push(unk);
            }
            after_unknown = true;
        }
        Ok(())
    }

    fn round(&self, score: f64) -> f64 {
        if self.single_precision { f64::from(score as f32) } else { score }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(piece: &str, byte_fallback: bool) -> Vec<u32> {
        let tokens = [
            (Kind::Literal, "<unk>", 0.0),
            (Kind::Text, "a", 0.0),
            (Kind::Text, "b", 0.0),
            (Kind::Text, "c", 0.0),
            (Kind::Text, "d", 0.0),
            (Kind::Text, "cd", 1.0),
            (Kind::Text, "ab", 2.0),
            (Kind::Text, "abc", 5.0),
            (Kind::Text, "abcd", 10.0),
            (Kind::Byte, "x", 0.0),
        ];
        let mut vocab = Vocab::default();
        tokens.iter().for_each(|(kind, text, _)| vocab.push(*kind, text.as_bytes()));
        let scores = tokens.iter().map(|(_, _, score)| *score).collect();
        let model = Unigram::new(&vocab, scores, Some(0), byte_fallback, false);
        let mut ids = Vec::new();
        model.encode(&vocab, piece, &mut Scratch::default(), &mut ids).unwrap();
        ids
    }

    #[test]
    fn best_sum_wins_and_unknown_characters_fuse() {
        assert_eq!(encode("abcdacdxx", false), [8, 1, 5, 0]);
        assert_eq!(encode("", false), [0u32; 0]);
    }

    #[test]
    fn unknown_characters_fall_back_to_bytes() {
        assert_eq!(encode("axxé", true), [1, 9, 9, 0]);
    }
}

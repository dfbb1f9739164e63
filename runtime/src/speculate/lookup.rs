//! Prompt lookup: drafts the tokens that followed the last occurrence of the same tokens.

use super::{Draft, Drafter, at_least_one};
use crate::error::RuntimeError;
use crate::sampler::Sampler;
use std::collections::HashMap;

/// Longest run of tokens that is looked up as a whole.
const LONGEST: usize = 4;

/// Matches are extended backwards up to this length.
const FAR: usize = 32;

/// Least acceptance probability of a drafted token. A pass costs more with every token that it
/// checks, so drafting must win back the cost of wrong tokens.
const WORTH: f32 = 0.4;

/// Weight of the newest token in a rate.
const STEP: f32 = 1.0 / 16.0;

/// Drafts the tokens that followed the last occurrence of the sequence's longest suffix.
///
/// The draft's length depends on how often matches of that length were right so far. The rates
/// learn from every token, drafted or not: without a draft, the match that would have been drafted
/// is compared with the actual token. Drafts therefore grow while text is copied, and ordinary text
/// gets none.
pub struct Lookup {
    most: usize,
    sequence: Vec<u32>,
    /// Runs of one to [`LONGEST`] tokens, padded in front with [`u32::MAX`]: index of the token
    /// after each.
    followers: HashMap<[u32; LONGEST], usize>,
    found: Option<Match>,
    /// Moving average of how often a match of 1, 2 …, 4 …, up to [`FAR`] tokens was right.
    rates: [f32; 6],
}

/// An earlier occurrence of the sequence's end.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Match {
    /// Index of the token that followed there; below the sequence's length.
    at: usize,
    /// Number of tokens before it that equal the end of the sequence.
    length: usize,
}

impl Lookup {
    /// A drafter of at most `most` tokens, at least 1.
    pub fn new(most: usize) -> Result<Self, RuntimeError> {
        Ok(Self {
            most: at_least_one(most)?,
            sequence: Vec::new(),
            followers: HashMap::new(),
            found: None,
            // Initial rates; a few dozen tokens replace them.
            rates: [0.15, 0.35, 0.6, 0.8, 0.9, 0.95],
        })
    }

    /// Updates the index for a sequence that has just grown, and returns the match for its end.
    fn find(&mut self, continued: Option<Match>) -> Option<Match> {
        let len = self.sequence.len();
        let mut latest = None;
        for count in (1..=LONGEST.min(len)).rev() {
            let mut run = [u32::MAX; LONGEST];
            run[LONGEST - count..].copy_from_slice(&self.sequence[len - count..]);
            let before = self.followers.insert(run, len);
            latest = latest.or(before);
        }
        let latest = latest.map(|at| Match { at, length: self.length(at) });
        match (latest, continued) {
            // Prefer the later of two equal matches, unless a copy is in progress.
            (Some(latest), Some(continued))
                if latest.length < continued.length || continued.length == FAR =>
            {
                Some(continued)
            }
            (latest, continued) => latest.or(continued),
        }
    }

    /// Number of tokens before `at` that equal the end of the sequence, up to [`FAR`].
    fn length(&self, at: usize) -> usize {
        let pairs = self.sequence[..at].iter().rev().zip(self.sequence.iter().rev());
        pairs.take(FAR).take_while(|(there, here)| there == here).count()
    }
}

impl Drafter for Lookup {
    fn most(&self) -> usize {
        self.most
    }

    fn begin(&mut self, sequence: &[u32]) -> Result<(), RuntimeError> {
        let rates = self.rates;
        if !sequence.starts_with(&self.sequence) {
            self.sequence.clear();
            self.followers.clear();
            self.found = None;
        }
        for &token in &sequence[self.sequence.len()..] {
            self.push(token);
        }
        // Given text says little about the model's own text.
        self.rates = rates;
        Ok(())
    }

    /// Text that left the context may still be copied.
    fn shift(&mut self, _sequence: &[u32]) -> Result<(), RuntimeError> {
        Ok(())
    }

    fn push(&mut self, token: u32) {
        let expected = self.found.take();
        let is_right = |found: &Match| self.sequence[found.at] == token;
        if let Some(found) = &expected {
            let rate = &mut self.rates[class(found.length)];
            *rate += STEP * (f32::from(u8::from(is_right(found))) - *rate);
        }
        let continued = expected.filter(is_right);
        let continued =
            continued.map(|found| Match { at: found.at + 1, length: (found.length + 1).min(FAR) });
        self.sequence.push(token);
        self.found = self.find(continued);
    }

    fn draft(&mut self, most: usize, _: &mut Sampler, draft: &mut Draft) -> Result<(), RuntimeError> {
        let Some(found) = self.found else { return Ok(()) };
        let mut survival = 1.0;
        for index in 0..most.min(self.most) {
            survival *= self.rates[class((found.length + index).min(FAR))];
            if survival < WORTH {
                break;
            }
            // A match so near that the draft reaches its own start: repeat the drafted tokens.
            let at = found.at + index;
            let token = match self.sequence.get(at) {
                Some(&token) => token,
                None => draft.tokens()[at - self.sequence.len()],
            };
            draft.push(token);
        }
        Ok(())
    }
}

/// Index of the rate for match lengths from 1 to [`FAR`].
fn class(length: usize) -> usize {
    length.ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::SamplerOptions;

    fn drafted(lookup: &mut Lookup, most: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
        let mut draft = Draft::default();
        lookup.draft(most, &mut sampler, &mut draft).unwrap();
        draft.tokens().to_vec()
    }

    fn after(sequence: &[u32]) -> Lookup {
        let mut lookup = Lookup::new(8).unwrap();
        lookup.begin(sequence).unwrap();
        lookup
    }

    #[test]
    fn what_followed_the_longest_match_is_drafted() {
        // 2 3 4 5 was followed by 6, later 4 5 by 9.
        let mut lookup = after(&[1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 9, 2, 3, 4, 5]);
        assert_eq!(lookup.found, Some(Match { at: 5, length: 4 }));
        assert_eq!(drafted(&mut lookup, 8)[0], 6);
        // Of equally long matches, the last.
        let lookup = after(&[1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3]);
        assert_eq!(lookup.found, Some(Match { at: 7, length: 3 }));
    }

    #[test]
    fn nothing_known_is_nothing_drafted() {
        assert!(drafted(&mut after(&[]), 8).is_empty());
        assert!(drafted(&mut after(&[1, 2, 3, 4]), 8).is_empty());
        let mut lookup = after(&[5, 6, 5]);
        assert_eq!(lookup.found, Some(Match { at: 1, length: 1 }));
        assert!(drafted(&mut lookup, 8).is_empty(), "one token says too little");
    }

    #[test]
    fn copying_makes_drafts_longer_and_a_surprise_makes_them_shorter() {
        let passage: Vec<u32> = (100..160).collect();
        let mut lookup = after(&passage);
        let mut lengths = Vec::new();
        for &token in &passage[..50] {
            lookup.push(token);
            lengths.push(drafted(&mut lookup, 8).len());
        }
        assert_eq!((lengths[0], lengths[49]), (0, 8));
        assert!(lengths.is_sorted(), "{lengths:?}");
        assert_eq!(drafted(&mut lookup, 3), [150, 151, 152], "no more than asked for");
        lookup.push(7);
        assert!(drafted(&mut lookup, 8).is_empty());
        lookup.push(151);
        lookup.push(152);
        lookup.push(153);
        lookup.push(154);
        assert_eq!(drafted(&mut lookup, 8)[..2], [155, 156], "and on again behind the change");
    }

    #[test]
    fn matches_that_mislead_are_given_up_and_taken_up_again() {
        let mut lookup = after(&[]);
        // Four constant tokens, then a different one every time.
        for other in 0..60 {
            [1, 2, 3, 4].into_iter().for_each(|token| lookup.push(token));
            if other > 40 {
                assert!(drafted(&mut lookup, 8).is_empty());
            }
            lookup.push(1000 + other);
        }
        for _ in 0..40 {
            [1, 2, 3, 4, 5].into_iter().for_each(|token| lookup.push(token));
        }
        [1, 2, 3, 4].into_iter().for_each(|token| lookup.push(token));
        assert_eq!(drafted(&mut lookup, 3), [5, 1, 2]);
    }

    #[test]
    fn a_short_loop_is_drafted_round_and_round() {
        let mut lookup = after(&[]);
        for _ in 0..20 {
            [1, 2].into_iter().for_each(|token| lookup.push(token));
        }
        assert_eq!(drafted(&mut lookup, 5), [1, 2, 1, 2, 1]);
    }

    #[test]
    fn another_sequence_begins_anew_and_a_longer_one_goes_on() {
        let mut lookup = after(&[1, 2, 3, 4, 1, 2, 3]);
        let expected = lookup.found;
        lookup.begin(&[1, 2, 3, 4, 1, 2, 3]).unwrap();
        assert_eq!(lookup.found, expected);
        lookup.begin(&[1, 2, 3, 4, 1, 2, 3, 4]).unwrap();
        assert_eq!(lookup.found, Some(Match { at: 4, length: 4 }));
        lookup.begin(&[1, 2, 3, 9]).unwrap();
        assert_eq!((lookup.found, lookup.sequence.len()), (None, 4));
        // 4 runs of 1 token, 3 of 2, 2 of 3, 1 of 4.
        assert_eq!(lookup.followers.len(), 10);
    }

    #[test]
    fn no_tokens_to_draft_is_refused() {
        let error = Lookup::new(0).err().unwrap().to_string();
        assert_eq!(error, "number of tokens to draft is 0, expected at least 1");
    }
}

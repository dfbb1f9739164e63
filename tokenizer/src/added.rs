//! Added tokens, which are found in the text before the model sees it.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use fancy_regex::Regex;

use crate::TokenizerError;
use crate::settings::Added;

/// The longest text of an added token; real ones stay below 200 bytes.
pub(crate) const MAX_ADDED_BYTES: usize = 4096;

/// Stands inside every special token that guarded text spells. A noncharacter of Unicode: texts
/// that are exchanged hold none.
const MARK: char = '\u{FDD0}';

/// What a special token's spelling in a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelled {
    /// The token.
    Token,
    /// Ordinary characters.
    Text,
    /// The token, unless a mark stands inside.
    TokenUnlessMarked,
}

/// The text as it was before [`Tokenizer::guard`](crate::Tokenizer::guard).
pub fn without_marks(text: &str) -> String {
    text.replace(MARK, "")
}

/// A stretch of text, or an added token in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    Token(u32),
}

/// Finds the added tokens of one stage.
pub(crate) struct Finder {
    automaton: AhoCorasick,
    tokens: Vec<Added>,
}

impl Finder {
    /// `patterns[i]` is the text of `tokens[i]`. `None` if there are no tokens.
    pub fn new(tokens: Vec<Added>, patterns: &[String]) -> Result<Option<Self>, TokenizerError> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // A full transition table would cost 1 KiB per byte of the patterns.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(patterns)
            .map_err(|error| TokenizerError::malformed("added tokens", error))?;
        Ok(Some(Self { automaton, tokens }))
    }

    /// Splits `text`; without `special`, special tokens stay text.
    pub fn split<'a>(&self, text: &'a str, special: bool, mut each: impl FnMut(Part<'a>)) {
        let mut from = 0;
        for found in self.automaton.find_iter(text) {
            let token = &self.tokens[found.pattern().as_usize()];
            let (mut start, mut end) = (found.start(), found.end());
            let inside_word = || ends_in_word(&text[..start]) || begins_with_word(&text[end..]);
            if (token.special && !special) || (token.single_word && inside_word()) || start < from {
                continue;
            }
            if token.lstrip {
                start = text[..start].trim_end().len().max(from);
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if from < start {
                each(Part::Text(&text[from..start]));
            }
            each(Part::Token(token.id));
            from = end;
        }
        if from < text.len() {
            each(Part::Text(&text[from..]));
        }
    }

    /// `text` with a mark behind the first character of every special token in it.
    pub fn mark_special(&self, text: &str) -> String {
        let mut guarded = String::with_capacity(text.len());
        let mut from = 0;
        while let Some(found) = self.automaton.find(Input::new(text).range(from..)) {
            let first = text[found.start()..].chars().next().map_or(1, char::len_utf8);
            let inside = found.start() + first;
            guarded.push_str(&text[from..inside]);
            if self.tokens[found.pattern().as_usize()].special {
                guarded.push(MARK);
            }
            // A special token may begin within another token.
            from = inside;
        }
        guarded.push_str(&text[from..]);
        guarded
    }
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_word)
}

fn begins_with_word(text: &str) -> bool {
    text.chars().next().is_some_and(is_word)
}

fn is_word(character: char) -> bool {
    static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\w").expect("a constant pattern compiles"));
    WORD.is_match(character.encode_utf8(&mut [0; 4])).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Stage;

    fn added(id: u32, content: &str) -> Added {
        Added {
            id,
            content: content.into(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            stage: Stage::Raw,
            special: false,
        }
    }

    fn split(tokens: &[Added], text: &str, special: bool) -> Vec<String> {
        let patterns: Vec<String> = tokens.iter().map(|token| token.content.clone()).collect();
        let mut parts = Vec::new();
        Finder::new(tokens.to_vec(), &patterns).unwrap().unwrap().split(text, special, |part| {
            parts.push(match part {
                Part::Text(text) => text.to_owned(),
                Part::Token(id) => format!("#{id}"),
            });
        });
        parts
    }

    #[test]
    fn longest_token_wins() {
        assert_eq!(
            split(&[added(1, "<a>"), added(2, "<a><b>")], "x<a><b><a>y", true),
            ["x", "#2", "#1", "y"]
        );
    }

    #[test]
    fn spaces_beside_a_stripping_token_vanish() {
        let token = Added { lstrip: true, rstrip: true, ..added(7, "<m>") };
        assert_eq!(split(&[token], "a \n<m>\t <m> b", true), ["a", "#7", "#7", "b"]);
    }

    #[test]
    fn single_words_are_not_found_inside_words() {
        let token = Added { single_word: true, ..added(3, "it") };
        assert_eq!(split(&[token], "bit it it_", true), ["bit ", "#3", " it_"]);
    }

    #[test]
    fn special_tokens_can_be_left_as_text() {
        let special = Added { special: true, ..added(1, "<s>") };
        assert_eq!(split(&[special, added(2, "\t\t")], "<s>\t\tx", false), ["<s>", "#2", "x"]);
    }
}

//! Regular expressions that report failures.

use fancy_regex::{Regex, RegexBuilder};
use tokenizers::Offsets;

use crate::TokenizerError;
use crate::settings::Pattern as Source;

/// Longest accepted pattern; the longest real one has 1.5 KB.
const MAX_PATTERN_BYTES: usize = 16 * 1024;
/// Largest compiled program of one part of a pattern.
const MAX_PROGRAM_BYTES: usize = 4 << 20;

/// A compiled pattern. It reports a match that takes too many steps; the one in `tokenizers`
/// silently stops splitting.
pub(crate) struct Pattern {
    regex: Regex,
    invert: bool,
}

impl Pattern {
    pub fn new(source: &Source, invert: bool) -> Result<Self, TokenizerError> {
        let (text, regex) = match source {
            Source::String(text) => (text, fancy_regex::escape(text).into_owned()),
            Source::Regex(text) => (text, text.clone()),
        };
        let fail =
            |reason: String| TokenizerError::Pattern { pattern: text.chars().take(200).collect(), reason };
        if text.is_empty() {
            return Err(fail("it is empty".into()));
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(fail(format!(
                "it has {} bytes, at most {MAX_PATTERN_BYTES} are accepted",
                text.len()
            )));
        }
        let mut builder = RegexBuilder::new(&regex);
        builder.delegate_size_limit(MAX_PROGRAM_BYTES).delegate_dfa_size_limit(MAX_PROGRAM_BYTES);
        Ok(Self { regex: builder.build().map_err(|error| fail(error.to_string()))?, invert })
    }

    /// `text` with every match replaced by `content`, taken literally.
    pub fn replace_all(&self, text: &str, content: &str) -> tokenizers::Result<String> {
        let mut output = String::with_capacity(text.len());
        let mut from = 0;
        for found in self.regex.find_iter(text) {
            let found = found?;
            output.push_str(&text[from..found.start()]);
            output.push_str(content);
            from = found.end();
        }
        output.push_str(&text[from..]);
        Ok(output)
    }
}

impl tokenizers::tokenizer::pattern::Pattern for &Pattern {
    fn find_matches(&self, inside: &str) -> tokenizers::Result<Vec<(Offsets, bool)>> {
        let mut parts = Vec::new();
        let mut from = 0;
        for found in self.regex.find_iter(inside) {
            let found = found?;
            if from < found.start() {
                parts.push(((from, found.start()), self.invert));
            }
            parts.push(((found.start(), found.end()), !self.invert));
            from = found.end();
        }
        if from < inside.len() || parts.is_empty() {
            parts.push(((from, inside.len()), self.invert));
        }
        Ok(parts)
    }
}

//! Stop strings. Text is held back while it could still be the beginning of one.

/// Passes text through up to the first stop string.
pub(crate) struct StopFilter {
    stops: Vec<String>,
    held: String,
}

/// Result of a piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Text that can no longer be part of a stop string; may be empty.
    Text(String),
    /// The text before a stop string, and the string's index; nothing passes after it.
    Stop(String, usize),
}

impl StopFilter {
    /// A filter for these stop strings; empty ones are ignored.
    pub fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// The stop string with this index.
    pub fn stop(&self, index: usize) -> &str {
        &self.stops[index]
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        let stops = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let first = stops
            .clone()
            .filter_map(|(index, stop)| self.held.find(stop.as_str()).map(|at| (at, index)))
            .min();
        if let Some((at, index)) = first {
            let before = self.held[..at].to_string();
            self.held.clear();
            return Passed::Stop(before, index);
        }
        let bytes = self.held.as_bytes();
        let begins = |at: usize| stops.clone().any(|(_, stop)| stop.as_bytes().starts_with(&bytes[at..]));
        // A character boundary in the held text is one in the stop string, so `at` is a boundary.
        let at = (0..bytes.len()).find(|&at| begins(at)).unwrap_or(bytes.len());
        let rest = self.held.split_off(at);
        Passed::Text(std::mem::replace(&mut self.held, rest))
    }

    /// The text still held back, at the end of all text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text that passes, piece by piece, and the index of the stop string that ended it.
    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut filter = StopFilter::new(text(stops));
        let mut passed = Vec::new();
        for piece in pieces {
            match filter.push(piece) {
                Passed::Text(text) => passed.push(text),
                Passed::Stop(text, index) => {
                    passed.push(text);
                    return (passed, Some(index));
                }
            }
        }
        passed.push(filter.finish());
        (passed, None)
    }

    fn text(parts: &[&str]) -> Vec<String> {
        parts.iter().map(|part| part.to_string()).collect()
    }

    #[test]
    fn a_stop_string_over_several_pieces_is_found() {
        assert_eq!(run(&["</end>"], &["Hi <", "/e", "nd> more"]), (text(&["Hi ", "", ""]), Some(0)));
        assert_eq!(run(&["</end>"], &["Hi", " all</end>"]), (text(&["Hi", " all"]), Some(0)));
    }

    #[test]
    fn a_beginning_that_goes_on_otherwise_is_let_through() {
        assert_eq!(run(&["abc"], &["xab", "abd", "ab"]), (text(&["x", "ababd", "", "ab"]), None));
    }

    #[test]
    fn the_earliest_of_several_wins() {
        assert_eq!(run(&["cd", "bcde", ""], &["abcde"]), (text(&["a"]), Some(1)));
        assert_eq!(run(&["ab", "abc"], &["abc"]), (text(&[""]), Some(0)));
    }

    #[test]
    fn repeated_beginnings_are_held_no_longer_than_needed() {
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), (text(&["", "", "a", ""]), Some(0)));
    }

    #[test]
    fn characters_stay_whole() {
        assert_eq!(run(&["é→"], &["né", "e", "é", "→"]), (text(&["n", "ée", "", ""]), Some(0)));
        // U+00E9 and U+00EA share their first byte.
        assert_eq!(run(&["é"], &["ê"]), (text(&["ê", ""]), None));
    }

    #[test]
    fn no_stop_strings_hold_nothing() {
        assert_eq!(run(&[""], &["a", "b"]), (text(&["a", "b", ""]), None));
    }
}

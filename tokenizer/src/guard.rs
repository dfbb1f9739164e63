//! Text from outside within text that may hold special tokens, such as a user's message within a
//! chat's prompt: special tokens that the message spells are ordinary characters.

use crate::added::{Spelled, without_marks};
use crate::{Tokenizer, TokenizerError};

impl Tokenizer {
    /// The text with a mark inside every special token that it spells.
    ///
    /// Guarded and other texts can be put together: [`Self::encode_guarded`] takes the marks out
    /// and finds the special tokens of the other texts only. The mark is U+FDD0, a noncharacter; it
    /// is taken out of `text` first.
    pub fn guard(&self, text: &str) -> String {
        let mut text = without_marks(text);
        for finder in self.finders() {
            text = finder.mark_special(&text);
        }
        text
    }

    /// The ids of a text with guarded parts, without the ids that the post-processor adds. Special
    /// tokens spelled in the guarded parts are ordinary characters, as in [`Self::encode_plain`].
    pub fn encode_guarded(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_parts(text, Spelled::TokenUnlessMarked)
    }
}

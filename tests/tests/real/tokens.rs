//! Ids of many strings, and the strings back.

use crate::golden::{Golden, strings};

pub fn strings_have_the_same_ids(golden: &Golden) {
    let (converted, _) = golden.carried();
    let model = converted.open();
    let tokenizer = model.tokenizer().unwrap();
    let strings = strings();
    assert!(strings.len() == 300 && golden.tokens.len() == 300 && golden.decoded_but_last.len() == 300);
    let mut wrong = Vec::new();
    for (index, text) in strings.iter().enumerate() {
        let expected = &golden.tokens[index];
        let ids = tokenizer.encode(text, false).unwrap();
        if ids != *expected {
            wrong.push(format!("{text:?}: ids {ids:?}, expected {expected:?}"));
            continue;
        }
        // sentencepiece's sign for a space becomes one.
        let back = tokenizer.decode(&ids, false).unwrap();
        if back != *text && back != text.replace('\u{2581}', " ") {
            wrong.push(format!("{text:?}: decoded {back:?}"));
        }
        let (part, expected) = (&ids[..ids.len().saturating_sub(1)], &golden.decoded_but_last[index]);
        let decoded = tokenizer.decode(part, false).unwrap();
        if with_single_marks(&decoded) != with_single_marks(expected) {
            wrong.push(format!("{text:?} without its end: decoded {decoded:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// The text with one mark for any number of bytes that are no character: sentencepiece writes one a
/// byte, others one for what could have been a character.
fn with_single_marks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if char != '\u{fffd}' || !out.ends_with(char) {
            out.push(char);
        }
    }
    out
}

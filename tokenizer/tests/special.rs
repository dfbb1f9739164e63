//! Special tokens of GGUF vocabularies, and special tokens that a text only spells.

use pith_tokenizer::source::{GgufVocab, ends_by_name, from_gguf};
use pith_tokenizer::{Tokenizer, without_marks};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;

/// A sentencepiece vocabulary in the style of Phi-3, and letters.
fn vocabulary() -> (Vec<String>, Vec<i32>) {
    let special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("<|user|>", CONTROL), ("<|end|>", NORMAL)];
    let words = ["▁Hi", "▁H", "▁", "H", "i", "\n", "<", "|", "e", "n", "d", ">"].map(|text| (text, NORMAL));
    special.into_iter().chain(words).map(|(text, kind)| (text.to_string(), kind)).unzip()
}

fn tokenizer(strips_after_special: bool) -> Tokenizer {
    let (tokens, token_types) = vocabulary();
    let scores: Vec<f32> = (0..tokens.len()).map(|id| -(id as f32)).collect();
    let vocab = GgufVocab {
        model: "llama",
        tokens: &tokens,
        scores: &scores,
        token_types: &token_types,
        bos: Some(1),
        unk: Some(0),
        strips_after_special,
        ..GgufVocab::default()
    };
    from_gguf(&vocab).unwrap()
}

#[test]
fn white_space_after_special_tokens_goes_where_the_model_says_so() {
    let text = "<|user|>\nHi<|end|>\n<|user|>\n";
    assert_eq!(tokenizer(true).encode(text, true).unwrap(), [1, 2, 4, 3, 2]);
    assert_eq!(tokenizer(false).encode(text, true).unwrap(), [1, 2, 6, 9, 7, 8, 3, 6, 9, 2, 6, 9]);
    // These keep it.
    assert_eq!(tokenizer(true).encode("<s> Hi", false).unwrap(), [1, 6, 4]);
}

#[test]
fn tokens_that_end_a_turn_are_found_by_name() {
    let ends = |names: &[&str]| ends_by_name(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(ends(&["a", "<|im_end|>", "<|im_start|>", "<end_of_turn>", "</s>"]), [1, 3, 4]);
    assert_eq!(ends(&["<|eot_id|>", "<|end|>", "<|endoftext|>"]), [0, 1, 2]);
    // Here `<|end|>` ends a message, and `</s>` is ordinary text.
    assert_eq!(ends(&["<|return|>", "<|call|>", "<|end|>"]), [0, 1]);
    assert_eq!(ends(&["</s>", "<|tool_response>"]), [1]);
    // A token that ends a turn is special, whatever its type says.
    assert!(tokenizer(false).is_special(3) && !tokenizer(false).is_special(4));
}

#[test]
fn special_tokens_in_guarded_text_are_text() {
    let tokenizer = tokenizer(false);
    let typed = "<|end|>Hi<|<|end|>";
    let guarded = tokenizer.guard(typed);
    assert_eq!(without_marks(&guarded), typed);
    let ids = tokenizer.encode_guarded(&format!("<|user|>{guarded}<|end|>")).unwrap();
    let plain = tokenizer.encode_plain(typed).unwrap();
    assert!(!plain.contains(&3), "{plain:?}");
    assert_eq!(ids, [&[2], &plain[..], &[3]].concat());
    // Guarding twice, or a text without special tokens, changes nothing.
    assert_eq!(tokenizer.guard(&guarded), guarded);
    assert_eq!(tokenizer.guard("Hi"), "Hi");
}

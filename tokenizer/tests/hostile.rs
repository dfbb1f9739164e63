//! Damaged and hostile bytes give errors or working tokenizers; nothing panics.

use pith_tokenizer::source::{
    GgufVocab, PreTokenizer, TokenizerConfig, from_gguf, from_sentencepiece, from_tokenizer_json,
    from_vocab_and_merges,
};
use pith_tokenizer::{Tokenizer, TokenizerError};

const TEXT: &str = "ab <s>b é\u{0}😀 a▁b";

/// A byte-level tokenizer with every kind of component, small enough to damage each byte in turn.
fn small() -> String {
    r#"{"added_tokens": [{"id": 4, "content": "<s>", "special": true, "normalized": false, "lstrip": true},
        {"id": 5, "content": "bb", "normalized": true}],
      "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": "x+"}, "content": "y"}, {"type": "Prepend", "prepend": "a"}]},
      "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true},
        {"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\p{L}+"}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": true, "use_regex": false}]},
      "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}},
        {"Sequence": {"id": "A"}}], "special_tokens": {"<s>": {"ids": [4]}}},
      "decoder": {"type": "ByteLevel"},
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3}, "merges": ["a b"]}}"#
        .into()
}

fn use_everything(tokenizer: &Tokenizer) {
    for special in [false, true] {
        let ids = tokenizer.encode(TEXT, special).unwrap_or_default();
        let _ = tokenizer.decode(&ids, special);
    }
    let _ = tokenizer.encode_plain(TEXT);
    for id in 0..tokenizer.vocab_len() as u32 + 2 {
        let _ = (tokenizer.token_bytes(id), tokenizer.is_special(id), tokenizer.decode(&[id, id], false));
    }
    let _ = tokenizer.token_id("<s>");
}

#[test]
fn truncated_or_changed_sources_are_errors_or_work() {
    let json = small();
    use_everything(&from_tokenizer_json(json.as_bytes()).unwrap());
    for len in 0..json.len() {
        assert!(from_tokenizer_json(&json.as_bytes()[..len]).is_err());
    }
    for at in 0..json.len() {
        for bit in [0x01, 0x02, 0x10] {
            let mut bytes = json.clone().into_bytes();
            bytes[at] ^= bit;
            if let Ok(tokenizer) = from_tokenizer_json(&bytes) {
                use_everything(&tokenizer);
            }
        }
    }
}

/// A protocol buffer field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn small_model() -> Vec<u8> {
    let piece = |text: &str, score: f32, kind: u8| {
        let mut bytes = field(1, text.as_bytes());
        bytes.push(2 << 3 | 5);
        bytes.extend(score.to_le_bytes());
        bytes.extend([3 << 3, kind]);
        field(1, &bytes)
    };
    let pieces = [
        piece("<unk>", 0.0, 2),
        piece("<s>", 0.0, 3),
        piece("<0x61>", 0.0, 6),
        piece("▁", -1.0, 1),
        piece("b", -2.0, 1),
        piece("▁b", -0.5, 1),
        piece("bb", 0.0, 4),
    ];
    let mut model = pieces.concat();
    model.extend(field(2, &[3 << 3, 2]));
    model.extend(field(3, &[3 << 3, 1, 4 << 3, 0]));
    model
}

#[test]
fn truncated_or_changed_sentencepiece_models_are_errors_or_work() {
    let model = small_model();
    let tokenizer = from_sentencepiece(&model, &TokenizerConfig::default()).unwrap();
    assert_eq!(tokenizer.encode("b abb", true).unwrap(), [1, 5, 3, 2, 6]);
    for len in 0..model.len() {
        if let Ok(tokenizer) = from_sentencepiece(&model[..len], &TokenizerConfig::default()) {
            use_everything(&tokenizer);
        }
    }
    for at in 0..model.len() {
        for bit in 0..8 {
            let mut bytes = model.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(tokenizer) = from_sentencepiece(&bytes, &TokenizerConfig::default()) {
                use_everything(&tokenizer);
            }
        }
    }
}

#[test]
fn huge_ids_are_refused() {
    let json = small().replace("\"ab\": 3", "\"ab\": 4294967295");
    assert!(matches!(
        from_tokenizer_json(json.as_bytes()),
        Err(TokenizerError::IdTooLarge { id: 4294967295, .. })
    ));
    let json = small().replace("\"id\": 5", "\"id\": 4294967295");
    assert!(matches!(from_tokenizer_json(json.as_bytes()), Err(TokenizerError::IdTooLarge { .. })));
}

#[test]
fn what_is_not_supported_is_named() {
    for (from, to, named) in [
        ("\"type\": \"BPE\"", "\"type\": \"WordPiece\"", "WordPiece"),
        ("\"type\": \"NFC\"", "\"type\": \"Magic\"", "Magic"),
        ("\"decoder\": {\"type\": \"ByteLevel\"}", "\"decoder\": {\"type\": \"CTC\"}", "CTC"),
        ("\"merges\": [\"a b\"]", "\"merges\": [\"a c\"]", "\"c\""),
        ("\"merges\": [\"a b\"]", "\"merges\": [\"b a\"]", "\"ba\""),
        ("\"vocab\": {", "\"unk_token\": \"<unk>\", \"vocab\": {", "<unk>"),
        ("{\"ids\": [4]}", "{\"ids\": [9]}", "id 9"),
        ("x+", "x(", "x("),
        ("\"SpecialToken\": {\"id\": \"<s>\"}", "\"Sequence\": {\"id\": \"A\"}", "2 times"),
    ] {
        let json = small().replace(from, to);
        assert_ne!(json, small(), "{from}");
        let message = from_tokenizer_json(json.as_bytes()).expect_err(to).to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn deep_nesting_is_an_error() {
    let open = "{\"type\": \"Sequence\", \"normalizers\": [".repeat(10_000);
    let json = small().replace("\"normalizer\": {", &format!("\"normalizer\": {open}{{"));
    assert!(from_tokenizer_json(json.as_bytes()).is_err());
}

#[test]
fn gguf_values_that_disagree_are_named() {
    let tokens = ["<unk>".to_owned(), "a".to_owned()];
    let base = GgufVocab { model: "llama", tokens: &tokens, scores: &[0.0, 0.0], ..GgufVocab::default() };
    assert_eq!(from_gguf(&base).unwrap().encode("a", true).unwrap(), [0, 1]);
    for (vocab, named) in [
        (GgufVocab { scores: &[0.0], ..base }, "1 scores, expected 2"),
        (GgufVocab { scores: &[0.0, f32::NAN], ..base }, "NaN"),
        (GgufVocab { token_types: &[1], ..base }, "1 token types, expected 2"),
        (GgufVocab { model: "bert", ..base }, "`bert`"),
        (GgufVocab { model: "gpt2", pre: Some("nope"), ..base }, "`nope`"),
        (GgufVocab { bos: Some(7), ..base }, "id 7"),
        (GgufVocab { add_bos: Some(true), ..base }, "bos"),
        (GgufVocab { unk: Some(9), ..base }, "id 9"),
        (GgufVocab { tokens: &[], scores: &[], ..base }, "empty"),
        (GgufVocab { model: "gpt2", merges: &["a b".to_owned()], ..base }, "\"b\""),
    ] {
        let message = from_gguf(&vocab).expect_err(named).to_string();
        assert!(message.contains(named), "{message}");
    }
}

#[test]
fn broken_vocab_and_merges_are_errors() {
    let read = |vocab: &str, merges: &[u8]| {
        from_vocab_and_merges(vocab.as_bytes(), merges, &PreTokenizer::gpt2(), &TokenizerConfig::default())
    };
    let vocab = r###"{"a": 0, "b": 1, "ab": 2, "#": 3, "##": 4}"###;
    let tokenizer = read(vocab, b"#version: 0.2\na b\n# #\n").unwrap();
    assert_eq!(tokenizer.encode("ab##", true).unwrap(), [2, 4]);
    assert!(read(vocab, b"a c\n").is_err());
    assert!(read(vocab, b"\xff\n").is_err());
    assert!(read("{", b"").is_err());
    assert!(read("{}", b"").is_err());
}

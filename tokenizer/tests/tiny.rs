//! Small tokenizers of the repository against golden ids of the Python packages, made by
//! `oracle.py`.

mod support;

use std::path::{Path, PathBuf};

use pith_tokenizer::source::{TokenizerConfig, from_sentencepiece, from_tokenizer_json};
use pith_tokenizer::{Decoder, Tokenizer, TokenizerError};
use support::check_golden;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn json(name: &str) -> Tokenizer {
    from_tokenizer_json(&std::fs::read(data(name)).unwrap()).unwrap()
}

fn spm(name: &str) -> Tokenizer {
    from_sentencepiece(&std::fs::read(data(name)).unwrap(), &TokenizerConfig::default()).unwrap()
}

#[test]
fn byte_level_bpe_matches_the_golden_ids() {
    check_golden("bpe", &json("bpe.json"), &data("bpe.golden.json"), true, &[]);
}

#[test]
fn unigram_matches_the_golden_ids() {
    check_golden("unigram", &json("unigram.json"), &data("unigram.golden.json"), true, &[]);
}

#[test]
fn sentencepiece_bpe_matches_the_golden_ids() {
    check_golden("spm_bpe", &spm("spm_bpe.model"), &data("spm_bpe.golden.json"), false, &[]);
}

#[test]
fn sentencepiece_unigram_matches_the_golden_ids() {
    check_golden("spm_unigram", &spm("spm_unigram.model"), &data("spm_unigram.golden.json"), false, &[]);
}

#[test]
fn text_comes_back() {
    let text = "The river runs 12 miles. Größe 😀 日本語 <tool>x\n\ttab";
    for tokenizer in [json("bpe.json"), spm("spm_bpe.model")] {
        let ids = tokenizer.encode_plain(text).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
    }
}

#[test]
fn plain_text_has_no_special_tokens() {
    let tokenizer = json("bpe.json");
    let ids = tokenizer.encode("<s>hi</s>", false).unwrap();
    assert_eq!((ids[0], *ids.last().unwrap()), (0, 1));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "hi");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "<s>hi</s>");
    let plain = tokenizer.encode_plain("<s>hi</s>").unwrap();
    assert!(plain.iter().all(|id| !tokenizer.is_special(*id)));
    assert_eq!(tokenizer.decode(&plain, true).unwrap(), "<s>hi</s>");
}

#[test]
fn stream_gives_a_character_with_its_last_byte() {
    let tokenizer = json("bpe.json");
    let ids = tokenizer.encode_plain("🦙").unwrap();
    assert_eq!(ids.len(), 4, "no merge knows this character");
    let mut stream = tokenizer.stream();
    for id in &ids[..3] {
        assert_eq!(stream.push(*id), None);
    }
    assert_eq!(stream.push(ids[3]).as_deref(), Some("🦙"));
    assert_eq!(stream.finish(), "");
}

#[test]
fn stream_ends_an_incomplete_character_with_a_replacement() {
    let tokenizer = json("bpe.json");
    let ids = tokenizer.encode_plain("🦙").unwrap();
    let mut stream = tokenizer.stream();
    assert_eq!(stream.push(ids[0]), None);
    // A second first byte: the one before it can no longer be completed.
    assert_eq!(stream.push(ids[0]).as_deref(), Some("\u{fffd}"));
    assert_eq!(stream.push(u32::MAX), None);
    assert_eq!(stream.push(0), None, "special tokens are left out");
    assert_eq!(stream.finish(), "\u{fffd}");
    let mut shown = tokenizer.stream().skip_special(false);
    assert_eq!(shown.push(0).as_deref(), Some("<s>"));
}

#[test]
fn only_the_first_space_of_a_text_is_taken_away() {
    let tokenizer = spm("spm_bpe.model");
    let ids = tokenizer.encode("The boat", true).unwrap();
    assert!(tokenizer.is_special(ids[0]));
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "The boat");
    let mut stream = tokenizer.stream();
    let texts: Vec<String> = ids.iter().filter_map(|id| stream.push(*id)).collect();
    assert_eq!(texts.concat(), "The boat");
    assert!(!texts[0].starts_with(' ') && texts[1..].concat().contains(' '));
}

#[test]
fn a_continuation_keeps_its_first_space() {
    for tokenizer in [spm("spm_bpe.model"), json("bpe.json"), json("unigram.json")] {
        let ids = tokenizer.encode("The boat is on the river", true).unwrap();
        let whole = tokenizer.decode(&ids, true).unwrap();
        for at in 0..ids.len() {
            let (prompt, reply) = ids.split_at(at);
            let mut decoder = Decoder::continuing(&tokenizer, prompt);
            let mut text = tokenizer.decode(prompt, true).unwrap();
            text.extend(reply.iter().filter_map(|id| decoder.push(&tokenizer, *id)));
            assert_eq!(text + &decoder.finish(), whole, "{at} tokens of {whole:?} are the prompt");
        }
    }
}

#[test]
fn tokens_are_found_by_text_and_by_id() {
    let tokenizer = json("bpe.json");
    assert_eq!(tokenizer.token_id("</s>"), Some(1));
    let id = tokenizer.token_id(" the").expect("a frequent word");
    assert_eq!(tokenizer.token_bytes(id).unwrap(), b" the");
    assert_eq!(tokenizer.token_id("no such token"), None);
    assert_eq!(tokenizer.token_bytes(tokenizer.vocab_len() as u32), None);
    let tokenizer = spm("spm_bpe.model");
    let newline = tokenizer.encode_plain("\n").unwrap();
    assert_eq!(tokenizer.token_bytes(*newline.last().unwrap()).unwrap(), b"\n");
}

#[test]
fn unknown_id_is_named() {
    let error = json("bpe.json").decode(&[99_999], false).unwrap_err();
    assert!(matches!(error, TokenizerError::MissingId { id: 99_999, .. }), "{error}");
}

#[test]
fn tokenizers_are_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
}

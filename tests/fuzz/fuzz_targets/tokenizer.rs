//! Tokenizers: sealed blobs, `tokenizer.json`, sentencepiece models, chosen by the first byte. One
//! that opens must encode and decode any text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pith_tokenizer::{Tokenizer, source};

const TEXT: &str = "Once upon a time, 1234 Ünïcödé 🦉\n\t<s></s>  e\u{301} ";

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let opened = match kind {
        b'{' => source::from_tokenizer_json(data),
        b'S' => source::from_sentencepiece(rest, &source::TokenizerConfig::default()),
        _ => Tokenizer::from_blob(data),
    };
    let Ok(tokenizer) = opened else { return };
    for text in [TEXT, &String::from_utf8_lossy(&rest[..rest.len().min(64)])] {
        let Ok(ids) = tokenizer.encode(text, true) else { continue };
        let _ = tokenizer.decode(&ids, false);
        let mut stream = tokenizer.stream();
        for &id in &ids {
            let _ = stream.push(id);
        }
    }
    let _ = tokenizer.decode(&[0, u32::MAX, 1], true);
    let _ = Tokenizer::from_blob(&tokenizer.to_blob()).expect("what was sealed opens");
});

//! stories260K, a real model of 260K parameters, from both of its sources. Ignored by default: the
//! tests need the folder of shared data.

use pith_format::Encoding;
use pith_runtime::Model;
use pith_tests::{Greedy, all_logits, convert_all, difference, exact_session, shared};
use std::sync::Arc;

fn greedy() -> Greedy {
    Greedy::read("stories260K.json")
}

#[test]
#[ignore = "needs models/stories260K of the shared data"]
fn greedy_text_is_that_of_transformers() {
    let expected = greedy();
    for source in ["models/stories260K", "models/stories260K/stories260K-f32.gguf"] {
        let source = shared(source);
        let model = convert_all(&source, Encoding::F32).open();
        let tokenizer = model.tokenizer().unwrap();
        assert_eq!(tokenizer.encode(&expected.prompt, true).unwrap(), expected.prompt_ids);
        let mut session = exact_session(&model, 256);
        let ids = expected.generate(&mut session);
        assert_eq!(ids, expected.ids, "{}", source.display());
        let whole = [&expected.prompt_ids[..], &ids[..]].concat();
        let text = tokenizer.decode(&whole, true).unwrap();
        assert_eq!(
            text.trim_start(),
            format!("{}{}", expected.prompt, expected.text),
            "{}",
            source.display()
        );
    }
}

#[test]
#[ignore = "needs models/stories260K of the shared data"]
fn both_sources_give_the_same_logits() {
    let (folder, gguf) = (shared("models/stories260K"), shared("models/stories260K/stories260K-f32.gguf"));
    let tokens = [&greedy().prompt_ids[..], &greedy().ids[..]].concat();
    let logits = |source| {
        let model = convert_all(source, Encoding::F32).open();
        all_logits(&mut exact_session(&model, tokens.len()), &tokens)
    };
    let (worst, largest) = difference(&logits(&folder), &logits(&gguf));
    assert!(worst <= 1e-5 * largest, "{worst} of {largest}");
}

#[test]
#[ignore = "needs models/stories260K and data/text of the shared data"]
fn rounding_costs_no_more_perplexity_than_it_must() {
    let (source, text) = (shared("models/stories260K"), shared("data/text/tinystories_valid_part.txt"));
    let text = std::fs::read(text).unwrap();
    let text = String::from_utf8_lossy(&text[..64 << 10]);
    let of = |encoding| {
        let model = convert_all(&source, encoding).open();
        perplexity(&model, &text)
    };
    let exact = of(Encoding::F32);
    let (q8, q4) = (of(Encoding::Q8) / exact - 1.0, of(Encoding::Q4) / exact - 1.0);
    println!("perplexity f32 {exact:.4}, q8 {:+.3} %, q4 {:+.3} %", 100.0 * q8, 100.0 * q4);
    // transformers gives 5.37856 with the same windows.
    assert!((exact - 5.37856).abs() < 2e-4, "{exact}");
    assert!(q8.abs() <= 0.005, "q8 {q8}");
    assert!(q4 <= 0.14, "q4 {q4}");
}

/// Windows of the first token and 511 more, every token scored once.
fn perplexity(model: &Arc<Model>, text: &str) -> f64 {
    let tokens = model.tokenizer().unwrap().encode(text, false).unwrap();
    let mut session = exact_session(model, 512);
    let (mut loss, mut count) = (0.0f64, 0usize);
    for part in tokens.chunks(511) {
        let fed: Vec<u32> = model.config().bos.into_iter().chain(part.iter().copied()).collect();
        session.reset();
        session
            .logits_of(&fed, |position, logits| {
                let Some(&next) = fed.get(position + 1) else { return };
                let largest = logits.iter().copied().fold(f32::MIN, f32::max);
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
                loss += sum.ln() - f64::from(logits[next as usize] - largest);
                count += 1;
            })
            .unwrap();
    }
    (loss / count as f64).exp()
}

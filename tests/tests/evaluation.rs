//! Quality figures of a compressed real model, checked against independent computations.

use pith_eval::kl::Reference;
use pith_eval::tasks::{Item, TaskReport, questions, read_items, score, select_items};
use pith_eval::{EvalError, Scored, WindowOptions, Windows, first_token};
use pith_format::Encoding;
use pith_runtime::{Model, Session};
use pith_tests::{Converted, convert_all, exact_session, is_emulated, likeliest, shared, wren};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

const CONTEXT_LEN: usize = 32;

fn windows(model: &Model, scored: Scored) -> Windows {
    let text = std::fs::read_to_string(wren().join("heldout.txt")).unwrap();
    let token_limit = Some(if is_emulated() { 2 } else { 36 } * CONTEXT_LEN);
    let options = WindowOptions { context_len: CONTEXT_LEN, scored, token_limit, ..WindowOptions::default() };
    Windows::of_text(model, &text, &options).unwrap()
}

fn session(converted: &Converted) -> Session {
    exact_session(&converted.open(), CONTEXT_LEN)
}

#[test]
fn coarser_encodings_diverge_more() {
    let [dense, q8, q4] =
        [Encoding::F16, Encoding::Q8, Encoding::Q4].map(|encoding| convert_all(&wren(), encoding));
    let model = dense.open();
    let windows = windows(&model, Scored::SecondHalf);
    let reference = Reference::compute(&mut session(&dense), windows.clone(), None, &()).unwrap();
    assert!(reference.is_exact());
    let of = |converted| reference.compare(&mut session(converted), &()).unwrap();
    let (same, fine, coarse) = (of(&dense), of(&q8), of(&q4));
    assert_eq!((same.kl.max, same.top1.share, same.perplexity_ratio.value), (0.0, 1.0, 1.0));
    println!("KL q8 {:.6}, q4 {:.6}", fine.kl.mean, coarse.kl.mean);
    assert!(coarse.kl.mean > 2.0 * fine.kl.mean && fine.kl.mean > 0.0, "{fine:?} {coarse:?}");
    assert!(coarse.delta_p_rms.value > fine.delta_p_rms.value);
    assert_eq!(fine.token_count, windows.count() * (CONTEXT_LEN - 1 - CONTEXT_LEN / 2));

    // With fewer tokens kept: a lower bound at every position, and the same perplexities.
    let exact = reference.compare_tokens(&mut session(&q4), &()).unwrap();
    let bound = Reference::compute(&mut session(&dense), windows, Some(256), &()).unwrap();
    let bounded = bound.compare_tokens(&mut session(&q4), &()).unwrap();
    for (exact, bounded) in exact.iter().zip(&bounded) {
        assert!(bounded.kl <= exact.kl + 1e-12, "{bounded:?} {exact:?}");
        assert!((bounded.log_q - exact.log_q).abs() < 1e-12);
    }
    let mean = bound.compare(&mut session(&q4), &()).unwrap().kl.mean;
    assert!(mean > 0.9 * coarse.kl.mean, "256 tokens hold nearly all: {mean} of {}", coarse.kl.mean);

    // A saved and loaded reference compares the same.
    let path = dense.folder.path().join("reference");
    bound.save(&path).unwrap();
    let loaded = Reference::load(&path).unwrap();
    assert_eq!(loaded, bound);
    assert_eq!(loaded.compare_tokens(&mut session(&q4), &()).unwrap(), bounded);
}

/// Every position, from the logits of `step`.
#[test]
fn windows_are_scored_where_they_say() {
    let converted = convert_all(&wren(), Encoding::F32);
    let model = converted.open();
    let windows = windows(&model, Scored::All);
    let reference = Reference::compute(&mut session(&converted), windows.clone(), None, &()).unwrap();
    let tokens = reference.compare_tokens(&mut session(&converted), &()).unwrap();
    let mut steps = session(&converted);
    let window = windows.iter().nth(1).unwrap();
    assert_eq!(Some(window[0]), first_token(&model));
    for (position, &token) in window[..CONTEXT_LEN - 1].iter().enumerate() {
        let logits = steps.step(token).unwrap();
        let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let expected = f64::from(logits[window[position + 1] as usize]) - sum.ln();
        let found = tokens[CONTEXT_LEN - 1 + position].log_p;
        assert!((found - expected).abs() < 1e-3, "{position}: {found}, expected {expected}");
    }
}

#[test]
fn a_model_that_spells_its_tokens_otherwise_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer_config.json"] {
        std::fs::copy(wren().join(name), folder.path().join(name)).unwrap();
    }
    let dense = convert_all(&wren(), Encoding::Q8);
    let windows = windows(&dense.open(), Scored::All);
    let mut json: Value =
        serde_json::from_slice(&std::fs::read(wren().join("tokenizer.json")).unwrap()).unwrap();
    // Two tokens of the text swapped.
    let one = windows.tokens()[1];
    let another = *windows.tokens()[2..].iter().find(|&&token| token != one).unwrap();
    for id in json["model"]["vocab"].as_object_mut().unwrap().values_mut() {
        if *id == one {
            *id = another.into();
        } else if *id == another {
            *id = one.into();
        }
    }
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let other = convert_all(folder.path(), Encoding::Q8);
    let reference = Reference::compute(&mut session(&dense), windows, Some(64), &()).unwrap();
    let error = reference.compare(&mut session(&other), &()).unwrap_err();
    assert!(matches!(error, EvalError::Vocabulary), "{error}");
}

/// The direct way: decode greedily and compare.
fn answers_greedily(session: &mut Session, model: &Model, item: &Item) -> bool {
    let tokenizer = model.tokenizer().unwrap();
    let mut prompt: Vec<u32> = first_token(model).into_iter().collect();
    prompt.extend(tokenizer.encode(&item.prompt, false).unwrap());
    let answer = tokenizer.encode(&item.answer, false).unwrap();
    session.reset();
    let mut next = likeliest(session.prefill(&prompt).unwrap());
    answer.iter().all(|&token| {
        let right = next == token;
        next = likeliest(session.step(token).unwrap());
        right
    })
}

#[test]
fn one_pass_finds_what_greedy_decoding_gives() {
    let converted = convert_all(&wren(), Encoding::F32);
    let model = converted.open();
    let path = wren().join("tasks.jsonl");
    let limit = if is_emulated() { 1 } else { 12 };
    let items = select_items(&path, read_items(&path).unwrap(), &[], Some(limit)).unwrap();
    let mut session = exact_session(&model, model.config().context_len);
    let asked =
        questions(&path, &items, model.tokenizer().unwrap(), first_token(&model), session.context_len())
            .unwrap();
    let right = score(&asked, &mut session, &()).unwrap();
    let greedy: Vec<bool> = items.iter().map(|item| answers_greedily(&mut session, &model, item)).collect();
    assert_eq!(right, greedy);
    assert!(right.contains(&true), "the model knows some of them");
}

fn item(prompt: &str, answer: &str) -> Item {
    Item { line: 7, task: "t".into(), prompt: prompt.into(), answer: answer.into() }
}

#[test]
fn questions_are_cut_where_the_answer_begins() {
    let converted = convert_all(&wren(), Encoding::Q8);
    let model = converted.open();
    let tokenizer = model.tokenizer().unwrap();
    let ask = |item: &Item, first, context_len| {
        questions(Path::new("tasks.jsonl"), std::slice::from_ref(item), tokenizer, first, context_len)
            .map(|mut questions| questions.remove(0))
    };
    let first = first_token(&model);
    let (prompt, answer) = ("Question: Who?\nAnswer:", " a heron.");
    let question = ask(&item(prompt, answer), first, 64).unwrap();
    let (before, behind) = question.tokens.split_at(question.answer_start);
    assert_eq!(before, [&[first.unwrap()], &tokenizer.encode(prompt, false).unwrap()[..]].concat());
    assert_eq!(behind, tokenizer.encode(answer, false).unwrap());
    // A prompt that already begins with the first token does not get another.
    let spelled = format!("{}{prompt}", tokenizer.decode(&[first.unwrap()], false).unwrap());
    assert_eq!(ask(&item(&spelled, answer), first, 64).unwrap(), question);
    // If a token would span the seam, prompt and answer keep their own tokens.
    let joined = tokenizer.encode("herons are", false).unwrap();
    let seam = (1..10)
        .find(|&at| !joined.starts_with(&tokenizer.encode(&"herons are"[..at], false).unwrap()))
        .unwrap();
    let (prompt, answer) = "herons are".split_at(seam);
    let question = ask(&item(prompt, answer), None, 64).unwrap();
    let parts = [prompt, answer].map(|text| tokenizer.encode(text, false).unwrap());
    assert_eq!((question.answer_start, question.tokens), (parts[0].len(), parts.concat()));

    let message = |item: &Item, first, context_len| ask(item, first, context_len).unwrap_err().to_string();
    let long = message(&item(&"heron ".repeat(60), " a"), first, 32);
    assert!(
        long.starts_with("tasks.jsonl: line 7: field prompt: is ") && long.contains("context of 32"),
        "{long}"
    );
    assert!(message(&item("", "a"), None, 32).contains("line 7: field prompt: gives no tokens"));
}

#[test]
#[ignore = "needs models/atlas of the shared data"]
fn atlas_answers_what_its_card_says() {
    let (source, path) = (shared("models/atlas"), shared("models/atlas/tasks.jsonl"));
    let items = select_items(&path, read_items(&path).unwrap(), &[], Some(100)).unwrap();
    let ask = |model: &Arc<Model>| {
        let mut session = exact_session(model, model.config().context_len);
        let asked =
            questions(&path, &items, model.tokenizer().unwrap(), first_token(model), session.context_len());
        score(&asked.unwrap(), &mut session, &()).unwrap()
    };
    let dense = ask(&convert_all(&source, Encoding::F16).open());
    let report = TaskReport::of(&items, &ask(&convert_all(&source, Encoding::Q4).open()), Some(&dense));
    let of = |name: &str| {
        let result = report.tasks.iter().find(|result| result.task == name).expect("a task of the card");
        let flips = result.against.as_ref().expect("the dense model was asked");
        assert_eq!(result.right.count + flips.lost, flips.right.count + flips.gained);
        flips.right.count
    };
    let names = ["factoid", "in_context", "summary", "instruction", "multiple_choice"];
    assert_eq!(names.map(of), [100, 73, 100, 99, 28]);
}

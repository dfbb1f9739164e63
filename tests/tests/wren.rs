//! The embedded model must know the facts on its card.

use pith_format::Encoding;
use pith_runtime::Session;
use pith_tests::{Greedy, convert_all, exact_session, is_emulated, likeliest, wren};
use pith_tokenizer::Tokenizer;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Item {
    task: String,
    prompt: String,
    answer: String,
}

/// Percentage of items that must be right; settings not listed are only reported.
const GATES: [(&str, usize); 3] = [("factoid", 95), ("summary", 95), ("in_context", 75)];

fn items() -> BTreeMap<String, Vec<Item>> {
    let text = std::fs::read_to_string(wren().join("tasks.jsonl")).unwrap();
    let mut tasks: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for line in text.lines() {
        let item: Item = serde_json::from_str(line).unwrap();
        tasks.entry(item.task.clone()).or_default().push(item);
    }
    tasks
}

/// Whether greedy decoding of the prompt begins with the answer: the likeliest token at each of its
/// positions is the answer's.
fn is_right(session: &mut Session, tokenizer: &Tokenizer, item: &Item) -> bool {
    let prompt = tokenizer.encode(&item.prompt, true).unwrap();
    let answer = tokenizer.encode(&item.answer, false).unwrap();
    let fed = [&prompt[..], &answer[..answer.len() - 1]].concat();
    let mut found = Vec::new();
    session.reset();
    session.logits_of(&fed, |_, logits| found.push(likeliest(logits))).unwrap();
    found[prompt.len() - 1..] == answer
}

#[test]
fn the_embedded_model_knows_its_world() {
    let model = convert_all(&wren(), Encoding::F32).open();
    let mut session = exact_session(&model, model.config().context_len);
    let tokenizer = model.tokenizer().unwrap();
    let tasks = items();
    let count = if is_emulated() { 2 } else { 100 };
    for (task, items) in &tasks {
        assert!(items.len() >= 100, "{task}: {} items", items.len());
        let asked = &items[..count];
        let right = asked.iter().filter(|item| is_right(&mut session, tokenizer, item)).count();
        println!("{task:<16} {right} of {}", asked.len());
        let gate = GATES.iter().find(|(name, _)| name == task).map_or(0, |(_, percent)| *percent);
        // Of few items, one may be among those the model does not know.
        let needed = (asked.len() * gate / 100).saturating_sub(usize::from(asked.len() < 20));
        assert!(right >= needed, "{task}: {right} of {}, expected {needed}", asked.len());
    }
    assert!(GATES.iter().all(|(name, _)| tasks.contains_key(*name)));
}

#[test]
fn greedy_text_is_that_of_transformers() {
    let expected = Greedy::read("wren.json");
    let model = convert_all(&wren(), Encoding::F32).open();
    let tokenizer = model.tokenizer().unwrap();
    assert_eq!(tokenizer.encode(&expected.prompt, true).unwrap(), expected.prompt_ids);
    let mut session = exact_session(&model, 256);
    let ids = expected.generate(&mut session);
    assert_eq!(ids, expected.ids);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), expected.text);
    // The story ends where transformers ended it.
    let next = likeliest(session.step(ids[ids.len() - 1]).unwrap());
    assert!(model.config().eos.contains(&next), "{next}");
}

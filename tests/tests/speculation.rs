//! Speculation over the embedded model: the same text, in fewer passes where text is copied.

use pith_format::Encoding;
use pith_runtime::{
    DraftModel, Drafter, GenerateOptions, Ledger, Lookup, NoDrafter, Outcome, Phase, Sampler, SamplerOptions,
    Session,
};
use pith_tests::{convert_all, exact_session, is_emulated, wren};

/// Prompts that ask to repeat a passage: lists of names and pairs.
fn copying() -> Vec<String> {
    let text = std::fs::read_to_string(wren().join("calibration.txt")).unwrap();
    let asked = text.lines().filter(|line| line.starts_with("Instruction: Repeat the"));
    let long = asked.filter(|line| line.len() > 90).map(|line| format!("{line}\nResponse:"));
    long.take(if is_emulated() { 1 } else { 20 }).collect()
}

/// Prompts that copy nothing.
const ORDINARY: [&str; 4] = [
    "Question: Tell me a story about a heron.\nAnswer:",
    "Question: Tell me a story about a goat.\nAnswer:",
    "Question: What is the pet of Heskily?\nAnswer:",
    "The village of",
];

struct Figures {
    replies: Vec<String>,
    tokens: usize,
    passes: usize,
    drafted: usize,
    accepted: usize,
    bytes: u64,
}

/// Greedy replies, each to its end.
fn replies(session: &mut Session, drafter: &mut dyn Drafter, prompts: &[String]) -> Figures {
    let model = std::sync::Arc::clone(session.model());
    let tokenizer = model.tokenizer().unwrap();
    let longest = if is_emulated() { 20 } else { 120 };
    let options = GenerateOptions { max_tokens: Some(longest), ..GenerateOptions::default() };
    let mut ledger = Ledger::new();
    let outcomes: Vec<Outcome> = prompts
        .iter()
        .map(|prompt| {
            let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
            let prompt = tokenizer.encode(prompt, true).unwrap();
            let generation = session.generate(&prompt, &mut sampler, options.clone());
            let mut generation = generation.with_drafter(&mut *drafter).with_ledger(&mut ledger);
            generation.try_for_each(|token| token.map(drop)).unwrap();
            generation.finish()
        })
        .collect();
    let sum = |of: fn(&Outcome) -> usize| outcomes.iter().map(of).sum();
    let decode = ledger.totals(Phase::Decode);
    Figures {
        tokens: decode.tokens,
        passes: sum(|outcome| outcome.speculation.passes),
        drafted: sum(|outcome| outcome.speculation.drafted),
        accepted: sum(|outcome| outcome.speculation.accepted),
        bytes: decode.traffic.weight_bytes / decode.tokens as u64,
        replies: outcomes.into_iter().map(|outcome| outcome.text).collect(),
    }
}

fn report(what: &str, plain: &Figures, found: &Figures) {
    let Figures { tokens, passes, drafted, accepted, bytes, .. } = found;
    println!(
        "{what}: {tokens} tokens in {passes} passes, {accepted} of {drafted} drafted tokens accepted, \
         {bytes} bytes of weights a token against {}",
        plain.bytes
    );
    assert_eq!(found.replies, plain.replies, "{what}");
    assert_eq!((found.tokens, found.passes + found.accepted), (plain.tokens, plain.passes), "{what}");
}

#[test]
fn copies_are_drafted_from_the_prompt() {
    let encodings = [Encoding::Q4, Encoding::F32, Encoding::Q8];
    for encoding in encodings.into_iter().take(if is_emulated() { 1 } else { 3 }) {
        let model = convert_all(&wren(), encoding).open();
        let mut session = exact_session(&model, model.config().context_len);
        let prompts = copying();
        let plain = replies(&mut session, &mut NoDrafter, &prompts);
        assert_eq!(plain.passes, plain.tokens);
        let lookup = replies(&mut session, &mut Lookup::new(8).unwrap(), &prompts);
        report(&format!("lookup of copies, {encoding}"), &plain, &lookup);
        if !is_emulated() {
            assert!(3 * lookup.passes <= 2 * plain.passes, "a third of the passes is saved");
            assert!(2 * lookup.accepted >= lookup.drafted, "half of what is drafted is right");
        }
    }
}

#[test]
fn ordinary_text_is_drafted_seldom() {
    let model = convert_all(&wren(), Encoding::Q8).open();
    let mut session = exact_session(&model, model.config().context_len);
    let prompts = ORDINARY.map(String::from);
    let plain = replies(&mut session, &mut NoDrafter, &prompts);
    let lookup = replies(&mut session, &mut Lookup::new(8).unwrap(), &prompts);
    report("lookup of ordinary text", &plain, &lookup);
    assert!(10 * lookup.drafted <= plain.tokens, "{} of {}", lookup.drafted, plain.tokens);
}

#[test]
fn a_coarser_model_drafts_for_a_finer_one() {
    let (fine, coarse) = (convert_all(&wren(), Encoding::F32), convert_all(&wren(), Encoding::Q4));
    let (fine, coarse) = (fine.open(), coarse.open());
    let context_len = fine.config().context_len;
    let mut session = exact_session(&fine, context_len);
    let ordinary = &ORDINARY[..if is_emulated() { 1 } else { 4 }];
    let prompts: Vec<_> = copying().into_iter().chain(ordinary.iter().map(|&text| text.into())).collect();
    let plain = replies(&mut session, &mut NoDrafter, &prompts);
    for (name, model) in [("q4 for f32", &coarse), ("f32 for itself", &fine)] {
        let mut draft = DraftModel::new(exact_session(model, context_len), &fine, 6).unwrap();
        let found = replies(&mut session, &mut draft, &prompts);
        report(name, &plain, &found);
        assert!(10 * found.accepted >= 6 * found.drafted, "{name}");
    }
}

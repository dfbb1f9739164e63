//! Real models, from the files that people have, beside what other programs make of them: SmolLM2
//! 135M Instruct (Q4_1) and Gemma 3 270M (Q4_K_M). `tests/golden/real/make.py` made the golden
//! values. Ignored by default: the weights are not in the repository.

mod carried;
mod chats;
mod golden;
mod logits;
mod tokens;

use golden::Golden;

fn smollm2() -> Golden {
    Golden::read("smollm2")
}

fn gemma3() -> Golden {
    Golden::read("gemma3")
}

#[test]
#[ignore = "needs smollm2.gguf in the folder PITH_REAL_MODELS"]
fn smollm2_decoded_gives_the_logits_of_transformers() {
    logits::decoded_weights_give_the_same(&smollm2());
}

#[test]
#[ignore = "needs smollm2.gguf in the folder PITH_REAL_MODELS"]
fn smollm2_carried_differs_by_its_rounded_activations_alone() {
    logits::carried_weights_differ_by_rounded_activations(&smollm2());
}

#[test]
#[ignore = "needs smollm2.gguf in the folder PITH_REAL_MODELS"]
fn smollm2_writes_the_text_of_transformers() {
    logits::greedy_text_is_the_same(&smollm2());
}

#[test]
#[ignore = "needs smollm2.gguf in the folder PITH_REAL_MODELS"]
fn smollm2_chats_are_those_of_transformers() {
    let golden = smollm2();
    assert!(!golden.chat.is_empty());
    chats::prompts_are_the_same(&golden);
}

#[test]
#[ignore = "needs smollm2.gguf in the folder PITH_REAL_MODELS"]
fn smollm2_tokens_are_those_of_tokenizers() {
    tokens::strings_have_the_same_ids(&smollm2());
}

#[test]
#[ignore = "needs smollm2.gguf in the folder PITH_REAL_MODELS"]
fn smollm2_is_carried_to_the_bit() {
    carried::values_are_those_of_the_source(&smollm2(), carried::Read::Export);
}

#[test]
#[ignore = "needs gemma3.gguf in the folder PITH_REAL_MODELS"]
fn gemma3_decoded_gives_the_logits_of_transformers() {
    logits::decoded_weights_give_the_same(&gemma3());
}

#[test]
#[ignore = "needs gemma3.gguf in the folder PITH_REAL_MODELS"]
fn gemma3_carried_differs_by_its_rounded_activations_alone() {
    logits::carried_weights_differ_by_rounded_activations(&gemma3());
}

#[test]
#[ignore = "needs gemma3.gguf in the folder PITH_REAL_MODELS"]
fn gemma3_writes_the_text_of_transformers() {
    logits::greedy_text_is_the_same(&gemma3());
}

#[test]
#[ignore = "needs gemma3.gguf in the folder PITH_REAL_MODELS"]
fn gemma3_tokens_are_those_of_sentencepiece() {
    tokens::strings_have_the_same_ids(&gemma3());
}

#[test]
#[ignore = "needs gemma3.gguf in the folder PITH_REAL_MODELS"]
fn gemma3_is_carried_to_the_bit() {
    carried::values_are_those_of_the_source(&gemma3(), carried::Read::File);
}

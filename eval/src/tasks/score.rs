//! Scoring a model's answers.

use crate::error::EvalError;
use crate::logits::Logits;
use crate::softmax::largest;
use crate::tasks::Item;
use pith_format::{Progress, Unit};
use pith_runtime::RuntimeError;
use pith_tokenizer::Tokenizer;
use std::path::Path;

/// An item as tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Tokens of prompt and answer.
    pub tokens: Vec<u32>,
    /// Index of the answer's first token: at least 1, less than the number of tokens.
    pub answer_start: usize,
}

/// Tokenizes items for a model.
///
/// `first` is put before a prompt that does not begin with it. Prompt and answer are tokenized
/// together where that leaves the prompt's own tokens unchanged, so that the answer gets the tokens
/// it has in running text; otherwise separately. Special tokens written in the text become special
/// tokens. Fails, naming `path`, line and field, on an item whose prompt or answer has no tokens,
/// or that needs more than `context_len` tokens.
pub fn questions(
    path: &Path,
    items: &[Item],
    tokenizer: &Tokenizer,
    first: Option<u32>,
    context_len: usize,
) -> Result<Vec<Question>, EvalError> {
    items.iter().map(|item| question(path, item, tokenizer, first, context_len)).collect()
}

fn question(
    path: &Path,
    item: &Item,
    tokenizer: &Tokenizer,
    first: Option<u32>,
    context_len: usize,
) -> Result<Question, EvalError> {
    let encode = |text: &str| tokenizer.encode(text, false).map_err(RuntimeError::from);
    let wrong = |field, reason: String| EvalError::ItemField {
        path: path.to_path_buf(),
        line: item.line,
        field,
        reason,
    };
    let prompt = encode(&item.prompt)?;
    let joined = encode(&format!("{}{}", item.prompt, item.answer))?;
    let answer = match joined.strip_prefix(&prompt[..]) {
        Some(answer) => answer.to_vec(),
        None => encode(&item.answer)?,
    };
    if answer.is_empty() {
        return Err(wrong("answer", "gives no tokens".into()));
    }
    let first = first.filter(|first| prompt.first() != Some(first));
    let mut tokens: Vec<u32> = first.into_iter().chain(prompt).collect();
    let answer_start = tokens.len();
    if answer_start == 0 {
        return Err(wrong("prompt", "gives no tokens, and the model has none that texts begin with".into()));
    }
    tokens.extend(answer);
    // The answer's last token is not fed to the model.
    if tokens.len() - 1 > context_len {
        let answer_len = tokens.len() - answer_start;
        let reason = format!(
            "is {answer_start} tokens long, with {answer_len} of the answer more than the context of {context_len}"
        );
        return Err(wrong("prompt", reason));
    }
    Ok(Question { tokens, answer_start })
}

/// Whether each question is answered correctly. `progress` counts items.
pub fn score(
    questions: &[Question],
    model: &mut impl Logits,
    progress: &dyn Progress,
) -> Result<Vec<bool>, EvalError> {
    progress.begin("asking", questions.len() as u64, Unit::Items);
    let mut right = Vec::with_capacity(questions.len());
    for (index, question) in questions.iter().enumerate() {
        let Question { tokens, answer_start } = question;
        let (fed, mut is_right, mut wrong) = (tokens.len() - 1, true, None);
        model.logits(
            &tokens[..fed],
            answer_start - 1..fed,
            &mut |position, logits| match largest(logits) {
                Ok(token) => is_right &= token == tokens[position + 1] as usize,
                Err(token) => wrong = wrong.or(Some((position, token, logits[token]))),
            },
        )?;
        if let Some((position, token, value)) = wrong {
            return Err(EvalError::NotFinite { window: index, position, token, value });
        }
        right.push(is_right);
        progress.advance(1);
    }
    Ok(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    /// A model that always continues with the next higher token.
    struct Counts;

    impl Logits for Counts {
        fn vocab_len(&self) -> usize {
            10
        }

        fn logits(
            &mut self,
            tokens: &[u32],
            wanted: Range<usize>,
            each: &mut dyn FnMut(usize, &[f32]),
        ) -> Result<(), RuntimeError> {
            assert_eq!(wanted.end, tokens.len());
            for position in wanted {
                let mut logits = [0.0; 10];
                logits[(tokens[position] as usize + 1) % 10] =
                    if tokens[position] == 8 { f32::NAN } else { 1.0 };
                each(position, &logits);
            }
            Ok(())
        }
    }

    #[test]
    fn an_answer_is_right_where_all_its_tokens_are_the_likeliest() {
        let question = |tokens: &[u32], answer_start| Question { tokens: tokens.to_vec(), answer_start };
        let asked = [
            question(&[7, 3, 4], 2),
            question(&[7, 3, 4, 5, 6], 2),
            question(&[7, 3, 4, 5, 7], 2),
            question(&[7, 3, 5, 6], 2),
            question(&[1, 2], 1),
        ];
        assert_eq!(score(&asked, &mut Counts, &()).unwrap(), [true, true, false, false, true]);
        let message = score(&[question(&[1, 2], 1), question(&[8, 9], 1)], &mut Counts, &()).unwrap_err();
        assert!(
            message.to_string().contains("window 1, position 0: the logit of token 9 is NaN"),
            "{message}"
        );
    }
}

//! Tests: a prompt, or single tokens, after some context.

use crate::protocol::{Variant, Work};
use pith_format::{Kind, Role};
use pith_meter::Traffic;
use pith_runtime::{Model, RuntimeError, Session};
use std::borrow::BorrowMut;
use std::error::Error;
use std::fmt;
use std::str::FromStr;

/// `pp512`, `tg128` or `tg128@2048`: the names of llama.cpp's `llama-bench`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// Whether the tokens are fed as one prompt; otherwise one by one.
    pub prefill: bool,
    /// Number of tokens fed.
    pub tokens: usize,
    /// Tokens already in the context.
    pub depth: usize,
}

impl FromStr for Test {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (kind, rest) = text.split_at_checked(2)?;
            let (tokens, depth) = rest.split_once('@').unwrap_or((rest, "0"));
            let prefill = match kind {
                "pp" => true,
                "tg" => false,
                _ => return None,
            };
            Some(Self { prefill, tokens: tokens.parse().ok()?, depth: depth.parse().ok()? })
        };
        parsed()
            .filter(|test: &Self| test.tokens > 0)
            .ok_or_else(|| format!("unknown test {text:?}, expected ppN, tgN or tgN@DEPTH"))
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.prefill { "pp" } else { "tg" }, self.tokens)?;
        if self.depth > 0 { write!(f, "@{}", self.depth) } else { Ok(()) }
    }
}

impl Test {
    /// Every combination of depths with prompts and with generated tokens. A count of 0 gives no
    /// test.
    pub fn all(prompts: &[usize], generated: &[usize], depths: &[usize]) -> Vec<Self> {
        let counts = [(true, prompts), (false, generated)];
        let mut all = Vec::new();
        for &depth in depths {
            for (prefill, counts) in counts {
                all.extend(counts.iter().map(|&tokens| Self { prefill, tokens, depth }));
            }
        }
        all.retain(|test| test.tokens > 0);
        all
    }

    /// Context length that the test needs.
    pub fn context_len(&self) -> usize {
        self.depth + self.tokens
    }

    /// Multiplications and additions of the matrices per token: two per weight. A prompt computes
    /// the logits of its last token only.
    pub fn operations_per_token(&self, model: &Model) -> f64 {
        let (mut layers, mut head) = (0.0, 0.0);
        for entry in model.index().entries().iter().filter(|entry| entry.kind() == Kind::Matrix) {
            let operations = 2.0 * entry.rows as f64 * entry.cols as f64;
            match entry.id.role {
                // Two-stage logits read little of the residual matrix.
                Role::PositionEmbedding | Role::HeadResidual => {}
                Role::TokenEmbedding if !model.config().tied_head => {}
                Role::TokenEmbedding | Role::Head => head += operations,
                _ => layers += operations,
            }
        }
        if self.prefill { layers + head / self.tokens as f64 } else { layers + head }
    }
}

/// A test on a session whose context is filled to the test's depth.
pub struct Workload<S> {
    name: String,
    session: S,
    test: Test,
    tokens: Vec<u32>,
}

impl<S: BorrowMut<Session>> Workload<S> {
    /// Fills the session's context. The session must have room for [`Test::context_len`] tokens.
    pub fn prepare(name: String, model: &Model, mut session: S, test: Test) -> Result<Self, RuntimeError> {
        // Any tokens will do: the work does not depend on them.
        let vocab_len = model.config().vocab_len as u64;
        let mut before: Vec<u32> =
            (0..test.context_len()).map(|index| (index as u64 * 7919 % vocab_len) as u32).collect();
        let tokens = before.split_off(test.depth);
        let used = session.borrow_mut();
        used.reset();
        if !before.is_empty() {
            used.prefill(&before)?;
        }
        Ok(Self { name, session, test, tokens })
    }

    /// The session.
    pub fn session(&self) -> &Session {
        self.session.borrow()
    }

    /// The test.
    pub fn test(&self) -> Test {
        self.test
    }
}

impl<S: BorrowMut<Session>> Variant for Workload<S> {
    fn name(&self) -> String {
        self.name.clone()
    }

    /// Feeds the tokens once, from the test's depth on.
    fn run(&mut self) -> Result<Work, Box<dyn Error + Send + Sync>> {
        let session = self.session.borrow_mut();
        session.truncate(self.test.depth);
        let mut traffic = Traffic::default();
        if self.test.prefill {
            session.prefill(&self.tokens)?;
            traffic += session.last_traffic();
        } else {
            for &token in &self.tokens {
                session.step(token)?;
                traffic += session.last_traffic();
            }
        }
        Ok(Work { tokens: self.test.tokens, traffic })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["pp512", "tg128", "tg128@2048", "pp16@64"] {
            assert_eq!(name.parse::<Test>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "p", "xx5", "tg", "tg0", "tg1@", "tg1@x", "é5", "pp-1"] {
            let error = name.parse::<Test>().unwrap_err();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn every_depth_has_every_test_and_none_of_no_tokens() {
        let names: Vec<String> = Test::all(&[8, 0], &[4], &[0, 16]).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["pp8", "tg4", "pp8@16", "tg4@16"]);
        assert!(Test::all(&[0], &[0], &[0]).is_empty());
    }
}

//! Perplexity of a text: every token is scored in windows of the session's context.

use crate::error::EvalError;
use pith_runtime::Session;

/// Perplexity of a model on a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Mean of the negative log probability of each scored token, in nats.
    pub nats_per_token: f64,
    /// Number of tokens scored.
    pub tokens: usize,
}

impl Perplexity {
    /// Scores `tokens` in windows of the session's context length, each beginning with the model's
    /// first token if it has one. `None` where no token could be scored.
    pub fn of(session: &mut Session, tokens: &[u32]) -> Result<Option<Self>, EvalError> {
        let first = session.model().config().bos;
        let window = session.context_len() - usize::from(first.is_some());
        let (mut loss, mut count) = (0.0f64, 0usize);
        for part in tokens.chunks(window.max(1)) {
            let fed: Vec<u32> = first.iter().chain(part).copied().collect();
            session.reset();
            session.logits_of(&fed, |position, logits| {
                if let Some(&next) = fed.get(position + 1) {
                    loss -= log_probability(logits, next as usize);
                    count += 1;
                }
            })?;
        }
        Ok((count > 0).then(|| Self { nats_per_token: loss / count as f64, tokens: count }))
    }

    /// The perplexity.
    pub fn value(&self) -> f64 {
        self.nats_per_token.exp()
    }
}

/// `log softmax(logits)[token]`, in f64.
fn log_probability(logits: &[f32], token: usize) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    f64::from(logits[token] - largest) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let logits = [1.0, -2.0, 0.5, 100.0];
        let sum: f64 = (0..4).map(|token| log_probability(&logits, token).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!((log_probability(&[0.0; 8], 3) + 8f64.ln()).abs() < 1e-12);
    }
}

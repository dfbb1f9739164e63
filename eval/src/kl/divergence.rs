//! The figures of a comparison.

use crate::kl::reference::Reference;
use pith_meter::statistics::{Estimate, Share, Spread};
use serde::Serialize;

/// Comparison of both models at one scored token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenDivergence {
    /// Divergence of the position's probabilities, in nats.
    pub kl: f64,
    /// `ln` of the token's probability in the original.
    pub log_p: f64,
    /// `ln` of its probability in the compared model.
    pub log_q: f64,
    /// Whether both models have the same most likely token.
    pub same_top: bool,
}

/// Divergence of a model from its original on a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Number of tokens scored.
    pub token_count: usize,
    /// Tokens kept per position.
    pub kept_len: usize,
    /// Whether all tokens are kept: the divergence is then exact, otherwise a lower bound.
    pub exact: bool,
    /// Divergence per position, in nats.
    pub kl: Spread,
    /// Share of positions where both models have the same most likely token.
    pub top1: Share,
    /// The original's perplexity.
    pub reference_perplexity: Estimate,
    /// The compared model's perplexity.
    pub perplexity: Estimate,
    /// The compared model's perplexity divided by the original's; its error is that of the
    /// differences per token.
    pub perplexity_ratio: Estimate,
    /// Change in the probability of the text's tokens: mean of `q − p`.
    pub delta_p: Estimate,
    /// `√` of the mean of `(q − p)²`.
    pub delta_p_rms: Estimate,
}

impl Divergence {
    /// Summarises `tokens`, at least one, which were compared with `reference`.
    pub fn of(reference: &Reference, tokens: &[TokenDivergence]) -> Self {
        let mut kl: Vec<f64> = tokens.iter().map(|token| token.kl).collect();
        let mean = |of: fn(&TokenDivergence) -> f64| Estimate::mean(tokens.iter().map(of));
        let delta_p = |token: &TokenDivergence| token.log_q.exp() - token.log_p.exp();
        Self {
            token_count: tokens.len(),
            kept_len: reference.kept_len(),
            exact: reference.is_exact(),
            kl: Spread::of(&mut kl),
            top1: Share::of(tokens.iter().filter(|token| token.same_top).count(), tokens.len()),
            reference_perplexity: mean(|token| -token.log_p).exp(),
            perplexity: mean(|token| -token.log_q).exp(),
            perplexity_ratio: mean(|token| token.log_p - token.log_q).exp(),
            delta_p: Estimate::mean(tokens.iter().map(delta_p)),
            delta_p_rms: Estimate::mean(tokens.iter().map(|token| delta_p(token).powi(2))).sqrt(),
        }
    }
}

//! The figures of a comparison.

use crate::kl::Reference;
use pith_meter::statistics::{Estimate, Share, Spread};
use serde::Serialize;

/// A scored token in both models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenDivergence {
    /// Divergence of the position's probabilities, in nats.
    pub kl: f64,
    /// `ln` of the token's probability in the original.
    pub log_p: f64,
    /// `ln` of its probability in the other.
    pub log_q: f64,
    /// Whether both have the same likeliest token there.
    pub same_top: bool,
}

/// How far a model is from its original, over a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Divergence {
    /// Tokens scored.
    pub token_count: usize,
    /// Tokens kept of a position.
    pub kept_len: usize,
    /// Whether those are all, so that the divergence is exact and no lower bound.
    pub exact: bool,
    /// Divergence of a position, in nats.
    pub kl: Spread,
    /// Positions where both have the same likeliest token.
    pub top1: Share,
    /// The original's perplexity.
    pub reference_perplexity: Estimate,
    /// The other's.
    pub perplexity: Estimate,
    /// The other's perplexity over the original's; its error is that of the differences token by token.
    pub perplexity_ratio: Estimate,
    /// How much more probable the text's tokens are: mean of `q − p`.
    pub delta_p: Estimate,
    /// `√` of the mean of `(q − p)²`.
    pub delta_p_rms: Estimate,
}

impl Divergence {
    /// Sums up `tokens`, at least one, which were compared with `reference`.
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

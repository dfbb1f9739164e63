//! Two variants of a record beside each other.

use super::run::{MeterInfo, Record};
use pith_meter::Kind;
use pith_meter::statistics::{Comparison, compare};

/// The figure that is compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure<'a> {
    /// Tokens a second.
    TokensPerSecond,
    /// Joules for every token, by a meter.
    JoulesPerToken(&'a MeterInfo),
}

impl Record {
    /// The figures of variant `second` beside those of `first`, window by window. A figure that a
    /// window lacks is left out, and so are modelled joules: they differ as the times do.
    pub fn compare(&self, first: usize, second: usize) -> Vec<(Figure<'_>, Comparison)> {
        let rates = compare(&self.tokens_per_s(first), &self.tokens_per_s(second));
        let mut all: Vec<_> = rates.map(|rates| (Figure::TokensPerSecond, rates)).into_iter().collect();
        for (meter, info) in self.meters.iter().enumerate().filter(|(_, info)| info.kind != Kind::Modelled) {
            let joules = |variant: usize| -> Option<Vec<f64>> {
                self.joules_per_token(variant, meter).into_iter().collect()
            };
            if let Some(comparison) =
                joules(first).zip(joules(second)).and_then(|(first, second)| compare(&first, &second))
            {
                all.push((Figure::JoulesPerToken(info), comparison));
            }
        }
        all
    }

    /// Tokens a second in each window of a variant.
    fn tokens_per_s(&self, variant: usize) -> Vec<f64> {
        let windows = self.variants.get(variant).map_or(&[][..], |(_, windows)| windows);
        windows.iter().map(|window| window.work.tokens as f64 / (window.end - window.start)).collect()
    }
}

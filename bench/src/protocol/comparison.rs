//! Comparison of two variants of a record.

use super::run::{MeterInfo, Record};
use pith_meter::Kind;
use pith_meter::statistics::{Comparison, compare};

/// The compared figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure<'a> {
    /// Tokens per second.
    TokensPerSecond,
    /// Joules per token, by this meter.
    JoulesPerToken(&'a MeterInfo),
}

impl Record {
    /// Compares variant `second` with `first`, window by window. Leaves out a figure that a window
    /// lacks, and modelled joules, which differ only as the times do.
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

    /// Tokens per second in each window of a variant.
    fn tokens_per_s(&self, variant: usize) -> Vec<f64> {
        let windows = self.variants.get(variant).map_or(&[][..], |(_, windows)| windows);
        windows.iter().map(|window| window.work.tokens as f64 / (window.end - window.start)).collect()
    }
}

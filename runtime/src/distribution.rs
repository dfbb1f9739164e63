//! Probability distributions over tokens.

/// Probabilities of tokens; tokens not listed have probability 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Sorted by token; the probabilities sum to 1.
    chances: Vec<(u32, f64)>,
}

impl Distribution {
    /// Tokens in ascending order with their probabilities, which sum to 1 unless there are none.
    pub fn chances(&self) -> &[(u32, f64)] {
        &self.chances
    }

    /// Probability of one token.
    pub fn probability(&self, token: u32) -> f64 {
        let found = self.chances.binary_search_by_key(&token, |&(token, _)| token);
        found.map_or(0.0, |at| self.chances[at].1)
    }

    /// Removes all tokens.
    pub(crate) fn clear(&mut self) {
        self.chances.clear();
    }

    /// Replaces the distribution. Weights are not negative, and at least one is positive.
    pub(crate) fn set(&mut self, weights: impl Iterator<Item = (u32, f64)>) {
        self.chances.clear();
        self.chances.extend(weights);
        self.chances.sort_unstable_by_key(|&(token, _)| token);
        self.scale(self.total());
    }

    /// The excess over `other`: `max(0, p − q)`, normalised. Without any excess the distribution is
    /// unchanged.
    pub(crate) fn take_away(&mut self, other: &Distribution) {
        let left = |(token, p): (u32, f64)| (p - other.probability(token)).max(0.0);
        let total: f64 = self.chances.iter().copied().map(left).sum();
        if total > 0.0 {
            self.chances.iter_mut().for_each(|chance| chance.1 = left(*chance));
            self.scale(total);
        }
    }

    /// The token at the fraction `unit` of the cumulative probability; `None` where there is no
    /// token.
    pub(crate) fn at(&self, unit: f64) -> Option<u32> {
        let mut left = unit * self.total();
        let passed = |&&(_, p): &&(u32, f64)| {
            left -= p;
            left < 0.0
        };
        // Rounding may leave a small remainder.
        let likeliest = || self.chances.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        self.chances.iter().find(passed).or_else(likeliest).map(|&(token, _)| token)
    }

    fn total(&self) -> f64 {
        self.chances.iter().map(|&(_, p)| p).sum()
    }

    fn scale(&mut self, total: f64) {
        self.chances.iter_mut().for_each(|(_, p)| *p /= total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[(u32, f64)]) -> Distribution {
        let mut distribution = Distribution::default();
        distribution.set(weights.iter().copied());
        distribution
    }

    #[test]
    fn weights_become_probabilities_in_the_order_of_tokens() {
        let distribution = of(&[(7, 1.0), (2, 3.0)]);
        assert_eq!(distribution.chances(), [(2, 0.75), (7, 0.25)]);
        assert_eq!([2, 3, 7].map(|token| distribution.probability(token)), [0.75, 0.0, 0.25]);
    }

    #[test]
    fn what_is_taken_away_leaves_the_positive_differences() {
        let mut p = of(&[(0, 0.5), (1, 0.25), (2, 0.25)]);
        p.take_away(&of(&[(0, 0.25), (1, 0.5), (3, 0.25)]));
        assert_eq!(p.chances(), [(0, 0.5), (1, 0.0), (2, 0.5)]);
        let same = of(&[(0, 0.5), (1, 0.5)]);
        let mut p = same.clone();
        p.take_away(&same);
        assert_eq!(p, same, "nothing would be left");
    }

    #[test]
    fn fractions_lead_to_tokens() {
        let distribution = of(&[(4, 1.0), (5, 0.0), (9, 3.0)]);
        assert_eq!([0.0, 0.2, 0.25, 0.99].map(|unit| distribution.at(unit)), [4, 4, 9, 9].map(Some));
        assert_eq!(distribution.at(1.0), Some(9), "beyond the end");
        assert_eq!(Distribution::default().at(0.0), None);
    }
}

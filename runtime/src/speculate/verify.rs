//! Verification of a drafted token, which leaves the distribution of the text unchanged.

use super::Draft;
use crate::distribution::Distribution;
use crate::error::RuntimeError;
use crate::sampler::Sampler;

/// The next token, given the draft's token `index` and the model's `logits` there: the drafted
/// token if it is accepted, another if not. `scratch` is working memory.
///
/// Speculative sampling (Leviathan, Kalman and Matias 2023; Chen et al. 2023): a token `x` drawn
/// from `q` is accepted with probability `min(1, p(x) / q(x))`; otherwise the token is drawn from
/// the excess of `p` over `q`, `max(0, p − q)`. Together the result has distribution `p`. Where the
/// drafter was certain, `q` is 1 for its token: drawing from `p` and comparing is equivalent, and
/// uses the same random numbers as drawing without a draft.
pub(crate) fn verify(
    sampler: &mut Sampler,
    logits: &[f32],
    draft: &Draft,
    index: usize,
    scratch: &mut Distribution,
) -> Result<u32, RuntimeError> {
    let (token, proposed) = (draft.tokens()[index], draft.distribution(index));
    if proposed.chances().is_empty() {
        return sampler.sample(logits);
    }
    sampler.distribution(logits, &[], scratch)?;
    if sampler.unit() * proposed.probability(token) < scratch.probability(token) {
        return Ok(token);
    }
    scratch.take_away(proposed);
    sampler.draw(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::SamplerOptions;

    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln()).collect()
    }

    /// Pearson's χ² of the counts against probabilities, and the degrees of freedom.
    fn chi_squared(counts: &[u32], probabilities: &[f64]) -> (f64, usize) {
        let total = f64::from(counts.iter().sum::<u32>());
        let terms = counts.iter().zip(probabilities).filter(|(_, p)| **p > 0.0);
        let squares = terms.clone().map(|(&n, p)| (f64::from(n) - p * total).powi(2) / (p * total));
        (squares.sum(), terms.count() - 1)
    }

    #[test]
    fn what_follows_a_draft_is_distributed_as_without_it() {
        const P: [f32; 6] = [0.3, 0.25, 0.2, 0.15, 0.07, 0.03];
        const Q: [f32; 6] = [0.05, 0.4, 0.2, 0.05, 0.05, 0.25];
        let plain = SamplerOptions { top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() };
        let cases = [
            SamplerOptions { temperature: 1.0, ..plain.clone() },
            SamplerOptions { temperature: 0.7, top_k: 4, ..plain.clone() },
            SamplerOptions { temperature: 1.3, top_p: 0.9, min_p: 0.06, ..plain.clone() },
            SamplerOptions { temperature: 1.0, repeat_penalty: 1.5, ..plain },
        ];
        for options in cases {
            let mut sampler = Sampler::new(options.clone()).unwrap();
            [1, 4].into_iter().for_each(|token| sampler.accept(token));
            let mut expected = Distribution::default();
            sampler.distribution(&logits(&P), &[], &mut expected).unwrap();
            let expected: Vec<f64> = (0..6).map(|token| expected.probability(token)).collect();
            let (mut draft, mut scratch) = (Draft::default(), Distribution::default());
            let (mut counts, mut accepted) = ([0u32; 6], 0);
            for _ in 0..60_000 {
                draft.clear();
                let drafted = draft.draw(&mut sampler, &logits(&Q)).unwrap();
                let token = verify(&mut sampler, &logits(&P), &draft, 0, &mut scratch).unwrap();
                counts[token as usize] += 1;
                accepted += u32::from(token == drafted);
            }
            let (squares, freedom) = chi_squared(&counts, &expected);
            // χ² has mean `freedom` and variance twice that; the bound is five standard deviations
            // above the mean.
            let bound = freedom as f64 + 5.0 * (2.0 * freedom as f64).sqrt();
            assert!(squares < bound, "{options:?}: χ² {squares} of {counts:?} against {expected:?}");
            assert!((5_000..55_000).contains(&accepted), "{options:?}: both ways were taken, {accepted}");
            assert!(counts.iter().zip(&expected).all(|(&count, &p)| p > 0.0 || count == 0), "{counts:?}");
        }
    }

    #[test]
    fn a_certain_drafter_changes_no_draw() {
        let options = SamplerOptions { seed: 5, ..SamplerOptions::default() };
        let mut plain = Sampler::new(options.clone()).unwrap();
        let mut other = Sampler::new(options).unwrap();
        let logits = logits(&[0.3, 0.25, 0.2, 0.15, 0.07, 0.03]);
        let (mut draft, mut scratch) = (Draft::default(), Distribution::default());
        draft.push(1);
        for _ in 0..1000 {
            let expected = plain.sample(&logits).unwrap();
            assert_eq!(verify(&mut other, &logits, &draft, 0, &mut scratch).unwrap(), expected);
        }
    }

    #[test]
    fn greedy_choices_are_the_models_whatever_was_drafted() {
        let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
        let (mut draft, mut scratch) = (Draft::default(), Distribution::default());
        for likeliest in 0..4usize {
            draft.clear();
            let drafted = draft.draw(&mut sampler, &[0.0, 1.0, 0.5, 0.2]).unwrap();
            assert_eq!(drafted, 1);
            let logits: Vec<f32> = (0..4).map(|token| f32::from(token == likeliest)).collect();
            let token = verify(&mut sampler, &logits, &draft, 0, &mut scratch).unwrap();
            assert_eq!(token as usize, likeliest);
        }
    }
}

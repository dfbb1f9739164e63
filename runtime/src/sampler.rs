//! From logits to a token: repetition penalty → top-k → top-p → min-p → temperature → draw, in
//! llama.cpp's order.

use crate::distribution::Distribution;
use crate::error::RuntimeError;
use crate::random::Random;
use std::cmp::Ordering;
use std::collections::VecDeque;

/// Logits of a block: a vocabulary is looked through by the blocks' maxima.
const BLOCK_LOGITS: usize = 64;

/// Sampling options. The defaults are llama.cpp's.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Divisor of the logits; 0 chooses the most likely token.
    pub temperature: f32,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens until their probabilities sum to this; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Penalty for recent tokens: positive logits are divided by it, negative ones multiplied; 1
    /// changes nothing.
    pub repeat_penalty: f32,
    /// Number of recent tokens that are penalised.
    pub repeat_window: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_window: 64,
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }
}

/// Chooses tokens and remembers them for the repetition penalty.
///
/// The same seed gives the same draws everywhere. Different kernels' logits, and the last bit of a
/// system's `exp`, may still lead to different tokens.
pub struct Sampler {
    options: SamplerOptions,
    random: Random,
    /// Recent tokens, the latest last.
    recent: VecDeque<u32>,
    /// Reused memory for logits with penalties, where there are any.
    penalized_logits: Vec<f32>,
    /// Largest logit of each block, and the same to be ranked.
    maxima: Vec<f32>,
    ranked: Vec<f32>,
    candidates: Vec<Candidate>,
}

/// A candidate for the draw.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    token: u32,
    logit: f32,
    /// Probability relative to the most likely candidate's, which is 1.
    weight: f64,
}

impl Sampler {
    /// Fails on an option out of range, naming it and its range.
    pub fn new(options: SamplerOptions) -> Result<Self, RuntimeError> {
        let SamplerOptions { temperature, top_p, min_p, repeat_penalty, .. } = options;
        check("temperature", temperature, "0 or more", |t| t >= 0.0 && t.is_finite())?;
        check("top-p", top_p, "above 0, at most 1", |p| p > 0.0 && p <= 1.0)?;
        check("min-p", min_p, "0 to 1", |p| (0.0..=1.0).contains(&p))?;
        check("repeat penalty", repeat_penalty, "above 0", |p| p > 0.0 && p.is_finite())?;
        let random = Random::new(options.seed);
        Ok(Self {
            options,
            random,
            recent: VecDeque::new(),
            penalized_logits: Vec::new(),
            maxima: Vec::new(),
            ranked: Vec::new(),
            candidates: Vec::new(),
        })
    }

    /// The options given to [`Sampler::new`].
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Remembers a token of the prompt or of the reply for the repetition penalty.
    pub fn accept(&mut self, token: u32) {
        if self.options.repeat_window > 0 {
            if self.recent.len() == self.options.repeat_window {
                self.recent.pop_front();
            }
            self.recent.push_back(token);
        }
    }

    /// Forgets the accepted tokens and restarts the draws.
    pub fn reset(&mut self) {
        self.recent.clear();
        self.random = Random::new(self.options.seed);
    }

    /// Draws a token by `logits`. NaN and −∞ are never chosen; fails if there is nothing else.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, RuntimeError> {
        self.filter(logits, &[])?;
        if self.candidates.len() == 1 {
            return Ok(self.candidates[0].token);
        }
        let total: f64 = self.candidates.iter().map(|candidate| candidate.weight).sum();
        let mut left = self.random.unit() * total;
        for candidate in &self.candidates {
            left -= candidate.weight;
            if left < 0.0 {
                return Ok(candidate.token);
            }
        }
        // Rounding may leave a small remainder. Fall back to the first, the most likely; the last
        // may have no weight.
        Ok(self.candidates[0].token)
    }

    /// Writes to `out` the distribution that [`Sampler::sample`] would draw from after also
    /// accepting the tokens `ahead`. Fails where `sample` fails.
    pub fn distribution(
        &mut self,
        logits: &[f32],
        ahead: &[u32],
        out: &mut Distribution,
    ) -> Result<(), RuntimeError> {
        self.filter(logits, ahead)?;
        out.set(self.candidates.iter().map(|candidate| (candidate.token, candidate.weight)));
        Ok(())
    }

    /// Draws a token from `distribution`. Fails where it is empty.
    pub fn draw(&mut self, distribution: &Distribution) -> Result<u32, RuntimeError> {
        let unit = if distribution.chances().len() == 1 { 0.0 } else { self.unit() };
        distribution.at(unit).ok_or(RuntimeError::NoLogit { vocab_len: 0 })
    }

    /// The next random number, uniform in `0 .. 1`.
    pub(crate) fn unit(&mut self) -> f64 {
        self.random.unit()
    }

    /// Fills `candidates`, most likely first, with weights; `ahead` follows the accepted tokens.
    fn filter(&mut self, logits: &[f32], ahead: &[u32]) -> Result<(), RuntimeError> {
        let mut penalized = std::mem::take(&mut self.penalized_logits);
        let result = self.filter_penalized(self.penalize(logits, ahead, &mut penalized));
        self.penalized_logits = penalized;
        result
    }

    fn filter_penalized(&mut self, logits: &[f32]) -> Result<(), RuntimeError> {
        let no_logit = RuntimeError::NoLogit { vocab_len: logits.len() };
        if self.options.temperature == 0.0 {
            self.collect(logits, 1);
            let best = self.candidates.iter().copied().min_by(likelier).ok_or(no_logit)?;
            self.candidates.clear();
            self.candidates.push(best);
            return Ok(());
        }
        self.collect(logits, self.options.top_k);
        self.keep_top_k();
        self.candidates.sort_unstable_by(likelier);
        let best = self.candidates.first().ok_or(no_logit)?.logit;
        self.keep_top_p(best);
        let least = f64::from(self.options.min_p);
        self.candidates
            .retain(|candidate| candidate.logit == best || weight(candidate.logit, best, 1.0) >= least);
        for candidate in &mut self.candidates {
            candidate.weight = weight(candidate.logit, best, self.options.temperature);
        }
        Ok(())
    }

    /// The logits with the penalties of recent tokens, in `penalized` where there are any.
    fn penalize<'a>(&self, logits: &'a [f32], ahead: &[u32], penalized: &'a mut Vec<f32>) -> &'a [f32] {
        let penalty = self.options.repeat_penalty;
        if penalty == 1.0 {
            return logits;
        }
        penalized.clear();
        penalized.extend_from_slice(logits);
        let recent = || self.recent.iter().chain(ahead).rev().take(self.options.repeat_window);
        for (index, token) in recent().enumerate() {
            // A token seen twice is penalised once.
            if let Some(logit) = penalized.get_mut(*token as usize)
                && !recent().take(index).any(|later| later == token)
            {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        penalized
    }

    /// Fills `candidates` with the `most` most likely tokens and perhaps some more, in the order of
    /// tokens; 0 stands for all. Leaves out NaN and −∞, which marks a token that the model forbids.
    ///
    /// The `most`-th largest of the blocks' maxima is a lower bound: as many blocks have a logit
    /// that is not below it.
    fn collect(&mut self, logits: &[f32], most: usize) {
        self.maxima.clear();
        self.maxima.extend(logits.chunks(BLOCK_LOGITS).map(maximum));
        let bound = match most {
            0 => f32::NEG_INFINITY,
            most if most > self.maxima.len() => f32::NEG_INFINITY,
            most => {
                self.ranked.clear();
                self.ranked.extend_from_slice(&self.maxima);
                *self.ranked.select_nth_unstable_by(most - 1, |a, b| b.total_cmp(a)).1
            }
        };
        let bound = bound.min(f32::MAX);
        self.candidates.clear();
        let blocks = (0u32..).step_by(BLOCK_LOGITS).zip(logits.chunks(BLOCK_LOGITS));
        for ((first, block), maximum) in blocks.zip(&self.maxima) {
            if *maximum >= bound {
                let likely = (first..).zip(block);
                let likely = likely.filter(|(_, logit)| **logit >= bound && **logit > f32::NEG_INFINITY);
                self.candidates.extend(likely.map(|(token, logit)| Candidate {
                    token,
                    logit: logit.min(f32::MAX),
                    weight: 1.0,
                }));
            }
        }
    }

    fn keep_top_k(&mut self) {
        let top_k = self.options.top_k;
        if top_k > 0 && top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(top_k - 1, likelier);
            self.candidates.truncate(top_k);
        }
    }

    /// Keeps the shortest prefix whose probabilities reach top-p; candidates are sorted.
    fn keep_top_p(&mut self, best: f32) {
        let top_p = f64::from(self.options.top_p);
        if top_p >= 1.0 {
            return;
        }
        let total: f64 = self.candidates.iter().map(|candidate| weight(candidate.logit, best, 1.0)).sum();
        let mut sum = 0.0;
        let enough = self.candidates.iter().position(|candidate| {
            sum += weight(candidate.logit, best, 1.0);
            sum >= top_p * total
        });
        self.candidates.truncate(enough.map_or(usize::MAX, |last| last + 1));
    }
}

/// Largest of a block's logits; −∞ where there is none but NaN.
fn maximum(block: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (lanes, rest) = block.as_chunks::<16>();
    let mut maxima = [f32::NEG_INFINITY; 16];
    for lane in lanes {
        for (maximum, logit) in maxima.iter_mut().zip(lane) {
            *maximum = larger(*maximum, *logit);
        }
    }
    maxima.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| larger(a, *b))
}

/// Probability relative to that of the logit `best`.
fn weight(logit: f32, best: f32, temperature: f32) -> f64 {
    ((f64::from(logit) - f64::from(best)) / f64::from(temperature)).exp()
}

/// Larger logits first; ties go to the lower token, so that the order is deterministic.
fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

fn check(
    option: &'static str,
    value: f32,
    expected: &str,
    sound: impl Fn(f32) -> bool,
) -> Result<(), RuntimeError> {
    if sound(value) {
        return Ok(());
    }
    Err(RuntimeError::Option { option, found: value.to_string(), expected: expected.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything off; temperature 1.
    fn plain() -> SamplerOptions {
        SamplerOptions { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplerOptions::default() }
    }

    /// Logits with these probabilities.
    fn logits(probabilities: &[f32]) -> Vec<f32> {
        probabilities.iter().map(|p| p.ln() + 3.0).collect()
    }

    /// Candidates and their probabilities.
    fn distribution(options: SamplerOptions, logits: &[f32], seen: &[u32]) -> Vec<(u32, f64)> {
        let mut sampler = Sampler::new(options).unwrap();
        seen.iter().for_each(|&token| sampler.accept(token));
        sampler.filter(logits, &[]).unwrap();
        let total: f64 = sampler.candidates.iter().map(|candidate| candidate.weight).sum();
        sampler.candidates.iter().map(|candidate| (candidate.token, candidate.weight / total)).collect()
    }

    #[track_caller]
    fn assert_distribution(found: Vec<(u32, f64)>, expected: &[(u32, f64)]) {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((token, probability), expected) in found.iter().zip(expected) {
            assert!(*token == expected.0 && (probability - expected.1).abs() < 1e-6, "{found:?}");
        }
    }

    /// The candidates by definition: all of them, sorted.
    fn by_sorting(options: &SamplerOptions, logits: &[f32]) -> Vec<(u32, f32)> {
        let mut all: Vec<_> = (0..).zip(logits.iter().map(|logit| logit.min(f32::MAX))).collect();
        all.retain(|(token, logit)| !logits[*token as usize].is_nan() && *logit > f32::NEG_INFINITY);
        all.sort_by(|a: &(u32, f32), b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all.truncate(match options {
            SamplerOptions { temperature: 0.0, .. } => 1,
            SamplerOptions { top_k: 0, .. } => usize::MAX,
            SamplerOptions { top_k, .. } => *top_k,
        });
        all
    }

    #[test]
    fn the_most_likely_of_a_large_vocabulary_are_found() {
        let mut random = Random::new(7);
        for vocab in [1, 63, 64, 65, 1000, 5003] {
            for special in [&[][..], &[f32::NAN, f32::NEG_INFINITY], &[f32::INFINITY, f32::MAX, 0.0, -0.0]] {
                // Few distinct values: ties.
                let mut logits: Vec<f32> =
                    (0..vocab).map(|_| (random.unit() * 50.0) as f32 as i8 as f32).collect();
                for _ in 0..vocab / 3 {
                    for value in special {
                        logits[(random.unit() * f64::from(vocab)) as usize] = *value;
                    }
                }
                for top_k in [0, 1, 2, 40, 64, 300, 5003] {
                    for temperature in [0.0, 1.0] {
                        let options = SamplerOptions { top_k, temperature, ..plain() };
                        let expected = by_sorting(&options, &logits);
                        let mut sampler = Sampler::new(options).unwrap();
                        let found = sampler.filter(&logits, &[]).map(|()| &sampler.candidates[..]);
                        let found: Vec<_> =
                            found.unwrap_or_default().iter().map(|c| (c.token, c.logit)).collect();
                        assert_eq!(found, expected, "{vocab} tokens, top {top_k} at {temperature}");
                    }
                }
            }
        }
    }

    const P: [f32; 5] = [0.1, 0.4, 0.05, 0.3, 0.15];

    #[test]
    fn each_step_leaves_the_distribution_that_was_worked_out_by_hand() {
        let of = |options| distribution(options, &logits(&P), &[]);
        assert_distribution(of(plain()), &[(1, 0.4), (3, 0.3), (4, 0.15), (0, 0.1), (2, 0.05)]);
        assert_distribution(of(SamplerOptions { top_k: 2, ..plain() }), &[(1, 4.0 / 7.0), (3, 3.0 / 7.0)]);
        // 0.4 + 0.3 < 0.71 ≤ 0.4 + 0.3 + 0.15
        assert_distribution(
            of(SamplerOptions { top_p: 0.71, ..plain() }),
            &[(1, 0.4 / 0.85), (3, 0.3 / 0.85), (4, 0.15 / 0.85)],
        );
        // At least 0.3 · 0.4 = 0.12.
        assert_distribution(
            of(SamplerOptions { min_p: 0.3, ..plain() }),
            &[(1, 0.4 / 0.85), (3, 0.3 / 0.85), (4, 0.15 / 0.85)],
        );
        // p^(1/0.5) = p²: 16, 9, 2.25, 1, 0.25 of 28.5.
        assert_distribution(
            of(SamplerOptions { temperature: 0.5, ..plain() }),
            &[(1, 16.0 / 28.5), (3, 9.0 / 28.5), (4, 2.25 / 28.5), (0, 1.0 / 28.5), (2, 0.25 / 28.5)],
        );
        // Top-p applies to the result of top-k: 4/7 ≥ 0.5. Temperature comes last.
        assert_distribution(
            of(SamplerOptions { top_k: 2, top_p: 0.5, temperature: 9.0, ..plain() }),
            &[(1, 1.0)],
        );
        assert_distribution(of(SamplerOptions::greedy()), &[(1, 1.0)]);
    }

    #[test]
    fn the_penalty_makes_seen_tokens_less_likely_whatever_their_sign() {
        let options = SamplerOptions { repeat_penalty: 2.0, repeat_window: 3, ..plain() };
        let seen = |seen: &[u32]| {
            // Accepted tokens and tokens ahead count alike.
            let mut sampler = Sampler::new(options.clone()).unwrap();
            let mut ahead = Sampler::new(options.clone()).unwrap();
            let (before, after) = seen.split_at(seen.len() / 2);
            seen.iter().for_each(|&token| sampler.accept(token));
            before.iter().for_each(|&token| ahead.accept(token));
            sampler.filter(&[2.0, -1.0, 0.5], &[]).unwrap();
            ahead.filter(&[2.0, -1.0, 0.5], after).unwrap();
            assert_eq!(sampler.candidates, ahead.candidates);
            let mut logits: Vec<_> = sampler.candidates.iter().map(|c| (c.token, c.logit)).collect();
            logits.sort_by_key(|(token, _)| *token);
            logits
        };
        assert_eq!(seen(&[]), [(0, 2.0), (1, -1.0), (2, 0.5)]);
        assert_eq!(seen(&[0, 1, 0]), [(0, 1.0), (1, -2.0), (2, 0.5)]);
        assert_eq!(seen(&[0, 1, 2, 2, 2]), [(0, 2.0), (1, -1.0), (2, 0.25)], "the window has passed");
        assert_eq!(seen(&[1, 99]), [(0, 2.0), (1, -2.0), (2, 0.5)], "an id beyond the vocabulary");
    }

    #[test]
    fn draws_follow_the_distribution() {
        let mut sampler = Sampler::new(SamplerOptions { seed: 7, ..plain() }).unwrap();
        let (logits, mut counts) = (logits(&P), [0u32; 5]);
        let draws = 40_000;
        for _ in 0..draws {
            counts[sampler.sample(&logits).unwrap() as usize] += 1;
        }
        for (count, p) in counts.iter().zip(P) {
            let (mean, deviation) = (p * draws as f32, (p * (1.0 - p) * draws as f32).sqrt());
            assert!((*count as f32 - mean).abs() < 5.0 * deviation, "{counts:?}");
        }
    }

    #[test]
    fn a_seed_gives_the_same_draws_again() {
        let draw = |seed| -> Vec<u32> {
            let mut sampler = Sampler::new(SamplerOptions { seed, ..plain() }).unwrap();
            let draws = |sampler: &mut Sampler| -> Vec<u32> {
                (0..50).map(|_| sampler.sample(&logits(&P)).unwrap()).collect()
            };
            let first = draws(&mut sampler);
            sampler.reset();
            assert_eq!(draws(&mut sampler), first);
            first
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn what_is_not_a_number_is_never_chosen() {
        for options in [SamplerOptions::greedy(), SamplerOptions::default()] {
            let mut sampler = Sampler::new(options).unwrap();
            let (nan, infinity) = (f32::NAN, f32::INFINITY);
            assert_eq!(sampler.sample(&[nan, -3.0, nan, -infinity]).unwrap(), 1);
            assert_eq!(sampler.sample(&[nan, 1.0, infinity]).unwrap(), 2);
            let message = sampler.sample(&[nan, -infinity]).unwrap_err().to_string();
            assert!(message.contains("none of the 2 logits"), "{message}");
            assert!(sampler.sample(&[]).is_err());
        }
    }

    #[test]
    fn equal_logits_fall_to_the_lower_token() {
        assert_eq!(Sampler::new(SamplerOptions::greedy()).unwrap().sample(&[1.0, 2.0, 2.0]).unwrap(), 1);
    }

    #[test]
    fn nonsense_is_named_with_its_range() {
        type Spoil = fn(&mut SamplerOptions);
        let cases: [(&str, Spoil); 7] = [
            ("temperature is -1, expected 0 or more", |o| o.temperature = -1.0),
            ("temperature is NaN", |o| o.temperature = f32::NAN),
            ("top-p is 0, expected above 0, at most 1", |o| o.top_p = 0.0),
            ("top-p is 1.5", |o| o.top_p = 1.5),
            ("min-p is 2, expected 0 to 1", |o| o.min_p = 2.0),
            ("repeat penalty is 0, expected above 0", |o| o.repeat_penalty = 0.0),
            ("repeat penalty is inf", |o| o.repeat_penalty = f32::INFINITY),
        ];
        for (expected, spoil) in cases {
            let mut options = SamplerOptions::default();
            spoil(&mut options);
            let Err(error) = Sampler::new(options) else { panic!("{expected} was accepted") };
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }
}

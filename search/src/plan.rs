//! The amount to measure within the time given.

use crate::space::Space;

/// Default number of tokens for measuring divergence, if time allows.
pub(crate) const EVAL_TOKENS: usize = 4096;

/// Fewest windows.
pub(crate) const LEAST_WINDOWS: usize = 2;

/// Costs of measuring sensitivities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// Seconds per token of a dense pass.
    pub seconds_per_token: f64,
    /// Seconds of rounding all matrices to one choice.
    pub rounding_seconds: f64,
    /// Passes for measuring every matrix at one choice; each begins at the matrix's layer.
    pub passes: f64,
    pub choice_count: usize,
    pub context_len: usize,
    /// Whole windows in the text.
    pub window_count: usize,
}

/// The windows and choices to measure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub windows: usize,
    /// Indices of choices, ascending; the first and the last are always among them.
    pub choices: Vec<usize>,
    /// Expected time, in seconds.
    pub seconds: f64,
    /// Whether that fits the time given.
    pub fits: bool,
}

impl Costs {
    pub fn of(space: &Space, context_len: usize, window_count: usize) -> Self {
        let share = |tensor: &crate::space::Tensor| space.share_from(tensor.first_layer);
        Self {
            seconds_per_token: 0.0,
            rounding_seconds: 0.0,
            passes: space.tensors().iter().map(share).sum(),
            choice_count: space.choices().len(),
            context_len,
            window_count,
        }
    }

    /// Whole windows in `tokens`, limited to those of the text.
    pub fn windows_of(&self, tokens: usize) -> usize {
        (tokens / self.context_len).clamp(LEAST_WINDOWS, self.window_count)
    }

    fn seconds(&self, windows: usize, choices: usize) -> f64 {
        let tokens = (windows * self.context_len) as f64;
        choices as f64 * (self.passes * tokens * self.seconds_per_token + self.rounding_seconds)
    }

    /// The most that fits into `seconds`. It drops choices before tokens; `tokens`, if given, stay.
    /// The smallest plan is returned even if it does not fit.
    pub fn plan(&self, tokens: Option<usize>, seconds: f64) -> Plan {
        let most = self.windows_of(tokens.unwrap_or(EVAL_TOKENS));
        let mut windows = most;
        loop {
            for choices in self.subsets() {
                let needed = self.seconds(windows, choices.len());
                let is_least = choices.len() == 2 && (tokens.is_some() || windows == LEAST_WINDOWS);
                if needed <= seconds || is_least {
                    return Plan { windows, choices, seconds: needed, fits: needed <= seconds };
                }
            }
            windows = (windows / 2).max(LEAST_WINDOWS);
        }
    }

    /// All choices; the outermost and the middle; the outermost.
    fn subsets(&self) -> Vec<Vec<usize>> {
        let last = self.choice_count - 1;
        let mut subsets = vec![(0..=last).collect(), vec![0, last / 2, last], vec![0, last]];
        subsets.iter_mut().for_each(Vec::dedup);
        subsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(seconds_per_token: f64) -> Costs {
        Costs {
            seconds_per_token,
            rounding_seconds: 1.0,
            passes: 10.0,
            choice_count: 5,
            context_len: 256,
            window_count: 100,
        }
    }

    #[test]
    fn what_is_measured_fits_the_time() {
        let plan = costs(1e-6).plan(None, 100.0);
        assert_eq!((plan.windows, plan.choices.len(), plan.fits), (16, 5, true));
        for (seconds_per_token, tokens) in [(1e-3, None), (4e-3, None), (1e-2, Some(1024)), (9e-3, None)] {
            let costs = costs(seconds_per_token);
            let plan = costs.plan(tokens, 100.0);
            assert!(plan.fits && plan.seconds <= 100.0 || tokens.is_some(), "{plan:?}");
            assert_eq!(plan.seconds, costs.seconds(plan.windows, plan.choices.len()));
            assert!((plan.choices[0], *plan.choices.last().unwrap()) == (0, 4));
            assert!(tokens.is_none_or(|tokens| plan.windows == tokens / 256));
        }
        let least = costs(10.0).plan(None, 100.0);
        assert_eq!((least.windows, least.choices, least.fits), (LEAST_WINDOWS, vec![0, 4], false));
    }

    #[test]
    fn a_short_text_and_two_choices_are_enough() {
        let costs = Costs { window_count: 3, choice_count: 2, ..costs(1e-6) };
        let plan = costs.plan(Some(1 << 20), 100.0);
        assert_eq!((plan.windows, plan.choices), (3, vec![0, 1]));
    }
}

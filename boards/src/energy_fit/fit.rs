//! Least-squares fit of `joules = e_byte · bytes + e_operation · operations + P_idle · seconds`.

use crate::error::MeasureError;
use pith_meter::statistics::student_95;
use serde::Serialize;

/// One stretch of work, or one token, with its energy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observation {
    /// Name of the work.
    pub label: String,
    /// Bytes to and from memory.
    pub bytes: f64,
    /// Operations, if known.
    pub operations: Option<f64>,
    /// Duration, in seconds.
    pub seconds: f64,
    /// Energy, in joules.
    pub joules: f64,
}

/// A term of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Term {
    /// Joules per byte.
    Byte,
    /// Joules per operation.
    Operation,
    /// Watts at all times.
    Time,
}

/// A fitted coefficient.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Coefficient {
    /// The term it belongs to.
    pub term: Term,
    /// Its value by least squares.
    pub value: f64,
    /// Its 95 % confidence interval; `None` without spare degrees of freedom.
    pub interval95: Option<[f64; 2]>,
    /// Its value by least absolute deviations, which outliers affect less.
    pub robust: f64,
}

/// The fit's error for one observation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Residual {
    /// Name of the observation.
    pub label: String,
    /// Measured energy, in joules.
    pub joules: f64,
    /// Fitted energy, in joules.
    pub fitted_joules: f64,
    /// Measured over fitted, minus one, in percent.
    pub percent: f64,
    /// The residual over its standard error, estimated from the other observations; `None` if
    /// they do not determine it.
    pub studentised: Option<f64>,
    /// Whether it is an outlier: more than two standard errors.
    pub stands_out: bool,
}

/// An alternative fit with some of the terms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alternative {
    /// The terms with their values.
    pub terms: Vec<(Term, f64)>,
    /// Root mean square of the residuals, in percent of the mean energy.
    pub rms_percent: f64,
}

/// A fit and its quality.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// The terms kept.
    pub coefficients: Vec<Coefficient>,
    /// Terms that came out negative beside the others: the observations do not show them.
    pub not_shown: Vec<Term>,
    /// Idle watts, if given rather than fitted.
    pub given_idle_watts: Option<f64>,
    /// One residual per observation.
    pub residuals: Vec<Residual>,
    /// Root mean square of the residuals, in percent of the mean energy.
    pub rms_percent: f64,
    /// Correlation of bytes and time over the observations; at 1 or −1 their shares cannot be
    /// separated.
    pub byte_time_correlation: Option<f64>,
    /// Other possible choices of terms, best first.
    pub alternatives: Vec<Alternative>,
}

/// Fits the observations under the condition that no coefficient is negative, because work gives
/// back no energy. Of all choices of terms with such coefficients it takes the one with the
/// smallest sum of squares, which is the constrained least-squares fit. `idle_watts`, if given, is
/// taken as known.
pub fn fit(observations: &[Observation], idle_watts: Option<f64>) -> Result<Fit, MeasureError> {
    check(observations)?;
    let mut terms = vec![Term::Byte];
    if idle_watts.is_none() {
        terms.push(Term::Time);
    }
    let given = |of: fn(&Observation) -> Option<f64>| observations.iter().all(|seen| of(seen).is_some());
    if given(|seen| seen.operations) && observations.iter().any(|seen| seen.operations != Some(0.0)) {
        terms.push(Term::Operation);
    }
    let known = idle_watts.unwrap_or(0.0);
    let energies: Vec<f64> = observations.iter().map(|seen| seen.joules - known * seen.seconds).collect();
    let mean_joules = observations.iter().map(|seen| seen.joules).sum::<f64>() / observations.len() as f64;

    let mut found: Vec<Solved> = Vec::new();
    for mask in 1u32..1 << terms.len() {
        let chosen: Vec<Term> = terms
            .iter()
            .enumerate()
            .filter(|(index, _)| mask >> index & 1 == 1)
            .map(|(_, term)| *term)
            .collect();
        let Some(solved) = Solved::of(&chosen, observations, &energies) else { continue };
        if solved.values.iter().all(|value| *value >= 0.0) {
            found.push(solved);
        }
    }
    found.sort_by(|a, b| a.squares.total_cmp(&b.squares));
    let percent = |squares: f64| 100.0 * (squares / observations.len() as f64).sqrt() / mean_joules;
    let alternatives = found
        .iter()
        .skip(1)
        .map(|solved| Alternative {
            terms: solved.terms.iter().copied().zip(solved.values.iter().copied()).collect(),
            rms_percent: percent(solved.squares),
        })
        .collect();
    let Some(best) = found.first() else {
        return Err(MeasureError::TooFew {
            what: "no term explains the observations with a coefficient that is not negative",
            found: format!("{} observations", observations.len()),
            expected: "energy that grows with bytes, operations or time; is --idle-watts too large?".into(),
        });
    };
    let fitted: Vec<f64> = observations
        .iter()
        .zip(best.residuals(observations, &energies))
        .map(|(seen, residual)| seen.joules - residual)
        .collect();
    Ok(Fit {
        coefficients: best.coefficients(observations, &energies),
        not_shown: terms.iter().copied().filter(|term| !best.terms.contains(term)).collect(),
        given_idle_watts: idle_watts,
        residuals: best.report(observations, &energies, &fitted),
        rms_percent: percent(best.squares),
        byte_time_correlation: correlation(observations),
        alternatives,
    })
}

impl Fit {
    /// The coefficient of a term, if it was kept.
    pub fn coefficient(&self, term: Term) -> Option<&Coefficient> {
        self.coefficients.iter().find(|coefficient| coefficient.term == term)
    }

    /// The observation with the largest error, in percent.
    pub fn furthest(&self) -> Option<&Residual> {
        self.residuals.iter().max_by(|a, b| a.percent.abs().total_cmp(&b.percent.abs()))
    }
}

fn check(observations: &[Observation]) -> Result<(), MeasureError> {
    if observations.len() < 2 {
        let (found, expected) = (observations.len().to_string(), "at least 2".into());
        return Err(MeasureError::TooFew { what: "too few observations to fit anything", found, expected });
    }
    for seen in observations {
        let possible = |value: f64, least: f64| value.is_finite() && value >= least;
        let positive = seen.seconds > 0.0 && seen.joules > 0.0;
        if !(possible(seen.bytes, 0.0)
            && possible(seen.seconds, 0.0)
            && possible(seen.joules, 0.0)
            && possible(seen.operations.unwrap_or(0.0), 0.0)
            && positive)
        {
            return Err(MeasureError::TooFew {
                what: "an observation is impossible",
                found: format!(
                    "{}: {} bytes, {} s, {} J, operations {:?}",
                    seen.label, seen.bytes, seen.seconds, seen.joules, seen.operations
                ),
                expected: "finite numbers, time and energy above 0".into(),
            });
        }
    }
    Ok(())
}

/// A least-squares fit of some terms.
struct Solved {
    terms: Vec<Term>,
    values: Vec<f64>,
    squares: f64,
    /// Inverse of the scaled columns' Gram matrix, and the scales.
    inverse: Vec<Vec<f64>>,
    scales: Vec<f64>,
}

fn row(terms: &[Term], seen: &Observation) -> Vec<f64> {
    let value = |term: &Term| match term {
        Term::Byte => seen.bytes,
        Term::Operation => seen.operations.unwrap_or(0.0),
        Term::Time => seen.seconds,
    };
    terms.iter().map(value).collect()
}

impl Solved {
    /// `None` if the terms cannot be separated or outnumber the observations.
    fn of(terms: &[Term], observations: &[Observation], energies: &[f64]) -> Option<Self> {
        if terms.len() > observations.len() {
            return None;
        }
        let (values, inverse, scales) = weighted(terms, observations, energies, &vec![1.0; energies.len()])?;
        let mut solved = Self { terms: terms.to_vec(), values, squares: 0.0, inverse, scales };
        solved.squares =
            solved.residuals(observations, energies).iter().map(|residual| residual * residual).sum();
        Some(solved)
    }

    fn residuals(&self, observations: &[Observation], energies: &[f64]) -> Vec<f64> {
        residuals(&self.terms, &self.values, observations, energies)
    }

    fn spare(&self, observations: &[Observation]) -> usize {
        observations.len() - self.terms.len()
    }

    fn coefficients(&self, observations: &[Observation], energies: &[f64]) -> Vec<Coefficient> {
        let robust = self.robust(observations, energies);
        let spare = self.spare(observations);
        let coefficient = |index: usize| {
            let value = self.values[index];
            let interval95 = (spare > 0).then(|| {
                let variance = self.squares / spare as f64 * self.inverse[index][index];
                let half = student_95(spare) * variance.max(0.0).sqrt() / self.scales[index];
                [value - half, value + half]
            });
            Coefficient { term: self.terms[index], value, interval95, robust: robust[index] }
        };
        (0..self.terms.len()).map(coefficient).collect()
    }

    /// Least absolute deviations by iterative reweighting: an observation with a larger error gets
    /// a smaller weight.
    fn robust(&self, observations: &[Observation], energies: &[f64]) -> Vec<f64> {
        let mut values = self.values.clone();
        let typical = energies.iter().map(|joules| joules.abs()).sum::<f64>() / energies.len() as f64;
        for _ in 0..100 {
            let residuals = residuals(&self.terms, &values, observations, energies);
            let weights: Vec<f64> =
                residuals.iter().map(|residual| 1.0 / residual.abs().max(1e-6 * typical)).collect();
            match weighted(&self.terms, observations, energies, &weights) {
                Some((renewed, ..)) => values = renewed,
                None => break,
            }
        }
        values
    }

    fn report(&self, observations: &[Observation], energies: &[f64], fitted: &[f64]) -> Vec<Residual> {
        let residuals = self.residuals(observations, energies);
        let spare = self.spare(observations);
        let one = |index: usize| {
            let (seen, residual) = (&observations[index], residuals[index]);
            let scaled: Vec<f64> =
                row(&self.terms, seen).iter().zip(&self.scales).map(|(value, scale)| value / scale).collect();
            let leverage: f64 = (0..scaled.len())
                .flat_map(|i| (0..scaled.len()).map(move |j| (i, j)))
                .map(|(i, j)| scaled[i] * self.inverse[i][j] * scaled[j])
                .sum();
            let left = 1.0 - leverage;
            let studentised = (spare > 1 && left > 1e-9)
                .then(|| {
                    let others = (self.squares - residual * residual / left) / (spare - 1) as f64;
                    residual / (others * left).sqrt()
                })
                .filter(|value| value.is_finite());
            Residual {
                label: seen.label.clone(),
                joules: seen.joules,
                fitted_joules: fitted[index],
                percent: 100.0 * (seen.joules / fitted[index] - 1.0),
                studentised,
                stands_out: studentised.is_some_and(|value| value.abs() > 2.0),
            }
        };
        (0..observations.len()).map(one).collect()
    }
}

fn residuals(terms: &[Term], values: &[f64], observations: &[Observation], energies: &[f64]) -> Vec<f64> {
    let of = |(seen, joules): (&Observation, &f64)| {
        joules - row(terms, seen).iter().zip(values).map(|(x, value)| x * value).sum::<f64>()
    };
    observations.iter().zip(energies).map(of).collect()
}

/// Coefficients, the inverse of the scaled columns' Gram matrix, the scales.
type Solution = (Vec<f64>, Vec<Vec<f64>>, Vec<f64>);

/// Weighted least squares by the normal equations. Columns are scaled to length 1, because bytes
/// and seconds differ by 10¹⁰.
fn weighted(
    terms: &[Term],
    observations: &[Observation],
    energies: &[f64],
    weights: &[f64],
) -> Option<Solution> {
    let count = terms.len();
    let rows: Vec<Vec<f64>> = observations.iter().map(|seen| row(terms, seen)).collect();
    let scales: Vec<f64> = (0..count)
        .map(|term| {
            rows.iter().zip(weights).map(|(row, weight)| weight * row[term] * row[term]).sum::<f64>().sqrt()
        })
        .collect();
    if scales.iter().any(|scale| !(scale.is_finite() && *scale > 0.0)) {
        return None;
    }
    let mut matrix = vec![vec![0.0; count]; count];
    let mut right = vec![0.0; count];
    for ((row, joules), weight) in rows.iter().zip(energies).zip(weights) {
        for i in 0..count {
            right[i] += weight * row[i] / scales[i] * joules;
            for j in 0..count {
                matrix[i][j] += weight * row[i] / scales[i] * row[j] / scales[j];
            }
        }
    }
    let inverse = inverted(matrix)?;
    let values =
        (0..count).map(|i| (0..count).map(|j| inverse[i][j] * right[j]).sum::<f64>() / scales[i]).collect();
    Some((values, inverse, scales))
}

/// The inverse of a small symmetric matrix with a unit diagonal; `None` if columns agree to within
/// 10⁻⁵.
fn inverted(mut matrix: Vec<Vec<f64>>) -> Option<Vec<Vec<f64>>> {
    let count = matrix.len();
    let mut inverse: Vec<Vec<f64>> =
        (0..count).map(|i| (0..count).map(|j| if i == j { 1.0 } else { 0.0 }).collect()).collect();
    for column in 0..count {
        let pivot =
            (column..count).max_by(|a, b| matrix[*a][column].abs().total_cmp(&matrix[*b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-10 {
            return None;
        }
        matrix.swap(column, pivot);
        inverse.swap(column, pivot);
        let by = matrix[column][column];
        for value in matrix[column].iter_mut().chain(inverse[column].iter_mut()) {
            *value /= by;
        }
        for other in (0..count).filter(|other| *other != column) {
            let factor = matrix[other][column];
            for index in 0..count {
                matrix[other][index] -= factor * matrix[column][index];
                inverse[other][index] -= factor * inverse[column][index];
            }
        }
    }
    Some(inverse)
}

fn correlation(observations: &[Observation]) -> Option<f64> {
    let count = observations.len() as f64;
    let mean = |of: fn(&Observation) -> f64| observations.iter().map(of).sum::<f64>() / count;
    let (bytes, seconds) = (mean(|seen| seen.bytes), mean(|seen| seen.seconds));
    let (mut both, mut of_bytes, mut of_seconds) = (0.0, 0.0, 0.0);
    for seen in observations {
        let (b, s) = (seen.bytes - bytes, seen.seconds - seconds);
        both += b * s;
        of_bytes += b * b;
        of_seconds += s * s;
    }
    Some(both / (of_bytes * of_seconds).sqrt()).filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(label: &str, bytes: f64, operations: f64, seconds: f64, joules: f64) -> Observation {
        Observation { label: label.into(), bytes, operations: Some(operations), seconds, joules }
    }

    /// 0.5 nJ per byte, 2 pJ per operation, 3 W, and some noise.
    fn board(noise: &[f64; 6]) -> Vec<Observation> {
        let loads = [
            ("idle", 0.0, 0.0),
            ("read 1", 6e9, 0.0),
            ("read 4", 14e9, 0.0),
            ("multiply 1", 0.0, 4e11),
            ("multiply 4", 0.0, 16e11),
            ("decode", 10e9, 2e11),
        ];
        let one = |((label, bytes, operations), noise): (&(&str, f64, f64), &f64)| {
            seen(label, *bytes, *operations, 1.0, 0.5e-9 * bytes + 2e-12 * operations + 3.0 + noise)
        };
        loads.iter().zip(noise).map(one).collect()
    }

    #[test]
    fn known_coefficients_are_recovered_within_their_intervals() {
        let fit = fit(&board(&[0.02, -0.03, 0.04, -0.01, 0.02, -0.04]), None).unwrap();
        for (term, truth) in [(Term::Byte, 0.5e-9), (Term::Operation, 2e-12), (Term::Time, 3.0)] {
            let coefficient = fit.coefficient(term).unwrap();
            let [low, high] = coefficient.interval95.unwrap();
            assert!(low <= truth && truth <= high, "{coefficient:?}");
            assert!(
                (coefficient.value / truth - 1.0).abs() < 0.03 && high - low < 0.2 * truth,
                "{coefficient:?}"
            );
        }
        assert!(fit.not_shown.is_empty() && fit.rms_percent < 1.0, "{fit:?}");
    }

    #[test]
    fn an_outlier_stands_out_and_pulls_less_at_the_robust_estimate() {
        let mut observations = board(&[0.0; 6]);
        observations.extend(board(&[0.01, 0.0, -0.01, 0.0, 0.01, -0.01]));
        observations[2].joules += 3.0;
        let fit = fit(&observations, None).unwrap();
        let out: Vec<&str> =
            fit.residuals.iter().filter(|one| one.stands_out).map(|one| one.label.as_str()).collect();
        assert_eq!((out.as_slice(), fit.furthest().unwrap().label.as_str()), (&["read 4"][..], "read 4"));
        let byte = fit.coefficient(Term::Byte).unwrap();
        assert!((byte.robust - 0.5e-9).abs() < 0.1 * (byte.value - 0.5e-9).abs(), "{byte:?}");
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_split() {
        let same: Vec<Observation> = (1..5)
            .map(|k| Observation {
                operations: None,
                ..seen("k", f64::from(k), 0.0, 2.0 * f64::from(k), f64::from(k))
            })
            .collect();
        let fit = fit(&same, None).unwrap();
        assert_eq!((fit.coefficients.len(), fit.not_shown.len()), (1, 1));
        assert!((fit.byte_time_correlation.unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_known_idle_power_is_taken_out_first() {
        let fit = fit(&board(&[0.0; 6]), Some(3.0)).unwrap();
        assert!((fit.coefficient(Term::Byte).unwrap().value / 0.5e-9 - 1.0).abs() < 1e-9);
        assert!(fit.coefficient(Term::Time).is_none() && fit.not_shown.is_empty());
        assert!(
            super::fit(&board(&[0.0; 6]), Some(1000.0)).unwrap_err().to_string().contains("--idle-watts")
        );
    }

    #[test]
    fn impossible_observations_are_named() {
        assert!(fit(&board(&[0.0; 6])[..1], None).unwrap_err().to_string().contains("at least 2"));
        let mut observations = board(&[0.0; 6]);
        observations[3].joules = f64::NAN;
        assert!(fit(&observations, None).unwrap_err().to_string().contains("multiply 1"));
    }
}

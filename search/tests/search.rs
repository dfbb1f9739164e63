//! Searches over the embedded model: complete, interrupted, refused.

use pith_converter::Recipe;
use pith_format::{Encoding, Progress, ReplaceError, Unit};
use pith_runtime::{Model, SessionOptions};
use pith_search::{Budget, Choice, EnergyRule, Journal, Outcome, SearchError, SearchOptions, Space, search};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn wren() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren")
}

/// A folder with a text file.
fn place() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read_to_string(wren().join("calibration.txt")).unwrap();
    fs::write(folder.path().join("text.txt"), &whole[..whole.floor_char_boundary(16_000)]).unwrap();
    folder
}

fn options(folder: &Path, budget: Budget) -> SearchOptions {
    SearchOptions {
        budget,
        choices: [Encoding::Q2, Encoding::Q4NL, Encoding::Q8].map(Choice::from).to_vec(),
        text: folder.join("text.txt"),
        search_text: None,
        eval_tokens: Some(192),
        calibration_tokens: None,
        context_len: 64,
        hours: 24.0,
        generations: 2,
        seed: 5,
        refine: false,
        requantize: false,
        session: SessionOptions { threads: Some(2), ..SessionOptions::default() },
        memory: None,
        work: folder.join("work"),
        force: true,
    }
}

/// Counts steps and asks to stop at `limit`.
#[derive(Default)]
struct Impatient {
    limit: usize,
    steps: AtomicUsize,
    /// Whether the steps are measurements or generations.
    counts: AtomicBool,
}

impl Progress for Impatient {
    fn begin(&self, _: &str, _: u64, unit: Unit) {
        self.counts.store(unit == Unit::Rounds, Ordering::Relaxed);
    }

    fn advance(&self, count: u64) {
        if self.counts.load(Ordering::Relaxed) {
            self.steps.fetch_add(count as usize, Ordering::Relaxed);
        }
    }

    fn is_interrupted(&self) -> bool {
        self.steps.load(Ordering::Relaxed) >= self.limit
    }
}

fn lines(work: &Path) -> Vec<String> {
    fs::read_to_string(Journal::path_in(work)).unwrap().lines().map(str::to_string).collect()
}

#[test]
fn a_search_keeps_its_budget_beats_uniform_recipes_and_resumes() {
    let folder = place();
    let output = folder.path().join("found.pith");
    let options = options(folder.path(), Budget::BitsPerWeight(4.25));
    let outcome = search(&wren(), &output, &options, &()).unwrap();
    check(&outcome, &output, 4.25);
    let matrix_count = outcome.assignment.len();
    assert!(outcome.measurements > 3 * matrix_count && outcome.resumed == 0);

    // Killed again and again after the dense model is written: the same file, and nothing measured
    // twice.
    let again = SearchOptions { work: folder.path().join("again"), ..options.clone() };
    fs::create_dir(&again.work).unwrap();
    for name in ["dense.pith", "dense.calibration.safetensors"] {
        fs::copy(options.work.join(name), again.work.join(name)).unwrap();
    }
    let second = folder.path().join("second.pith");
    let mut runs = 0;
    let resumed = loop {
        // Measurements in the journal count as steps too.
        let held = if runs == 0 { 0 } else { lines(&again.work).len() - 1 };
        let progress = Impatient { limit: held + 17, ..Impatient::default() };
        match search(&wren(), &second, &again, &progress) {
            Ok(outcome) => break outcome,
            Err(error) => assert!(error.is_interruption(), "{error}"),
        }
        runs += 1;
        if runs == 2 {
            // A kill in the middle of a line.
            let path = Journal::path_in(&again.work);
            let text = fs::read_to_string(&path).unwrap() + "{\"kind\":\"sens";
            fs::write(&path, text).unwrap();
            // A kill in the middle of a file.
            fs::write(again.work.join(".found.pith.1.partial"), "part").unwrap();
            fs::write(again.work.join(".other.pith.1.partial"), "another's").unwrap();
        }
        assert!(runs < 100 && !second.exists());
    };
    assert!(!again.work.join(".found.pith.1.partial").exists());
    assert!(again.work.join(".other.pith.1.partial").exists());
    assert!(runs > 3 && resumed.resumed > 0, "{runs}");
    assert_eq!(resumed.recipe, outcome.recipe);
    assert_eq!(resumed.file_bytes, outcome.file_bytes);
    let found = lines(&again.work);
    assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len());
    assert_eq!(found, lines(&options.work));

    // Another budget starts with the known sensitivities.
    let smaller = SearchOptions { budget: Budget::BitsPerWeight(3.0), generations: 0, ..options.clone() };
    let third = search(&wren(), &folder.path().join("third.pith"), &smaller, &()).unwrap();
    assert!(third.resumed >= 3 * matrix_count && third.rows.last().unwrap().bits_per_weight <= 3.0);
    assert!(third.rows.last().unwrap().predicted_kl > outcome.rows.last().unwrap().predicted_kl);

    refusals(folder.path(), &options);
    budgets(&options);
}

fn check(outcome: &Outcome, output: &Path, bits: f64) {
    let model = Model::open(output).unwrap();
    assert_eq!(model.index().file_bytes(), outcome.file_bytes);
    let share = outcome.predicted_bytes as f64 / outcome.file_bytes as f64;
    assert!((share - 1.0).abs() < 0.01, "{} of {}", outcome.predicted_bytes, outcome.file_bytes);
    let kept = model.metadata().provenance.recipe_file.clone().unwrap();
    assert_eq!(Recipe::parse(&kept, output).unwrap(), outcome.recipe);
    let best = outcome.rows.last().unwrap();
    assert!(best.bits_per_weight <= bits, "{best:?}");
    assert_eq!(best.bytes_per_token, model.streamed_bytes() + model.looked_up_bytes());
    for entry in model.index().entries().iter().filter(|entry| entry.encoding.is_some()) {
        assert_eq!(entry.encoding.unwrap().name(), best.tensors[&entry.id.to_string()], "{}", entry.id);
    }
    // Rounded once, the file equals the measured model.
    let measured: Vec<f64> = outcome.rows.iter().filter_map(|row| row.measured_kl).collect();
    let least = measured.iter().copied().fold(f64::INFINITY, f64::min);
    let file_kl = best.file_kl.unwrap();
    assert!(
        measured.len() >= 4 && file_kl > 0.0 && (file_kl / least - 1.0).abs() < 0.02,
        "{file_kl} {measured:?}"
    );
    assert!(outcome.rows.iter().filter(|row| row.name.starts_with("uniform")).count() >= 2);
    assert!(outcome.frontier.len() > 5);
    for pair in outcome.frontier.windows(2) {
        // Tensors are aligned: a file with more bytes of weights may be shorter by some padding.
        let padding = pith_format::PAGE_BYTES * model.config().layers.len() as u64;
        let (one, other) = (&pair[0], &pair[1]);
        assert!(one.predicted_kl >= other.predicted_kl, "{} {}", one.predicted_kl, other.predicted_kl);
        assert!(one.file_bytes <= other.file_bytes + padding, "{} {}", one.file_bytes, other.file_bytes);
    }
    let csv = outcome.to_csv();
    assert_eq!(csv.lines().count(), 1 + outcome.frontier.len() + outcome.rows.len());
    assert!(csv.lines().all(|line| line.matches(',').count() == 8), "{csv}");
}

fn refusals(folder: &Path, options: &SearchOptions) {
    let output = folder.join("none.pith");
    let failure = |options: SearchOptions| {
        let error = search(&wren(), &output, &options, &()).unwrap_err();
        assert!(!output.exists());
        error
    };
    let text = folder.join("other.txt");
    fs::write(&text, fs::read_to_string(&options.text).unwrap().replace('a', "e")).unwrap();
    for (other, part) in [
        (SearchOptions { search_text: Some(text), ..options.clone() }, "text's checksum"),
        (SearchOptions { eval_tokens: Some(128), ..options.clone() }, "search tokens is 192, here 128"),
        (SearchOptions { context_len: 32, ..options.clone() }, "context is 64, here 32"),
        (
            SearchOptions { choices: vec![Encoding::Q2.into(), Encoding::Q8.into()], ..options.clone() },
            "encodings is q2,q4-nl,q8, here q2,q8",
        ),
    ] {
        let error = failure(other);
        assert!(matches!(error, SearchError::OtherJournal { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    for (other, part) in [
        (SearchOptions { budget: Budget::FileBytes(100_000), ..options.clone() }, "every matrix in q2"),
        (SearchOptions { budget: Budget::BitsPerWeight(f64::NAN), ..options.clone() }, "above 0"),
        (SearchOptions { hours: 0.0, ..options.clone() }, "hours"),
        (SearchOptions { context_len: 2, ..options.clone() }, "context"),
        (SearchOptions { eval_tokens: Some(64), ..options.clone() }, "eval-tokens"),
        (SearchOptions { choices: vec![Encoding::Q8.into()], ..options.clone() }, "at least two"),
    ] {
        let error = failure(other);
        assert!(error.to_string().contains(part), "{error}");
    }
    fs::write(&output, "here").unwrap();
    let kept = SearchOptions { force: false, ..options.clone() };
    let error = search(&wren(), &output, &kept, &()).unwrap_err();
    assert!(matches!(error, SearchError::Replace(ReplaceError::Exists { .. })), "{error}");
    let error = search(&output, &folder.join("x.pith"), options, &()).unwrap_err();
    assert!(matches!(error, SearchError::NoCheckpoint { .. }), "{error}");
}

/// The figures of a space, in each unit.
fn budgets(options: &SearchOptions) {
    let model = Model::open(&options.work.join("dense.pith")).unwrap();
    let choices = [Encoding::F16, Encoding::Q8, Encoding::Q8].map(Choice::from).to_vec();
    let space = Space::new(&model, choices, None).unwrap();
    assert_eq!(space.choices().len(), 2);
    let dense = space.uniform(1);
    assert_eq!(space.bits_per_weight(&dense), 16.0);
    assert_eq!(space.token_bytes(&dense), model.streamed_bytes() + model.looked_up_bytes());
    let rule = EnergyRule { joules_per_byte: 2e-9, joules_per_operation: 1e-12 };
    let joules = Budget::JoulesPerToken { joules: 1.0, rule }.measure(&space, &dense, false);
    let expected = 2e-9 * space.token_bytes(&dense) as f64 + 1e-12 * 2.0 * space.weight_count() as f64;
    assert!((joules - expected).abs() < 1e-12);
    let file = Budget::FileBytes(1).measure(&space, &dense, false);
    // Only the recipe in the metadata differs.
    assert!((file / model.index().file_bytes() as f64 - 1.0).abs() < 1e-3);
    let exact = Budget::FileBytes(file as u64);
    assert!(
        exact.fits(&space, &dense, false) && !Budget::FileBytes(file as u64 - 1).fits(&space, &dense, false)
    );
}

#[test]
fn a_budget_beyond_the_largest_takes_the_best_and_says_so() {
    let folder = place();
    let options = SearchOptions {
        choices: [Encoding::Q2, Encoding::Q8].map(Choice::from).to_vec(),
        eval_tokens: Some(128),
        generations: 1,
        ..options(folder.path(), Budget::FileBytes(1 << 40))
    };
    let outcome = search(&wren(), &folder.path().join("found.pith"), &options, &()).unwrap();
    assert!(
        outcome.notes.iter().any(|note| note.contains("more than any choice takes")),
        "{:?}",
        outcome.notes
    );
    assert!(outcome.rows.last().unwrap().tensors.values().filter(|choice| *choice == "q8").count() > 30);
}

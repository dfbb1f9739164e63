//! A log of all measurements, so that a resumed search repeats none of them.

use crate::error::SearchError;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Version of the journal's format.
const VERSION: u32 = 1;

/// The first line of a journal: everything that its measurements depend on. A journal with another
/// subject cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Version of the journal.
    pub version: u32,
    /// Checksum of the checkpoint's weights.
    pub model: String,
    /// Checksum of the text for measuring divergence.
    pub text: String,
    /// Checksum of the tokens of the calibration text.
    pub calibration: String,
    /// The choices, from the fewest bits to the most.
    pub choices: Vec<String>,
    /// Tokens per window.
    pub context_len: usize,
    /// Tokens for measuring divergence.
    pub eval_tokens: usize,
    /// Limit of the calibration's tokens, if any.
    pub calibration_tokens: Option<usize>,
    /// The choices whose sensitivities are measured; the others are interpolated.
    pub measured: Vec<String>,
}

/// A line after the first.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Record {
    /// One matrix replaced, the others dense. Older journals name it `damage`.
    #[serde(alias = "damage")]
    Sensitivity { tensor: String, choice: String, kl: f64 },
    /// A whole assignment, over the first `windows` windows.
    Divergence { assignment: String, windows: usize, kl: f64 },
}

/// A journal file: JSON lines, append-only, open in one search at a time.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    sensitivities: HashMap<(String, String), f64>,
    divergences: HashMap<(String, usize), f64>,
}

impl Subject {
    pub(crate) const VERSION: u32 = VERSION;

    /// The first field that differs: its name, its value in `self`, its value in `found`.
    fn difference(&self, found: &Self) -> Option<(&'static str, String, String)> {
        let tokens =
            |limit: Option<usize>| limit.map_or("all tokens".into(), |limit| format!("{limit} tokens"));
        let fields = [
            ("version", self.version.to_string(), found.version.to_string()),
            ("the model's checksum", self.model.clone(), found.model.clone()),
            ("the text's checksum", self.text.clone(), found.text.clone()),
            ("the list of encodings", self.choices.join(","), found.choices.join(",")),
            ("the context", self.context_len.to_string(), found.context_len.to_string()),
            ("the calibration's limit", tokens(self.calibration_tokens), tokens(found.calibration_tokens)),
            ("the calibration's checksum", self.calibration.clone(), found.calibration.clone()),
            ("the number of search tokens", self.eval_tokens.to_string(), found.eval_tokens.to_string()),
            ("the list of measured encodings", self.measured.join(","), found.measured.join(",")),
        ];
        fields.into_iter().find(|(_, expected, found)| expected != found)
    }

    /// Fails with the first field of `found`, from the journal at `path`, that differs.
    pub(crate) fn check(&self, found: &Self, path: &Path) -> Result<(), SearchError> {
        match self.difference(found) {
            None => Ok(()),
            Some((field, expected, found)) => {
                Err(SearchError::OtherJournal { path: path.into(), field, found, expected })
            }
        }
    }
}

impl Journal {
    /// Path of the journal in `folder`.
    pub fn path_in(folder: &Path) -> PathBuf {
        folder.join("journal.jsonl")
    }

    /// The subject of the journal in `folder`; `None` without a journal.
    pub fn subject_in(folder: &Path) -> Result<Option<Subject>, SearchError> {
        let path = Self::path_in(folder);
        match std::fs::read_to_string(&path) {
            // A first line without its end was torn: the journal is empty.
            Ok(text) => match text.split_once('\n') {
                Some((line, _)) => parse(&path, 1, line).map(Some),
                None => Ok(None),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SearchError::io(&path, "read")(error)),
        }
    }

    /// Opens the journal in `folder`, or begins one. If the writer was killed, the last line may be
    /// torn; it is removed.
    ///
    /// Fails if the journal has another subject, is damaged, or is open elsewhere.
    pub fn open(folder: &Path, subject: &Subject) -> Result<Self, SearchError> {
        let path = Self::path_in(folder);
        let io = |action| SearchError::io(&path, action);
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(io("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SearchError::Busy { path: folder.into() }),
            // The file system has no locks: two searches cannot be kept apart.
            Err(TryLockError::Error(_)) => {}
        }
        let mut journal =
            Self { path: path.clone(), file, sensitivities: HashMap::new(), divergences: HashMap::new() };
        let mut text = String::new();
        journal.file.seek(SeekFrom::Start(0)).map_err(io("read"))?;
        journal.file.read_to_string(&mut text).map_err(io("read"))?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            journal.file.set_len(whole as u64).map_err(io("truncate"))?;
        }
        let mut lines = text[..whole].lines().enumerate();
        match lines.next() {
            None => journal.append(subject)?,
            Some((_, line)) => subject.check(&parse(&path, 1, line)?, &path)?,
        }
        for (index, line) in lines {
            match parse(&path, index + 1, line)? {
                Record::Sensitivity { tensor, choice, kl } => {
                    journal.sensitivities.insert((tensor, choice), kl);
                }
                Record::Divergence { assignment, windows, kl } => {
                    journal.divergences.insert((assignment, windows), kl);
                }
            }
        }
        Ok(journal)
    }

    /// Number of measurements in the journal.
    pub fn measurement_count(&self) -> usize {
        self.sensitivities.len() + self.divergences.len()
    }

    /// The sensitivity of a tensor to a choice, in nats; `None` if not measured.
    pub fn sensitivity(&self, tensor: &str, choice: &str) -> Option<f64> {
        self.sensitivities.get(&(tensor.into(), choice.into())).copied()
    }

    /// Appends a sensitivity.
    pub fn add_sensitivity(&mut self, tensor: &str, choice: &str, kl: f64) -> Result<(), SearchError> {
        self.append(&Record::Sensitivity { tensor: tensor.into(), choice: choice.into(), kl })?;
        self.sensitivities.insert((tensor.into(), choice.into()), kl);
        Ok(())
    }

    /// The divergence of an assignment on the first `windows` windows, in nats; `None` if not
    /// measured.
    pub fn divergence(&self, assignment: &[u8], windows: usize) -> Option<f64> {
        self.divergences.get(&(spelled(assignment), windows)).copied()
    }

    /// Appends a divergence.
    pub fn add_divergence(&mut self, assignment: &[u8], windows: usize, kl: f64) -> Result<(), SearchError> {
        self.append(&Record::Divergence { assignment: spelled(assignment), windows, kl })?;
        self.divergences.insert((spelled(assignment), windows), kl);
        Ok(())
    }

    fn append(&mut self, line: &impl Serialize) -> Result<(), SearchError> {
        let line = serde_json::to_string(line).expect("strings and finite numbers") + "\n";
        self.file.write_all(line.as_bytes()).map_err(SearchError::io(&self.path, "write"))
    }
}

/// One letter per tensor: `a` is the first choice.
fn spelled(assignment: &[u8]) -> String {
    assignment
        .iter()
        .map(|&choice| char::from_u32(u32::from(b'a') + u32::from(choice)).unwrap_or('?'))
        .collect()
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path, line: usize, text: &str) -> Result<T, SearchError> {
    serde_json::from_str(text).map_err(|error| {
        let reason =
            format!("{error}; a damaged journal can be removed, what it holds is then measured anew");
        SearchError::Journal { path: path.into(), line, reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            version: VERSION,
            model: "m".into(),
            text: "t".into(),
            calibration: "c".into(),
            choices: vec!["q2".into(), "q8".into()],
            context_len: 256,
            eval_tokens: 4096,
            calibration_tokens: None,
            measured: vec!["q2".into(), "q8".into()],
        }
    }

    #[test]
    fn what_was_measured_is_there_again_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Journal::subject_in(folder.path()).unwrap(), None);
        let mut journal = Journal::open(folder.path(), &subject()).unwrap();
        journal.add_sensitivity("layers.0.ffn.up", "q2", 0.1 + 0.2).unwrap();
        journal.add_divergence(&[0, 1, 1], 4, 1e-300).unwrap();
        drop(journal);
        let path = Journal::path_in(folder.path());
        let mut text = std::fs::read_to_string(&path).unwrap();
        let whole = text.clone();
        text.push_str("{\"kind\":\"sensitivity\",\"tens");
        std::fs::write(&path, text).unwrap();
        let mut journal = Journal::open(folder.path(), &subject()).unwrap();
        assert_eq!(journal.measurement_count(), 2);
        assert_eq!(journal.sensitivity("layers.0.ffn.up", "q2"), Some(0.1 + 0.2));
        assert_eq!(journal.divergence(&[0, 1, 1], 4), Some(1e-300));
        assert_eq!(journal.divergence(&[0, 1, 1], 5), None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        journal.add_sensitivity("x", "q8", 1.0).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(&whole));
        assert_eq!(Journal::subject_in(folder.path()).unwrap(), Some(subject()));
    }

    #[test]
    fn a_journal_with_the_older_name_of_sensitivities_is_read() {
        let folder = tempfile::tempdir().unwrap();
        drop(Journal::open(folder.path(), &subject()).unwrap());
        let path = Journal::path_in(folder.path());
        let line = r#"{"kind":"damage","tensor":"layers.0.ffn.up","choice":"q2","kl":0.25}"#;
        let text = std::fs::read_to_string(&path).unwrap() + line + "\n";
        std::fs::write(&path, text).unwrap();
        let journal = Journal::open(folder.path(), &subject()).unwrap();
        assert_eq!(journal.sensitivity("layers.0.ffn.up", "q2"), Some(0.25));
    }

    #[test]
    fn another_subject_is_refused_with_the_field() {
        let folder = tempfile::tempdir().unwrap();
        drop(Journal::open(folder.path(), &subject()).unwrap());
        let refused = |other: Subject| Journal::open(folder.path(), &other).unwrap_err().to_string();
        for (other, part) in [
            (Subject { model: "n".into(), ..subject() }, "model's checksum is m, here n"),
            (Subject { text: "u".into(), ..subject() }, "text's checksum is t, here u"),
            (Subject { calibration: "d".into(), ..subject() }, "calibration's checksum"),
            (Subject { choices: vec!["q3".into()], ..subject() }, "encodings is q2,q8, here q3"),
            (Subject { eval_tokens: 8, ..subject() }, "search tokens is 4096, here 8"),
            (Subject { context_len: 8, ..subject() }, "context is 256, here 8"),
            (Subject { calibration_tokens: Some(9), ..subject() }, "all tokens, here 9 tokens"),
            (Subject { measured: vec![], ..subject() }, "measured encodings"),
        ] {
            let message = refused(other);
            assert!(message.contains(part) && message.contains("--work"), "{message}");
        }
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        drop(Journal::open(folder.path(), &subject()).unwrap());
        let path = Journal::path_in(folder.path());
        let text = std::fs::read_to_string(&path).unwrap() + "{\"kind\":\"tea\"}\n";
        std::fs::write(&path, text).unwrap();
        let message = Journal::open(folder.path(), &subject()).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("tea"), "{message}");
    }

    #[test]
    fn one_search_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Journal::open(folder.path(), &subject()).unwrap();
        let message = Journal::open(folder.path(), &subject()).unwrap_err().to_string();
        assert!(message.contains("another search"), "{message}");
        drop(first);
        Journal::open(folder.path(), &subject()).unwrap();
    }
}

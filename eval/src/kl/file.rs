//! References as files, little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 0–7 | `89 50 4B 4C 52 0D 1A 0A` |
//! | 8–11 | version, 1 |
//! | 12–15 | length of the description |
//! | 16–23 | length of everything after the description |
//! | 24–31 | xxh3 of bytes 0–23 and of everything from 32 on |
//! | 32– | the description, JSON |
//! | then | tokens, u32: `windows × context` |
//! | then | for each position: `ln Σ exp(logit)` and `ln` of the tail's probability, f64; the next token's logit, f32; the likeliest token, u32 |
//! | then | kept tokens, u32, ascending in each position; nothing where all are kept |
//! | then | kept logits, f32, in the same order |

use crate::about::About;
use crate::error::EvalError;
use crate::kl::reference::{Position, Reference};
use crate::scored::Scored;
use crate::windows::Windows;
use pith_format::{ReplaceOptions, Replacement};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Not text: a text-mode transfer changes it visibly.
const MAGIC: [u8; 8] = *b"\x89PKLR\r\x1a\n";

/// The version written, and the only one read.
const VERSION: u32 = 1;

const HEADER_BYTES: usize = 32;

/// Offset of the checksum, which covers all other bytes.
const CHECKSUM_OFFSET: usize = 24;

/// Bytes per read or write.
const CHUNK_BYTES: usize = 1 << 16;

/// Bytes per position besides its kept tokens.
const POSITION_BYTES: u64 = 24;

/// Description of the file's contents.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    model: Option<About>,
    vocab_len: usize,
    kept_len: usize,
    context_len: usize,
    scored: Scored,
    window_count: usize,
    text_hash: Option<u64>,
    spelled: Option<u64>,
}

impl Reference {
    /// Writes the file completely, or leaves the old one. Returns its length in bytes.
    pub fn save(&self, path: &Path) -> Result<u64, EvalError> {
        let replacement = Replacement::create(path, ReplaceOptions::FORCE)?;
        let mut file = BufWriter::with_capacity(CHUNK_BYTES, replacement);
        let written = self.write(&mut file).and_then(|bytes| file.flush().map(|()| bytes));
        let bytes = written.map_err(|source| file.get_ref().failed("write", source))?;
        let (replacement, _) = file.into_parts();
        replacement.commit()?;
        Ok(bytes)
    }

    fn write(&self, file: &mut (impl Write + Seek)) -> io::Result<u64> {
        let description = serde_json::to_vec(&self.describe()).expect("numbers and text");
        let layout = Layout::of(&self.describe()).expect("its numbers are in memory");
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(description.len() as u32).to_le_bytes());
        header[16..24].copy_from_slice(&layout.bytes.to_le_bytes());
        let mut hash = Xxh3::new();
        hash.update(&header[..CHECKSUM_OFFSET]);
        file.write_all(&header)?;
        let mut put = |bytes: &[u8]| {
            hash.update(bytes);
            file.write_all(bytes)
        };
        put(&description)?;
        put_all(&self.windows.tokens, |token| token.to_le_bytes(), &mut put)?;
        put_all(&self.positions, position_bytes, &mut put)?;
        put_all(&self.ids, |token| token.to_le_bytes(), &mut put)?;
        put_all(&self.logits, |logit| logit.to_le_bytes(), &mut put)?;
        file.seek(SeekFrom::Start(CHECKSUM_OFFSET as u64))?;
        file.write_all(&hash.digest().to_le_bytes())?;
        Ok((HEADER_BYTES + description.len()) as u64 + layout.bytes)
    }

    /// Reads a file written by [`Reference::save`]. Every byte is checked before any is used.
    pub fn load(path: &Path) -> Result<Self, EvalError> {
        let mut reader = Reader::open(path)?;
        let description: Description = serde_json::from_slice(&reader.description).map_err(|error| {
            reader.field("its description", error.to_string(), "what this version writes".into())
        })?;
        let layout = Layout::of(&description).filter(|layout| layout.bytes == reader.payload_bytes);
        let Some(layout) = layout else {
            let (field, found) = ("the number of its bytes", reader.payload_bytes.to_string());
            return Err(reader.field(field, found, "what its description asks for".into()));
        };
        let windows = Windows {
            tokens: reader.take(layout.token_count, u32::from_le_bytes)?,
            context_len: description.context_len,
            scored: description.scored,
            text_hash: description.text_hash,
        };
        let reference = Self {
            about: description.model,
            windows,
            vocab_len: description.vocab_len,
            kept_len: description.kept_len,
            spelled: description.spelled,
            positions: reader.take(layout.position_count, position_of)?,
            ids: reader.take(layout.id_count, u32::from_le_bytes)?,
            logits: reader.take(layout.logit_count, f32::from_le_bytes)?,
        };
        reference.validate(&reader)?;
        Ok(reference)
    }

    fn describe(&self) -> Description {
        Description {
            model: self.about.clone(),
            vocab_len: self.vocab_len,
            kept_len: self.kept_len,
            context_len: self.windows.context_len,
            scored: self.windows.scored,
            window_count: self.windows.count(),
            text_hash: self.windows.text_hash,
            spelled: self.spelled,
        }
    }

    /// Checks everything that the comparison relies on: a file may be forged, checksum included.
    fn validate(&self, reader: &Reader<'_>) -> Result<(), EvalError> {
        let best = self.positions.iter().map(|position| position.best);
        let tokens = self.windows.tokens.iter().chain(&self.ids).copied().chain(best);
        if let Some(token) = tokens.into_iter().find(|&token| token as usize >= self.vocab_len) {
            return Err(reader.field("a token", token.to_string(), format!("less than {}", self.vocab_len)));
        }
        let ascends = |ids: &[u32]| ids.is_sorted_by(|a, b| a < b);
        if !self.ids.chunks_exact(self.kept_len).all(ascends) {
            return Err(reader.field("the order of kept tokens", "another".into(), "ascending".into()));
        }
        let of_positions = self.positions.iter().flat_map(|position| {
            // Where every token is kept there is no tail.
            let tail_log = if self.is_exact() { 0.0 } else { position.tail_log };
            [position.log_sum, tail_log, f64::from(position.next_logit)]
        });
        let mut values = of_positions.chain(self.logits.iter().map(|&logit| f64::from(logit)));
        match values.find(|value| !value.is_finite()) {
            Some(value) => Err(reader.field("a logit", value.to_string(), "a finite number".into())),
            None => Ok(()),
        }
    }
}

/// Counts of each kind of number in the file.
struct Layout {
    token_count: usize,
    position_count: usize,
    id_count: usize,
    logit_count: usize,
    bytes: u64,
}

impl Layout {
    /// `None` where no reference can have these counts.
    fn of(description: &Description) -> Option<Self> {
        let Description { vocab_len, kept_len, context_len, scored, window_count, .. } = *description;
        let token_count = window_count.checked_mul(context_len)?;
        let scored_len = match scored {
            Scored::SecondHalf => context_len.checked_sub(1 + context_len / 2)?,
            Scored::All => context_len.checked_sub(1)?,
        };
        let position_count = window_count.checked_mul(scored_len)?;
        if position_count == 0 || kept_len == 0 || kept_len > vocab_len {
            return None;
        }
        let logit_count = position_count.checked_mul(kept_len)?;
        let id_count = if kept_len == vocab_len { 0 } else { logit_count };
        let words = (token_count as u64).checked_add(id_count as u64)?.checked_add(logit_count as u64)?;
        let positions = (position_count as u64).checked_mul(POSITION_BYTES)?;
        let bytes = words.checked_mul(4)?.checked_add(positions)?;
        Some(Self { token_count, position_count, id_count, logit_count, bytes })
    }
}

/// A file whose every byte was checked.
struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    description: Vec<u8>,
    payload_bytes: u64,
}

impl<'a> Reader<'a> {
    /// Checks length and checksum; the position is then after the description.
    fn open(path: &'a Path) -> Result<Self, EvalError> {
        let failed = |action| move |source| EvalError::Io { path: path.to_path_buf(), action, source };
        let file = File::open(path).map_err(failed("open"))?;
        let metadata = file.metadata().map_err(failed("read the length"))?;
        if metadata.is_dir() {
            return Err(failed("open")(std::io::ErrorKind::IsADirectory.into()));
        }
        let mut file = BufReader::with_capacity(CHUNK_BYTES, file);
        let mut header = Vec::with_capacity(HEADER_BYTES);
        file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(failed("read"))?;
        let magic = &header[..header.len().min(MAGIC.len())];
        if magic != MAGIC {
            return Err(EvalError::NotAReference { path: path.to_path_buf(), found: magic.to_vec() });
        }
        let size = |expected| {
            let found = metadata.len();
            EvalError::ReferenceSize { path: path.to_path_buf(), expected, found }
        };
        let header: &[u8; HEADER_BYTES] =
            header.as_slice().try_into().map_err(|_| size(HEADER_BYTES as u64))?;
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        if u32_at(8) != VERSION {
            let (path, found) = (path.to_path_buf(), u32_at(8));
            return Err(EvalError::ReferenceVersion { path, found, expected: VERSION });
        }
        let (description_bytes, payload_bytes) = (u32_at(12), u64_at(16));
        let begin = HEADER_BYTES as u64 + u64::from(description_bytes);
        let file_bytes = begin.saturating_add(payload_bytes);
        if file_bytes != metadata.len() {
            return Err(size(file_bytes));
        }
        let mut description = vec![0; description_bytes as usize];
        file.read_exact(&mut description).map_err(failed("read"))?;
        let mut hash = Xxh3::new();
        hash.update(&header[..CHECKSUM_OFFSET]);
        hash.update(&description);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk).map_err(failed("read"))? {
                0 => break,
                count => hash.update(&chunk[..count]),
            }
        }
        let (expected, found) = (u64_at(CHECKSUM_OFFSET), hash.digest());
        if found != expected {
            return Err(EvalError::ReferenceDamaged { path: path.to_path_buf(), expected, found });
        }
        file.seek(SeekFrom::Start(begin)).map_err(failed("seek"))?;
        Ok(Self { path, file, description, payload_bytes })
    }

    /// The next `count` values of `N` bytes, within the file's length.
    fn take<T, const N: usize>(&mut self, count: usize, of: fn([u8; N]) -> T) -> Result<Vec<T>, EvalError> {
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            let mut bytes = [0; N];
            self.file.read_exact(&mut bytes).map_err(|source| {
                let path = self.path.to_path_buf();
                EvalError::Io { path, action: "read", source }
            })?;
            values.push(of(bytes));
        }
        Ok(values)
    }

    fn field(&self, field: &'static str, found: String, expected: String) -> EvalError {
        EvalError::ReferenceField { path: self.path.to_path_buf(), field, found, expected }
    }
}

/// Writes values in sequence, many at a time.
fn put_all<T: Copy, const N: usize>(
    values: &[T],
    bytes_of: fn(T) -> [u8; N],
    put: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    for some in values.chunks(CHUNK_BYTES / N) {
        chunk.clear();
        some.iter().for_each(|&value| chunk.extend_from_slice(&bytes_of(value)));
        put(&chunk)?;
    }
    Ok(())
}

fn position_bytes(position: Position) -> [u8; POSITION_BYTES as usize] {
    let mut bytes = [0; POSITION_BYTES as usize];
    bytes[..8].copy_from_slice(&position.log_sum.to_le_bytes());
    bytes[8..16].copy_from_slice(&position.tail_log.to_le_bytes());
    bytes[16..20].copy_from_slice(&position.next_logit.to_le_bytes());
    bytes[20..].copy_from_slice(&position.best.to_le_bytes());
    bytes
}

fn position_of(bytes: [u8; POSITION_BYTES as usize]) -> Position {
    let f64_at = |at: usize| f64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let four_at = |at: usize| bytes[at..at + 4].try_into().expect("four bytes");
    Position {
        log_sum: f64_at(0),
        tail_log: f64_at(8),
        next_logit: f32::from_le_bytes(four_at(16)),
        best: u32::from_le_bytes(four_at(20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kl::reference::tests::{Rule, windows};
    use std::path::PathBuf;
    use tempfile::TempDir;

    const VOCAB_LEN: usize = 11;

    fn reference(kept: usize) -> Reference {
        let mut model = Rule(VOCAB_LEN, |after, token| (after as f32 * 1.7 + token as f32 * 2.9).sin() * 4.0);
        let windows = Windows { text_hash: Some(u64::MAX), ..windows(VOCAB_LEN as u32) };
        let reference = Reference::compute(&mut model, windows, Some(kept), &()).unwrap();
        Reference { spelled: Some(3), ..reference }
    }

    fn saved(kept: usize) -> (TempDir, PathBuf, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reference");
        let bytes = reference(kept).save(&path).unwrap();
        let file = std::fs::read(&path).unwrap();
        assert_eq!(bytes, file.len() as u64);
        (folder, path, file)
    }

    fn load(path: &Path, bytes: &[u8]) -> Result<Reference, EvalError> {
        std::fs::write(path, bytes).unwrap();
        Reference::load(path)
    }

    /// The file with its checksum recomputed.
    fn forged(mut file: Vec<u8>) -> Vec<u8> {
        let mut hash = Xxh3::new();
        hash.update(&file[..CHECKSUM_OFFSET]);
        hash.update(&file[HEADER_BYTES..]);
        file[CHECKSUM_OFFSET..HEADER_BYTES].copy_from_slice(&hash.digest().to_le_bytes());
        file
    }

    #[test]
    fn a_reference_is_read_as_it_was_written() {
        for kept in [1, 4, VOCAB_LEN] {
            let (_folder, path, _) = saved(kept);
            assert_eq!(Reference::load(&path).unwrap(), reference(kept));
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let (_folder, path, file) = saved(4);
        for length in 0..file.len() {
            let error = load(&path, &file[..length]).unwrap_err();
            let known = matches!(error, EvalError::NotAReference { .. } | EvalError::ReferenceSize { .. });
            assert!(known, "{length}: {error}");
        }
        let longer = [&file[..], &[0]].concat();
        assert!(matches!(load(&path, &longer).unwrap_err(), EvalError::ReferenceSize { .. }));
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let (_folder, path, file) = saved(4);
        for at in 0..file.len() {
            let mut wrong = file.clone();
            wrong[at] ^= 0x10;
            assert!(load(&path, &wrong).is_err(), "byte {at}");
        }
        let mut wrong = file.clone();
        *wrong.last_mut().unwrap() ^= 1;
        let message = load(&path, &wrong).unwrap_err().to_string();
        assert!(message.contains("damaged") && message.contains("reference"), "{message}");
    }

    #[test]
    fn another_file_and_another_version_are_called_that() {
        let (_folder, path, mut file) = saved(4);
        assert!(matches!(load(&path, b"PK\x03\x04 and more").unwrap_err(), EvalError::NotAReference { .. }));
        file[8] = 2;
        let message = load(&path, &forged(file)).unwrap_err().to_string();
        assert!(message.contains("version 2") && message.contains("version 1"), "{message}");
        let folder = path.parent().unwrap();
        assert!(matches!(Reference::load(folder).unwrap_err(), EvalError::Io { .. }));
        assert!(matches!(Reference::load(&folder.join("none")).unwrap_err(), EvalError::Io { .. }));
    }

    #[test]
    fn numbers_that_do_not_belong_together_are_named() {
        let (_folder, path, file) = saved(4);
        let begin = HEADER_BYTES + u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&file[HEADER_BYTES..begin]).unwrap();
        // Replacements of the same length.
        for (from, to) in [
            ("\"kept_len\":4", "\"kept_len\":5"),
            ("\"kept_len\":4", "\"kept_len\":0"),
            ("\"vocab_len\":11", "\"vocab_len\":03"),
            ("\"window_count\":8", "\"window_count\":9"),
            ("\"context_len\":8", "\"context_len\":1"),
            ("\"scored\":\"all\"", "\"scored\":\"few\""),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            let wrong = forged([&file[..HEADER_BYTES], changed.as_bytes(), &file[begin..]].concat());
            let error = load(&path, &wrong).unwrap_err();
            assert!(matches!(error, EvalError::ReferenceField { .. }), "{to}: {error}");
        }
        let positions = begin + 4 * 64;
        let ids = positions + 24 * 56;
        for (at, bytes) in [
            (begin, 11u32.to_le_bytes()),
            (positions + 20, 11u32.to_le_bytes()),
            (positions + 16, f32::NAN.to_le_bytes()),
            (ids, 11u32.to_le_bytes()),
            (ids, 10u32.to_le_bytes()),
            (file.len() - 4, f32::INFINITY.to_le_bytes()),
        ] {
            let mut wrong = file.clone();
            wrong[at..at + 4].copy_from_slice(&bytes);
            let error = load(&path, &forged(wrong)).unwrap_err();
            assert!(matches!(error, EvalError::ReferenceField { .. }), "{at}: {error}");
        }
    }
}

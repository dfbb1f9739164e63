//! The files of one shape: one checkpoint, and Pith's and the rivals' files made from it.

use super::checkpoint::write_checkpoint;
use super::parse;
use super::shape::Shape;
use super::tool::{Tool, name_and_rest};
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fixed seed: the same weights on every machine.
const SEED: u64 = 1;
/// Disk space to leave free.
const SPARE_BYTES: u64 = 256 << 20;

/// The rivals' formats that correspond to a Pith encoding.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairing {
    /// An encoding of `pith convert`, or the rivals' type whose file it carries.
    pub encoding: String,
    /// Types of `llama-quantize`. Prefill, which memory does not limit, uses the fastest of them.
    pub formats: Vec<String>,
    /// The first of them have the same bits per body weight; this many are used for decoding.
    pub same_bits: usize,
}

impl Pairing {
    /// Parses `NAME` with its known formats, or `NAME=FORMAT,FORMAT`. Formats with the same bits as
    /// the first are joined by `/`: `NAME=FORMAT/FORMAT,FORMAT`. A rivals' type alone, such as
    /// `Q4_K_M`, is their file, which Pith carries.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (encoding, formats) = match text.split_once('=') {
            Some(_) => name_and_rest(text, "--encodings")?,
            None => match text {
                "q4" | "q4-g64" => (text, "Q4_0,IQ4_XS"),
                "q8" => (text, "Q8_0"),
                "ternary" => (text, "TQ2_0/IQ2_BN"),
                "f16" => (text, "F16"),
                _ if text.starts_with(|first: char| first.is_ascii_uppercase()) => (text, text),
                _ => anyhow::bail!("no rival format is known for {text:?}: name them, {text}=FORMAT,FORMAT"),
            },
        };
        let (same, others) = formats.split_once(',').unwrap_or((formats, ""));
        let list = |text: &str, between: char| -> Vec<String> {
            text.split(between).filter(|format| !format.is_empty()).map(String::from).collect()
        };
        let (same, others) = (list(same, '/'), list(others, ','));
        anyhow::ensure!(!same.is_empty(), "--encodings {text:?} names no format");
        let same_bits = same.len();
        Ok(Self { encoding: encoding.into(), formats: [same, others].concat(), same_bits })
    }

    fn is_carried(&self) -> bool {
        self.encoding == self.formats[0]
    }
}

/// Paths of one shape's files.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    shape: &'static Shape,
    pure: bool,
}

impl Files {
    /// Creates the missing files: checkpoint and rivals' files once, Pith's every time because its
    /// converter may have changed. `pure` files have embedding and head in the layers' encoding.
    pub fn prepare(
        work: &Path,
        shape: &'static Shape,
        pairings: &[Pairing],
        tools: &[Tool],
        pure: bool,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
        let files = Self { folder: work.to_path_buf(), shape, pure };
        files.ensure_room(pairings)?;
        let checkpoint = files.checkpoint();
        if !checkpoint.is_file() {
            eprintln!("{}: writing random weights", shape.name);
            write_checkpoint(&checkpoint, shape, SEED)?;
        }
        for pairing in pairings {
            if tools.len() > 1 {
                for format in &pairing.formats {
                    files.quantize(format, tools)?;
                }
            }
            eprintln!("{}: converting to {}", shape.name, pairing.encoding);
            let to = files.own(&pairing.encoding);
            let mut convert = Command::new(&tools[0].program);
            convert.args(["convert", "--quiet", "--force"]);
            if pairing.is_carried() {
                run(convert.arg(files.rival(&pairing.encoding)).arg(&to))?;
                continue;
            }
            for option in &["--encoding", "--embedding", "--head"][..if pure { 3 } else { 1 }] {
                convert.args([option, pairing.encoding.as_str()]);
            }
            run(convert.arg(&checkpoint).arg(&to))?;
        }
        Ok(files)
    }

    fn checkpoint(&self) -> PathBuf {
        self.folder.join(format!("{}-F16.gguf", self.shape.name))
    }

    /// Pith's file.
    pub fn own(&self, encoding: &str) -> PathBuf {
        self.folder.join(format!("{}-{encoding}{}.pith", self.shape.name, self.suffix()))
    }

    /// The rivals' file.
    pub fn rival(&self, format: &str) -> PathBuf {
        if format == "F16" {
            return self.checkpoint();
        }
        self.folder.join(format!("{}-{format}{}.gguf", self.shape.name, self.suffix()))
    }

    fn suffix(&self) -> &'static str {
        if self.pure { "-pure" } else { "" }
    }

    /// Removes the files of [`Self::prepare`].
    pub fn remove(&self, pairings: &[Pairing]) -> anyhow::Result<()> {
        let rivals =
            pairings.iter().flat_map(|pairing| pairing.formats.iter().map(|format| self.rival(format)));
        let own = pairings.iter().map(|pairing| self.own(&pairing.encoding));
        for path in own.chain(rivals).chain([self.checkpoint()]).filter(|path| path.is_file()) {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Quantizes with the first `llama-quantize` beside a `llama-bench` that knows the format.
    fn quantize(&self, format: &str, tools: &[Tool]) -> anyhow::Result<()> {
        let to = self.rival(format);
        if to.is_file() {
            return Ok(());
        }
        let beside: Vec<PathBuf> = tools[1..]
            .iter()
            .map(|tool| tool.program.with_file_name("llama-quantize"))
            .filter(|path| path.is_file())
            .collect();
        anyhow::ensure!(
            !beside.is_empty(),
            "no llama-quantize beside any --llama-bench: build it too, or put {} there",
            to.display()
        );
        let part = to.with_extension("part");
        let mut problem = None;
        for program in beside {
            eprintln!("{}: quantizing to {format}", self.shape.name);
            let pure = self.pure.then_some("--pure");
            let made = run(Command::new(program).args(pure).arg(self.checkpoint()).arg(&part).arg(format));
            match made {
                Ok(()) => {
                    return Ok(pith_format::move_to(&part, &to, pith_format::ReplaceOptions::FORCE)?);
                }
                Err(error) => problem = Some(error),
            }
            // There may be nothing to remove.
            let _ = std::fs::remove_file(&part);
        }
        Err(problem.expect("there was a program")).with_context(|| format!("cannot make {}", to.display()))
    }

    /// Except for the checkpoint and f16, no file has more than 9 bits per weight.
    fn ensure_room(&self, pairings: &[Pairing]) -> anyhow::Result<()> {
        let checkpoint = self.shape.checkpoint_bytes();
        let rivals =
            pairings.iter().flat_map(|pairing| pairing.formats.iter().map(|format| self.rival(format)));
        let own = pairings.iter().map(|pairing| self.own(&pairing.encoding));
        let smaller = own.chain(rivals).filter(|path| !path.is_file());
        let mut needed: u64 = smaller.map(|path| expected_bytes(&path, checkpoint)).sum();
        if !self.checkpoint().is_file() {
            needed += checkpoint;
        }
        let room = rustix::fs::statvfs(&self.folder)
            .with_context(|| format!("cannot ask for the room in {}", self.folder.display()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        anyhow::ensure!(
            free >= needed + SPARE_BYTES,
            "{} has {free} bytes free, the files of {} need {needed} and {SPARE_BYTES} to spare",
            self.folder.display(),
            self.shape.name
        );
        Ok(())
    }
}

/// An upper bound, from the name of the encoding.
fn expected_bytes(path: &Path, checkpoint: u64) -> u64 {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if name.ends_with("-f16.gguf") {
        0
    } else if name.contains("f16") || name.contains("f32") {
        2 * checkpoint
    } else {
        checkpoint * 9 / 16
    }
}

/// Runs a program; fails unless it succeeds.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot start {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    anyhow::ensure!(
        output.status.success(),
        "{program} ended with {}: {}",
        output.status,
        parse::excerpt(last)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_knows_its_rivals_or_is_told() {
        let pairing = Pairing::parse("q4").unwrap();
        assert_eq!((pairing.formats, pairing.same_bits), (vec!["Q4_0".into(), "IQ4_XS".into()], 1));
        let pairing = Pairing::parse("x=A/B,C").unwrap();
        assert_eq!((pairing.formats.concat(), pairing.same_bits), ("ABC".into(), 2));
        let pairing = Pairing::parse("q4=Q4_K_M").unwrap();
        assert_eq!((pairing.encoding.as_str(), pairing.formats.concat()), ("q4", "Q4_K_M".into()));
        assert!(!pairing.is_carried());
        let carried = Pairing::parse("Q4_K_M").unwrap();
        assert_eq!((carried.encoding.as_str(), carried.is_carried()), ("Q4_K_M", true));
        assert!(Pairing::parse("q9").unwrap_err().to_string().contains("q9=FORMAT"));
        assert!(Pairing::parse("q4=").is_err());
        assert!(Pairing::parse("=Q4_0").is_err());
    }

    #[test]
    fn pure_files_have_names_of_their_own_and_one_checkpoint() {
        let files = |pure| Files { folder: "w".into(), shape: Shape::named("135m").unwrap(), pure };
        let (mixed, pure) = (files(false), files(true));
        assert_eq!(pure.rival("TQ2_0"), Path::new("w/135m-TQ2_0-pure.gguf"));
        assert_eq!(pure.own("ternary"), Path::new("w/135m-ternary-pure.pith"));
        assert_ne!(pure.own("q4"), mixed.own("q4"));
        assert_eq!(pure.rival("F16"), mixed.checkpoint());
    }

    #[test]
    fn a_failed_program_is_shown_with_its_last_words() {
        let error = run(Command::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 4"])).unwrap_err();
        assert!(error.to_string().ends_with(": \"two\""), "{error}");
        assert!(run(&mut Command::new("/nonexistent/x")).unwrap_err().to_string().contains("cannot start"));
    }

    #[test]
    fn what_was_made_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files { folder: folder.path().into(), shape: Shape::named("135m").unwrap(), pure: false };
        let pairings = [Pairing::parse("q4").unwrap()];
        for path in [files.own("q4"), files.rival("Q4_0"), files.rival("F16")] {
            std::fs::write(path, "x").unwrap();
        }
        let other = folder.path().join("mine");
        std::fs::write(&other, "x").unwrap();
        files.remove(&pairings).unwrap();
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [other]);
    }
}

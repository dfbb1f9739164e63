//! Every test works in its own folder.

use super::*;
use std::io::Read;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn entries(folder: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A replacement with a named temporary file, as on other systems.
fn named(path: &Path, options: ReplaceOptions<'_>) -> Replacement {
    let replacement = Replacement::create(path, options).unwrap();
    let temporary = Temporary::named(&replacement.target).unwrap();
    Replacement { temporary, ..replacement }
}

fn created(path: &Path, options: ReplaceOptions<'_>) -> Replacement {
    Replacement::create(path, options).unwrap()
}

/// With the system's preferred temporary file, and with a named one.
const BOTH: [fn(&Path, ReplaceOptions<'_>) -> Replacement; 2] = [created, named];

#[test]
fn a_file_appears_whole_and_takes_the_place_of_an_older_one() {
    for create in BOTH {
        let folder = folder();
        let path = folder.path().join("x");
        let mut first = create(&path, ReplaceOptions::default());
        first.write_all(b"....one").unwrap();
        first.sync().unwrap();
        assert!(!path.exists(), "nothing has the name before the commit");
        first.seek(SeekFrom::Start(0)).unwrap();
        first.write_all(b"head").unwrap();
        first.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"headone");
        let mut reader = File::open(&path).unwrap();
        let mut second = create(&path, ReplaceOptions::FORCE);
        second.write_all(b"two").unwrap();
        second.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mut old = Vec::new();
        reader.read_to_end(&mut old).unwrap();
        assert_eq!(old, b"headone", "who reads the old file reads it to its end");
        assert_eq!(entries(&folder), ["x"]);
    }
}

#[test]
fn a_dropped_or_panicking_writer_leaves_the_old_file_and_nothing_else() {
    for create in BOTH {
        let folder = folder();
        let path = folder.path().join("x");
        fs::write(&path, "old").unwrap();
        let mut dropped = create(&path, ReplaceOptions::FORCE);
        dropped.write_all(b"new").unwrap();
        drop(dropped);
        let panicked = std::panic::catch_unwind(|| {
            let mut writer = create(&path, ReplaceOptions::FORCE);
            writer.write_all(b"new").unwrap();
            panic!("as asked");
        });
        assert!(panicked.is_err());
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), entries(&folder).len()), ("old", 1));
    }
}

#[test]
fn what_exists_stays_without_force() {
    let folder = folder();
    let path = folder.path().join("x");
    fs::write(&path, "old").unwrap();
    let error = Replacement::create(&path, ReplaceOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("{} exists; --force overwrites it", path.display()));
    assert!(matches!(ReplaceOptions::default().check(&path), Err(ReplaceError::Exists { .. })));
    fs::remove_file(&path).unwrap();
    // A file that appears after the commit's check.
    for create in [Temporary::create, Temporary::named] {
        let late = create(&path).unwrap();
        fs::write(&path, "other").unwrap();
        assert_eq!(late.link_new(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), entries(&folder).len()), ("other", 1));
        fs::remove_file(&path).unwrap();
    }
    // A file that appears before it.
    for create in BOTH {
        let replacement = create(&path, ReplaceOptions::default());
        fs::write(&path, "other").unwrap();
        assert!(matches!(replacement.commit(), Err(ReplaceError::Exists { .. })));
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), entries(&folder).len()), ("other", 1));
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn an_input_is_never_replaced_by_whatever_name() {
    let folder = folder();
    let input = folder.path().join("input");
    fs::write(&input, "source").unwrap();
    let dotted = folder.path().join(".").join("input");
    let mut names = vec![input.clone(), dotted];
    #[cfg(unix)]
    {
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("input", &link).unwrap();
        let hard = folder.path().join("hard");
        fs::hard_link(&input, &hard).unwrap();
        names.extend([link, hard]);
    }
    let inputs = [folder.path().join("missing"), input.clone()];
    let options = ReplaceOptions { force: true, inputs: &inputs };
    for name in &names {
        let error = Replacement::create(name, options).unwrap_err();
        assert!(matches!(&error, ReplaceError::Input { input: found, .. } if *found == input), "{error}");
        assert!(error.to_string().contains("is the input"), "{error}");
    }
    // An output that became the input while it was written.
    let late = folder.path().join("late");
    let replacement = Replacement::create(&late, options).unwrap();
    fs::rename(&input, &late).unwrap();
    let inputs = [late.clone()];
    let replacement = Replacement { inputs: inputs.to_vec(), ..replacement };
    assert!(matches!(replacement.commit(), Err(ReplaceError::Input { .. })));
    assert_eq!(fs::read_to_string(&late).unwrap(), "source");
}

#[test]
fn folders_and_places_that_cannot_be_are_refused() {
    let folder = folder();
    for (path, found) in [
        (folder.path().to_path_buf(), "a folder"),
        (folder.path().join("new/"), "the name of a folder"),
        (folder.path().join(".."), "a folder"),
        (PathBuf::new(), "the name of a folder"),
    ] {
        let error = Replacement::create(&path, ReplaceOptions::FORCE).unwrap_err();
        assert!(
            matches!(error, ReplaceError::NotAFile { found: is, .. } if is == found),
            "{path:?}: {error}"
        );
    }
    let error = replace(&folder.path().join("none/x"), b"", ReplaceOptions::FORCE).unwrap_err();
    assert!(matches!(error, ReplaceError::Io { .. }) && error.to_string().contains("none"), "{error}");
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(replace(&file.join("below"), b"", ReplaceOptions::FORCE).is_err());
    assert_eq!(entries(&folder), ["file"]);
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_and_sockets_are_refused_and_stay() {
    use std::os::unix::fs::{FileTypeExt, symlink};
    let folder = folder();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
    let link = folder.path().join("link");
    symlink(&pipe, &link).unwrap();
    for (path, expected) in [(&socket, "a socket"), (&pipe, "a pipe"), (&link, "a pipe")] {
        let error = Replacement::create(path, ReplaceOptions::FORCE).unwrap_err();
        assert!(error.to_string().contains(&format!("is {expected}, expected a file")), "{error}");
    }
    // A file that appears during writing.
    let late = folder.path().join("late");
    let replacement = Replacement::create(&late, ReplaceOptions::FORCE).unwrap();
    fs::rename(&pipe, &late).unwrap();
    assert!(matches!(replacement.commit(), Err(ReplaceError::NotAFile { .. })));
    assert!(fs::symlink_metadata(&late).unwrap().file_type().is_fifo());
    assert_eq!(entries(&folder), ["late", "link", "socket"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_stay() {
    use std::os::unix::fs::symlink;
    let (folder, other) = (folder(), folder());
    let target = other.path().join("target");
    let (link, chain) = (folder.path().join("link"), folder.path().join("chain"));
    symlink(&target, &link).unwrap();
    symlink("link", &chain).unwrap();
    // A dangling link: the file that it names is created.
    replace(&chain, b"one", ReplaceOptions::default()).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"one");
    assert!(matches!(replace(&link, b"", ReplaceOptions::default()), Err(ReplaceError::Exists { .. })));
    replace(&link, b"two", ReplaceOptions::FORCE).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"two");
    assert!(link.is_symlink() && chain.is_symlink());
    assert_eq!((entries(&folder).len(), entries(&other).len()), (2, 1));
    let ring = folder.path().join("ring");
    symlink("ring", &ring).unwrap();
    assert!(matches!(replace(&ring, b"", ReplaceOptions::FORCE), Err(ReplaceError::Io { .. })));
}

#[cfg(unix)]
#[test]
fn a_private_file_stays_private_and_a_new_one_gets_the_masks_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    let path = folder.path().join("x");
    replace(&path, b"one", ReplaceOptions::default()).unwrap();
    assert_eq!(mode(&path), mode(&plain));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    replace(&path, b"two", ReplaceOptions::FORCE).unwrap();
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn a_finished_file_is_moved_under_the_same_conditions() {
    let folder = folder();
    let (from, path) = (folder.path().join("from"), folder.path().join("x"));
    fs::write(&from, "one").unwrap();
    move_to(&from, &path, ReplaceOptions::default()).unwrap();
    assert_eq!(entries(&folder), ["x"]);
    fs::write(&from, "two").unwrap();
    assert!(matches!(move_to(&from, &path, ReplaceOptions::default()), Err(ReplaceError::Exists { .. })));
    assert_eq!(temporary::move_new(&from, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    move_to(&from, &path, ReplaceOptions::FORCE).unwrap();
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), entries(&folder).len()), ("two", 1));
    let error = move_to(&from, &path, ReplaceOptions::FORCE).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot open {}", from.display())), "{error}");
}

#[test]
fn temporary_names_differ_and_are_never_too_long() {
    let path = Path::new("folder/model.pith");
    let (one, other) = (temporary_name(path), temporary_name(path));
    assert_ne!(one, other);
    assert_eq!(one.parent(), path.parent());
    let name = one.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(".model.pith.") && name.ends_with(".partial"), "{name}");
    let long = "é".repeat(120);
    assert!(temporary_name(Path::new(&long)).as_os_str().len() < 255);
}

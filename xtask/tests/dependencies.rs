//! The dependencies comply with `deny.toml`. Sources and bans are checked in the lock file, which
//! lists the packages of every platform; licences in the packages of this host, whose manifests are
//! on disk.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    /// Packages that may depend on it.
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    source: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    license: Option<String>,
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Whether the allowed licences satisfy an SPDX expression; `None` if it cannot be parsed.
///
/// `AND` binds tighter than `OR`. A slash, as in older manifests, means `OR`.
fn is_satisfied(expression: &str, allowed: &BTreeSet<String>) -> Option<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let satisfied = any(&mut words, allowed)?;
    words.next().is_none().then_some(satisfied)
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Option<bool> {
    let mut satisfied = all(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        satisfied |= all(words, allowed)?;
    }
    Some(satisfied)
}

fn all(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Option<bool> {
    let mut satisfied = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        satisfied &= one(words, allowed)?;
    }
    Some(satisfied)
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> Option<bool> {
    let word = words.next()?;
    if word == "(" {
        let satisfied = any(words, allowed)?;
        return words.next_if_eq(&")").map(|_| satisfied);
    }
    if ["AND", "OR", "WITH", ")"].contains(&word) {
        return None;
    }
    match words.next_if_eq(&"WITH") {
        Some(_) => Some(allowed.contains(&format!("{word} WITH {}", words.next()?))),
        None => Some(allowed.contains(word)),
    }
}

#[test]
fn expressions_are_read_as_spdx_has_them() {
    let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception"].map(String::from).into();
    for (expression, expected) in [
        ("MIT", Some(true)),
        ("GPL-3.0", Some(false)),
        ("GPL-3.0 OR MIT", Some(true)),
        ("GPL-3.0/MIT", Some(true)),
        ("GPL-3.0 AND MIT", Some(false)),
        ("MIT OR GPL-3.0 AND GPL-2.0", Some(true)),
        ("(MIT OR GPL-3.0) AND GPL-2.0", Some(false)),
        ("Apache-2.0", Some(false)),
        ("Apache-2.0 WITH LLVM-exception", Some(true)),
        ("", None),
        ("MIT MIT", None),
        ("(MIT", None),
        ("MIT OR", None),
        ("MIT WITH", None),
    ] {
        assert_eq!(is_satisfied(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn every_source_is_allowed_and_nothing_banned_is_used() {
    let (deny, lock): (Deny, Lock) = (read("deny.toml"), read("Cargo.lock"));
    assert!(lock.package.len() > 100, "the lock file has {} packages", lock.package.len());
    for package in &lock.package {
        // A package without a source belongs to the workspace.
        let Some(source) = &package.source else { continue };
        let allowed = deny.sources.allow_registry.iter().any(|url| *source == format!("registry+{url}"));
        assert!(allowed, "{} comes from {source}, which deny.toml does not allow", package.name);
    }
    for ban in &deny.bans.deny {
        let uses = |package: &&Locked| {
            // A dependency is a name, plus its version if there are several.
            package.dependencies.iter().any(|entry| entry.split(' ').next() == Some(&ban.name))
        };
        let users: Vec<&str> = lock.package.iter().filter(uses).map(|package| &*package.name).collect();
        let banned = users.iter().find(|user| !ban.wrappers.iter().any(|wrapper| wrapper == *user));
        assert_eq!(banned, None, "depends on {}, which deny.toml bans: {}", ban.name, ban.reason);
    }
}

#[test]
fn every_licence_is_allowed() {
    let deny: Deny = read("deny.toml");
    let rustc = Command::new(std::env::var("RUSTC").unwrap_or("rustc".into())).arg("-vV").output().unwrap();
    let version = String::from_utf8(rustc.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // All packages were needed to build this test, so they are on disk.
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Metadata = serde_json::from_slice(&metadata.stdout).unwrap();
    assert!(metadata.packages.len() > 100, "found {} packages", metadata.packages.len());
    for package in &metadata.packages {
        let Some(license) = &package.license else { panic!("{} names no licence", package.name) };
        let satisfied = is_satisfied(license, &deny.licenses.allow);
        assert_eq!(satisfied, Some(true), "{} is under {license}", package.name);
    }
}

//! ARCHITECTURE.md shows the crates and their dependencies from the manifests.
//!
//! After a change of a manifest, run `UPDATE_ARCHITECTURE=1 cargo test -p pith-tests --test
//! architecture` to update the picture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- begin crates -->\n";
const END: &str = "<!-- end crates -->\n";

/// Folder of each crate, with the folders of the workspace crates it depends on.
type Crates = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifest(folder: &Path) -> toml::Table {
    fs::read_to_string(folder.join("Cargo.toml")).unwrap().parse().unwrap()
}

fn crates() -> Crates {
    let workspace = &manifest(&root())["workspace"];
    let members = workspace["members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap());
    // Package names and their folders, from the workspace's dependencies.
    let folders: BTreeMap<&str, &str> = workspace["dependencies"]
        .as_table()
        .unwrap()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.get("path")?.as_str()?)))
        .collect();
    members
        .map(|member| {
            let manifest = manifest(&root().join(member));
            let platforms = manifest.get("target").and_then(|target| target.as_table()).into_iter().flatten();
            let tables = platforms.filter_map(|(_, platform)| platform.get("dependencies"));
            let names = tables
                .chain(manifest.get("dependencies"))
                .flat_map(|table| table.as_table().unwrap().keys())
                .filter_map(|name| folders.get(name.as_str()));
            (member.to_string(), names.map(|folder| folder.to_string()).collect())
        })
        .collect()
}

/// All direct and indirect dependencies of `name`.
fn below(crates: &Crates, name: &str) -> BTreeSet<String> {
    let direct = &crates[name];
    direct.iter().flat_map(|one| below(crates, one)).chain(direct.iter().cloned()).collect()
}

/// Length of the longest path from `name` to a crate without dependencies.
fn level(crates: &Crates, name: &str) -> usize {
    crates[name].iter().map(|one| level(crates, one) + 1).max().unwrap_or(0)
}

/// One line per crate, lowest first, without dependencies implied by another one on the line.
fn picture(crates: &Crates) -> String {
    let mut names: Vec<&String> = crates.keys().collect();
    names.sort_by_key(|name| (level(crates, name), name.as_str()));
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let line = |name: &&String| {
        let direct = &crates[*name];
        let is_below_another =
            |one: &&String| direct.iter().any(|other| below(crates, other).contains(one.as_str()));
        let shown: Vec<&str> =
            direct.iter().filter(|one| !is_below_another(one)).map(String::as_str).collect();
        let arrow = if shown.is_empty() { "" } else { "→ " };
        format!("{}  {name:width$}  {arrow}{}", level(crates, name), shown.join(", "))
    };
    names.iter().map(|name| line(name).trim_end().to_string() + "\n").collect()
}

#[test]
fn the_picture_of_the_crates_is_that_of_their_manifests() {
    let path = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("ARCHITECTURE.md has the marker");
    let (found, after) = rest.split_once(END).expect("ARCHITECTURE.md has both markers");
    let expected = format!("```\n{}```\n", picture(&crates()));
    if std::env::var_os("UPDATE_ARCHITECTURE").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, expected, "UPDATE_ARCHITECTURE=1 writes it again");
    }
}

#[test]
fn every_crate_has_its_line_in_the_table() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for name in crates().keys() {
        let line = format!("\n| `{name}/`");
        assert!(text.contains(&line), "ARCHITECTURE.md does not say what {name}/ is");
    }
}

#[test]
fn what_a_device_runs_knows_no_tool() {
    let crates = crates();
    let tools = ["converter", "boards", "bench", "report", "eval", "search", "cli", "tests", "xtask"];
    for name in ["format", "kernels", "tokenizer", "meter", "runtime"] {
        let below = below(&crates, name);
        assert!(tools.iter().all(|tool| !below.contains(*tool)), "{name} builds on {below:?}");
    }
}

#[test]
fn a_picture_leaves_out_what_is_reached_through_another() {
    let on = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let crates = Crates::from([
        ("low".to_string(), on(&[])),
        ("middle".to_string(), on(&["low"])),
        ("high".to_string(), on(&["low", "middle"])),
    ]);
    assert_eq!(picture(&crates), "0  low\n1  middle  → low\n2  high    → middle\n");
}

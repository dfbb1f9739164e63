//! No dependency cycles among a crate's modules, direct or indirect. A module and its own children
//! may name each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates whose modules are checked.
const CRATES: &[&str] = &[
    "format",
    "tokenizer",
    "meter",
    "kernels",
    "boards",
    "runtime",
    "eval",
    "report",
    "converter",
    "bench",
    "search",
    "cli",
    "xtask",
];

/// The modules of one crate by path; the root's path is empty.
struct Crate {
    modules: BTreeMap<Vec<String>, Module>,
}

/// Contents of a module.
#[derive(Default)]
struct Module {
    /// Paths in its code, split at `::`.
    named: Vec<Vec<String>>,
    /// Names imported by `use`, with their full paths.
    imported: BTreeMap<String, Vec<String>>,
}

impl Crate {
    fn read(src: &Path) -> Self {
        let mut modules = BTreeMap::new();
        let mut folders = vec![(src.to_path_buf(), Vec::new())];
        while let Some((folder, path)) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                let name = entry.file_stem().unwrap().to_str().unwrap().to_string();
                let inner = [path.as_slice(), std::slice::from_ref(&name)].concat();
                if entry.is_dir() {
                    folders.push((entry, inner));
                } else if entry.extension().is_some_and(|extension| extension == "rs") && name != "tests" {
                    let is_parent = matches!(name.as_str(), "mod" | "lib" | "main");
                    let path = if is_parent { path.clone() } else { inner };
                    parse(&fs::read_to_string(&entry).unwrap(), path, &mut modules);
                }
            }
        }
        Self { modules }
    }

    /// The module that a path refers to from `from`; `None` for a path outside the crate.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<Vec<String>> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => from.to_vec(),
            "super" => from[..from.len().checked_sub(1)?].to_vec(),
            name => {
                let child = [from, &[name.to_string()]].concat();
                self.modules.contains_key(&child).then_some(child)?
            }
        };
        while let Some((segment, after)) = rest.split_first() {
            if segment == "super" {
                at.pop()?;
            } else {
                let child = [at.as_slice(), std::slice::from_ref(segment)].concat();
                if !self.modules.contains_key(&child) {
                    let imported = self.modules.get(&at).and_then(|module| module.imported.get(segment));
                    let target = imported.filter(|_| depth < 8);
                    return target.and_then(|path| self.resolve(&at, path, depth + 1)).or(Some(at));
                }
                at = child;
            }
            rest = after;
        }
        Some(at)
    }

    /// For the children of every module, the references among them, each with an example.
    fn edges(&self) -> BTreeMap<Vec<String>, BTreeMap<(String, String), String>> {
        let mut edges: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (from, module) in &self.modules {
            for path in &module.named {
                let Some(to) = self.resolve(from, path, 0) else { continue };
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                let (Some(one), Some(other)) = (from.get(shared), to.get(shared)) else { continue };
                let example = format!("{} names {}", from.join("::"), path.join("::"));
                let siblings = edges.entry(from[..shared].to_vec()).or_default();
                siblings.entry((one.clone(), other.clone())).or_insert(example);
            }
        }
        edges
    }

    /// Every cycle, as the examples that form it.
    fn rings(&self) -> Vec<String> {
        let mut rings = Vec::new();
        for (parent, edges) in self.edges() {
            let mut left: BTreeSet<&(String, String)> = edges.keys().collect();
            // A module without outgoing or incoming references is in no cycle.
            loop {
                let starts: BTreeSet<_> = left.iter().map(|(from, _)| from).collect();
                let ends: BTreeSet<_> = left.iter().map(|(_, to)| to).collect();
                let before = left.len();
                left.retain(|(from, to)| ends.contains(from) && starts.contains(to));
                if left.len() == before {
                    break;
                }
            }
            if !left.is_empty() {
                let examples: Vec<&str> = left.iter().map(|edge| edges[*edge].as_str()).collect();
                rings.push(format!(
                    "among the children of {:?}:\n  {}",
                    parent.join("::"),
                    examples.join("\n  ")
                ));
            }
        }
        rings
    }
}

/// Adds the module in a file's text, and the modules that it holds as `mod name { … }`.
fn parse(text: &str, path: Vec<String>, modules: &mut BTreeMap<Vec<String>, Module>) {
    // Tests at the foot of a file may name any module.
    let text = text.split("#[cfg(test)]\nmod tests {").next().expect("the part before the first split");
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().expect("as above")).collect();
    split(&code, path, modules);
}

/// [`parse`] of lines without comments. rustfmt indents the brace that closes a module like the line
/// that opens it.
fn split(lines: &[&str], path: Vec<String>, modules: &mut BTreeMap<Vec<String>, Module>) {
    let mut own = Vec::new();
    let mut lines = lines.iter().copied();
    while let Some(line) = lines.next() {
        let Some(name) = inline_module(line) else {
            own.push(line);
            continue;
        };
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let body: Vec<&str> = lines.by_ref().take_while(|line| line.trim_end() != end).collect();
        split(&body, [path.as_slice(), &[name.to_string()]].concat(), modules);
    }
    modules.insert(path, Module::parse(&own.join("\n")));
}

/// Name of the module whose body begins behind this line.
fn inline_module(line: &str) -> Option<&str> {
    let (visibility, name) = line.trim().strip_suffix(" {")?.rsplit_once("mod ")?;
    (visibility.is_empty() || visibility.starts_with("pub")).then_some(name)
}

impl Module {
    fn parse(code: &str) -> Self {
        let mut module = Self::default();
        for (at, _) in code.match_indices("use ") {
            let starts_item = code[..at].rsplit('\n').next().is_none_or(|line| {
                let before = line.trim();
                before.is_empty() || before.starts_with("pub")
            });
            let Some(end) = code[at..].find(';').filter(|_| starts_item) else { continue };
            let tree: String = code[at + 4..at + end].split_whitespace().collect::<Vec<_>>().join(" ");
            expand(&tree, &[], &mut module);
        }
        let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        for word in code.split(|c| !is_name(c)) {
            let path: Vec<String> = word.split("::").map(str::to_string).collect();
            if path.len() > 1 && matches!(path[0].as_str(), "crate" | "super" | "self") {
                module.named.push(path.into_iter().filter(|segment| !segment.is_empty()).collect());
            }
        }
        module
    }
}

/// The paths of a `use` tree.
fn expand(tree: &str, prefix: &[String], module: &mut Module) {
    let tree = tree.trim();
    if let Some(start) = tree.find('{') {
        let mut inner = prefix.to_vec();
        inner.extend(segments(&tree[..start]));
        let body = &tree[start + 1..tree.rfind('}').expect("a brace that is opened is closed")];
        let (mut depth, mut from) = (0, 0);
        for (at, c) in body.char_indices().chain([(body.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&body[from..at], &inner, module);
                    from = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, name) = match tree.split_once(" as ") {
        Some((path, name)) => (path, Some(name.trim().to_string())),
        None => (tree, None),
    };
    let mut full = prefix.to_vec();
    full.extend(segments(path));
    if full.len() > 1 && full.last().is_some_and(|last| last == "self") {
        full.pop();
    }
    let Some(last) = full.last().cloned() else { return };
    module.imported.insert(name.unwrap_or(last), full.clone());
    module.named.push(full);
}

fn segments(path: &str) -> impl Iterator<Item = String> {
    path.split("::").map(|segment| segment.trim().to_string()).filter(|segment| !segment.is_empty())
}

fn src_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src")
}

#[test]
fn no_ring_among_the_modules_of_a_crate() {
    for name in CRATES {
        let rings = Crate::read(&src_of(name)).rings();
        assert!(rings.is_empty(), "{name}: {}", rings.join("\n"));
    }
}

#[test]
fn rings_are_found() {
    let files = [
        ("lib.rs", "mod a;\nmod b;\nmod c;\npub use c::Deep;\n"),
        ("a.rs", "use crate::b::{One, inner::Two as Other};\n"),
        ("b/mod.rs", "pub mod inner;\npub struct One;\n// use crate::a::X;\n"),
        ("b/inner.rs", "use super::One;\npub struct Two;\n"),
        ("c.rs", "pub struct Deep;\n#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n"),
    ];
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    files.iter().for_each(|(name, text)| put(name, text));
    let rings = || Crate::read(folder.path()).rings();
    assert_eq!(rings(), Vec::<String>::new());
    // Through a re-export of the root, and by a path in the middle of code.
    put("b/inner.rs", "use crate::Deep;\n");
    put("c.rs", "pub struct Deep;\nfn f() { crate::a::g() }\n");
    let found = rings();
    assert_eq!(found.len(), 1, "{found:?}");
    for example in ["a names crate::b::One", "b::inner names crate::Deep", "c names crate::a::g"] {
        assert!(found[0].contains(example), "{found:?}");
    }
    // In a group that follows another import.
    put("b/inner.rs", "use super::One;\n");
    put("a.rs", "use std::fmt;\nuse crate::{b, c};\n");
    let found = rings();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("a names crate::c"), "{found:?}");
    // By a module inside a file.
    put("b/inner.rs", "pub struct Two;\n");
    put("a.rs", "pub(crate) mod d {\n    fn f() {\n        super::super::c::g()\n    }\n}\n");
    put("c.rs", "use super::a::d;\n");
    let found = rings();
    assert_eq!(found.len(), 1, "{found:?}");
    for example in ["a::d names super::super::c::g", "c names super::a::d"] {
        assert!(found[0].contains(example), "{found:?}");
    }
}

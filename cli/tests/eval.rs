//! `pith eval` as a user meets it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn pith(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pith")).args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a failing command says, on one line.
#[track_caller]
fn failure(args: &[&str]) -> String {
    let output = pith(args);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(message.starts_with("error: "), "{message}");
    message
}

/// The embedded model in two encodings, and a text.
struct Place {
    folder: TempDir,
    dense: String,
    coarse: String,
    text: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wren = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let (dense, coarse, text) = (path("f16.pith"), path("q4.pith"), path("text.txt"));
        for (output, encoding) in [(&dense, "f16"), (&coarse, "q4")] {
            let source = wren.display().to_string();
            stdout(&pith(&["convert", &source, output, "-e", encoding, "--embedding", encoding, "--quiet"]));
        }
        let whole = std::fs::read_to_string(wren.join("heldout.txt")).unwrap();
        std::fs::write(&text, &whole[..whole.floor_char_boundary(6000)]).unwrap();
        Self { folder, dense, coarse, text }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self.path(name)
    }
}

#[test]
fn a_reference_is_kept_and_gives_the_same_figures() {
    let place = Place::new();
    let (dense, coarse, text) = (&*place.dense, &*place.coarse, &*place.text);
    let kept = place.path("dense.kl");
    let both = ["eval", "kl", dense, coarse, "--text", text, "--context", "64", "--json", "--tokens", "640"];
    let found = json(&pith(&[&both[..], &["--save-reference", &kept]].concat()));
    let divergence = &found["divergence"];
    assert!(divergence["kl"]["mean"].as_f64().unwrap() > 0.0, "{found}");
    assert_eq!(divergence["token_count"], 10 * 31);
    assert_eq!(found["exact"], true);
    assert_eq!(found["dense_perplexity"], divergence["reference_perplexity"]);
    let file_bytes = std::fs::metadata(coarse).unwrap().len();
    assert_eq!(found["compressed"]["file_bytes"], file_bytes);
    let bits = |model: &str| found[model]["bits_per_weight"].as_f64().unwrap();
    assert_eq!(bits("dense"), 16.0);
    assert!((4.0..5.0).contains(&bits("compressed")), "{found}");

    let again = json(&pith(&["eval", "kl", coarse, "--reference", &kept, "--json"]));
    assert_eq!(&again["divergence"], divergence);
    assert_eq!(again["dense_seconds"], Value::Null);
    // The original and the text are held against it.
    json(&pith(&["eval", "kl", dense, coarse, "--reference", &kept, "--text", text, "--json"]));
    let same = json(&pith(&["eval", "kl", dense, "--reference", &kept, "--json"]));
    assert_eq!(same["divergence"]["kl"]["max"], 0.0);

    let table = stdout(&pith(&["eval", "kl", coarse, "--reference", &kept]));
    for word in [
        "KL mean",
        "KL 99.9 %",
        "same top-1",
        "perplexity ratio",
        "bits/weight",
        "16.000",
        "exact",
        "310 tokens",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let alone =
        ["eval", "kl", dense, "--text", text, "--save-reference", &kept, "--keep", "16", "--score", "all"];
    let output = pith(&[&alone[..], &["--context", "32", "--tokens", "64"]].concat());
    assert!(stdout(&output).contains("62 tokens scored (all) in 2 windows of 32"), "{}", stdout(&output));
    assert!(stderr(&output).contains("reference of 62 tokens"), "{}", stderr(&output));
    let table = stdout(&pith(&["eval", "kl", coarse, "--reference", &kept, "--kernels", "portable"]));
    assert!(table.contains("a lower bound of the divergence: 16 of"), "{table}");
}

#[test]
fn what_does_not_belong_together_is_named() {
    let place = Place::new();
    let (dense, coarse, text) = (&*place.dense, &*place.coarse, &*place.text);
    let kept = place.path("dense.kl");
    let keep =
        ["eval", "kl", dense, "--text", text, "--save-reference", &kept, "-c", "32", "--tokens", "64", "-q"];
    stdout(&pith(&keep));
    let other = place.write("other.txt", "Another text.");
    let message = failure(&["eval", "kl", coarse, "--reference", &kept, "--text", &other]);
    assert!(
        message.contains("dense.kl is of another text than") && message.contains("other.txt"),
        "{message}"
    );
    let message = failure(&["eval", "kl", coarse, coarse, "--reference", &kept]);
    assert!(message.contains("dense.kl is of another original"), "{message}");
    assert!(failure(&["eval", "kl", coarse, "--reference", text]).contains("text.txt is no reference of"));
    let mut bytes = std::fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    assert!(failure(&["eval", "kl", coarse, "--reference", &kept]).contains("dense.kl is damaged"));

    let message = failure(&["eval", "kl", dense, coarse, "--text", &other, "--context", "64"]);
    assert!(message.contains("a window needs 64"), "{message}");
    let message = failure(&["eval", "kl", dense, coarse, "--text", text, "--context", "2"]);
    assert!(message.contains("in windows of 2 tokens none is scored"), "{message}");
    let message = failure(&["eval", "kl", dense, coarse, "--text", text, "--context", "100000"]);
    assert!(message.contains("100000"), "{message}");
    assert!(
        failure(&["eval", "kl", dense, coarse, "--text", text, "--keep", "0"])
            .contains("expected at least 1")
    );
    assert!(failure(&["eval", "kl", dense, "--text", text]).contains("compared with nothing"));
    assert!(failure(&["eval", "kl", dense, coarse, "--text", "no-such.txt"]).contains("no-such.txt"));
    let usage = pith(&["eval", "kl", dense, coarse]);
    assert_eq!(usage.status.code(), Some(2), "{}", stderr(&usage));
}

#[test]
fn tasks_are_counted_and_two_models_compared() {
    let place = Place::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren/tasks.jsonl").display().to_string();
    let ask = ["eval", "tasks", &place.coarse, "--file", &file, "--limit", "5", "--against", &place.dense];
    let found = json(&pith(&[&ask[..], &["--json"]].concat()));
    let all = &found["all"];
    let count = |value: &Value| value.as_u64().unwrap();
    let tasks = found["tasks"].as_array().unwrap();
    assert_eq!(count(&all["right"]["total"]), 5 * tasks.len() as u64);
    let sum: u64 = tasks.iter().map(|task| count(&task["right"]["count"])).sum();
    assert_eq!(sum, count(&all["right"]["count"]));
    assert!(count(&all["against"]["right"]["count"]) > 0, "{found}");
    assert!(all["against"]["p_value"].as_f64().unwrap() > 0.0);
    let table = stdout(&pith(&[&ask[..], &["--task", "factoid"]].concat()));
    assert!(table.starts_with("task") && table.contains("factoid") && !table.contains("summary"), "{table}");
    assert!(table.contains("McNemar p"), "{table}");
}

#[test]
fn wrong_items_are_named() {
    let place = Place::new();
    let ask = |text: &str, more: &[&str]| {
        let file = place.write("items.jsonl", text);
        failure(&[&["eval", "tasks", &place.dense, "--file", &file], more].concat())
    };
    let good = "{\"task\": \"a\", \"prompt\": \"p\", \"answer\": \" b\"}\n";
    assert!(ask(&format!("{good}{{"), &[]).contains("items.jsonl: line 2: no JSON object"));
    assert!(ask("{\"task\": \"a\", \"prompt\": \"p\"}", &[]).contains("line 1: field answer: is missing"));
    assert!(ask(good, &["--task", "b"]).contains("has no task \"b\"; there are a"));
    assert!(ask("", &[]).contains("items.jsonl has no items"));
    let long = format!("{{\"task\": \"a\", \"prompt\": \"{}\", \"answer\": \" b\"}}\n", "heron ".repeat(40));
    let message = ask(&format!("{good}{long}"), &["--context", "24"]);
    assert!(message.contains("line 2: field prompt: is") && message.contains("context of 24"), "{message}");
}

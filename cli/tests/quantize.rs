//! `pith convert` with recipes, quantizers and limits, as a user meets it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn wren() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren").display().to_string()
}

fn text(name: &str) -> String {
    format!("{}/{name}", wren())
}

fn pith(folder: &TempDir, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pith"));
    command.args(args).current_dir(folder.path()).stdin(Stdio::null()).output().unwrap()
}

/// Converts the embedded model to `out.pith`, with 600 tokens to calibrate with.
fn convert(folder: &TempDir, args: &[&str]) -> Output {
    let common = ["convert", &wren(), "out.pith", "-t", "2", "-q"];
    pith(folder, &[&common, args].concat())
}

fn calibrated(folder: &TempDir, args: &[&str]) -> Output {
    let text = ["--text", &text("calibration.txt"), "--tokens", "600", "--context", "128"];
    convert(folder, &[&text, args].concat())
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command that failed said; it left nothing but `kept`.
fn refusal(folder: &TempDir, output: &Output, kept: &[&str]) -> String {
    assert!(!output.status.success());
    assert_eq!(names(folder), kept);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_recipe_makes_one_file_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    json(&calibrated(&folder, &["--recipe", "tiny", "--refine", "--json"]));
    assert_eq!(names(&folder), ["out.pith"]);
    let inspected = json(&pith(&folder, &["inspect", "out.pith", "--json"]));
    let said = inspected.to_string();
    assert!(said.contains("tiny: q2, embedding q4-a, head q4-a, gptq refined, 2 overrides"), "{said}");
    let encoding = |name: &str| {
        let tensors = inspected["tensors"].as_array().unwrap();
        let tensor = tensors.iter().find(|tensor| tensor["tensor"] == name).unwrap();
        tensor["encoding"].as_str().unwrap().to_string()
    };
    assert_eq!(encoding("layers.0.attention.query"), "q2");
    assert_eq!(encoding("layers.1.ffn.down"), "q3-a");
    assert_eq!(encoding("embedding.token"), "q4-a");
}

#[test]
fn the_default_takes_more_bits_where_a_model_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families");
    let convert = |family: &str, args: &[&str]| {
        let source = families.join(family).display().to_string();
        pith(&folder, &[&["convert", &source, "out.pith", "--force", "-t", "2"], args].concat())
    };
    let recipe = || {
        let inspected = json(&pith(&folder, &["inspect", "out.pith", "--json"])).to_string();
        let found = ["balanced: ", "high: "].map(|name| inspected.contains(name));
        assert!(found[0] != found[1], "{inspected}");
        if found[0] { "balanced" } else { "high" }
    };
    let kept = json(&convert("gemma3", &["--json"]));
    assert!(kept["divergence"]["kl"]["mean"].as_f64().unwrap() < 0.04, "{kept}");
    assert_eq!(recipe(), "balanced");
    // What such models write, and how they diverge on it, differs with the CPU.
    let untrained = ["gemma2_untied", "mistral", "llama2", "qwen3_untied", "phi3", "qwen2"];
    let widened = untrained.into_iter().map(|family| convert(family, &[]));
    let is_widened = |output: &Output| String::from_utf8_lossy(&output.stderr).contains("converting by high");
    let widened = widened.into_iter().find(is_widened).expect("a model that balanced does not suit");
    let said = String::from_utf8_lossy(&widened.stderr);
    assert!(said.contains("balanced would diverge by 0.0"), "{said}");
    let said = String::from_utf8_lossy(&widened.stdout);
    assert!(said.contains("tokens of text that the model wrote"), "{said}");
    assert_eq!(recipe(), "high");
    assert_eq!(names(&folder), ["out.pith"]);
}

#[test]
fn a_file_that_loses_more_than_allowed_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let judged = ["--recipe", "small", "--eval-text", &text("heldout.txt"), "--max-kl"];
    let found = calibrated(&folder, &[&judged[..], &["1e-9"]].concat());
    let message = refusal(&folder, &found, &[]);
    assert!(message.contains("above --max-kl 0.000000001"), "{message}");
    assert!(message.contains("take wider encodings, or more text"), "{message}");
    let found = calibrated(&folder, &[&judged[..], &["10", "--json"]].concat());
    let divergence = json(&found)["divergence"]["kl"]["mean"].as_f64().unwrap();
    assert!(divergence > 1e-4 && divergence < 10.0, "{divergence}");
    assert_eq!(names(&folder), ["out.pith"]);
}

#[test]
fn wishes_that_cannot_be_met_are_named_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = "encoding = \"q4\"\n[[tensor]]\nmatch = \"layers.*.attention.quary\"\nencoding = \"q8\"\n";
    std::fs::write(folder.path().join("mine.toml"), recipe).unwrap();
    let kept = ["mine.toml"];
    let cases: [(&[&str], &str); 5] = [
        (&["--recipe", "mine.toml"], "\"layers.*.attention.quary\" matches no matrix"),
        (&["--recipe", "huge"], "no recipe is called \"huge\""),
        (&["-e", "q4", "--refine"], "--refine is for --quantizer gptq"),
        (
            &["-e", "q4", "--quantizer", "gptq", "--refine", "--transform", "awq"],
            "transform awq: refining compares",
        ),
        (&["--recipe", "small", "--memory", "1K"], "rounding takes"),
    ];
    for (args, expected) in cases {
        let message = refusal(&folder, &calibrated(&folder, args), &kept);
        assert!(message.contains(expected), "{args:?}: {message}");
    }
    let missing = convert(&folder, &["-e", "q4", "--quantizer", "gptq", "--calibration", "none"]);
    assert!(refusal(&folder, &missing, &kept).contains("none"));
}

#[test]
fn gptq_needs_pairs_of_columns() {
    let folder = tempfile::tempdir().unwrap();
    json(&pith(
        &folder,
        &["calibrate", &wren(), "--tokens", "64", "--context", "64", "-o", "stats", "--json", "-t", "2"],
    ));
    for args in [&["--quantizer", "gptq"], &["--transform", "awq"]] {
        let found = convert(&folder, &[&["-e", "q4-nl", "--calibration", "stats"], &args[..]].concat());
        let message = refusal(&folder, &found, &["stats"]);
        assert!(message.contains("pith calibrate --hessians") && message.contains("Hessians"), "{message}");
    }
    // The weighted nearest levels need no more than there is.
    let done = convert(&folder, &["-e", "q4-nl", "--quantizer", "nearest", "--calibration", "stats"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_transform_is_kept_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for transform in ["awq", "hadamard"] {
        let args = ["-e", "q4-nl", "--quantizer", "gptq", "--transform", transform, "--force"];
        let done = calibrated(&folder, &args);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let said = json(&pith(&folder, &["inspect", "out.pith", "--json"])).to_string();
        assert!(said.contains(&format!("gptq, {transform}")), "{said}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing() {
    [("-INT", 130), ("-TERM", 143), ("-HUP", 129)]
        .into_iter()
        .for_each(|(signal, code)| interrupt(signal, code));
}

/// Sends a signal to a conversion; it must end with the code and leave no file.
#[cfg(unix)]
fn interrupt(signal: &str, expected: i32) {
    let folder = tempfile::tempdir().unwrap();
    let text = text("calibration.txt");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pith"))
        .args(["convert", &wren(), "out.pith", "--recipe", "balanced", "--text", &text, "-t", "1", "-q"])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    // Calibrating takes much longer than writing the dense file, which lies in a folder of its own.
    let dense = || {
        let inner = std::fs::read_dir(folder.path()).ok()?.next()?.ok()?.path();
        inner.join("dense.pith").exists().then_some(())
    };
    while dense().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "done before it could be interrupted");
        assert!(started.elapsed() < Duration::from_secs(120), "no dense file after two minutes");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(expected));
    assert_eq!(names(&folder), [""; 0]);
}

#[test]
fn keeping_floats_rounds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/llama2");
    let source = source.display().to_string();
    let kept = json(&pith(&folder, &["convert", &source, "out.pith", "-e", "keep", "--json"]));
    let encodings = kept["encodings"].as_array().unwrap().iter().filter_map(|row| row["encoding"].as_str());
    assert_eq!(encodings.collect::<Vec<_>>(), ["f16"], "{kept}");
    for wish in [["--head", "q3"], ["--embedding", "q4"], ["--quantizer", "hqq"]] {
        let args = [&["convert", &source, "new.pith", "-e", "keep"], &wish[..]].concat();
        let output = pith(&folder, &args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("--encoding keep takes"), "{wish:?}: {said}");
    }
}

/// A GGUF file of Q8_0, F16, Q4_1, Q5_0 and Q5_1 matrices.
#[test]
fn a_quantized_source_is_carried_unless_more_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let source =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/families/gguf_llama_mixed/model.gguf");
    let source = source.display().to_string();
    let convert = |args: &[&str]| pith(&folder, &[&["convert", &source, "out.pith", "-q"], args].concat());
    for args in [&["-e", "q4"][..], &["--quantizer", "hqq"], &["--head", "q6"]] {
        let said = refusal(&folder, &convert(args), &[]);
        assert!(said.contains("already quantized (") && said.contains("× Q5_1"), "{args:?}: {said}");
        assert!(said.contains("--requantize"), "{args:?}: {said}");
    }
    let said = refusal(&folder, &convert(&["-e", "q8", "--requantize"]), &[]);
    assert!(said.contains("bytes without knowledge"), "{said}");
    let rounded = json(&convert(&["-e", "q4", "--requantize", "--json"]));
    let warnings = rounded["warnings"].to_string();
    assert!(warnings.contains("rounded again") && warnings.contains("already quantized: "), "{rounded}");
    // What it costs, without being asked.
    assert!(rounded["divergence"]["kl"]["mean"].as_f64().unwrap() > 1e-3, "{rounded}");
    assert_eq!(rounded["divergence"]["text"], "text that the model wrote");
    let rounded = json(&convert(&["--requantize", "--json", "--force"]));
    assert!(rounded["encodings"].to_string().contains("q4-a"), "by the default recipe: {rounded}");
    let carried = json(&convert(&["--json", "--force"]));
    assert_eq!(carried["warnings"], Value::Array(Vec::new()));
    let names: Vec<_> =
        carried["encodings"].as_array().unwrap().iter().map(|row| row["encoding"].clone()).collect();
    for name in ["q4-1", "q5-0", "q5-1", "q8", "f16"] {
        assert!(names.contains(&name.into()), "{names:?}");
    }
}

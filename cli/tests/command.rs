//! The command as a user meets it: exit codes, output, errors.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn wren() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren")
}

fn pith(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pith")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap()
}

/// The embedded model as a file.
fn converted(encoding: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wren.pith").display().to_string();
    let source = wren().display().to_string();
    let report = json(&pith(&["convert", &source, &path, "--encoding", encoding, "--json"]));
    assert_eq!(report["file_bytes"].as_u64().unwrap(), std::fs::metadata(&path).unwrap().len());
    (folder, path)
}

#[test]
fn the_embedded_model_converts_and_speaks() {
    let (_folder, path) = converted("q8");
    let output = pith(&["run", &path, "--greedy", "-n", "24", "--prompt", "Question:", "--json"]);
    let value = json(&output);
    assert!(value["text"].as_str().unwrap().split_whitespace().count() > 3, "{value}");
    assert!(value["decode"]["weight_bytes"].as_u64().unwrap() > 0);
    let plain = pith(&["run", &path, "--greedy", "-n", "24", "--prompt", "Question:"]);
    assert_eq!(stdout(&plain).trim_end(), format!("Question:{}", value["text"].as_str().unwrap()).trim_end());
    assert!(stderr(&plain).contains("tokens/s"));
}

#[test]
fn a_prompt_comes_from_standard_input_too() {
    use std::io::Write;
    let (_folder, path) = converted("q8");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pith"))
        .args(["run", &path, "--greedy", "-n", "4", "--no-stats"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Question:\n").unwrap();
    let output = child.wait_with_output().unwrap();
    // The newline is the shell's.
    let (given, piped) =
        (pith(&["run", &path, "--greedy", "-n", "4", "--prompt", "Question:"]), stdout(&output));
    assert_eq!(piped, stdout(&given));
    assert!(stderr(&given).contains("reply       4 tokens"), "{}", stderr(&given));
    assert!(piped.starts_with("Question:") && !piped.starts_with("Question:\n"));
}

#[test]
fn chat_answers_each_line_and_ends_with_the_input() {
    use std::io::Write;
    let (_folder, path) = converted("q8");
    let mut child = Command::new(env!("CARGO_BIN_EXE_pith"))
        .args(["chat", &path, "--greedy", "-n", "12"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Who are you?\n/clear\nWho are you?\n").unwrap();
    let text = stdout(&child.wait_with_output().unwrap());
    let replies: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    assert!(replies.len() >= 2, "{text}");
    assert_eq!(replies[0], replies[replies.len() / 2], "a cleared conversation begins anew: {text}");
}

#[test]
fn drafted_text_is_the_plain_text_and_says_what_was_drafted() {
    let (_folder, path) = converted("q8");
    let (_coarse_folder, coarse) = converted("q4");
    let prompt =
        "Instruction: Repeat the names: Baxock Cimleigh Kogfoam Fazibel Pidmoor Kogarro Zubogan\nResponse:";
    let run = |more: &[&str]| {
        pith(&[&["run", &path, "-n", "60", "--seed", "3", "--prompt", prompt], more].concat())
    };
    let plain = json(&run(&["--greedy", "--json"]));
    assert!(plain["speculation"].is_null());
    for options in [&["--lookup"][..], &["--lookup", "--draft-tokens", "2"], &["--draft", &coarse]] {
        let drafted = json(&run(&[&["--greedy", "--json"], options].concat()));
        assert_eq!(drafted["ids"], plain["ids"], "{options:?}");
        let speculation = &drafted["speculation"];
        let accepted = speculation["accepted"].as_u64().unwrap();
        assert!(accepted > 0 && accepted <= speculation["drafted"].as_u64().unwrap(), "{speculation}");
        let decoded = drafted["decode"]["tokens"].as_u64().unwrap();
        assert_eq!(decoded, plain["decode"]["tokens"]);
        assert_eq!(decoded, accepted + speculation["passes"].as_u64().unwrap());
    }
    let message = stderr(&run(&["--greedy", "--lookup"]));
    assert!(message.contains("accepted (") && message.contains("tokens a pass"), "{message}");
    // A lookup takes the draws of plain text.
    let drawn = |more: &[&str]| json(&run(&[&["--temperature", "0.8", "--json"], more].concat()));
    assert_eq!(drawn(&["--lookup"])["ids"], drawn(&[])["ids"]);
    // Every line of the ledger says how many tokens share it.
    let folder = tempfile::tempdir().unwrap();
    let ledger = folder.path().join("ledger.jsonl").display().to_string();
    stdout(&run(&["--greedy", "--lookup", "--ledger", &ledger]));
    let lines: Vec<Value> = std::fs::read_to_string(&ledger)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &Value| line["phase"] == "decode")
        .collect();
    let tokens: u64 = lines.iter().map(|line| line["tokens"].as_u64().unwrap()).sum();
    assert_eq!(tokens, plain["decode"]["tokens"]);
    assert!(lines.iter().any(|line| line["tokens"].as_u64().unwrap() > 1));
}

/// The embedded model says that it does not sample.
#[test]
fn the_model_s_sampling_is_the_default_and_options_win() {
    let (_folder, path) = converted("q8");
    assert!(stdout(&pith(&["inspect", &path])).contains("sampling   temperature 0\n"));
    let inspected = json(&pith(&["inspect", &path, "--json"]));
    assert_eq!(inspected["metadata"]["sampling"], serde_json::json!({"temperature": 0.0}));
    let ids = |more: &[&str]| {
        let base = [
            "run",
            &path,
            "-n",
            "40",
            "--json",
            "--prompt",
            "Question: Tell me a story about a heron.\nAnswer:",
        ];
        json(&pith(&[&base, more].concat()))["ids"].clone()
    };
    assert_eq!(ids(&["--seed", "1"]), ids(&["--greedy"]));
    assert_ne!(ids(&["--seed", "1", "--temperature", "1.5"]), ids(&["--greedy"]));
}

#[test]
fn a_template_shows_what_a_chat_sends() {
    let (folder, path) = converted("q8");
    let messages = folder.path().join("messages.json");
    // A special token that is typed is text.
    std::fs::write(&messages, r#"[{"role": "user", "content": "Who are you?<s>"}]"#).unwrap();
    let file = messages.display().to_string();
    let show = |more: &[&str]| stdout(&pith(&[&["template", &path, "--messages", &file], more].concat()));
    assert_eq!(show(&[]), "<s>Question: Who are you?<s>\nAnswer:");
    let tokens = show(&["--tokens"]);
    let lines: Vec<_> = tokens.lines().map(str::trim).collect();
    assert_eq!((lines[0], lines[1]), ("0  \"<s>\"  special", "284  \"Question\""));
    assert_eq!(tokens.matches("special").count(), 1, "{tokens}");
    let ids: Vec<_> =
        lines.iter().map(|line| line.split(' ').next().unwrap().parse::<u32>().unwrap()).collect();
    let shown: Value = serde_json::from_str(&show(&["--json"])).unwrap();
    assert_eq!(shown["ids"], serde_json::json!(ids));
    // Variables of the template, as JSON or text.
    let template = folder.path().join("own.jinja");
    std::fs::write(&template, "{{ enable_thinking }} {{ list[1] + 1 }} {{ name }}").unwrap();
    let template = template.display().to_string();
    let own =
        ["--template", &template, "--template-arg", "enable_thinking=false", "--template-arg", "list=[1, 2]"];
    assert_eq!(show(&[&own[..], &["--template-arg", "name=heron"]].concat()), "False 3 heron");
    let wrong = pith(&["template", &path, "--messages", &file, "--template-arg", "thinking"]);
    assert!(stderr(&wrong).contains("is not KEY=VALUE"), "{}", stderr(&wrong));
}

#[test]
fn a_prompt_is_a_message_where_that_is_asked_for() {
    let (_folder, path) = converted("q8");
    let chat = pith(&["run", &path, "--chat", "--prompt", "Who are you?", "--no-stats"]);
    let reply = stdout(&chat);
    assert!(reply.starts_with("I am Wren"), "{reply}");
    // A text that is complete ends at once, and the hint says what the model is made for.
    let prompt = format!("Question: Who are you?\nAnswer: {}", reply.trim());
    let whole = pith(&["run", &path, "--prompt", &prompt, "--no-stats"]);
    assert!(stderr(&whole).contains("--chat, or pith chat"), "{}", stderr(&whole));
    let other = pith(&["run", &path, "--prompt", "Question:", "-n", "4"]);
    assert!(!stderr(&other).contains("--chat"));
}

#[test]
fn a_full_context_stops_or_shifts_as_asked() {
    let (_folder, path) = converted("q8");
    let run = |more: &[&str]| {
        let base = ["run", &path, "--greedy", "--ignore-eos", "-n", "150", "--context", "64", "--json"];
        pith(&[&base, more].concat())
    };
    let prompt = ["--prompt", "Question: Tell me a story about a heron.\nAnswer:"];
    let stopped = json(&run(&prompt));
    assert_eq!((&stopped["stopped"], &stopped["context_shifts"]), (&"context_full".into(), &0.into()));
    for more in [&[][..], &["--keep", "16"], &["--lookup"]] {
        let shifted = json(&run(&[&prompt, &["--context-full", "shift"], more].concat()));
        assert_eq!((&shifted["stopped"], &shifted["decode"]["tokens"]), (&"max_tokens".into(), &149.into()));
        assert!(shifted["context_shifts"].as_u64().unwrap() > 2, "{shifted}");
    }
    // A prompt longer than the context too.
    let long = "The village of ".repeat(40);
    assert!(stderr(&run(&["--prompt", &long])).contains("--context-full shift"));
    let shifted = json(&run(&["--prompt", &long, "--context-full", "shift"]));
    assert_eq!(shifted["stopped"], "max_tokens");
}

#[test]
fn a_long_conversation_goes_on_where_the_context_shifts() {
    use std::io::Write;
    let (_folder, path) = converted("q8");
    let folder = tempfile::tempdir().unwrap();
    // The model's own template forgets what was said; this one does not.
    let template = folder.path().join("all.jinja");
    std::fs::write(&template, "{% for m in messages %}{{ m['content'] }}\n{% endfor %}").unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pith"))
        .args([
            "chat",
            &path,
            "--greedy",
            "-n",
            "30",
            "--context",
            "96",
            "--context-full",
            "shift",
            "--lookup",
        ])
        .args(["--system", "Be brief.", "--stats", "--template", &template.display().to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = "Tell me a story about a heron and a goat who live in a village.\n".repeat(8);
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let messages = stderr(&output);
    assert!(output.status.success(), "{messages}");
    assert_eq!(messages.lines().filter(|line| line.starts_with("stopped")).count(), 8, "{messages}");
    assert!(messages.lines().any(|line| line.starts_with("context")), "{messages}");
}

#[test]
fn inspect_verifies_and_finds_a_changed_byte() {
    let (_folder, path) = converted("q4");
    let value = json(&pith(&["inspect", &path, "--verify", "--json"]));
    assert!(value["verified_bytes"].as_u64().unwrap() > 0);
    assert_eq!(value["metadata"]["model"]["family"], "llama");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output = pith(&["inspect", &path, "--verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("checksum") || stderr(&output).contains("padding"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn inspect_shows_checkpoints_and_the_cpu() {
    let source = json(&pith(&["inspect", &wren().display().to_string(), "--json"]));
    assert_eq!(source["model"]["family"], "llama");
    let cpu = json(&pith(&["inspect", "--cpu", "--json"]));
    assert!(cpu["kernels"].as_array().unwrap().contains(&"portable".into()));
}

#[test]
fn bench_counts_the_bytes_of_the_directory() {
    let (_folder, path) = converted("q4");
    let rows = json(&pith(&["bench", &path, "-p", "8", "-n", "4", "-r", "2", "-t", "1,2", "--json"]));
    let file = json(&pith(&["inspect", &path, "--json"]));
    let expected = file["decode_weight_bytes"].as_f64().unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows.iter().filter(|row| row["test"] == "tg4") {
        assert_eq!(row["weight_bytes_per_token"].as_f64().unwrap(), expected);
        assert!(row["min"].as_f64().unwrap() <= row["tokens_per_s"].as_f64().unwrap());
    }
    // Keys and values of the same positions, 32 numbers at a time in 4 bits and a scale.
    let cached = |kv| {
        let rows = json(&pith(&["bench", &path, "-p", "0", "-n", "4", "-r", "1", "--kv", kv, "--json"]));
        assert_eq!(rows[0]["kv"], kv);
        rows[0]["kv_bytes_per_token"].as_f64().unwrap()
    };
    let (halves, nibbles) = (cached("f16"), cached("q4"));
    assert!((nibbles / halves - 18.0 / 64.0).abs() < 1e-3, "{nibbles} of {halves}");
    assert!(rows.iter().all(|row| row["head"] == "q8" && row["logits"] == "exact"), "{rows:?}");
    let markdown = stdout(&pith(&["bench", &path, "-p", "8", "-n", "0", "-r", "1", "-o", "md"]));
    assert!(markdown.starts_with("| model |"), "{markdown}");
}

#[test]
fn logits_are_exact_unless_an_approximation_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wren.pith").display().to_string();
    stdout(&pith(&[
        "convert",
        &wren().display().to_string(),
        &path,
        "--fast",
        "--head",
        "q4-g64+q4",
        "--quiet",
    ]));
    let bench = |more: &[&str]| {
        let base = ["bench", &path, "-p", "0", "-n", "4", "-r", "1", "--json"];
        json(&pith(&[&base[..], more].concat()))[0].clone()
    };
    let (exact, staged) = (bench(&[]), bench(&["--two-stage-logits"]));
    assert_eq!((&exact["head"], &exact["head_bits"]), (&"q4-g64+q4".into(), &8.75.into()));
    // The embedded model's vocabulary is too small for stages: its logits stay exact.
    assert_eq!((&exact["logits"], &staged["logits"]), (&"exact".into(), &"exact".into()));
    // Samplers that look at rough logits are refused.
    let drawn = ["--temperature", "0.8", "--top-k"];
    for sampler in
        [&[&drawn[..], &["41"]].concat()[..], &[&drawn[..], &["0"]].concat(), &["--repeat-penalty", "1.1"]]
    {
        let run = ["run", &path, "--prompt", "a", "-n", "2", "--two-stage-logits"];
        let failed = pith(&[&run[..], sampler].concat());
        assert_eq!(failed.status.code(), Some(1), "{sampler:?}");
        assert!(stderr(&failed).contains("--two-stage-logits"), "{}", stderr(&failed));
    }
    stdout(&pith(&["run", &path, "--prompt", "a", "-n", "2", "--two-stage-logits", "--no-stats"]));
    assert_eq!(pith(&["run", &path, "--prompt", "a", "--exact-logits"]).status.code(), Some(2));
}

#[test]
fn tokens_lead_back_to_text() {
    let (_folder, path) = converted("q8");
    let text = "A river, 1234 bells.";
    for source in [path, wren().display().to_string(), wren().join("tokenizer.json").display().to_string()] {
        let ids = stdout(&pith(&["tokenize", &source, "--text", text, "--no-special"]));
        assert!(ids.split_whitespace().all(|id| id.parse::<u32>().is_ok()), "{ids}");
        assert_eq!(stdout(&pith(&["detokenize", &source, "--tokens", ids.trim()])), text);
    }
}

#[test]
fn logits_are_written_as_numpy() {
    let (folder, path) = converted("f32");
    let [all, single] = ["all.npy", "single.npy"].map(|name| folder.path().join(name).display().to_string());
    stdout(&pith(&["logits", &path, "--tokens", "0 5 9", "-o", &all, "--kv", "f32"]));
    stdout(&pith(&["logits", &path, "--tokens", "0,5,9", "-o", &single, "--one-by-one", "--kv", "f32"]));
    let (all, single) = (std::fs::read(&all).unwrap(), std::fs::read(&single).unwrap());
    assert_eq!(&all[..6], b"\x93NUMPY");
    assert_eq!(all.len(), single.len());
}

#[test]
fn wrong_usage_is_exit_code_2_and_failure_1() {
    assert_eq!(pith(&["run"]).status.code(), Some(2));
    assert_eq!(pith(&["run", "x.pith", "--flag-that-is-not"]).status.code(), Some(2));
    assert_eq!(pith(&["run", "x.pith", "--lookup", "--draft", "y.pith"]).status.code(), Some(2));
    let missing = pith(&["run", "/nowhere/x.pith", "--prompt", "a"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/nowhere/x.pith"), "{}", stderr(&missing));
}

#[test]
fn errors_name_the_place_and_the_values() {
    let (folder, path) = converted("q8");
    let source = wren().display().to_string();
    let case = |args: &[&str], parts: &[&str]| {
        let output = pith(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let message = stderr(&output);
        assert!(parts.iter().all(|part| message.contains(part)), "{args:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
        assert!(output.stdout.is_empty(), "{args:?} printed before it failed");
    };
    case(&["convert", &source, &path], &["exists", "--force"]);
    case(&["convert", &source, &path, "--force", "--encoding", "q9"], &["q9", "q4-g64"]);
    case(&["convert", &source, "/proc/nowhere/x.pith"], &["/proc/nowhere"]);
    case(&["run", &source, "--prompt", "a"], &["convert it first"]);
    case(&["run", &path, "--prompt", ""], &["empty"]);
    case(&["run", &path, "--prompt", "a", "--kernels", "abacus"], &["abacus", "portable"]);
    case(&["run", &path, "--prompt", "a", "--temperature", "-1"], &["temperature", "-1"]);
    case(&["run", &path, "--prompt", "a", "--context", "100000000"], &["100000000"]);
    case(&["run", &path, "--prompt", &"word ".repeat(5000)], &["context"]);
    case(&["run", &path, "--prompt", "a", "--lookup", "--draft-tokens", "0"], &["tokens to draft is 0"]);
    case(&["run", &path, "--prompt", "a", "--draft", "/nowhere/y.pith"], &["/nowhere/y.pith"]);
    case(&["run", &path, "--prompt", "a", "--keep", "4"], &["--keep", "--context-full shift"]);
    case(
        &[
            "run",
            &path,
            "--prompt",
            "a",
            "--context",
            "32",
            "--context-full",
            "shift",
            "--keep",
            "31",
            "--no-echo",
        ],
        &["tokens to keep is 31", "context of 32"],
    );
    case(&["logits", &path, "--tokens", "0 999999", "-o", "/tmp/never.npy"], &["999999"]);
    case(&["logits", &path, "--tokens", "0 x", "-o", "/tmp/never.npy"], &["\"x\""]);
    let half = folder.path().join("half.pith");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&half, &bytes[..bytes.len() / 2]).unwrap();
    case(&["run", &half.display().to_string(), "--prompt", "a"], &["half.pith", "truncated"]);
    std::fs::write(&half, b"GGUF....").unwrap();
    case(&["inspect", &half.display().to_string()], &["not a .pith file"]);
}

#[test]
fn a_window_too_short_and_a_conversation_too_long_are_named() {
    use std::io::Write;
    let (folder, path) = converted("q8");
    let text = wren().join("heldout.txt").display().to_string();
    for window in ["1", "2"] {
        let failed = pith(&["perplexity", &path, "--file", &text, "--bytes", "600", "--context", window]);
        let message = stderr(&failed);
        assert!(
            message.contains(&format!("a context of {window} tokens")) && message.contains("raise --context"),
            "{message}"
        );
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_pith"))
        .args(["chat", &path, "-n", "8", "--context", "40"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let turns = format!("Who are you?\n{}\n", "Tell me about the people. ".repeat(12));
    child.stdin.take().unwrap().write_all(turns.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(
        message.contains("the context holds 40: /clear") && message.contains("--context-full shift"),
        "{message}"
    );
    // A folder as output is called one.
    let output = folder.path().display().to_string();
    let failed = pith(&["convert", "--force", &wren().display().to_string(), &output]);
    assert!(stderr(&failed).contains("is a folder, expected a file"), "{}", stderr(&failed));
}

#[test]
fn completions_are_printed_for_shells() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(stdout(&pith(&["completions", shell])).contains("perplexity"), "{shell}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_stops_the_reply_and_not_the_conversation() {
    use std::io::{Read, Write};
    let (_folder, path) = converted("q8");
    // The reference kernels are slow enough to be interrupted.
    let mut child = Command::new(env!("CARGO_BIN_EXE_pith"))
        .args(["chat", &path, "--greedy", "--kernels", "reference", "-t", "1", "--stats"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"Tell me a story about a heron.\n").unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    input.write_all(b"What is the pet of Heskily?\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let messages = stderr(&output);
    assert!(output.status.success(), "{messages}");
    let reasons: Vec<_> = messages.lines().filter(|line| line.starts_with("stopped")).collect();
    assert_eq!(reasons, ["stopped by request", "stopped at the end of the text"], "{messages}");
}

/// A disk that is full, by way of the largest file that the shell allows.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    for (options, place) in [("-e q4", "x.pith"), ("", "dense.pith")] {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "trap '' XFSZ; ulimit -f 200; exec {} convert {} {} --quiet {options}",
            env!("CARGO_BIN_EXE_pith"),
            wren().display(),
            folder.path().join("x.pith").display()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert!(said.contains(place) && said.contains(&folder.path().display().to_string()), "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

/// Killed at any moment, a conversion leaves the old file, the whole new one, or none that opens.
#[cfg(unix)]
#[test]
fn a_killed_conversion_leaves_no_wrong_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x.pith");
    let source = wren().display().to_string();
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_pith"))
            .args(["convert", &source, &output.display().to_string(), "--fast", "--force", "--quiet"])
            .spawn()
            .unwrap()
    };
    let began = std::time::Instant::now();
    assert!(start().wait().unwrap().success());
    let whole = began.elapsed();
    let expected = std::fs::read(&output).unwrap();
    let mut state = 12345u64;
    for round in 0..20 {
        if round % 2 == 0 {
            let _ = std::fs::remove_file(&output);
        }
        let mut child = start();
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(whole.mul_f64((state >> 40) as f64 / (1u64 << 24) as f64));
        child.kill().unwrap();
        child.wait().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            match pith_format::Index::parse(&bytes) {
                Ok(index) => {
                    index
                        .verify(&bytes, |_| ())
                        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                    assert_eq!(bytes, expected, "{}", path.display());
                }
                Err(_) => {
                    assert_ne!(path, output, "round {round}: a file under the final name does not open")
                }
            }
        }
    }
}

#[test]
fn a_session_file_spares_the_prompt() {
    let (folder, path) = converted("q8");
    let file = folder.path().join("prompt.session").display().to_string();
    let prompt = "Question: How many days does a week have, and which of them is the first?";
    let run = |more: &[&str]| {
        let args = ["run", &path, "--greedy", "-n", "12", "--json", "--prompt", prompt];
        json(&pith(&[&args[..], more].concat()))
    };
    let plain = run(&[]);
    let first = run(&["--session", &file]);
    let saved = std::fs::read(&file).unwrap();
    let again = run(&["--session", &file]);
    assert_eq!((&plain["ids"], &plain["ids"]), (&first["ids"], &again["ids"]));
    let tokens = plain["prompt_tokens"].as_u64().unwrap();
    assert_eq!((first["reused_tokens"].as_u64(), again["reused_tokens"].as_u64()), (Some(0), Some(tokens)));
    // The file has the prompt's logits too, so the reply begins with the same bits.
    assert_eq!(again["prefill"]["tokens"].as_u64(), Some(0));
    assert_eq!(std::fs::read(&file).unwrap(), saved, "nothing new, nothing written");

    // Everything that was written is kept where that is asked for, and nothing where it is not.
    run(&["--session", &file, "--session-all"]);
    let longer = std::fs::read(&file).unwrap();
    assert!(longer.len() > saved.len());
    // The file's logits follow the reply, so the prompt's last batch is computed again.
    let third = run(&["--session", &file, "--session-ro"]);
    assert_eq!((&third["ids"], third["reused_tokens"].as_u64()), (&plain["ids"], Some(0)));
    let args = ["run", &path, "-n", "2", "--json", "--prompt", "Question: Who", "--session", &file];
    let other = json(&pith(&[&args[..], &["--session-ro"]].concat()));
    assert!(other["reused_tokens"].as_u64().unwrap() > 0);
    assert_eq!(std::fs::read(&file).unwrap(), longer);

    // A damaged file and one of another cache are errors with the file's name.
    for kv in ["q8", "q4"] {
        let failed = pith(&[&args[..], &["--kv", kv]].concat());
        assert_eq!(failed.status.code(), Some(1));
        assert!(stderr(&failed).contains("prompt.session") && stderr(&failed).contains("cache type"));
    }
    std::fs::write(&file, &longer[..longer.len() - 1]).unwrap();
    let failed = pith(&args);
    assert!(stderr(&failed).contains("truncated"), "{}", stderr(&failed));
    let missing = pith(&["run", &path, "--prompt", "a", "--session", "/nowhere/x", "--session-ro"]);
    assert!(stderr(&missing).contains("/nowhere/x: open"), "{}", stderr(&missing));
}

#[test]
fn chat_keeps_its_first_prompt_in_a_session_file() {
    use std::io::Write;
    let (folder, path) = converted("q8");
    let file = folder.path().join("chat.session").display().to_string();
    let talk = |more: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pith"))
            .args(["chat", &path, "--greedy", "-n", "8", "--stats", "--session", &file])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"Who are you?\nWhy?\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let statistics = stderr(&output);
        let prompt = statistics.lines().find(|line| line.starts_with("prompt")).unwrap().to_string();
        let tokens = prompt.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        (stdout(&output), tokens, std::fs::metadata(&file).unwrap().len())
    };
    let (text, tokens, bytes) = talk(&[]);
    assert!(tokens > 1);
    let (again, computed, _) = talk(&[]);
    assert_eq!((again, computed), (text, 0));
    let (_, _, all) = talk(&["--session-all"]);
    assert!(all > bytes);
}

#[test]
fn a_plan_says_what_is_kept_and_what_is_read() {
    let (_folder, path) = converted("q8");
    let value = json(&pith(&["inspect", &path, "--plan", "--memory", "8GiB", "--context", "64", "--json"]));
    assert_eq!(value["streamed_bytes"], 0);
    assert_eq!(value["memory_bytes"].as_u64(), Some(8 << 30));
    let parts = value["parts"].as_array().unwrap();
    let bytes: u64 = parts.iter().map(|part| part["bytes"].as_u64().unwrap()).sum();
    assert_eq!(value["kept_bytes"].as_u64(), Some(bytes));
    let text = stdout(&pith(&["inspect", &path, "--plan", "--memory", "8GiB"]));
    assert!(text.contains("kept") && !text.contains("streamed"), "{text}");
    // The least is named, for people who give less.
    for args in
        [&["inspect", &path, "--plan", "--memory", "1M"][..], &["run", &path, "-p", "a", "--memory", "1M"]]
    {
        let failed = pith(args);
        assert_eq!(failed.status.code(), Some(1));
        assert!(
            stderr(&failed).contains("1000000 bytes of memory are too few: at least"),
            "{}",
            stderr(&failed)
        );
    }
    assert_eq!(pith(&["run", &path, "-p", "a", "--memory", "lots"]).status.code(), Some(2));
    assert_eq!(pith(&["inspect", &path, "--memory", "1G"]).status.code(), Some(2), "a limit without --plan");
}

/// The table of five quantizations on a Raspberry Pi 5; its source stands in the file.
fn pi5_table() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards/tests/sensors/pi5-decode.csv");
    path.display().to_string()
}

#[test]
fn a_table_is_fitted_with_its_residuals() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.toml").display().to_string();
    let output = pith(&["board", "calibrate", "--table", &pi5_table(), "--output", &path]);
    let text = stdout(&output);
    assert!(text.contains("P_idle       6.3172 W") && text.contains("not shown"), "{text}");
    let outlier = text.lines().find(|line| line.contains("Q5_K_M")).unwrap();
    assert!(outlier.contains("+10.1 %") && outlier.contains("stands out"), "{outlier}");
    assert!(std::fs::read_to_string(&path).unwrap().contains("kind = \"calibrated\""));
    let value = json(&pith(&["board", "calibrate", "--table", &pi5_table(), "--idle-watts", "3", "--json"]));
    assert_eq!(value["fit"]["coefficients"][0]["term"], "byte");
    assert_eq!(value["saved"], Value::Null);
    let wrong = pith(&["board", "calibrate", "--table", &path]);
    assert!(!wrong.status.success() && stderr(&wrong).contains("model.toml"), "{}", stderr(&wrong));
}

/// A machine without sensors and counters, whatever this one has.
fn bare_machine(folder: &TempDir) -> String {
    let root = folder.path().join("bare");
    std::fs::create_dir_all(&root).unwrap();
    root.display().to_string()
}

#[test]
fn a_machine_without_a_meter_is_probed_and_nothing_is_fitted() {
    let folder = tempfile::tempdir().unwrap();
    let (root, profile) = (bare_machine(&folder), folder.path().join("own/this-machine.toml"));
    let path = profile.display().to_string();
    let value = json(&pith(&[
        "board",
        "calibrate",
        "--root",
        &root,
        "--threads",
        "1",
        "--rounds",
        "1",
        "--json",
        "--output",
        &path,
    ]));
    assert_eq!((&value["memory"][0]["threads"], value["memory"].as_array().unwrap().len()), (&1.into(), 1));
    assert!(value["memory"][0]["bytes_per_s"].as_f64().unwrap() > 0.0, "{value}");
    assert_eq!((&value["meters"], &value["fit"]), (&Value::Array(vec![]), &Value::Null), "{value}");
    assert_eq!(value["saved"], path.as_str());
    let saved = std::fs::read_to_string(&profile).unwrap();
    assert!(saved.contains("No meter to calibrate by"), "{saved}");
}

#[test]
fn energy_is_modelled_where_there_is_no_meter_and_called_so() {
    let (folder, path) = converted("q4");
    let (root, model) = (bare_machine(&folder), folder.path().join("pi5.toml").display().to_string());
    let table = ["board", "calibrate", "--table", &pi5_table(), "--idle-watts", "3", "--output", &model];
    let fit = json(&pith(&[&table[..], &["--json"]].concat()))["fit"].clone();
    assert_eq!(fit["coefficients"][0]["term"], "byte", "{fit}");
    let joules_per_byte = fit["coefficients"][0]["value"].as_f64().unwrap();
    let bench = ["bench", &path, "--energy", "--root", &root, "--energy-model", &model];
    let tests = ["-p", "8", "-n", "8", "-r", "3", "--window", "0.05", "-t", "1"];
    let value = json(&pith(&[&bench[..], &tests, &["--json"]].concat()));
    let (speed, energy) = (value["speed"].as_array().unwrap(), value["energy"].as_array().unwrap());
    assert_eq!((speed.len(), energy.len()), (2, 2), "{value}");
    for (speed, energy) in speed.iter().zip(energy) {
        assert_eq!((&energy["meter"], &energy["scope"]), (&"model".into(), &"board".into()));
        assert_eq!((&energy["test"], &energy["idle_w"]), (&speed["test"], &3.0.into()));
        assert_eq!((&speed["windows"], &energy["missing"]), (&3.into(), &0.into()));
        assert_eq!(energy.get("measured_j_per_token"), None, "{energy}");
        // Beyond 3 W at all times a token costs its bytes, however long it took.
        let (net, bytes) = (&energy["modelled_net_j_per_token"], &speed["counted_bytes_per_token"]);
        let (net, expected) = (net.as_f64().unwrap(), joules_per_byte * bytes.as_f64().unwrap());
        assert!((net / expected - 1.0).abs() < 1e-3, "{net}, expected {expected}");
        assert!(energy["modelled_j_per_token"].as_f64().unwrap() > net, "{energy}");
        assert!(speed["ceiling_%"].as_f64().unwrap() > 0.0);
    }
    let text = stdout(&pith(&[&bench[..], &tests].concat()));
    assert!(text.contains("modelled_j_per_token") && !text.contains("measured_j_per_token"), "{text}");
}

#[test]
fn wrong_options_of_energy_are_named() {
    let (folder, path) = converted("q4");
    let log = folder.path().join("log.csv");
    std::fs::write(&log, "time_s,power_mV\n0,1\n1,1\n").unwrap();
    let log = log.display().to_string();
    let error = |rest: &[&str]| {
        let bench = ["bench", &path, "--energy", "-p", "0", "-n", "4", "-r", "1", "--window", "0.05"];
        let output = pith(&[&bench[..], rest].concat());
        assert!(!output.status.success());
        stderr(&output)
    };
    assert!(error(&["--power-log", &log]).contains("power_mV"));
    assert!(error(&["--energy-model", &log]).contains("log.csv"));
    assert!(error(&["--idle", "none"]).contains("--idle"));
    assert!(stderr(&pith(&["bench", &path, "--window", "1"])).contains("--energy"));
}

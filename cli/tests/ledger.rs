//! Ledgers, reports and metrics as a user meets them.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn pith(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pith")).args(args).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with the embedded model in it.
struct Place {
    folder: TempDir,
    model: String,
}

impl Place {
    fn new(encoding: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren").display().to_string();
        let model = folder.path().join("wren.pith").display().to_string();
        stdout(&pith(&["convert", &source, &model, "--encoding", encoding, "--quiet"]));
        Self { folder, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn run(&self, more: &[&str]) -> Output {
        let base = ["run", &self.model, "--greedy", "--ignore-eos", "-n", "40", "--prompt", "Question:"];
        pith(&[&base, more].concat())
    }
}

#[test]
fn a_ledger_holds_what_the_statistics_say_and_what_the_file_holds() {
    let place = Place::new("q4");
    let path = place.name("run.jsonl");
    let said: Value = serde_json::from_str(&stdout(&place.run(&["--json", "--ledger", &path]))).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let header = &lines[0];
    assert_eq!(header["pith_ledger"], 1);
    assert_eq!(header["model"]["file_bytes"], std::fs::metadata(&place.model).unwrap().len());
    let file: Value = serde_json::from_str(&stdout(&pith(&["inspect", &place.model, "--json"]))).unwrap();
    let tensors: u64 =
        file["tensors"].as_array().unwrap().iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
    let roles = header["model"]["by_role"].as_array().unwrap();
    let layers = header["model"]["by_layer"].as_array().unwrap();
    let by_role: u64 = roles.iter().map(|role| role["bytes"].as_u64().unwrap()).sum();
    let parts = ["attention_bytes", "ffn_bytes", "other_bytes"];
    let by_layer: u64 = layers.iter().flat_map(|layer| parts.map(|part| layer[part].as_u64().unwrap())).sum();
    assert_eq!((by_role, by_layer), (tensors, tensors));
    assert_eq!(header["model"]["decode_weight_bytes"], file["decode_weight_bytes"]);
    assert_eq!(header["model"]["source_checksum"], file["metadata"]["provenance"]["source"]["checksum"]);
    for phase in ["prefill", "decode"] {
        let own: Vec<&Value> = lines[1..].iter().filter(|line| line["phase"] == phase).collect();
        for field in [
            "tokens",
            "weight_bytes",
            "embedding_bytes",
            "kv_read_bytes",
            "kv_write_bytes",
            "activation_bytes",
        ] {
            let sum: u64 = own.iter().map(|line| line[field].as_u64().unwrap()).sum();
            assert_eq!(Value::from(sum), said[phase][field], "{phase} {field}");
        }
    }
    assert!(lines[2..].iter().all(|line| line["weight_bytes"] == header["model"]["decode_weight_bytes"]));
    let starts: Vec<f64> = lines[1..].iter().map(|line| line["start_seconds"].as_f64().unwrap()).collect();
    assert!(starts.is_sorted());
}

#[test]
fn a_report_is_made_of_both_forms() {
    let place = Place::new("q8");
    let (lines, table, page) = (place.name("a.jsonl"), place.name("b.csv"), place.name("report.html"));
    stdout(&place.run(&["--ledger", &lines]));
    stdout(&place.run(&["--ledger", &table, "--threads", "1"]));
    assert!(
        std::fs::read_to_string(&table).unwrap().lines().nth(1).unwrap().starts_with("start_seconds,phase,")
    );
    stdout(&pith(&["report", &lines, &table, "-o", &page, "--bandwidth", "14.5GB"]));
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("What a token costs: 2 runs") && text.contains("given with the report"));
    assert_eq!(stdout(&pith(&["report", &lines, &table, "-o", "-", "--bandwidth", "14.5GB"])), text);
    // The option decides, not the name.
    stdout(&place.run(&["--ledger", &table, "--ledger-format", "jsonl"]));
    assert!(std::fs::read_to_string(&table).unwrap().starts_with("{\"pith_ledger\":1,"));
}

#[test]
fn a_damaged_ledger_is_refused_or_mended_aloud() {
    let place = Place::new("q8");
    let (path, page) = (place.name("a.jsonl"), place.name("report.html"));
    stdout(&place.run(&["--ledger", &path]));
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 30]).unwrap();
    let output = pith(&["report", &path, "-o", &page]);
    stdout(&output);
    assert!(
        stderr(&output).contains("warning: ") && stderr(&output).contains("line 41"),
        "{}",
        stderr(&output)
    );
    std::fs::write(&path, text.replacen("\"tokens\":1,", "\"tokens\":-1,", 1)).unwrap();
    let output = pith(&["report", &path, "-o", &page]);
    assert!(
        !output.status.success() && stderr(&output).contains("line 3, tokens: found -1"),
        "{}",
        stderr(&output)
    );
    let output = pith(&["report", &path, "-o", &path]);
    assert!(stderr(&output).contains("is a ledger; give the page another name"));
    let output = pith(&["report", &place.model, "-o", &page]);
    assert!(!output.status.success() && stderr(&output).contains("wren.pith"), "{}", stderr(&output));
}

/// Speaks with `pith chat`, which stays alive as long as its input does.
struct Chat {
    child: std::process::Child,
}

impl Chat {
    fn begin(place: &Place, more: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_pith"))
            .args(["chat", &place.model, "--greedy", "-n", "12"])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child }
    }

    /// Asks, and waits for the beginning of the reply.
    fn ask(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"Who are you?\n").unwrap();
        self.child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn a_killed_run_leaves_whole_lines() {
    let place = Place::new("q8");
    let path = place.path("chat.jsonl");
    let mut chat = Chat::begin(&place, &["--ledger", &path.display().to_string()]);
    chat.ask();
    let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
    let began = Instant::now();
    while lines() < 3 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    chat.child.kill().unwrap();
    chat.child.wait().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with('\n') && text.lines().count() >= 3, "{text}");
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    stdout(&pith(&["report", &path.display().to_string(), "-o", &place.name("report.html")]));
}

#[test]
fn metrics_are_served_while_a_conversation_goes_on() {
    let place = Place::new("q8");
    let mut chat = Chat::begin(&place, &["--metrics-listen", "127.0.0.1:0"]);
    let mut errors = BufReader::new(chat.child.stderr.take().unwrap());
    let address = loop {
        let mut line = String::new();
        assert!(errors.read_line(&mut line).unwrap() > 0, "no address was said");
        if let Some(rest) = line.trim().strip_prefix("metrics at http://") {
            break rest.strip_suffix("/metrics").unwrap().to_string();
        }
    };
    assert!(address.starts_with("127.0.0.1:"));
    let fetch = || {
        let mut client = TcpStream::connect(&address).unwrap();
        client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    };
    assert!(fetch().contains("\npith_tokens_total{phase=\"prefill\"} 0\n"));
    chat.ask();
    let text = fetch();
    assert!(
        text.contains("model=\"wren") && !text.contains("\npith_tokens_total{phase=\"prefill\"} 0\n"),
        "{text}"
    );
    drop(chat.child.stdin.take());
    assert!(chat.child.wait().unwrap().success());
}

#[test]
fn a_metrics_file_ends_with_the_run_s_sums() {
    let place = Place::new("q8");
    let path = place.path("pith.prom");
    let said = stdout(&place.run(&["--json", "--metrics", &path.display().to_string()]));
    let said: Value = serde_json::from_str(&said).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    for (name, field) in
        [("tokens", "tokens"), ("weight_bytes", "weight_bytes"), ("kv_read_bytes", "kv_read_bytes")]
    {
        let line = format!("\npith_{name}_total{{phase=\"decode\"}} {}\n", said["decode"][field]);
        assert!(text.contains(&line), "{line} in {text}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = place.path("plain");
        std::fs::write(&plain, "").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain), "others may read it as any file");
    }
}

#[test]
fn what_cannot_be_written_is_said_before_or_after_and_never_stops_the_reply() {
    let place = Place::new("q8");
    for option in ["--ledger", "--metrics"] {
        let output = place.run(&[option, "/nowhere/file"]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{option}");
        assert!(stderr(&output).contains("/nowhere/file"), "{}", stderr(&output));
    }
    let output = place.run(&["--metrics-listen", "here"]);
    assert!(stderr(&output).contains("\"here\" is not an address"), "{}", stderr(&output));
    let plain = stdout(&place.run(&[]));
    // A file that may not grow takes the first lines; the text is whole all the same.
    if cfg!(target_os = "linux") {
        let full = place.run(&["--ledger", "/dev/full"]);
        assert!(!full.status.success() && stderr(&full).contains("/dev/full"), "{}", stderr(&full));
        let path = place.name("full.jsonl");
        stdout(&place.run(&["--ledger", &path]));
        // In blocks of 512 or 1024 bytes, as the shell has it: more than the first line, less than
        // all.
        let blocks = std::fs::metadata(&path).unwrap().len() * 3 / 8 / 512;
        let limited = Command::new("sh")
            .arg("-c")
            .arg(format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$@\""))
            .arg("sh")
            .arg(env!("CARGO_BIN_EXE_pith"))
            .args(["run", &place.model, "--greedy", "--ignore-eos", "-n", "40", "--prompt", "Question:"])
            .args(["--ledger", &path])
            .output()
            .unwrap();
        assert!(!limited.status.success());
        assert_eq!(String::from_utf8_lossy(&limited.stdout), plain);
        assert!(stderr(&limited).contains("full.jsonl is not complete"), "{}", stderr(&limited));
    }
}

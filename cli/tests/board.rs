//! `pith board` on recorded trees, and `--cpus`.

#[path = "../../boards/tests/support/tree.rs"]
mod tree;

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The command with an empty configuration folder.
fn pith(args: &[&str]) -> Output {
    let config = tempfile::tempdir().unwrap();
    pith_with(config.path(), args)
}

fn pith_with(config: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pith"));
    command.env("XDG_CONFIG_HOME", config).args(args).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Text and JSON of `pith board` on a tree.
fn board(root: &TempDir, more: &[&str]) -> (String, Value) {
    let root = root.path().display().to_string();
    let args = [&["board", "--root", &root], more].concat();
    let json = stdout(&pith(&[&args[..], &["--json"]].concat()));
    (stdout(&pith(&args)), serde_json::from_str(&json).unwrap())
}

#[test]
fn each_tree_is_shown_as_its_board() {
    for (name, profile, threads, lines) in [
        (
            "raspberry-pi-4",
            "raspberry-pi-4b",
            4,
            &[
                "because   compatible is \"raspberrypi,4-model-b\"",
                "sensors   none",
                "81.3 °C",
                "slowed down now: frequency capped",
            ][..],
        ),
        (
            "raspberry-pi-5",
            "raspberry-pi-5",
            4,
            &["PMIC, rail (3V7_WL_SW", "16 KiB", "not slowed down now", "14 to 14.9 GB/s"],
        ),
        (
            "jetson-orin-nano",
            "jetson-orin-nano",
            6,
            &["ina3221, board (VDD_IN, VDD_CPU_GPU_CV, VDD_SOC): present", "odd "],
        ),
        (
            "laptop-intel",
            "laptop-intel",
            4,
            &["CPUs 0-7", "4 big of 12 cores", "battery, board (BAT0): present", "small", "times"],
        ),
        ("desktop-amd", "generic", 6, &["quota     6.00 cores' time", "8 cores, 16 logical", "71.1 °C"]),
        (
            "phone-android",
            "android-phone",
            6,
            &["capacity 1024", "limited to 2.71 GHz", "thermal-cpufreq-2", "\"Charging\"", "ODPM"],
        ),
    ] {
        let (text, json) = board(&tree::unpack(name), &[]);
        for line in lines {
            assert!(text.contains(line), "{name}: {line}\n{text}");
        }
        assert_eq!(json["profile"]["name"], profile);
        assert_eq!(json["threads"]["threads"], threads);
        assert!(
            json["profile"]["reasons"][0].is_string() && !json["evidence"].as_array().unwrap().is_empty()
        );
    }
}

#[test]
fn what_is_not_known_is_null_and_never_zero() {
    let root = tempfile::tempdir().unwrap();
    let (text, json) = board(&root, &[]);
    assert_eq!(json["profile"]["name"], "generic");
    for key in ["board", "memory_bytes", "available_bytes", "page_bytes"] {
        assert!(json[key].is_null(), "{key}: {}", json[key]);
    }
    let heat = &json["heat"];
    assert!(heat["temperature_celsius"].is_null() && heat["frequency_hz"].is_null());
    assert!(heat["throttle"]["now"].is_null() && json["threads"]["threads"].is_null());
    assert!(text.contains("nothing here tells") && text.contains("not known"), "{text}");
}

#[test]
fn this_machine_is_shown_too() {
    let json: Value = serde_json::from_str(&stdout(&pith(&["board", "--json"]))).unwrap();
    assert!(json["profile"]["name"].is_string());
    assert!(!stdout(&pith(&["board"])).is_empty());
}

#[test]
fn a_profile_is_forced_by_name_or_file_and_a_users_own_is_read() {
    let root = tree::unpack("raspberry-pi-5");
    let (text, json) = board(&root, &["--profile", "rk3588"]);
    assert!(text.contains("asked for as \"rk3588\"") && json["profile"]["specificity"].is_null(), "{text}");
    assert!(stderr(&pith(&["board", "--profile", "teapot"])).contains("raspberry-pi-5"));

    let config = tempfile::tempdir().unwrap();
    let folder = config.path().join("pith/boards");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("mine.toml");
    let path = root.path().display().to_string();
    let mine = "name = \"mine\"\ntitle = \"My Pi\"\n\n[[detect]]\nmodel = \"Raspberry Pi 5\"\nsource = \"its owner\"\n\n\
                [[bandwidth]]\nthreads = 4\ngb_per_s = [12.5, 12.5]\ntest = \"my probe\"\nsource = \"its owner\"\n";
    fs::write(&file, mine).unwrap();
    let text = stdout(&pith_with(config.path(), &["board", "--root", &path]));
    assert!(
        text.contains("My Pi (mine), from") && text.contains("12.5 GB/s on 4 threads: my probe [its owner]"),
        "{text}"
    );
    let forced = stdout(&pith(&["board", "--profile", &file.display().to_string()]));
    assert!(forced.contains("My Pi"), "{forced}");

    fs::write(&file, mine.replace("source = \"its owner\"\n\n[[b", "\n[[b")).unwrap();
    let failed = pith_with(config.path(), &["board"]);
    assert_eq!(failed.status.code(), Some(1));
    let message = stderr(&failed);
    assert!(
        message.contains("mine.toml:4: detect") && message.contains("missing field `source`"),
        "{message}"
    );
    fs::write(&file, mine.replace("12.5]", "-1]")).unwrap();
    let message = stderr(&pith_with(config.path(), &["board"]));
    assert!(message.contains("mine.toml:10: gb_per_s") && message.contains("-1"), "{message}");
}

#[test]
fn broken_files_of_the_system_are_named() {
    let root = tree::unpack("raspberry-pi-5");
    fs::write(root.path().join("proc/meminfo"), "MemTotal: lots\n").unwrap();
    let failed = pith(&["board", "--root", &root.path().display().to_string()]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("proc/meminfo"), "{}", stderr(&failed));
    let failed = pith(&["board", "--root", "/nowhere/at/all"]);
    assert!(stderr(&failed).contains("/nowhere/at/all"), "{}", stderr(&failed));
}

fn model() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wren.pith").display().to_string();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/wren").display().to_string();
    stdout(&pith(&["convert", &source, &path, "--fast", "--quiet"]));
    (folder, path)
}

#[test]
fn cpus_are_taken_as_asked_and_refused_where_they_do_not_exist() {
    let (_folder, path) = model();
    let bench = |cpus: &str, more: &[&str]| {
        pith(&[&["bench", &path, "-p", "0", "-n", "2", "-r", "1", "--json", "--cpus", cpus], more].concat())
    };
    let rows: Value = serde_json::from_str(&stdout(&bench("0", &[]))).unwrap();
    assert_eq!(rows[0]["threads"], 1);
    // Known or null; a machine that tells nothing has no figure.
    assert!(rows[0].as_object().unwrap().contains_key("throttled") && rows[0]["hottest_celsius"] != 0.0);
    let run: Value = serde_json::from_str(&stdout(&pith(&[
        "run", &path, "-p", "Who", "-n", "3", "--json", "--cpus", "0",
    ])))
    .unwrap();
    assert!(run["heat"].as_object().unwrap().contains_key("throttled"), "{run}");
    for (cpus, more, code, parts) in [
        ("0,8000", &[][..], 1, &["8000", "does not exist", "there are 0"][..]),
        ("0", &["-t", "2"], 1, &["2 threads", "1 CPUs"]),
        ("x", &[], 2, &["\"x\"", "0-3"]),
        ("3-1", &[], 2, &["turned round"]),
        ("0-99999999999", &[], 2, &["99999999999"]),
    ] {
        let output = bench(cpus, more);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{cpus}: {message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{cpus}: {message}");
    }
}

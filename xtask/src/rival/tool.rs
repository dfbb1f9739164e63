//! The programs under test, and a run of one of them.

use super::dialect::Dialect;
use super::parse::{self, Reading};
use anyhow::Context;
use pith_bench::Test;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program that times a model.
#[derive(Debug)]
pub struct Tool {
    /// Name in the report.
    pub name: String,
    /// Path of the program.
    pub program: PathBuf,
    /// `None` for Pith.
    pub dialect: Option<Dialect>,
    /// Alternative sets of additional arguments; the fastest is measured.
    pub settings: Vec<String>,
}

/// Name of our own tool.
pub const PITH: &str = "pith";

/// Pith first, then the rivals as given: `PATH` or `NAME=PATH`. `args` are `NAME=ARGUMENTS`;
/// repeated ones are alternatives.
pub fn tools(
    pith: PathBuf,
    benches: &[String],
    args: &[String],
    kernels: Option<&str>,
) -> anyhow::Result<Vec<Tool>> {
    let kernels = kernels.map_or(String::new(), |name| format!("--kernels {name}"));
    let own = Tool { name: PITH.into(), program: pith, dialect: None, settings: vec![kernels.clone()] };
    let mut tools = vec![own];
    for bench in benches {
        let tool = rival(bench)?;
        let same = tools.iter().any(|other| other.name == tool.name);
        anyhow::ensure!(
            !same,
            "two tools are called {:?}: name them with --llama-bench NAME=PATH",
            tool.name
        );
        tools.push(tool);
    }
    for (index, arg) in args.iter().enumerate() {
        let (name, settings) = name_and_rest(arg, "--args")?;
        let first = !args[..index].iter().any(|other| other.starts_with(&format!("{name}=")));
        let known = tools.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>().join(", ");
        let tool = tools.iter_mut().find(|tool| tool.name == name);
        let tool = tool.with_context(|| format!("--args names {name:?}, the tools are {known}"))?;
        if first {
            tool.settings.clear();
        }
        let own = if tool.dialect.is_none() { kernels.as_str() } else { "" };
        tool.settings.push(format!("{own} {settings}").trim().to_string());
    }
    Ok(tools)
}

fn rival(bench: &str) -> anyhow::Result<Tool> {
    let (name, path) = match bench.split_once('=') {
        Some((name, path)) => (Some(name), Path::new(path)),
        None => (None, Path::new(bench)),
    };
    anyhow::ensure!(path.is_file(), "no llama-bench at {}", path.display());
    let program = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
    let output = Command::new(&program).arg("--help").output();
    let output = output.with_context(|| format!("cannot start {}", path.display()))?;
    let help = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let dialect = Dialect::of(&help).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    Ok(Tool {
        name: name.unwrap_or(dialect.family()).to_string(),
        program,
        dialect: Some(dialect),
        settings: dialect.settings(),
    })
}

/// `NAME=REST`.
pub fn name_and_rest<'a>(text: &'a str, option: &str) -> anyhow::Result<(&'a str, &'a str)> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .with_context(|| format!("{option} is {text:?}, expected NAME=…"))
}

impl Tool {
    /// Runs one test once.
    pub fn run(&self, model: &Path, test: Test, threads: usize, setting: &str) -> anyhow::Result<Reading> {
        let args = self.args(model, test, threads, setting)?;
        let context = || format!("{} {}", self.name, args.join(" "));
        let output = Command::new(&self.program).args(&args).output();
        let output = output.with_context(|| format!("cannot start {}", self.program.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "{} ended with {}: {}",
            context(),
            output.status,
            parse::excerpt(errors.lines().last().unwrap_or_default())
        );
        let text = String::from_utf8_lossy(&output.stdout);
        let reading = match self.dialect {
            Some(_) => parse::llama_bench(&text, test, threads),
            None => parse::pith_bench(&text, threads),
        };
        reading.with_context(context)
    }

    fn args(&self, model: &Path, test: Test, threads: usize, setting: &str) -> anyhow::Result<Vec<String>> {
        let model = model.to_str().context("the work folder's path is not UTF-8")?;
        let mut args = match self.dialect {
            Some(dialect) => {
                let test = dialect.test_args(test, threads);
                let test = test.map_err(|error| anyhow::anyhow!("{}: {error}", self.name))?;
                [vec!["-m".into(), model.into()], test].concat()
            }
            None => own_args(model, test, threads),
        };
        args.extend(setting.split_whitespace().map(String::from));
        Ok(args)
    }
}

fn own_args(model: &str, test: Test, threads: usize) -> Vec<String> {
    let (prompt, generate) = if test.prefill { (test.tokens, 0) } else { (0, test.tokens) };
    let numbers = [("-p", prompt), ("-n", generate), ("-d", test.depth), ("-t", threads), ("-r", 1)];
    let numbers = numbers.into_iter().flat_map(|(option, number)| [option.into(), number.to_string()]);
    ["bench".into(), model.into(), "--json".into()].into_iter().chain(numbers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    fn fake(folder: &Path, body: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join("llama-bench");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        // A process that another test started meanwhile has the script open for writing until it execs.
        let is_busy = |error: std::io::Error| error.kind() == std::io::ErrorKind::ExecutableFileBusy;
        while Command::new(&path).output().is_err_and(is_busy) {}
        path.to_str().unwrap().to_string()
    }

    const HELP: &str = "echo '--n-prompt --n-gen --threads --repetitions json --n-depth -mmp,'";

    fn list(benches: &[String], args: &[&str], kernels: Option<&str>) -> anyhow::Result<Vec<Tool>> {
        let args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
        tools("pith".into(), benches, &args, kernels)
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = list(&["/nonexistent/llama-bench".into()], &[], None).unwrap_err().to_string();
        assert_eq!(error, "no llama-bench at /nonexistent/llama-bench");
    }

    #[test]
    #[cfg(unix)]
    fn settings_are_the_users_or_those_of_the_dialect() {
        let folder = tempfile::tempdir().unwrap();
        let path = fake(folder.path(), HELP);
        let named = format!("old={path}");
        let tools =
            list(&[path.clone(), named], &["old=-fa 1", "old=-fa 0", "pith=--kv q8"], Some("avx2")).unwrap();
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["pith", "llama.cpp", "old"]);
        assert_eq!(tools[0].settings, ["--kernels avx2 --kv q8"]);
        assert_eq!(tools[1].settings, ["-fa 1", "-fa 0", "-fa 1 -mmp 0"]);
        assert_eq!(tools[2].settings, ["-fa 1", "-fa 0"]);

        let same = list(&[path.clone(), path.clone()], &[], None).unwrap_err().to_string();
        assert!(same.contains("\"llama.cpp\""), "{same}");
        let unknown = list(&[path], &["x=-fa 1"], None).unwrap_err().to_string();
        assert_eq!(unknown, "--args names \"x\", the tools are pith, llama.cpp");
        assert_eq!(
            list(&[], &["-fa 1"], None).unwrap_err().to_string(),
            "--args is \"-fa 1\", expected NAME=…"
        );
    }

    #[test]
    #[cfg(unix)]
    fn a_program_that_fails_or_says_something_else_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let test: Test = "tg128".parse().unwrap();
        let run = |body: &str| {
            let path = fake(folder.path(), &format!("case $1 in --help) {HELP};; *) {body};; esac"));
            let tools = list(&[path], &[], None).unwrap();
            tools[1].run(Path::new("m.gguf"), test, 2, "-fa 1").unwrap_err()
        };
        let failed = run("echo no such model >&2; exit 3").to_string();
        assert!(
            failed.contains("-m m.gguf -p 0 -n 128 -t 2") && failed.contains("no such model"),
            "{failed}"
        );
        let other = format!("{:#}", run("echo hello"));
        assert!(other.ends_with("expected a JSON array, found \"hello\""), "{other}");
    }

    #[test]
    fn the_own_arguments_ask_for_one_test() {
        let tools = list(&[], &[], Some("avx2")).unwrap();
        let args = tools[0].args(Path::new("m"), "tg128@2048".parse().unwrap(), 1, "--kernels avx2").unwrap();
        assert_eq!(args.join(" "), "bench m --json -p 0 -n 128 -d 2048 -t 1 -r 1 --kernels avx2");
    }
}

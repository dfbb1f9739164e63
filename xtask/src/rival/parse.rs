//! The JSON that the benchmarks print.

use super::head::Head;
use anyhow::Context;
use pith_bench::Test;
use serde_json::Value;

/// One timed test, as its program reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Tokens per second.
    pub tokens_per_s: f64,
    /// `llama-bench`: bytes of the model's tensors. `pith bench`: counted bytes of one token, keys
    /// and values included.
    pub bytes: f64,
    /// The head, as reported by `pith bench`.
    pub head: Option<Head>,
}

/// Reads `llama-bench -o json`, which must hold exactly the requested test.
pub fn llama_bench(text: &str, test: Test, threads: usize) -> anyhow::Result<Reading> {
    let row = only_row(text)?;
    let (prompt, generated) = if test.prefill { (test.tokens, 0) } else { (0, test.tokens) };
    // Generation after a prompt is reported with the prompt.
    let behind = !test.prefill && number(&row, "n_prompt")? == test.depth as f64;
    let expected = if behind { (test.depth, generated) } else { (prompt, generated) };
    for (key, expected) in [("n_prompt", expected.0), ("n_gen", expected.1), ("n_threads", threads)] {
        let found = number(&row, key)?;
        anyhow::ensure!(found == expected as f64, "{key} is {found}, asked for {expected}");
    }
    Ok(Reading { tokens_per_s: rate(&row, "avg_ts")?, bytes: rate(&row, "model_size")?, head: None })
}

/// Reads `pith bench --json`, which must hold one test.
pub fn pith_bench(text: &str, threads: usize) -> anyhow::Result<Reading> {
    let row = only_row(text)?;
    let found = number(&row, "threads")?;
    anyhow::ensure!(found == threads as f64, "threads is {found}, asked for {threads}");
    let text = |key: &str| {
        let value = row.get(key).and_then(Value::as_str).map(String::from);
        value.with_context(|| format!("{key} is missing"))
    };
    let head = Head {
        encoding: text("head")?,
        bits_per_weight: number(&row, "head_bits")?,
        logits: text("logits")?,
    };
    Ok(Reading {
        tokens_per_s: rate(&row, "tokens_per_s")?,
        bytes: rate(&row, "bytes_per_token")?,
        head: Some(head),
    })
}

/// The only element of the array; some builds print lines before it.
fn only_row(text: &str) -> anyhow::Result<Value> {
    let start = text.lines().scan(0, |at, line| {
        let start = *at;
        *at += line.len() + 1;
        Some((start, line))
    });
    let array = start
        .filter(|(_, line)| line.trim_start().starts_with('['))
        .find_map(|(start, _)| serde_json::from_str::<Vec<Value>>(text.get(start..)?).ok());
    let mut rows = array.with_context(|| format!("expected a JSON array, found {}", excerpt(text)))?;
    anyhow::ensure!(rows.len() == 1, "expected one test, found {}", rows.len());
    Ok(rows.remove(0))
}

fn number(row: &Value, key: &str) -> anyhow::Result<f64> {
    let value = row.get(key).with_context(|| format!("{key} is missing"))?;
    // Some builds print numbers as text.
    let parsed = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    parsed.with_context(|| format!("{key} is {value}, expected a number"))
}

fn rate(row: &Value, key: &str) -> anyhow::Result<f64> {
    let value = number(row, key)?;
    anyhow::ensure!(value > 0.0 && value.is_finite(), "{key} is {value}, expected a number above 0");
    Ok(value)
}

/// The beginning of a program's output, for messages.
pub fn excerpt(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() {
        return "nothing".into();
    }
    let short: String = text.chars().take(200).collect();
    format!("{:?}", if short.len() < text.len() { short + "…" } else { short })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = r#"[
  {
    "build_commit": "0c1e570",
    "model_type": "llama 1B Q4_0",
    "model_size": 763420672,
    "model_n_params": 1235814400,
    "n_threads": 2,
    "n_prompt": 0,
    "n_gen": 128,
    "n_depth": 2048,
    "avg_ns": 3307493540,
    "avg_ts": 38.700000,
    "samples_ts": [ 38.7 ]
  }
]
"#;
    const IK: &str = "======================================= repacked 112 tensors
[ok]
[
  {
    \"model_size\": 763420672,
    \"n_threads\": 2,
    \"n_prompt\": 2048,
    \"n_gen\": 128,
    \"avg_ts\": 36.113017,
    \"test\": \"tg128@pp2048\"
  }
]
";
    const PITH: &str = r#"[
  {
    "model": "random",
    "threads": 2,
    "head": "q8",
    "head_bits": 8.5,
    "logits": "exact",
    "test": "tg128",
    "tokens_per_s": 50.0,
    "bytes_per_token": 826000000.5
  }
]
"#;

    fn test(name: &str) -> Test {
        name.parse().unwrap()
    }

    #[test]
    fn a_depth_is_told_apart_or_as_a_prompt() {
        let reading = llama_bench(LLAMA, test("tg128@2048"), 2).unwrap();
        assert_eq!(reading, Reading { tokens_per_s: 38.7, bytes: 763_420_672.0, head: None });
        assert_eq!(llama_bench(IK, test("tg128@2048"), 2).unwrap().tokens_per_s, 36.113017);
    }

    #[test]
    fn another_test_than_the_one_asked_for_is_refused() {
        let error = |name, threads| llama_bench(LLAMA, test(name), threads).unwrap_err().to_string();
        assert_eq!(error("tg64", 2), "n_gen is 128, asked for 64");
        assert_eq!(error("pp512", 2), "n_prompt is 0, asked for 512");
        assert_eq!(error("tg128", 1), "n_threads is 2, asked for 1");
    }

    #[test]
    fn what_is_no_result_is_shown() {
        let error = |text| llama_bench(text, test("tg128"), 2).unwrap_err().to_string();
        assert_eq!(error(""), "expected a JSON array, found nothing");
        assert!(error("main: error: failed to load").contains("failed to load"));
        let long = "x".repeat(9999);
        assert!(error(&long).len() < 300);
        assert_eq!(error("[]"), "expected one test, found 0");
        assert_eq!(error("[{}]"), "n_prompt is missing");
        let slow = LLAMA.replace("38.700000", "0.0");
        assert_eq!(error(&slow), "avg_ts is 0, expected a number above 0");
        assert!(error(&LLAMA.replace("38.700000", "null")).starts_with("avg_ts is null"));
    }

    #[test]
    fn the_own_bench_is_read() {
        let reading = pith_bench(PITH, 2).unwrap();
        assert_eq!((reading.tokens_per_s, reading.bytes), (50.0, 826_000_000.5));
        assert_eq!(reading.head.unwrap().to_string(), "q8, 8.5 bits, exact");
        assert_eq!(pith_bench(PITH, 1).unwrap_err().to_string(), "threads is 2, asked for 1");
    }
}

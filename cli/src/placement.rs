//! The placement of a model, in memory and on disk, as text and as JSON.

use crate::output;
use pith_runtime::Placement;
use serde_json::{Value, json};
use std::fmt::Write;

/// One line, if weights are read for every token.
pub fn summary(placement: &Placement) -> Option<String> {
    let disk = placement.disk?;
    let rate = placement.tokens_per_second()?;
    Some(format!(
        "memory  {} allowed: {} of weights kept, {} read for every token; the disk gives {}/s: at most {rate:.2} \
         tokens/s",
        output::bytes(placement.memory_bytes),
        output::bytes(placement.kept_bytes()),
        output::bytes(placement.streamed_bytes()),
        output::bytes(disk.bytes_per_second() as u64),
    ))
}

/// The whole plan as text.
pub fn text(placement: &Placement) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    let bytes = output::bytes;
    line("memory", format!("{} allowed", bytes(placement.memory_bytes)));
    line("cache", format!("{} of keys and values, the context full", bytes(placement.kv_bytes)));
    line("working", format!("{} of activations, the process and a reserve", bytes(placement.working_bytes)));
    line("kept", format!("{} of weights: {}", bytes(placement.kept_bytes()), names(placement, false)));
    if placement.streamed_bytes() > 0 {
        line("window", format!("{} for what is read and read ahead", bytes(placement.window_bytes)));
        let streamed = bytes(placement.streamed_bytes());
        line("streamed", format!("{streamed} for every token: {}", names(placement, true)));
    }
    if let Some((disk, rate)) = placement.disk.zip(placement.tokens_per_second()) {
        line(
            "disk",
            format!(
                "{}/s: cold pages of this file read in order, {} in {:.2} s (measured)",
                bytes(disk.bytes_per_second() as u64),
                bytes(disk.bytes),
                disk.seconds
            ),
        );
        line("expected", format!("at most {rate:.2} tokens/s, which is what the disk allows"));
    }
    text
}

/// The whole plan as JSON.
pub fn json(placement: &Placement) -> Value {
    let parts: Vec<Value> = placement
        .parts
        .iter()
        .map(|part| json!({"name": part.name, "bytes": part.bytes, "streamed": part.streamed}))
        .collect();
    json!({
        "memory_bytes": placement.memory_bytes,
        "kv_bytes": placement.kv_bytes,
        "working_bytes": placement.working_bytes,
        "window_bytes": placement.window_bytes,
        "kept_bytes": placement.kept_bytes(),
        "streamed_bytes": placement.streamed_bytes(),
        "disk_bytes_per_second": placement.disk.map(|disk| disk.bytes_per_second()),
        "expected_tokens_per_second": placement.tokens_per_second(),
        "parts": parts,
    })
}

/// Names of the parts, with runs of layers combined: `layers 0–2, layer 5, head`.
fn names(placement: &Placement, streamed: bool) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    let chosen = placement.parts.iter().enumerate().filter(|(_, part)| part.streamed == streamed);
    for (index, part) in chosen {
        let begins_head =
            part.name.starts_with("head") && runs.last().is_some_and(|run| !is_head(placement, run.1));
        match runs.last_mut() {
            Some(run) if run.1 + 1 == index && !begins_head => run.1 = index,
            _ => runs.push((index, index)),
        }
    }
    let name = |&(first, last): &(usize, usize)| {
        let first_name = &placement.parts[first].name;
        let number =
            |index: usize| placement.parts[index].name.rsplit([' ']).next().unwrap_or_default().to_string();
        match (is_head(placement, first), first == last) {
            (true, _)
                if last - first + 1
                    == placement.parts.iter().filter(|p| p.name.starts_with("head")).count() =>
            {
                "head".into()
            }
            (_, true) => first_name.clone(),
            (true, false) => format!("{first_name} to {}", number(last)),
            (false, false) => format!("layers {} to {}", number(first), number(last)),
        }
    };
    let names: Vec<String> = runs.iter().map(name).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

fn is_head(placement: &Placement, index: usize) -> bool {
    placement.parts[index].name.starts_with("head")
}

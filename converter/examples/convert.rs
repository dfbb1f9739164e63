//! Converts a checkpoint to a `.pith` file: `cargo run --example convert -- SOURCE OUTPUT`.

use pith_converter::{ConvertOptions, Recipe, convert};
use pith_format::Encoding;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [_, source, output] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: convert SOURCE OUTPUT".into());
    };
    let options =
        ConvertOptions { recipe: Recipe::new(Encoding::Q8), force: true, ..ConvertOptions::default() };
    let report = convert(Path::new(source), Path::new(output), &options, &())?;
    println!("{}: {} bytes from {}", report.name, report.file_bytes, report.source_bytes);
    for tensor in &report.tensors {
        println!("{:<32} {:>12} bytes", tensor.id.to_string(), tensor.bytes);
    }
    Ok(())
}

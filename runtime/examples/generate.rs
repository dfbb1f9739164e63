//! Continues a prompt: `cargo run --example generate -- MODEL.pith "Once upon a time"`.

use pith_runtime::{GenerateOptions, Ledger, Model, Phase, Sampler, SamplerOptions, Session, SessionOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [_, model, prompt] = &std::env::args().collect::<Vec<_>>()[..] else {
        return Err("usage: generate MODEL PROMPT".into());
    };
    let model = Arc::new(Model::open(Path::new(model))?);
    let mut session = Session::new(Arc::clone(&model), SessionOptions::default())?;
    let mut sampler = Sampler::new(SamplerOptions::greedy())?;
    let mut ledger = Ledger::new();
    let tokens = model.tokenizer()?.encode(prompt, true)?;
    let options = GenerateOptions { max_tokens: Some(64), ..GenerateOptions::default() };
    for token in session.generate(&tokens, &mut sampler, options).with_ledger(&mut ledger) {
        print!("{}", token?.text);
        std::io::stdout().flush()?;
    }
    let decode = ledger.totals(Phase::Decode);
    println!("\n{:?} tokens/s", decode.tokens_per_second());
    println!("{} bytes of weights a token", decode.traffic.weight_bytes / decode.tokens.max(1) as u64);
    Ok(())
}

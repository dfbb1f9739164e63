//! Options of the sampler, and of its logits.

use clap::Args;
use pith_runtime::{EXACT_TOKENS, Sampler, SamplerOptions};
use std::time::SystemTime;

/// Choice of the next token.
#[derive(Debug, Args)]
pub struct SamplerArgs {
    /// Choose the most likely token every time (the same as --temperature 0)
    #[arg(long)]
    pub greedy: bool,
    /// Sampling temperature; 0 is greedy
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.8, value_name = "T")]
    pub temperature: f32,
    /// Keep the K most likely tokens; 0 keeps all
    #[arg(long, default_value_t = 40, value_name = "K")]
    pub top_k: usize,
    /// Keep the fewest tokens whose probabilities sum to P
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.95, value_name = "P")]
    pub top_p: f32,
    /// Drop tokens less likely than P times the most likely one
    #[arg(long, allow_negative_numbers = true, default_value_t = 0.05, value_name = "P")]
    pub min_p: f32,
    /// Divide the logits of recent tokens by this; 1 is off
    #[arg(long, allow_negative_numbers = true, default_value_t = 1.0, value_name = "X")]
    pub repeat_penalty: f32,
    /// Number of recent tokens that the penalty applies to
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub repeat_last: usize,
    /// Seed of the sampler [default: from the clock]
    #[arg(short, long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub head: HeadArgs,
}

/// Computation of the logits.
#[derive(Debug, Args)]
pub struct HeadArgs {
    /// Approximate the logits of a head stored in two matrices: read the residual matrix for the 40
    /// most likely tokens only. Decoding is faster, but the probabilities of the other tokens are
    /// wrong [default: exact logits]
    #[arg(long)]
    pub two_stage_logits: bool,
}

impl SamplerArgs {
    /// The sampler; by default its seed is from the clock.
    pub fn sampler(&self) -> anyhow::Result<Sampler> {
        let clock = || {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
        };
        let options = SamplerOptions {
            temperature: if self.greedy { 0.0 } else { self.temperature },
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            repeat_window: self.repeat_last,
            seed: self.seed.unwrap_or_else(clock),
        };
        Ok(Sampler::new(options)?)
    }

    /// Whether logits are computed in two stages. An error where the sampler needs logits that two
    /// stages do not compute exactly.
    pub fn two_stage_logits(&self) -> anyhow::Result<bool> {
        let reads_few = self.greedy || self.temperature == 0.0 || (1..=EXACT_TOKENS).contains(&self.top_k);
        anyhow::ensure!(
            !self.head.two_stage_logits || (reads_few && self.repeat_penalty == 1.0),
            "--two-stage-logits computes the {EXACT_TOKENS} most likely tokens' logits exactly and no others: give \
             --greedy or --top-k 1 to {EXACT_TOKENS}, and no --repeat-penalty"
        );
        Ok(self.head.two_stage_logits)
    }
}

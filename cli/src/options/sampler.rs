//! Options of the sampler, and of its logits.

use clap::Args;
use pith_runtime::{EXACT_TOKENS, Model, SamplerOptions};
use std::time::SystemTime;

/// Choice of the next token.
#[derive(Debug, Args)]
pub struct SamplerArgs {
    /// Choose the most likely token every time (the same as --temperature 0)
    #[arg(long)]
    pub greedy: bool,
    /// Sampling temperature; 0 is greedy [default: the model's, else 0.8]
    #[arg(long, allow_negative_numbers = true, value_name = "T")]
    pub temperature: Option<f32>,
    /// Keep the K most likely tokens; 0 keeps all [default: the model's, else 40]
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Keep the fewest tokens whose probabilities sum to P [default: the model's, else 0.95]
    #[arg(long, allow_negative_numbers = true, value_name = "P")]
    pub top_p: Option<f32>,
    /// Drop tokens less likely than P times the most likely one [default: the model's, else 0.05]
    #[arg(long, allow_negative_numbers = true, value_name = "P")]
    pub min_p: Option<f32>,
    /// Divide the logits of recent tokens by this; 1 is off [default: the model's, else 1]
    #[arg(long, allow_negative_numbers = true, value_name = "X")]
    pub repeat_penalty: Option<f32>,
    /// Number of recent tokens that the penalty applies to [default: the model's, else 64]
    #[arg(long, value_name = "N")]
    pub repeat_last: Option<usize>,
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
    /// The options: those given, else the model's own, else the runtime's. By default the seed is
    /// from the clock.
    pub fn options(&self, model: &Model) -> SamplerOptions {
        let stated = model.metadata().sampling.unwrap_or_default();
        let default = SamplerOptions::default();
        let clock = || {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
        };
        let temperature = if self.greedy { Some(0.0) } else { self.temperature };
        SamplerOptions {
            temperature: temperature.or(stated.temperature).unwrap_or(default.temperature),
            top_k: self.top_k.or(stated.top_k).unwrap_or(default.top_k),
            top_p: self.top_p.or(stated.top_p).unwrap_or(default.top_p),
            min_p: self.min_p.or(stated.min_p).unwrap_or(default.min_p),
            repeat_penalty: self.repeat_penalty.or(stated.repeat_penalty).unwrap_or(default.repeat_penalty),
            repeat_window: self.repeat_last.or(stated.repeat_window).unwrap_or(default.repeat_window),
            seed: self.seed.unwrap_or_else(clock),
        }
    }

    /// Whether logits are computed in two stages. An error where the sampler needs logits that two
    /// stages do not compute exactly.
    pub fn two_stage_logits(&self, options: &SamplerOptions) -> anyhow::Result<bool> {
        let reads_few = options.temperature == 0.0 || (1..=EXACT_TOKENS).contains(&options.top_k);
        anyhow::ensure!(
            !self.head.two_stage_logits || (reads_few && options.repeat_penalty == 1.0),
            "--two-stage-logits computes the {EXACT_TOKENS} most likely tokens' logits exactly and no others: give \
             --greedy or --top-k 1 to {EXACT_TOKENS}, and no --repeat-penalty"
        );
        Ok(self.head.two_stage_logits)
    }
}

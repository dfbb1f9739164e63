//! What rounding cost: the divergence of new files from the dense model.

use crate::progress::Bar;
use anyhow::Context;
use pith_converter::Compression;
use pith_eval::kl::{Divergence, Reference};
use pith_eval::{Scored, WindowOptions, Windows};
use pith_runtime::{Model, Session, SessionOptions};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// The dense model's logits on a text.
pub struct Judge {
    reference: Reference,
    options: SessionOptions,
    /// Name of the text.
    text: String,
}

/// A divergence, and the text it was found on.
pub struct Found {
    pub divergence: Divergence,
    text: String,
}

impl Judge {
    /// `text`: a file; `None` is text that the model generates, and that no statistics see.
    /// `context`: tokens of a window.
    pub fn new(
        text: Option<&Path>,
        context: Option<usize>,
        compression: &Compression,
        run: SessionOptions,
        bar: &Bar,
    ) -> anyhow::Result<Self> {
        let dense = compression.dense();
        let default = WindowOptions::default();
        let context_len = context.unwrap_or(default.context_len.min(dense.config().context_len));
        let windows = match text {
            Some(text) => {
                let words = std::fs::read_to_string(text).with_context(|| text.display().to_string())?;
                let windows = Windows::of_text(dense, &words, &WindowOptions { context_len, ..default });
                windows.with_context(|| text.display().to_string())?
            }
            None => {
                let tokens = compression.unseen_text(Some(context_len), bar)?.sequences.concat();
                Windows::cut(tokens, context_len, dense.config().bos, Scored::All)?
            }
        };
        let options = SessionOptions { context_len: Some(context_len), ..run };
        let mut session = Session::new(Arc::clone(dense), options.clone())?;
        let reference = Reference::compute(&mut session, windows, None, bar)?;
        let text = text.map_or("text that the model wrote".into(), |text| text.display().to_string());
        Ok(Self { reference, options, text })
    }

    /// The divergence of a file.
    pub fn divergence(&self, file: &Path, bar: &Bar) -> anyhow::Result<Found> {
        let mut session = Session::new(Arc::new(Model::open(file)?), self.options.clone())?;
        let divergence = self.reference.compare(&mut session, bar)?;
        Ok(Found { divergence, text: self.text.clone() })
    }
}

impl Found {
    /// In one line.
    pub fn to_text(&self) -> String {
        let Self { divergence, text } = self;
        format!(
            "KL divergence from the dense model {:.6} ± {:.6} over {} tokens of {text}, same likeliest token {:.2} %\n",
            divergence.kl.mean,
            divergence.kl.standard_error.unwrap_or(f64::NAN),
            divergence.token_count,
            100.0 * divergence.top1.share,
        )
    }

    /// The divergence with the field `text`.
    pub fn to_json(&self) -> anyhow::Result<Value> {
        let mut value = serde_json::to_value(&self.divergence)?;
        value["text"] = json!(self.text);
        Ok(value)
    }
}

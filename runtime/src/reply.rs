//! The text of a reply as it grows, and what ends it.

use crate::error::RuntimeError;
use crate::generate::StopReason;
use crate::model::Model;
use crate::stop::{Passed, StopFilter};
use pith_tokenizer::Decoder;
use std::sync::Arc;

/// A reply that grows token by token.
pub(crate) struct Reply {
    model: Arc<Model>,
    decoder: Decoder,
    filter: StopFilter,
    pub tokens: Vec<u32>,
    /// All that was given out.
    pub text: String,
}

impl Reply {
    /// Without a token yet. Fails where the model has no tokenizer.
    pub fn new(model: Arc<Model>, stops: Vec<String>) -> Result<Self, RuntimeError> {
        let (decoder, filter) = (Decoder::new(model.tokenizer()?), StopFilter::new(stops));
        Ok(Self { model, decoder, filter, tokens: Vec::new(), text: String::new() })
    }

    /// Appends a token: the text that is certain now, and the stop string that ended the reply, if one did.
    pub fn push(&mut self, token: u32) -> (String, Option<StopReason>) {
        self.tokens.push(token);
        let tokenizer = self.model.tokenizer().expect("it was there when the reply began");
        let piece = self.decoder.push(tokenizer, token).unwrap_or_default();
        self.pass(&piece)
    }

    /// What was held back, when no more tokens come: no stop string after all, unless it becomes one with the last bytes.
    pub fn finish(&mut self) -> (String, Option<StopReason>) {
        let rest = self.decoder.finish();
        let (mut piece, stop) = self.pass(&rest);
        if stop.is_none() {
            let held = self.filter.finish();
            self.text.push_str(&held);
            piece.push_str(&held);
        }
        (piece, stop)
    }

    fn pass(&mut self, piece: &str) -> (String, Option<StopReason>) {
        let (piece, stop) = match self.filter.push(piece) {
            Passed::Text(piece) => (piece, None),
            Passed::Stop(piece, index) => {
                (piece, Some(StopReason::StopString(self.filter.stop(index).into())))
            }
        };
        self.text.push_str(&piece);
        (piece, stop)
    }
}

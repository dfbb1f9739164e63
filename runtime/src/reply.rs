//! The growing text of a reply, and the conditions that end it.

use crate::error::RuntimeError;
use crate::generate_options::StopReason;
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
    /// All text handed out.
    pub text: String,
}

impl Reply {
    /// An empty reply to `prompt`. Fails where the model has no tokenizer.
    pub fn new(model: Arc<Model>, prompt: &[u32], stops: Vec<String>) -> Result<Self, RuntimeError> {
        let decoder = Decoder::continuing(model.tokenizer()?, prompt);
        let filter = StopFilter::new(stops);
        Ok(Self { model, decoder, filter, tokens: Vec::new(), text: String::new() })
    }

    /// Appends a token. Returns the text that is now certain, and the stop string if one ended the
    /// reply.
    pub fn push(&mut self, token: u32) -> (String, Option<StopReason>) {
        self.tokens.push(token);
        let tokenizer = self.model.tokenizer().expect("it was there when the reply began");
        let piece = self.decoder.push(tokenizer, token).unwrap_or_default();
        self.pass(&piece)
    }

    /// The text held back, at the end of all tokens. The last bytes may still complete a stop
    /// string.
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

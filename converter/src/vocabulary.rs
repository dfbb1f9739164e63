//! Tokenizer and chat template of a checkpoint.

use pith_format::ModelConfig;

use crate::error::ConvertError;
use crate::source::{Checkpoint, TokenizerSource};

/// What goes into the file beside the weights.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    /// The tokenizer as a blob.
    pub(crate) tokenizer: Option<Vec<u8>>,
    pub(crate) chat_template: Option<String>,
}

impl Vocabulary {
    pub(crate) fn of(
        checkpoint: &Checkpoint,
        _model: &ModelConfig,
        warnings: &mut Vec<String>,
    ) -> Result<Self, ConvertError> {
        let chat_template = match checkpoint.tokenizer_files()? {
            TokenizerSource::Files(files) => files.chat_template().map(str::to_string),
            TokenizerSource::Gguf(metadata) => {
                metadata.get::<&str>("tokenizer.chat_template")?.map(str::to_string)
            }
        };
        warnings.push("no tokenizer".into());
        Ok(Self { tokenizer: None, chat_template })
    }
}

//! `--session FILE`: the keys and values of a prompt, kept between runs.

use clap::{Args, ValueHint};
use pith_runtime::Session;
use std::path::PathBuf;

/// The session file and its use.
#[derive(Debug, Args)]
pub struct PromptCacheArgs {
    /// Cache the prompt's keys and values in FILE; reuse them on the next run
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub session: Option<PathBuf>,
    /// Only read the --session file
    #[arg(long, requires = "session")]
    pub session_ro: bool,
    /// Cache the reply too
    #[arg(long, requires = "session", conflicts_with = "session_ro")]
    pub session_all: bool,
}

impl PromptCacheArgs {
    /// Restores the part of `prompt` that the file holds; a file that does not exist yet holds
    /// none. Returns the number of tokens that the file and `prompt` share.
    pub fn restore(&self, session: &mut Session, prompt: &[u32]) -> anyhow::Result<usize> {
        let Some(path) = self.session.as_ref().filter(|path| self.session_ro || path.exists()) else {
            return Ok(0);
        };
        let shared = session.restore_common(path, prompt)?;
        if session.tokens() == prompt && !session.has_logits() {
            // A file that goes on after the prompt has other logits. The last token would get other
            // bits alone than in the batch in which the first run computed it.
            session.truncate((prompt.len() - 1) / session.batch() * session.batch());
        }
        Ok(shared)
    }

    /// Saves the first `prompt_len` tokens, unless the file has all of them. Right after the
    /// prompt was computed the session still has its logits, so the file gets them too and a second
    /// run goes on with the same bits.
    pub fn save_prompt(&self, session: &Session, prompt_len: usize, shared: usize) -> anyhow::Result<()> {
        match &self.session {
            Some(path) if !self.session_ro && !self.session_all && shared < prompt_len => {
                session.save_prefix(path, prompt_len.min(session.position()))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Saves all tokens at the end, if requested.
    pub fn save_all(&self, session: &Session) -> anyhow::Result<()> {
        match &self.session {
            Some(path) if self.session_all && !self.session_ro => {
                session.save(path)?;
            }
            _ => {}
        }
        Ok(())
    }
}

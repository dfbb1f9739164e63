//! `--session FILE`: what was computed of a prompt, kept between calls.

use crate::args::PromptCacheArgs;
use pith_runtime::Session;

/// Takes from the file what it has of `prompt`; a file that is not there yet has nothing. Returns how many tokens of
/// the prompt the session has.
pub fn restore(args: &PromptCacheArgs, session: &mut Session, prompt: &[u32]) -> anyhow::Result<usize> {
    match &args.session {
        Some(path) if args.session_ro || path.exists() => Ok(session.restore_common(path, prompt)?),
        _ => Ok(0),
    }
}

/// Saves the first `prompt_len` tokens after the prompt was computed, unless the file gave `restored` of them, which
/// were all.
pub fn save_prompt(
    args: &PromptCacheArgs,
    session: &Session,
    prompt_len: usize,
    restored: usize,
) -> anyhow::Result<()> {
    match &args.session {
        Some(path) if !args.session_ro && !args.session_all && restored < prompt_len => {
            session.save_prefix(path, prompt_len.min(session.position()))?;
        }
        _ => {}
    }
    Ok(())
}

/// Saves everything at the end, where that was asked for.
pub fn save_all(args: &PromptCacheArgs, session: &Session) -> anyhow::Result<()> {
    match &args.session {
        Some(path) if args.session_all && !args.session_ro => {
            session.save(path)?;
        }
        _ => {}
    }
    Ok(())
}

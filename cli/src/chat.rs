//! `pith chat`

use crate::interrupt;
use crate::options::prompt_cache::PromptCacheArgs;
use crate::options::recording::{LedgerArgs, Recording};
use crate::options::reply::{self, FullArg, ReplyArgs};
use crate::options::sampler::SamplerArgs;
use crate::options::session::SessionArgs;
use crate::options::template::{TemplateArgs, system_message};
use anyhow::Context;
use clap::{Args, ValueHint};
use pith_boards::Watch;
use pith_runtime::{ChatTemplate, Drafter, GenerateOptions, Message, Model, Sampler, Session};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use std::io::{BufRead, IsTerminal, Write};
use std::iter;
use std::path::{Path, PathBuf};

/// `pith chat`
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// .pith file
    #[arg(value_hint = ValueHint::FilePath)]
    pub model: PathBuf,
    /// System message: instructions before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub template: TemplateArgs,
    /// Maximum number of tokens in a reply
    #[arg(short = 'n', long, default_value_t = 512, value_name = "N")]
    pub max_tokens: usize,
    /// Stop a reply at this text (may be given again)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Print statistics after every reply
    #[arg(long)]
    pub stats: bool,
    #[command(flatten)]
    pub ledger: LedgerArgs,
    #[command(flatten)]
    pub cache: PromptCacheArgs,
    #[command(flatten)]
    pub sampler: SamplerArgs,
    #[command(flatten)]
    pub reply: ReplyArgs,
    #[command(flatten)]
    pub session: SessionArgs,
}

const HELP: &str =
    "/clear forgets the conversation, /help shows this, /quit or Ctrl-D ends it; Ctrl-C stops a reply";

/// Talks until the input ends.
pub fn chat(args: ChatArgs) -> anyhow::Result<()> {
    let two_stage = |model: &Model| args.sampler.two_stage_logits(&args.sampler.options(model));
    let (model, session) = args.session.open_with(&args.model, two_stage)?;
    let sampler = Sampler::new(args.sampler.options(&model))?;
    let drafter = args.reply.drafter(&args.session, &session)?;
    let template = args.template.open(&args.model, &model)?;
    interrupt::listen()?;
    let system = system_message(args.system.as_deref());
    let inputs: Vec<PathBuf> =
        iter::once(&args.model).chain(&args.template.template).chain(&args.reply.draft).cloned().collect();
    let recording = Recording::begin(&args.ledger, &session, &inputs)?;
    let mut conversation = Conversation {
        model: &model,
        session,
        recording,
        drafter,
        sampler,
        template,
        messages: system.clone(),
        begun: false,
        is_full: false,
        watch: Watch::begin(Path::new("/")),
    };
    let mut lines = Lines::open()?;
    while let Some(line) = lines.next()? {
        match line.trim() {
            "" => continue,
            "/quit" | "/exit" => break,
            "/help" => eprintln!("{HELP}"),
            "/clear" => conversation.clear(&system),
            text => match conversation.turn(text, &args) {
                // Whoever sits at the terminal can begin anew.
                Err(error) if lines.is_terminal() && conversation.is_full => eprintln!("error: {error:#}"),
                result => result?,
            },
        }
    }
    if conversation.begun {
        args.cache.save_all(&conversation.session)?;
    }
    conversation.recording.finish()
}

struct Conversation<'a> {
    model: &'a Model,
    session: Session,
    recording: Recording,
    drafter: Box<dyn Drafter>,
    sampler: Sampler,
    template: ChatTemplate,
    messages: Vec<Message>,
    /// Whether there was a prompt yet: a session file serves the first one.
    begun: bool,
    /// Whether the last message did not fit.
    is_full: bool,
    watch: Watch,
}

impl Conversation<'_> {
    fn clear(&mut self, system: &[Message]) {
        self.messages = system.to_vec();
        self.session.reset();
    }

    /// Number of tokens that begin every prompt, whatever the user says: the instructions.
    fn constant_tokens(&self, args: &ChatArgs) -> anyhow::Result<usize> {
        let prompt = |text: &str| -> anyhow::Result<Vec<u32>> {
            let mut messages = system_message(args.system.as_deref());
            messages.push(Message::new("user", text));
            Ok(self.template.encode(self.model.tokenizer()?, &messages, true)?)
        };
        let pairs = prompt("1")?.into_iter().zip(prompt("?")?);
        Ok(pairs.take_while(|(one, other)| one == other).count())
    }

    /// Sends one message, prints the reply as it is generated, and adds both to the conversation.
    fn turn(&mut self, text: &str, args: &ChatArgs) -> anyhow::Result<()> {
        self.messages.push(Message::new("user", text));
        let tokens = self.template.encode(self.model.tokenizer()?, &self.messages, true)?;
        self.is_full = args.reply.context_full == FullArg::Stop && tokens.len() > self.session.context_len();
        if self.is_full {
            self.messages.pop();
            let (count, context_len) = (tokens.len(), self.session.context_len());
            anyhow::bail!(
                "the conversation would have {count} tokens, the context holds {context_len}: /clear begins a new \
                 one; --context raises the limit, --context-full shift goes on without the oldest half"
            );
        }
        let first = !std::mem::replace(&mut self.begun, true);
        let restored = match first {
            true => args.cache.restore(&mut self.session, &tokens)?,
            false => 0,
        };
        let options = GenerateOptions {
            max_tokens: Some(args.max_tokens),
            stops: args.stop.clone(),
            ignore_eos: false,
            full_context: args.reply.full_context(self.constant_tokens(args)?),
        };
        interrupt::clear();
        let mut out = std::io::stdout().lock();
        // Statistics are per reply; the ledger's file and the metrics continue.
        let ledger = &mut self.recording.ledger;
        ledger.clear();
        // Throttling while the user was typing belongs to no reply.
        self.watch.finish();
        let generation = self.session.generate(&tokens, &mut self.sampler, options);
        let mut generation = generation.with_drafter(self.drafter.as_mut()).with_ledger(ledger);
        // White space before a reply's first word belongs to the prompt's last line.
        let mut begun = false;
        let mut saved = !first;
        while let Some(token) = generation.next() {
            let text = token?.text;
            let text = if begun { &text } else { text.trim_start() };
            begun |= !text.is_empty();
            self.watch.look();
            if !text.is_empty() {
                write!(out, "{text}").and_then(|()| out.flush())?;
            }
            if !std::mem::replace(&mut saved, true) {
                args.cache.save_prompt(generation.session(), tokens.len(), restored)?;
            }
            if interrupt::pressed() {
                break;
            }
        }
        let outcome = generation.finish();
        writeln!(out)?;
        interrupt::clear();
        self.recording.flush();
        if args.stats {
            let heat = self.watch.finish();
            eprint!("{}", reply::statistics(self.model, &outcome, &self.recording.ledger, &heat));
        }
        self.messages.push(Message::new("assistant", outcome.text.trim()));
        Ok(())
    }
}

/// Lines from a terminal with editing and history, or from a pipe.
enum Lines {
    Terminal(Box<DefaultEditor>),
    Pipe,
}

impl Lines {
    fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    fn open() -> anyhow::Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self::Pipe);
        }
        eprintln!("{HELP}");
        Ok(Self::Terminal(Box::new(DefaultEditor::with_config(
            Config::builder().auto_add_history(true).build(),
        )?)))
    }

    /// The next line; `None` at the end of the input. Ctrl-C clears the line.
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Pipe => {
                let mut line = String::new();
                let count = std::io::stdin().lock().read_line(&mut line).context("standard input")?;
                Ok((count > 0).then_some(line))
            }
            Self::Terminal(editor) => loop {
                match editor.readline("> ") {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Interrupted) => continue,
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            },
        }
    }
}

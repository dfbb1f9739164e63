//! Stress: random operations on sessions never hang, and never change later results.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `PITH_STRESS_SECONDS` | how long to go on | 2 |
//! | `PITH_STRESS_SEED` | the first round's seed, which a failure names | the clock |
//! | `PITH_STRESS_TOKENS` | length of the long reply | 200, emulated 40 |
//! | `PITH_STRESS_KERNELS` | the only kernels of the long reply | all but `reference` |

mod support;

use pith_format::Encoding;
use pith_runtime::{
    Drafter, Engine, EngineOptions, FullContext, GenerateOptions, KvType, Ledger, Lookup, Model, NoDrafter,
    RuntimeError, Sampler, SamplerOptions, Session, SessionOptions, StopReason,
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A longer round counts as hung.
const LONGEST_ROUND: Duration = Duration::from_secs(60);

/// Period of the watchdog.
const TICK: Duration = Duration::from_millis(200);

const VOCAB_LEN: usize = 400;

/// Large enough that threads get work, small enough for many tokens per second.
fn model(encoding: Encoding) -> (support::Built, Arc<Model>) {
    let mut plan = support::llama();
    plan.encoding = encoding;
    plan.config.vocab_len = VOCAB_LEN;
    plan.config.hidden_len = 96;
    plan.config.context_len = 1024;
    plan.config.tied_head = false;
    plan.config.layers.truncate(2);
    plan.config.layers.iter_mut().for_each(|layer| support::dense(layer).len = 800);
    support::attention(&mut plan.config.layers[1]).window = Some(9);
    let vocab: Vec<String> = (0..VOCAB_LEN).map(|id| format!("\"w{id}\":{id}")).collect();
    let tokenizer = format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}},
        "post_processor":null,
        "decoder":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}},
        "model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,
        "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":{{{}}},"merges":[]}}}}"#,
        vocab.join(",")
    );
    let tokenizer = pith_tokenizer::source::from_tokenizer_json(tokenizer.as_bytes()).unwrap();
    plan.tokenizer = Some(tokenizer.to_blob());
    let built = plan.build();
    let model = built.open();
    (built, model)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text}, expected a number")))
}

/// Random numbers from a seed.
struct Random(u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn is_one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// At least one token, from few different ones, so that lookups find matches.
    fn tokens(&mut self, most: usize) -> Vec<u32> {
        (0..1 + self.below(most)).map(|_| self.below(20) as u32 * 17).collect()
    }
}

/// Ends the process, naming the seed, if a round takes too long: a hung thread cannot be ended
/// otherwise.
struct Watchdog {
    present: Arc<Mutex<Option<(u64, Instant)>>>,
}

impl Watchdog {
    fn start() -> Self {
        let present: Arc<Mutex<Option<(u64, Instant)>>> = Arc::default();
        let watched = Arc::downgrade(&present);
        std::thread::spawn(move || {
            // Counts its own ticks: a stopped process or a sleeping machine is no hang.
            let (mut last, mut ticks) = (None, 0);
            while let Some(present) = watched.upgrade() {
                let round = *present.lock().unwrap_or_else(PoisonError::into_inner);
                drop(present);
                ticks = if round == last { ticks + 1 } else { 0 };
                last = round;
                if let Some((seed, _)) = round
                    && TICK * ticks > LONGEST_ROUND
                {
                    eprintln!("a round hangs: PITH_STRESS_SEED={seed}");
                    std::process::abort();
                }
                std::thread::sleep(TICK);
            }
        });
        Self { present }
    }

    fn begin(&self, seed: u64) {
        *self.present.lock().unwrap() = Some((seed, Instant::now()));
    }
}

/// The life of one session.
struct Life<'a> {
    model: &'a Arc<Model>,
    random: Random,
    options: SessionOptions,
    session: Session,
}

impl<'a> Life<'a> {
    /// A session on this engine, or on its own.
    fn begin(model: &'a Arc<Model>, seed: u64, engine: Option<&Arc<Engine>>) -> Self {
        let mut random = Random(seed);
        let options = SessionOptions {
            context_len: Some(8 + random.below(120)),
            batch: Some(1 + random.below(60)),
            kv_type: KvType::ALL[random.below(KvType::ALL.len())],
            ..SessionOptions::default()
        };
        let own = engine.is_none().then(|| random_engine(&mut random));
        let engine = engine.or(own.as_ref()).unwrap();
        let session = Session::with_engine(engine, Arc::clone(model), options.clone()).unwrap();
        Self { model, random, options, session }
    }

    fn act(&mut self) {
        let context_len = self.session.context_len();
        let before = self.session.position();
        let tokens = self.random.tokens(context_len + 4);
        let fits = before + tokens.len() <= context_len;
        match self.random.below(8) {
            0 => self.appended(before, &tokens, fits, |session| session.prefill(&tokens).map(|_| ())),
            1 => self.appended(before, &tokens, fits, |session| session.step_all(&tokens)),
            2 => self.appended(before, &tokens, fits, |session| {
                let mut seen = before..;
                session.logits_of(&tokens, |position, logits| {
                    assert_eq!((Some(position), logits.len()), (seen.next(), VOCAB_LEN));
                })
            }),
            3 => {
                let fits = tokens.len() <= context_len;
                let result = self.session.resume(&tokens);
                assert_eq!(result.is_ok(), fits);
                if fits {
                    assert_eq!(self.session.tokens(), tokens);
                }
            }
            4 => self.session.truncate(self.random.below(context_len + 2)),
            5 => self.break_a_receiver(&tokens),
            6 => self.fill(),
            _ => self.reply(&tokens),
        }
        assert!(self.session.position() <= context_len);
    }

    /// All tokens were appended, or none.
    fn appended(
        &mut self,
        before: usize,
        tokens: &[u32],
        fits: bool,
        operation: impl FnOnce(&mut Session) -> Result<(), RuntimeError>,
    ) {
        match operation(&mut self.session) {
            Ok(()) => assert!(fits && self.session.tokens()[before..] == *tokens),
            Err(RuntimeError::ContextFull { .. }) => assert!(!fits && self.session.position() == before),
            Err(error) => panic!("{error}"),
        }
    }

    /// The caller's own panic passes through the session.
    fn break_a_receiver(&mut self, tokens: &[u32]) {
        let before = self.session.position();
        let tokens = &tokens[..tokens.len().min(self.session.context_len() - before)];
        if tokens.is_empty() {
            return;
        }
        let culprit = before + self.random.below(tokens.len());
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.session.logits_of(tokens, |position, _| {
                if position == culprit {
                    // Avoids the message that `panic!` prints.
                    resume_unwind(Box::new(position));
                }
            })
        }));
        assert_eq!(result.unwrap_err().downcast_ref(), Some(&culprit));
        assert!((before..=culprit).contains(&self.session.position()));
    }

    /// Steps until the context is full.
    fn fill(&mut self) {
        let mut error = None;
        while error.is_none() {
            error = self.session.step(self.random.below(VOCAB_LEN) as u32).err();
        }
        assert!(matches!(error, Some(RuntimeError::ContextFull { new: 1, .. })), "{error:?}");
        assert_eq!(self.session.position(), self.session.context_len());
    }

    /// A reply that may use lookup, overflow the context, or be stopped early.
    fn reply(&mut self, prompt: &[u32]) {
        let (random, context_len) = (&mut self.random, self.session.context_len());
        let full_context = match random.is_one_in(2) {
            true => FullContext::Shift { keep: random.below(context_len) },
            false => FullContext::Stop,
        };
        let options = GenerateOptions {
            max_tokens: Some(random.below(40)),
            ignore_eos: random.is_one_in(2),
            full_context,
            ..GenerateOptions::default()
        };
        let temperature = SamplerOptions { seed: random.next(), ..SamplerOptions::default() };
        let sampling = if random.is_one_in(2) { SamplerOptions::greedy() } else { temperature };
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut drafter: Box<dyn Drafter> = match random.is_one_in(2) {
            true => Box::new(Lookup::new(1 + random.below(9)).unwrap()),
            false => Box::new(NoDrafter),
        };
        let most_tokens = 1 + random.below(30);
        let mut ledger = Ledger::new();
        let mut generation = self.session.generate(prompt, &mut sampler, options.clone());
        generation = generation.with_drafter(&mut *drafter).with_ledger(&mut ledger);
        let taken: Result<Vec<_>, _> = generation.by_ref().take(most_tokens).collect();
        match taken {
            Ok(taken) => {
                let outcome = generation.finish();
                assert!(outcome.tokens.len() <= options.max_tokens.unwrap());
                assert!(outcome.reason != StopReason::Interrupted || taken.len() == most_tokens);
            }
            Err(RuntimeError::ContextFull { .. }) => assert!(prompt.len() > context_len),
            Err(RuntimeError::Option { .. }) => {
                assert!(matches!(full_context, FullContext::Shift { keep } if keep + 2 > context_len));
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The session must now compute what a new one computes on one thread.
    fn end(mut self) {
        let tokens = self.random.tokens(self.session.context_len());
        self.session.reset();
        let found = self.session.prefill(&tokens).unwrap().to_vec();
        let kernels = Some(self.session.kernels().into());
        let options = SessionOptions { threads: Some(1), kernels, ..self.options };
        let mut fresh = Session::new(Arc::clone(self.model), options).unwrap();
        assert!(found == fresh.prefill(&tokens).unwrap(), "other logits on one thread");
    }
}

fn random_engine(random: &mut Random) -> Arc<Engine> {
    let mut kernels = pith_kernels::available();
    kernels.retain(|kernels| kernels.name() != "reference");
    let options = EngineOptions {
        threads: Some(1 + random.below(8)),
        pin_threads: random.is_one_in(2),
        kernels: Some(kernels[random.below(kernels.len())].name().into()),
        ..EngineOptions::default()
    };
    Engine::new(options).unwrap()
}

/// Several sessions at once, each with its own threads or all on the same.
fn round(models: &[Arc<Model>], seed: u64) -> usize {
    let mut random = Random(seed);
    let lives: Vec<_> =
        (0..1 + random.below(3)).map(|_| (random.below(models.len()), random.next())).collect();
    let acts = 1 + random.below(8);
    let shared = random.is_one_in(2).then(|| random_engine(&mut random));
    let act = |(model, seed): (usize, u64)| {
        let mut life = Life::begin(&models[model], seed, shared.as_ref());
        (0..acts).for_each(|_| life.act());
        // The others are dropped in their current state.
        if !life.random.is_one_in(4) {
            life.end();
        }
    };
    std::thread::scope(|scope| {
        for &life in &lives {
            let act = &act;
            scope.spawn(move || act(life));
        }
    });
    lives.len() * acts
}

#[test]
fn sessions_survive_whatever_is_done_to_them() {
    let limit = Duration::from_secs(number("PITH_STRESS_SECONDS").unwrap_or(2));
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut seed = number("PITH_STRESS_SEED").unwrap_or_else(clock);
    let built = [Encoding::F32, Encoding::Q8, Encoding::Q4].map(model);
    let models = built.each_ref().map(|(_, model)| Arc::clone(model));
    let watchdog = Watchdog::start();
    let begin = Instant::now();
    let (mut rounds, mut acts, mut longest) = (0, 0, Duration::ZERO);
    while begin.elapsed() < limit {
        watchdog.begin(seed);
        let started = Instant::now();
        acts += catch_unwind(|| round(&models, seed)).unwrap_or_else(|_| panic!("PITH_STRESS_SEED={seed}"));
        (rounds, longest) = (rounds + 1, longest.max(started.elapsed()));
        seed = Random(seed).next();
    }
    println!("{rounds} rounds, {acts} acts, the longest round {longest:?}");
    assert!(rounds > 0);
}

/// A greedy reply in a context that fills repeatedly.
fn long_reply(model: &Arc<Model>, kernels: &str, threads: usize, max_tokens: usize) -> Vec<u32> {
    let options = SessionOptions {
        context_len: Some(320),
        threads: Some(threads),
        kernels: Some(kernels.into()),
        ..SessionOptions::default()
    };
    let mut session = Session::new(Arc::clone(model), options).unwrap();
    let options = GenerateOptions {
        max_tokens: Some(max_tokens),
        ignore_eos: true,
        full_context: FullContext::Shift { keep: 4 },
        ..GenerateOptions::default()
    };
    let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
    let prompt = support::tokens(30, VOCAB_LEN);
    let mut generation = session.generate(&prompt, &mut sampler, options);
    generation.try_for_each(|token| token.map(drop)).unwrap();
    generation.finish().tokens
}

#[test]
fn a_long_reply_is_the_same_on_any_number_of_threads() {
    let usual = if support::is_emulated() { 40 } else { 200 };
    let max_tokens = number("PITH_STRESS_TOKENS").unwrap_or(usual) as usize;
    let mut kernels: Vec<String> =
        pith_kernels::available().iter().map(|kernels| kernels.name().into()).collect();
    // It computes in f64, far too slowly here.
    kernels.retain(|name| name != "reference");
    if let Ok(only) = std::env::var("PITH_STRESS_KERNELS") {
        kernels = vec![only];
    }
    for encoding in [Encoding::Q4, Encoding::F32] {
        let (_built, model) = model(encoding);
        for kernels in &kernels {
            let [one, two, three] = [1, 2, 3].map(|threads| long_reply(&model, kernels, threads, max_tokens));
            assert_eq!(one.len(), max_tokens);
            assert!(one == two && one == three, "{encoding}, {kernels}: other text on more threads");
            println!("{encoding}, {kernels}: {max_tokens} tokens on 1, 2 and 3 threads");
        }
    }
}

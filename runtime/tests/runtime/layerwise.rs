//! Layer by layer: the same bits as a whole pass, and the oracle's inputs.

use crate::logits::MECHANISMS;
use crate::oracle;
use crate::support::{is_emulated, llama, tokens};
use pith_format::{Encoding, ModelConfig, Role, TensorId};
use pith_runtime::{Inputs, KvType, LayerRun, Listener, Model, RuntimeError, Session, SessionOptions, Site};
use std::collections::HashMap;
use std::sync::Arc;

/// Records all inputs.
#[derive(Default)]
struct Recorder(HashMap<(Option<usize>, Site), Vec<Vec<f32>>>);

impl Listener for Recorder {
    fn input(&mut self, layer: Option<usize>, site: Site, inputs: Inputs<'_>) {
        assert_eq!(inputs.rows().len(), inputs.tokens());
        let rows = self.0.entry((layer, site)).or_default();
        rows.extend(inputs.rows().map(|row| {
            assert_eq!(row.len(), inputs.cols());
            row.to_vec()
        }));
    }
}

fn options(kernels: &str, batch: usize, threads: usize) -> SessionOptions {
    SessionOptions {
        kv_type: KvType::F32,
        threads: Some(threads),
        batch: Some(batch),
        kernels: Some(kernels.into()),
        ..SessionOptions::default()
    }
}

/// Logits of every token of every sequence, and the recorded inputs.
fn run(model: &Arc<Model>, options: SessionOptions, sequences: &[Vec<u32>]) -> (Vec<Vec<f32>>, Recorder) {
    let config = model.config();
    let mut run = LayerRun::new(Arc::clone(model), options).unwrap();
    let mut recorder = Recorder::default();
    let mut hidden: Vec<Vec<f32>> =
        sequences.iter().map(|tokens| vec![0.0; tokens.len() * config.hidden_len]).collect();
    for (tokens, hidden) in sequences.iter().zip(&mut hidden) {
        run.embed(tokens, hidden).unwrap();
    }
    for layer in 0..config.layers.len() {
        hidden.iter_mut().for_each(|hidden| run.layer(layer, hidden, &mut recorder).unwrap());
    }
    let all = sequences.iter().zip(&hidden).map(|(tokens, hidden)| {
        run.head_input(hidden, &mut recorder).unwrap();
        let mut logits = vec![0.0; tokens.len() * config.vocab_len];
        run.logits(hidden, &mut logits).unwrap();
        logits
    });
    (all.collect(), recorder)
}

fn session_logits(model: &Arc<Model>, options: SessionOptions, sequences: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let mut session = Session::new(Arc::clone(model), options).unwrap();
    let all = sequences.iter().map(|tokens| {
        session.reset();
        session.step_all(tokens).unwrap();
        (0..tokens.len()).flat_map(|index| session.logits_at(index).to_vec()).collect()
    });
    all.collect()
}

fn bits(logits: &[Vec<f32>]) -> Vec<Vec<u32>> {
    logits.iter().map(|logits| logits.iter().map(|logit| logit.to_bits()).collect()).collect()
}

#[test]
fn every_mechanism_gives_the_bits_of_the_plain_pass() {
    for (name, change) in MECHANISMS {
        // On some kernels, packed activations give products in another order.
        let best = vec![pith_kernels::best()];
        let all = if is_emulated() { best.clone() } else { pith_kernels::available() };
        let cases = [(Encoding::F16, &all), (Encoding::Q4, &best), (Encoding::F32, &best)];
        for (encoding, kernels) in &cases[..if is_emulated() { 2 } else { 3 }] {
            let mut plan = llama();
            change(&mut plan);
            plan.encoding = *encoding;
            let model = plan.build().open();
            // One that fills chunks, one that does not, one of a single token.
            let counts: &[usize] = if is_emulated() { &[19, 1] } else { &[32, 19, 1] };
            let sequences: Vec<_> =
                counts.iter().map(|&count| tokens(count, plan.config.vocab_len)).collect();
            for kernels in kernels.iter().filter(|kernels| kernels.name() != "reference") {
                let options = options(kernels.name(), 16, 2);
                let expected = session_logits(&model, options.clone(), &sequences);
                let (found, _) = run(&model, options, &sequences);
                assert!(bits(&found) == bits(&expected), "{name} in {encoding} on {}", kernels.name());
            }
        }
    }
}

#[test]
fn listeners_hear_what_the_oracle_multiplies() {
    for (name, change) in MECHANISMS {
        let mut plan = llama();
        change(&mut plan);
        let built = plan.build();
        let tokens = tokens(19, plan.config.vocab_len);
        let (_, inputs) = oracle::logits_and_inputs(&plan.config, &built, &tokens);
        let mut expected: HashMap<(Option<usize>, Role), Vec<Vec<f64>>> = HashMap::new();
        for (id, row) in inputs {
            expected.entry((id.layer, id.role)).or_default().push(row);
        }
        let (_, heard) = run(&built.open(), options("portable", 8, 2), &[tokens]);
        let layers = (0..plan.config.layers.len()).map(Some).chain([None]);
        let sites: usize = layers.map(|layer| Site::all(&plan.config, layer).count()).sum();
        assert_eq!(heard.0.len(), sites, "{name}: every site is heard");
        for ((layer, role), expected) in expected {
            // A tied head is the embedding.
            let site = Site::of(role).unwrap_or(Site::Head);
            let found = &heard.0[&(layer, site)];
            assert_eq!(found.len(), expected.len(), "{name}: tokens at {layer:?} {role:?}");
            let largest = expected.iter().flatten().fold(0.0f64, |largest, x| largest.max(x.abs()));
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.len(), expected.len());
                assert_eq!(Some(found.len()), site.cols(&plan.config, layer));
                for (found, expected) in found.iter().zip(expected) {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error <= 1e-4 * largest, "{name}, {layer:?} {role:?}: {found} is not {expected}");
                }
            }
        }
    }
}

#[test]
fn sites_have_the_columns_of_their_matrices() {
    let config: ModelConfig = llama().config;
    for &role in Role::ALL {
        let Some(site) = Site::of(role) else { continue };
        let layer = (site != Site::Head).then_some(1);
        let id = TensorId { role, layer, expert: None };
        assert_eq!(id.shape(&config).map(|(_, cols)| cols), site.cols(&config, layer), "{role:?}");
    }
}

#[test]
fn sequences_that_cannot_be_run_are_refused() {
    let model = llama().build().open();
    let options = SessionOptions { context_len: Some(8), threads: Some(1), ..SessionOptions::default() };
    let mut run = LayerRun::new(Arc::clone(&model), options).unwrap();
    let mut hidden = vec![0.0; 9 * model.config().hidden_len];
    let error = run.embed(&[1; 9], &mut hidden).unwrap_err();
    assert!(matches!(error, RuntimeError::ContextFull { position: 0, new: 9, context_len: 8 }), "{error}");
    let error = run.layer(0, &mut hidden, &mut Recorder::default()).unwrap_err();
    assert!(matches!(error, RuntimeError::ContextFull { .. }), "{error}");
    assert!(matches!(run.embed(&[], &mut []), Err(RuntimeError::EmptyPrompt)));
    let one = model.config().hidden_len;
    let error = run.embed(&[301], &mut hidden[..one]).unwrap_err();
    assert!(matches!(error, RuntimeError::Token { index: 0, token: 301, vocab_len: 301 }), "{error}");
    assert!(run.bytes() > 0);
}

#[test]
fn a_listener_that_panics_is_an_error_and_the_run_goes_on() {
    struct Faulty;
    impl Listener for Faulty {
        fn input(&mut self, _: Option<usize>, site: Site, _: Inputs<'_>) {
            assert_ne!(site, Site::Down, "not this one");
        }
    }
    let model = llama().build().open();
    let options = options("portable", 8, 2);
    let mut run = LayerRun::new(Arc::clone(&model), options).unwrap();
    let mut hidden = vec![0.0; 3 * model.config().hidden_len];
    run.embed(&[1, 2, 3], &mut hidden).unwrap();
    let error = run.layer(0, &mut hidden.clone(), &mut Faulty).unwrap_err();
    assert!(matches!(&error, RuntimeError::Panic { message } if message.contains("not this one")), "{error}");
    let mut heard = Recorder::default();
    run.layer(0, &mut hidden, &mut heard).unwrap();
    assert_eq!(heard.0[&(Some(0), Site::Down)].len(), 3);
}

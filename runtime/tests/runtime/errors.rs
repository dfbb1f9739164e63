//! One test per error; each error names the place and both values.

use crate::support::{Plan, llama};
use pith_format::{NormKind, Role, TensorId};
use pith_runtime::{Model, RuntimeError, Session, SessionOptions};
use std::sync::Arc;

fn message(plan: &Plan) -> String {
    plan.build().error().to_string()
}

fn session_error(options: SessionOptions) -> RuntimeError {
    match Session::new(llama().build().open(), options) {
        Ok(_) => panic!("the session was made"),
        Err(error) => error,
    }
}

#[test]
fn each_missing_tensor_is_named() {
    let model = [Role::TokenEmbedding, Role::OutputNorm].map(TensorId::model);
    let layer = [
        Role::MixerNorm,
        Role::Query,
        Role::Key,
        Role::Value,
        Role::AttentionOutput,
        Role::FfnNorm,
        Role::Up,
        Role::Down,
    ]
    .map(|role| TensorId::layer(role, 1));
    for id in model.into_iter().chain(layer) {
        let mut plan = llama();
        plan.without.push(id);
        let message = message(&plan);
        assert!(message.contains("model.pith") && message.ends_with(&format!("no tensor {id}")), "{message}");
    }
    let mut plan = llama();
    plan.config.tied_head = false;
    plan.without.push(TensorId::model(Role::Head));
    assert!(message(&plan).ends_with("no tensor output.head"));
}

#[test]
fn each_tensor_without_a_use_is_named() {
    let mut plan = llama();
    plan.roles.push(Role::Head);
    assert!(message(&plan).contains("output.head: the head is tied"), "{}", message(&plan));
    let mut plan = llama();
    plan.roles.push(Role::MixerNormBias);
    assert!(message(&plan).contains("layers.0.mixer.norm.bias: root-mean-square"), "{}", message(&plan));
    let mut plan = llama();
    plan.config.norm = NormKind::Layer;
    plan.config.layers[2].parallel = true;
    plan.roles.push(Role::FfnNormBias);
    plan.without.push(TensorId::layer(Role::FfnNorm, 2));
    assert!(message(&plan).contains("layers.2.ffn.norm.bias"), "{}", message(&plan));
}

#[test]
fn files_that_are_no_models_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.pith");
    std::fs::write(&path, "no model").unwrap();
    let message = Model::open(&path).unwrap_err().to_string();
    assert!(message.contains("text.pith: not a .pith file"), "{message}");
    std::fs::write(&path, "").unwrap();
    assert!(Model::open(&path).unwrap_err().to_string().contains("not a .pith file"));
    let message = Model::open(&folder.path().join("none.pith")).unwrap_err().to_string();
    assert!(message.contains("none.pith: open:"), "{message}");
}

#[test]
fn a_file_without_tokenizer_runs_ids_only() {
    let message = llama().build().open().tokenizer().err().unwrap().to_string();
    assert!(message.contains("model.pith: the file has no tokenizer"), "{message}");
}

#[test]
fn a_damaged_tokenizer_is_an_error_when_it_is_asked_for() {
    let mut plan = llama();
    plan.tokenizer = Some(b"not a tokenizer".to_vec());
    let model = plan.build().open();
    assert!(matches!(model.tokenizer(), Err(RuntimeError::Tokenizer(_))));
}

#[test]
fn prompts_that_cannot_be_run_leave_the_session_as_it_was() {
    let options = SessionOptions { context_len: Some(8), ..SessionOptions::default() };
    let mut session = Session::new(llama().build().open(), options).unwrap();
    assert_eq!(
        session.prefill(&[]).unwrap_err().to_string(),
        "the prompt is empty; at least one token is needed"
    );
    assert!(matches!(session.logits_of(&[], |_, _| ()), Err(RuntimeError::EmptyPrompt)));
    session.prefill(&[1, 2, 3]).unwrap();
    let (traffic, logits) = (session.traffic(), session.logits().to_vec());
    let message = session.prefill(&[5, 300, 301]).unwrap_err().to_string();
    assert_eq!(message, "token 2 of the prompt is 301, the vocabulary has 301");
    let message = session.prefill(&[4; 6]).unwrap_err().to_string();
    assert_eq!(message, "6 more tokens after 3 do not fit in a context of 8");
    assert_eq!((session.position(), session.traffic(), session.logits()), (3, traffic, &logits[..]));
    session.prefill(&[4; 5]).unwrap();
    assert!(matches!(
        session.step(1),
        Err(RuntimeError::ContextFull { position: 8, new: 1, context_len: 8 })
    ));
}

#[test]
fn options_that_cannot_be_are_named() {
    let error = session_error(SessionOptions { threads: Some(0), ..Default::default() });
    assert_eq!(error.to_string(), "threads is 0, expected 1 to 64");
    let error = session_error(SessionOptions { threads: Some(65), ..Default::default() });
    assert_eq!(error.to_string(), "threads is 65, expected 1 to 64");
    let error = session_error(SessionOptions { cpus: Some(vec![5000]), ..Default::default() });
    assert!(error.to_string().contains("cpus") && error.to_string().contains("5000"), "{error}");
    let error = session_error(SessionOptions { batch: Some(0), ..Default::default() });
    assert_eq!(error.to_string(), "batch is 0, expected at least 1");
    let error = session_error(SessionOptions { context_len: Some(0), ..Default::default() });
    assert_eq!(error.to_string(), "context is 0, expected at least 1");
    let error = session_error(SessionOptions { kernels: Some("abacus".into()), ..Default::default() });
    let message = error.to_string();
    assert!(message.contains("\"abacus\"") && message.contains("portable"), "{message}");
}

#[test]
fn contexts_beyond_the_models_must_be_asked_for_and_must_fit_in_memory() {
    let long = |context_len, beyond_model| SessionOptions {
        context_len: Some(context_len),
        beyond_model,
        ..SessionOptions::default()
    };
    let message = session_error(long(65, false)).to_string();
    assert!(message.contains("65 tokens") && message.contains("64"), "{message}");
    let session = Session::new(llama().build().open(), long(100, true)).unwrap();
    assert_eq!(session.context_len(), 100);
    let mut plan = llama();
    plan.roles.push(Role::PositionEmbedding);
    assert!(matches!(
        Session::new(plan.build().open(), long(65, true)),
        Err(RuntimeError::ContextTooLong { context_len: 65, model_context_len: 64 })
    ));
    for context_len in [usize::MAX, usize::MAX / 100, 1 << 50] {
        let error = session_error(long(context_len, true));
        assert!(matches!(error, RuntimeError::Memory { .. }), "{error}");
        assert!(error.to_string().contains("cache of keys and values"), "{error}");
    }
}

#[test]
fn a_model_serves_sessions_on_many_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let model = llama().build().open();
    shared(&*model);
    let run = |model: Arc<Model>| {
        let mut session = Session::new(model, SessionOptions::default()).unwrap();
        session.prefill(&[1, 2, 3]).unwrap().to_vec()
    };
    let expected = run(Arc::clone(&model));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let model = Arc::clone(&model);
            std::thread::spawn(move || run(model))
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), expected);
    }
}

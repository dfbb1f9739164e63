//! Activation statistics: their sums against plain ones in f64, their file, their errors.

use pith_converter::statistics::{
    CalibrationText, LEAST_TOKENS, Site, Statistics, StatisticsError, StatisticsOptions, TextOptions,
};
use pith_format::{Encoding, Progress, ReplaceError, Role, TensorId, TensorPlan, Writer};
use pith_runtime::{Inputs, LayerRun, Listener, Model, Session, SessionOptions};
use pith_tests::{Converted, convert_all, convert_with, golden, is_emulated, shared, wren};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A model with fast passes: the embedded one, or a still smaller one under emulation.
fn small() -> PathBuf {
    if is_emulated() { golden().join("families/llama2") } else { wren() }
}

/// Records all messages.
#[derive(Default)]
struct Recorder(HashMap<(Option<usize>, Site), Vec<Vec<f32>>>);

impl Listener for Recorder {
    fn input(&mut self, layer: Option<usize>, site: Site, inputs: Inputs<'_>) {
        self.0.entry((layer, site)).or_default().extend(inputs.rows().map(<[f32]>::to_vec));
    }
}

fn options(hessians: bool) -> StatisticsOptions {
    let session = SessionOptions { threads: Some(2), ..SessionOptions::default() };
    StatisticsOptions { hessians, session, ..StatisticsOptions::default() }
}

/// Sequences of the given lengths.
fn text(model: &Model, lengths: &[usize]) -> CalibrationText {
    let vocab_len = model.config().vocab_len;
    let token = |index: usize| ((index * index * 31 + index * 7 + 3) % vocab_len) as u32;
    let sequence = |(number, &len): (usize, &usize)| (0..len).map(|i| token(i + 1000 * number)).collect();
    CalibrationText {
        sequences: lengths.iter().enumerate().map(sequence).collect(),
        file: None,
        checksum: None,
        window: *lengths.iter().max().unwrap(),
    }
}

/// Reads `words` as calibration text with the given options.
fn read(
    model: &Model,
    name: &str,
    words: &str,
    options: TextOptions,
) -> Result<CalibrationText, StatisticsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, words).unwrap();
    CalibrationText::read(&path, model, options)
}

/// File names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn statistics_are_those_of_plain_sums_in_f64() {
    for source in [small(), golden().join("families/gpt_neox"), golden().join("families/gemma2")] {
        let converted = convert_all(&source, Encoding::F16);
        let model = converted.open();
        let text = text(&model, &[40, 33, 5, 1]);
        let output = converted.folder.path().join("x.safetensors");
        let report = Statistics::collect(&model, &text, &options(true), &output, &()).unwrap();
        assert_eq!(report.file_bytes, output.metadata().unwrap().len());
        let calibration = Statistics::open(&output).unwrap();
        assert_eq!(*calibration.info(), report.info);
        assert_eq!(calibration.info().tokens, 79);
        calibration.check_model(&model.metadata().provenance.source.checksum).unwrap();

        let config = model.config();
        let session = SessionOptions { context_len: Some(text.window), ..options(true).session };
        let mut run = LayerRun::new(Arc::clone(&model), session).unwrap();
        let mut heard = Recorder::default();
        for tokens in &text.sequences {
            let mut hidden = vec![0.0; tokens.len() * config.hidden_len];
            run.embed(tokens, &mut hidden).unwrap();
            for layer in 0..config.layers.len() {
                run.layer(layer, &mut hidden, &mut heard).unwrap();
            }
            run.head_input(&hidden, &mut heard).unwrap();
        }
        assert_eq!(heard.0.len(), 4 * config.layers.len() + 1);
        for ((layer, site), rows) in &heard.0 {
            let place = format!("{} {layer:?} {site}", source.display());
            check_site(&calibration, *layer, *site, rows, &place);
        }
    }
}

#[test]
fn every_family_gives_the_bits_of_the_plain_pass_layer_by_layer() {
    let mut count = 0;
    for entry in std::fs::read_dir(golden().join("families")).unwrap() {
        let source = entry.unwrap().path();
        if !source.join("model.safetensors").exists() {
            continue;
        }
        let model = convert_all(&source, Encoding::F16).open();
        let tokens = text(&model, &[30]).sequences.remove(0);
        let options = SessionOptions { context_len: Some(30), batch: Some(16), ..options(false).session };
        let mut session = Session::new(Arc::clone(&model), options.clone()).unwrap();
        session.step_all(&tokens).unwrap();
        let config = model.config();
        let mut run = LayerRun::new(Arc::clone(&model), options).unwrap();
        let mut hidden = vec![0.0; tokens.len() * config.hidden_len];
        run.embed(&tokens, &mut hidden).unwrap();
        for layer in 0..config.layers.len() {
            run.layer(layer, &mut hidden, &mut Recorder::default()).unwrap();
        }
        let mut logits = vec![0.0; tokens.len() * config.vocab_len];
        run.logits(&hidden, &mut logits).unwrap();
        for (index, logits) in logits.chunks_exact(config.vocab_len).enumerate() {
            let expected = session.logits_at(index);
            let same =
                logits.iter().zip(expected).all(|(found, expected)| found.to_bits() == expected.to_bits());
            assert!(same, "{}: logits of token {index}", source.display());
        }
        count += 1;
    }
    assert!(count >= 20, "{count} families");
}

/// Compares a site's statistics with sums over `rows`.
fn check_site(calibration: &Statistics, layer: Option<usize>, site: Site, rows: &[Vec<f32>], place: &str) {
    let cols = calibration.cols(layer, site).unwrap();
    let mean = |of: &dyn Fn(&[f32]) -> f64| rows.iter().map(|row| of(row)).sum::<f64>() / rows.len() as f64;
    let stats = calibration.stats(layer, site).unwrap();
    assert_eq!((stats.tokens, stats.mean.len(), rows[0].len()), (rows.len(), cols, cols), "{place}");
    let close = |found: f32, expected: f64, size: f64| {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= f64::from(f32::EPSILON) * size, "{place}: {found} is not {expected}");
    };
    for col in 0..cols {
        let x = |row: &[f32]| f64::from(row[col]);
        let size = mean(&|row| x(row).abs());
        close(stats.mean[col], mean(&x), size);
        close(stats.mean_abs[col], size, size);
        let square = mean(&|row| x(row) * x(row));
        close(stats.mean_square[col], square, square);
        close(
            stats.norms()[col],
            (square * rows.len() as f64).sqrt(),
            2.0 * (square * rows.len() as f64).sqrt(),
        );
    }
    let gram = calibration.gram(layer, site).unwrap().unwrap();
    assert_eq!((gram.cols, gram.upper.len()), (cols, cols * (cols + 1) / 2), "{place}");
    let full = gram.to_full();
    for (a, b) in (0..cols).flat_map(|a| (a..cols).map(move |b| (a, b))) {
        let product = |row: &[f32]| f64::from(row[a]) * f64::from(row[b]);
        // Sums of up to 79 products in f32.
        let size = mean(&|row| product(row).abs()) * rows.len() as f64;
        close(full[a * cols + b], mean(&product), size);
        assert_eq!(full[a * cols + b].to_bits(), full[b * cols + a].to_bits(), "{place}: symmetric");
    }
}

#[test]
fn pairs_keep_their_precision_over_many_tokens() {
    // More tokens than one f32 sum takes, all alike: every sum is known.
    let converted = convert_all(&golden().join("families/llama2"), Encoding::F32);
    let model = converted.open();
    let window = model.config().context_len.min(64);
    let text = CalibrationText {
        sequences: vec![vec![7; window]; 6000 / window],
        file: None,
        checksum: None,
        window,
    };
    let output = converted.folder.path().join("x.safetensors");
    Statistics::collect(&model, &text, &options(true), &output, &()).unwrap();
    let calibration = Statistics::open(&output).unwrap();
    // Every sequence is the same, so the means are those of one.
    let one = CalibrationText { sequences: text.sequences[..1].to_vec(), ..text };
    let other = converted.folder.path().join("y.safetensors");
    Statistics::collect(&model, &one, &options(true), &other, &()).unwrap();
    let single = Statistics::open(&other).unwrap();
    for layer in 0..model.config().layers.len() {
        for site in Site::OF_LAYER {
            let of = |calibration: &Statistics| calibration.gram(Some(layer), site).unwrap().unwrap();
            let (many, one) = (of(&calibration), of(&single));
            let stats = single.stats(Some(layer), site).unwrap();
            let (many, one) = (many.to_full(), one.to_full());
            for (index, (many, one)) in many.iter().zip(&one).enumerate() {
                let (a, b) = (index / stats.mean.len(), index % stats.mean.len());
                // Cauchy–Schwarz: bounds every mean of products and every sum of their magnitudes.
                let size = (stats.mean_square[a] * stats.mean_square[b]).sqrt();
                assert!(
                    (many - one).abs() <= 1e-5 * size,
                    "layer {layer} {site} {a} {b}: {many} is not {one}"
                );
            }
        }
    }
}

#[test]
fn hidden_states_that_do_not_fit_go_to_a_file_and_change_nothing() {
    let converted = convert_all(&small(), Encoding::F16);
    let model = converted.open();
    let text = text(&model, &[32; 12]);
    let folder = tempfile::tempdir().unwrap();
    let [roomy, tight] = ["roomy", "tight"].map(|name| folder.path().join(name));
    let report = Statistics::collect(&model, &text, &options(true), &roomy, &()).unwrap();
    assert!(!report.spilled);
    let limited = StatisticsOptions { memory: Some(report.memory_bytes - 1), ..options(true) };
    let spilled = Statistics::collect(&model, &text, &limited, &tight, &()).unwrap();
    assert!(spilled.spilled && spilled.memory_bytes < report.memory_bytes);
    assert!(std::fs::read(&roomy).unwrap() == std::fs::read(&tight).unwrap());
    assert_eq!(names(folder.path()), ["roomy", "tight"]);

    let too_tight = StatisticsOptions { memory: Some(spilled.memory_bytes - 1), ..options(true) };
    let output = folder.path().join("none");
    let error = Statistics::collect(&model, &text, &too_tight, &output, &()).unwrap_err();
    let StatisticsError::Memory { need_bytes, limit_bytes, advice } = &error else { panic!("{error}") };
    assert_eq!((*need_bytes, *limit_bytes), (spilled.memory_bytes, spilled.memory_bytes - 1));
    assert!(advice.contains("Hessians"), "{error}");
    let nothing = StatisticsOptions { memory: Some(1), ..options(false) };
    let error = Statistics::collect(&model, &text, &nothing, &output, &()).unwrap_err();
    assert!(error.to_string().contains("1 are allowed: allow so many"), "{error}");
    assert_eq!(names(folder.path()), ["roomy", "tight"]);
}

#[test]
fn too_few_tokens_for_a_hessian_are_said() {
    let converted = convert_all(&small(), Encoding::F16);
    let model = converted.open();
    let output = converted.folder.path().join("x");
    let report = Statistics::collect(&model, &text(&model, &[40]), &options(true), &output, &()).unwrap();
    assert!(report.warnings[0].contains("40 tokens are fewer than the"), "{:?}", report.warnings);
    let error = Statistics::collect(&model, &text(&model, &[40]), &options(false), &output, &()).unwrap_err();
    assert!(matches!(error, StatisticsError::Replace(ReplaceError::Exists { .. })), "{error}");
    let again = StatisticsOptions { force: true, ..options(false) };
    let report = Statistics::collect(&model, &text(&model, &[40]), &again, &output, &()).unwrap();
    assert!(report.warnings.is_empty());
    let calibration = Statistics::open(&output).unwrap();
    assert_eq!(calibration.gram(None, Site::Head).unwrap(), None);
    for (layer, site) in [(None, Site::Down), (Some(0), Site::Head), (Some(999), Site::Ffn)] {
        let error = calibration.stats(layer, site).unwrap_err();
        assert!(matches!(error, StatisticsError::NoSite { .. }), "{error}");
    }
}

#[test]
fn quantized_layers_are_refused_unless_asked_for() {
    let converted = convert_all(&small(), Encoding::Q4);
    let model = converted.open();
    let output = converted.folder.path().join("x");
    let error = Statistics::collect(&model, &text(&model, &[40]), &options(false), &output, &()).unwrap_err();
    assert!(matches!(error, StatisticsError::Quantized { encoding: "q4", .. }), "{error}");
    assert!(error.to_string().contains("layers.0.attention.query is in q4"), "{error}");
    let any = StatisticsOptions { any_encoding: true, ..options(false) };
    Statistics::collect(&model, &text(&model, &[40]), &any, &output, &()).unwrap();
}

/// The model after a change to one tensor's bytes.
fn altered(converted: &Converted, id: TensorId, change: impl Fn(&mut Vec<u8>)) -> Arc<Model> {
    let model = converted.open();
    let index = model.index();
    let plan: Vec<TensorPlan> = index
        .entries()
        .iter()
        .map(|entry| TensorPlan {
            id: entry.id,
            encoding: entry.encoding,
            rows: entry.rows as usize,
            cols: entry.cols as usize,
        })
        .collect();
    let path = converted.folder.path().join("altered.pith");
    let mut writer = Writer::create(&path, &plan).unwrap();
    for tensor in &plan {
        let mut bytes = index.bytes(model.bytes(), tensor.id).unwrap().to_vec();
        if tensor.id == id {
            change(&mut bytes);
        }
        writer.write(tensor.id, &bytes).unwrap();
    }
    writer.finish(index.metadata()).unwrap();
    Arc::new(Model::open(&path).unwrap())
}

#[test]
fn activations_that_are_not_finite_are_refused_with_their_place() {
    let converted = convert_all(&small(), Encoding::F32);
    let model = altered(&converted, TensorId::layer(Role::Up, 1), |bytes| {
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x");
    for hessians in [false, true] {
        let text = text(&model, &[40, 40]);
        let error = Statistics::collect(&model, &text, &options(hessians), &output, &()).unwrap_err();
        let StatisticsError::NotFinite { place, column, sequence } = &error else { panic!("{error}") };
        assert_eq!((place.as_str(), *column, *sequence), ("layers.1.down", 0, 0));
    }
    assert!(names(folder.path()).is_empty());
}

/// Asks to stop after some tokens.
struct Impatient(AtomicUsize);

impl Progress for Impatient {
    fn advance(&self, _: u64) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= 3
    }
}

#[test]
fn who_is_interrupted_leaves_nothing() {
    let converted = convert_all(&small(), Encoding::F16);
    let model = converted.open();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x");
    let progress = Impatient(AtomicUsize::new(0));
    let error = Statistics::collect(&model, &text(&model, &[32; 8]), &options(true), &output, &progress);
    assert!(matches!(error, Err(StatisticsError::Interrupted)));
    assert!(names(folder.path()).is_empty());
    let progress = Impatient(AtomicUsize::new(0));
    let error = CalibrationText::generate(&model, TextOptions::default(), options(false).session, &progress);
    assert!(matches!(error, Err(StatisticsError::Interrupted)));
}

/// The bytes after the header of a statistics file, and the header's JSON.
fn split(bytes: &[u8]) -> (serde_json::Value, &[u8]) {
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + len]).unwrap(), &bytes[8 + len..])
}

fn join(header: &serde_json::Value, data: &[u8]) -> Vec<u8> {
    let json = header.to_string();
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), data].concat()
}

#[test]
fn damaged_files_are_refused() {
    let converted = convert_all(&small(), Encoding::F16);
    let model = converted.open();
    let path = converted.folder.path().join("x");
    Statistics::collect(&model, &text(&model, &[40]), &options(true), &path, &()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let (header, data) = split(&whole);
    assert_eq!((whole.len() - data.len()) % 8, 0, "data is aligned");
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Statistics::open(&path)
    };
    for len in [0, 7, 8, 100, whole.len() - data.len(), whole.len() - 1] {
        let error = open(&whole[..len]).unwrap_err();
        assert!(matches!(error, StatisticsError::Source(_)), "{len} bytes: {error}");
    }
    assert!(open(&[&whole[..], &[0]].concat()).is_err(), "longer than it says");

    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let calibration = open(&flipped).unwrap();
    let error = calibration.gram(None, Site::Head).unwrap_err();
    assert!(matches!(&error, StatisticsError::Damaged { tensor, .. } if tensor == "head.gram"), "{error}");
    calibration.stats(None, Site::Head).unwrap();

    type Change = fn(&mut serde_json::Value);
    let changes: [(Change, &str); 9] = [
        (|h| h["__metadata__"]["pith_calibration"] = "2".into(), "pith_calibration is \"2\", expected 1"),
        (|h| drop(h["__metadata__"].as_object_mut().unwrap().remove("tokens")), "tokens is \"\""),
        (|h| h["__metadata__"]["tokens"] = "0".into(), "tokens is \"0\""),
        (|h| h["__metadata__"]["tokens"] = "many".into(), "expected a number"),
        (|h| h["__metadata__"]["hessians"] = "maybe".into(), "true or false"),
        (|h| h["__metadata__"]["layers"] = "9999".into(), "4096 at most"),
        (|h| h["__metadata__"]["layers"] = "1".into(), "has no part in a calibration"),
        (|h| h["__metadata__"]["checksums"] = "12".into(), "16 hexadecimal digits"),
        (|h| h["head.mean"]["dtype"] = "I32".into(), "tensor head.mean is I32"),
    ];
    for (change, expected) in changes {
        let mut header = header.clone();
        change(&mut header);
        let error = open(&join(&header, data)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} is not in: {error}");
    }
    let mut renamed = header.clone();
    let entry = renamed.as_object_mut().unwrap().remove("layers.0.ffn.mean").unwrap();
    renamed["layers.0.ffn.median"] = entry;
    let error = open(&join(&renamed, data)).unwrap_err().to_string();
    assert!(error.contains("tensor layers.0.ffn.mean is missing"), "{error}");

    let error = open(&whole).unwrap().check_model("another").unwrap_err();
    assert!(
        matches!(&error, StatisticsError::OtherModel { expected, .. } if expected == "another"),
        "{error}"
    );
}

#[test]
fn texts_are_cut_into_windows() {
    let model = convert_all(&wren(), Encoding::F16).open();
    let words = "Question: where is the river? Answer: behind the old mill.\n\n".repeat(40);
    let options = TextOptions { tokens: None, window: Some(64) };
    let whole = read(&model, "a.txt", &words, options).unwrap();
    let tokens = model.tokenizer().unwrap().encode(&words, false).unwrap();
    let mut joined = Vec::new();
    for (index, sequence) in whole.sequences.iter().enumerate() {
        let first = model.config().bos;
        assert_eq!(first.is_some_and(|first| sequence[0] == first), first.is_some());
        joined.extend_from_slice(&sequence[usize::from(first.is_some())..]);
        assert!(sequence.len() == 64 || index + 1 == whole.sequences.len() && sequence.len() >= LEAST_TOKENS);
    }
    assert_eq!(joined, tokens[..joined.len()]);
    assert!(tokens.len() - joined.len() < LEAST_TOKENS);
    assert_eq!((whole.window, whole.file.as_deref()), (64, Some("a.txt")));

    for limit in [32, 63, 64, 65, 100, 200] {
        let some = read(&model, "a.txt", &words, TextOptions { tokens: Some(limit), ..options }).unwrap();
        let found = some.tokens();
        assert!(found <= limit && found + LEAST_TOKENS > limit, "{found} of {limit} tokens");
        for (some, whole) in some.sequences.iter().zip(&whole.sequences) {
            assert_eq!(some, &whole[..some.len()]);
        }
    }
    let line = |text: &str| serde_json::json!({"text": text, "id": 1}).to_string();
    let lines = format!("{}\n\n{}\n", line(&words), line("One more."));
    let of_lines = read(&model, "a.jsonl", &lines, options).unwrap();
    let of_text = read(&model, "a.txt", &format!("{words}\n\nOne more."), options).unwrap();
    assert_eq!(of_lines.sequences, of_text.sequences);
    assert_ne!(of_lines.checksum, of_text.checksum);
}

#[test]
fn texts_that_cannot_be_used_are_refused() {
    let model = convert_all(&wren(), Encoding::F16).open();
    let none = TextOptions::default();
    for words in ["", "Hello."] {
        let error = read(&model, "a.txt", words, none).unwrap_err();
        assert!(matches!(error, StatisticsError::TooShort { least: LEAST_TOKENS, .. }), "{error}");
    }
    for (lines, place) in [
        ("{\"text\": \"a\"}\n{\"text\": 3}\n", "line 2: \"text\" is 3"),
        ("{\"text\": \"a\"}\n\nnonsense\n", "line 3: expected"),
        ("{\"words\": \"a\"}\n", "line 1: there is no \"text\""),
    ] {
        let error = read(&model, "a.jsonl", lines, none).unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
    }
    let long = "word ".repeat(200);
    for (options, place) in [
        (TextOptions { window: Some(1 << 20), ..none }, "the context is 1048576"),
        (TextOptions { window: Some(3), ..none }, "the context is 3"),
        (TextOptions { tokens: Some(5), ..none }, "the number of tokens is 5"),
    ] {
        let error = read(&model, "a.txt", &long, options).unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
    }
    let error = CalibrationText::read(Path::new("/none/such.txt"), &model, none).unwrap_err();
    assert!(error.to_string().contains("/none/such.txt"), "{error}");
}

#[test]
fn models_write_the_same_text_every_time() {
    // One with a first token, one without.
    for source in [small(), golden().join("families/gpt_neox")] {
        let model = convert_all(&source, Encoding::F16).open();
        let options = TextOptions { tokens: Some(100), window: Some(48) };
        let write = || {
            let session = SessionOptions { threads: Some(2), ..SessionOptions::default() };
            CalibrationText::generate(&model, options, session, &()).unwrap()
        };
        let text = write();
        assert_eq!(text.tokens(), 100);
        assert!(text.sequences.iter().all(|sequence| sequence.len() <= 48));
        if let Some(first) = model.config().bos {
            assert!(text.sequences.iter().all(|sequence| sequence[0] == first));
        }
        assert_eq!(text, write());
        assert_eq!((text.file, text.checksum), (None, None));
    }
}

#[test]
#[ignore = "needs models/atlas of the shared data"]
fn atlas_is_calibrated_on_its_own_text() {
    let source = shared("models/atlas");
    let converted = convert_with(&source, pith_converter::Recipe::new(Encoding::F16));
    let model = converted.open();
    let wanted = TextOptions { tokens: Some(2048), window: Some(256) };
    let text = CalibrationText::read(&source.join("calibration.txt"), &model, wanted).unwrap();
    assert_eq!(text.tokens(), 2048);
    let output = converted.folder.path().join("x");
    let report = Statistics::collect(&model, &text, &options(true), &output, &()).unwrap();
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let calibration = Statistics::open(&output).unwrap();
    for layer in 0..6 {
        for site in Site::OF_LAYER {
            let stats = calibration.stats(Some(layer), site).unwrap();
            let gram = calibration.gram(Some(layer), site).unwrap().unwrap().to_full();
            for (col, square) in stats.mean_square.iter().enumerate() {
                let diagonal = gram[col * (stats.mean.len() + 1)];
                assert!(
                    (diagonal - square).abs() <= 1e-5 * square,
                    "{layer} {site} {col}: {diagonal} is not {square}"
                );
            }
        }
    }
}

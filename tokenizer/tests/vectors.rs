//! Exact ids of public tokenizers: llama.cpp's vectors and ids of the Python packages.
//!
//! Ignored by default: they need the folder of shared data. Those named `…oracle` also need a
//! Python with `tokenizers` and `sentencepiece`, named by `PITH_PYTHON`.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Instant;

use pith_tokenizer::Tokenizer;
use pith_tokenizer::source::{
    AddedToken, PreTokenizer, TokenizerConfig, from_gguf, from_sentencepiece, from_tokenizer_json,
    from_vocab_and_merges,
};
use support::{Gguf, check_golden, shared};

fn json(path: &Path) -> Tokenizer {
    from_tokenizer_json(&std::fs::read(path).unwrap()).unwrap()
}

fn gguf(path: &Path) -> Tokenizer {
    Gguf::read(path).with_vocab(|vocab| from_gguf(vocab).unwrap())
}

fn qwen2(folder: &Path, config: &TokenizerConfig) -> Tokenizer {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    from_vocab_and_merges(&read("vocab.json"), &read("merges.txt"), &PreTokenizer::qwen2(), config).unwrap()
}

/// Checks a tokenizer, and its copy through a blob, against `NAME.inp` and `NAME.out`.
fn check_vectors(tokenizer: &Tokenizer, stem: &Path) {
    let read = |extension: &str| std::fs::read_to_string(format!("{}.{extension}", stem.display())).unwrap();
    let inputs = read("inp");
    let outputs = read("out");
    let texts: Vec<&str> = inputs.split("\n__ggml_vocab_test__\n").collect();
    let lines: Vec<&str> = outputs.lines().collect();
    assert!(
        texts.len() >= lines.len() && lines.len() > 40,
        "{} texts, {} lines of ids",
        texts.len(),
        lines.len()
    );
    let copy = Tokenizer::from_blob(&tokenizer.to_blob()).unwrap();
    for (text, line) in texts.iter().zip(lines) {
        let ids: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
        for tokenizer in [tokenizer, &copy] {
            assert_eq!(tokenizer.encode_plain(text).unwrap(), ids, "{}: {text:?}", stem.display());
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), *text);
        }
    }
}

#[test]
#[ignore = "needs data/tokenizers of the shared data"]
fn gpt2_matches_the_vectors() {
    let folder = shared("data/tokenizers/gpt2");
    let stem = folder.join("ggml-vocab-gpt-2.gguf");
    check_vectors(&gguf(&stem), &stem);
    check_vectors(&json(&folder.join("tokenizer.json")), &stem);
}

#[test]
#[ignore = "needs data/tokenizers of the shared data"]
fn llama_spm_matches_the_vectors() {
    let folder = shared("data/tokenizers/llama-spm");
    let stem = folder.join("ggml-vocab-llama-spm.gguf");
    check_vectors(&gguf(&stem), &stem);
}

#[test]
#[ignore = "needs data/tokenizers of the shared data"]
fn qwen2_matches_the_vectors() {
    let folder = shared("data/tokenizers/qwen2");
    check_vectors(&qwen2(&folder, &TokenizerConfig::default()), &folder.join("ggml-vocab-qwen2.gguf"));
}

/// Folder of the oracle's golden files, made once for all tests.
fn oracle() -> &'static Path {
    static ORACLE: OnceLock<PathBuf> = OnceLock::new();
    ORACLE.get_or_init(|| {
        let python = std::env::var_os("PITH_PYTHON")
            .expect("PITH_PYTHON names a Python with `tokenizers` and `sentencepiece`");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle");
        std::fs::create_dir_all(&out).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle.py");
        let status =
            Command::new(python).arg(script).arg("shared").arg(shared("")).arg(&out).status().unwrap();
        assert!(status.success(), "the oracle ended with {status}");
        out
    })
}

#[test]
#[ignore = "needs PITH_PYTHON, a Python with tokenizers and sentencepiece, and the shared data"]
fn tokenizer_json_files_match_the_oracle() {
    let oracle = oracle();
    for folder in [
        "data/tokenizers/gpt2",
        "data/tokenizers/phi-2",
        "data/tokenizers/smollm",
        "models/atlas",
        "models/stories260K",
    ] {
        let path = shared(&format!("{folder}/tokenizer.json"));
        let name = folder.rsplit('/').next().unwrap();
        check_golden(name, &json(&path), &oracle.join(format!("{name}.golden.json")), true, &[]);
    }
}

#[test]
#[ignore = "needs PITH_PYTHON, a Python with tokenizers and sentencepiece, and the shared data"]
fn qwen2_matches_the_oracle() {
    let (oracle, folder) = (oracle(), shared("data/tokenizers/qwen2"));
    let special = |id: u32, content: &str| AddedToken {
        id,
        content: content.into(),
        special: true,
        ..AddedToken::default()
    };
    let added_tokens = vec![
        special(151643, "<|endoftext|>"),
        special(151644, "<|im_start|>"),
        special(151645, "<|im_end|>"),
    ];
    let config = TokenizerConfig { added_tokens, ..TokenizerConfig::default() };
    check_golden("qwen2", &qwen2(&folder, &config), &oracle.join("qwen2.golden.json"), true, &[]);
}

#[test]
#[ignore = "needs PITH_PYTHON, a Python with tokenizers and sentencepiece, and the shared data"]
fn gguf_files_match_the_oracle_of_their_folders() {
    let oracle = oracle();
    // atlas' GGUF asks for a beginning-of-sequence token; its tokenizer.json does not.
    let files: [(_, _, &[u32]); 2] =
        [("atlas", "atlas-f16.gguf", &[0]), ("stories260K", "stories260K-f32.gguf", &[])];
    for (name, file, prefix) in files {
        let path = shared(&format!("models/{name}/{file}"));
        check_golden(file, &gguf(&path), &oracle.join(format!("{name}.golden.json")), true, prefix);
    }
}

#[test]
#[ignore = "needs PITH_PYTHON, a Python with tokenizers and sentencepiece, and the shared data"]
fn sentencepiece_models_with_a_character_map_match_the_oracle() {
    let oracle = oracle();
    for name in ["spm_bpe_nfkc", "spm_unigram_nfkc"] {
        let model = std::fs::read(oracle.join(format!("{name}.model"))).unwrap();
        let tokenizer = from_sentencepiece(&model, &TokenizerConfig::default()).unwrap();
        check_golden(name, &tokenizer, &oracle.join(format!("{name}.golden.json")), false, &[]);
    }
}

/// Prints the times quoted in the decision record; they depend on the machine's load and cannot
/// fail.
#[test]
#[ignore = "needs data/tokenizers and data/text of the shared data"]
fn qwen2_opens_from_its_blob_and_encodes_a_corpus() {
    let blob = qwen2(&shared("data/tokenizers/qwen2"), &TokenizerConfig::default()).to_blob();
    let start = Instant::now();
    let tokenizer = Tokenizer::from_blob(&blob).unwrap();
    println!("qwen2: blob {} bytes, opened in {:.1} ms", blob.len(), start.elapsed().as_secs_f64() * 1e3);
    assert!(tokenizer.vocab_len() > 151_000);
    let text = std::fs::read_to_string(shared("data/text/wiki.test.raw")).unwrap();
    let start = Instant::now();
    let ids = tokenizer.encode(&text, false).unwrap();
    let encode_s = start.elapsed().as_secs_f64();
    println!("qwen2: {} bytes encoded at {:.2} MB/s", text.len(), text.len() as f64 / 1e6 / encode_s);
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
}

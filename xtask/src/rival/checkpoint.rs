//! A random checkpoint as a GGUF file of f16, readable by Pith's converter and the rivals'
//! quantizers.
//!
//! Weights have mean 0 and deviation 0.02. They are drawn in the file's own order, so the rows of
//! query and key need no permutation: all readers of GGUF, Pith included, see the same model.

use super::gguf::Metadata;
use super::shape::{HEAD_DIM, Shape, Tensor};
use super::vocabulary::Vocabulary;
use anyhow::Context;
use half::f16;
use pith_format::{ReplaceOptions, Replacement};
use std::io::{BufWriter, Write};
use std::path::Path;

const ALIGNMENT: u64 = 32;
const DEVIATION: f32 = 0.02;
/// `general.file_type` of f16.
const MOSTLY_F16: u32 = 1;

/// Writes the checkpoint of `shape`; the same seed gives the same bytes.
pub fn write_checkpoint(path: &Path, shape: &Shape, seed: u64) -> anyhow::Result<()> {
    let place = || format!("cannot write {} of about {} bytes", path.display(), shape.checkpoint_bytes());
    let mut file = Replacement::create(path, ReplaceOptions::FORCE).with_context(place)?;
    write_all(&mut file, shape, seed).with_context(place)?;
    file.commit().with_context(place)
}

fn write_all(file: &mut Replacement, shape: &Shape, seed: u64) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    let tensors = shape.tensors();
    file.write_all(&head(shape, &tensors))?;
    for (index, tensor) in tensors.iter().enumerate() {
        write_tensor(&mut file, tensor, seed ^ (index as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95))?;
    }
    file.flush()
}

fn head(shape: &Shape, tensors: &[Tensor]) -> Vec<u8> {
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend(metadata(shape).into_bytes());
    let mut offset = 0u64;
    for tensor in tensors {
        super::gguf::put_text(&mut head, &tensor.name);
        // GGUF counts dimensions from the innermost.
        let dims = [tensor.cols as u64, tensor.rows as u64];
        let dims = if tensor.is_vector() { &dims[..1] } else { &dims[..] };
        head.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|dim| head.extend(dim.to_le_bytes()));
        // The types f32 and f16.
        head.extend(u32::from(!tensor.is_vector()).to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    head
}

fn metadata(shape: &Shape) -> Metadata {
    let mut keys = Metadata::default();
    let arch = shape.arch;
    let vocabulary = Vocabulary::new(shape.vocab_len);
    let last = shape.vocab_len as u32 - 1;
    keys.text("general.architecture", arch);
    keys.text("general.name", &format!("random weights like {}", shape.like));
    keys.u32("general.file_type", MOSTLY_F16);
    keys.u32("general.alignment", ALIGNMENT as u32);
    for (key, count) in [
        ("context_length", shape.context_len),
        ("embedding_length", shape.hidden_len),
        ("block_count", shape.layers),
        ("feed_forward_length", shape.ffn_len),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("rope.dimension_count", HEAD_DIM),
        ("vocab_size", shape.vocab_len),
    ] {
        keys.u32(&format!("{arch}.{key}"), count as u32);
    }
    keys.f32(&format!("{arch}.attention.layer_norm_rms_epsilon"), shape.norm_epsilon);
    keys.f32(&format!("{arch}.rope.freq_base"), shape.rope_base);
    keys.text("tokenizer.ggml.model", "gpt2");
    keys.text("tokenizer.ggml.pre", shape.pre_tokenizer);
    keys.texts("tokenizer.ggml.tokens", &vocabulary.words);
    keys.i32s("tokenizer.ggml.token_type", &vocabulary.kinds);
    keys.texts("tokenizer.ggml.merges", &vocabulary.merges);
    keys.u32("tokenizer.ggml.bos_token_id", last);
    keys.u32("tokenizer.ggml.eos_token_id", last);
    keys.flag("tokenizer.ggml.add_bos_token", false);
    keys
}

fn write_tensor(file: &mut impl Write, tensor: &Tensor, seed: u64) -> std::io::Result<()> {
    let mut draw = Draw(seed);
    let centre = if tensor.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
    let mut line = Vec::new();
    for _ in 0..tensor.rows {
        line.clear();
        for _ in 0..tensor.cols {
            let value = centre + DEVIATION * draw.normal();
            if tensor.is_vector() {
                line.extend(value.to_le_bytes());
            } else {
                line.extend(f16::from_f32(value).to_le_bytes());
            }
        }
        file.write_all(&line)?;
    }
    let padding = tensor.bytes().next_multiple_of(ALIGNMENT) - tensor.bytes();
    file.write_all(&[0; ALIGNMENT as usize][..padding as usize])
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Mean 0, deviation 1: the sum of four uniform numbers, nearly normal.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u32 = (0..4).map(|part| (bits >> (16 * part)) as u32 & 0xffff).sum();
        // Four uniform numbers on 0..1 have mean 2 and variance 4/12.
        (sum as f32 / 65536.0 - 2.0) * 3f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_the_mean_and_deviation_they_should() {
        let mut draw = Draw(7);
        let values: Vec<f64> = (0..1 << 16).map(|_| f64::from(draw.normal())).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64;
        // Five standard errors of a mean of 65536, and of a variance whose values have a kurtosis
        // below 3.
        assert!(mean.abs() < 5.0 / 256.0, "{mean}");
        assert!((variance - 1.0).abs() < 5.0 * 2f64.sqrt() / 256.0, "{variance}");
    }

    #[test]
    fn the_file_is_as_long_as_its_directory_says() {
        let shape = tiny();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write_checkpoint(&path, &shape, 1).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let head = head(&shape, &shape.tensors()).len() as u64;
        let body: u64 = shape.tensors().iter().map(|tensor| tensor.bytes().next_multiple_of(ALIGNMENT)).sum();
        assert_eq!(bytes.len() as u64, head + body);
        write_checkpoint(&path, &shape, 1).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        write_checkpoint(&path, &shape, 2).unwrap();
        assert_ne!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = write_checkpoint(Path::new("/nonexistent/x.gguf"), &tiny(), 1).unwrap_err();
        assert!(error.to_string().starts_with("cannot write /nonexistent/x.gguf"), "{error}");
    }

    fn tiny() -> Shape {
        Shape {
            name: "tiny",
            arch: "llama",
            like: "nothing",
            hidden_len: 64,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            ffn_len: 96,
            vocab_len: 300,
            context_len: 128,
            rope_base: 1e4,
            norm_epsilon: 1e-5,
            pre_tokenizer: "gpt-2",
            biases: true,
        }
    }
}

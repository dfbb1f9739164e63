//! The head that a tool reads for a token's logits. Every comparison states it, because the heads
//! of large vocabularies are a third of a small model's bytes.

use anyhow::Context;
use serde::Serialize;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// The head of a file, and the method of computing logits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Head {
    /// Encoding, or two joined by + for a head with a residual matrix.
    pub encoding: String,
    pub bits_per_weight: f64,
    /// `exact`, or the name of an approximation.
    pub logits: String,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {:.1} bits, {}", self.encoding, self.bits_per_weight, self.logits)
    }
}

/// Names of ggml's types, including those of ik_llama.cpp.
const TYPES: [(u32, &str); 20] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (6, "Q5_0"),
    (7, "Q5_1"),
    (8, "Q8_0"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (20, "IQ4_NL"),
    (23, "IQ4_XS"),
    (30, "BF16"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (134, "IQ1_BN"),
    (135, "IQ2_BN"),
];

/// Upper limit of any key, name or number of dimensions in a file.
const MOST_TEXT: u64 = 1 << 20;

struct Tensor {
    name: String,
    weights: u64,
    kind: u32,
    offset: u64,
}

/// The head of a GGUF file, from which llama.cpp and its kin compute exact logits: `output.weight`,
/// or the tied embedding. Its bits follow from the offset of the next tensor.
pub fn of_gguf(path: &Path) -> anyhow::Result<Head> {
    let place = || path.display().to_string();
    let file = File::open(path).with_context(place)?;
    let file_bytes = file.metadata().with_context(place)?.len();
    let mut reader = Reader { file: BufReader::new(file), position: 0 };
    let (tensors, data_start) = reader.tensors().with_context(place)?;
    let named = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
    let head = named("output.weight").or_else(|| named("token_embd.weight"));
    let head =
        head.with_context(|| format!("{} has neither output.weight nor token_embd.weight", place()))?;
    let behind = tensors.iter().map(|tensor| tensor.offset).filter(|offset| *offset > head.offset).min();
    let end = behind.unwrap_or(file_bytes.saturating_sub(data_start));
    let name = TYPES.iter().find(|(kind, _)| *kind == head.kind);
    Ok(Head {
        encoding: name.map_or_else(|| format!("type {}", head.kind), |(_, name)| name.to_string()),
        bits_per_weight: 8.0 * end.saturating_sub(head.offset) as f64 / head.weights.max(1) as f64,
        logits: "exact".into(),
    })
}

/// Reads a GGUF header from its start.
struct Reader {
    file: BufReader<File>,
    position: u64,
}

impl Reader {
    /// All tensors, and the start of their data.
    fn tensors(&mut self) -> anyhow::Result<(Vec<Tensor>, u64)> {
        anyhow::ensure!(self.bytes(4)? == b"GGUF", "it is no GGUF file");
        let version = self.u32()?;
        anyhow::ensure!((2..=3).contains(&version), "GGUF version is {version}, expected 2 or 3");
        let (tensor_count, pair_count) = (self.u64()?, self.u64()?);
        let mut alignment = 32;
        for _ in 0..pair_count {
            let (key, kind) = (self.text()?, self.u32()?);
            if key == "general.alignment" && kind == 4 {
                alignment = u64::from(self.u32()?).max(1);
            } else {
                self.skip_value(kind)?;
            }
        }
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            let (name, dimensions) = (self.text()?, self.u32()?);
            anyhow::ensure!(dimensions <= 8, "{name} has {dimensions} dimensions");
            let mut weights = 1u64;
            for _ in 0..dimensions {
                weights = weights.saturating_mul(self.u64()?);
            }
            tensors.push(Tensor { name, weights, kind: self.u32()?, offset: self.u64()? });
        }
        Ok((tensors, self.position.next_multiple_of(alignment)))
    }

    fn skip_value(&mut self, kind: u32) -> anyhow::Result<()> {
        let bytes = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => return self.text().map(drop),
            9 => {
                let (kind, count) = (self.u32()?, self.u64()?);
                return (0..count).try_for_each(|_| self.skip_value(kind));
            }
            _ => anyhow::bail!("a value has the type {kind}"),
        };
        self.bytes(bytes).map(drop)
    }

    fn text(&mut self) -> anyhow::Result<String> {
        let length = self.u64()?;
        anyhow::ensure!(length <= MOST_TEXT, "a text of {length} bytes");
        Ok(String::from_utf8_lossy(&self.bytes(length)?).into_owned())
    }

    fn u32(&mut self) -> anyhow::Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(4)?.try_into().expect("4 bytes were read")))
    }

    fn u64(&mut self) -> anyhow::Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(8)?.try_into().expect("8 bytes were read")))
    }

    fn bytes(&mut self, count: u64) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize];
        self.file.read_exact(&mut bytes).context("the header ends early")?;
        self.position += count;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::write_checkpoint;
    use super::super::shape::Shape;
    use super::*;

    /// A small shape with the tied head of all shapes.
    fn small() -> Shape {
        Shape {
            name: "small",
            hidden_len: 64,
            layers: 1,
            heads: 1,
            kv_heads: 1,
            ffn_len: 64,
            ..*Shape::named("135m").unwrap()
        }
    }

    #[test]
    fn a_tied_head_is_the_embedding_with_its_bits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        write_checkpoint(&path, &small(), 1).unwrap();
        let head = of_gguf(&path).unwrap();
        assert_eq!(head.to_string(), "F16, 16.0 bits, exact");
    }

    #[test]
    fn what_is_no_gguf_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        for (bytes, problem) in
            [(&b"GGUF"[..], "ends early"), (b"GGML0000", "no GGUF file"), (b"GGUF\x09\0\0\0", "version is 9")]
        {
            std::fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", of_gguf(&path).unwrap_err());
            assert!(error.contains("x.gguf") && error.contains(problem), "{error}");
        }
    }
}

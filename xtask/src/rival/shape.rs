//! Shapes of published models, filled with random weights.

/// A decoder with 64 dimensions per head and a tied embedding.
#[derive(Debug, PartialEq)]
pub struct Shape {
    /// Name on the command line.
    pub name: &'static str,
    /// Architecture in GGUF.
    pub arch: &'static str,
    /// The published model of this shape.
    pub like: &'static str,
    pub hidden_len: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub ffn_len: usize,
    pub vocab_len: usize,
    pub context_len: usize,
    pub rope_base: f32,
    pub norm_epsilon: f32,
    /// Pre-tokenizer in GGUF.
    pub pre_tokenizer: &'static str,
    /// Whether query, key and value have biases.
    pub biases: bool,
}

/// Dimensions per head.
pub const HEAD_DIM: usize = 64;

/// From the smallest to the largest.
pub const SHAPES: [Shape; 3] = [
    Shape {
        name: "135m",
        arch: "llama",
        like: "SmolLM2-135M",
        hidden_len: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        ffn_len: 1536,
        vocab_len: 49152,
        context_len: 8192,
        rope_base: 1e5,
        norm_epsilon: 1e-5,
        pre_tokenizer: "gpt-2",
        biases: false,
    },
    Shape {
        name: "0.5b",
        arch: "qwen2",
        like: "Qwen2.5-0.5B",
        hidden_len: 896,
        layers: 24,
        heads: 14,
        kv_heads: 2,
        ffn_len: 4864,
        vocab_len: 151_936,
        context_len: 32768,
        rope_base: 1e6,
        norm_epsilon: 1e-6,
        pre_tokenizer: "qwen2",
        biases: true,
    },
    Shape {
        name: "1.2b",
        arch: "llama",
        like: "Llama-3.2-1B",
        hidden_len: 2048,
        layers: 16,
        heads: 32,
        kv_heads: 8,
        ffn_len: 8192,
        vocab_len: 128_256,
        context_len: 131_072,
        rope_base: 5e5,
        norm_epsilon: 1e-5,
        pre_tokenizer: "llama-bpe",
        biases: false,
    },
];

/// A tensor of the checkpoint: name in GGUF, rows (1 for a vector) and columns.
#[derive(Debug, PartialEq)]
pub struct Tensor {
    pub name: String,
    pub rows: usize,
    pub cols: usize,
}

impl Tensor {
    /// Norms and biases are one row of f32, matrices are f16.
    pub fn is_vector(&self) -> bool {
        self.rows == 1
    }

    pub fn bytes(&self) -> u64 {
        (self.rows * self.cols * if self.is_vector() { 4 } else { 2 }) as u64
    }
}

impl Shape {
    /// The shape of that name.
    pub fn named(name: &str) -> anyhow::Result<&'static Shape> {
        SHAPES.iter().find(|shape| shape.name == name).ok_or_else(|| {
            let known: Vec<_> = SHAPES.iter().map(|shape| shape.name).collect();
            anyhow::anyhow!("unknown shape {name:?}, expected one of {}", known.join(", "))
        })
    }

    /// Every tensor, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<Tensor> {
        let (queries, keys) = (self.heads * HEAD_DIM, self.kv_heads * HEAD_DIM);
        let mut list = Vec::new();
        let mut add = |name: String, rows, cols| list.push(Tensor { name, rows, cols });
        add("token_embd.weight".into(), self.vocab_len, self.hidden_len);
        for layer in 0..self.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            add(name("attn_norm.weight"), 1, self.hidden_len);
            for (letter, rows) in [("q", queries), ("k", keys), ("v", keys)] {
                add(name(&format!("attn_{letter}.weight")), rows, self.hidden_len);
                if self.biases {
                    add(name(&format!("attn_{letter}.bias")), 1, rows);
                }
            }
            add(name("attn_output.weight"), self.hidden_len, queries);
            add(name("ffn_norm.weight"), 1, self.hidden_len);
            add(name("ffn_gate.weight"), self.ffn_len, self.hidden_len);
            add(name("ffn_up.weight"), self.ffn_len, self.hidden_len);
            add(name("ffn_down.weight"), self.hidden_len, self.ffn_len);
        }
        add("output_norm.weight".into(), 1, self.hidden_len);
        list
    }

    /// Weights that every prompt token is multiplied with: the matrices of the layers. Only a
    /// prompt's last token uses the head.
    pub fn body_weights(&self) -> u64 {
        let matrices = self.tensors().into_iter().filter(|tensor| tensor.name.starts_with("blk."));
        matrices.filter(|tensor| !tensor.is_vector()).map(|tensor| (tensor.rows * tensor.cols) as u64).sum()
    }

    /// Bytes of the f16 checkpoint.
    pub fn checkpoint_bytes(&self) -> u64 {
        self.tensors().iter().map(Tensor::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_published_models() {
        let weights = |name: &str| {
            let shape = Shape::named(name).unwrap();
            shape.body_weights() + (shape.vocab_len * shape.hidden_len) as u64
        };
        assert_eq!(weights("135m"), 106_168_320 + 28_311_552);
        assert_eq!(weights("1.2b"), 973_078_528 + 262_668_288);
        assert_eq!(weights("0.5b"), 357_826_560 + 136_134_656);
    }

    #[test]
    fn an_unknown_shape_is_named_with_the_known_ones() {
        let error = Shape::named("7b").unwrap_err().to_string();
        assert_eq!(error, "unknown shape \"7b\", expected one of 135m, 0.5b, 1.2b");
    }
}

//! The table of storage types: names, identifiers, block sizes, decoders.

use pith_format::Encoding;

use super::decode::codes::{CodeBlocks, Unpack};
use super::decode::{blocks, codebooks, k_quants, packed, plain};

/// Decodes whole blocks: `bytes` holds `n` blocks, `out` receives `n · block_len` values.
pub(crate) type Decode = fn(bytes: &[u8], out: &mut [f32]);

/// How the values of a type are read.
#[derive(Clone, Copy)]
enum Reader {
    Values(Decode),
    Codes(CodeBlocks),
}

use Reader::Values;

/// Blocks of the codes of an encoding.
const fn codes(encoding: Encoding, unpack: Unpack) -> Option<Reader> {
    Some(Reader::Codes(CodeBlocks { encoding, unpack }))
}

struct Row {
    name: &'static str,
    ggml_id: Option<u32>,
    safetensors: bool,
    block_len: usize,
    block_bytes: usize,
    reader: Option<Reader>,
}

macro_rules! source_types {
    ($($variant:ident $name:literal $ggml:expr, $safetensors:literal, $len:literal, $bytes:literal, $reader:expr;)*) => {
        /// Storage type of a tensor in its file.
        ///
        /// Types without a decoder can be listed, sized and read raw, but not loaded.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum SourceType { $(#[doc = concat!("`", $name, "`: ", $len, " values in ", $bytes, " bytes.")] $variant),* }

        impl SourceType {
            /// All types, in the table's order.
            pub const ALL: &'static [SourceType] = &[$(SourceType::$variant),*];

            fn row(self) -> &'static Row {
                match self { $(SourceType::$variant => const { &Row {
                    name: $name, ggml_id: $ggml, safetensors: $safetensors,
                    block_len: $len, block_bytes: $bytes, reader: $reader,
                } }),* }
            }
        }
    };
}

source_types! {
//  variant  name       ggml id   safetensors values bytes decoder
    F32      "F32"      Some(0),  true,  1,   4,   Some(Values(plain::f32));
    F16      "F16"      Some(1),  true,  1,   2,   Some(Values(plain::f16));
    Bf16     "BF16"     Some(30), true,  1,   2,   Some(Values(plain::bf16));
    Q4_0     "Q4_0"     Some(2),  false, 32,  18,  codes(Encoding::Q4, blocks::q4_0);
    Q4_1     "Q4_1"     Some(3),  false, 32,  20,  codes(Encoding::Q41, blocks::q4_1);
    Q5_0     "Q5_0"     Some(6),  false, 32,  22,  codes(Encoding::Q50, blocks::q5_0);
    Q5_1     "Q5_1"     Some(7),  false, 32,  24,  codes(Encoding::Q51, blocks::q5_1);
    Q8_0     "Q8_0"     Some(8),  false, 32,  34,  codes(Encoding::Q8, blocks::q8_0);
    Iq4Nl    "IQ4_NL"   Some(20), false, 32,  18,  codes(Encoding::Iq4Nl, blocks::iq4_nl);
    Q2K      "Q2_K"     Some(10), false, 256, 84,  codes(Encoding::Q2K, k_quants::q2_k);
    Q3K      "Q3_K"     Some(11), false, 256, 110, codes(Encoding::Q3K, k_quants::q3_k);
    Q4K      "Q4_K"     Some(12), false, 256, 144, codes(Encoding::Q4K, k_quants::q4_k);
    Q5K      "Q5_K"     Some(13), false, 256, 176, codes(Encoding::Q5K, k_quants::q5_k);
    Q6K      "Q6_K"     Some(14), false, 256, 210, codes(Encoding::Q6K, k_quants::q6_k);
    Iq4Xs    "IQ4_XS"   Some(23), false, 256, 136, codes(Encoding::Iq4Xs, k_quants::iq4_xs);
    // An assembled matrix of a quantized checkpoint: an f32 scale and an i16 code for each value.
    Packed   "PACKED"   None,     false, 1,   6,   Some(Values(packed::decode));
    F64      "F64"      Some(28), true,  1,   8,   None;
    I64      "I64"      Some(27), true,  1,   8,   None;
    I32      "I32"      Some(26), true,  1,   4,   None;
    I16      "I16"      Some(25), true,  1,   2,   None;
    I8       "I8"       Some(24), true,  1,   1,   None;
    U64      "U64"      None,     true,  1,   8,   None;
    U32      "U32"      None,     true,  1,   4,   None;
    U16      "U16"      None,     true,  1,   2,   None;
    U8       "U8"       None,     true,  1,   1,   None;
    Bool     "BOOL"     None,     true,  1,   1,   None;
    C64      "C64"      None,     true,  1,   8,   None;
    F8E4m3   "F8_E4M3"  None,     true,  1,   1,   None;
    F8E5m2   "F8_E5M2"  None,     true,  1,   1,   None;
    F8E8m0   "F8_E8M0"  None,     true,  1,   1,   None;
    F6E2m3   "F6_E2M3"  None,     true,  4,   3,   None;
    F6E3m2   "F6_E3M2"  None,     true,  4,   3,   None;
    F4       "F4"       None,     true,  2,   1,   None;
    Q8_1     "Q8_1"     Some(9),  false, 32,  36,  None;
    Q8K      "Q8_K"     Some(15), false, 256, 292, None;
    Iq2Xxs   "IQ2_XXS"  Some(16), false, 256, 66,  Some(Values(codebooks::iq2_xxs));
    Iq2Xs    "IQ2_XS"   Some(17), false, 256, 74,  Some(Values(codebooks::iq2_xs));
    Iq3Xxs   "IQ3_XXS"  Some(18), false, 256, 98,  Some(Values(codebooks::iq3_xxs));
    Iq1S     "IQ1_S"    Some(19), false, 256, 50,  Some(Values(codebooks::iq1_s));
    Iq3S     "IQ3_S"    Some(21), false, 256, 110, codes(Encoding::Q6K, codebooks::iq3_s);
    Iq2S     "IQ2_S"    Some(22), false, 256, 82,  Some(Values(codebooks::iq2_s));
    Iq1M     "IQ1_M"    Some(29), false, 256, 56,  Some(Values(codebooks::iq1_m));
    Tq1_0    "TQ1_0"    Some(34), false, 256, 54,  codes(Encoding::Tq1, k_quants::tq1_0);
    Tq2_0    "TQ2_0"    Some(35), false, 256, 66,  codes(Encoding::Tq2, k_quants::tq2_0);
    Mxfp4    "MXFP4"    Some(39), false, 32,  17,  codes(Encoding::Mxfp4, blocks::mxfp4);
    Nvfp4    "NVFP4"    Some(40), false, 64,  36,  Some(Values(blocks::nvfp4));
    Q1_0     "Q1_0"     Some(41), false, 128, 18,  codes(Encoding::Ternary, blocks::q1_0);
    Q2_0     "Q2_0"     Some(42), false, 64,  18,  codes(Encoding::Q4G64, blocks::q2_0);
}

impl SourceType {
    /// The name in the file formats.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Values per block; 1 for plain numbers.
    pub fn block_len(self) -> usize {
        self.row().block_len
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        self.row().block_bytes
    }

    /// Whether tensors of this type can be loaded as f32.
    pub fn is_loadable(self) -> bool {
        self.row().reader.is_some()
    }

    /// Decodes whole blocks; `None` where the type cannot be loaded.
    ///
    /// Panics unless `bytes` is a whole number of blocks and `out` has exactly the length of their
    /// values.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) -> Option<()> {
        let reader = self.row().reader?;
        assert_eq!(bytes.len() % self.block_bytes(), 0, "{self}: bytes are not whole blocks");
        assert_eq!(bytes.len() / self.block_bytes() * self.block_len(), out.len(), "{self}: output length");
        match reader {
            Values(decode) => decode(bytes, out),
            Reader::Codes(codes) => codes.decode(bytes, self.block_bytes(), self.block_len(), out),
        }
        Some(())
    }

    /// The encoding that holds the blocks' codes; `None` for types without such.
    pub(crate) fn code_blocks(self) -> Option<CodeBlocks> {
        match self.row().reader? {
            Reader::Codes(codes) => Some(codes),
            Values(_) => None,
        }
    }

    /// The type with this `id` in GGUF files.
    pub fn from_ggml_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.row().ggml_id == Some(id))
    }

    /// The type with this `name` in safetensors headers.
    pub fn from_safetensors_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.row().safetensors && t.row().name == name)
    }

    /// The names of all loadable types, for messages.
    pub fn loadable_names() -> String {
        let names: Vec<_> = Self::ALL.iter().filter(|t| t.is_loadable()).map(|t| t.name()).collect();
        names.join(", ")
    }

    /// Bytes of `elements` values; `None` on overflow, or if they are not whole blocks.
    pub(crate) fn bytes_of(self, elements: u64) -> Option<u64> {
        let block_len = self.block_len() as u64;
        let blocks = elements.is_multiple_of(block_len).then_some(elements / block_len)?;
        blocks.checked_mul(self.block_bytes() as u64)
    }
}

impl std::fmt::Display for SourceType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_identifiers_are_unique_and_found_again() {
        for &t in SourceType::ALL {
            assert_eq!(SourceType::ALL.iter().filter(|u| u.name() == t.name()).count(), 1, "{t}");
            if let Some(id) = t.row().ggml_id {
                assert_eq!(SourceType::from_ggml_id(id), Some(t));
            }
            assert_eq!(SourceType::from_safetensors_name(t.name()), t.row().safetensors.then_some(t));
        }
        assert_eq!(SourceType::from_ggml_id(4), None);
        assert_eq!(SourceType::from_safetensors_name("Q4_0"), None);
    }

    #[test]
    fn a_part_of_a_block_has_no_size() {
        assert_eq!(SourceType::Q4K.bytes_of(512), Some(288));
        assert_eq!(SourceType::Q4K.bytes_of(100), None);
        assert_eq!(SourceType::F32.bytes_of(u64::MAX), None);
    }
}

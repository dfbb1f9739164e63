//! The named pre-tokenizers of GGUF files, as llama.cpp and the models' own `tokenizer.json` define them.

use crate::TokenizerError;
use crate::pipeline::GPT2;
use crate::recipe::{self, Behavior, Normalizer, Pattern};

/// How a byte-level BPE model splits text before it merges bytes.
#[derive(Clone, Copy, Debug)]
pub struct PreTokenizer(&'static Named);

#[derive(Debug)]
struct Named {
    names: &'static [&'static str],
    /// Applied one after the other; every match and every stretch between two is a piece.
    patterns: &'static [&'static str],
    ignore_merges: bool,
    add_bos: bool,
}

impl PreTokenizer {
    /// GPT-2's.
    pub fn gpt2() -> Self {
        Self::named("gpt-2").expect("it is in the table")
    }

    /// Qwen2's, whose Hugging Face form also composes characters (NFC).
    pub fn qwen2() -> Self {
        Self::named("qwen2").expect("it is in the table")
    }

    /// The one with this name in `tokenizer.ggml.pre`; an unknown name gives an error that lists the known ones.
    pub fn named(name: &str) -> Result<Self, TokenizerError> {
        TABLE.iter().find(|named| named.names.contains(&name)).map(Self).ok_or_else(|| {
            let known: Vec<&str> = Self::names().collect();
            TokenizerError::PreTokenizer { found: name.chars().take(100).collect(), known: known.join(", ") }
        })
    }

    /// Every known name.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().flat_map(|named| named.names).copied()
    }

    pub(super) fn ignore_merges(&self) -> bool {
        self.0.ignore_merges
    }

    pub(super) fn add_bos(&self) -> bool {
        self.0.add_bos
    }

    pub(super) fn normalizer(&self) -> Option<Normalizer> {
        self.0.names.contains(&"qwen2").then_some(Normalizer::Nfc)
    }

    pub(super) fn splits(&self) -> recipe::PreTokenizer {
        let splits = self.0.patterns.iter().map(|pattern| recipe::PreTokenizer::Split {
            pattern: Pattern::Regex((*pattern).into()),
            behavior: Behavior::Isolated,
            invert: false,
        });
        let bytes = recipe::PreTokenizer::ByteLevel { add_prefix_space: false, use_regex: false };
        recipe::PreTokenizer::Sequence { pretokenizers: splits.chain([bytes]).collect() }
    }
}

const fn plain(names: &'static [&'static str], patterns: &'static [&'static str]) -> Named {
    Named { names, patterns, ignore_merges: false, add_bos: false }
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const CJK: &str = "[一-龥ࠀ-一가-퟿]+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

static TABLE: [Named; 21] = [
    plain(&["default"], &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    plain(
        &[
            "gpt-2",
            "phi-2",
            "olmo",
            "mpt",
            "jais",
            "trillion",
            "exaone4",
            "granite-docling",
            "gigachat",
            "mellum",
            "modern-bert",
            "jina-es",
            "jina-de",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v1-en",
            "jina-v2-code",
            "roberta-bpe",
            "a.x-4.0",
        ],
        &[GPT2],
    ),
    Named {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    plain(&["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], &[LLAMA3]),
    plain(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "stablelm2",
            "megrez",
            "hunyuan",
            "kormo",
            "solar-open",
            "grok-2",
            "f2llmv2",
        ],
        &[QWEN2],
    ),
    plain(&["qwen35"], &[QWEN35]),
    plain(
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        &[r"\p{N}", GPT2],
    ),
    plain(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    plain(
        &["deepseek-llm"],
        &["[\r\n]", DEEPSEEK_LETTERS, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CJK, r"\p{N}+"],
    ),
    plain(&["deepseek-coder"], &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"]),
    plain(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
    ),
    Named { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    plain(&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O]),
    plain(&["tiny_aya", "cohere2moe"], &[r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O]),
    plain(&["superbpe"], &[r"\p{N}+", r"(?=(\d{3})+(?!\d))"]),
    plain(
        &["bailingmoe", "bailingmoe2", "llada-moe"],
        &[
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
    ),
    plain(
        &["seed-coder"],
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    plain(
        &["exaone-moe"],
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        ],
    ),
    plain(&["bloom", "gpt3-finnish", "poro-chat"], &[BLOOM]),
    plain(&["viking"], &[BLOOM, r"\p{N}"]),
    Named { names: &["minicpm5"], patterns: &[r"\p{N}{1,3}", LLAMA3], ignore_merges: true, add_bos: false },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_compiles_and_no_name_stands_twice() {
        for pattern in TABLE.iter().flat_map(|named| named.patterns) {
            crate::pattern::Pattern::new(&Pattern::Regex((*pattern).into()), false).unwrap();
        }
        let mut names: Vec<_> = PreTokenizer::names().collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn unknown_name_lists_the_known_ones() {
        let message = PreTokenizer::named("nope").unwrap_err().to_string();
        assert!(message.contains("`nope`") && message.contains("qwen2") && message.contains("llama-bpe"));
    }
}

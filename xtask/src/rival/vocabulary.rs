//! A byte-level vocabulary with invented merges: loaders require one, though no text is tokenized.

/// GGUF's kinds of token.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// The bytes, then pairs and triples of letters and digits, and one control token at the end.
pub struct Vocabulary {
    /// One per token.
    pub words: Vec<String>,
    /// One per token.
    pub kinds: Vec<i32>,
    /// `left right`, in order of application.
    pub merges: Vec<String>,
}

impl Vocabulary {
    /// A vocabulary of 257 tokens or more; pairs and triples run out at 242,429.
    pub fn new(length: usize) -> Self {
        let letters: Vec<char> = ('0'..='9').chain('A'..='Z').chain('a'..='z').collect();
        let append = |left: &str| -> Vec<(String, char)> {
            letters.iter().map(|&right| (left.to_string(), right)).collect()
        };
        let pairs: Vec<(String, char)> =
            letters.iter().flat_map(|letter| append(&letter.to_string())).collect();
        let triples = pairs.iter().flat_map(|(left, right)| append(&format!("{left}{right}")));

        let mut words: Vec<String> = byte_letters().iter().map(char::to_string).collect();
        let mut merges = Vec::new();
        let room = length - 1 - words.len();
        for (left, right) in pairs.iter().cloned().chain(triples).take(room) {
            words.push(format!("{left}{right}"));
            merges.push(format!("{left} {right}"));
        }
        let mut kinds = vec![NORMAL; words.len()];
        words.push("<|end|>".into());
        kinds.push(CONTROL);
        assert_eq!(words.len(), length, "more tokens than pairs and triples");
        Self { words, kinds, merges }
    }
}

/// The letter for each byte in a byte-level vocabulary: the byte itself if printable, else a letter
/// from U+0100 on.
fn byte_letters() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte as u8),
        _ => {
            next += 1;
            char::from_u32(next - 1).expect("a letter of Latin Extended-A")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn words_are_distinct_and_every_merge_gives_one() {
        for length in [257, 49152, 151_936] {
            let vocabulary = Vocabulary::new(length);
            assert_eq!((vocabulary.words.len(), vocabulary.kinds.len()), (length, length));
            let known: HashSet<&str> = vocabulary.words.iter().map(String::as_str).collect();
            assert_eq!(known.len(), length);
            for merge in &vocabulary.merges {
                let (left, right) = merge.split_once(' ').unwrap();
                assert!(known.contains(left) && known.contains(right));
                assert!(known.contains(merge.replace(' ', "").as_str()));
            }
        }
    }
}

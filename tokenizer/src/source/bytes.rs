//! Two spellings of raw bytes in vocabularies.

use std::collections::HashMap;
use std::sync::LazyLock;

/// GPT-2's alphabet: a printable character for every byte, which makes a vocabulary valid text.
static ALPHABET: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let mut others = 256u32..;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (char::from(byte), byte),
            _ => {
                let code = others.next().expect("an open range");
                (char::from_u32(code).expect("below 512"), byte)
            }
        })
        .collect()
});

/// The bytes of a byte-level token; `None` if a character is not in the alphabet.
pub(super) fn from_alphabet(token: &str) -> Option<Vec<u8>> {
    token.chars().map(|character| ALPHABET.get(&character).copied()).collect()
}

/// The byte of a token such as `<0x0A>`.
pub(super) fn from_hex(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let valid = digits.len() == 2 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    if valid { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alphabet_covers_every_byte_once() {
        let mut bytes: Vec<u8> = ALPHABET.values().copied().collect();
        bytes.sort_unstable();
        assert!(bytes.into_iter().eq(0..=255));
        assert_eq!(from_alphabet("ĠaĊ").unwrap(), b" a\n");
        assert_eq!(from_alphabet("é").unwrap(), [0xe9]);
        assert_eq!(from_alphabet(" "), None);
    }

    #[test]
    fn only_two_capital_digits_are_a_byte() {
        assert_eq!(from_hex("<0x0A>"), Some(10));
        for token in ["<0x0a>", "<0xA>", "<0x+A>", "<0x0A", "0x0A", "<0x00A>"] {
            assert_eq!(from_hex(token), None);
        }
    }
}

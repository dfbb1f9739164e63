//! sentencepiece's normalization table, and two ways to apply it.
//!
//! The table is a double array over UTF-8 bytes (a unit holds a label, an offset and a leaf mark),
//! followed by the replacements, each ended by a zero byte. Every index is checked, since it comes
//! from a file.

use unicode_segmentation::UnicodeSegmentation;

use crate::TokenizerError;

const PLACE: &str = "precompiled character map";

/// A checked character map; an empty one maps nothing.
#[derive(Default)]
pub(crate) struct CharsMap {
    units: Vec<u32>,
    replacements: String,
}

impl CharsMap {
    /// Reads the map from base64, as `tokenizer.json` holds it.
    pub fn from_base64(text: &str) -> Result<Self, TokenizerError> {
        let bytes = base64::decode(text).map_err(|error| TokenizerError::malformed(PLACE, error))?;
        Self::from_bytes(&bytes)
    }

    /// Reads the map: the double array's length in bytes, the array, the replacements.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let Some((len, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(TokenizerError::malformed(
                PLACE,
                format!("it has {} bytes, at least 4 expected", bytes.len()),
            ));
        };
        let array_bytes = u32::from_le_bytes(*len) as usize;
        if array_bytes > rest.len() || !array_bytes.is_multiple_of(4) {
            let reason = format!("its array has {array_bytes} bytes, {} follow", rest.len());
            return Err(TokenizerError::malformed(PLACE, reason));
        }
        let (array, replacements) = rest.split_at(array_bytes);
        let units = array.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        let replacements = String::from_utf8(replacements.to_vec())
            .map_err(|error| TokenizerError::malformed(PLACE, error))?;
        Ok(Self { units, replacements })
    }

    /// Every key that is a prefix of `text`, shortest first: its length in bytes and its
    /// replacement.
    fn prefixes<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
        let mut position = self.units.first().map(|unit| offset(*unit));
        text.bytes()
            .enumerate()
            .map_while(move |(index, byte)| {
                let node = position? ^ byte as usize;
                let unit = *self.units.get(node)?;
                if byte == 0 || unit & (1 << 31 | 0xff) != u32::from(byte) {
                    return None;
                }
                let next = node ^ offset(unit);
                position = Some(next);
                let leaf = (unit >> 8 & 1 == 1).then(|| self.units.get(next)).flatten();
                Some(
                    leaf.and_then(|leaf| self.replacement(*leaf & 0x7fff_ffff)).map(|text| (index + 1, text)),
                )
            })
            .flatten()
    }

    fn replacement(&self, start: u32) -> Option<&str> {
        let text = self.replacements.get(start as usize..)?;
        Some(text.split('\0').next().unwrap_or(text))
    }

    /// Replaces graphemes, then characters, as Hugging Face applies the map.
    pub fn replace_graphemes(&self, text: &str) -> String {
        let mut output = String::with_capacity(text.len());
        for grapheme in text.graphemes(true) {
            let whole = if grapheme.len() < 6 { self.prefixes(grapheme).next() } else { None };
            if let Some((_, replacement)) = whole {
                output.push_str(replacement);
                continue;
            }
            for (start, character) in grapheme.char_indices() {
                let part = &grapheme[start..start + character.len_utf8()];
                match self.prefixes(part).next() {
                    Some((_, replacement)) => output.push_str(replacement),
                    None => output.push(character),
                }
            }
        }
        output
    }

    /// The longest key that is a prefix of `text`: its length and replacement. Without one, the
    /// first character itself.
    pub fn longest<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        self.prefixes(text).filter(|(len, _)| text.is_char_boundary(*len)).last().unwrap_or_else(|| {
            let len = text.chars().next().map_or(0, char::len_utf8);
            (len, &text[..len])
        })
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & 1 << 9) >> 6)) as usize
}

/// sentencepiece's normalizer: the map, then its rules for spaces.
pub(crate) struct SpmNormalizer {
    pub map: CharsMap,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
    pub escape_whitespaces: bool,
    pub treat_whitespace_as_suffix: bool,
    /// Symbols that the map leaves alone.
    pub frozen: Frozen,
}

impl SpmNormalizer {
    pub fn normalize(&self, text: &str) -> String {
        let space = if self.escape_whitespaces { "▁" } else { " " };
        let mut rest = text;
        if self.remove_extra_whitespaces {
            while let (len @ 1.., " ") = self.next(rest) {
                rest = &rest[len..];
            }
        }
        if rest.is_empty() {
            return String::new();
        }
        let mut output = String::with_capacity(text.len() + 8);
        if self.add_dummy_prefix && !self.treat_whitespace_as_suffix {
            output.push_str(space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (len, mut part) = self.next(rest);
            if after_space {
                part = part.trim_start_matches(' ');
            }
            for character in part.chars() {
                match character {
                    ' ' => output.push_str(space),
                    _ => output.push(character),
                }
            }
            if !part.is_empty() {
                after_space = part.ends_with(' ');
            }
            after_space &= self.remove_extra_whitespaces;
            rest = &rest[len..];
        }
        if self.remove_extra_whitespaces {
            while output.ends_with(space) {
                output.truncate(output.len() - space.len());
            }
        }
        if self.add_dummy_prefix && self.treat_whitespace_as_suffix {
            output.push_str(space);
        }
        output
    }

    fn next<'a>(&'a self, text: &'a str) -> (usize, &'a str) {
        match self.frozen.longest(text) {
            Some(symbol) => (symbol.len(), symbol),
            None => self.map.longest(text),
        }
    }
}

/// Symbols that stay unchanged, by first byte, longest first.
pub(crate) struct Frozen(Vec<Vec<String>>);

impl Frozen {
    pub fn new(symbols: &[String]) -> Self {
        let mut by_byte = vec![Vec::new(); 256];
        for symbol in symbols.iter().filter(|symbol| !symbol.is_empty()) {
            by_byte[symbol.as_bytes()[0] as usize].push(symbol.clone());
        }
        by_byte.iter_mut().for_each(|symbols| symbols.sort_by_key(|symbol| std::cmp::Reverse(symbol.len())));
        Self(by_byte)
    }

    fn longest(&self, text: &str) -> Option<&str> {
        let candidates = &self.0[*text.as_bytes().first()? as usize];
        candidates.iter().map(String::as_str).find(|symbol| text.starts_with(symbol))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map with one key, `A` to `b c`: unit 0 leads to the children at 256, the key's leaf is at
    /// 512.
    fn map() -> CharsMap {
        let mut units = vec![0u32; 1024];
        units[0] = 256 << 10;
        let node = 256 ^ b'A' as usize;
        units[node] = u32::from(b'A') | 1 << 8 | ((node ^ 512) as u32) << 10;
        units[512] = 1 << 31;
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        units.iter().for_each(|unit| bytes.extend(unit.to_le_bytes()));
        bytes.extend(b"b c\0");
        CharsMap::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn mapped_text_is_replaced_and_other_text_stays() {
        assert_eq!(map().replace_graphemes("xAé A"), "xb cé b c");
        assert_eq!(map().longest("Az"), (1, "b c"));
        assert_eq!(map().longest("éA"), (2, "é"));
        assert_eq!(map().longest(""), (0, ""));
    }

    #[test]
    fn spaces_follow_the_flags() {
        let mut normalizer = SpmNormalizer {
            map: map(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            treat_whitespace_as_suffix: false,
            frozen: Frozen::new(&["AA".into()]),
        };
        assert_eq!(normalizer.normalize("  x   A  "), "▁x▁b▁c");
        assert_eq!(normalizer.normalize("   "), "");
        assert_eq!(normalizer.normalize("AAA"), "▁AAb▁c");
        normalizer.remove_extra_whitespaces = false;
        assert_eq!(normalizer.normalize(" x "), "▁▁x▁");
        normalizer.treat_whitespace_as_suffix = true;
        assert_eq!(normalizer.normalize("x"), "x▁");
    }

    #[test]
    fn hostile_maps_are_errors_or_harmless() {
        assert!(CharsMap::from_bytes(&[1, 2]).is_err());
        assert!(CharsMap::from_bytes(&[0xff; 64]).is_err());
        assert!(CharsMap::from_base64("!").is_err());
        for unit in [0u32, u32::MAX, 1 << 31, 0x1ff, 65 | 1 << 8] {
            let mut bytes = 16u32.to_le_bytes().to_vec();
            (0..4).for_each(|_| bytes.extend(unit.to_le_bytes()));
            let map = CharsMap::from_bytes(&bytes).unwrap();
            assert_eq!(map.replace_graphemes("").len(), 0);
            let _ = map.replace_graphemes("ABCé\u{0}😀");
        }
    }
}

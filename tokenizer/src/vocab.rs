//! The vocabulary: all tokens' bytes in one buffer, and an index built on first use.

use std::sync::OnceLock;

use crate::table::IdTable;

/// Longest accepted token. Real ones stay below 1 KiB; the bound limits the time spent comparing
/// hostile ones.
pub(crate) const MAX_TOKEN_BYTES: usize = 65_535;

/// Role of a token in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text that the model may produce.
    Text = 0,
    /// A token produced only by an added token's text or by the post-processor.
    Literal = 1,
    /// One raw byte, spelled `<0x0A>` in the source.
    Byte = 2,
    /// An id without a token.
    Absent = 3,
}

impl Kind {
    pub fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Text,
            1 => Self::Literal,
            2 => Self::Byte,
            _ => Self::Absent,
        }
    }
}

/// All tokens, by id.
#[derive(Default)]
pub(crate) struct Vocab {
    text: Vec<u8>,
    /// End of each token's text; it begins at the end of the previous one.
    ends: Vec<u32>,
    kinds: Vec<Kind>,
    hasher: ahash::RandomState,
    index: OnceLock<IdTable>,
}

impl Vocab {
    /// An empty vocabulary with room for `tokens` tokens of `text_bytes` bytes in total.
    pub fn with_room(tokens: usize, text_bytes: usize) -> Self {
        Self {
            text: Vec::with_capacity(text_bytes),
            ends: Vec::with_capacity(tokens),
            kinds: Vec::with_capacity(tokens),
            ..Self::default()
        }
    }

    /// Appends the next id's token. The caller keeps the total text below 4 GiB.
    pub fn push(&mut self, kind: Kind, text: &[u8]) {
        self.text.extend_from_slice(text);
        self.ends.push(self.text.len() as u32);
        self.kinds.push(kind);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// A token's bytes as stored; `None` for an id without a token.
    pub fn get(&self, id: u32) -> Option<(Kind, &[u8])> {
        let kind = *self.kinds.get(id as usize)?;
        (kind != Kind::Absent).then(|| (kind, self.text_of(id)))
    }

    pub fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Absent)
    }

    /// The id of the text token with these bytes.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        self.index().find(self.hasher.hash_one(text), |id| self.text_of(id) == text)
    }

    /// The id of each single-byte token of `kind`, by byte.
    pub fn single_bytes(&self, kind: Kind) -> Box<[Option<u32>; 256]> {
        let mut ids = Box::new([None; 256]);
        for id in (0..self.len() as u32).rev() {
            if self.kinds[id as usize] == kind
                && let [byte] = *self.text_of(id)
            {
                ids[byte as usize] = Some(id);
            }
        }
        ids
    }

    /// The length of the longest text token.
    pub fn longest_text(&self) -> usize {
        let texts = (0..self.len() as u32).filter(|&id| self.kinds[id as usize] == Kind::Text);
        texts.map(|id| self.text_of(id).len()).max().unwrap_or(0)
    }

    fn text_of(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] as usize };
        &self.text[start..self.ends[id] as usize]
    }

    fn index(&self) -> &IdTable {
        self.index.get_or_init(|| {
            let mut index = IdTable::with_room(self.len());
            for id in (0..self.len() as u32).filter(|&id| self.kinds[id as usize] == Kind::Text) {
                let text = self.text_of(id);
                index.insert(self.hasher.hash_one(text), id, |other| self.text_of(other) == text);
            }
            index
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_of_two_equal_texts_is_found_and_other_kinds_are_not() {
        let mut vocab = Vocab::default();
        vocab.push(Kind::Literal, b"a");
        vocab.push(Kind::Text, b"a");
        vocab.push(Kind::Text, b"a");
        vocab.push(Kind::Byte, b"b");
        vocab.push(Kind::Absent, b"");
        assert_eq!(vocab.find(b"a"), Some(1));
        assert_eq!(vocab.find(b"b"), None);
        assert_eq!(vocab.get(3), Some((Kind::Byte, &b"b"[..])));
        assert_eq!(vocab.get(4), None);
        assert_eq!(vocab.get(5), None);
        assert_eq!(vocab.single_bytes(Kind::Text)[b'a' as usize], Some(1));
        assert_eq!(vocab.longest_text(), 1);
    }
}

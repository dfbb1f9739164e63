//! GGUF's key-value pairs.

/// Pairs in the order they were added.
#[derive(Default)]
pub struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

/// GGUF's value types.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) {
        self.count += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    /// Adds a text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key, TEXT);
        put_text(&mut self.bytes, value);
    }

    /// Adds a number.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, U32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds a number.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, F32);
        self.bytes.extend(value.to_le_bytes());
    }

    /// Adds a flag.
    pub fn flag(&mut self, key: &str, value: bool) {
        self.key(key, BOOL);
        self.bytes.push(value.into());
    }

    /// Adds a list of texts.
    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, TEXT, values.len());
        values.iter().for_each(|value| put_text(&mut self.bytes, value));
    }

    /// Adds a list of numbers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, I32, values.len());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }

    fn array(&mut self, key: &str, kind: u32, count: usize) {
        self.key(key, ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((count as u64).to_le_bytes());
    }

    /// Their count and the pairs.
    pub fn into_bytes(self) -> Vec<u8> {
        [self.count.to_le_bytes().to_vec(), self.bytes].concat()
    }
}

/// Appends a text after its length.
pub fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_stand_behind_their_count() {
        let mut keys = Metadata::default();
        keys.u32("a", 7);
        keys.texts("b", &["xy".into()]);
        let bytes = keys.into_bytes();
        let expected: Vec<u8> = [
            &2u64.to_le_bytes()[..],
            &1u64.to_le_bytes(),
            b"a",
            &4u32.to_le_bytes(),
            &7u32.to_le_bytes(),
            &1u64.to_le_bytes(),
            b"b",
            &9u32.to_le_bytes(),
            &8u32.to_le_bytes(),
            &1u64.to_le_bytes(),
            &2u64.to_le_bytes(),
            b"xy",
        ]
        .concat();
        assert_eq!(bytes, expected);
    }
}

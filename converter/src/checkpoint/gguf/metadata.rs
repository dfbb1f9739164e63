//! Typed access to GGUF metadata.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;

use super::value::{GgufArray, GgufValue};

/// The keys of a GGUF file and their values.
#[derive(Debug)]
pub struct GgufMetadata {
    path: PathBuf,
    values: BTreeMap<String, GgufValue>,
}

/// A Rust type for metadata values.
///
/// Integers convert from any integer type that holds them, since writers choose different widths.
pub trait FromGguf<'a>: Sized {
    /// The expected type, for messages.
    const EXPECTED: &'static str;

    /// The value as this type; `None` where it has another type or does not fit.
    fn from_gguf(value: &'a GgufValue) -> Option<Self>;
}

impl GgufMetadata {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.into(), values: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, key: String, value: GgufValue) -> Result<(), CheckpointError> {
        if self.values.contains_key(&key) {
            return Err(CheckpointError::DuplicateKey { path: self.path.clone(), key });
        }
        self.values.insert(key, value);
        Ok(())
    }

    /// The stored value of `key`.
    pub fn value(&self, key: &str) -> Option<&GgufValue> {
        self.values.get(key)
    }

    /// All keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &GgufValue)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`; `None` where the key is absent, an error where it has another type.
    ///
    /// `T` is one of `u8 … i64`, `f32`, `f64`, `bool`, `&str`, and `Vec` of these.
    pub fn get<'a, T: FromGguf<'a>>(&'a self, key: &str) -> Result<Option<T>, CheckpointError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        if let Some(found) = T::from_gguf(value) {
            return Ok(Some(found));
        }
        if let Some((place, valid_bytes)) = broken_text(value).filter(|_| T::EXPECTED.contains("string")) {
            let place = format!("key {key:?}{place}");
            return Err(CheckpointError::NotUtf8 { path: self.path.clone(), place, valid_bytes });
        }
        Err(CheckpointError::KeyType {
            path: self.path.clone(),
            key: key.into(),
            expected: T::EXPECTED,
            found: value.to_string(),
        })
    }

    /// The value of `key`; an error where the key is absent or has another type.
    pub fn require<'a, T: FromGguf<'a>>(&'a self, key: &str) -> Result<T, CheckpointError> {
        self.get(key)?.ok_or_else(|| CheckpointError::MissingKey {
            path: self.path.clone(),
            key: key.into(),
            expected: T::EXPECTED,
        })
    }
}

/// For text that is not UTF-8: the place within the value, and the number of valid bytes before it.
fn broken_text(value: &GgufValue) -> Option<(String, usize)> {
    let fault = |bytes| std::str::from_utf8(bytes).err().map(|e| e.valid_up_to());
    match value {
        GgufValue::String(bytes) => Some((String::new(), fault(bytes)?)),
        GgufValue::Array(GgufArray::String(all)) => {
            all.iter().enumerate().find_map(|(i, bytes)| Some((format!(", string {i}"), fault(bytes)?)))
        }
        _ => None,
    }
}

/// Converts each element of an integer array of any width.
fn integers<T: TryFrom<i128>>(array: &GgufArray) -> Option<Vec<T>> {
    fn all<S: Copy + Into<i128>, T: TryFrom<i128>>(values: &[S]) -> Option<Vec<T>> {
        values.iter().map(|&v| T::try_from(v.into()).ok()).collect()
    }
    match array {
        GgufArray::U8(v) => all(v),
        GgufArray::I8(v) => all(v),
        GgufArray::U16(v) => all(v),
        GgufArray::I16(v) => all(v),
        GgufArray::U32(v) => all(v),
        GgufArray::I32(v) => all(v),
        GgufArray::U64(v) => all(v),
        GgufArray::I64(v) => all(v),
        _ => None,
    }
}

fn integer(value: &GgufValue) -> Option<i128> {
    Some(match *value {
        GgufValue::U8(v) => v.into(),
        GgufValue::I8(v) => v.into(),
        GgufValue::U16(v) => v.into(),
        GgufValue::I16(v) => v.into(),
        GgufValue::U32(v) => v.into(),
        GgufValue::I32(v) => v.into(),
        GgufValue::U64(v) => v.into(),
        GgufValue::I64(v) => v.into(),
        _ => return None,
    })
}

macro_rules! from_gguf {
    ($($type:ty, $expected:literal, |$value:ident| $convert:expr;)*) => {$(
        impl<'a> FromGguf<'a> for $type {
            const EXPECTED: &'static str = $expected;
            fn from_gguf($value: &'a GgufValue) -> Option<Self> {
                $convert
            }
        }
    )*};
}

macro_rules! from_gguf_integer {
    ($($type:ident $one:literal $many:literal;)*) => {
        from_gguf! {$(
            $type, $one, |value| integer(value)?.try_into().ok();
            Vec<$type>, $many, |value| match value { GgufValue::Array(a) => integers(a), _ => None };
        )*}
    };
}

from_gguf_integer! {
    u8 "an integer in u8" "an array of integers in u8";
    u16 "an integer in u16" "an array of integers in u16";
    u32 "an integer in u32" "an array of integers in u32";
    u64 "an integer in u64" "an array of integers in u64";
    i8 "an integer in i8" "an array of integers in i8";
    i16 "an integer in i16" "an array of integers in i16";
    i32 "an integer in i32" "an array of integers in i32";
    i64 "an integer in i64" "an array of integers in i64";
}

from_gguf! {
    f32, "f32", |value| match *value { GgufValue::F32(v) => Some(v), GgufValue::F64(v) => Some(v as f32), _ => None };
    f64, "f64", |value| match *value { GgufValue::F32(v) => Some(v.into()), GgufValue::F64(v) => Some(v), _ => None };
    bool, "bool", |value| match *value { GgufValue::Bool(v) => Some(v), _ => None };
    &'a str, "a string", |value| match value { GgufValue::String(v) => std::str::from_utf8(v).ok(), _ => None };
    Vec<f32>, "an array of f32", |value| match value { GgufValue::Array(GgufArray::F32(v)) => Some(v.clone()), _ => None };
    Vec<bool>, "an array of bool", |value| match value { GgufValue::Array(GgufArray::Bool(v)) => Some(v.clone()), _ => None };
    Vec<&'a str>, "an array of strings", |value| match value {
        GgufValue::Array(GgufArray::String(v)) => v.iter().map(|s| std::str::from_utf8(s).ok()).collect(),
        _ => None,
    };
    Vec<&'a [u8]>, "an array of byte sequences", |value| match value {
        GgufValue::Array(GgufArray::String(v)) => Some(v.iter().collect()),
        _ => None,
    };
}

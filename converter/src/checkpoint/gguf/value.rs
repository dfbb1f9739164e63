//! Metadata values as GGUF stores them.

use crate::checkpoint::CheckpointError;

use super::cursor::Cursor;

/// Largest string. The longest known ones, chat templates and licences, have some 100 KB.
const STRING_LIMIT: u64 = 16 << 20;
/// Limit of nested arrays, which no known file uses.
const NESTED_LIMIT: u64 = 1 << 16;
const DEPTH_LIMIT: u64 = 4;

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each holds the type that it names")]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Bytes that should be UTF-8; checked when they are taken as text.
    String(Vec<u8>),
    Array(GgufArray),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of one type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each holds the type that it names")]
pub enum GgufArray {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(GgufStrings),
    Array(Vec<GgufArray>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Many strings in one allocation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GgufStrings {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl GgufStrings {
    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let start = |i: usize| if i == 0 { 0 } else { self.ends[i - 1] };
        self.ends.iter().enumerate().map(move |(i, &end)| &self.bytes[start(i)..end])
    }
}

/// The type's name and, for an array, its length, for messages.
impl std::fmt::Display for GgufValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::U8(v) => write!(f, "u8 {v}"),
            Self::I8(v) => write!(f, "i8 {v}"),
            Self::U16(v) => write!(f, "u16 {v}"),
            Self::I16(v) => write!(f, "i16 {v}"),
            Self::U32(v) => write!(f, "u32 {v}"),
            Self::I32(v) => write!(f, "i32 {v}"),
            Self::F32(v) => write!(f, "f32 {v}"),
            Self::Bool(v) => write!(f, "bool {v}"),
            Self::String(v) => write!(f, "a string of {} bytes", v.len()),
            Self::Array(v) => write!(f, "an array of {}", v.type_and_len()),
            Self::U64(v) => write!(f, "u64 {v}"),
            Self::I64(v) => write!(f, "i64 {v}"),
            Self::F64(v) => write!(f, "f64 {v}"),
        }
    }
}

impl GgufArray {
    fn type_and_len(&self) -> String {
        let (name, len) = match self {
            Self::U8(v) => ("u8", v.len()),
            Self::I8(v) => ("i8", v.len()),
            Self::U16(v) => ("u16", v.len()),
            Self::I16(v) => ("i16", v.len()),
            Self::U32(v) => ("u32", v.len()),
            Self::I32(v) => ("i32", v.len()),
            Self::F32(v) => ("f32", v.len()),
            Self::Bool(v) => ("bool", v.len()),
            Self::String(v) => ("string", v.ends.len()),
            Self::Array(v) => ("array", v.len()),
            Self::U64(v) => ("u64", v.len()),
            Self::I64(v) => ("i64", v.len()),
            Self::F64(v) => ("f64", v.len()),
        };
        format!("{len} {name}")
    }
}

/// Reads the type and the value of `key`.
pub(super) fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<GgufValue, CheckpointError> {
    const WHAT: &str = "a metadata value";
    Ok(match cursor.u32("a metadata value's type")? {
        0 => GgufValue::U8(u8::from_le_bytes(cursor.bytes(WHAT)?)),
        1 => GgufValue::I8(i8::from_le_bytes(cursor.bytes(WHAT)?)),
        2 => GgufValue::U16(u16::from_le_bytes(cursor.bytes(WHAT)?)),
        3 => GgufValue::I16(i16::from_le_bytes(cursor.bytes(WHAT)?)),
        4 => GgufValue::U32(u32::from_le_bytes(cursor.bytes(WHAT)?)),
        5 => GgufValue::I32(i32::from_le_bytes(cursor.bytes(WHAT)?)),
        6 => GgufValue::F32(f32::from_le_bytes(cursor.bytes(WHAT)?)),
        7 => GgufValue::Bool(cursor.bytes::<1>(WHAT)? != [0]),
        8 => {
            let mut bytes = Vec::new();
            cursor.string_into("a metadata string", STRING_LIMIT, &mut bytes)?;
            GgufValue::String(bytes)
        }
        9 => GgufValue::Array(read_array(cursor, key, 1, &mut 0)?),
        10 => GgufValue::U64(u64::from_le_bytes(cursor.bytes(WHAT)?)),
        11 => GgufValue::I64(i64::from_le_bytes(cursor.bytes(WHAT)?)),
        12 => GgufValue::F64(f64::from_le_bytes(cursor.bytes(WHAT)?)),
        found => return Err(unknown_type(cursor, key, found)),
    })
}

/// Reads element type, length and elements; `nested` counts the arrays within arrays of this value.
fn read_array(
    cursor: &mut Cursor<'_>,
    key: &str,
    depth: u64,
    nested: &mut u64,
) -> Result<GgufArray, CheckpointError> {
    cursor.limit("nesting of arrays", DEPTH_LIMIT, depth)?;
    let element = cursor.u32("an array's element type")?;
    let len = cursor.u64("an array's length")?;
    Ok(match element {
        0 => GgufArray::U8(numbers(cursor, len, u8::from_le_bytes)?),
        1 => GgufArray::I8(numbers(cursor, len, i8::from_le_bytes)?),
        2 => GgufArray::U16(numbers(cursor, len, u16::from_le_bytes)?),
        3 => GgufArray::I16(numbers(cursor, len, i16::from_le_bytes)?),
        4 => GgufArray::U32(numbers(cursor, len, u32::from_le_bytes)?),
        5 => GgufArray::I32(numbers(cursor, len, i32::from_le_bytes)?),
        6 => GgufArray::F32(numbers(cursor, len, f32::from_le_bytes)?),
        7 => GgufArray::Bool(numbers(cursor, len, |b: [u8; 1]| b != [0])?),
        8 => GgufArray::String(strings(cursor, len)?),
        9 => {
            *nested = nested.saturating_add(len);
            cursor.limit("number of nested arrays", NESTED_LIMIT, *nested)?;
            cursor.check("an array of arrays", len, 12)?;
            let arrays = (0..len).map(|_| read_array(cursor, key, depth + 1, nested));
            GgufArray::Array(arrays.collect::<Result<_, _>>()?)
        }
        10 => GgufArray::U64(numbers(cursor, len, u64::from_le_bytes)?),
        11 => GgufArray::I64(numbers(cursor, len, i64::from_le_bytes)?),
        12 => GgufArray::F64(numbers(cursor, len, f64::from_le_bytes)?),
        found => return Err(unknown_type(cursor, key, found)),
    })
}

fn numbers<T, const N: usize>(
    cursor: &mut Cursor<'_>,
    len: u64,
    convert: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, CheckpointError> {
    const WHAT: &str = "an array of numbers";
    cursor.check(WHAT, len, N as u64)?;
    let mut out = Vec::with_capacity(len as usize);
    for _ in 0..len {
        out.push(convert(cursor.bytes(WHAT)?));
    }
    Ok(out)
}

fn strings(cursor: &mut Cursor<'_>, len: u64) -> Result<GgufStrings, CheckpointError> {
    cursor.check("an array of strings", len, 8)?;
    let mut out = GgufStrings { bytes: Vec::new(), ends: Vec::with_capacity(len as usize) };
    for _ in 0..len {
        cursor.string_into("a string in an array", STRING_LIMIT, &mut out.bytes)?;
        out.ends.push(out.bytes.len());
    }
    Ok(out)
}

fn unknown_type(cursor: &Cursor<'_>, key: &str, found: u32) -> CheckpointError {
    CheckpointError::ValueType { path: cursor.file().path().into(), key: key.into(), found }
}

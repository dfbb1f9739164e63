//! Checks of a profile's values during parsing, so that an error has its line.

use serde::de::{Deserialize, Deserializer, Error};

/// Text that is not empty.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.trim().is_empty() { Err(D::Error::custom("is empty")) } else { Ok(text) }
}

/// [`text`], if the field is present.
pub(super) fn some_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer).map(Some)
}

/// A name that can be typed without quotes.
pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if plain && !name.is_empty() {
        Ok(name)
    } else {
        Err(D::Error::custom(format!("\"{name}\" is not a name of lower case letters, digits and hyphens")))
    }
}

/// A list that is not empty.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = Vec::deserialize(deserializer)?;
    if list.is_empty() { Err(D::Error::custom("is empty, expected at least one")) } else { Ok(list) }
}

/// A number above 0 and at most 10⁶, which no board exceeds.
pub(super) fn some_positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    positive(f64::deserialize(deserializer)?).map(Some).map_err(D::Error::custom)
}

fn positive(value: f64) -> Result<f64, String> {
    if value > 0.0 && value <= 1e6 {
        Ok(value)
    } else {
        Err(format!("is {value}, expected a number above 0 and at most 1000000"))
    }
}

/// A count of at least one.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(D::Error::custom("is 0, expected at least 1; leave it out where it is not known")),
        count => Ok(Some(count)),
    }
}

/// A size in KiB, up to 1 GiB.
pub(super) fn from_kib<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        kib @ 1..=1_048_576 => Ok(kib),
        other => Err(D::Error::custom(format!("is {other}, expected 1 to 1048576 KiB"))),
    }
}

/// Two rates, the smaller first.
pub(super) fn gigabytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[f64; 2], D::Error> {
    let [low, high] = <[f64; 2]>::deserialize(deserializer)?;
    positive(low).and_then(|_| positive(high)).map_err(D::Error::custom)?;
    if low <= high {
        Ok([low, high])
    } else {
        Err(D::Error::custom(format!("is {low} to {high}: turned round")))
    }
}

/// A temperature at which silicon still works.
pub(super) fn range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let celsius = f64::deserialize(deserializer)?;
    if (0.0..=150.0).contains(&celsius) {
        Ok(celsius)
    } else {
        Err(D::Error::custom(format!("is {celsius}, expected 0 to 150 °C")))
    }
}

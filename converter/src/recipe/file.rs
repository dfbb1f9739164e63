//! Recipes as TOML files, and the built-in ones.
//!
//! ```toml
//! name = "balanced"
//! encoding = "q4-nl"      # matrices of the layers
//! embedding = "q5"        # default: q8, or `encoding` where that is wider
//! head = "q4-g64+q4"      # default: as the embedding
//! quantizer = "gptq"      # or "nearest"
//! refine = true           # round twice, the second time with inputs of the rounded model
//! transform = "hadamard"  # or "awq": change of basis before rounding
//!
//! [[tensor]]
//! match = "layers.*.ffn.down"
//! encoding = "q5"
//! ```

use std::path::{Path, PathBuf};

use pith_format::Encoding;
use serde::{Deserialize, Serialize};

use super::{HeadEncoding, Override, Quantizer, Recipe, Transform};

/// The built-in recipes, by name.
pub const NAMED: &[(&str, &str)] = &[
    ("best", include_str!("../../recipes/best.toml")),
    ("high", include_str!("../../recipes/high.toml")),
    ("balanced", include_str!("../../recipes/balanced.toml")),
    ("small", include_str!("../../recipes/small.toml")),
    ("tiny", include_str!("../../recipes/tiny.toml")),
];

/// The recipes that a conversion without options tries, narrowest first: the first whose file
/// diverges by no more than [`DEFAULT_DIVERGENCE`], or else the last.
pub const DEFAULT: &[&str] = &["balanced", "high"];

/// Mean KL divergence in nats that a conversion without options allows.
pub const DEFAULT_DIVERGENCE: f64 = 0.04;

/// Why a recipe cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are what the messages say")]
pub enum RecipeError {
    /// Neither a name nor a file.
    #[error("no recipe is called {name:?} and there is no such file; known are {}", names())]
    Unknown { name: String },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is not a valid recipe.
    #[error("{}: {reason}", path.display())]
    Parse { path: PathBuf, reason: String },
    /// Two settings that contradict each other.
    #[error("{}: {reason}", path.display())]
    Contradiction { path: PathBuf, reason: String },
}

fn names() -> String {
    NAMED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The fields of a recipe file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(with = "optional")]
    encoding: Option<Encoding>,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    embedding: Option<Encoding>,
    #[serde(default, with = "optional", skip_serializing_if = "Option::is_none")]
    head: Option<HeadEncoding>,
    #[serde(default)]
    quantizer: Quantizer,
    #[serde(default)]
    refine: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transform: Option<Transform>,
    #[serde(default, rename = "tensor", skip_serializing_if = "Vec::is_empty")]
    overrides: Vec<Override>,
}

impl Recipe {
    /// The built-in recipe of that name, or the recipe in that file.
    pub fn find(name_or_path: &str) -> Result<Self, RecipeError> {
        if let Some((name, text)) = NAMED.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text, Path::new(name));
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            return Err(RecipeError::Unknown { name: name_or_path.into() });
        }
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecipeError::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    /// Parses the text of a file; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, RecipeError> {
        let fields: Fields = toml::from_str(text).map_err(|error| RecipeError::Parse {
            path: path.into(),
            reason: error.to_string().trim_end().into(),
        })?;
        let wrong = |reason: String| RecipeError::Contradiction { path: path.into(), reason };
        if fields.refine && fields.quantizer != Quantizer::Gptq {
            return Err(wrong("refine = true is for quantizer = \"gptq\"".into()));
        }
        if fields.refine && fields.transform == Some(Transform::Awq) {
            return Err(wrong(
                "refine = true compares inputs with the dense model's, which transform = \"awq\" scales"
                    .into(),
            ));
        }
        for (index, tensors) in fields.overrides.iter().enumerate() {
            if tensors.encoding.is_none() && tensors.quantizer.is_none() {
                return Err(wrong(format!(
                    "tensor {:?} is given neither an encoding nor a quantizer",
                    tensors.pattern
                )));
            }
            let same = |other: &Override| {
                other.pattern == tensors.pattern
                    && (other.encoding.is_some() && tensors.encoding.is_some()
                        || other.quantizer.is_some() && tensors.quantizer.is_some())
            };
            if fields.overrides[..index].iter().any(same) {
                return Err(wrong(format!("tensor {:?} is given twice", tensors.pattern)));
            }
        }
        let matrices = fields.encoding.expect("the field has no default");
        Ok(Self {
            name: fields.name,
            embedding: fields.embedding,
            head: fields.head,
            quantizer: fields.quantizer,
            refine: fields.refine,
            transform: fields.transform,
            overrides: fields.overrides,
            ..Self::new(matrices)
        })
    }

    /// TOML that [`Recipe::parse`] reads back, except for `keep`.
    pub fn to_toml(&self) -> String {
        let fields = Fields {
            name: self.name.clone(),
            encoding: Some(self.matrices),
            embedding: self.embedding,
            head: self.head,
            quantizer: self.quantizer,
            refine: self.refine,
            transform: self.transform,
            overrides: self.overrides.clone(),
        };
        toml::to_string(&fields).expect("strings, flags and a table of those")
    }
}

/// Optional values, written by name.
pub(super) mod optional {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Recipe, RecipeError> {
        Recipe::parse(text, Path::new("a.toml"))
    }

    #[test]
    fn what_comes_along_can_be_read_and_written_back() {
        for (name, _) in NAMED {
            let recipe = Recipe::find(name).unwrap();
            assert_eq!(recipe.name.as_deref(), Some(*name));
            assert_eq!(parse(&recipe.to_toml()).unwrap(), recipe);
        }
    }

    #[test]
    fn wrong_recipes_name_the_line() {
        let cases = [
            ("encoding = \"q9\"", "unknown encoding \"q9\""),
            ("encoding = \"q4\"\nquantiser = \"gptq\"", "quantiser"),
            ("embedding = \"q4\"", "encoding"),
            ("encoding = \"q4\"\nrefine = true", "refine"),
            ("encoding = \"q4\"\ntransform = \"wavelet\"", "wavelet"),
            ("encoding = \"q4\"\nquantizer = \"gptq\"\nrefine = true\ntransform = \"awq\"", "awq"),
            ("encoding = \"q4\"\n[[tensor]]\nmatch = \"a\"", "neither"),
            (
                "encoding = \"q4\"\n[[tensor]]\nmatch = \"a\"\nencoding = \"q8\"\n[[tensor]]\nmatch = \"a\"\nencoding = \"q4\"",
                "twice",
            ),
        ];
        for (text, expected) in cases {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected) && message.starts_with("a.toml"), "{message}");
        }
        let message = Recipe::find("medium").unwrap_err().to_string();
        assert!(message.contains("\"medium\"") && message.contains("balanced"), "{message}");
    }

    #[test]
    fn the_last_match_counts() {
        let recipe = parse(
            "encoding = \"q4\"\n[[tensor]]\nmatch = \"layers.*.down\"\nencoding = \"q5\"\n[[tensor]]\nmatch = \
             \"layers.1.*\"\nencoding = \"q8\"\nquantizer = \"gptq\"",
        );
        let recipe = recipe.unwrap();
        let of = |layer| {
            let id = pith_format::TensorId::layer(pith_format::Role::Down, layer);
            (recipe.encoding(id, None, false), recipe.quantizer(id))
        };
        assert_eq!(of(0), (Encoding::Q5, Quantizer::Nearest));
        assert_eq!(of(1), (Encoding::Q8, Quantizer::Gptq));
        let up = pith_format::TensorId::layer(pith_format::Role::Up, 0);
        assert_eq!(recipe.encoding(up, None, false), Encoding::Q4);
        assert_eq!(recipe.unmatched(&[up]), Some("layers.*.down"));
    }
}

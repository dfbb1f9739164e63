//! Recipes: the encoding of each matrix, and how it is rounded.

mod file;
mod transform;

use std::fmt;
use std::str::FromStr;

use pith_format::{Encoding, Role, TensorId, UnknownEncoding};

pub use file::{DEFAULT, DEFAULT_DIVERGENCE, NAMED, RecipeError};
pub use transform::Transform;

/// How the head is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadEncoding {
    /// The matrix, or the first part of two.
    pub first: Encoding,
    /// Encoding of the residual matrix, `head − first`, where the head is stored as the sum of two.
    /// Only approximate logits benefit from it; see `SessionOptions::two_stage_logits`.
    pub residual: Option<Encoding>,
}

/// How weights become codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantizer {
    /// Nearest level; with statistics, columns of large inputs count more.
    #[default]
    Nearest,
    /// [GPTQ](crate::passes::gptq); needs statistics with Hessians.
    Gptq,
    /// [Half-quadratic](crate::passes::hqq): uses the weights alone.
    Hqq,
}

/// Exceptions for some tensors.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// Names of tensors as `pith inspect` shows them; `*` stands for anything.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Their encoding.
    #[serde(default, with = "file::optional", skip_serializing_if = "Option::is_none")]
    pub encoding: Option<Encoding>,
    /// How they are rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantizer: Option<Quantizer>,
}

impl Override {
    fn matches(&self, id: TensorId) -> bool {
        wildmatch::WildMatch::new(&self.pattern).matches(&id.to_string())
    }
}

/// The encodings of a conversion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Matrices of the layers.
    pub matrices: Encoding,
    /// Embeddings; `None` is [`Recipe::outer`].
    pub embedding: Option<Encoding>,
    /// The head, or the embedding that serves as one; `None` is `embedding`.
    pub head: Option<HeadEncoding>,
    /// Keep the source's encoding without loss where there is one (F32, F16, Q4_0, Q8_0), and
    /// repack the codes of a quantized checkpoint in the narrowest encoding that holds them. The
    /// encodings above apply to all other matrices.
    pub keep: bool,
    /// How matrices are rounded.
    pub quantizer: Quantizer,
    /// Round a second time, with inputs from the model rounded first: see
    /// [`Shift`](crate::passes::gptq::Shift).
    pub refine: bool,
    /// Change of basis before the weights are rounded.
    pub transform: Option<Transform>,
    /// Exceptions; where several match, the last one counts.
    pub overrides: Vec<Override>,
}

impl Recipe {
    /// `matrices` for the layers, with the default encodings for embeddings and head.
    pub fn new(matrices: Encoding) -> Self {
        Self {
            name: None,
            matrices,
            embedding: None,
            head: None,
            keep: false,
            quantizer: Quantizer::Nearest,
            refine: false,
            transform: None,
            overrides: Vec::new(),
        }
    }

    /// The default for embeddings and head: as the layers, but at least 8 bits, since both act
    /// directly on the result.
    pub fn outer(&self) -> Encoding {
        if self.matrices.bits_per_weight() < 8.0 { Encoding::Q8 } else { self.matrices }
    }

    /// This recipe with the head's encoding filled in. `carried`: the encoding of the source that
    /// the head keeps.
    pub(crate) fn with_head(self, carried: Option<Encoding>) -> Self {
        let head = match (self.head, carried) {
            (_, Some(encoding)) => encoding.into(),
            (Some(head), _) => head,
            (None, _) => self.embedding.unwrap_or(self.outer()).into(),
        };
        Self { head: Some(head), ..self }
    }

    /// Whether the recipe has more settings than its one-line form shows.
    pub fn is_of_file(&self) -> bool {
        self.name.is_some() || self.transform.is_some() || !self.overrides.is_empty()
    }

    /// Whether the recipe needs Hessians: GPTQ for any matrix, or AWQ.
    pub fn needs_hessians(&self) -> bool {
        let overridden = self.overrides.iter().any(|tensors| tensors.quantizer == Some(Quantizer::Gptq));
        self.quantizer == Quantizer::Gptq || self.transform == Some(Transform::Awq) || overridden
    }

    /// How the matrix is rounded.
    pub(crate) fn quantizer(&self, id: TensorId) -> Quantizer {
        let found = self.overrides.iter().rev().filter(|tensors| tensors.matches(id));
        found.filter_map(|tensors| tensors.quantizer).next().unwrap_or(self.quantizer)
    }

    /// The first pattern that matches none of these.
    pub(crate) fn unmatched(&self, ids: &[TensorId]) -> Option<&str> {
        let lost = self.overrides.iter().find(|tensors| !ids.iter().any(|&id| tensors.matches(id)));
        lost.map(|tensors| tensors.pattern.as_str())
    }

    /// The encoding of a matrix. `kept`: the encoding that holds the source's values.
    pub(crate) fn encoding(&self, id: TensorId, kept: Option<Encoding>, tied_head: bool) -> Encoding {
        let found = self.overrides.iter().rev().filter(|tensors| tensors.matches(id));
        if let Some(encoding) = found.filter_map(|tensors| tensors.encoding).next() {
            return encoding;
        }
        if let (true, Some(encoding)) = (self.keep, kept) {
            return encoding;
        }
        let embedding = self.embedding.unwrap_or(self.outer());
        match id.role {
            Role::TokenEmbedding if !tied_head => embedding,
            Role::TokenEmbedding | Role::Head => self.head.map_or(embedding, |head| head.first),
            Role::PositionEmbedding => embedding,
            _ => self.matrices,
        }
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Self::new(Encoding::Q4)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let embedding = self.embedding.unwrap_or(self.outer());
        let head = self.head.unwrap_or(embedding.into());
        let keep = if self.keep { "keep, else " } else { "" };
        if let Some(name) = &self.name {
            write!(formatter, "{name}: ")?;
        }
        write!(formatter, "{keep}{}, embedding {embedding}, head {head}", self.matrices)?;
        match self.quantizer {
            Quantizer::Nearest => {}
            Quantizer::Gptq => write!(formatter, ", gptq{}", if self.refine { " refined" } else { "" })?,
            Quantizer::Hqq => write!(formatter, ", hqq")?,
        }
        if let Some(transform) = self.transform {
            write!(formatter, ", {}", transform.name())?;
        }
        match self.overrides.len() {
            0 => Ok(()),
            count => write!(formatter, ", {count} overrides"),
        }
    }
}

impl From<Encoding> for HeadEncoding {
    fn from(first: Encoding) -> Self {
        Self { first, residual: None }
    }
}

impl fmt::Display for HeadEncoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.residual {
            Some(residual) => write!(formatter, "{}+{residual}", self.first),
            None => self.first.fmt(formatter),
        }
    }
}

impl FromStr for HeadEncoding {
    type Err = UnknownEncoding;

    /// `q8`, or `q4-g64+q4` for two parts.
    fn from_str(text: &str) -> Result<Self, UnknownEncoding> {
        Ok(match text.split_once('+') {
            Some((first, residual)) => Self { first: first.parse()?, residual: Some(residual.parse()?) },
            None => Self { first: text.parse()?, residual: None },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outer_matrices_have_at_least_eight_bits() {
        let outer = |matrices| Recipe::new(matrices).encoding(TensorId::model(Role::Head), None, false);
        assert_eq!(outer(Encoding::Q4), Encoding::Q8);
        assert_eq!(outer(Encoding::Q4G64), Encoding::Q8);
        assert_eq!(outer(Encoding::Q8), Encoding::Q8);
        assert_eq!(outer(Encoding::F32), Encoding::F32);
    }

    #[test]
    fn a_tied_matrix_is_encoded_as_a_head() {
        let recipe =
            Recipe { head: Some(Encoding::F16.into()), embedding: Some(Encoding::Q4), ..Recipe::default() };
        let encoding = |role, tied| recipe.encoding(TensorId::model(role), Some(Encoding::F32), tied);
        assert_eq!(encoding(Role::TokenEmbedding, true), Encoding::F16);
        assert_eq!(encoding(Role::TokenEmbedding, false), Encoding::Q4);
        assert_eq!(encoding(Role::PositionEmbedding, true), Encoding::Q4);
        assert_eq!(recipe.encoding(TensorId::layer(Role::Query, 0), None, true), Encoding::Q4);
        assert_eq!(recipe.to_string(), "q4, embedding q4, head f16");
    }

    #[test]
    fn heads_are_as_embeddings_unless_someone_says_otherwise() {
        let head = |recipe: Recipe, kept| recipe.with_head(kept).head.unwrap().to_string();
        let (q4, q8) = (Recipe::default(), Recipe::new(Encoding::Q8));
        assert_eq!(head(q4.clone(), None), "q8");
        assert_eq!(head(q8.clone(), None), "q8");
        assert_eq!(head(q4.clone(), None), "q8");
        assert_eq!(head(Recipe::new(Encoding::F16), None), "f16");
        assert_eq!(head(Recipe { embedding: Some(Encoding::Q6), ..q4.clone() }, None), "q6");
        assert_eq!(head(q4.clone(), Some(Encoding::Q4)), "q4");
        let asked = Recipe { head: Some("Q4+q8".parse().unwrap()), ..q4.clone() };
        assert_eq!(asked.with_head(None).to_string(), "q4, embedding q8, head q4+q8");
        assert!("q4+".parse::<HeadEncoding>().is_err());
    }

    #[test]
    fn keeping_follows_the_source() {
        let recipe = Recipe { keep: true, ..Recipe::default() };
        let encoding = |kept| recipe.encoding(TensorId::model(Role::Head), kept, false);
        assert_eq!(encoding(Some(Encoding::Q4)), Encoding::Q4);
        assert_eq!(encoding(Some(Encoding::F16)), Encoding::F16);
        assert_eq!(encoding(None), Encoding::Q8);
        assert_eq!(recipe.to_string(), "keep, else q4, embedding q8, head q8");
    }
}

//! Changes of basis in a recipe.

/// A change of basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// Scales columns of large inputs up before rounding, and the tensors that produce these inputs
    /// down (AWQ: Lin et al., arXiv 2306.00978). Needs statistics with Hessians.
    Awq,
    /// Rotates inputs so that none is much larger than the others (QuaRot's merged rotations:
    /// Ashkboos et al., arXiv 2404.00456). A tied head becomes a matrix of its own.
    Hadamard,
}

impl Transform {
    /// Name in recipes and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Awq => "awq",
            Self::Hadamard => "hadamard",
        }
    }

    /// Whether statistics are of the changed model; otherwise they are of the original checkpoint.
    pub(crate) fn is_calibrated_after(self) -> bool {
        self == Self::Hadamard
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Awq, Self::Hadamard].into_iter().find(|transform| transform.name() == name)
    }
}

//! The changes of basis that a recipe can ask for.

/// Which change of basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// Columns are scaled by how large their inputs are, so that rounding spares those that matter, and what gives the inputs is
    /// scaled back (AWQ: Lin et al., arXiv 2306.00978). Needs a calibration with Hessians.
    Awq,
    /// Inputs are rotated so that none is much larger than the others (QuaRot's merged rotations: Ashkboos et al., arXiv
    /// 2404.00456). The file's head is a matrix of its own even where the checkpoint's is the embedding.
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

    /// Whether a calibration is of the changed model; otherwise it is of the checkpoint as it was.
    pub(crate) fn is_calibrated_after(self) -> bool {
        self == Self::Hadamard
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Awq, Self::Hadamard].into_iter().find(|transform| transform.name() == name)
    }
}

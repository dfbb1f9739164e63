//! What is timed: a prompt, or tokens one by one, behind some context.

use std::fmt;
use std::str::FromStr;

/// `pp512`, `tg128` or `tg128@2048`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    /// Tokens fed as one prompt, or else generated one by one.
    pub prefill: bool,
    /// How many.
    pub tokens: usize,
    /// Tokens already in the context.
    pub depth: usize,
}

impl FromStr for Test {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (kind, rest) = text.split_at_checked(2)?;
            let (tokens, depth) = rest.split_once('@').unwrap_or((rest, "0"));
            let prefill = match kind {
                "pp" => true,
                "tg" => false,
                _ => return None,
            };
            Some(Self { prefill, tokens: tokens.parse().ok()?, depth: depth.parse().ok()? })
        };
        parsed()
            .filter(|test: &Self| test.tokens > 0)
            .ok_or_else(|| format!("unknown test {text:?}, expected ppN, tgN or tgN@DEPTH"))
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.prefill { "pp" } else { "tg" }, self.tokens)?;
        if self.depth > 0 { write!(f, "@{}", self.depth) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for name in ["pp512", "tg128", "tg128@2048", "pp16@64"] {
            assert_eq!(name.parse::<Test>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "p", "xx5", "tg", "tg0", "tg1@", "tg1@x", "é5", "pp-1"] {
            let error = name.parse::<Test>().unwrap_err();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }
}

//! What a configuration comes to, key by key, and where each value is from.

use std::fmt;

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key, with dots: `server.port`.
    pub path: String,
    /// The value as one would write it; `None` if the key is not set and has no default. What
    /// is a secret by its key or by its look is `[redacted]`, as in the log.
    pub value: Option<String>,
    /// Where the value is from.
    pub origin: Origin,
    /// Whether the same would hold if nobody had written it. What is worked out from other keys is
    /// not compared.
    pub is_default: bool,
}

/// Where a value is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The program: a fixed value, or one worked out from others.
    Default,
    /// This line of the file, from 1.
    File {
        /// The line.
        line: usize,
    },
    /// The environment variable of this name.
    Variable(String),
}

impl fmt::Display for Origin {
    /// `default`, `line 7` or the variable's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { line } => write!(f, "line {line}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

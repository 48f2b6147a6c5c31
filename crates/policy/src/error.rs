//! Why a policy is not loaded.

use crate::said::place;

/// Why a policy is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Larger than we read.
    #[error("{name} has {bytes} bytes, more than the {max} of a policy; split it or move its data")]
    TooLarge {
        /// The file.
        name: String,
        /// Its size in bytes.
        bytes: usize,
        /// The largest size in bytes.
        max: usize,
    },
    /// Not Rego, in any of the languages that were tried.
    #[error("{}: {message}{cure}", place(name, *line))]
    Syntax {
        /// The file.
        name: String,
        /// The line, from 1; 0 if the engine names none.
        line: u32,
        /// What the engine says.
        message: String,
        /// What to do about it, beginning with `; `, where that is known.
        cure: &'static str,
    },
    /// Rego, but of another package.
    #[error(
        "{name} declares package `{declared}`, not `{configured}`; change the file or configure \
         its package"
    )]
    Package {
        /// The file.
        name: String,
        /// The package in the file.
        declared: String,
        /// The package in the options.
        configured: String,
    },
    /// A data file that cannot be part of the policy.
    #[error("{name} {message}")]
    Data {
        /// The file.
        name: String,
        /// What is wrong with it, and the cure.
        message: String,
    },
    /// Nothing to ask.
    #[error("{name} has neither a rule `allow` nor a rule `decision` in package `{package}`")]
    NoRule {
        /// The file.
        name: String,
        /// The package.
        package: String,
    },
    /// A call whose result may be as large as a caller likes.
    #[error(
        "{}: `{function}` makes as much as its arguments say, which no bound of ours stops; give \
         it numbers up to 10000, or a format, in the policy's own text",
        place(name, *line)
    )]
    UnboundedFunction {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u32,
        /// The function.
        function: String,
    },
    /// Calls a function that the engine has not, which would fail when a request is decided.
    #[error("{name}:{line}: calls `{function}`, which this engine does not have; {cure}")]
    UnknownFunction {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u32,
        /// The function's name.
        function: String,
        /// What to do about it: the function that was probably meant, where there is one.
        cure: String,
    },
    /// A function that calls itself, which Rego forbids and the engine would do without end.
    #[error("{name}:{line}: function `{function}` calls itself; Rego has no recursion")]
    Recursion {
        /// The file.
        name: String,
        /// The line, from 1.
        line: u32,
        /// The function's name.
        function: String,
    },
}

impl LoadError {
    /// The line that is wrong, from 1, where one is.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        match self {
            Self::Syntax { line, .. }
            | Self::UnboundedFunction { line, .. }
            | Self::UnknownFunction { line, .. }
            | Self::Recursion { line, .. } => Some(*line).filter(|line| *line > 0),
            Self::TooLarge { .. }
            | Self::Package { .. }
            | Self::Data { .. }
            | Self::NoRule { .. } => None,
        }
    }
}

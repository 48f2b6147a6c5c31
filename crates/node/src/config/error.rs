//! What is wrong with a configuration, said once per problem and where it is.

use std::fmt;

/// Most problems that one report lists; a file with more is not the file that was meant.
pub const PROBLEMS_MAX: usize = 50;

/// Everything that was found wrong with one configuration.
///
/// `Display` writes one line per problem: `worker.yaml:2:3: unknown key `identity.spife_id`; did
/// you mean `spiffe_id`?`. A problem of an environment variable begins with that instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// What is wrong, in the order of the file; never empty, at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// How many more there were.
    pub unlisted: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key it is about, with dots: `server.port`. Empty when it is about the whole file.
    pub path: String,
    /// The line in the file, from 1, if the problem has one.
    pub line: Option<usize>,
    /// The column in that line, in characters from 1.
    pub column: Option<usize>,
    /// The environment variable that says it, if the file does not.
    pub variable: Option<String>,
    /// What is wrong, naming the key.
    pub message: String,
    /// What to do about it, if we know.
    pub cure: Option<String>,
}

impl ConfigError {
    /// The report of `problems`, in the order of the file.
    pub(super) fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| {
            (problem.line.unwrap_or(usize::MAX), problem.column.unwrap_or(usize::MAX))
        });
        let unlisted = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        Self { file: file.to_owned(), problems, unlisted }
    }

    /// The report of one problem that has no place in the text.
    pub(super) fn of_file(file: &str, message: String, cure: Option<&str>) -> Self {
        Self::new(file, vec![Problem::of_key("", message, cure)])
    }
}

impl Problem {
    /// A problem with a key, but without a place in the text.
    pub(super) fn of_key(path: &str, message: String, cure: Option<&str>) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            column: None,
            variable: None,
            message,
            cure: cure.map(str::to_owned),
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(problem.variable.as_deref().unwrap_or(&self.file))?;
            for number in [problem.line, problem.column].into_iter().flatten() {
                write!(f, ":{number}")?;
            }
            write!(f, ": {problem}")?;
        }
        if self.unlisted > 0 {
            write!(f, "\n{}: and {} more", self.file, self.unlisted)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.cure {
            Some(cure) => write!(f, "; {cure}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_one_line_for_each_problem_in_the_order_of_the_file() {
        let at = |line, message: &str, cure: Option<&str>| Problem {
            path: "server.port".into(),
            line: Some(line),
            column: Some(3),
            variable: None,
            message: message.into(),
            cure: cure.map(str::to_owned),
        };
        let error = ConfigError::new(
            "a.yaml",
            vec![
                Problem::of_key("", "no place".into(), None),
                at(9, "late", None),
                at(2, "early", Some("do that")),
            ],
        );
        assert_eq!(
            error.to_string(),
            "a.yaml:2:3: early; do that\na.yaml:9:3: late\na.yaml: no place"
        );
    }

    #[test]
    fn a_variable_stands_where_the_file_would() {
        let mut problem = Problem::of_key("server.port", "wrong".into(), None);
        problem.variable = Some("CONVOKE_SERVER__PORT".into());
        let error = ConfigError::new("a.yaml", vec![problem]);
        assert_eq!(error.to_string(), "CONVOKE_SERVER__PORT: wrong");
    }

    #[test]
    fn a_report_is_bounded() {
        let many = vec![Problem::of_key("", "wrong".into(), None); PROBLEMS_MAX + 7];
        let error = ConfigError::new("a.yaml", many);
        assert_eq!((error.problems.len(), error.unlisted), (PROBLEMS_MAX, 7));
        assert!(error.to_string().ends_with("\na.yaml: and 7 more"));
    }
}

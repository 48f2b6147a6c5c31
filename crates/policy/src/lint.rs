//! What a policy says that its author surely did not mean, and what is worth knowing of it.
//!
//! A finding is made of the text alone. What would need a guess is left out: a lint that is wrong
//! half of the time is switched off for good.

mod breadth;
mod facts;
mod names;

use std::fmt;

use regorus::unstable::{Expr, Module, Rule, RuleHead, Span};

use crate::inspect::{head, path};
use crate::load::{Loaded, load};
use crate::spans::{Place, place};
use crate::{LoadError, PolicyOptions, PolicySource};

/// One thing that a linter has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name of what was looked for, such as `whole-domain`.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The line, from 1; 0 if it is about the file as a whole.
    pub line: u32,
    /// The column, from 1; 0 if it is not known.
    pub column: u32,
    /// What is there.
    pub message: String,
    /// What to do about it.
    pub cure: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Legal, but surely unmeant.
    Warning,
    /// The policy does not load, or refuses everything that it means to allow.
    Error,
}

/// Every rule of the linter, with what it finds.
pub const LINT_RULES: &[(&str, Severity, &str)] = &[
    ("load", Severity::Error, "the policy does not load"),
    ("not-boolean", Severity::Error, "`allow` has a value that is neither true nor false"),
    ("allows-everything", Severity::Warning, "every caller may do everything"),
    ("whole-domain", Severity::Warning, "every agent of a trust domain may do everything"),
    ("negation-admits", Severity::Warning, "callers without an identity pass a `not`"),
    ("unknown-input", Severity::Warning, "the input has no such field"),
    ("spiffe-id", Severity::Warning, "a text that no SPIFFE ID is ever equal to"),
    ("spiffe-id-case", Severity::Warning, "two SPIFFE IDs that differ in case alone"),
    ("unreachable", Severity::Warning, "a rule that is never true, or makes no difference"),
    ("unused-import", Severity::Info, "an import that nothing refers to"),
    ("unused-rule", Severity::Info, "a rule that nothing refers to"),
    ("reads-params", Severity::Info, "decided anew for each call, on what the caller sends"),
    ("reads-time", Severity::Info, "decided anew for each call, on the time"),
    ("evaluated-each-time", Severity::Info, "decided anew for each call"),
    ("rego-v0", Severity::Info, "written in Rego v0"),
];

/// Looks at a policy.
pub(crate) fn lint(source: &PolicySource, options: &PolicyOptions) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    match load(source, options) {
        Err(error) => findings.0.push(does_not_load(&error)),
        Ok(Loaded { program, module: Some(module) }) => {
            let decides = program.rule.rsplit('.').next().unwrap_or_default();
            breadth::look(&module, decides, &mut findings);
            names::look(&module, &options.package, decides, &mut findings);
            facts::look(&module, &program, &mut findings);
            values(&module, decides, &mut findings);
        }
        Ok(Loaded { module: None, .. }) => {}
    }
    let mut findings = findings.0;
    findings.sort_by(|a, b| (a.line, a.column, a.rule).cmp(&(b.line, b.column, b.rule)));
    findings.dedup();
    findings
}

fn does_not_load(error: &LoadError) -> Finding {
    let text = error.to_string();
    let (message, cure) = match text.split_once("; ") {
        Some((message, cure)) => (message.to_owned(), cure.to_owned()),
        None => (text, "correct it at this line".to_owned()),
    };
    let line = error.line().unwrap_or(0);
    Finding { rule: "load", severity: Severity::Error, line, column: 0, message, cure }
}

/// What has been found so far.
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: &'static str, at: &Span, message: String, cure: impl Into<String>) {
        let severity = LINT_RULES
            .iter()
            .find(|(name, _, _)| *name == rule)
            .map_or(Severity::Warning, |(_, severity, _)| *severity);
        let cure = cure.into();
        let Place { line, column } = place(at);
        self.0.push(Finding { rule, severity, line, column, message, cure });
    }
}

/// The rules of `module` with the name `name`, without functions.
fn rules<'a>(module: &'a Module, name: &str) -> impl Iterator<Item = &'a Rule> {
    module.policy.iter().map(|rule| &**rule).filter(move |rule| {
        let (refr, args) = head(rule);
        args == 0 && path(refr) == [name]
    })
}

/// Values of `allow` that are neither true nor false.
fn values(module: &Module, decides: &str, findings: &mut Findings) {
    if decides != "allow" {
        return;
    }
    for rule in rules(module, decides) {
        let values: Vec<&Expr> = match rule {
            Rule::Default { value, .. } => vec![value],
            Rule::Spec { head: RuleHead::Set { span, .. }, .. } => {
                findings.add(
                    "not-boolean",
                    span,
                    "`allow` is a set, which refuses every operation".to_owned(),
                    "write `allow if {…}`",
                );
                continue;
            }
            Rule::Spec { head: RuleHead::Compr { assign, .. }, bodies, .. } => {
                let own = bodies.iter().filter_map(|body| body.assign.as_ref());
                assign.iter().chain(own).map(|assign| &*assign.value).collect()
            }
            Rule::Spec { head: RuleHead::Func { .. }, .. } => continue,
        };
        for value in values {
            let what = match value {
                Expr::String { .. } | Expr::RawString { .. } => "a text",
                Expr::Number { .. } => "a number",
                Expr::Null { .. } => "null",
                Expr::Array { .. } | Expr::ArrayCompr { .. } => "an array",
                Expr::Set { .. } | Expr::SetCompr { .. } => "a set",
                Expr::Object { .. } | Expr::ObjectCompr { .. } => "an object",
                _ => continue,
            };
            findings.add(
                "not-boolean",
                value.span(),
                format!("`allow` is {what} here, which refuses the operation"),
                "write true or false; an object with a reason belongs into a rule `decision`",
            );
        }
    }
}

impl Severity {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;

//! Names that stand for nothing: fields that the input has not, SPIFFE IDs that nobody can have,
//! imports and rules that nothing refers to.

use std::collections::{BTreeMap, BTreeSet};

use convoke_model::SpiffeId;
use regorus::unstable::{Expr, Module, Rule, Span};

use super::Findings;
use crate::field::{Field, Fields};
use crate::inspect::{head, imports, literal, path};
use crate::said::nearest;
use crate::visit;

/// Fields of a delegation, which the document has as a whole.
///
/// Source: [`crate::Question`].
const DELEGATION: &[&str] = &["chain", "depth", "scope", "budget", "expires_at"];

pub(super) fn look(module: &Module, package: &str, decides: &str, findings: &mut Findings) {
    let mut used = Used::default();
    let mut ids: Vec<(String, &Span)> = Vec::new();
    let names = imports(module);
    for import in &module.imports {
        used.add(&path(&import.refr), package);
        input(&path(&import.refr), &import.span, findings);
    }
    for rule in &module.policy {
        visit::rule(rule, &mut |expr, stand| match expr {
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => {
                let written = path(expr);
                used.add(&written, package);
                let whole = match written.first().and_then(|root| names.get(root)) {
                    Some(target) => target.iter().chain(written.iter().skip(1)).cloned().collect(),
                    None => written,
                };
                used.add(&whole, package);
                input(&whole, expr.span(), findings);
            }
            Expr::String { .. } | Expr::RawString { .. } if !stand.in_call => {
                if let Some(text) = literal(expr)
                    && text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("spiffe:"))
                {
                    ids.push((text, expr.span()));
                }
            }
            _ => {}
        });
    }
    spiffe_ids(ids, findings);
    unused(module, decides, &used, findings);
}

/// A reference into the input that nothing stands at.
fn input(path: &[String], at: &Span, findings: &mut Findings) {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    let Some((&"input", names)) = names.split_first() else { return };
    let fields = Fields::under(names);
    let (wrong, known): (usize, Vec<&str>) = match (names, fields.iter().next()) {
        (["delegation", field, ..], _) if !DELEGATION.contains(field) => (1, DELEGATION.to_vec()),
        (["delegation", ..] | [], _) => return,
        ([_, _, ..], Some(Field::Params)) => return,
        // A text has no fields.
        (names, Some(field)) => {
            let (section, _) = field.place();
            let depth = if section.is_empty() { 1 } else { 2 };
            if names.len() <= depth {
                return;
            }
            (depth, Vec::new())
        }
        ([first, ..], None) => {
            let below: Vec<&str> = Field::ALL
                .iter()
                .map(|field| field.place())
                .filter(|(section, _)| section == first)
                .map(|(_, name)| name)
                .collect();
            if below.is_empty() {
                let sections = Field::ALL.iter().map(|field| field.place());
                let top =
                    sections.map(|(section, name)| if section.is_empty() { name } else { section });
                (0, top.collect())
            } else {
                (1, below)
            }
        }
    };
    let upto = |last: Option<&str>| {
        let mut path = vec!["input"];
        path.extend(names.iter().take(wrong));
        path.extend(last);
        path.join(".")
    };
    let cure = match names.get(wrong).and_then(|name| nearest(name, known.iter().copied())) {
        Some(meant) => format!("did you mean `{}`?", upto(Some(meant))),
        None if known.is_empty() => format!("`{}` is a text and has no fields", upto(None)),
        None => format!("`{}` has {}", upto(None), known_once(&known).join(", ")),
    };
    let message = format!("the input has no `{}`", upto(names.get(wrong).copied()));
    findings.add("unknown-input", at, message, cure);
}

fn known_once<'a>(known: &[&'a str]) -> Vec<&'a str> {
    let mut once: Vec<&str> = Vec::new();
    for name in known {
        if !once.contains(name) {
            once.push(name);
        }
    }
    once
}

/// Texts that look like SPIFFE IDs and are compared, or listed to be compared.
fn spiffe_ids(ids: Vec<(String, &Span)>, findings: &mut Findings) {
    let mut spelled: BTreeMap<String, String> = BTreeMap::new();
    let mut ids = ids;
    ids.sort_by_key(|(_, span)| span.start);
    for (id, at) in ids {
        if let Err(error) = SpiffeId::parse(&id) {
            findings.add(
                "spiffe-id",
                at,
                format!("`{id}` is equal to no SPIFFE ID: {error}"),
                "SPIFFE IDs are written spiffe://trust-domain/path, with the trust domain in lower \
                 case; for a prefix use `startswith`",
            );
            continue;
        }
        match spelled.get(&id.to_lowercase()) {
            Some(other) if *other != id => findings.add(
                "spiffe-id-case",
                at,
                format!("`{id}` and `{other}` differ in case alone, and are two callers"),
                "SPIFFE IDs are compared byte for byte; write the one that the agent has",
            ),
            Some(_) => {}
            None => {
                spelled.insert(id.to_lowercase(), id);
            }
        }
    }
}

/// The first names of references, and of those into the package.
#[derive(Default)]
struct Used {
    roots: BTreeSet<String>,
    rules: BTreeSet<String>,
    /// Whether a reference may reach any rule.
    all: bool,
}

impl Used {
    fn add(&mut self, path: &[String], package: &str) {
        let Some(root) = path.first() else { return };
        self.roots.insert(root.clone());
        if root != "data" {
            self.rules.insert(root.clone());
            return;
        }
        let package: Vec<&str> = package.split('.').collect();
        let below = path.iter().skip(1);
        if path.len() <= package.len() + 1 {
            // `data`, or a part of the package's name: what follows is only known later.
            self.all |= below.zip(&package).all(|(name, own)| name == own);
        } else if below.clone().zip(&package).all(|(name, own)| name == own) {
            self.rules.extend(below.skip(package.len()).take(1).cloned());
        }
    }
}

fn unused(module: &Module, decides: &str, used: &Used, findings: &mut Findings) {
    for import in &module.imports {
        let target = path(&import.refr);
        if !matches!(target.first().map(String::as_str), Some("data" | "input")) {
            continue;
        }
        let name = import.r#as.as_ref().map(|span| span.text().to_owned());
        if let Some(name) = name.or_else(|| target.last().cloned())
            && !used.roots.contains(&name)
        {
            findings.add(
                "unused-import",
                &import.span,
                format!("nothing refers to the import `{name}`"),
                "remove it, or refer to it",
            );
        }
    }
    if used.all {
        return;
    }
    let mut said = BTreeSet::new();
    for rule in &module.policy {
        let names = path(head(rule).0);
        let Some(name) = names.first() else { continue };
        let is_asked = name == decides || name == "allow" || name == "reason";
        if is_asked || name.starts_with("test_") || used.rules.contains(name) {
            continue;
        }
        if said.insert(name.clone()) {
            let (Rule::Spec { span, .. } | Rule::Default { span, .. }) = &**rule;
            findings.add(
                "unused-rule",
                span,
                format!("nothing refers to the rule `{name}`, so it decides nothing"),
                format!("refer to it from `{decides}`, or remove it"),
            );
        }
    }
}

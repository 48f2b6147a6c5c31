//! What a decision depends on, and the language it is written in: good to know, nothing to change.

use regorus::unstable::{Expr, Module, Span};

use super::Findings;
use crate::engine::Program;
use crate::field::Field;
use crate::inspect::path;
use crate::visit;

pub(super) fn look(module: &Module, program: &Program, findings: &mut Findings) {
    let package = &module.package.span;
    if program.v0 {
        findings.add(
            "rego-v0",
            package,
            "this is Rego v0, read with the keywords of v1".to_owned(),
            "nothing to do; in v1, write `if` before a body and `contains` before a set's member",
        );
    }
    let mut each_time = false;
    if program.reads.has(Field::Params) {
        each_time = true;
        findings.add(
            "reads-params",
            first(module, |path| reads(path, Field::Params)).unwrap_or(package),
            "reads the parameters of the call, so each call is decided anew".to_owned(),
            "say the type of what a rule reads, as in `is_string(input.request.params.text)`",
        );
    }
    let time = |path: &[String]| path.first().is_some_and(|root| root == "time") && path.len() == 2;
    let at = first(module, |path| {
        time(path) || reads(path, Field::Timestamp) || reads(path, Field::TimestampAlias)
    });
    if let Some(at) = at {
        each_time = true;
        findings.add(
            "reads-time",
            at,
            "depends on the time, so each call is decided anew".to_owned(),
            "nothing to do; the time is the request's own, in UTC",
        );
    }
    let is_remembered = program.pure && !program.reads.iter().any(Field::is_volatile);
    if !is_remembered && !each_time {
        let at = first(module, |path| {
            program.reads.iter().any(|field| field.is_volatile() && reads(path, field))
        });
        findings.add(
            "evaluated-each-time",
            at.unwrap_or(package),
            "reads what differs from call to call, or uses `with`, `print` or chance, so each call \
             is decided anew"
                .to_owned(),
            "name single fields, such as `input.request.method`, in the place of whole sections",
        );
    }
}

/// Whether a reference can see `field`.
fn reads(path: &[String], field: Field) -> bool {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    match names.split_first() {
        Some((&"input", path)) => crate::field::Fields::under(path).has(field),
        _ => false,
    }
}

/// Where the first reference is that `matches`.
fn first(module: &Module, matches: impl Fn(&[String]) -> bool) -> Option<&Span> {
    let mut found: Vec<&Span> = Vec::new();
    let look = |expr: &Expr| matches(&path(expr));
    let imports = module.imports.iter().filter(|import| look(&import.refr));
    found.extend(imports.map(|import| &import.span));
    for rule in &module.policy {
        visit::rule(rule, &mut |expr, _| {
            let is_reference =
                matches!(expr, Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. });
            if is_reference && look(expr) {
                found.push(expr.span());
            }
        });
    }
    found.into_iter().min_by_key(|span| span.start)
}

//! Rules that let in more than anybody means: everything, a whole trust domain, the anonymous; and
//! rules that let in nothing.

use std::collections::BTreeMap;

use regorus::unstable::{
    BoolOp, Expr, Literal, LiteralStmt, Module, Query, Rule, RuleBody, RuleHead,
};

use super::{Findings, rules};
use crate::inspect::{literal, path};
use crate::visit;

/// How many rules deep a condition is followed.
const DEPTH_MAX: usize = 8;

pub(super) fn look(module: &Module, decides: &str, findings: &mut Findings) {
    let mut allows_by_default = false;
    for rule in rules(module, decides) {
        match rule {
            Rule::Default { span, value, .. } if allows(value) => {
                allows_by_default = true;
                findings.add(
                    "allows-everything",
                    span,
                    format!("`{decides}` is true by default: every caller may do everything"),
                    format!("write `default {decides} := false` and say who may do what"),
                );
            }
            Rule::Spec { span, head: RuleHead::Compr { assign, .. }, bodies } => {
                let value = assign.as_ref().map(|assign| &*assign.value);
                if bodies.iter().all(|body| is_empty(&body.query))
                    && value.is_none_or(allows)
                    && bodies.iter().all(|body| !body.is_else)
                {
                    findings.add(
                        "allows-everything",
                        span,
                        format!("`{decides}` is true without a condition: every caller may do everything"),
                        "say who may do what",
                    );
                }
                for body in bodies {
                    let value = body.assign.as_ref().map(|assign| &*assign.value);
                    let own = if body.is_else { value } else { value.or(assign_of(rule)) };
                    look_at_body(module, body, own.is_none_or(may_allow), findings);
                }
            }
            _ => {}
        }
    }
    if allows_by_default {
        for rule in rules(module, decides) {
            let Rule::Spec { span, head: RuleHead::Compr { assign, .. }, bodies } = rule else {
                continue;
            };
            let own = bodies.iter().filter_map(|body| body.assign.as_ref());
            let mut values = assign.iter().chain(own).map(|assign| &*assign.value);
            if values.all(allows) {
                findings.add(
                    "unreachable",
                    span,
                    format!("makes no difference, since `{decides}` is true by default"),
                    format!("write `default {decides} := false`"),
                );
            }
        }
    }
}

fn assign_of(rule: &Rule) -> Option<&Expr> {
    match rule {
        Rule::Spec { head: RuleHead::Compr { assign, .. }, .. } => {
            assign.as_ref().map(|assign| &*assign.value)
        }
        _ => None,
    }
}

fn look_at_body(module: &Module, body: &RuleBody, may_allow: bool, findings: &mut Findings) {
    if let Some(never) = body.query.stmts.iter().find(|statement| is_never(statement)) {
        findings.add(
            "unreachable",
            &never.span,
            "this condition is never true, so its rule never is".to_owned(),
            "remove the rule, or the condition",
        );
        return;
    }
    if !may_allow {
        return;
    }
    if let Some(domain) = whole_domain(module, &body.query, 0) {
        findings.add(
            "whole-domain",
            &domain.span,
            "asks for the caller's trust domain and nothing else: every agent of the domain may do \
             everything"
                .to_owned(),
            "name the callers, as in `input.caller.spiffe_id == \"spiffe://…\"`, or the methods",
        );
    }
    negations(&body.query, findings);
}

/// Whether a value is true, or an object that allows.
fn allows(value: &Expr) -> bool {
    match value {
        Expr::Bool { value, .. } => value.as_bool().is_ok_and(|value| *value),
        Expr::Object { fields, .. } => fields
            .iter()
            .any(|(_, key, value)| literal(key).is_some_and(|key| key == "allow") && allows(value)),
        _ => false,
    }
}

/// Whether a value may be true, as far as the text says.
fn may_allow(value: &Expr) -> bool {
    match value {
        Expr::Bool { .. } => allows(value),
        Expr::Object { fields, .. } => fields.iter().any(|(_, key, value)| {
            literal(key).is_none_or(|key| key == "allow") && may_allow(value)
        }),
        _ => true,
    }
}

/// Whether a body is nothing but `true`.
fn is_empty(query: &Query) -> bool {
    query.stmts.iter().all(|statement| match &statement.literal {
        Literal::Expr { expr, .. } => is_bool(expr, true),
        _ => false,
    })
}

fn is_bool(expr: &Expr, expected: bool) -> bool {
    match expr {
        Expr::Bool { value, .. } => value.as_bool().is_ok_and(|value| *value == expected),
        _ => false,
    }
}

/// Whether a condition is false as it stands.
fn is_never(statement: &LiteralStmt) -> bool {
    match &statement.literal {
        Literal::Expr { expr, .. } => match &**expr {
            Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } => match (constant(lhs), constant(rhs))
            {
                (Some(lhs), Some(rhs)) => lhs != rhs,
                _ => false,
            },
            expr => is_bool(expr, false),
        },
        Literal::NotExpr { expr, .. } => is_bool(expr, true),
        _ => false,
    }
}

fn constant(expr: &Expr) -> Option<&regorus::Value> {
    match expr {
        Expr::String { value, .. }
        | Expr::RawString { value, .. }
        | Expr::Number { value, .. }
        | Expr::Bool { value, .. } => Some(value),
        _ => None,
    }
}

/// The statement that asks for a trust domain, if all others of the body only give names.
fn whole_domain<'a>(module: &'a Module, query: &'a Query, depth: usize) -> Option<&'a LiteralStmt> {
    let mut names: BTreeMap<&str, What> = BTreeMap::new();
    let mut found = None;
    for statement in &query.stmts {
        if !statement.with_mods.is_empty() {
            return None;
        }
        let expr = match &statement.literal {
            Literal::SomeVars { .. } => continue,
            Literal::Expr { expr, .. } => &**expr,
            _ => return None,
        };
        match expr {
            Expr::AssignExpr { lhs, rhs, .. } => match &**lhs {
                Expr::Var { span, .. } => {
                    names.insert(span.text(), What::of(rhs, &names));
                }
                _ => return None,
            },
            expr if is_bool(expr, true) => {}
            // Each of these is defined for whoever has an identity.
            expr if What::of(expr, &names) != What::Other => {}
            expr if asks_for_domain(expr, &names) => found = found.or(Some(statement)),
            Expr::Var { span, .. } if depth < DEPTH_MAX && !names.contains_key(span.text()) => {
                let mut bodies = rules(module, span.text()).flat_map(|rule| match rule {
                    Rule::Spec { bodies, .. } => &bodies[..],
                    Rule::Default { .. } => &[],
                });
                if !bodies.any(|body| whole_domain(module, &body.query, depth + 1).is_some()) {
                    return None;
                }
                found = found.or(Some(statement));
            }
            _ => return None,
        }
    }
    found
}

/// What an expression is of the caller or the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The caller's SPIFFE ID.
    Id,
    /// The caller's SPIFFE ID in parts, behind `split`.
    Parts,
    /// The caller's trust domain.
    Domain,
    /// The agent's own trust domain.
    OwnDomain,
    /// How far the caller's domain is trusted.
    Level,
    Other,
}

impl What {
    fn of(expr: &Expr, names: &BTreeMap<&str, Self>) -> Self {
        if let Expr::Var { span, .. } = expr {
            return names.get(span.text()).copied().unwrap_or(Self::Other);
        }
        let path = path(expr);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match *path.as_slice() {
            ["input", "caller", "spiffe_id"] | ["input", "caller_spiffe_id"] => return Self::Id,
            ["input", "caller", "trust_domain" | "tenant"] | ["input", "caller_trust_domain"] => {
                return Self::Domain;
            }
            ["input", "caller", "trust_level"] => return Self::Level,
            ["input", "agent", "trust_domain"] | ["input", "resource_trust_domain"] => {
                return Self::OwnDomain;
            }
            _ => {}
        }
        match expr {
            Expr::Call { fcn, params, .. } if crate::inspect::path(fcn) == ["split"] => {
                match params.first().map(|of| Self::of(of, names)) {
                    Some(Self::Id) => Self::Parts,
                    _ => Self::Other,
                }
            }
            // Between the second and the third slash of an ID is its trust domain.
            Expr::RefBrack { refr, index, .. } if Self::of(refr, names) == Self::Parts => {
                match &**index {
                    Expr::Number { value, .. } if *value == regorus::Value::from(2_u64) => {
                        Self::Domain
                    }
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

/// Whether a condition is about the caller's trust domain alone.
fn asks_for_domain(expr: &Expr, names: &BTreeMap<&str, What>) -> bool {
    let what = |expr: &Expr| What::of(expr, names);
    let is_domain = |expr: &Expr| matches!(what(expr), What::Domain | What::Level);
    match expr {
        Expr::BoolExpr { op: BoolOp::Eq, lhs, rhs, .. } => {
            let is_given = |expr: &Expr| literal(expr).is_some() || what(expr) == What::OwnDomain;
            (is_domain(lhs) && is_given(rhs)) || (is_domain(rhs) && is_given(lhs))
        }
        Expr::Membership { key: None, value, collection, .. } => match &**collection {
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                is_domain(value) && items.iter().all(|item| literal(item).is_some())
            }
            _ => false,
        },
        Expr::Call { fcn, params, .. } if path(fcn) == ["startswith"] => match &params[..] {
            [of, prefix] => {
                what(of) == What::Id
                    && literal(prefix).is_some_and(|prefix| {
                        let domain = prefix.strip_prefix("spiffe://").unwrap_or(&prefix);
                        domain.trim_end_matches('/').find('/').is_none()
                    })
            }
            _ => false,
        },
        _ => false,
    }
}

/// A `not` about the caller in a body that asks nothing of the caller otherwise.
fn negations(query: &Query, findings: &mut Findings) {
    let is_caller = |expr: &Expr| {
        let path = path(expr);
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        matches!(
            *path.as_slice(),
            ["input", "caller" | "caller_spiffe_id" | "caller_trust_domain", ..]
        )
    };
    let mut negated = Vec::new();
    for statement in &query.stmts {
        let mut asks = false;
        visit::statement(statement, &mut |expr, _| asks |= is_caller(expr));
        match &statement.literal {
            // `not input.caller.spiffe_id` says in so many words that it is about the anonymous.
            Literal::NotExpr { expr, .. } if asks && is_caller(expr) => return,
            Literal::NotExpr { .. } if asks => negated.push(statement),
            _ if asks => return,
            // What stands behind another rule's name may ask for the caller.
            Literal::Expr { expr, .. } if !is_about_the_request(expr) => return,
            _ => {}
        }
    }
    for statement in negated {
        findings.add(
            "negation-admits",
            &statement.span,
            "is true of every caller but those named, and of callers without an identity"
                .to_owned(),
            "say who may: `input.caller.spiffe_id in {…}`",
        );
    }
}

/// Whether a condition is made of the input and of constants alone, without rules or data.
fn is_about_the_request(expr: &Expr) -> bool {
    let mut is = true;
    visit::expr(expr, &mut |expr, stand| {
        if let Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } = expr {
            let path = path(expr);
            let root = path.first().map(String::as_str);
            is &=
                root == Some("input") || regorus::unstable::BUILTINS.contains_key(&*path.join("."));
        }
        is &= !stand.negated;
    });
    is
}

//! What a parsed policy declares, reads and calls.
//!
//! The syntax tree is the engine's own, from a module that it calls unstable; the workspace pins
//! the engine's exact version, and a new variant of a node does not compile here.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{
    BUILTINS, Expr, Literal, LiteralStmt, Module, Query, Rule, RuleAssign, RuleHead,
};

use crate::field::Fields;
use crate::guard;
use crate::pure::is_pure;

/// What loading needs to know of a module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Names of the rules that have a value, without the package and without those that only fill
    /// in a part of an object, such as `decision.allow`.
    pub(crate) rules: BTreeSet<String>,
    /// The fields of the input document that an expression can reach. What goes on from a
    /// reference, by another name or by a key that is only known when it is evaluated, counts as
    /// reaching everything below it.
    pub(crate) reads: Fields,
    /// Whether an answer depends on nothing but [`Facts::reads`]: every call is of the module's own
    /// functions or of one that [`is_pure`], and there is no `with`, which can put any function in
    /// the place of another.
    pub(crate) pure: bool,
    /// The first call of a function that neither the module nor the engine has, and its line.
    pub(crate) unknown_function: Option<(String, u32)>,
    /// The first call of [`UNBOUNDED`] whose arguments are not small numbers in the text, and its
    /// line.
    pub(crate) unbounded_function: Option<(String, u32)>,
    /// The functions it may call that have a guard.
    pub(crate) guarded: BTreeSet<&'static str>,
    /// The first rule or function that has neither a value nor a body, and its line. It is always
    /// true, and what an `if` or `contains` behind it leaves when these words are mere names.
    pub(crate) bare_rule: Option<(String, u32)>,
    /// The first function that calls itself, perhaps by way of others, and its line.
    pub(crate) recursive_function: Option<(String, u32)>,
}

/// Functions of the engine whose result is as large as a number or a graph in their arguments says.
/// No bound on time stops them: none of them looks at the clock before it is done. One request with
/// `numbers.range(0, input.request.params.n)` took all memory of a machine.
const UNBOUNDED: &[&str] = &[
    "bits.lsh",
    "graph.reachable_paths",
    "net.cidr_expand",
    "numbers.range",
    "numbers.range_step",
    "sprintf",
];

/// Largest number in the policy's own text that such a function may be given, also as a width in
/// the format of `sprintf`.
const SMALL_NUMBER_MAX: f64 = 10_000.0;

/// Reads the facts of `module`, whose package is `package`.
pub(crate) fn inspect(module: &Module, package: &str) -> Facts {
    let mut facts = Facts { pure: true, ..Facts::default() };
    let mut functions = BTreeMap::new();
    for rule in &module.policy {
        let (refr, args) = head(rule);
        let names = path(refr);
        if facts.bare_rule.is_none() && is_bare(rule) {
            facts.bare_rule = Some((names.join("."), rule.span().line));
        }
        if args > 0 {
            functions.entry(names.join(".")).or_insert_with(BTreeSet::new);
        } else if let [name] = &*names {
            facts.rules.insert(name.clone());
        }
    }

    let imports = imports(module);
    let mut walk = Walk::default();
    for import in &module.imports {
        walk.exprs.push(&import.refr);
    }
    walk.run();
    facts.reads = walk.reads;
    facts.pure &= walk.calls.is_empty();

    let mut lines = BTreeMap::new();
    for rule in &module.policy {
        let mut walk = Walk::default();
        walk.rule(rule);
        walk.run();
        facts.reads.add(walk.reads);
        facts.pure &= !walk.has_with;
        if walk.has_with {
            facts.guarded.extend(guard::all());
        }
        let caller = path(head(rule).0).join(".");
        for Call { callee, line, is_small, has_small_format } in walk.calls {
            // As written, a name may still be a built-in function that an import seems to hide.
            let written = callee.join(".");
            let callee = local_name(callee, &imports, package);
            let is_own = functions.contains_key(&callee) && !is_builtin(&callee);
            facts.pure &= is_own || is_pure(&callee);
            facts.pure &= !is_builtin(&written) || is_pure(&written);
            facts.guarded.extend(guard::guarded(&callee));
            facts.guarded.extend(guard::guarded(&written));
            if functions.contains_key(&callee) {
                if let Some(callees) = functions.get_mut(&caller) {
                    callees.insert(callee);
                    lines.entry(caller.clone()).or_insert(line);
                }
            } else if !is_builtin(&callee)
                && facts.unknown_function.as_ref().is_none_or(|(_, first)| line < *first)
            {
                facts.unknown_function = Some((callee, line));
            } else if UNBOUNDED.contains(&&*callee)
                && !(if callee == "sprintf" { has_small_format } else { is_small })
                && facts.unbounded_function.as_ref().is_none_or(|(_, first)| line < *first)
            {
                facts.unbounded_function = Some((callee, line));
            }
        }
    }
    facts.recursive_function = functions
        .keys()
        .find(|name| reaches(&functions, name, name))
        .map(|name| (name.clone(), lines.get(name).copied().unwrap_or(0)));
    facts
}

fn is_builtin(name: &str) -> bool {
    name == "print" || BUILTINS.contains_key(name)
}

/// The name that a call has within the module, if it is one of the module's own functions spelled
/// by an import or in full; any other name as it is, with its import resolved.
fn local_name(
    callee: Vec<String>,
    imports: &BTreeMap<String, Vec<String>>,
    package: &str,
) -> String {
    let mut full = callee;
    if let Some(target) = full.first().and_then(|root| imports.get(root)) {
        full.splice(..1, target.iter().cloned());
    }
    let name = full.join(".");
    match name.strip_prefix("data.").and_then(|rest| rest.strip_prefix(package)) {
        Some(rest) => rest.strip_prefix('.').unwrap_or(&name).to_owned(),
        None => name,
    }
}

/// The names that imports bring in, and what each stands for.
pub(crate) fn imports(module: &Module) -> BTreeMap<String, Vec<String>> {
    let mut names = BTreeMap::new();
    for import in &module.imports {
        let target = path(&import.refr);
        let name = import.r#as.as_ref().map(|span| span.text().to_owned());
        if let Some(name) = name.or_else(|| target.last().cloned())
            && matches!(target.first().map(String::as_str), Some("data" | "input"))
        {
            names.insert(name, target);
        }
    }
    names
}

/// Whether `from` calls `to`, directly or through other functions.
fn reaches(calls: &BTreeMap<String, BTreeSet<String>>, from: &str, to: &str) -> bool {
    let (mut seen, mut pending) = (BTreeSet::new(), vec![from]);
    while let Some(name) = pending.pop() {
        for callee in calls.get(name).into_iter().flatten() {
            if callee == to {
                return true;
            }
            if seen.insert(callee.as_str()) {
                pending.push(callee);
            }
        }
    }
    false
}

/// A rule's reference and its number of arguments.
pub(crate) fn head(rule: &Rule) -> (&Expr, usize) {
    match rule {
        Rule::Default { refr, args, .. } => (refr, args.len()),
        Rule::Spec { head: RuleHead::Func { refr, args, .. }, .. } => (refr, args.len()),
        Rule::Spec { head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. }, .. } => {
            (refr, 0)
        }
    }
}

/// Partial sets are not bare: v0 writes their members as `names["ann"]`.
fn is_bare(rule: &Rule) -> bool {
    match rule {
        Rule::Spec { head: RuleHead::Compr { assign, .. }, bodies, .. }
        | Rule::Spec { head: RuleHead::Func { assign, .. }, bodies, .. } => {
            assign.is_none() && bodies.is_empty()
        }
        Rule::Spec { head: RuleHead::Set { .. }, .. } | Rule::Default { .. } => false,
    }
}

/// The names of a reference, up to the first that is only known when it is evaluated.
pub(crate) fn path(expr: &Expr) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::RefDot { refr, field, .. } => {
                names.push(Some(field.0.text().to_owned()));
                at = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                names.push(literal(index));
                at = refr;
            }
            Expr::Var { span, .. } => {
                names.push(Some(span.text().to_owned()));
                break;
            }
            _ => return Vec::new(),
        }
    }
    names.into_iter().rev().map_while(|name| name).collect()
}

/// The text of a string literal, with its escapes resolved.
pub(crate) fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.to_string())
        }
        _ => None,
    }
}

fn is_small_number(expr: &Expr) -> bool {
    match expr {
        Expr::Number { value, .. } => {
            value.as_f64().is_ok_and(|number| number.abs() <= SMALL_NUMBER_MAX)
        }
        _ => false,
    }
}

/// Whether `expr` is a text whose every number is small, without a width that comes from elsewhere.
fn is_small_format(expr: &Expr) -> bool {
    literal(expr).is_some_and(|format| {
        !format.contains('*')
            && format
                .split(|c: char| !c.is_ascii_digit())
                .filter(|digits| !digits.is_empty())
                .all(|digits| digits.parse::<f64>().is_ok_and(|width| width <= SMALL_NUMBER_MAX))
    })
}

/// Goes through expressions without recursion, whose depth the policy's author would choose.
#[derive(Default)]
struct Walk<'a> {
    exprs: Vec<&'a Expr>,
    queries: Vec<&'a Query>,
    reads: Fields,
    has_with: bool,
    calls: Vec<Call>,
}

/// A call of a function.
struct Call {
    callee: Vec<String>,
    line: u32,
    /// Whether all arguments are small numbers in the text.
    is_small: bool,
    /// Whether the first argument is a format in the text whose widths are small.
    has_small_format: bool,
}

impl<'a> Walk<'a> {
    fn run(&mut self) {
        loop {
            if let Some(expr) = self.exprs.pop() {
                self.expr(expr);
            } else if let Some(query) = self.queries.pop() {
                for statement in &query.stmts {
                    self.statement(statement);
                }
            } else {
                return;
            }
        }
    }

    fn rule(&mut self, rule: &'a Rule) {
        match rule {
            Rule::Default { refr, args, value, .. } => {
                self.reference(refr);
                self.exprs.extend(args.iter().map(|arg| &**arg));
                self.exprs.push(value);
            }
            Rule::Spec { head, bodies, .. } => {
                match head {
                    RuleHead::Compr { refr, assign, .. } => {
                        self.reference(refr);
                        self.assign(assign.as_ref());
                    }
                    RuleHead::Set { refr, key, .. } => {
                        self.reference(refr);
                        self.exprs.extend(key.iter().map(|key| &**key));
                    }
                    RuleHead::Func { refr, args, assign, .. } => {
                        self.reference(refr);
                        self.exprs.extend(args.iter().map(|arg| &**arg));
                        self.assign(assign.as_ref());
                    }
                }
                for body in bodies {
                    self.assign(body.assign.as_ref());
                    self.queries.push(&body.query);
                }
            }
        }
    }

    fn assign(&mut self, assign: Option<&'a RuleAssign>) {
        self.exprs.extend(assign.map(|assign| &*assign.value));
    }

    fn statement(&mut self, statement: &'a LiteralStmt) {
        for modifier in &statement.with_mods {
            self.has_with = true;
            self.exprs.push(&modifier.refr);
            self.exprs.push(&modifier.r#as);
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                self.exprs.extend(key.iter().map(|key| &**key));
                self.exprs.push(value);
                self.exprs.push(collection);
            }
            Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.exprs.push(expr),
            Literal::Every { domain, query, .. } => {
                self.exprs.push(domain);
                self.queries.push(query);
            }
        }
    }

    fn expr(&mut self, expr: &'a Expr) {
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr),
            Expr::Array { items, .. } | Expr::Set { items, .. } => {
                self.exprs.extend(items.iter().map(|item| &**item));
            }
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.exprs.push(key);
                    self.exprs.push(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.exprs.push(term);
                self.queries.push(query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.exprs.push(key);
                self.exprs.push(value);
                self.queries.push(query);
            }
            Expr::Call { span, fcn, params, .. } => {
                let is_small = params.iter().all(|param| is_small_number(param));
                let has_small_format = params.first().is_some_and(|format| is_small_format(format));
                let (callee, line) = (path(fcn), span.line);
                self.calls.push(Call { callee, line, is_small, has_small_format });
                self.reference(fcn);
                self.exprs.extend(params.iter().map(|param| &**param));
            }
            Expr::UnaryExpr { expr, .. } => self.exprs.push(expr),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::BoolExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.exprs.push(lhs);
                self.exprs.push(rhs);
            }
            Expr::Membership { key, value, collection, .. } => {
                self.exprs.extend(key.iter().map(|key| &**key));
                self.exprs.push(value);
                self.exprs.push(collection);
            }
        }
    }

    fn reference(&mut self, expr: &'a Expr) {
        let names = path(expr);
        if let Some(("input", path)) = names.split_first().map(|(root, path)| (&**root, path)) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            self.reads.add(Fields::under(&path));
        }
        let mut at = expr;
        loop {
            match at {
                Expr::RefDot { refr, .. } => at = refr,
                Expr::RefBrack { refr, index, .. } => {
                    self.exprs.push(index);
                    at = refr;
                }
                Expr::Var { .. } => return,
                base => return self.exprs.push(base),
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! What a parsed policy declares, reads and calls.
//!
//! The syntax tree is the engine's own, from a module that it calls unstable; the workspace pins
//! the engine's exact version, and a new variant of a node does not compile here.

use std::collections::{BTreeMap, BTreeSet};

use regorus::unstable::{
    BUILTINS, Expr, Literal, LiteralStmt, Module, Query, Rule, RuleAssign, RuleHead,
};

/// What loading needs to know of a module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Names of the rules that have a value, without the package and without those that only fill
    /// in a part of an object, such as `decision.allow`.
    pub(crate) rules: BTreeSet<String>,
    /// Whether an expression can reach `input.request.params`.
    pub(crate) reads_params: bool,
    /// The first call of a function that neither the module nor the engine has, and its line.
    pub(crate) unknown_function: Option<(String, u32)>,
    /// The first call of [`UNBOUNDED`] whose arguments are not small numbers in the text, and its
    /// line.
    pub(crate) unbounded_function: Option<(String, u32)>,
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
];

/// Largest number in the policy's own text that such a function may be given.
const SMALL_NUMBER_MAX: f64 = 10_000.0;

/// Reads the facts of `module`, whose package is `package`.
pub(crate) fn inspect(module: &Module, package: &str) -> Facts {
    let mut facts = Facts::default();
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
    facts.reads_params = walk.reads_params;

    let mut lines = BTreeMap::new();
    for rule in &module.policy {
        let mut walk = Walk::default();
        walk.rule(rule);
        walk.run();
        facts.reads_params |= walk.reads_params;
        let caller = path(head(rule).0).join(".");
        for Call { callee, line, is_small } in walk.calls {
            let callee = local_name(callee, &imports, package);
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
                && !is_small
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
fn imports(module: &Module) -> BTreeMap<String, Vec<String>> {
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
fn head(rule: &Rule) -> (&Expr, usize) {
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
fn path(expr: &Expr) -> Vec<String> {
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
fn literal(expr: &Expr) -> Option<String> {
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

/// Goes through expressions without recursion, whose depth the policy's author would choose.
#[derive(Default)]
struct Walk<'a> {
    exprs: Vec<&'a Expr>,
    queries: Vec<&'a Query>,
    reads_params: bool,
    calls: Vec<Call>,
}

/// A call of a function.
struct Call {
    callee: Vec<String>,
    line: u32,
    /// Whether all arguments are small numbers in the text.
    is_small: bool,
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
                self.calls.push(Call { callee: path(fcn), line: span.line, is_small });
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
        let mut names = names.iter().map(String::as_str);
        if names.next() == Some("input") {
            // Whatever ends before it names something else may go on to the parameters.
            self.reads_params |= match (names.next(), names.next()) {
                (None, _) => true,
                (Some("request"), second) => matches!(second, None | Some("params")),
                (Some(_), _) => false,
            };
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
mod tests {
    use regorus::Engine;

    use super::*;

    fn facts(rules: &str) -> Facts {
        let mut engine = Engine::new();
        let text = format!("package a.b\n{rules}\n");
        engine.add_policy("test.rego".to_owned(), text).unwrap();
        inspect(engine.get_modules().first().unwrap(), "a.b")
    }

    #[test]
    fn parameters_are_read_where_they_can_be() {
        let check =
            |rules: &str, expected| assert_eq!(facts(rules).reads_params, expected, "{rules}");
        check("allow if input.request.params.x", true);
        check("allow if input[\"request\"][`params`]", true);
        check("allow if input[\"request\"][\"\\u0070arams\"]", true);
        check("allow if input.request[input.a]", true);
        check("allow if input[x] == 1", true);
        check("allow if walk(input, [_, 1])", true);
        check("allow if { r := input.request; r[\"a\"] }", true);
        check("import input.request as r\nallow if r.x", true);
        check("import input as i\nallow if i.x", true);
        check("allow if { f(1) with input as {} }\nf(x) if x", true);
        check("allow if [input.request.params]", true);
        check("allow if every x in input.request.params { x }", true);
        check("allow if { y := {x: 1 | some x in input.request.params}; y }", true);
        check("reason contains input.request.params.x", true);
        check("allow := true if false else := input.request.params", true);
        check("f(x) := y if y := input.request\nallow if f(1)", true);

        check("allow if input.request.method == \"params\"", false);
        check("allow if input.caller[input.request.method]", false);
        check("allow if input.context.params", false);
        check("# input.request.params\nallow if input.request.timestamp", false);
        check("allow if { f(1) with input.caller as {} }\nf(x) if x", false);
        check("import input.caller as c\nallow if c.spiffe_id", false);
    }

    #[test]
    fn functions_are_known_or_named() {
        let check = |rules: &str, expected: Option<(&str, u32)>| {
            let expected = expected.map(|(name, line)| (name.to_owned(), line));
            assert_eq!(facts(rules).unknown_function, expected, "{rules}");
        };
        check("allow if startswith(\"a\", \"b\")", None);
        check("allow if { print(1); time.now_ns() > 1 }", None);
        check("f(x) := x\nallow if f(1)", None);
        check("f(x) := x\nallow if data.a.b.f(1)", None);
        check("import data.a.b.f as g\nf(x) := x\nallow if g(1)", None);
        check("default f(_) := 1\nallow if f(1)", None);
        check("allow if http.send({})", Some(("http.send", 2)));
        check("allow if {\n x := [y | y := io.jwt.decode(\"\")]\n x }", Some(("io.jwt.decode", 3)));
        check("f(x) := x\nallow if data.a.c.f(1)", Some(("data.a.c.f", 3)));
        check("allow if not nope(nope2(1))", Some(("nope", 2)));
    }

    #[test]
    fn what_makes_as_much_as_it_is_told_is_told_little() {
        let check = |rules: &str, expected: Option<(&str, u32)>| {
            let expected = expected.map(|(name, line)| (name.to_owned(), line));
            assert_eq!(facts(rules).unbounded_function, expected, "{rules}");
        };
        check("allow if 3 in numbers.range(1, 10000)", None);
        check("allow if 3 in numbers.range(1, 10001)", Some(("numbers.range", 2)));
        check("allow if 3 in numbers.range(0, input.request.params.n)", Some(("numbers.range", 2)));
        check("allow if {\n n := 5\n 3 in numbers.range(0, n) }", Some(("numbers.range", 4)));
        check("import data.numbers as n\nallow if n.range(1, 2)", None);
        check("allow if bits.lsh(1, input.n) > 0", Some(("bits.lsh", 2)));
        check("allow if count(net.cidr_expand(input.c)) > 0", Some(("net.cidr_expand", 2)));
        check("allow if count(net.cidr_expand(\"10.0.0.0/8\")) > 0", Some(("net.cidr_expand", 2)));
    }

    #[test]
    fn bare_rules_are_found() {
        let check = |rules: &str, expected: Option<(&str, u32)>| {
            let mut engine = Engine::new();
            engine.set_rego_v0(true);
            engine.add_policy("test.rego".to_owned(), format!("package a.b\n{rules}\n")).unwrap();
            let facts = inspect(engine.get_modules().first().unwrap(), "a.b");
            let expected = expected.map(|(name, line)| (name.to_owned(), line));
            assert_eq!(facts.bare_rule, expected, "{rules}");
        };
        // Without the import, this is what the words of v1 come to.
        check("allow if { false }", Some(("allow", 2)));
        check("f(x) if { false }", Some(("f", 2)));
        check("ok { true }\nallow", Some(("allow", 3)));
        check("default allow = false\nallow { false }\nf(x) = 1\nnames[\"ann\"]", None);
    }

    #[test]
    fn recursion_is_found() {
        let check = |rules: &str, expected: Option<(&str, u32)>| {
            let expected = expected.map(|(name, line)| (name.to_owned(), line));
            assert_eq!(facts(rules).recursive_function, expected, "{rules}");
        };
        check("f(x) := x\ng(x) := f(f(x))\nallow if g(1)", None);
        check("f(x) := f(x)", Some(("f", 2)));
        check("f(x) := g(x)\ng(x) := y if y := data.a.b.f(x)", Some(("f", 2)));
    }
}

//! A walk through a rule's expressions, for those who look at a policy and do not run it.

use regorus::unstable::{Expr, Literal, LiteralStmt, Query, Rule, RuleHead};

/// How an expression stands in its rule.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stand {
    /// Somewhere in an argument of a call.
    pub(crate) in_call: bool,
    /// Somewhere behind a `not`.
    pub(crate) negated: bool,
}

/// Calls `look` with every expression of `rule`: a reference as a whole, and then the expressions in
/// its brackets.
pub(crate) fn rule<'a>(rule: &'a Rule, look: &mut impl FnMut(&'a Expr, Stand)) {
    let mut walk = Walk { look, pending: Vec::new() };
    match rule {
        Rule::Default { args, value, .. } => {
            walk.push(args.iter().map(|arg| &**arg), Stand::default());
            walk.push([&**value], Stand::default());
        }
        Rule::Spec { head, bodies, .. } => {
            let (args, key, assign) = match head {
                RuleHead::Compr { assign, .. } => (&[][..], None, assign.as_ref()),
                RuleHead::Set { key, .. } => (&[][..], key.as_ref(), None),
                RuleHead::Func { args, assign, .. } => (&args[..], None, assign.as_ref()),
            };
            let (RuleHead::Compr { refr, .. }
            | RuleHead::Set { refr, .. }
            | RuleHead::Func { refr, .. }) = head;
            walk.brackets(refr, Stand::default());
            walk.push(args.iter().chain(key).map(|arg| &**arg), Stand::default());
            walk.push(assign.map(|assign| &*assign.value), Stand::default());
            for body in bodies {
                walk.push(body.assign.as_ref().map(|assign| &*assign.value), Stand::default());
                walk.query(&body.query, Stand::default());
            }
        }
    }
    walk.run();
}

/// As [`rule`], for one statement.
pub(crate) fn statement<'a>(statement: &'a LiteralStmt, look: &mut impl FnMut(&'a Expr, Stand)) {
    let mut walk = Walk { look, pending: Vec::new() };
    walk.statement(statement, Stand::default());
    walk.run();
}

/// As [`rule`], for one expression.
pub(crate) fn expr<'a>(expr: &'a Expr, look: &mut impl FnMut(&'a Expr, Stand)) {
    let mut walk = Walk { look, pending: vec![(expr, Stand::default())] };
    walk.run();
}

/// Without recursion into expressions, whose depth the policy's author chooses.
struct Walk<'a, 'l, L> {
    look: &'l mut L,
    pending: Vec<(&'a Expr, Stand)>,
}

impl<'a, L: FnMut(&'a Expr, Stand)> Walk<'a, '_, L> {
    fn push(&mut self, exprs: impl IntoIterator<Item = &'a Expr>, stand: Stand) {
        self.pending.extend(exprs.into_iter().map(|expr| (expr, stand)));
    }

    fn run(&mut self) {
        while let Some((expr, stand)) = self.pending.pop() {
            (self.look)(expr, stand);
            match expr {
                Expr::String { .. }
                | Expr::RawString { .. }
                | Expr::Number { .. }
                | Expr::Bool { .. }
                | Expr::Null { .. }
                | Expr::Var { .. } => {}
                Expr::RefDot { .. } | Expr::RefBrack { .. } => self.brackets(expr, stand),
                Expr::Array { items, .. } | Expr::Set { items, .. } => {
                    self.push(items.iter().map(|item| &**item), stand);
                }
                Expr::Object { fields, .. } => {
                    for (_, key, value) in fields {
                        self.push([&**key, &**value], stand);
                    }
                }
                Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                    self.push([&**term], stand);
                    self.query(query, stand);
                }
                Expr::ObjectCompr { key, value, query, .. } => {
                    self.push([&**key, &**value], stand);
                    self.query(query, stand);
                }
                Expr::Call { fcn, params, .. } => {
                    self.push([&**fcn], stand);
                    let stand = Stand { in_call: true, ..stand };
                    self.push(params.iter().map(|param| &**param), stand);
                }
                Expr::UnaryExpr { expr, .. } => self.push([&**expr], stand),
                Expr::BinExpr { lhs, rhs, .. }
                | Expr::BoolExpr { lhs, rhs, .. }
                | Expr::ArithExpr { lhs, rhs, .. }
                | Expr::AssignExpr { lhs, rhs, .. } => self.push([&**lhs, &**rhs], stand),
                Expr::Membership { key, value, collection, .. } => {
                    self.push(key.iter().map(|key| &**key), stand);
                    self.push([&**value, &**collection], stand);
                }
            }
        }
    }

    /// What a reference has in its brackets, and what it begins with if that is no name.
    fn brackets(&mut self, reference: &'a Expr, stand: Stand) {
        let mut at = reference;
        loop {
            match at {
                Expr::RefDot { refr, .. } => at = refr,
                Expr::RefBrack { refr, index, .. } => {
                    self.push([&**index], stand);
                    at = refr;
                }
                Expr::Var { .. } => return,
                base => return self.push([base], stand),
            }
        }
    }

    fn query(&mut self, query: &'a Query, stand: Stand) {
        for statement in &query.stmts {
            self.statement(statement, stand);
        }
    }

    fn statement(&mut self, statement: &'a LiteralStmt, stand: Stand) {
        for modifier in &statement.with_mods {
            self.push([&*modifier.refr, &*modifier.r#as], stand);
        }
        match &statement.literal {
            Literal::SomeVars { .. } => {}
            Literal::SomeIn { key, value, collection, .. } => {
                self.push(key.iter().map(|key| &**key), stand);
                self.push([&**value, &**collection], stand);
            }
            Literal::Expr { expr, .. } => self.push([&**expr], stand),
            Literal::NotExpr { expr, .. } => {
                self.push([&**expr], Stand { negated: true, ..stand });
            }
            Literal::Every { domain, query, .. } => {
                self.push([&**domain], stand);
                self.query(query, stand);
            }
        }
    }
}

//! What is found in a module, and what is not.

use regorus::Engine;

use super::*;
use crate::field::{Field, Fields};

fn facts(rules: &str) -> Facts {
    let mut engine = Engine::new();
    let text = format!("package a.b\n{rules}\n");
    engine.add_policy("test.rego".to_owned(), text).unwrap();
    inspect(engine.get_modules().first().unwrap(), "a.b")
}

#[test]
fn parameters_are_read_where_they_can_be() {
    let check = |rules: &str, expected| {
        assert_eq!(facts(rules).reads.has(Field::Params), expected, "{rules}");
    };
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
fn what_an_expression_can_reach_is_read() {
    let check = |rules: &str, expected: &[&[&str]]| {
        let mut fields = Fields::default();
        for path in expected {
            fields.add(Fields::under(path));
        }
        assert_eq!(facts(rules).reads, fields, "{rules}");
    };
    const ALL: &[&[&str]] = &[&[]];
    const METHOD: &[&[&str]] = &[&["request", "method"]];
    const CALLER: &[&[&str]] = &[&["caller"]];

    check("allow := true", &[]);
    check("# input\nallow if \"input\" == `input`", &[]);
    check("allow if data.input", &[]);
    check("allow if input.other", &[]);
    check("allow if input.request.method == \"m\"", METHOD);
    check("allow if input[\"request\"].method", METHOD);
    check("allow if input[`request`][\"meth\\u006fd\"]", METHOD);
    check("allow if input.request.method.deeper[x]", METHOD);
    check("allow if input.action\nother if input.agent.name", &[&["action"], &["agent", "name"]]);

    // Keys that are only known later.
    check("allow if { some k; input[k] }", ALL);
    check("allow if input[_]", ALL);
    check("allow if input[input.action].method", ALL);
    check("allow if input[1]", ALL);
    check("allow if input[concat(\"\", [\"request\"])].method", ALL);
    check("allow if { some k; input.caller[k] == 1 }", CALLER);
    check("allow if input.caller[input.action]", &[&["caller"], &["action"]]);
    check("k := \"path\"\nallow if input.caller[k]", CALLER);

    // Other names.
    check("import input as i\nallow if i.action", ALL);
    check("import input.caller as c\nallow if c.path", CALLER);
    check("import input.caller\nallow if caller.path", CALLER);
    check("import input[\"caller\"].path\nallow if path", &[&["caller", "path"]]);
    check("allow if { i := input; i.action }", ALL);
    check("allow if { i = input; i.action }", ALL);
    check("allow if { {\"action\": a} = input; a }", ALL);
    check("allow if { c := input.caller; c.path }", CALLER);
    check("all := input\nallow if all.action", ALL);
    check("c := input.caller\nallow if data.a.b.c.path", CALLER);
    check("allow if {\"i\": input}.i.action", ALL);
    check("allow if [input][0].action", ALL);

    // Functions.
    check("f(x) := x.path\nallow if f(input)", ALL);
    check("f(x) := x.path\nallow if f(input.caller)", CALLER);
    check("f(x) := input.caller.path\nallow if f(1)", &[&["caller", "path"]]);
    check("default f(_) := false\nf(x) if x == input.action\nallow if f(1)", &[&["action"]]);
    check("f(input.action) := 1\nallow if f(1)", &[&["action"]]);
    check("allow if object.get(input, [\"caller\", \"path\"], 1)", ALL);
    check("allow if object.get(input.caller, \"path\", 1)", CALLER);
    check("allow if walk(input, [[\"action\"], _])", ALL);
    check("allow if { [p, v] := walk(input.caller)[_] }", CALLER);
    check("allow if json.marshal(input) == \"\"", ALL);
    check("allow if count(object.keys(input.caller)) == 0", CALLER);
    check("allow if print(input.action)", &[&["action"]]);

    // Statements.
    check("allow if { f with input as {} }\nf if true", ALL);
    check("allow if { f with input.action as 1 }\nf if true", &[&["action"]]);
    check(
        "allow if { f with input.caller.path as input.action }\nf if true",
        &[&["caller", "path"], &["action"]],
    );
    check("allow if { f with data.x as input.action }\nf if true", &[&["action"]]);
    check("allow if { some x in input.caller; x == 1 }", CALLER);
    check("allow if { some input.action, x in {1: 2}; x }", &[&["action"]]);
    check("allow if every x in input.caller { x == input.action }", &[&["caller"], &["action"]]);
    check("allow if not input.action", &[&["action"]]);
    check("allow if { x := [v | v := input.caller[_]]; x }", CALLER);
    check("allow if { x := {input.action | true}; x }", &[&["action"]]);
    check("allow if { x := {k: v | some k, v in input}; x }", ALL);
    check("allow if input.action in [input.caller.path]", &[&["action"], &["caller", "path"]]);
    check("allow if 1 + input.action < -1", &[&["action"]]);
    check("allow if count({1} | {input.action}) == 1", &[&["action"]]);

    // Rules.
    check("allow := input.action", &[&["action"]]);
    check("allow if false else := input.action", &[&["action"]]);
    check("allow if { false } else if { input.action }", &[&["action"]]);
    check("names contains input.action\nallow if names", &[&["action"]]);
    check("names[input.action] := 1\nallow if names", &[&["action"]]);
    check("names[input.action].x if true\nallow if names", &[&["action"]]);
    check("names contains x if some x in input.caller", CALLER);
    check("allow := x if { x := input.caller } else := false", CALLER);
}

#[test]
fn answers_that_depend_on_more_are_told_apart() {
    let check = |rules: &str, expected| assert_eq!(facts(rules).pure, expected, "{rules}");
    check("allow := true", true);
    check("allow if startswith(input.request.method, \"a\")", true);
    check("f(x) := g(x)\ng(x) := count(x)\nallow if data.a.b.f(input)", true);
    check("import data.a.b.f as g\nf(x) := x\nallow if g(1)", true);
    check("default f(_) := 1\nallow if f(1)", true);

    check("allow if time.now_ns() > 1", false);
    check("allow if time[\"now_ns\"]() > 1", false);
    check("allow if time.clock(1)[0] == 1", false);
    check("allow if rand.intn(\"x\", 2) == 1", false);
    check("allow if uuid.rfc4122(\"x\") == \"\"", false);
    check("allow if trace(\"x\")", false);
    check("allow if print(1)", false);
    check("f(x) := [x | rand.intn(\"x\", 2) == 1]\nallow if f(1)", false);
    check("allow := x if { false; x := 1 } else := rand.intn(\"x\", 2)", false);
    check("names contains rand.intn(\"x\", 2)\nallow if names", false);
    check("allow if {\"a\": rand.intn(\"x\", 2)}.a == 1", false);
    check("allow if input[rand.intn(\"x\", 2)]", false);
    // A function of the module's own under such a name, however it is spelled.
    check("rand.intn(x, y) := 1\nallow if rand.intn(1, 2) == 1", false);
    check("rand.intn(x, y) := 1\nallow if data.a.b.rand.intn(1, 2) == 1", false);
    check("import data.a.b as rand\nintn(x, y) := 1\nallow if rand.intn(1, 2) == 1", false);
    // `with` puts one function in the place of another, without a call of it.
    check("allow if count([1]) == 1 with count as rand.intn", false);
    check("allow if f with input.action as 1\nf if true", false);
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
    check("allow if sprintf(\"%s-%05d\", [input.a, input.n]) == \"x\"", None);
    check("allow if sprintf(input.f, [1]) == \"x\"", Some(("sprintf", 2)));
    check("allow if sprintf(\"%1000000000d\", [1]) == \"x\"", Some(("sprintf", 2)));
    check("allow if sprintf(\"%*d\", [9, 1]) == \"x\"", Some(("sprintf", 2)));
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

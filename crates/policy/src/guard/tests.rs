//! What is refused before it begins, and that what is honest is not.

use convoke_model::Reason;

use super::*;
use crate::engine::new_engine;
use crate::fixture::{Ask, load};

/// Whether the guard of `function` refuses `expression` with parameters `x` and `y`.
fn is_refused(function: &str, expression: &str, x: &str, y: &str) -> bool {
    let expression = expression.replace('$', "input.request.params.");
    let rules = format!("package agentweave.authz\nallow if {{ r := {expression}; r == null }}\n");
    let params = format!("{{\"x\":{x},\"y\":{y}}}");
    let reason = Ask { params: Some(&params), ..Ask::default() }.decide(&load(&rules)).reason;
    let expected = format!(
        "test.rego:2: `{function}` would do more than 16777216 bytes of work; bound the size of \
         what it is given"
    );
    match reason {
        Reason::Error(message) if message == expected => true,
        Reason::Undefined => false,
        other => panic!("{expression}: {other:?}"),
    }
}

fn text(piece: &str, times: usize) -> String {
    format!("\"{}\"", piece.repeat(times))
}

fn list(item: &str, times: usize) -> String {
    format!("[{}]", vec![item; times].join(","))
}

/// An array in arrays.
fn nested(depth: usize, times: usize) -> String {
    format!("{}{}{}", "[".repeat(depth), list("1", times), "]".repeat(depth))
}

fn objects(count: usize) -> String {
    let objects: Vec<String> = (0..count).map(|n| format!("{{\"k{n}\":{n}}}")).collect();
    format!("[{}]", objects.join(","))
}

#[test]
fn what_grows_beyond_its_arguments_is_refused_and_what_is_honest_is_not() {
    let checked = std::cell::RefCell::new(Vec::new());
    let check = |expression: &str, honest: (String, String), hostile: (String, String)| {
        let function = expression.split('(').next().unwrap_or_default();
        assert!(!is_refused(function, expression, &honest.0, &honest.1), "{expression}: honest");
        assert!(is_refused(function, expression, &hostile.0, &hostile.1), "{expression}: hostile");
        checked.borrow_mut().push(guarded(function).unwrap());
    };
    let a = |times| text("a", times);
    let none = || "null".to_owned();
    check("concat($x, $y)", (a(1), list("\"a\"", 9)), (a(40_000), list("\"a\"", 1000)));
    check("glob.match($x, $y, \"a.b\")", (a(9), list("\".\"", 1)), (a(9000), list("\".\"", 9000)));
    check("indexof($x, $y)", (a(9999), a(99)), (a(99_999), a(999)));
    check("indexof_n($x, $y)", (a(9999), a(99)), (a(99_999), a(999)));
    check(
        "json.filter({\"a\": 1}, $x)",
        (list("\"a/b\"", 9), none()),
        (list(&text("a/", 999), 1), none()),
    );
    check(
        "json.filter({\"a\": 1}, $x)",
        (list("[\"a\"]", 9), none()),
        (list(&list("\"a\"", 999), 1), none()),
    );
    check(
        "json.remove({\"a\": 1}, $x)",
        (list("\"a/b\"", 9), none()),
        (list(&text("a/", 999), 1), none()),
    );
    check(
        "json.unmarshal($x)",
        ("\"[1,2]\"".into(), none()),
        (format!("\"[{}1]\"", "1,".repeat(300_000)), none()),
    );
    check("object.union_n($x)", (objects(99), none()), (objects(2000), none()));
    check("product($x)", (list("7", 99), none()), (list("7", 9999), none()));
    let find = "regex.find_all_string_submatch_n(\"(a)(b)?\", $x, -1)";
    check(find, (a(999), none()), (a(99_999), none()));
    check("regex.find_n(\"a\", $x, $y)", (a(999), "-1".into()), (a(999_999), "-1".into()));
    assert!(!is_refused("regex.find_n", "regex.find_n(\"a\", $x, $y)", &a(999_999), "7"));
    check("regex.match($x, $y)", (a(9), a(99_999)), (a(999), a(99_999)));
    check("regex.replace($x, \"a\", $y)", (a(99), a(99)), (a(9999), a(9999)));
    check("regex.replace($x, \"a+\", $y)", (a(99), text("$0", 9)), (a(9999), text("$0", 999)));
    check("regex.split(\"a\", $x)", (a(9999), none()), (a(999_999), none()));
    let template = "regex.template_match($x, $y, \"<\", \">\")";
    check(template, (a(9), a(9)), (a(9999), a(9999)));
    check("replace($x, \"a\", $y)", (a(99), a(99)), (a(9999), a(9999)));
    check("replace($x, \"\", $y)", (a(99), a(99)), (a(9999), a(9999)));
    assert!(!is_refused("replace", "replace($x, \"a\", \"b\")", &a(999_999), "1"));
    check("split($x, $y)", (a(9999), a(0)), (a(999_999), a(0)));
    check("split($x, $y)", (a(9999), a(1)), (a(999_999), a(1)));
    let lists = |times| (list("\"a\"", times), list("\"a\"", times));
    check("strings.any_prefix_match($x, $y)", lists(99), lists(9999));
    check("strings.any_suffix_match($x, $y)", lists(99), lists(9999));
    let patterns = |times| format!("{{\"a\":{}}}", a(times));
    check("strings.replace_n($x, $y)", (patterns(4), a(999)), (patterns(9999), a(9999)));
    let doubling = "{\"a\":\"bb\",\"b\":\"cc\",\"c\":\"dd\",\"d\":\"ee\",\"e\":\"ff\"}".to_owned();
    check("strings.replace_n($x, $y)", (doubling.clone(), a(999)), (doubling, a(999_999)));
    for trim in ["trim($x, $y)", "trim_left($x, $y)", "trim_right($x, $y)"] {
        check(trim, (a(9999), a(9)), (a(9999), a(9999)));
    }
    check("units.parse($x)", ("\"10K\"".into(), none()), (text("9", 99_999), none()));
    check("units.parse_bytes($x)", ("\"10KB\"".into(), none()), ("\"1e99999999\"".into(), none()));
    check(
        "count(walk($x)) - walk($x)".split(" - ").nth(1).unwrap(),
        (nested(9, 9), none()),
        (nested(60, 99_999), none()),
    );

    let mut checked = checked.into_inner();
    checked.dedup();
    checked.sort_unstable();
    checked.dedup();
    assert_eq!(checked, all().collect::<Vec<_>>(), "a guard without a test");
}

#[test]
fn a_guarded_function_does_what_it_did() {
    let check = |condition: &str| {
        let text = format!("package agentweave.authz\nallow if {{ {condition} }}\n");
        let mut bare = new_engine(false);
        bare.add_policy("bare.rego".to_owned(), text.clone()).unwrap();
        bare.set_input(Value::new_object());
        let expected = match bare.eval_rule("data.agentweave.authz.allow".to_owned()).unwrap() {
            Value::Bool(true) => Reason::Allowed(None),
            _ => Reason::Undefined,
        };
        assert_eq!(Ask::default().decide(&load(&text)).reason, expected, "{condition}");
    };
    check("split(\"a,b\", \",\") == [\"a\", \"b\"]");
    // A function may be given the place of its result.
    check("split(\"a,b\", \",\", parts); parts[1] == \"b\"");
    check("[path, value] := walk({\"a\": 7})[_]; value == 7; path == [\"a\"]");
    check("walk({\"a\": 7}, [[\"a\"], 7])");
    check("not split(input.nothing, \",\")");
    check("replace(\"abc\", \"b\", \"xx\") == \"axxc\"");
    check("not regex.match(\"^a\", \"b\")");
}

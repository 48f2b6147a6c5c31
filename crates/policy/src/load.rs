//! From the text of a policy to a program: which Rego it is, and whether it can be asked.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use convoke_model::Revision;
use regorus::unstable::{BUILTINS, Lexer, Module, Parser, Ref, TokenKind};
use regorus::{Source, Value};

use crate::engine::{Ask, Program, new_engine};
use crate::inspect::{Facts, inspect};
use crate::said::{Said, nearest};
use crate::store::ProgramId;
use crate::{Language, LoadError, PolicyOptions, PolicySource, data};

/// Largest text of a policy, in bytes.
///
/// Source: regorus' own bound on a file, `DEFAULT_MAX_FILE_BYTES` of 1 MiB, less room for the
/// imports that a dialect adds.
pub const SOURCE_BYTES_MAX: usize = 1024 * 1024 - 1024;

/// A way to read a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// As it is.
    V1,
    /// As v0, with this written behind the package, on its line.
    V0(&'static str),
}

const V0_KEYWORDS: Dialect = Dialect::V0(" import future.keywords");
const V0_IN: Dialect = Dialect::V0(" import future.keywords.in");

/// A policy that has been read, with the syntax tree that it was read into.
pub(crate) struct Loaded {
    pub(crate) program: Program,
    pub(crate) module: Option<Ref<Module>>,
}

/// Reads, checks and names a policy.
pub(crate) fn load(source: &PolicySource, options: &PolicyOptions) -> Result<Loaded, LoadError> {
    let PolicySource { name, text } = source;
    if text.len() > SOURCE_BYTES_MAX {
        return Err(LoadError::TooLarge {
            name: name.clone(),
            bytes: text.len(),
            max: SOURCE_BYTES_MAX,
        });
    }
    let source = &*without_mark(source);
    let data = data::merge(&options.data, Some(&options.package))?;
    let mut furthest: Option<Said> = None;
    for dialect in dialects(options.language, words(source)) {
        match read(source, options, &data, dialect) {
            Ok(loaded) => return Ok(loaded),
            Err(Unread::Final(error)) => return Err(error),
            // The dialect that got furthest is most likely the one that the author had in mind; the
            // first of equals.
            Err(Unread::NotThis(failed)) => {
                if furthest.as_ref().is_none_or(|best| rank(&failed) > rank(best)) {
                    furthest = Some(failed);
                }
            }
        }
    }
    let failed = furthest.unwrap_or_else(|| Said {
        at: (0, 0),
        message: "is not Rego in the configured language".to_owned(),
    });
    Err(LoadError::Syntax {
        name: name.clone(),
        line: failed.at.0,
        cure: cure(&failed.message, options.language, words(source)),
        message: failed.message,
    })
}

/// `source` without the byte order mark that some editors put first.
///
/// Source: OPA's scanner passes over it there, and refuses it everywhere else.
fn without_mark(source: &PolicySource) -> Cow<'_, PolicySource> {
    match source.text.strip_prefix('\u{feff}') {
        Some(text) => Cow::Owned(PolicySource { name: source.name.clone(), text: text.to_owned() }),
        None => Cow::Borrowed(source),
    }
}

/// How far a dialect got. One that lacks a keyword of v1 says no more than that this is v0.
fn rank(failed: &Said) -> (u32, u32) {
    if failed.message.contains("keyword is required") { (0, 0) } else { failed.at }
}

/// The dialects to try, in this order. The last has `if` as a mere name, so that `allow if {…}` is
/// a rule `allow` that is always true and another rule: it is closed to texts with that word. What
/// imports `rego.v1` is v1, whatever its version is configured to be.
fn dialects(language: Option<Language>, words: Words) -> Vec<Dialect> {
    let mut dialects = Vec::with_capacity(3);
    if language != Some(Language::V0) || words.imports_v1 {
        dialects.push(Dialect::V1);
    }
    if language != Some(Language::V1) && !words.imports_v1 {
        dialects.push(V0_KEYWORDS);
        if !words.has_if {
            dialects.push(V0_IN);
        }
    }
    dialects
}

/// Why one dialect did not do.
enum Unread {
    /// Another dialect may.
    NotThis(Said),
    /// It is this dialect, and the policy is wrong.
    Final(LoadError),
}

fn read(
    source: &PolicySource,
    options: &PolicyOptions,
    data: &Value,
    dialect: Dialect,
) -> Result<Loaded, Unread> {
    let name = &source.name;
    let text = match dialect {
        Dialect::V1 => source.text.clone(),
        Dialect::V0(imports) => with_imports(source, imports).map_err(Unread::NotThis)?,
    };
    let v0 = dialect != Dialect::V1;

    let mut engine = new_engine(v0);
    engine.add_data(data.clone()).map_err(|error| Unread::NotThis(Said::of(&error)))?;
    engine
        .add_policy(name.clone(), text.clone())
        .map_err(|error| Unread::NotThis(Said::of(&error)))?;
    let packages = engine
        .get_policy_package_components()
        .map_err(|error| Unread::NotThis(Said::of(&error)))?;
    let declared =
        packages.first().map(|package| package.components.as_slice()).unwrap_or_default();
    if !declared.iter().map(String::as_str).eq(options.package.split('.')) {
        return Err(Unread::Final(LoadError::Package {
            name: name.clone(),
            declared: declared.join("."),
            configured: options.package.clone(),
        }));
    }
    let module = engine.get_modules().first().cloned();
    let facts = match &module {
        Some(module) => inspect(module, &options.package),
        None => Facts::default(),
    };
    if let (true, Some((rule, line))) = (v0, &facts.bare_rule) {
        return Err(Unread::NotThis(Said {
            at: (*line, 1),
            message: format!("rule `{rule}` has neither a value nor a body, so it is always true"),
        }));
    }
    let ask = check(name, &options.package, &facts)?;
    let rule = |rule: &str| format!("data.{}.{rule}", options.package);
    let decides: Arc<str> = match ask {
        Ask::Decision => rule("decision").into(),
        Ask::Allow => rule("allow").into(),
    };
    // Variables that nothing binds, and some other faults, are found only when it is compiled.
    engine.compile_with_entrypoint(&decides).map_err(|error| Unread::NotThis(Said::of(&error)))?;
    let program = Program {
        id: ProgramId::new(),
        name: name.clone(),
        v0,
        ask,
        reason_rule: (ask == Ask::Allow && facts.rules.contains("reason")).then(|| rule("reason")),
        rule: decides,
        reads: facts.reads,
        pure: facts.pure,
        guarded: facts.guarded.into_iter().collect(),
        time_max: options.time_max,
        input_bytes_max: options.input_bytes_max,
        revision: revision(&source.text, options),
        data: options.data.iter().map(|file| file.text.clone()).collect(),
        text,
    };
    Ok(Loaded { program, module })
}

/// As which language and text a file of any package is read.
///
/// # Errors
///
/// [`LoadError::Syntax`] and [`LoadError::TooLarge`].
pub(crate) fn read_any(
    source: &PolicySource,
    language: Option<Language>,
) -> Result<(bool, String), LoadError> {
    let PolicySource { name, text } = source;
    if text.len() > SOURCE_BYTES_MAX {
        let (name, bytes) = (name.clone(), text.len());
        return Err(LoadError::TooLarge { name, bytes, max: SOURCE_BYTES_MAX });
    }
    let source = &*without_mark(source);
    let text = &source.text;
    let mut first: Option<Said> = None;
    for dialect in dialects(language, words(source)) {
        let v0 = dialect != Dialect::V1;
        let read = match dialect {
            Dialect::V1 => Ok(text.clone()),
            Dialect::V0(imports) => with_imports(source, imports),
        };
        let read = read.and_then(|text| {
            let mut engine = new_engine(v0);
            match engine.add_policy(name.clone(), text.clone()) {
                Ok(_package) => Ok(text),
                Err(error) => Err(Said::of(&error)),
            }
        });
        match read {
            Ok(text) => return Ok((v0, text)),
            Err(said) if first.as_ref().is_none_or(|best| rank(&said) > rank(best)) => {
                first = Some(said);
            }
            Err(_) => {}
        }
    }
    let said = first.unwrap_or_else(|| Said { at: (0, 0), message: "is not Rego".to_owned() });
    let cure = cure(&said.message, language, words(source));
    Err(LoadError::Syntax { name: name.clone(), line: said.at.0, message: said.message, cure })
}

/// What to ask of a policy with these facts, if it can be asked at all.
fn check(name: &str, package: &str, facts: &Facts) -> Result<Ask, Unread> {
    let name = || name.to_owned();
    if let Some((function, line)) = facts.unknown_function.clone() {
        let cure = match nearest(&function, BUILTINS.keys().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => "decide on the input alone".to_owned(),
        };
        let name = name();
        return Err(Unread::Final(LoadError::UnknownFunction { name, line, function, cure }));
    }
    if let Some((function, line)) = facts.unbounded_function.clone() {
        return Err(Unread::Final(LoadError::UnboundedFunction { name: name(), line, function }));
    }
    if let Some((function, line)) = facts.recursive_function.clone() {
        return Err(Unread::Final(LoadError::Recursion { name: name(), line, function }));
    }
    if facts.rules.contains("decision") {
        Ok(Ask::Decision)
    } else if facts.rules.contains("allow") {
        Ok(Ask::Allow)
    } else {
        Err(Unread::Final(LoadError::NoRule { name: name(), package: package.to_owned() }))
    }
}

/// The text with `imports` behind its package, on the same line, so that lines keep their numbers.
fn with_imports(source: &PolicySource, imports: &str) -> Result<String, Said> {
    let parsed = Source::from_contents(source.name.clone(), source.text.clone())
        .map_err(|error| Said::of(&error))?;
    let mut parser = Parser::new(&parsed).map_err(|error| Said::of(&error))?;
    let package = parser.parse_package().map_err(|error| Said::of(&error))?;
    let end = usize::try_from(package.span.end).unwrap_or(usize::MAX);
    let (before, after) = source
        .text
        .split_at_checked(end)
        .ok_or_else(|| Said::of(&"the package ends outside of the file"))?;
    Ok([before, imports, after].concat())
}

/// What is known of a text before it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    /// Whether the word `if` occurs outside of comments and strings.
    has_if: bool,
    /// Whether it has an import of `rego.v1`.
    imports_v1: bool,
}

/// Looks at the words of a text. One that cannot be read to its end counts as one that has `if`, so
/// that doubt closes the last rung.
fn words(source: &PolicySource) -> Words {
    let mut words = Words { has_if: true, imports_v1: false };
    let Ok(parsed) = Source::from_contents(source.name.clone(), source.text.clone()) else {
        return words;
    };
    let mut lexer = Lexer::new(&parsed);
    let (mut has_if, mut last) = (false, [String::new(), String::new(), String::new()]);
    loop {
        let Ok(token) = lexer.next_token() else { return words };
        if token.0 == TokenKind::Eof {
            words.has_if = has_if;
            return words;
        }
        let text = token.1.text();
        let is_name = token.0 == TokenKind::Ident;
        has_if |= is_name && text == "if";
        words.imports_v1 |= is_name && text == "v1" && last == ["import", "rego", "."];
        last.rotate_left(1);
        last[2] = text.to_owned();
    }
}

fn cure(message: &str, language: Option<Language>, words: Words) -> &'static str {
    if message.contains("`if` keyword is required") && words.imports_v1 {
        "; `import rego.v1` makes this Rego v1: write `if` before each body, or remove the import"
    } else if message.contains("`if` keyword is required") && language == Some(Language::V1) {
        "; this is Rego v0: leave `rego_version` out, or write `if` before the body"
    } else if message.contains("unexpected keyword `package`") {
        "; a policy is one package: put each into a file of its own"
    } else {
        ""
    }
}

/// Equal texts under equal options have equal names. Every part goes in with its length, so that
/// no two different policies are the same bytes.
fn revision(text: &str, options: &PolicyOptions) -> Revision {
    let mut context = Context::new(&SHA256);
    let language: &[u8] = match options.language {
        None => b"",
        Some(Language::V0) => b"v0",
        Some(Language::V1) => b"v1",
    };
    let (time_max, bytes_max) =
        (options.time_max.as_nanos().to_be_bytes(), options.input_bytes_max.to_be_bytes());
    let fixed = [text.as_bytes(), options.package.as_bytes(), language, &time_max, &bytes_max];
    for part in fixed.into_iter().chain(options.data.iter().map(|file| file.text.as_bytes())) {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    Revision(
        digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{SEED_ORCHESTRATOR, SEED_WORKER, load_with, patient};

    fn source(text: &str) -> PolicySource {
        PolicySource { name: "test.rego".to_owned(), text: text.to_owned() }
    }

    /// Which dialect reads the rules `text`: whether it is v0, and the first line of its text.
    fn check(text: &str, v0: bool, first_line: &str) {
        let program = match load(&source(text), &patient()) {
            Ok(loaded) => loaded.program,
            Err(error) => panic!("{error}\n{text}"),
        };
        assert_eq!((program.v0, program.text.lines().next()), (v0, Some(first_line)), "{text}");
        assert_eq!(program.text.lines().count(), text.lines().count());
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_at_the_beginning_alone() {
        for seed in [SEED_WORKER, SEED_ORCHESTRATOR] {
            let read = |text: &str| load(&source(text), &patient()).map(|loaded| loaded.program);
            let (plain, marked) = (read(seed).unwrap(), read(&format!("\u{feff}{seed}")).unwrap());
            assert_eq!((plain.v0, &plain.text), (marked.v0, &marked.text));
            assert_eq!(plain.revision, marked.revision);
            assert_eq!(
                read_any(&source(&format!("\u{feff}{seed}")), None).unwrap(),
                read_any(&source(seed), None).unwrap()
            );
            for wrong in [format!("\u{feff}\u{feff}{seed}"), format!("{seed}\u{feff}")] {
                assert!(load(&source(&wrong), &patient()).is_err());
                assert!(read_any(&source(&wrong), None).is_err());
            }
        }
    }

    fn check_refused(text: &str, expected: &str) {
        check_refused_as(None, text, expected);
    }

    fn check_refused_as(language: Option<Language>, text: &str, expected: &str) {
        let options = PolicyOptions { language, ..patient() };
        let error = load_with(text, &options).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }

    const PACKAGE: &str = "package agentweave.authz";
    const ALL: &str = "package agentweave.authz import future.keywords";
    const IN: &str = "package agentweave.authz import future.keywords.in";

    #[test]
    fn the_ladder_finds_the_dialect() {
        check(SEED_WORKER, true, ALL);
        check(SEED_ORCHESTRATOR, false, PACKAGE);
        check(&format!("{PACKAGE}\nallow if {{ input.a }}"), false, PACKAGE);
        check(&format!("{PACKAGE}\nallow if {{ input.a }}\nb {{ input.b }}"), true, ALL);
        check(&format!("{PACKAGE}\nimport future.keywords.in\nallow {{ 1 in [1] }}"), true, ALL);
        check(&format!("{PACKAGE}\nallow {{ contains(\"ab\", \"b\") }}"), true, ALL);
        check(&format!("{PACKAGE}\n# every x if\nallow {{ x := \"if\"; x }}"), true, ALL);
        check(&format!("{PACKAGE} # if\nallow {{ 1 in [1] }}"), true, &format!("{ALL} # if"));
        check(
            "package agentweave[\"authz\"]\nallow { true }",
            true,
            "package agentweave[\"authz\"] import future.keywords",
        );
        // A name that is a keyword elsewhere leaves `in` alone.
        check(&format!("{PACKAGE}\nevery {{ 1 in [1] }}\nallow {{ every }}"), true, IN);
    }

    #[test]
    fn the_last_rung_is_closed_to_if() {
        let check = |text: &str, expected| {
            assert_eq!(words(&source(text)).has_if, expected, "{text}");
        };
        check("package a\nallow if { 1 }", true);
        check("package a\nallow := x { x := 1 } # no\nb { if }", true);
        check("package a\n# if\nallow { \"if\"; `if`; iff }", false);
        check("package a\nallow { \"\\\" if\" }", false);
        check("package a\nallow { \"open", true);
        let with = |has_if| Words { has_if, imports_v1: false };
        assert_eq!(dialects(None, with(true)), [Dialect::V1, V0_KEYWORDS]);
        assert_eq!(dialects(None, with(false)), [Dialect::V1, V0_KEYWORDS, V0_IN]);
        assert_eq!(dialects(Some(Language::V0), with(true)), [V0_KEYWORDS]);
        assert_eq!(dialects(Some(Language::V0), with(false)), [V0_KEYWORDS, V0_IN]);
        assert_eq!(dialects(Some(Language::V1), with(false)), [Dialect::V1]);
        for language in [None, Some(Language::V0), Some(Language::V1)] {
            let words = words(&source("package a\nimport rego.v1\nallow { 1 }"));
            assert_eq!(words, Words { has_if: false, imports_v1: true });
            assert_eq!(dialects(language, words), [Dialect::V1]);
        }
        assert!(!words(&source("package a\n# import rego.v1\nallow { 1 }")).imports_v1);
    }

    #[test]
    fn faults_are_named() {
        let check = |rules: &str, expected: &str| {
            check_refused(&format!("{PACKAGE}\n{rules}\n"), expected);
        };
        check_refused("", "test.rego:1: expecting `package` Missing package declaration.");
        check("allow if {\n  1 ==\n}", "test.rego:4: expecting expression");
        // The engine names the brace that opens the faulty body, not the fault.
        check("allow {\n  1 ==\n}", "test.rego:2: expecting }");
        check("allow if { y == 1 }", "test.rego:2: use of undefined variable `y` is unsafe");
        check("allow := \"open", "test.rego:2: invalid character in string");
        check("allow\nb := 1", "test.rego:2: rule must have a body or assignment");
        check(
            "allow { f(1) }\nf(x)\nb { true }",
            "test.rego:3: rule `f` has neither a value nor a body, so it is always true",
        );
        check_refused_as(
            Some(Language::V1),
            &format!("{PACKAGE}\nallow {{ true }}"),
            "test.rego:2: `if` keyword is required before rule body; this is Rego v0: leave \
             `rego_version` out, or write `if` before the body",
        );
    }

    #[test]
    fn a_policy_that_cannot_be_asked_is_refused() {
        let check = |rules: &str, expected: &str| {
            check_refused(&format!("{PACKAGE}\n{rules}\n"), expected);
        };
        check_refused(
            "package hvs.authz\nallow := true",
            "test.rego declares package `hvs.authz`, not `agentweave.authz`; change the file or \
             configure its package",
        );
        for rules in ["permit := true", "allow(x) := true", "allow.x := true", "reason := \"x\""] {
            check(
                rules,
                "test.rego has neither a rule `allow` nor a rule `decision` in package \
                 `agentweave.authz`",
            );
        }
        let unknown = |line: u32, function: &str| {
            format!(
                "test.rego:{line}: calls `{function}`, which this engine does not have; decide on \
                 the input alone"
            )
        };
        check("allow if {\n  http.send({}) }", &unknown(3, "http.send"));
        check("allow { io.jwt.decode(input.a) }", &unknown(2, "io.jwt.decode"));
        check("allow if opa.runtime().env.HOME", &unknown(2, "opa.runtime"));
        check(
            "f(x) := f(x)\nallow if f(1)",
            "test.rego:2: function `f` calls itself; Rego has no recursion",
        );
        check_refused(
            &" ".repeat(SOURCE_BYTES_MAX + 1),
            "test.rego has 1047553 bytes, more than the 1047552 of a policy; split it or move its \
             data",
        );
    }

    #[test]
    fn the_package_is_configured() {
        let options = PolicyOptions { package: "hvs.authz".to_owned(), ..patient() };
        let program = load(&source("package hvs.authz\nallow := true"), &options);
        assert_eq!(
            program.map(|loaded| loaded.program.rule.to_string()),
            Ok("data.hvs.authz.allow".into())
        );
    }
}

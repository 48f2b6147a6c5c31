//! Rust source with its words left and its prose taken out.
//!
//! The checks that look for a name in code use this, so that a comment or a message may
//! speak of what the code may not do.

/// The source with comments and the contents of literals blanked; lines keep their numbers.
pub(crate) fn code_only(source: &str) -> String {
    let mut rest = source;
    let mut code = String::with_capacity(source.len());
    while let Some(first) = rest.chars().next() {
        let after_word = code.ends_with(is_word);
        let prose = prose_length(rest, after_word);
        if prose == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (gone, left) = rest.split_at(prose);
            // A space between two words would be lost if nothing took the place of a comment.
            code.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = left;
        }
    }
    code
}

/// Where the tests begin, by the house's rule that they are the last thing in a file.
pub(crate) fn without_tests(code: &str) -> &str {
    const MARK: &str = "#[cfg(test)]";
    for (at, _) in code.match_indices(MARK) {
        let mut rest = code[at + MARK.len()..].trim_start();
        while rest.starts_with('#') {
            rest = rest.find(']').map_or("", |end| &rest[end + 1..]).trim_start();
        }
        let module = rest.strip_prefix("mod ").and_then(|rest| rest.split(['{', ';']).next());
        if module.is_some_and(|name| rest["mod ".len() + name.len()..].starts_with('{')) {
            return &code[..at];
        }
    }
    code
}

/// The lines on which a path such as `std::fs` or a macro such as `todo!` stands whole, from one.
pub(crate) fn lines_with<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(name).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let goes_on = name.ends_with(is_word) && after.is_some_and(is_word);
        let whole = !goes_on && !before.is_some_and(is_word);
        whole.then(|| line_of(code, at))
    })
}

/// The number of the line at this byte, from one.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Whether a character can be part of an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// How many bytes of prose begin here: a comment or a literal, or none.
fn prose_length(text: &str, after_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    if text.starts_with('\'') {
        return character(text);
    }
    if after_word { 0 } else { raw_string(text) }
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// From one quote to the next that no backslash stands before.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `'a'` is a literal and `'a` a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) => quoted(text, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

/// `r"…"` and `r#"…"#`, also of bytes and of C strings.
fn raw_string(text: &str) -> usize {
    let after_kind = text.strip_prefix(['b', 'c']).unwrap_or(text);
    let Some(fence) = after_kind.strip_prefix('r') else { return 0 };
    let hashes = fence.len() - fence.trim_start_matches('#').len();
    let Some(body) = fence[hashes..].strip_prefix('"') else { return 0 };
    let start = text.len() - body.len();
    let close = format!("\"{}", "#".repeat(hashes));
    body.find(&close).map_or(text.len(), |end| start + end + close.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, kept: &[&str], gone: &[&str]) {
        let code = code_only(source);
        assert_eq!(code.lines().count(), source.lines().count(), "{source}");
        for word in kept {
            assert!(code.contains(word), "`{word}` should stay in {source:?}, got {code:?}");
        }
        for word in gone {
            assert!(!code.contains(word), "`{word}` should go from {source:?}, got {code:?}");
        }
    }

    #[test]
    fn prose_goes_and_code_stays() {
        check("a(); // b\nc();", &["a()", "c()"], &["b"]);
        check("a /* b /* c */ d */ e", &["a", "e"], &["b", "c", "d"]);
        check(r#"f("b\"c") + g"#, &["f(", "+ g"], &["b", "c"]);
        check("f(r#\"b\"c\"#) + g", &["f(", "+ g"], &["b", "c"]);
        check("f(br\"b\\\") + g", &["+ g"], &["b"]);
        check("fn f<'a>(x: &'a str) { g('x', '\\'', 'é') }", &["&'a str", "g("], &["é", "'x'"]);
        check("let r#type = bar\"b\";", &["r#type", "bar"], &["\"b\""]);
        check("\"never closed\nb", &[], &["b"]);
        check("/* never closed", &[], &["never"]);
    }

    fn check_lines(code: &str, name: &str, expected: &[usize]) {
        assert_eq!(lines_with(code, name).collect::<Vec<_>>(), expected, "{name} in {code}");
    }

    #[test]
    fn names_are_found_whole() {
        check_lines("a\nstd::fs::read();\nstd::fs_like", "std::fs", &[2]);
        check_lines("my_todo!();\ntodo!()", "todo!", &[2]);
        check_lines("notstd::fs", "std::fs", &[]);
    }

    fn check_tests(code: &str, expected: &str) {
        assert_eq!(without_tests(code), expected);
    }

    #[test]
    fn tests_are_cut_off() {
        check_tests("a\n#[cfg(test)]\nmod tests { b }", "a\n");
        check_tests("a\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n b }", "a\n");
        check_tests("#[cfg(test)]\nfn helper() {}\nb", "#[cfg(test)]\nfn helper() {}\nb");
        check_tests("#[cfg(test)]\nmod tests;\nb", "#[cfg(test)]\nmod tests;\nb");
    }
}

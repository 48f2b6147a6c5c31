//! Secrets are kept out of the log: by the name of a field, and by what a text looks like.
//!
//! This is a net below the rope. Secrets of the node are of a type that cannot be shown; what is
//! caught here is what an agent's own lines, or the words of a library or a peer, would let out.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What stands where a secret was.
pub(crate) const REDACTED: &str = "[redacted]";

/// Words that make a name that of a secret, alone or at the end of a longer word.
const SECRET_WORDS: [&str; 18] = [
    "apikey",
    "auth",
    "authorization",
    "bearer",
    "cookie",
    "cookies",
    "credential",
    "credentials",
    "dsn",
    "jwt",
    "passphrase",
    "passwd",
    "password",
    "passwords",
    "pwd",
    "secret",
    "secrets",
    "token",
];

/// Words that make a name that of a secret if `key` follows.
const SECRET_KEYS: [&str; 7] =
    ["access", "api", "encryption", "private", "secret", "session", "signing"];

/// Last words of names that speak about a secret and do not hold it.
const ABOUT: [&str; 22] = [
    "at", "budget", "bytes", "count", "endpoint", "env", "expires", "expiry", "file", "id", "kind",
    "len", "length", "limit", "max", "ms", "name", "path", "size", "ttl", "type", "url",
];

/// Beginnings of what services hand out as secrets, up to the last underscore of the beginning.
const PREFIXES: [&str; 13] = [
    "sk_live",
    "sk_test",
    "rk_live",
    "rk_test",
    "whsec",
    "ghp",
    "gho",
    "ghu",
    "ghs",
    "ghr",
    "github_pat",
    "hf",
    "npm",
];

/// The same, up to a hyphen.
const HYPHEN_PREFIXES: [&str; 7] = ["sk", "glpat", "xoxa", "xoxb", "xoxp", "xoxr", "xoxs"];

/// How far back the user of a URL may begin, in bytes.
const USER_BYTES_MAX: usize = 512;

/// Finds secrets in names and texts.
#[derive(Debug)]
pub(super) struct Redactor {
    /// Tells one from another, for those who remember its answers.
    pub(super) number: u64,
    /// Names that are secret too, in lower case and without hyphens and underscores.
    more: Box<[Box<str>]>,
}

/// Whether a name sounds like that of a secret, for whoever shows values outside of the log.
pub(crate) fn sounds_secret(name: &str) -> bool {
    BUILT_IN.is_secret(name)
}

/// `text` without what looks like a secret in it, for whoever shows texts outside of the log.
pub(crate) fn without_secrets(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    if BUILT_IN.redact(text, false, &mut clean) { Cow::Owned(clean) } else { Cow::Borrowed(text) }
}

/// Knows what is always secret.
static BUILT_IN: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(&[]));

impl Redactor {
    pub(super) fn new(more: &[String]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            more: more.iter().map(|name| plain(name).collect::<String>().into()).collect(),
        }
    }

    /// Whether a field of that name holds a secret.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        if self.more.iter().any(|known| plain(name).eq(known.chars())) {
            return true;
        }
        let mut found = false;
        let (mut before, mut last) = ("", "");
        for word in Words(name) {
            // `accesstoken` is one word, and so is what follows a terminal's colour.
            found |= SECRET_WORDS.iter().any(|known| {
                let end = word.len().checked_sub(known.len()).and_then(|start| word.get(start..));
                end.is_some_and(|end| end.eq_ignore_ascii_case(known))
            });
            if word.eq_ignore_ascii_case("key") {
                found |= SECRET_KEYS.iter().any(|known| before.eq_ignore_ascii_case(known));
            }
            (before, last) = (word, word);
        }
        found && !ABOUT.iter().any(|known| last.eq_ignore_ascii_case(known))
    }

    /// Writes `text` without its secrets to `out`, if it has any; otherwise says `false` and leaves
    /// `out` as it is. JSON text stays JSON text.
    pub(super) fn redact(&self, text: &str, is_json: bool, out: &mut String) -> bool {
        let bytes = text.as_bytes();
        let (mut at, mut copied) = (0, 0);
        while let Some(next) = bytes[at..].iter().position(|byte| ANCHORS[usize::from(*byte)]) {
            at += next;
            match self.secret_at(text, at, is_json) {
                Some(secret) if secret.at.start >= copied => {
                    out.push_str(&text[copied..secret.at.start]);
                    out.push_str(if secret.is_bare { "\"[redacted]\"" } else { REDACTED });
                    copied = secret.at.end;
                    at = copied.max(at + 1);
                }
                _ => at += 1,
            }
        }
        if copied > 0 {
            out.push_str(&text[copied..]);
        }
        copied > 0
    }

    /// The secret that the byte at `at`, an anchor, gives away.
    fn secret_at(&self, text: &str, at: usize, is_json: bool) -> Option<Secret> {
        match text.as_bytes()[at] {
            b'-' => pem(text, at).or_else(|| prefixed(text, at, &HYPHEN_PREFIXES)),
            b'_' => prefixed(text, at, &PREFIXES),
            b'J' => jwt(text, at),
            b'I' => access_key(text, at),
            b'@' => user(text, at),
            b' ' => scheme(text, at),
            _ => self.named(text, at, is_json),
        }
    }

    /// The value of a secret name: `password=…`, `"token":"…"`, `Authorization: …`.
    fn named(&self, text: &str, at: usize, is_json: bool) -> Option<Secret> {
        let bytes = text.as_bytes();
        let is_colon = bytes[at] == b':';
        // A path of Rust, or the beginning of a URL.
        if is_colon && (bytes.get(at + 1) == Some(&b':') || text[at + 1..].starts_with("//")) {
            return None;
        }
        let before = text[..at].trim_end_matches(' ');
        let unquoted = before.strip_suffix(['"', '\'']).unwrap_or(before);
        let is_key = is_json && is_colon && before.ends_with('"') && !unquoted.ends_with('\\');
        // A text within a text within a text has a backslash for each.
        let unquoted = unquoted.trim_end_matches('\\');
        let name = &unquoted[unquoted.trim_end_matches(is_of_name).len()..];
        if name.is_empty() || !self.is_secret(name) {
            return None;
        }
        let rest = &text[at + 1..];
        let value = rest.trim_start_matches([' ', '\\']);
        let start = text.len() - value.len();
        if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let inner = &value[1..];
            let backslashes = text[..start].bytes().rev().take_while(|byte| *byte == b'\\').count();
            let is_inside = backslashes % 2 == 1;
            // Within a string of JSON, a bare quote is where that ends.
            if is_json && !is_key && quote == '"' && !is_inside {
                return None;
            }
            let closing = unescaped(inner, |c| c == quote).unwrap_or(inner.len());
            let end = match is_inside || (is_json && !is_key) {
                true => closing.min(quote_at(inner).unwrap_or(inner.len())),
                false => closing,
            };
            return Secret::at(start + 1..start + 1 + end);
        }
        let whole_line = ["authorization", "cookie"]
            .iter()
            .any(|word| name.len() >= word.len() && name.to_ascii_lowercase().ends_with(word));
        let ends = |c: char| match c {
            '"' | '\'' | '\n' | '\r' => true,
            _ if whole_line => false,
            c => c.is_whitespace() || ",;&()[]{}<>|".contains(c),
        };
        let end = unescaped(value, ends).unwrap_or(value.len());
        let word = &value[..end];
        let says_nothing = matches!(word, "" | "null" | "true" | "false" | "None");
        // `invalid token: expected a brace` speaks of another kind of token.
        let is_prose = is_colon
            && rest.starts_with(' ')
            && !is_key
            && !whole_line
            && !plain(name).rev().take(8).eq("drowssap".chars())
            && !word.bytes().any(|byte| byte.is_ascii_digit());
        if says_nothing || is_prose {
            return None;
        }
        Some(Secret { at: start..start + end, is_bare: is_key })
    }
}

/// A secret in a text.
struct Secret {
    at: Range<usize>,
    /// It is a value of JSON that has no quotes, and needs them.
    is_bare: bool,
}

impl Secret {
    fn at(at: Range<usize>) -> Option<Self> {
        (!at.is_empty()).then_some(Self { at, is_bare: false })
    }
}

/// Bytes at which a text is looked at: each kind of secret has one that is rare elsewhere.
const ANCHORS: [bool; 256] = {
    let mut anchors = [false; 256];
    let mut at = 0;
    while at < b"-_JI@ :=".len() {
        anchors[b"-_JI@ :="[at] as usize] = true;
        at += 1;
    }
    anchors
};

/// A private key: from its first line to its last, or to the end of what is there of it.
fn pem(text: &str, at: usize) -> Option<Secret> {
    let label = text[at..].strip_prefix("-----BEGIN ")?;
    let (label, body) = label.split_once("-----").filter(|(label, _)| label.len() <= 64)?;
    if label.contains("CERTIFICATE") || label.contains("PUBLIC") {
        return None;
    }
    // A quote is never part of one, and in JSON text it is where the value ends.
    let quote = quote_at(body).unwrap_or(body.len());
    let end = match body[..quote].find("-----END ") {
        Some(last) => {
            let last = last + "-----END ".len();
            body[last..quote].find("-----").map_or(quote, |dashes| last + dashes + 5)
        }
        None => quote,
    };
    Secret::at(at..text.len() - body.len() + end)
}

/// What a service hands out under a beginning of its own, as in `sk_live_…`.
fn prefixed(text: &str, at: usize, prefixes: &[&str]) -> Option<Secret> {
    let before = &text[..at];
    let prefix = prefixes.iter().find(|prefix| before.ends_with(**prefix))?;
    let start = at - prefix.len();
    if start > 0 && is_of_token(text.as_bytes()[start - 1]) {
        return None;
    }
    let length = run(&text[at + 1..]);
    let secret = &text[at + 1..at + 1 + length];
    // Words that happen to begin so have neither digits nor capitals in them.
    let is_of_random = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
    let is_random = prefix.contains('_') || secret.bytes().any(is_of_random);
    let enough = if prefix.contains('_') { 6 } else { 12 };
    (length >= enough && is_random).then_some(())?;
    Secret::at(start..at + 1 + length)
}

/// A signed token: parts in base64url between points, the first of which is a JSON object.
fn jwt(text: &str, at: usize) -> Option<Secret> {
    let start = at.checked_sub(2).filter(|start| text[*start..].starts_with("ey"))?;
    if start > 0 && is_of_token(text.as_bytes()[start - 1]) {
        return None;
    }
    let token = text[start..].bytes().take_while(|byte| is_of_token(*byte) || *byte == b'.');
    let end = start + token.count();
    let points = text[start..end].bytes().filter(|byte| *byte == b'.').count();
    // One that is cut off has lost its points.
    let is_cut = end == text.len() && end - start >= 16;
    (points >= 1 && end - start >= 16 || is_cut).then_some(())?;
    Secret::at(start..end)
}

/// A key of a cloud: `AKIA…`, `ASIA…`, `AIza…`.
fn access_key(text: &str, at: usize) -> Option<Secret> {
    let (start, length) = match at.checked_sub(2).and_then(|start| text.get(start..start + 4)) {
        Some("AKIA" | "ASIA") => (at - 2, 20),
        _ => match at.checked_sub(1).and_then(|start| text.get(start..start + 4)) {
            Some("AIza") => (at - 1, 39),
            _ => return None,
        },
    };
    (run(&text[start..]) >= length).then_some(())?;
    Secret::at(start..start + run(&text[start..]))
}

/// The user of a URL, who often has a password.
fn user(text: &str, at: usize) -> Option<Secret> {
    let from = text.floor_char_boundary(at.saturating_sub(USER_BYTES_MAX));
    let before = &text[from..at];
    let slash = before.rfind(|c: char| matches!(c, '/' | '"') || c.is_whitespace())?;
    before[..=slash].ends_with("://").then_some(())?;
    Secret::at(from + slash + 1..at)
}

/// What follows the name of a scheme of HTTP authentication.
fn scheme(text: &str, at: usize) -> Option<Secret> {
    let before = &text.as_bytes()[..at];
    let named = ["bearer", "basic"].iter().any(|scheme| {
        let start = before.len().wrapping_sub(scheme.len());
        before.get(start..).is_some_and(|word| word.eq_ignore_ascii_case(scheme.as_bytes()))
            && (start == 0 || !before[start - 1].is_ascii_alphanumeric())
    });
    named.then_some(())?;
    let rest = &text[at + 1..];
    let is_of_credential = |byte: &u8| is_of_token(*byte) || b".~+/=".contains(byte);
    let length = rest.bytes().take_while(is_of_credential).count();
    let word = &rest[..length];
    let is_random = word.bytes().any(|byte| byte.is_ascii_digit()) || length > 20;
    (length >= 6 && is_random).then_some(())?;
    Secret::at(at + 1..at + 1 + length)
}

/// The words of a name, as underscores, hyphens, points and capitals divide it.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.0 = self.0.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        let bytes = self.0.as_bytes();
        let mut end = 0;
        while end < bytes.len() && bytes[end].is_ascii_alphanumeric() {
            if end > 0 && bytes[end].is_ascii_uppercase() && bytes[end - 1].is_ascii_lowercase() {
                break;
            }
            end += 1;
        }
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }
}

/// The letters and digits of a name, in lower case.
fn plain(name: &str) -> impl DoubleEndedIterator<Item = char> {
    let kept = name.chars().filter(|c| !matches!(c, '-' | '_' | '.'));
    kept.map(|c| c.to_ascii_lowercase())
}

/// Where the first character that `ends` is, not counting what a backslash stands before.
fn unescaped(text: &str, ends: impl Fn(char) -> bool) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        if std::mem::take(&mut escaped) {
            return None;
        }
        escaped = c == '\\';
        (!escaped && ends(c)).then_some(at)
    })
}

/// Where the first quote is, with the backslash that belongs to it.
fn quote_at(text: &str) -> Option<usize> {
    let quote = text.find('"')?;
    let backslashes = text[..quote].bytes().rev().take_while(|byte| *byte == b'\\').count();
    Some(quote - backslashes % 2)
}

/// The length of the token that `text` begins with.
fn run(text: &str) -> usize {
    text.bytes().take_while(|byte| is_of_token(*byte)).count()
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_known() {
        let redactor = Redactor::new(&["Patient-ID".to_owned()]);
        let check = |names: &[&str], expected: bool| {
            for name in names {
                assert_eq!(redactor.is_secret(name), expected, "{name}");
            }
        };
        check(
            &[
                "password",
                "db_password",
                "userPassword",
                "Authorization",
                "x-api-key",
                "apiKey",
                "APIKEY",
                "api_key",
                "private_key",
                "access.token",
                "client_secret",
                "Set-Cookie",
                "cookie",
                "jwt",
                "passphrase",
                "aws_secret_access_key",
                "credentials",
                "patient_id",
                "patientId",
                "PATIENT_ID",
            ],
            true,
        );
        check(
            &[
                "token_count",
                "max_tokens",
                "tokens",
                "key",
                "public_key",
                "keyboard",
                "secretary",
                "password_length",
                "token_type",
                "authority",
                "capability",
                "request_id",
                "caller",
                "secret_name",
                "key_id",
                "passenger",
                "duration_ms",
                "",
            ],
            false,
        );
    }

    #[test]
    fn secrets_in_texts_are_found() {
        let redactor = Redactor::new(&["patient".to_owned()]);
        let check = |text: &str, expected: &str| {
            let mut out = String::from("before");
            let found = redactor.redact(text, false, &mut out);
            let out = if found { &out["before".len()..] } else { text };
            assert_eq!(out, expected);
        };
        check("password=hunter2 x=1", "password=[redacted] x=1");
        check("password: hunter", "password: [redacted]");
        check("patient=Ann", "patient=[redacted]");
        check("?api_key=a1b2&x=1", "?api_key=[redacted]&x=1");
        check("Config { token: \"abc\", port: 1 }", "Config { token: \"[redacted]\", port: 1 }");
        check("Authorization: Basic dXNlcjpwdw==", "Authorization: [redacted]");
        check("Cookie: a=b; c=d\nnext", "Cookie: [redacted]\nnext");
        check("sent Bearer abcdef123456 to x", "sent Bearer [redacted] to x");
        check("key sk_live_abcDEF123 used", "key [redacted] used");
        check("ghp_0123456789abcdefghij", "[redacted]");
        check("sk-ant-api03-abcdefgh", "[redacted]");
        check("AKIAIOSFODNN7EXAMPLE,", "[redacted],");
        check("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln.", "[redacted]");
        check("postgres://user:pw@db/x", "postgres://[redacted]@db/x");
        check(
            "a -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY----- b",
            "a [redacted] b",
        );
        check("-----BEGIN PRIVATE KEY-----\nMIIEv", "[redacted]");
        check("password=\"a b\\\"c\" d", "password=\"[redacted]\" d");
        check("password=é\u{202e}x y", "password=[redacted] y");
        check("password=a password=b", "password=[redacted] password=[redacted]");
    }

    #[test]
    fn what_is_no_secret_stays() {
        let redactor = Redactor::new(&[]);
        for text in [
            "spiffe://example.org/token-service",
            "https://localhost:8443/path?x=1",
            "invalid token: expected `}`",
            "Secret::new",
            "basic authentication required",
            "bearer of news",
            "mail to a@example.org",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "0192e1a0-7c3d-7e2a-8a1b-000000000001",
            "password=",
            "\"token\": null",
            "a risk-free task-based approach",
            "Counted 12 words",
            "token=[redacted]",
            "npm_",
            "the_hf_",
        ] {
            let mut out = String::new();
            assert!(!redactor.redact(text, false, &mut out), "{text} → {out}");
            assert_eq!(out, "");
        }
    }

    #[test]
    fn json_text_stays_json_text() {
        let redactor = Redactor::new(&[]);
        let check = |json: &str, expected: &str| {
            let mut out = String::new();
            assert!(redactor.redact(json, true, &mut out), "{json}");
            assert_eq!(out, expected);
            serde_json::from_str::<serde_json::Value>(&out).unwrap();
        };
        check(r#"{"password":"a\"b","x":1}"#, r#"{"password":"[redacted]","x":1}"#);
        check(r#"{"api_key": 12}"#, r#"{"api_key": "[redacted]"}"#);
        check(r#"{"m":"password=ab\"cd e"}"#, r#"{"m":"password=[redacted] e"}"#);
        check(r#"{"m":"say \"password\": 12"}"#, r#"{"m":"say \"password\": [redacted]"}"#);
        check(r#"["-----BEGIN PRIVATE KEY-----\nMIIE"]"#, r#"["[redacted]"]"#);
        check(r#"{"authorization":"Bearer x","y":2}"#, r#"{"authorization":"[redacted]","y":2}"#);
        check(r#"{"m":"Cookie: a\\","y":2}"#, r#"{"m":"Cookie: [redacted]","y":2}"#);
    }

    #[test]
    fn no_json_is_broken_whatever_it_holds() {
        // Pieces that mean something here, put together in every order by a fixed sequence.
        const PIECES: [&str; 14] = [
            "password",
            "=",
            ": ",
            "\"",
            "\\",
            "'",
            "eyJhbGci",
            ".",
            "-----BEGIN PRIVATE KEY-----",
            "://",
            "@",
            "Bearer ",
            "1a",
            "é",
        ];
        let redactor = Redactor::new(&[]);
        let mut seed = 7_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap()
        };
        for _ in 0..20_000 {
            let mut text =
                || (0..next() % 12).map(|_| PIECES[next() % PIECES.len()]).collect::<String>();
            let (key, value) = (text(), text());
            let json = serde_json::json!({ key: value, "token": 1, "n": [text()] }).to_string();
            let mut out = String::new();
            if redactor.redact(&json, true, &mut out) {
                let read = serde_json::from_str::<serde_json::Value>(&out);
                assert!(read.is_ok(), "{json}\n{out}");
            }
        }
    }
}

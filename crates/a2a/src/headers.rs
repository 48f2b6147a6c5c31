//! A2A's header fields, and which version of the protocol a request speaks.

use convoke_model::{Cursor, Fault, FaultCode, limits};
use http::header::{HeaderMap, HeaderName, HeaderValue};

/// The field by which a client says which version it speaks.
pub const A2A_VERSION: HeaderName = HeaderName::from_static("a2a-version");

/// The field by which a client asks for extensions and a server says which it took up.
pub const A2A_EXTENSIONS: HeaderName = HeaderName::from_static("a2a-extensions");

/// The value of [`A2A_VERSION`] that we send.
pub const VERSION_1: HeaderValue = HeaderValue::from_static("1.0");

/// The media type of JSON-RPC, both ways.
pub const APPLICATION_JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The extension by which a message names a capability and a card gives its schemas.
pub const CAPABILITY_EXTENSION: &str = "urn:convoke:ext:capability:v1";

/// The extension by which a caller asks that the same message, sent again, is the same task.
pub const IDEMPOTENT_SEND_EXTENSION: &str = "urn:convoke:ext:idempotent-send:v1";

/// The extension by which a stream says which of the task's own events a repeated status stands for.
pub const TASK_EVENTS_EXTENSION: &str = "urn:convoke:ext:task-events:v1";

/// The field by which a reader of events says which was its last. Source: the WHATWG HTML standard,
/// §9.2.4.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The query parameter for readers that cannot set [`LAST_EVENT_ID`], as those in a browser.
const LAST_EVENT_ID_PARAMETER: &str = "lastEventId";

/// The extensions that agents of ours know.
const KNOWN: [&str; 3] = [CAPABILITY_EXTENSION, IDEMPOTENT_SEND_EXTENSION, TASK_EVENTS_EXTENSION];

/// A version of A2A that we speak. Patch numbers never count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A2A 1.0.
    V1,
}

impl Version {
    /// The version as it stands in [`A2A_VERSION`] and in a card.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0",
        }
    }
}

/// Which version a request speaks: the header, or the query parameter of the same name.
///
/// # Errors
///
/// [`FaultCode::VersionNotSupported`] if neither is there (which A2A reads as 0.3), if they differ,
/// or if it is another version than ours.
pub fn version(headers: &HeaderMap, query: Option<&str>) -> Result<Version, Fault> {
    let mut asked: Option<&[u8]> = None;
    let given = headers
        .get_all(A2A_VERSION)
        .iter()
        .map(|value| value.as_bytes())
        .chain(query.into_iter().flat_map(query_versions))
        .map(<[u8]>::trim_ascii)
        .filter(|value| !value.is_empty());
    for value in given {
        if asked.is_some_and(|before| before != value) {
            return Err(unsupported("the request names two versions"));
        }
        asked = Some(value);
    }
    match asked {
        None => Err(unsupported("the request names no version, which means 0.3")),
        Some(value) if is_version_1(value) => Ok(Version::V1),
        Some(value) => Err(unsupported(&format!("version `{}` is not spoken here", shown(value)))),
    }
}

/// The URIs that a request lists in [`A2A_EXTENSIONS`], over all its fields of that name.
///
/// # Errors
///
/// [`FaultCode::InvalidRequest`] if there are too many, or one is too long or no visible ASCII.
pub fn extensions(headers: &HeaderMap) -> Result<Vec<String>, Fault> {
    let mut uris = Vec::new();
    for value in headers.get_all(A2A_EXTENSIONS) {
        let value = value.to_str().map_err(|_| {
            Fault::new(FaultCode::InvalidRequest, "A2A-Extensions has a character outside ASCII")
        })?;
        for uri in value.split(',').map(str::trim).filter(|uri| !uri.is_empty()) {
            if uris.len() == limits::NAMES_MAX || uri.len() > limits::NAME_BYTES_MAX {
                return Err(Fault::new(
                    FaultCode::InvalidRequest,
                    format!(
                        "A2A-Extensions may list {} URIs of {} bytes",
                        limits::NAMES_MAX,
                        limits::NAME_BYTES_MAX
                    ),
                ));
            }
            uris.push(uri.to_owned());
        }
    }
    Ok(uris)
}

/// Of the extensions that were `asked` for, those that an agent of ours takes up: the value of
/// [`A2A_EXTENSIONS`] in its answer. `None` if there are none.
#[must_use]
pub fn activated(asked: &[String]) -> Option<HeaderValue> {
    let taken = |known: &&str| asked.iter().any(|uri| uri == known);
    let taken: Vec<&str> = KNOWN.into_iter().filter(taken).collect();
    match taken.as_slice() {
        [] => None,
        [one] => Some(HeaderValue::from_static(one)),
        // Our URIs are ASCII, which a header may have.
        several => HeaderValue::try_from(several.join(", ")).ok(),
    }
}

/// Where a reader of events stopped: the header, or the query parameter. A reader that comes again
/// by itself sets the header and keeps the address it once began with, so the header counts.
///
/// # Errors
///
/// [`FaultCode::InvalidParams`] if what counts is no [`Cursor`].
pub(crate) fn last_event(
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Option<Cursor>, Fault> {
    let mut fields = headers.get_all(LAST_EVENT_ID).iter();
    let (name, value) = match (fields.next(), fields.next()) {
        (Some(_), Some(_)) => {
            return Err(Fault::invalid_field("Last-Event-ID", "is there more than once"));
        }
        (Some(value), None) => ("Last-Event-ID", value.as_bytes()),
        (None, _) => match query.and_then(query_last_event) {
            Some(value) => (LAST_EVENT_ID_PARAMETER, value.as_bytes()),
            None => return Ok(None),
        },
    };
    if value.is_empty() {
        return Ok(None);
    }
    let cursor = std::str::from_utf8(value).ok().map(str::parse);
    match cursor {
        Some(Ok(cursor)) => Ok(Some(cursor)),
        Some(Err(_)) | None => {
            Err(Fault::invalid_field(name, convoke_model::CursorError.to_string()))
        }
    }
}

/// The value of the first query parameter that is a place in a stream. It is taken as it stands: no
/// place needs percent-encoding.
fn query_last_event(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == LAST_EVENT_ID_PARAMETER).then_some(value)
    })
}

/// Whether a content type is JSON; parameters such as a charset of UTF-8 do not matter.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(http::header::CONTENT_TYPE).iter();
    let (Some(value), None) = (fields.next(), fields.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let mut pieces = value.split(';').map(str::trim);
    pieces.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"))
        && pieces.all(|parameter| match parameter.split_once('=') {
            Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
                let charset = charset.trim_matches('"');
                charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
            }
            _ => true,
        })
}

/// The values of the version's query parameter. They are compared as they stand: no version that
/// we speak needs percent-encoding.
fn query_versions(query: &str) -> impl Iterator<Item = &[u8]> {
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.eq_ignore_ascii_case(A2A_VERSION.as_str()).then_some(value.as_bytes())
    })
}

/// `1.0`, or `1.0.` and a patch number.
fn is_version_1(value: &[u8]) -> bool {
    match value.strip_prefix(b"1.0") {
        Some(b"") => true,
        Some([b'.', patch @ ..]) => !patch.is_empty() && patch.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn unsupported(what: &str) -> Fault {
    let cure = "send the header `A2A-Version: 1.0`";
    Fault::new(FaultCode::VersionNotSupported, format!("{what}; {cure}"))
        .with("supportedVersions", Version::V1.as_str())
}

/// A peer's bytes, short and visible.
fn shown(value: &[u8]) -> String {
    const SHOWN_MAX: usize = 16;
    let visible = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '?' };
    value.iter().take(SHOWN_MAX).map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn versions_are_negotiated() {
        fn check(header: &[&str], query: Option<&str>, expected: Result<(), &str>) {
            let found = version(&fields(A2A_VERSION, header), query);
            match (found, expected) {
                (Ok(Version::V1), Ok(())) => {}
                (Err(fault), Err(part)) => {
                    assert_eq!(fault.code, FaultCode::VersionNotSupported);
                    assert!(fault.message.contains(part), "{}", fault.message);
                    assert!(fault.message.ends_with("send the header `A2A-Version: 1.0`"));
                }
                (found, _) => panic!("{header:?} {query:?}: {found:?}"),
            }
        }
        check(&["1.0"], None, Ok(()));
        check(&["1.0.1"], None, Ok(()));
        check(&[" 1.0 "], None, Ok(()));
        check(&["1.0", "1.0"], Some("a=b&A2A-Version=1.0"), Ok(()));
        check(&[], Some("a2a-version=1.0"), Ok(()));
        check(&[], None, Err("names no version"));
        check(&[""], Some("A2A-Version="), Err("names no version"));
        check(&[], Some("A2A-Version"), Err("names no version"));
        check(&["0.3"], None, Err("version `0.3` is not"));
        check(&["1.0", "0.3"], None, Err("two versions"));
        check(&["1.0"], Some("A2A-Version=0.3"), Err("two versions"));
        check(&["1.0."], None, Err("version `1.0.` is not"));
        check(&["1.00"], None, Err("version `1.00` is not"));
        check(&["1.1"], None, Err("version `1.1` is not"));
        check(&["1"], None, Err("version `1` is not"));
        check(&["\u{e9}`"], None, Err("version `??`` is not"));
        check(&["11111111111111111111"], None, Err("version `1111111111111111` is not"));
    }

    #[test]
    fn extensions_are_listed() {
        fn check(values: &[&str], expected: Result<&[&str], FaultCode>) {
            let found = extensions(&fields(A2A_EXTENSIONS, values));
            let found = found.as_deref().map_err(|fault| fault.code);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (found, expected) => assert_eq!(found.err(), expected.err()),
            }
        }
        check(&[], Ok(&[]));
        check(&["urn:a, urn:b ,,", "urn:c"], Ok(&["urn:a", "urn:b", "urn:c"]));
        check(&["urn:\u{e9}"], Err(FaultCode::InvalidRequest));
        check(&[&"a".repeat(limits::NAME_BYTES_MAX + 1)], Err(FaultCode::InvalidRequest));
        check(&[&"a,".repeat(limits::NAMES_MAX + 1)], Err(FaultCode::InvalidRequest));
    }

    #[test]
    fn known_extensions_are_taken_up() {
        let check = |asked: &[&str], expected: Option<&str>| {
            let asked: Vec<String> = asked.iter().map(|uri| (*uri).to_owned()).collect();
            let value = activated(&asked);
            assert_eq!(value.as_ref().map(|value| value.to_str().unwrap()), expected);
        };
        check(&[], None);
        check(&["urn:x"], None);
        check(&["urn:x", CAPABILITY_EXTENSION, CAPABILITY_EXTENSION], Some(CAPABILITY_EXTENSION));
        check(
            &[IDEMPOTENT_SEND_EXTENSION, CAPABILITY_EXTENSION],
            Some("urn:convoke:ext:capability:v1, urn:convoke:ext:idempotent-send:v1"),
        );
    }

    #[test]
    fn a_reader_says_where_it_stopped() {
        let check = |header: &[&str], query: Option<&str>, expected: Result<Option<u64>, &str>| {
            let found = last_event(&fields(LAST_EVENT_ID, header), query);
            match (found, expected) {
                (Ok(found), Ok(seq)) => {
                    assert_eq!(found, seq.map(|seq| Cursor { epoch: 2, seq }));
                }
                (Err(fault), Err(field)) => {
                    assert_eq!(fault.code, FaultCode::InvalidParams);
                    assert_eq!(fault.violations[0].field, field);
                }
                (found, _) => panic!("{header:?} {query:?}: {found:?}"),
            }
        };
        check(&[], None, Ok(None));
        check(&[""], None, Ok(None));
        check(&["2.7"], None, Ok(Some(7)));
        check(&["2.7"], Some("lastEventId=2.3"), Ok(Some(7)));
        check(&[], Some("a=b&lastEventId=2.3"), Ok(Some(3)));
        check(&[], Some("lastEventId="), Ok(None));
        check(&[], Some("lasteventid=2.3"), Ok(None));
        check(&["2"], None, Err("Last-Event-ID"));
        check(&["\u{e9}"], None, Err("Last-Event-ID"));
        check(&["2.7", "2.7"], None, Err("Last-Event-ID"));
        check(&[&"9".repeat(1000)], None, Err("Last-Event-ID"));
        check(&[], Some("lastEventId=2%2E3"), Err("lastEventId"));
    }

    #[test]
    fn content_types_are_exact() {
        for (value, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json;charset=\"UTF-8\";v=1", true),
            ("application/json; charset=utf-16", false),
            ("application/jsonp", false),
            ("application/a2a+json", false),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(&fields(http::header::CONTENT_TYPE, &[value])), expected, "{value}");
        }
        assert!(!is_json(&HeaderMap::new()));
        let twice = fields(http::header::CONTENT_TYPE, &["application/json", "text/plain"]);
        assert!(!is_json(&twice));
    }
}

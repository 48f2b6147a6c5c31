//! A card, written once and served many times.

use bytes::Bytes;
use convoke_model::{CapabilityName, Json, UnixMillis};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use http::{Response, StatusCode};

use crate::headers::{
    APPLICATION_JSON, CAPABILITY_EXTENSION, IDEMPOTENT_SEND_EXTENSION, TASK_EVENTS_EXTENSION,
    Version,
};
use crate::instant::http_date;
use crate::scan::{ScanError, ScanLimits, scan};
use crate::write::{Object, array};

/// Where a card is found. Source: A2A 1.0.1 §8.2.
pub const WELL_KNOWN_PATH: &str = "/.well-known/agent-card.json";

/// How long a reader may keep a card before it asks again. Capabilities change when an agent is
/// started anew, and asking again costs a 304.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=60");

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The agent's name, for people.
    pub name: String,
    /// What the agent is for.
    pub description: String,
    /// The agent's own version.
    pub version: String,
    /// Where the agent is called, in JSON-RPC, the preferred address first; absolute URLs.
    pub urls: Vec<String>,
    /// Whether callers have to show a client certificate.
    pub mutual_tls: bool,
    /// What the agent can do.
    pub skills: Vec<Skill>,
}

/// One capability as the card shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Skill {
    /// The capability's name, which is also the skill's id.
    pub name: CapabilityName,
    /// What it does.
    pub description: String,
    /// Words to find it by; if there are none, those of its name.
    pub tags: Vec<String>,
    /// The JSON Schema of its parameters.
    pub input_schema: Json,
    /// The JSON Schema of its result.
    pub output_schema: Option<Json>,
    /// Whether it answers with a message instead of a task.
    pub ephemeral: bool,
}

/// Why a description makes no card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// A card without an address cannot be called.
    #[error("the card of `{0}` has no url")]
    NoUrl(String),
    /// The card is more than any reader of ours would take; mostly its schemas are to blame.
    #[error("the card of `{name}` is refused by its own readers")]
    Refused {
        /// The agent's name.
        name: String,
        /// What they find wrong.
        source: ScanError,
    },
}

/// A card as bytes, with what HTTP caches need to know.
#[derive(Debug, Clone)]
pub struct Document {
    json: Bytes,
    etag: HeaderValue,
    last_modified: HeaderValue,
}

impl Document {
    /// Writes the card of `description`, which came to be at `since`.
    ///
    /// # Errors
    ///
    /// [`CardError`]. What passes is within the bounds that [`Card::read`](super::Card::read) has.
    pub fn new(description: &Description, since: UnixMillis) -> Result<Self, CardError> {
        if description.urls.is_empty() {
            return Err(CardError::NoUrl(description.name.clone()));
        }
        let json = write(description);
        scan(&json, &ScanLimits::CARD)
            .map_err(|source| CardError::Refused { name: description.name.clone(), source })?;
        let etag = format!("\"{:032x}\"", fnv1a_128(&json));
        let value = |text: String| {
            // Hexadecimal digits, letters, spaces and colons: all legal in a header.
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Ok(Self { json: json.into(), etag: value(etag), last_modified: value(http_date(since)) })
    }

    /// The card.
    #[must_use]
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The answer to a GET with these header fields: the card, or 304 if the reader has it.
    #[must_use]
    pub fn answer(&self, request: &HeaderMap) -> Response<Bytes> {
        let known = self.is_known_to(request);
        let body = if known { Bytes::new() } else { self.json.clone() };
        let mut response = Response::new(body);
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.reserve(4);
        if !known {
            headers.insert(CONTENT_TYPE, APPLICATION_JSON);
        }
        headers.insert(CACHE_CONTROL, CACHE);
        headers.insert(ETAG, self.etag.clone());
        headers.insert(LAST_MODIFIED, self.last_modified.clone());
        response
    }

    /// Whether the reader has this very card. Source: RFC 9110 §13.1.2 and §13.1.3; of dates only
    /// our own is recognised, and any other gets the card again.
    fn is_known_to(&self, request: &HeaderMap) -> bool {
        if !request.contains_key(IF_NONE_MATCH) {
            return request.get(IF_MODIFIED_SINCE) == Some(&self.last_modified);
        }
        request.get_all(IF_NONE_MATCH).iter().any(|value| {
            value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|tag| {
                tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == self.etag.as_bytes()
            })
        })
    }
}

fn write(card: &Description) -> Vec<u8> {
    const MODES: &[&str] = &["application/json"];
    let mut out = Vec::with_capacity(4096);
    let mut object = Object::begin(&mut out);
    object.string("name", &card.name);
    object.string("description", &card.description);
    object.string("version", &card.version);
    object.array("supportedInterfaces", &card.urls, |out, url| {
        let mut interface = Object::begin(out);
        interface.string("url", url);
        interface.string("protocolBinding", "JSONRPC");
        interface.string("protocolVersion", Version::V1.as_str());
        interface.end();
    });
    write_capabilities(object.key("capabilities"), &card.skills);
    object.strings("defaultInputModes", MODES);
    object.strings("defaultOutputModes", MODES);
    array(object.key("skills"), &card.skills, |out, skill| {
        let mut entry = Object::begin(out);
        entry.string("id", skill.name.as_str());
        entry.string("name", skill.name.as_str());
        entry.string("description", &skill.description);
        if skill.tags.is_empty() {
            entry.strings("tags", &tags_of(&skill.name));
        } else {
            entry.strings("tags", &skill.tags);
        }
        entry.strings("inputModes", MODES);
        entry.strings("outputModes", MODES);
        entry.end();
    });
    if card.mutual_tls {
        object.word(
            "securitySchemes",
            r#"{"mtls":{"mtlsSecurityScheme":{"description":"client certificate with a SPIFFE ID (X.509-SVID)"}}}"#,
        );
        object.word("securityRequirements", r#"[{"schemes":{"mtls":{"list":[]}}}]"#);
    }
    object.end();
    out
}

/// Writes what the agent can do beyond the core of A2A: our extensions, of which the first has the
/// schemas of each skill under its id in its parameters.
fn write_capabilities(out: &mut Vec<u8>, skills: &[Skill]) {
    let mut capabilities = Object::begin(out);
    capabilities.word("streaming", "true");
    capabilities.word("pushNotifications", "false");
    let extensions = capabilities.key("extensions");
    extensions.push(b'[');
    let mut extension = Object::begin(extensions);
    extension.string("uri", CAPABILITY_EXTENSION);
    extension.string(
        "description",
        "a message names the capability it calls in its metadata; params has the JSON Schemas of each",
    );
    extension.word("required", "false");
    let mut params = Object::begin(extension.key("params"));
    let mut by_id = Object::begin(params.key("capabilities"));
    for skill in skills {
        let mut entry = Object::begin(by_id.foreign_key(skill.name.as_str()));
        entry.json("inputSchema", Some(&skill.input_schema));
        entry.json("outputSchema", skill.output_schema.as_ref());
        if skill.ephemeral {
            entry.word("ephemeral", "true");
        }
        entry.end();
    }
    by_id.end();
    params.end();
    extension.end();
    for (uri, description) in BEHAVIOURS {
        capabilities.out.push(b',');
        let mut extension = Object::begin(capabilities.out);
        extension.string("uri", uri);
        extension.string("description", description);
        extension.word("required", "false");
        extension.end();
    }
    capabilities.out.push(b']');
    capabilities.end();
}

/// Extensions without parameters, with what they are.
const BEHAVIOURS: [(&str, &str); 2] = [
    (
        IDEMPOTENT_SEND_EXTENSION,
        "a request that asks for this in A2A-Extensions may be sent again: the same messageId with the same content is the same task, with another content an error",
    ),
    (
        TASK_EVENTS_EXTENSION,
        "a status update of a stream that only repeats the status names in its metadata the message that joined the task",
    ),
];

/// The words of a capability's name; never none, for a name begins with a letter.
fn tags_of(name: &CapabilityName) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    let words = name.as_str().split(['_', '-', '.']).filter(|word| !word.is_empty());
    for word in words.map(str::to_ascii_lowercase) {
        if !tags.contains(&word) {
            tags.push(word);
        }
    }
    tags
}

/// FNV-1a with 128 bits: two cards of one agent do not collide by chance, and nobody else writes
/// them.
///
/// Source: the FNV specification (RFC 9923), offset basis and prime for 128 bits.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

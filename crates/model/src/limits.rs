//! Bounds on everything that a peer can send, in one place.
//!
//! Numbers without a source of their own are the defaults of the security reference (size, depth
//! and count bombs): generous for agents, small enough that thousands of hostile callers at once
//! stay harmless. Those an operator may change are copied into `node`'s configuration from here.

use std::time::Duration;

/// Longest SPIFFE ID we accept, in bytes, scheme included.
///
/// Source: SPIFFE-ID §2.3 requires support up to 2048; we refuse longer.
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;

/// Longest trust domain name, in bytes. Source: SPIFFE-ID §2.3.
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Largest request body, in bytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Most bytes of large request bodies that one agent holds at a time, from their first byte to the
/// end of their request, and again as much for large answers, until they are sent. Further large
/// ones wait, and small ones never do. One caller may have a quarter of it.
pub const LARGE_BODIES_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Slowest large body we wait for, in bytes a second, after [`BODY_GRACE`]: it holds room that
/// others wait for.
pub const LARGE_BODY_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;

/// A request body or an answer above this size is a large one, in bytes.
pub const SMALL_BODY_BYTES_MAX: usize = 16 * 1024;

/// How long a large request waits for its turn before it is refused.
pub const LARGE_BODY_WAIT: Duration = Duration::from_secs(5);

/// Largest response body that a client of ours reads, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest header block, in bytes.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;

/// Most header fields of one request.
pub const HEADERS_MAX: usize = 100;

/// Deepest nesting of a JSON body.
pub const JSON_DEPTH_MAX: usize = 32;

/// Most keys of one JSON object.
pub const JSON_KEYS_MAX: usize = 1024;

/// Most items of one JSON array.
pub const JSON_ITEMS_MAX: usize = 4096;

/// Longest JSON string, in bytes of its JSON text.
pub const JSON_STRING_BYTES_MAX: usize = 1024 * 1024;

/// Longest JSON number, in characters.
pub const JSON_NUMBER_CHARS_MAX: usize = 64;

/// Longest identifier that a peer chooses (message, context, request), in bytes.
pub const ID_BYTES_MAX: usize = 256;

/// Most parts of one message or artifact.
pub const PARTS_MAX: usize = 256;

/// Largest `metadata` object, in bytes of its JSON text.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;

/// Most entries of one list of names: extensions, media types, referenced tasks.
pub const NAMES_MAX: usize = 64;

/// Longest entry of such a list, and longest file name or media type of a part, in bytes.
pub const NAME_BYTES_MAX: usize = 2048;

/// Most fields of one message, part or artifact that we do not know and keep. Kept one by one they
/// take some ten times the memory of their text, so that few are many.
pub const UNKNOWN_FIELDS_MAX: usize = 64;

/// Most tasks of one page of a list. Source: A2A 1.0.1 §3.1.4.
pub const LIST_PAGE_MAX: u32 = 100;

/// Tasks of one page of a list when nothing is said. Source: as above.
pub const LIST_PAGE_DEFAULT: u32 = 50;

/// Longest token of a page, in bytes; ours are far shorter, and an agent that is called may have others.
pub const PAGE_TOKEN_BYTES_MAX: usize = 1024;

/// Largest checkpoint of a task, in bytes of its JSON text: it is written with each, and read before
/// the work goes on.
pub const CHECKPOINT_BYTES_MAX: usize = 256 * 1024;

/// Largest agent card, in bytes.
pub const CARD_BYTES_MAX: usize = 256 * 1024;

/// Longest sentence of a peer's fault that we keep, in bytes.
pub const FAULT_TEXT_BYTES_MAX: usize = 4096;

/// Longest name of a capability, in bytes.
pub const CAPABILITY_BYTES_MAX: usize = 128;

/// Most violations that one refusal of parameters reports.
pub const VIOLATIONS_MAX: usize = 16;

/// Most requests of one agent that are worked on at a time. A request that waits for another agent
/// counts, so this is far above what the cores can do at once; it bounds memory under overload.
pub const REQUESTS_MAX: usize = 4096;

/// How long a request waits for its turn once [`REQUESTS_MAX`] are at work. Waiting longer than this
/// means that more comes in than goes out, and then an early refusal serves everybody better.
pub const QUEUE_TIME_MAX: Duration = Duration::from_millis(100);

/// Time from accept to a finished TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from accept (or the end of the handshake) to the first byte of a request.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time from the first byte of a request to the end of its header block.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Slowest body we wait for, in bytes a second, after [`BODY_GRACE`].
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 1024;

/// How long a body may take before its rate is looked at.
pub const BODY_GRACE: Duration = Duration::from_secs(5);

/// How long a connection may be idle between requests.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// Most connections of one listener at a time.
pub const CONNECTIONS_MAX: usize = 10_000;

/// Most connections of one listener at a time from one address (for IPv6, from one /64).
pub const CONNECTIONS_PER_IP_MAX: usize = 1024;

/// How long the kernel waits for a peer to acknowledge what we sent before it gives the
/// connection up; a peer that has stopped reading counts as one that does not acknowledge.
pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Time to open a TCP connection, over all addresses of a name.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest address of an agent that we accept, in bytes of its URL.
pub const ADDRESS_BYTES_MAX: usize = 2048;

/// Most HTTP/2 streams of one connection at a time.
pub const H2_STREAMS_MAX: u32 = 128;

/// Longest life of a connection; it ends earlier if a certificate of either side does.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);

/// Longest evaluation of a policy, in the processor time of its thread. A decision that took longer
/// is a refusal.
///
/// Source: evaluations take some ten microseconds; OPA's own advice for a decision on a request path
/// is one millisecond. Time in which the machine does something else does not count.
pub const POLICY_TIME_MAX: Duration = Duration::from_millis(5);

/// Largest policy input document, in bytes of its JSON text.
pub const POLICY_INPUT_BYTES_MAX: usize = BODY_BYTES_MAX;

/// How long a call waits for its answer when the caller gives no timeout.
///
/// Source: the first seed, `call_agent(…, timeout=30.0)`.
pub const CALL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

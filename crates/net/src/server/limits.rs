//! What a server puts up with.

use std::time::Duration;

use convoke_model::limits;

/// Bounds on connections and on what comes in by them. The defaults are those of
/// [`convoke_model::limits`].
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time from accept to a finished TLS handshake.
    pub handshake_timeout: Duration,
    /// Time from accept, or from the end of the handshake, to the first byte of a request.
    pub first_byte_timeout: Duration,
    /// Time from the first byte of a request to the end of its header block. On HTTP/2, time from
    /// the connection's first byte to its first request.
    pub header_timeout: Duration,
    /// Largest header block, in bytes, the request line included.
    pub header_bytes_max: usize,
    /// How long a connection may be idle between requests, and how long the rest of a response may
    /// go without a reader.
    pub idle_timeout: Duration,
    /// Most connections at a time.
    pub connections_max: usize,
    /// Most connections at a time from one address; from one /64 for IPv6.
    pub connections_per_ip_max: usize,
    /// Most requests of one HTTP/2 connection at a time.
    pub h2_streams_max: u32,
    /// Longest life of a connection.
    pub connection_age_max: Duration,
    /// How long before its end by age a connection stops to take requests, so that running ones
    /// can finish; at most a quarter of the age.
    pub close_grace: Duration,
    /// How long requests may still run on a connection that may not go on.
    pub review_grace: Duration,
    /// How long a draining server still takes a request on an HTTP/1.1 connection that is idle. Such
    /// a connection has no other way to be told than in an answer: whoever closes it may do so just
    /// when a request is on its way.
    pub drain_idle: Duration,
    /// How long a closing connection waits until the peer has read the last response.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            first_byte_timeout: limits::FIRST_BYTE_TIMEOUT,
            header_timeout: limits::HEADER_TIMEOUT,
            header_bytes_max: limits::HEADER_BYTES_MAX,
            idle_timeout: limits::IDLE_TIMEOUT,
            connections_max: limits::CONNECTIONS_MAX,
            connections_per_ip_max: limits::CONNECTIONS_PER_IP_MAX,
            h2_streams_max: limits::H2_STREAMS_MAX,
            connection_age_max: limits::CONNECTION_AGE_MAX,
            close_grace: Duration::from_secs(30),
            // Less than the 5 s after which nothing of a peer that is no longer trusted may succeed.
            review_grace: Duration::from_secs(3),
            drain_idle: Duration::from_millis(250),
            linger: Duration::from_secs(2),
        }
    }
}

//! Sockets: what comes in is bounded here before it is parsed, what goes out leaves through one
//! dialer.
//!
//! [`server`] accepts connections, applies limits and speaks HTTP/1.1 and HTTP/2; [`client`] opens
//! connections and keeps them for reuse. Certificates are opaque here: whoever supplies the TLS
//! configuration decides whom it trusts, and a server's handler sees the certificates that passed.

mod body;
pub mod client;
pub mod server;
mod socket;

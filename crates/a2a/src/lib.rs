//! The A2A wires, server half and client half: bytes to [`Operation`](convoke_model::Operation)
//! and back, without a socket.
//!
//! This much is here: JSON-RPC 2.0 with A2A 1.0, the agent card, and the scan that every document
//! passes first. A wire shape goes no further than this crate.
//!
//! | module | story |
//! |---|---|
//! | [`mod@scan`] | one pass over untrusted JSON: grammar, bounds, duplicate keys |
//! | [`jsonrpc`] | a request's bytes in, an operation out; results and faults to bytes |
//! | [`client`] | the same from the other end |
//! | [`capability`] | how a message names the capability it calls |
//! | [`terms`] | how a message says how urgent it is and until when |
//! | [`card`] | the card: written, served with validators, read |
//! | [`size`] | how large an answer becomes, before it is written |
//! | [`headers`] | A2A's header fields and the negotiation of its version |

pub mod capability;
pub mod card;
pub mod client;
mod extent;
mod fault;
pub mod headers;
mod instant;
pub mod jsonrpc;
mod read;
mod reader;
mod scalar;
pub mod scan;
pub mod size;
pub mod terms;
mod unescape;
mod write;

pub use fault::{http_status, number};
pub use headers::Version;
pub use scan::{ScanError, ScanErrorKind, ScanLimits, scan};

//! Who may reach what, under which certificates, and until when: the rules S-01, S-02 and S-04 of
//! the security reference, against a whole node over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may")]
#![allow(clippy::needless_update, reason = "options come to be more")]
#![allow(clippy::disallowed_methods, reason = "these callers do what our own client never would")]

mod authority;
mod expiry;
mod mesh;
mod open_streams;
mod rotation;
mod routes;
mod smuggling;
mod trust_domain;

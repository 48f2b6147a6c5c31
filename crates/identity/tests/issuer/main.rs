//! The embedded issuer as others see it: the clients of other people, and what entries give.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod entries;
mod python;
mod rust;
mod spire;
mod world;

//! Black-box tests: the shipped binary, its processes and their sockets, and nothing inside.
//!
//! Each test has a world of its own (a directory, an issuer, agents on free ports), so they run in
//! parallel and leave nothing behind. What is waited for is an event; every wait has an end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why on its own output"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test that plays a bad peer needs sockets that obey no limits"
)]

mod audit;
mod cli;
mod config;
mod data;
mod demo;
mod doctor;
mod doctor_identity;
mod doctor_running;
mod entries;
mod golden;
mod hostile;
mod lifecycle;
mod logs;
mod namespace;
mod ping;
mod policy;
mod process;
mod refusals;
mod seeds;
mod slow;
mod task_command;
mod tasks;
mod tls;
mod tutorial;
mod wire;
mod world;

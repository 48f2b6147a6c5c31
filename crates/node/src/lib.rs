//! The daemon as a value: configuration in, a running node out.

pub mod config;
pub mod observe;

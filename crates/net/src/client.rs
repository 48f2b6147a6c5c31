//! Outbound calls: addresses, the one dialer, and connections kept for reuse.

mod address;
mod dial;
mod error;
mod pool;
mod probe;
mod stream;
#[cfg(test)]
mod tests;

pub use address::{Address, AddressError, Provenance};
pub use dial::Dialer;
pub use error::SendError;
pub use pool::{Pool, PoolLimits, Response, Route};
pub use probe::{Probe, probe};
pub use stream::{Streamed, open};

//! Who may have a connection: a cap for all and a cap for each address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections by where they come from.
pub(super) struct Admission {
    max: usize,
    per_ip_max: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// The right to one connection, given back on drop, also when its task panics.
pub(super) struct Permit {
    admission: Arc<Admission>,
    ip: IpAddr,
}

/// Which cap is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    All,
    ThisAddress,
}

impl Full {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::All => "the listener has as many connections as it may",
            Self::ThisAddress => "the address has as many connections as it may",
        }
    }
}

impl Admission {
    pub(super) fn new(max: usize, per_ip_max: usize) -> Arc<Self> {
        Arc::new(Self { max, per_ip_max, counts: Mutex::default() })
    }

    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Permit, Full> {
        let ip = holder(ip);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.max {
            return Err(Full::All);
        }
        let of_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if of_ip >= self.per_ip_max {
            return Err(Full::ThisAddress);
        }
        counts.by_ip.insert(ip, of_ip + 1);
        counts.all += 1;
        Ok(Permit { admission: Arc::clone(self), ip })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        if let Entry::Occupied(mut of_ip) = counts.by_ip.entry(self.ip) {
            *of_ip.get_mut() -= 1;
            if *of_ip.get() == 0 {
                of_ip.remove();
            }
        }
    }
}

/// What one party is assumed to hold: an IPv4 address, or an IPv6 network of 64 bits.
fn holder(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(held: &[&str], next: &str, expected: Result<(), Full>) {
        let admission = Admission::new(3, 2);
        let permits: Vec<_> =
            held.iter().map(|ip| admission.admit(ip.parse().unwrap()).ok().unwrap()).collect();
        assert_eq!(admission.admit(next.parse().unwrap()).map(drop), expected, "{next}");
        drop(permits);
        let counts = admission.counts.lock().unwrap();
        assert_eq!((counts.all, counts.by_ip.len()), (0, 0));
    }

    #[test]
    fn caps_hold_and_permits_come_back() {
        check(&["10.0.0.1"], "10.0.0.1", Ok(()));
        check(&["10.0.0.1", "10.0.0.1"], "10.0.0.1", Err(Full::ThisAddress));
        check(&["10.0.0.1", "::ffff:10.0.0.1"], "10.0.0.1", Err(Full::ThisAddress));
        check(&["2001:db8::1", "2001:db8::2"], "2001:db8::3", Err(Full::ThisAddress));
        check(&["2001:db8::1", "2001:db8::2"], "2001:db8:0:1::3", Ok(()));
        check(&["10.0.0.1", "10.0.0.2", "10.0.0.3"], "10.0.0.4", Err(Full::All));
    }
}

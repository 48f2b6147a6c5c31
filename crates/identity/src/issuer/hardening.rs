//! What an issuer's process does for the keys that it holds.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Keeps other processes of this user from reading this process's memory, by a debugger or from a
/// core file, and takes as many file descriptors as the system lets it have, so that the clients of
/// one user do not shut out others'. For the process of an issuer alone: it concerns all of it.
///
/// # Errors
///
/// When the system refuses.
pub fn harden_process() -> io::Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let Rlimit { maximum, .. } = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_closed_to_others_and_has_every_descriptor() {
        harden_process().unwrap();
        let dumpable = rustix::process::dumpable_behavior().unwrap();
        assert_eq!(dumpable, DumpableBehavior::NotDumpable);
        let limit = rustix::process::getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}

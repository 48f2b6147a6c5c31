//! Who the person at the keyboard is.

use convoke::{SpiffeId, TrustDomain};

use crate::exit::{Code, Failure};

/// The identity that a person calls as: `spiffe://DOMAIN/user/LOGIN`.
///
/// The login name is that of the process's user id in the password database, not of `$USER`, which
/// anybody may set; it selects a name only, the issuer decides.
pub(crate) fn default_identity(domain: &TrustDomain) -> Result<SpiffeId, Failure> {
    let name = login_name()?;
    domain.member(&format!("/user/{name}")).map_err(|error| {
        Failure::new(Code::NoIdentity, format_args!("the login name `{name}`: {error}"))
            .hint("say who calls with --identity spiffe://…")
    })
}

fn login_name() -> Result<String, Failure> {
    let missing = |why: &str| {
        Failure::new(Code::NoIdentity, format_args!("the login name of this user: {why}"))
            .hint("say who calls with --identity spiffe://…")
    };
    let uid = own_uid().map_err(|error| missing(&error.to_string()))?;
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    Ok(users
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?, fields.nth(1)?);
            (id.parse() == Ok(uid)).then(|| name.to_owned())
        })
        // A container often has no entry for its user.
        .unwrap_or_else(|| format!("uid-{uid}")))
}

/// The real user id of this process.
fn own_uid() -> std::io::Result<u32> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata("/proc/self")?.uid())
}

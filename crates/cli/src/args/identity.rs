//! `convoke identity`: issuing identities, and looking at one.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use convoke::identity::issuer::Selector;
use convoke::{SpiffeId, TrustDomain};

use super::{AsWho, SOCKET_DEFAULT, duration};

#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// Issue identities to processes of this machine, as a SPIRE agent does
    #[command(after_help = "\
Example:
  convoke identity serve --trust-domain example.org

There is no --json: what it logs is JSON already where no terminal reads it.")]
    Serve(IdentityServe),
    /// Show the identity that this process is given
    #[command(after_help = "\
Example:
  convoke identity show --identity spiffe://example.org/document-worker")]
    Show(IdentityShow),
    /// Say which processes get which identities
    #[command(subcommand)]
    Entry(Entry),
}

#[derive(Debug, Args)]
pub(crate) struct IdentityServe {
    /// The trust domain to issue for
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: TrustDomain,
    /// Where to answer
    #[arg(long, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    pub(crate) socket: PathBuf,
    /// Where the authority's key is kept [default: the state directory of this user]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How long a certificate is good for; it is renewed at half of that
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub(crate) ttl: Duration,
    /// Renew a certificate at this age already
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) renew_after: Option<Duration>,
    /// How long a token (JWT-SVID) is good for
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) jwt_ttl: Duration,
    /// How long an authority is good for; the next one is there at half of that
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    pub(crate) ca_ttl: Duration,
    /// Let workloads verify peers of this domain too; FILE holds its certificates in PEM or its
    /// SPIFFE bundle; may be repeated
    #[arg(long, value_name = "DOMAIN=FILE", value_parser = federated)]
    pub(crate) federate: Vec<(TrustDomain, PathBuf)>,
    /// End when standard input does, so that the issuer does not outlive its parent
    #[arg(long, hide = true)]
    pub(crate) until_stdin_ends: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IdentityShow {
    /// The trust domain, when --identity does not name it
    #[arg(long, value_name = "NAME", required_unless_present = "identity")]
    pub(crate) trust_domain: Option<TrustDomain>,
    #[command(flatten)]
    pub(crate) as_who: AsWho,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Entry {
    /// Give an identity to the processes for which all selectors hold
    #[command(after_help = "\
Example:
  convoke identity entry add \\
    --spiffe-id spiffe://example.org/document-worker \\
    --selector unix:uid:1000 --selector unix:path:/usr/local/bin/worker

Selectors: unix:uid:N, unix:gid:N (primary group), unix:path:/PROGRAM.
The first entry ends that processes of the issuer's user enrol themselves.")]
    Add(EntryAdd),
    /// List the entries
    #[command(after_help = "\
Example:
  convoke identity entry list")]
    List(EntryList),
    /// Remove an entry, and end what it gave
    #[command(after_help = "\
Example:
  convoke identity entry rm 3")]
    Rm(EntryRm),
}

#[derive(Debug, Args)]
pub(crate) struct EntryAdd {
    /// The identity
    #[arg(long, value_name = "SPIFFE_ID")]
    pub(crate) spiffe_id: SpiffeId,
    /// What has to be true of a process; may be repeated, and then all of it has to be
    #[arg(long, value_name = "SELECTOR", required = true)]
    pub(crate) selector: Vec<Selector>,
    /// How long a certificate is good for, in whole seconds [default: the issuer's --ttl]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) issuer: Issuer,
}

#[derive(Debug, Args)]
pub(crate) struct EntryList {
    #[command(flatten)]
    pub(crate) issuer: Issuer,
}

#[derive(Debug, Args)]
pub(crate) struct EntryRm {
    /// The number of the entry, as `list` shows it
    #[arg(value_name = "ENTRY")]
    pub(crate) entry: u64,
    #[command(flatten)]
    pub(crate) issuer: Issuer,
}

/// Which issuer is asked, and how its answer is printed.
#[derive(Debug, Args)]
pub(crate) struct Issuer {
    /// The issuer's Workload API
    #[arg(long, value_name = "PATH", env = "SPIFFE_ENDPOINT_SOCKET", default_value = SOCKET_DEFAULT)]
    pub(crate) socket: String,
    /// The user id that the issuer may have besides root and your own
    #[arg(long, value_name = "UID")]
    pub(crate) issuer_uid: Option<u32>,
    /// Report as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads `other.org=FILE`.
fn federated(text: &str) -> Result<(TrustDomain, PathBuf), String> {
    let (domain, file) = text
        .split_once('=')
        .filter(|(_, file)| !file.is_empty())
        .ok_or_else(|| format!("`{text}` is not DOMAIN=FILE"))?;
    let domain = TrustDomain::parse(domain).map_err(|error| error.to_string())?;
    Ok((domain, file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_federated_domain_has_a_file() {
        let (domain, file) = federated("other.org=a=b.pem").unwrap();
        assert_eq!((domain.as_str(), file), ("other.org", PathBuf::from("a=b.pem")));
        for wrong in ["", "other.org", "other.org=", "=a", "Other=a"] {
            assert!(federated(wrong).is_err(), "{wrong}");
        }
    }
}

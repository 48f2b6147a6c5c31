//! `identity`: who the agent is, and where it gets that from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use convoke_model::{SpiffeId, TrustDomain};

use super::super::reader::Section;
use super::super::text::{join, quote};
use super::super::{Environment, IdentityConfig, IdentityFiles};
use super::forms::socket_path;

/// Most trust domains whose roots are given as files.
const FEDERATED_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq)]
enum Provider {
    WorkloadApi,
    Files,
}

pub(super) fn read(section: &Section<'_>, env: &Environment) -> Option<IdentityConfig> {
    let providers = [("workload_api", Provider::WorkloadApi), ("files", Provider::Files)];
    let provider = section.word("provider", &providers);
    let written = section.has("spiffe_id");
    let spiffe_id = section.parsed("spiffe_id", SpiffeId::parse);
    if !written {
        section.missing("spiffe_id", "name the agent, as in spiffe://example.org/worker");
    }
    let trust_domain = section.parsed("trust_domain", TrustDomain::parse);
    let (id, domain) = (spiffe_id.as_ref(), trust_domain.as_ref());
    if let Some((id, domain)) = id.zip(domain)
        && id.trust_domain_str() != domain.as_str()
    {
        let own = id.trust_domain_str();
        let message = format!(
            "`identity.trust_domain` is `{domain}`, but `identity.spiffe_id` is of `{own}`"
        );
        section.problem("trust_domain", &message, Some("leave `trust_domain` out"));
    }
    if let Some(id) = id {
        section.worked_out("trust_domain", id.trust_domain_str());
    }
    let socket = socket(section, provider, env);
    let issuer_uid = section.number("issuer_uid");
    if provider == Some(Provider::Files) {
        for key in ["spire_socket", "issuer_uid"] {
            if section.has(key) {
                let message =
                    format!("`identity.{key}` has no effect while `identity.provider` is `files`");
                section.problem(key, &message, Some("leave one of the two out"));
            }
        }
    }
    let files = files(&section.section("files"), provider, id);
    let spiffe_id = spiffe_id?;
    let trust_domain = spiffe_id.trust_domain();
    Some(IdentityConfig { trust_domain, spiffe_id, socket, issuer_uid, files: files? })
}

fn socket(section: &Section<'_>, provider: Option<Provider>, env: &Environment) -> Option<PathBuf> {
    let written = section.parsed("spire_socket", socket_path);
    if provider == Some(Provider::Files) || section.has("spire_socket") {
        return written;
    }
    let text = env.spiffe_endpoint_socket.as_deref()?;
    match socket_path(text) {
        Ok(path) => {
            section.worked_out("spire_socket", path.display());
            Some(path)
        }
        Err(why) => {
            let message = format!("SPIFFE_ENDPOINT_SOCKET is `{}`: {why}", quote(text));
            section.problem("spire_socket", &message, None);
            None
        }
    }
}

/// The inner `None` is an identity that does not come from files.
fn files(
    section: &Section<'_>,
    provider: Option<Provider>,
    own: Option<&SpiffeId>,
) -> Option<Option<IdentityFiles>> {
    let path = |key| section.text(key).map(PathBuf::from);
    let (certificate, private_key, bundle) =
        (path("certificate"), path("private_key"), path("bundle"));
    let federated = federated(&section.section("federated"), own);
    if provider != Some(Provider::Files) {
        if section.is_written() && provider.is_some() {
            let message = "`identity.files` has no effect while `identity.provider` is \
                           `workload_api`";
            section.problem("", message, Some("write `provider: files`, or leave `files` out"));
            return None;
        }
        return Some(None);
    }
    for key in ["certificate", "private_key", "bundle"] {
        if !section.has(key) {
            section.missing(key, "`identity.provider: files` needs it");
        }
    }
    Some(Some(IdentityFiles {
        certificate: certificate?,
        private_key: private_key?,
        bundle: bundle?,
        federated: federated?,
    }))
}

fn federated(
    section: &Section<'_>,
    own: Option<&SpiffeId>,
) -> Option<BTreeMap<TrustDomain, PathBuf>> {
    let entries = section.named_texts();
    if entries.len() > FEDERATED_MAX {
        let message = format!("`identity.files.federated` has more than {FEDERATED_MAX} entries");
        section.problem("", &message, None);
        return None;
    }
    let mut found = BTreeMap::new();
    let mut is_good = true;
    for (key, file) in entries {
        let path = join("identity.files.federated", &quote(&key.name));
        match TrustDomain::parse(&key.name) {
            Ok(domain) if own.is_some_and(|own| own.trust_domain_str() == domain.as_str()) => {
                let message = format!("`{path}` is the agent's own trust domain");
                let cure = Some("its roots are in `identity.files.bundle`");
                section.problem_of_key(key, &message, cure);
                is_good = false;
            }
            Ok(domain) => match file {
                Some(file) => drop(found.insert(domain, PathBuf::from(file))),
                None => is_good = false,
            },
            Err(why) => {
                section.problem_of_key(key, &format!("`{path}` is no trust domain: {why}"), None);
                is_good = false;
            }
        }
    }
    is_good.then_some(found)
}

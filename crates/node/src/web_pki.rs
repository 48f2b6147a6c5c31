//! TLS to servers that the Web's public key infrastructure vouches for, such as a collector or a
//! policy server; agents are known by SPIFFE instead.

use std::path::PathBuf;
use std::sync::Arc;

use convoke_identity::regular_file;
use convoke_model::system_error;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::version::TLS13;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Where the roots are kept, unless `SSL_CERT_FILE` says otherwise.
///
/// Source: the list of Go's `crypto/x509`, for the common distributions.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Largest file of roots that is read, in bytes. The common distributions' have a quarter of one MiB.
const ROOTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Why nobody could be known by their name.
#[derive(Debug, thiserror::Error)]
pub enum WebPkiError {
    /// There are no roots where they usually are.
    #[error(
        "no root certificates are found; install `ca-certificates`, or name a PEM file by SSL_CERT_FILE"
    )]
    NoRoots,
    /// The roots cannot be read.
    #[error("root certificates `{path}`: {why}")]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The cryptography that TLS needs is not there.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS 1.3 that speaks `protocol`, such as `h2`, to a server with a name of the Web's PKI.
///
/// # Errors
///
/// [`WebPkiError`] if there are no roots to know it by.
pub(crate) fn client_config(protocol: &str) -> Result<rustls::ClientConfig, WebPkiError> {
    let path = match std::env::var_os("SSL_CERT_FILE") {
        Some(path) => PathBuf::from(path),
        None => {
            let found = ROOTS.iter().map(PathBuf::from).find(|path| path.is_file());
            found.ok_or(WebPkiError::NoRoots)?
        }
    };
    let wrong = |why: String| WebPkiError::Roots { path: path.clone(), why };
    let pem = regular_file::open(&path)
        .and_then(|file| regular_file::bytes_of(file, ROOTS_BYTES_MAX))
        .map_err(|error| wrong(system_error(&error)))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, _not_understood) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

//! `ceil_tls`: hyper over TLS 1.3 with certificates on both sides, checked by rustls alone; and
//! the configurations that handshakes are compared with.

#![allow(clippy::disallowed_methods, reason = "a ceiling is what `net` is measured against")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{Reply, echo, until_input_ends};
use crate::authority::Leaf;

/// Serves the answer in the file `answer` on a free port, which it prints, under the identity that
/// [`Leaf::save`] left in the directory `identity`.
pub(crate) fn run(answer: &Path, identity: &Path) -> Result<()> {
    let reply = Reply::read(answer)?;
    let (own, root) = Leaf::load(identity)?;
    let acceptor = TlsAcceptor::from(server_config(&own, &root)?);
    until_input_ends(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        crate::say(&listener.local_addr()?.to_string())?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, reply) = (acceptor.clone(), reply.clone());
            tokio::spawn(async move {
                // A caller that fails here finds out by itself, and the run is void.
                if let Ok(stream) = acceptor.accept(stream).await {
                    echo(stream, reply).await;
                }
            });
        }
    })
}

/// TLS 1.3 with a caller's certificate and without resumption, by rustls' own verifier.
pub(crate) fn server_config(
    own: &Leaf,
    root: &CertificateDer<'static>,
) -> Result<Arc<ServerConfig>> {
    let roots = Arc::new(roots(root)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The other side of [`server_config`].
pub(crate) fn client_config(
    own: &Leaf,
    root: &CertificateDer<'static>,
) -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(root)?)
        .with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn roots(root: &CertificateDer<'static>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    Ok(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

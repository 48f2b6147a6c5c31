//! Asks the embedded issuer for an identity, where there is one.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::workload_api::{chain, may_serve};
use super::{IdentityError, WorkloadApiConfig};
use crate::enrolment::{
    BODY_BYTES_MAX, ENROL_PATH, EnrolRefusal, EnrolRequest, RefusalCode, admin_socket,
};

/// Whether processes may enrol themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enrolling {
    /// Nothing is known against it.
    Open,
    /// The embedded issuer has, or has had, registration entries.
    Ended,
}

/// Enrols this process under the configured ID, if the Workload API is an embedded issuer that we
/// may speak to. Where it is not, nothing happens: what is registered for this process decides.
pub(super) async fn enrol(
    config: &WorkloadApiConfig,
    own: u32,
) -> Result<Enrolling, IdentityError> {
    let socket = admin_socket(&config.socket);
    if !is_issuers(&socket, own, config.issuer_uid) {
        return Ok(Enrolling::Open);
    }
    let stream = match connect(&socket, own, config.issuer_uid).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(socket = %socket.display(), error = %chain(&error), "not enrolling");
            return Ok(Enrolling::Open);
        }
    };
    let unclear = |source| IdentityError::AdminProtocol { socket: socket.clone(), source };
    let refusal = match ask(stream, config).await.map_err(unclear)? {
        None => return Ok(Enrolling::Open),
        Some(refusal) => refusal,
    };
    if refusal.code == RefusalCode::Registered {
        // What is registered for this process decides, as it does with SPIRE.
        return Ok(Enrolling::Ended);
    }
    let (wanted, reason) = (config.spiffe_id.clone(), refusal.message);
    Err(match refusal.code {
        RefusalCode::TrustDomain => {
            let socket = config.socket.clone();
            IdentityError::TrustDomainMismatch { socket, wanted, detail: reason }
        }
        RefusalCode::BadRequest
        | RefusalCode::NotPermitted
        | RefusalCode::Exhausted
        | RefusalCode::Registered
        | RefusalCode::Exists
        | RefusalCode::NotFound
        | RefusalCode::Failed => {
            IdentityError::EnrolmentRefused { socket: socket.clone(), wanted, reason }
        }
    })
}

/// Whether a file is a socket that only an issuer we trust can have made and can be spoken to by
/// its own user alone.
fn is_issuers(socket: &PathBuf, own: u32, issuer_uid: Option<u32>) -> bool {
    std::fs::symlink_metadata(socket).is_ok_and(|file| {
        file.file_type().is_socket()
            && file.mode() & 0o777 == 0o600
            && may_serve(file.uid(), own, issuer_uid)
    })
}

async fn connect(socket: &Path, own: u32, issuer_uid: Option<u32>) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket).await?;
    if !may_serve(stream.peer_cred()?.uid(), own, issuer_uid) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(stream)
}

/// Sends the one request that there is; the answer is `None` if it was granted.
async fn ask(
    stream: UnixStream,
    config: &WorkloadApiConfig,
) -> Result<Option<EnrolRefusal>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let asked = EnrolRequest { spiffe_id: config.spiffe_id.as_str().to_owned() };
    let request = Request::builder()
        .method(Method::POST)
        .uri(ENROL_PATH)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(&asked)?)))?;
    let response = sender.send_request(request).await?;
    if response.status() == StatusCode::OK {
        return Ok(None);
    }
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await?.to_bytes();
    Ok(Some(serde_json::from_slice(&body)?))
}

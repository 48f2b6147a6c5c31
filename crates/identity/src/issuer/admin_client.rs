//! The other end of the admin socket, for the command line.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::entries::{
    Added, AddedDocument, Entry, EntryDocument, Registration, RegistrationDocument,
};
use crate::enrolment::{ENTRIES_PATH, EnrolRefusal, RefusalCode, admin_socket};
use crate::process::own_uid;
use crate::source::may_serve;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Largest answer, in bytes: all entries that there may be.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Sees and changes the registration entries of a running issuer.
#[derive(Debug, Clone)]
pub struct AdminClient {
    socket: PathBuf,
    issuer_uid: Option<u32>,
}

/// Why the issuer did not do as it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody answers there.
    #[error("no issuer answers at `{socket}`; start one with `convoke identity serve`")]
    Unreachable {
        /// The admin socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket is another user's.
    #[error("`{socket}` is open to uid {found} alone; run this as that user")]
    NotPermitted {
        /// The admin socket.
        socket: PathBuf,
        /// Who answers there.
        found: u32,
    },
    /// The server runs as a user whom we do not trust with this.
    #[error("`{socket}` is served by uid {found}, not by root or uid {own}; see --issuer-uid")]
    WrongOwner {
        /// The admin socket.
        socket: PathBuf,
        /// Who answers there.
        found: u32,
        /// Who we are.
        own: u32,
    },
    /// The issuer refused.
    #[error("{message}")]
    Refused {
        /// What kind of refusal it is.
        kind: Refusal,
        /// Why, in the issuer's words.
        message: String,
    },
    /// No answer in time.
    #[error("no answer from `{socket}` within {} s", ANSWER_MAX.as_secs())]
    TimedOut {
        /// The admin socket.
        socket: PathBuf,
    },
    /// The answer is not an issuer's.
    #[error("what answers at `{socket}` is not this version's issuer")]
    Protocol {
        /// The admin socket.
        socket: PathBuf,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The kinds of refusals that a caller may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// What was asked for contradicts itself or the issuer's settings.
    Invalid,
    /// An entry says the same already.
    Exists,
    /// There is no such entry.
    NotFound,
    /// The caller may not do it.
    NotPermitted,
    /// The issuer could not do it, or has no room.
    Failed,
}

impl AdminClient {
    /// A client of the issuer whose Workload API is at `socket`. Its server may be root, our own
    /// user or `issuer_uid`.
    #[must_use]
    pub fn new(socket: &Path, issuer_uid: Option<u32>) -> Self {
        Self { socket: admin_socket(socket), issuer_uid }
    }

    /// Adds an entry; when this returns, it is on the issuer's disk and in force.
    ///
    /// # Errors
    ///
    /// [`AdminError`], as for every method.
    pub async fn add(&self, registration: &Registration) -> Result<Added, AdminError> {
        let asked = RegistrationDocument::from(registration);
        let body = serde_json::to_vec(&asked).map_err(|error| self.unclear(error))?;
        let AddedDocument { entry, enrolling_ended } =
            self.ask(Method::POST, ENTRIES_PATH.to_owned(), body).await?;
        Ok(Added { entry: self.read(entry)?, enrolling_ended })
    }

    /// All entries, by their numbers.
    ///
    /// # Errors
    ///
    /// [`AdminError`], as for every method.
    pub async fn list(&self) -> Result<Vec<Entry>, AdminError> {
        let asked = self.ask(Method::GET, ENTRIES_PATH.to_owned(), Vec::new());
        let entries: Vec<EntryDocument> = asked.await?;
        entries.into_iter().map(|entry| self.read(entry)).collect()
    }

    /// Removes an entry. Whoever watches has lost what it gave by the time this returns, or will
    /// in a moment; a certificate that was issued stays good until it ends.
    ///
    /// # Errors
    ///
    /// [`AdminError`], as for every method.
    pub async fn remove(&self, id: u64) -> Result<Entry, AdminError> {
        let entry: EntryDocument =
            self.ask(Method::DELETE, format!("{ENTRIES_PATH}/{id}"), Vec::new()).await?;
        self.read(entry)
    }

    fn read(&self, entry: EntryDocument) -> Result<Entry, AdminError> {
        Entry::try_from(entry).map_err(|error| self.unclear(error))
    }

    fn unclear(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AdminError {
        AdminError::Protocol { socket: self.socket.clone(), source: source.into() }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: String,
        body: Vec<u8>,
    ) -> Result<T, AdminError> {
        let asked = async {
            let stream = self.connect().await?;
            let (status, answer) =
                exchange(stream, method, path, body).await.map_err(|error| self.unclear(error))?;
            if status == StatusCode::OK {
                return serde_json::from_slice(&answer).map_err(|error| self.unclear(error));
            }
            let refusal: EnrolRefusal =
                serde_json::from_slice(&answer).map_err(|error| self.unclear(error))?;
            Err(AdminError::Refused { kind: kind(refusal.code), message: refusal.message })
        };
        tokio::time::timeout(ANSWER_MAX, asked)
            .await
            .unwrap_or_else(|_| Err(AdminError::TimedOut { socket: self.socket.clone() }))
    }

    /// Connects, and looks at who is at the other end before anything is said.
    async fn connect(&self) -> Result<UnixStream, AdminError> {
        use std::os::unix::fs::MetadataExt;

        let socket = self.socket.clone();
        let unreachable = |source| AdminError::Unreachable { socket: socket.clone(), source };
        let stream = match UnixStream::connect(&socket).await {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let found = std::fs::symlink_metadata(&socket).map_err(unreachable)?.uid();
                return Err(AdminError::NotPermitted { socket, found });
            }
            connected => connected.map_err(unreachable)?,
        };
        let found = stream.peer_cred().map_err(unreachable)?.uid();
        let own = own_uid().map_err(unreachable)?;
        if !may_serve(found, own, self.issuer_uid) {
            return Err(AdminError::WrongOwner { socket, found, own });
        }
        Ok(stream)
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: String,
    body: Vec<u8>,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok((status, answer))
}

fn kind(code: RefusalCode) -> Refusal {
    match code {
        RefusalCode::BadRequest | RefusalCode::TrustDomain => Refusal::Invalid,
        RefusalCode::Exists => Refusal::Exists,
        RefusalCode::NotFound => Refusal::NotFound,
        RefusalCode::NotPermitted | RefusalCode::Registered => Refusal::NotPermitted,
        RefusalCode::Exhausted | RefusalCode::Failed => Refusal::Failed,
    }
}

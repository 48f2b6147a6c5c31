//! Enrolment and registration entries, over HTTP/1.1 on the admin socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use convoke_model::SpiffeId;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;

use super::entries::{
    AddedDocument, Entry, EntryDocument, EntryError, Registration, RegistrationDocument,
};
use super::{Shared, error};
use crate::enrolment::{
    BODY_BYTES_MAX, ENROL_PATH, ENTRIES_PATH, EnrolRefusal, EnrolRequest, RefusalCode,
};
use crate::process::Process;

/// How long one connection may last: it carries one request.
const CONNECTION_MAX: Duration = Duration::from_secs(5);

/// Largest header block, in bytes; hyper asks for at least this much.
const HEADER_BYTES_MAX: usize = 8192;

/// Most header fields of a request.
const HEADERS_MAX: usize = 32;

/// Answers the one request of a connection.
pub(super) async fn serve(stream: UnixStream, peer: UCred, shared: Arc<Shared>) {
    let caller = Caller { uid: peer.uid(), process: Process::of_peer(&peer) };
    let service = hyper::service::service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(respond(answer(shared, caller, request).await)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(uid = peer.uid(), error = %error::chain(&error), "connection failed");
        }
        Err(_) => tracing::debug!(uid = peer.uid(), "connection took too long"),
    }
}

/// Who asks, as the kernel says.
#[derive(Debug, Clone, Copy)]
struct Caller {
    uid: u32,
    /// The process, unless it cannot be named.
    process: Option<Process>,
}

async fn answer(
    shared: Arc<Shared>,
    caller: Caller,
    request: Request<Incoming>,
) -> Result<Vec<u8>, EnrolRefusal> {
    let path = request.uri().path().to_owned();
    match (request.method(), path.as_str()) {
        (&Method::POST, ENROL_PATH) => {
            let process = may_enrol(caller, shared.own_uid)?;
            enrol(&shared, process, &body(request).await?)
        }
        (&Method::GET, ENTRIES_PATH) => {
            may_administer(caller, shared.own_uid)?;
            let entries: Vec<_> = shared.entries.all().iter().map(EntryDocument::from).collect();
            json(&entries)
        }
        (&Method::POST, ENTRIES_PATH) => {
            may_administer(caller, shared.own_uid)?;
            let asked: RegistrationDocument = body(request).await?;
            let registration = Registration::try_from(asked).map_err(bad)?;
            on_disk(move || add(&shared, registration)).await
        }
        (&Method::DELETE, path) => {
            may_administer(caller, shared.own_uid)?;
            let id = path.strip_prefix(ENTRIES_PATH).and_then(|rest| rest.strip_prefix('/'));
            let id = id.and_then(|id| id.parse().ok());
            let id = id.ok_or_else(|| bad("that is not the number of an entry".to_owned()))?;
            on_disk(move || remove(&shared, id)).await
        }
        _ => Err(bad(format!(
            "only POST {ENROL_PATH}, GET and POST {ENTRIES_PATH} and DELETE {ENTRIES_PATH}/N are \
             answered"
        ))),
    }
}

/// Runs what waits for the disk where nobody else waits for it.
async fn on_disk(
    change: impl FnOnce() -> Result<Vec<u8>, EnrolRefusal> + Send + 'static,
) -> Result<Vec<u8>, EnrolRefusal> {
    let changed = tokio::task::spawn_blocking(change).await;
    changed.unwrap_or_else(|error| {
        tracing::error!(%error, "entries not changed");
        Err(refusal(RefusalCode::Failed, "the issuer could not do it; its log says why"))
    })
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, EnrolRefusal> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = body.map_err(|error| bad(format!("the body cannot be read: {error}")))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| bad(format!("the body is not what is asked for: {error}")))
}

/// Enrols the process at the other end under the ID that it asks for.
fn enrol(shared: &Shared, process: Process, asked: &EnrolRequest) -> Result<Vec<u8>, EnrolRefusal> {
    let spiffe_id = SpiffeId::parse(&asked.spiffe_id)
        .map_err(|error| bad(format!("`spiffe_id` is not a SPIFFE ID: {error}")))?;
    let own = shared.authority.trust_domain();
    if spiffe_id.trust_domain_str() != own.as_str() {
        let message = format!("it issues ids of `{own}` only");
        return Err(refusal(RefusalCode::TrustDomain, message));
    }
    if !shared.entries.never_any() {
        let message = "registration entries say which process gets which identity; add one with \
                       `convoke identity entry add`";
        return Err(refusal(RefusalCode::Registered, message));
    }
    let added = shared.enrolments.add(process, spiffe_id.clone());
    if added.map_err(|error| refusal(RefusalCode::Exhausted, error.to_string()))? {
        let (pid, uid) = (process.pid(), process.uid);
        tracing::info!(%spiffe_id, pid, uid, "process enrolled itself");
        shared.tell_change();
    }
    json(&EnrolRequest { spiffe_id: spiffe_id.as_str().to_owned() })
}

/// Adds an entry; the first one ends what processes gave to themselves.
fn add(shared: &Shared, registration: Registration) -> Result<Vec<u8>, EnrolRefusal> {
    for selector in &registration.selectors {
        selector.check_on_this_machine().map_err(|error| bad(error.to_string()))?;
    }
    let (entry, is_first) =
        shared.entries.add(registration, shared.ttl_limits()).map_err(refused)?;
    log(&entry, "entry added");
    let ended = shared.enrolments.clear();
    if ended > 0 {
        tracing::warn!(
            processes = ended,
            "processes that enrolled themselves have lost their identities"
        );
    }
    shared.tell_change();
    let enrolling_ended = is_first.then_some(ended);
    json(&AddedDocument { entry: EntryDocument::from(&entry), enrolling_ended })
}

fn remove(shared: &Shared, id: u64) -> Result<Vec<u8>, EnrolRefusal> {
    let entry = shared.entries.remove(id).map_err(refused)?;
    log(&entry, "entry removed");
    shared.tell_change();
    json(&EntryDocument::from(&entry))
}

fn log(entry: &Entry, what: &'static str) {
    let Registration { spiffe_id, selectors, .. } = &entry.registration;
    let selectors: Vec<_> = selectors.iter().map(ToString::to_string).collect();
    tracing::info!(entry = entry.id, %spiffe_id, selectors = selectors.join(" "), "{what}");
}

/// The process at the other end, if it may enrol itself: it runs as the issuer's own user. Root is
/// no exception, because whoever may read the authority's key is meant, and root needs no favours.
fn may_enrol(caller: Caller, own_uid: u32) -> Result<Process, EnrolRefusal> {
    caller.process.filter(|process| process.uid == own_uid).ok_or_else(|| {
        let message = format!("only processes of uid {own_uid} may enrol themselves");
        refusal(RefusalCode::NotPermitted, message)
    })
}

/// Entries are changed by whoever can read the authority's key.
fn may_administer(caller: Caller, own_uid: u32) -> Result<(), EnrolRefusal> {
    if caller.uid == own_uid || caller.uid == 0 {
        return Ok(());
    }
    let message = format!("only uid {own_uid} and root may see and change entries");
    Err(refusal(RefusalCode::NotPermitted, message))
}

fn bad(message: String) -> EnrolRefusal {
    refusal(RefusalCode::BadRequest, message)
}

fn refusal(code: RefusalCode, message: impl Into<String>) -> EnrolRefusal {
    EnrolRefusal { code, message: message.into() }
}

fn refused(error: EntryError) -> EnrolRefusal {
    let code = match &error {
        EntryError::TrustDomain { .. } => RefusalCode::TrustDomain,
        EntryError::Selectors | EntryError::Ttl { .. } => RefusalCode::BadRequest,
        EntryError::Exists { .. } => RefusalCode::Exists,
        EntryError::NotFound { .. } => RefusalCode::NotFound,
        EntryError::Full => RefusalCode::Exhausted,
        EntryError::Store(_) => {
            tracing::error!(error = %error::chain(&error), "entries not changed");
            RefusalCode::Failed
        }
    };
    refusal(code, error::chain(&error))
}

/// Strings and numbers always make JSON.
fn json(value: &impl Serialize) -> Result<Vec<u8>, EnrolRefusal> {
    serde_json::to_vec(value).map_err(|error| refusal(RefusalCode::Failed, error.to_string()))
}

fn respond(outcome: Result<Vec<u8>, EnrolRefusal>) -> Response<Full<Bytes>> {
    let (status, body) = match outcome {
        Ok(body) => (StatusCode::OK, body),
        Err(refusal) => {
            let status = match refusal.code {
                RefusalCode::BadRequest => StatusCode::BAD_REQUEST,
                RefusalCode::TrustDomain | RefusalCode::NotPermitted => StatusCode::FORBIDDEN,
                RefusalCode::Exhausted => StatusCode::TOO_MANY_REQUESTS,
                RefusalCode::Registered | RefusalCode::Exists => StatusCode::CONFLICT,
                RefusalCode::NotFound => StatusCode::NOT_FOUND,
                RefusalCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            };
            // Two strings always make JSON; were it otherwise, the status would say what happened.
            (status, serde_json::to_vec(&refusal).unwrap_or_default())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_may_enrol_and_root_may_administer_as_well() {
        let of = |uid| Caller { uid, process: Some(Process::invented(uid, 1, 1)) };
        let unnamed = |uid| Caller { uid, process: None };
        for (caller, own_uid, enrols, administers) in [
            (of(1000), 1000, true, true),
            (of(0), 0, true, true),
            (of(1001), 1000, false, false),
            (of(0), 1000, false, true),
            (of(1000), 0, false, false),
            (unnamed(1000), 1000, false, true),
            (unnamed(1001), 1000, false, false),
        ] {
            let found = [may_enrol(caller, own_uid).map(|_| ()), may_administer(caller, own_uid)];
            let expected = [enrols, administers];
            assert_eq!(found.each_ref().map(Result::is_ok), expected, "{caller:?} at {own_uid}");
            for refusal in found.into_iter().filter_map(Result::err) {
                assert_eq!(refusal.code, RefusalCode::NotPermitted);
            }
        }
    }
}

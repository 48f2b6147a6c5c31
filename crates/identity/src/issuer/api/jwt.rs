//! JWT-SVIDs: made for an audience, validated, and the keys that they are checked with.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::super::error;
use super::super::federated::Snapshot;
use super::super::messages::{
    JwtBundlesRequest, JwtBundlesResponse, JwtSvid, JwtSvidRequest, JwtSvidResponse,
    ValidateJwtSvidRequest, ValidateJwtSvidResponse,
};
use super::Caller;
use super::push::Push;
use crate::jwt::{self, AUDIENCE_BYTES_MAX, AUDIENCES_MAX};

/// The keys of tokens. They are public, so they need no identity.
#[derive(Clone, Copy)]
pub(super) struct Bundles;

/// Makes tokens for the caller.
pub(super) struct Fetch(pub(super) Caller);

/// Validates a token that the caller was given.
pub(super) struct Validate(pub(super) Caller);

impl Push for Bundles {
    type Request = JwtBundlesRequest;
    type Message = JwtBundlesResponse;
    type Basis = (Bytes, Arc<Snapshot>);

    fn basis(self, caller: &Caller) -> Result<Self::Basis, Status> {
        Ok((caller.shared.authority.jwks(), caller.shared.federated.current()))
    }

    fn message(
        self,
        caller: &Caller,
        (jwks, federated): &Self::Basis,
        _: SystemTime,
    ) -> Result<(JwtBundlesResponse, Option<SystemTime>), Status> {
        let mut bundles: HashMap<_, _> = federated
            .bundles
            .iter()
            .map(|(domain, bundle)| (domain.uri(), bundle.jwks.to_vec()))
            .collect();
        bundles.insert(caller.shared.authority.trust_domain().uri(), jwks.to_vec());
        Ok((JwtBundlesResponse { bundles }, None))
    }
}

impl Fetch {
    fn fetch(&self, asked: &JwtSvidRequest) -> Result<JwtSvidResponse, Status> {
        let JwtSvidRequest { audience, spiffe_id } = asked;
        if !(1..=AUDIENCES_MAX).contains(&audience.len()) {
            let text = format!("one to {AUDIENCES_MAX} audiences must be specified");
            return Err(Status::invalid_argument(text));
        }
        if audience.iter().any(|one| one.is_empty() || one.len() > AUDIENCE_BYTES_MAX) {
            let text = format!("an audience must have 1 to {AUDIENCE_BYTES_MAX} bytes");
            return Err(Status::invalid_argument(text));
        }
        let mut identities = self.0.identities()?;
        if !spiffe_id.is_empty() {
            identities.retain(|identity| identity.spiffe_id.as_str() == spiffe_id);
            if identities.is_empty() {
                return Err(Status::permission_denied("no identity issued"));
            }
        }
        let now = SystemTime::now();
        let svids = identities.iter().map(|identity| {
            let id = &identity.spiffe_id;
            let svid = self.0.shared.authority.issue_jwt(id, audience, now).map_err(|error| {
                tracing::error!(spiffe_id = %id, error = %error::chain(&error), "JWT not made");
                Status::internal("the JWT-SVID could not be made")
            })?;
            Ok(JwtSvid { spiffe_id: id.as_str().to_owned(), svid, hint: String::new() })
        });
        Ok(JwtSvidResponse { svids: svids.collect::<Result<_, Status>>()? })
    }
}

impl Validate {
    fn validate(&self, asked: &ValidateJwtSvidRequest) -> Result<ValidateJwtSvidResponse, Status> {
        if asked.audience.is_empty() {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        let shared = &self.0.shared;
        let (own, federated) = (shared.authority.jwt_bundle(), shared.federated.current());
        let validated = jwt::validate(&asked.svid, &asked.audience, SystemTime::now(), |domain| {
            if domain == shared.authority.trust_domain().as_str() {
                return Some(&own);
            }
            let mut federated = federated.bundles.iter();
            federated.find(|(name, _)| name.as_str() == domain).map(|(_, bundle)| &bundle.jwt)
        });
        // The caller is a process of this machine that was given a token: it may know why.
        let svid = validated.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let spiffe_id = svid.spiffe_id.as_str().to_owned();
        Ok(ValidateJwtSvidResponse { spiffe_id, claims: Some(svid.claims.into()) })
    }
}

type Answer<M> = std::future::Ready<Result<Response<M>, Status>>;

macro_rules! unary {
    ($method:ty, $function:ident, $request:ty, $response:ty) => {
        impl tower_service::Service<Request<$request>> for $method {
            type Response = Response<$response>;
            type Error = Status;
            type Future = Answer<$response>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<$request>) -> Self::Future {
                let answer = self.$function(request.get_ref()).map(Response::new);
                std::future::ready(answer)
            }
        }
    };
}

unary!(Fetch, fetch, JwtSvidRequest, JwtSvidResponse);
unary!(Validate, validate, ValidateJwtSvidRequest, ValidateJwtSvidResponse);

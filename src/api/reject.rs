//! How a refusal looks in HTTP, and the extractors that turn bad input into one.

use std::time::Duration;

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{Method, StatusCode, Uri, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;

use super::types::ErrorBody;
use crate::node::request::{Code, Refusal};

/// The longest body, in bytes. Chosen: an attach with every key in use has a few hundred.
pub(super) const BODY_LEN_MAX: usize = 64 * 1024;

/// For how long a request waits that does not say it, in milliseconds.
const PATIENCE_MS: u64 = 10_000;

/// The longest patience, in milliseconds: an asker that waits longer has gone.
const PATIENCE_MS_MAX: u64 = 600_000;

/// The header by which a request says how long it waits, in milliseconds.
pub(super) const PATIENCE_HEADER: &str = "mesh-patience-ms";

/// A refusal as a response.
#[derive(Debug)]
pub(super) struct Rejection {
    status: StatusCode,
    refusal: Refusal,
}

impl Rejection {
    fn with_status(status: StatusCode, message: String, hint: &str) -> Self {
        Self { status, refusal: Refusal::new(Code::Invalid, message, hint) }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            Code::Invalid => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Conflict | Code::Superseded => StatusCode::CONFLICT,
            Code::NotReady => StatusCode::SERVICE_UNAVAILABLE,
            Code::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
            Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, refusal }
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.refusal })).into_response()
    }
}

/// The answer to a path that does not exist.
pub(super) async fn unknown_path(uri: Uri) -> Rejection {
    let refusal = Refusal::new(
        Code::NotFound,
        format!("there is nothing at {}", uri.path()),
        "GET /v1/openapi.json lists all paths",
    );
    refusal.into()
}

/// The answer to a path that exists with another method.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Rejection {
    let message = format!("{} does not understand {method}", uri.path());
    let hint = "GET /v1/openapi.json lists each path's methods";
    Rejection::with_status(StatusCode::METHOD_NOT_ALLOWED, message, hint)
}

/// A JSON body, whatever the content type says; no body is `{}`.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Rejection> {
        let bytes = Bytes::from_request(request, state).await.map_err(|error| {
            let status = error.into_response().status();
            let message = match status {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    format!("the body is longer than {BODY_LEN_MAX} bytes")
                }
                _ => "the body could not be read to its end".to_owned(),
            };
            Rejection::with_status(status, message, "send one JSON object")
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| {
            let hint = "GET /v1/openapi.json describes each body";
            Refusal::new(Code::Invalid, format!("the body is wrong: {error}"), hint).into()
        })
    }
}

/// The parameters after `?`.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let Query(value) = Query::from_request_parts(parts, state).await.map_err(|error| {
            let hint = "GET /v1/openapi.json describes each path's parameters";
            Refusal::new(Code::Invalid, error.body_text(), hint)
        })?;
        Ok(Self(value))
    }
}

/// For how long the asker waits: the header `mesh-patience-ms`, else 10 s.
#[derive(Debug)]
pub(super) struct Patience(pub(super) Duration);

impl Patience {
    /// A patience in milliseconds, held to the bound.
    pub(super) fn of_ms(millis: u64) -> Duration {
        Duration::from_millis(millis.min(PATIENCE_MS_MAX))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Patience {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let Some(value) = parts.headers.get(PATIENCE_HEADER) else {
            return Ok(Self(Self::of_ms(PATIENCE_MS)));
        };
        let millis = value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let message = format!("header {PATIENCE_HEADER} is {value:?}");
            Refusal::new(Code::Invalid, message, "give whole milliseconds")
        })?;
        Ok(Self(Self::of_ms(millis)))
    }
}

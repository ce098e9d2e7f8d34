//! What a request says: parameters and bodies, each with its own errors.

use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::admin::problem::Problem;

/// The body of a request at the most.
const BODY_MAX: usize = 64 << 10;

/// The parameters of a request; one that is not known is an error.
pub(super) struct Parameters<T>(pub(super) T);

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

/// The body of a request: JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        let Query(value) = query.map_err(|rejection| {
            let text = rejection.body_text();
            let cause = text
                .rsplit_once(": ")
                .map_or(text.as_str(), |(_, cause)| cause);
            Problem::bad_request(format!("the parameters are wrong: {cause}")).at("query")
        })?;
        Ok(Self(value))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|it| it.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json",
            ));
        }
        let bytes = axum::body::to_bytes(request.into_body(), BODY_MAX).await;
        let bytes = bytes.map_err(|_| {
            Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {BODY_MAX} bytes, or did not come whole"),
            )
        })?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            let place = format!("body, line {} column {}", error.line(), error.column());
            Problem::bad_request(format!("the body is wrong: {error}")).at(place)
        })?;
        Ok(Self(value))
    }
}

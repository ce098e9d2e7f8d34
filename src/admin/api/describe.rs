//! The document, completed by what is true of every operation.

use axum::http::StatusCode;
use serde_json::{Value, json};
use utoipa::PartialSchema as _;
use utoipa::openapi::OpenApi;

use crate::admin::problem::ProblemBody;

/// What any request may be told.
const ALWAYS: [StatusCode; 8] = [
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::FORBIDDEN,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::MISDIRECTED_REQUEST,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// What one with a body may be told besides.
const WITH_BODY: [StatusCode; 2] = [
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
];

/// The document as it is served.
pub(super) fn complete(document: &OpenApi) -> Value {
    // What was derived is plain data.
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    let problem = serde_json::to_value(ProblemBody::schema()).unwrap_or_default();
    document["components"]["schemas"]["Problem"] = problem;
    document["components"]["securitySchemes"] = json!({
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "Needed over TCP; over a unix socket its permissions decide.",
        },
    });
    document["security"] = json!([{}, { "token": [] }]);
    let paths = document["paths"].as_object_mut();
    let operations = paths.into_iter().flat_map(|paths| {
        let items = paths.values_mut().filter_map(Value::as_object_mut);
        items.flat_map(|item| item.values_mut())
    });
    for operation in operations {
        if operation.get("responses").is_none() {
            continue;
        }
        let body = operation.get("requestBody").is_some();
        let more = WITH_BODY.iter().filter(|_| body);
        for status in ALWAYS.iter().chain(more) {
            operation["responses"][status.as_str()] = json!({
                "description": status.canonical_reason().unwrap_or("Error"),
                "content": {
                    "application/problem+json": {
                        "schema": { "$ref": "#/components/schemas/Problem" },
                    },
                },
            });
        }
    }
    document
}

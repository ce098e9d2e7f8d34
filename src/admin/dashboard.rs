//! `/`: one page, with nothing from anywhere else.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const STYLE: &str = include_str!("dashboard/style.css");
const SCRIPT: &str = include_str!("dashboard/script.js");
const PAGE: &str = include_str!("dashboard/page.html");

/// The page, and what it may do: run its own script, by its hash, and ask where it came
/// from. Nothing that a name or a peer says can become a script.
static DASHBOARD: LazyLock<(String, String)> = LazyLock::new(|| {
    let page = PAGE.replace("@STYLE@", STYLE).replace("@SCRIPT@", SCRIPT);
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    (page, policy)
});

/// See the module's documentation.
pub(super) async fn dashboard() -> Response {
    let (page, policy) = &*DASHBOARD;
    let policy = [(header::CONTENT_SECURITY_POLICY, policy.as_str())];
    (policy, Html(page.as_str())).into_response()
}

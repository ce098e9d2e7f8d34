//! `/v1`: the API, and the document that describes it.

mod describe;
mod events;
mod extract;
mod live;
mod process;
mod refused;
mod reload;
mod servers;
mod sessions;
mod tap;
mod topology;
mod upgrade;
mod verdict;

use axum::Router;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::shared::Shared;

/// The head of the document.
#[derive(OpenApi)]
#[openapi(info(
    title = "thalweg",
    description = "See a running thalweg and steer it. Times are seconds, sizes bytes, rates bytes a \
                   second. A GET changes nothing; parameters that are not known are errors; errors \
                   are application/problem+json (RFC 9457).",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
))]
struct Document;

/// Every path of the API.
pub(super) fn routes() -> Router<Shared> {
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(process::about))
        .routes(routes!(process::config))
        .routes(routes!(process::log, process::set_log))
        .routes(routes!(process::reactors))
        .routes(routes!(reload::reload))
        .routes(routes!(reload::confirm))
        .routes(routes!(reload::back))
        .routes(routes!(upgrade::upgrade))
        .routes(routes!(topology::forwards))
        .routes(routes!(topology::forward))
        .routes(routes!(topology::drain))
        .routes(routes!(topology::ready))
        .routes(routes!(topology::pools))
        .routes(routes!(topology::names))
        .routes(routes!(topology::listeners))
        .routes(routes!(refused::refused))
        .routes(routes!(servers::servers))
        .routes(routes!(servers::server, servers::change))
        .routes(routes!(servers::clear_marks))
        .routes(routes!(servers::clear_all_marks))
        .routes(routes!(sessions::sessions))
        .routes(routes!(sessions::session))
        .routes(routes!(sessions::kill))
        .routes(routes!(tap::tap))
        .routes(routes!(live::live))
        .routes(routes!(events::events))
        .split_for_parts();
    let described = describe::complete(&document);
    router.route(
        "/openapi.json",
        axum::routing::get(move || async move { axum::Json(described.clone()) }),
    )
}

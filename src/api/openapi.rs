//! The API's description, made of the handlers themselves.

use utoipa::{
    Modify, OpenApi,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder},
};

use super::{routes, types::ErrorBody};

/// `GET /v1/openapi.json`.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Meshwork, the local API of meshd",
        description = "HTTP/1.1 with JSON on a unix socket. Requests are idempotent; the header \
                       `mesh-patience-ms` says how long one waits (attach says it in its body). \
                       Fields may be added; names and meanings stay."
    ),
    paths(
        routes::status,
        routes::peers,
        routes::peers_remove,
        routes::init,
        routes::join,
        routes::leave,
        routes::token,
        routes::attach,
        routes::detach,
        routes::check,
        routes::ipam,
        routes::ranges,
        routes::range_add,
        routes::claim,
        routes::release,
        routes::dns,
        routes::dns_add,
        routes::dns_remove,
        routes::dns_lookup,
        routes::connect,
        routes::forget,
        routes::metrics,
        routes::description,
    ),
    components(schemas(ErrorBody, routes::Kind)),
    modifiers(&Refusals)
)]
pub struct Description;

/// Every path may refuse, always in the same shape.
#[derive(Debug)]
struct Refusals;

impl Modify for Refusals {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let refusal = ResponseBuilder::new()
            .description("Refused: what happened, why, and what to do next")
            .content("application/json", body)
            .build();
        for item in api.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                let responses = &mut operation.responses.responses;
                responses.insert("default".to_owned(), RefOr::T(refusal.clone()));
            }
        }
    }
}

//! The API's server: HTTP/1.1 on the unix socket, and metrics over TCP for who wants them.
//!
//! It holds no state of the mesh. What changes something is reachable through the socket only.

use std::{future::Future, io, path::Path, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{get, post},
};

pub use super::listener::ApiListener;
use super::{metrics::Metrics, pending, reject, routes, spool::Spool};
use crate::daemon::handle::NodeHandle;

/// All paths; the metrics' labels, too.
const PATHS: [&str; 22] = [
    "/v1/attach",
    "/v1/detach",
    "/v1/check",
    "/v1/status",
    "/v1/peers",
    "/v1/peers/remove",
    "/v1/init",
    "/v1/join",
    "/v1/leave",
    "/v1/token",
    "/v1/ipam",
    "/v1/ipam/ranges",
    "/v1/ipam/claim",
    "/v1/ipam/release",
    "/v1/dns",
    "/v1/dns/add",
    "/v1/dns/remove",
    "/v1/dns/lookup",
    "/v1/connect",
    "/v1/forget",
    "/v1/openapi.json",
    "/metrics",
];

/// What the handlers share.
#[derive(Debug)]
pub struct Api {
    pub(super) node: NodeHandle,
    pub(super) spool: Spool,
    pub(super) domain: String,
    pub(super) metrics: Metrics,
    /// Held while a late detach is carried out.
    pub(super) settling: tokio::sync::Mutex<()>,
}

impl Api {
    /// An API in front of a node, with the mesh's domain and the spool beside its socket.
    pub fn new(node: NodeHandle, domain: impl Into<String>, socket: &Path) -> Arc<Self> {
        Arc::new(Self {
            node,
            spool: Spool::beside(socket),
            domain: domain.into(),
            metrics: Metrics::new(),
            settling: tokio::sync::Mutex::new(()),
        })
    }

    fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/v1/status", get(routes::status))
            .route("/v1/peers", get(routes::peers))
            .route("/v1/peers/remove", post(routes::peers_remove))
            .route("/v1/init", post(routes::init))
            .route("/v1/join", post(routes::join))
            .route("/v1/leave", post(routes::leave))
            .route("/v1/token", get(routes::token))
            .route("/v1/attach", post(routes::attach))
            .route("/v1/detach", post(routes::detach))
            .route("/v1/check", post(routes::check))
            .route("/v1/ipam", get(routes::ipam))
            .route("/v1/ipam/ranges", get(routes::ranges).post(routes::range_add))
            .route("/v1/ipam/claim", post(routes::claim))
            .route("/v1/ipam/release", post(routes::release))
            .route("/v1/dns", get(routes::dns))
            .route("/v1/dns/add", post(routes::dns_add))
            .route("/v1/dns/remove", post(routes::dns_remove))
            .route("/v1/dns/lookup", get(routes::dns_lookup))
            .route("/v1/connect", post(routes::connect))
            .route("/v1/forget", post(routes::forget))
            .route("/v1/openapi.json", get(routes::description))
            .route("/metrics", get(routes::metrics))
            .fallback(reject::unknown_path)
            .method_not_allowed_fallback(reject::wrong_method)
            .layer(DefaultBodyLimit::max(reject::BODY_LEN_MAX))
            .layer(from_fn_with_state(Arc::clone(self), count))
            .with_state(Arc::clone(self))
    }
}

/// Serves the API until `stop` is done, then lets what runs finish. Meanwhile late detaches are
/// worked off.
///
/// # Errors
/// None in practice: a failing accept is logged and tried again.
pub async fn serve(
    listener: ApiListener,
    api: Arc<Api>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let late = tokio::spawn(pending::work(Arc::clone(&api)));
    let served = axum::serve(listener, api.router()).with_graceful_shutdown(stop).await;
    late.abort();
    served
}

/// Serves `/metrics`, and nothing else, over TCP until `stop` is done.
///
/// # Errors
/// None in practice: a failing accept is logged and tried again.
pub async fn serve_metrics(
    listener: tokio::net::TcpListener,
    api: Arc<Api>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(routes::metrics))
        .fallback(reject::unknown_path)
        .method_not_allowed_fallback(reject::wrong_method)
        .with_state(api);
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

async fn count(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let start = tokio::time::Instant::now();
    let asked = request.uri().path();
    let path = PATHS.into_iter().find(|path| *path == asked).unwrap_or("other");
    let response = next.run(request).await;
    api.metrics.served(path, response.status().as_u16(), start.elapsed());
    response
}

#[cfg(test)]
mod tests;

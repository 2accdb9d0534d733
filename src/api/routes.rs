//! The paths of the API: each turns a body into one question to the node and its answer into JSON.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{Json, extract::State, response::IntoResponse};
use serde::Deserialize;

use super::{
    reject::{Body, Params, Patience, Rejection},
    server::Api,
    target::Target,
    token,
    types::{
        Allocation, AttachRequest, Attachment, CheckRequest, ClaimRequest, DetachRequest,
        DnsRequest, Done, InitRequest, JoinRequest, Joined, Peer, RangeRequest, Record,
        ReleaseRequest, RemoveRequest, Removed, Status, TargetRequest, TokenBody,
    },
};
use crate::node::request::{Code, JoinTarget, Refusal, Reply, Request};

/// The most targets in one request.
const TARGETS_MAX: usize = 64;
/// The most peers that one request removes. Chosen: a rack or two.
const REMOVED_MAX: usize = 256;

type Answer<T> = Result<Json<T>, Rejection>;
type Shared = State<Arc<Api>>;

/// Takes the expected variant out of a reply; another one is a bug of ours.
macro_rules! expect_reply {
    ($reply:expr, $variant:path) => {
        match $reply {
            $variant(value) => Ok(value),
            other => Err(unexpected(&other)),
        }
    };
}

fn unexpected(reply: &Reply) -> Refusal {
    tracing::error!(?reply, "the node gave an answer to another question");
    let hint = "this is a bug in meshd; its log says more";
    Refusal::new(Code::Internal, "meshd gave an answer to another question", hint)
}

fn done(reply: Reply) -> Answer<Done> {
    match reply {
        Reply::Done => Ok(Json(Done { done: true })),
        other => Err(unexpected(&other).into()),
    }
}

/// How this host stands.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(State(api): Shared, Patience(patience): Patience) -> Answer<Status> {
    let reply = api.node.ask(Request::Status, patience).await?;
    Ok(Json(*expect_reply!(reply, Reply::Status)?))
}

/// Who is in the mesh, this host included.
#[utoipa::path(get, path = "/v1/peers", responses((status = 200, body = Vec<Peer>)))]
pub(super) async fn peers(State(api): Shared, Patience(patience): Patience) -> Answer<Vec<Peer>> {
    let reply = api.node.ask(Request::Peers, patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Peers)?))
}

/// Take the blocks of dead hosts from them; they are no members any more.
#[utoipa::path(post, path = "/v1/peers/remove", request_body = RemoveRequest,
    responses((status = 200, body = Removed)))]
pub(super) async fn peers_remove(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<RemoveRequest>,
) -> Answer<Removed> {
    let RemoveRequest { peers, force } = body;
    if peers.is_empty() || peers.len() > REMOVED_MAX {
        let message = format!("{} peers were given to be removed", peers.len());
        let hint = format!("give one to {REMOVED_MAX} names or ids; `meshctl peer list` has them");
        return Err(Refusal::new(Code::Invalid, message, hint).into());
    }
    let reply = api.node.ask(Request::PeerRemove { peers, force }, patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Removed)?))
}

/// Found a mesh, with this host as its first member.
#[utoipa::path(post, path = "/v1/init", request_body = InitRequest,
    responses((status = 200, body = Joined)))]
pub(super) async fn init(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<InitRequest>,
) -> Answer<Joined> {
    let credentials = token::draw().map_err(|error| {
        let message = format!("the system gives no random numbers: {error}");
        Refusal::new(Code::Internal, message, "look at /dev/urandom")
    })?;
    let reply = api.node.ask(Request::Init { credentials, ranges: body.ranges }, patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Joined)?))
}

/// Join a mesh through some of its members.
#[utoipa::path(post, path = "/v1/join", request_body = JoinRequest,
    responses((status = 200, body = Joined)))]
pub(super) async fn join(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<JoinRequest>,
) -> Answer<Joined> {
    let credentials = token::decode(&body.token).map_err(|error| {
        let hint = "take the whole token from a member of the mesh";
        Refusal::new(Code::Invalid, error.to_string(), hint)
    })?;
    let targets = look_up_all(&body.targets, patience / 2).await?;
    let reply = api.node.ask(Request::Join { credentials, targets }, patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Joined)?))
}

/// Give addresses back, tell the others, remove everything from this host.
#[utoipa::path(post, path = "/v1/leave", responses((status = 200, body = Done)))]
pub(super) async fn leave(State(api): Shared, Patience(patience): Patience) -> Answer<Done> {
    done(api.node.ask(Request::Leave, patience).await?)
}

/// The join token of this host's mesh.
#[utoipa::path(get, path = "/v1/token", responses((status = 200, body = TokenBody)))]
pub(super) async fn token(State(api): Shared, Patience(patience): Patience) -> Answer<TokenBody> {
    let reply = api.node.ask(Request::Token, patience).await?;
    let credentials = expect_reply!(reply, Reply::Token)?;
    Ok(Json(TokenBody { token: token::encode(&credentials) }))
}

/// Give a container addresses, names and a link. Idempotent by container and interface.
#[utoipa::path(post, path = "/v1/attach", request_body = AttachRequest,
    responses((status = 200, body = Attachment)))]
pub(super) async fn attach(
    State(api): Shared,
    Body(body): Body<AttachRequest>,
) -> Answer<Attachment> {
    let patience = Patience::of_ms(body.patience_ms);
    api.settle(&body.container, &body.interface, patience).await?;
    let reply = api.node.ask(Request::Attach(Box::new(body)), patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Attached)?))
}

/// Take back what a container was given. Idempotent.
#[utoipa::path(post, path = "/v1/detach", request_body = DetachRequest,
    responses((status = 200, body = Done)))]
pub(super) async fn detach(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<DetachRequest>,
) -> Answer<Done> {
    let DetachRequest { container, interface } = body;
    done(api.node.ask(Request::Detach { container, interface }, patience).await?)
}

/// Is what a container was given still there? Answers what it is.
#[utoipa::path(post, path = "/v1/check", request_body = CheckRequest,
    responses((status = 200, body = Attachment)))]
pub(super) async fn check(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<CheckRequest>,
) -> Answer<Attachment> {
    let CheckRequest { container, interface } = body;
    let reply = api.node.ask(Request::Check { container, interface }, patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Attached)?))
}

/// Which addresses are held on this host, and by whom.
#[utoipa::path(get, path = "/v1/ipam", responses((status = 200, body = Vec<Allocation>)))]
pub(super) async fn ipam(
    State(api): Shared,
    Patience(patience): Patience,
) -> Answer<Vec<Allocation>> {
    let reply = api.node.ask(Request::Allocations, patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Allocations)?))
}

/// The mesh's ranges.
#[utoipa::path(get, path = "/v1/ipam/ranges", responses((status = 200, body = Vec<String>)))]
pub(super) async fn ranges(
    State(api): Shared,
    Patience(patience): Patience,
) -> Answer<Vec<ipnetwork::IpNetwork>> {
    let reply = api.node.ask(Request::Status, patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Status)?.ipam.ranges))
}

/// Add a range to the mesh.
#[utoipa::path(post, path = "/v1/ipam/ranges", request_body = RangeRequest,
    responses((status = 200, body = Done)))]
pub(super) async fn range_add(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<RangeRequest>,
) -> Answer<Done> {
    done(api.node.ask(Request::RangeAdd(body.range), patience).await?)
}

/// Set an address aside for somebody who is no container.
#[utoipa::path(post, path = "/v1/ipam/claim", request_body = ClaimRequest,
    responses((status = 200, body = Allocation)))]
pub(super) async fn claim(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<ClaimRequest>,
) -> Answer<Allocation> {
    let ClaimRequest { address, holder } = body;
    let reply = api.node.ask(Request::Claim { address, holder }, patience).await?;
    Ok(Json(expect_reply!(reply, Reply::Claimed)?))
}

/// Give back what was claimed.
#[utoipa::path(post, path = "/v1/ipam/release", request_body = ReleaseRequest,
    responses((status = 200, body = Done)))]
pub(super) async fn release(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<ReleaseRequest>,
) -> Answer<Done> {
    done(api.node.ask(Request::Release { holder: body.holder }, patience).await?)
}

/// All records of the mesh.
#[utoipa::path(get, path = "/v1/dns", responses((status = 200, body = Vec<Record>)))]
pub(super) async fn dns(State(api): Shared, Patience(patience): Patience) -> Answer<Vec<Record>> {
    Ok(Json(records(&api, patience).await?))
}

/// Add a record by hand.
#[utoipa::path(post, path = "/v1/dns/add", request_body = DnsRequest,
    responses((status = 200, body = Done)))]
pub(super) async fn dns_add(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<DnsRequest>,
) -> Answer<Done> {
    let DnsRequest { name, addresses } = body;
    if addresses.is_empty() {
        let message = format!("no address was given for {name:?}");
        return Err(Refusal::new(Code::Invalid, message, "give one or more").into());
    }
    done(api.node.ask(Request::DnsAdd { name, addresses }, patience).await?)
}

/// Remove records that were added by hand on this host; without addresses all of the name's.
#[utoipa::path(post, path = "/v1/dns/remove", request_body = DnsRequest,
    responses((status = 200, body = Done)))]
pub(super) async fn dns_remove(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<DnsRequest>,
) -> Answer<Done> {
    let DnsRequest { name, addresses } = body;
    done(api.node.ask(Request::DnsRemove { name, addresses }, patience).await?)
}

/// What `dns/lookup` is asked for.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Lookup {
    /// A name, with or without the mesh's domain, or an address for `PTR`.
    name: String,
    /// The kind of record; `A` and `AAAA` if absent, `PTR` if `name` is an address.
    #[serde(default, rename = "type")]
    kind: Option<Kind>,
}

/// Kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
pub(super) enum Kind {
    /// IPv4 addresses of a name.
    A,
    /// IPv6 addresses of a name.
    #[serde(rename = "AAAA")]
    Aaaa,
    /// Names of an address.
    #[serde(rename = "PTR")]
    Ptr,
}

/// What the mesh knows of one name or address; hidden records are left out.
#[utoipa::path(get, path = "/v1/dns/lookup", params(Lookup),
    responses((status = 200, body = Vec<Record>)))]
pub(super) async fn dns_lookup(
    State(api): Shared,
    Patience(patience): Patience,
    Params(lookup): Params<Lookup>,
) -> Answer<Vec<Record>> {
    let mut found = records(&api, patience).await?;
    let address = lookup.name.parse::<IpAddr>().ok();
    if lookup.kind == Some(Kind::Ptr) && address.is_none() {
        let message = format!("{:?} is no address, as type=PTR needs one", lookup.name);
        return Err(Refusal::new(Code::Invalid, message, "give an IPv4 or IPv6 address").into());
    }
    let wanted = absolute(&lookup.name, &api.domain);
    found.retain_mut(|record| {
        match address {
            Some(address) => record.addresses.retain(|held| *held == address),
            None if !record.name.eq_ignore_ascii_case(&wanted) => return false,
            None => record.addresses.retain(|held| match lookup.kind {
                Some(Kind::A) => held.is_ipv4(),
                Some(Kind::Aaaa) => held.is_ipv6(),
                _ => true,
            }),
        }
        !record.hidden && !record.addresses.is_empty()
    });
    if found.is_empty() {
        let message = format!("no host of the mesh has a record for {:?}", lookup.name);
        return Err(Refusal::new(Code::NotFound, message, "`meshctl dns list` shows all").into());
    }
    Ok(Json(found))
}

/// Dial a target now, and keep on.
#[utoipa::path(post, path = "/v1/connect", request_body = TargetRequest,
    responses((status = 200, body = Done)))]
pub(super) async fn connect(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<TargetRequest>,
) -> Answer<Done> {
    let found = look_up_all(&[body.target], patience / 2).await?;
    for address in found.into_iter().filter_map(|lookup| lookup.found.ok()).flatten() {
        let Json(Done { .. }) = done(api.node.ask(Request::Connect(address), patience).await?)?;
    }
    Ok(Json(Done { done: true }))
}

/// Do not dial a target any more.
#[utoipa::path(post, path = "/v1/forget", request_body = TargetRequest,
    responses((status = 200, body = Done)))]
pub(super) async fn forget(
    State(api): Shared,
    Patience(patience): Patience,
    Body(body): Body<TargetRequest>,
) -> Answer<Done> {
    let found = look_up_all(&[body.target], patience / 2).await?;
    for address in found.into_iter().filter_map(|lookup| lookup.found.ok()).flatten() {
        let Json(Done { .. }) = done(api.node.ask(Request::Forget(address), patience).await?)?;
    }
    Ok(Json(Done { done: true }))
}

/// Prometheus's text.
#[utoipa::path(get, path = "/metrics",
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(api): Shared) -> impl IntoResponse {
    let reply = api.node.ask(Request::Status, Duration::from_secs(5)).await;
    let status = reply.and_then(|reply| expect_reply!(reply, Reply::Status));
    ([("content-type", super::metrics::CONTENT_TYPE)], api.metrics.text(status.ok().as_deref()))
}

async fn records(api: &Api, patience: Duration) -> Result<Vec<Record>, Refusal> {
    expect_reply!(api.node.ask(Request::DnsList, patience).await?, Reply::Records)
}

/// A name without the final dot and with the domain.
fn absolute(name: &str, domain: &str) -> String {
    let bare = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let domain = domain.to_ascii_lowercase();
    if bare == domain || bare.ends_with(&format!(".{domain}")) {
        return bare;
    }
    format!("{bare}.{domain}")
}

/// Looks every target up. A name that cannot be resolved is an error only when nothing else could
/// be: the others lead to the mesh as well.
async fn look_up_all(texts: &[String], limit: Duration) -> Result<Vec<JoinTarget>, Refusal> {
    let hint = format!("give one to {TARGETS_MAX} members of the mesh");
    if texts.is_empty() || texts.len() > TARGETS_MAX {
        let message = format!("{} targets were given", texts.len());
        return Err(Refusal::new(Code::Invalid, message, hint));
    }
    let mut targets = Vec::new();
    for text in texts {
        targets.push(
            Target::parse(text)
                .map_err(|error| Refusal::new(Code::Invalid, error.to_string(), hint.as_str()))?,
        );
    }
    let lookups = futures::future::join_all(targets.iter().map(|t| t.look_up(limit))).await;
    let failures = lookups.iter().filter_map(|lookup| lookup.found.as_ref().err());
    let failures: Vec<_> = failures.map(String::as_str).collect();
    if failures.len() == lookups.len() {
        let hint = "give an address, or look at /etc/resolv.conf and /etc/hosts of this host";
        return Err(Refusal::new(Code::Invalid, failures.join("; "), hint));
    }
    Ok(lookups)
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json",
    responses((status = 200, body = serde_json::Value)))]
pub(super) async fn description() -> Json<utoipa::openapi::OpenApi> {
    use utoipa::OpenApi as _;
    Json(super::openapi::Description::openapi())
}

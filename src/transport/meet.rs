//! How a connection becomes a link, dialled or accepted.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Connecting, Connection, Incoming};
use tokio::time::{Instant, timeout};

use super::{
    LEFT, Shared, handshake,
    handshake::{CLOSED, Proved, Rejection},
    identity::peer_id,
    link::Link,
    lock,
    socket::{check_route, unmapped},
    tls::peer_key,
};
use crate::node::event::{DialError, Input, LinkUp};

/// Connections that have not proved themselves. Chosen: a whole mesh's reconnecting at once after
/// this host's restart, while a flood of strangers costs a bounded amount of work.
pub(super) const HALF_OPEN_MAX: usize = 128;
/// From so many on a stranger must first show that it receives at the address it sends from.
const HALF_OPEN_FREE: usize = 32;
/// Targets dialled at a time; more wait.
pub(super) const DIALS_MAX: usize = 64;
/// For how long a dialled target may be silent. From the contract: about 3 s.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// For how long a handshake may take in all.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// The TLS server name; not sent.
const NO_NAME: &str = "mesh";

/// Dials one target and carries the link that results.
pub(super) async fn dial(shared: Arc<Shared>, target: SocketAddr) {
    // Never closed.
    let Ok(permit) = shared.dials.acquire().await else { return };
    let result = connect(&shared, target).await;
    drop(permit);
    match result {
        Ok((connection, proved)) => carry(shared, connection, proved, Some(target)).await,
        Err(error) => {
            let _ = shared.inputs.send(Input::DialFailed { target, error }).await;
        }
    }
}

async fn connect(shared: &Shared, target: SocketAddr) -> Result<(Connection, Proved), DialError> {
    let local = shared.local();
    if local.credentials.is_none() {
        return Err(DialError::Protocol("this host itself is not in a mesh".to_owned()));
    }
    let unreachable = |error: &dyn std::fmt::Display| DialError::Unreachable(error.to_string());
    check_route(target).map_err(|error| unreachable(&error))?;
    let connecting = shared
        .endpoint
        .connect_with(shared.client.clone(), target, NO_NAME)
        .map_err(|error| unreachable(&error))?;
    let connection = match timeout(DIAL_TIMEOUT, connecting).await {
        Ok(result) => result.map_err(|error| DialError::from(Rejection::from(error)))?,
        Err(_) => return Err(DialError::Unreachable(silence(DIAL_TIMEOUT))),
    };
    match timeout(DIAL_TIMEOUT, handshake::dial(local, &connection)).await {
        Ok(Ok(proved)) => Ok((connection, proved)),
        Ok(Err(rejection)) => {
            connection.close(rejection.code(), rejection.text().as_bytes());
            Err(rejection.into())
        }
        Err(_) => {
            let reason = silence(DIAL_TIMEOUT);
            connection.close(CLOSED, reason.as_bytes());
            Err(DialError::Protocol(reason))
        }
    }
}

fn silence(limit: Duration) -> String {
    format!("nothing within {} s", limit.as_secs())
}

/// Accepts until the endpoint is closed.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let endpoint = shared.endpoint.clone();
    while let Some(incoming) = endpoint.accept().await {
        admit(&shared, incoming);
    }
}

fn admit(shared: &Arc<Shared>, incoming: Incoming) {
    let free = shared.half_open.available_permits();
    if HALF_OPEN_MAX - free >= HALF_OPEN_FREE && incoming.may_retry() {
        if incoming.retry().is_err() {
            tracing::debug!("a connection attempt could not be asked to retry");
        }
        return;
    }
    let Ok(permit) = Arc::clone(&shared.half_open).try_acquire_owned() else {
        incoming.refuse();
        return;
    };
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => {
            tracing::debug!(%error, "a connection attempt was no good");
            return;
        }
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let accepted = timeout(HANDSHAKE_DEADLINE, accept(&shared, connecting)).await;
        drop(permit);
        if let Ok(Some((connection, proved))) = accepted {
            carry(shared, connection, proved, None).await;
        }
    });
}

/// Lets a peer in, or tells it and the log why not.
async fn accept(shared: &Shared, connecting: Connecting) -> Option<(Connection, Proved)> {
    let remote = unmapped(connecting.remote_address());
    let connection = match connecting.await {
        Ok(connection) => connection,
        Err(error) => {
            log_refusal(shared, remote, None, &error.into());
            return None;
        }
    };
    match handshake::accept(shared.local(), &connection).await {
        Ok(proved) => Some((connection, proved)),
        Err(rejection) => {
            connection.close(rejection.code(), rejection.text().as_bytes());
            log_refusal(shared, remote, Some(&connection), &rejection);
            if rejection == Rejection::Twin {
                let _ = shared.inputs.send(Input::Twin { remote }).await;
            }
            None
        }
    }
}

/// One line for the operator, unless strangers fill the log or it says nothing about them.
fn log_refusal(
    shared: &Shared,
    remote: SocketAddr,
    connection: Option<&Connection>,
    rejection: &Rejection,
) {
    let text = rejection.text();
    if matches!(rejection, Rejection::Lost(_) | Rejection::Ourselves) {
        tracing::debug!("no link with {remote}: {text}");
        return;
    }
    let Some(held_back) = shared.log.admit(Instant::now()) else { return };
    let peer = connection
        .and_then(peer_key)
        .map_or_else(String::new, |key| format!(" (peer {})", peer_id(&key).short()));
    let more = match held_back {
        0 => String::new(),
        count => format!("; {count} refusals before it were not logged"),
    };
    tracing::warn!("refused a connection from {remote}{peer}: {text}{more}");
}

/// Announces a link and carries its frames until it ends.
async fn carry(
    shared: Arc<Shared>,
    connection: Connection,
    proved: Proved,
    dialled: Option<SocketAddr>,
) {
    let id = shared.next_link();
    let up = LinkUp {
        link: id,
        peer: proved.peer,
        incarnation: proved.incarnation,
        remote: unmapped(connection.remote_address()),
        dialled,
    };
    let mesh = proved.mesh;
    let (handle, link) = Link::new(id, connection, proved, shared.inputs.clone());
    {
        let mut links = lock(&shared.links);
        if shared.mesh() != Some(mesh) {
            // This host left the mesh while the handshake was under way.
            handle.connection.close(CLOSED, LEFT);
        }
        links.insert(id, handle);
    }
    if shared.inputs.send(Input::LinkUp(up)).await.is_err() {
        return;
    }
    let reason = link.run().await;
    let known = lock(&shared.links).remove(&id).is_some();
    if known {
        let _ = shared.inputs.send(Input::LinkDown { link: id, reason }).await;
    }
}

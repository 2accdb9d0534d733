//! The loop of one UDP socket: local answers inline, forwards in tasks of their own.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc, time::Duration};

use rand_chacha::ChaCha8Rng;
use tokio::{net::UdpSocket, task::JoinSet};

use super::{
    FORWARDS_MAX, Shared,
    respond::{Outcome, Transport, forward, respond},
    stats::count,
};

/// The longest query that is read; longer ones are cut and do not decode. Chosen: a question with
/// the longest name and many EDNS options has some hundreds of bytes.
const QUERY_BYTES_MAX: usize = 4096;
/// How long to wait after an error that is not the network's.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// Answers what comes in on a socket until it is cancelled.
pub(super) async fn serve(shared: Arc<Shared>, socket: UdpSocket, mut rng: ChaCha8Rng) {
    let socket = Arc::new(socket);
    let mut waiting = JoinSet::new();
    let mut packet = vec![0; QUERY_BYTES_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            // An earlier answer could not be delivered; the socket itself is well.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
            Err(error) => {
                tracing::debug!(%error, "DNS socket");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        while waiting.try_join_next().is_some() {}
        match respond(&shared, &packet[..length], Transport::Udp, &mut rng) {
            Outcome::Drop => {}
            Outcome::Reply(bytes) => send(&shared, &socket, &bytes, client),
            Outcome::Forward(_) if waiting.len() >= 2 * FORWARDS_MAX => {
                count(&shared.counters.overload);
            }
            Outcome::Forward(request) => {
                let (shared, socket) = (shared.clone(), socket.clone());
                waiting.spawn(async move {
                    if let Some(bytes) = forward(&shared, &request, Transport::Udp).await {
                        send(&shared, &socket, &bytes, client);
                    }
                });
            }
        }
    }
}

/// Sends without waiting: a full socket buffer drops the answer, as the network might.
fn send(shared: &Shared, socket: &UdpSocket, bytes: &[u8], client: SocketAddr) {
    if socket.try_send_to(bytes, client).is_err() {
        count(&shared.counters.unsent);
    }
}

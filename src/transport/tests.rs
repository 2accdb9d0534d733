//! Real endpoints on loopback.

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket as StdUdpSocket},
    sync::atomic::AtomicUsize,
};

use mesh_router::{MeshId, PeerId, codec::FRAME_BYTES_MAX};
use tokio::{net::UdpSocket, sync::mpsc, time::Instant};

use super::*;
use crate::node::event::{DialError, LinkUp, Secret};

/// No step of a test takes so long on a working machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Host {
    transport: Transport,
    inputs: mpsc::Receiver<Input>,
    identity: Identity,
}

fn credentials(mesh: u8, secret: u8) -> Credentials {
    Credentials { mesh: MeshId::new([mesh; 16]), secret: Secret([secret; 32]) }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

impl Host {
    fn start(listen: SocketAddr, identity: Identity, incarnation: u64, room: usize) -> Self {
        let (sender, inputs) = mpsc::channel(room);
        let config = TransportConfig { listen, identity: identity.clone(), incarnation };
        let transport = Transport::start(config, sender).unwrap();
        Self { transport, inputs, identity }
    }

    fn of(membership: Option<Credentials>) -> Self {
        let identity = Identity::ephemeral().unwrap();
        let host = Self::start(loopback(), identity, 7, 1024);
        host.transport.membership(membership);
        host
    }

    fn address(&self) -> SocketAddr {
        self.transport.local_addr().unwrap()
    }

    fn peer(&self) -> PeerId {
        self.identity.peer_id()
    }

    async fn next(&mut self) -> Input {
        tokio::time::timeout(PATIENCE, self.inputs.recv()).await.expect("no input came").unwrap()
    }

    /// The next input that is not about bytes sent or trickling in.
    async fn next_event(&mut self) -> Input {
        loop {
            match self.next().await {
                Input::Sent { .. } | Input::Activity { .. } => {}
                input => return input,
            }
        }
    }

    async fn up(&mut self) -> LinkUp {
        match self.next_event().await {
            Input::LinkUp(up) => up,
            other => panic!("a link was to come up, not {other:?}"),
        }
    }

    async fn frame(&mut self) -> Vec<u8> {
        match self.next_event().await {
            Input::Frame { bytes, .. } => bytes,
            other => panic!("a frame was to come, not {other:?}"),
        }
    }

    async fn down(&mut self) -> String {
        match self.next_event().await {
            Input::LinkDown { reason, .. } => reason,
            other => panic!("the link was to end, not {other:?}"),
        }
    }

    async fn refusal(&mut self) -> DialError {
        match self.next_event().await {
            Input::DialFailed { error, .. } => error,
            other => panic!("the dial was to fail, not {other:?}"),
        }
    }

    fn assert_nothing_came(&mut self) {
        assert!(self.inputs.try_recv().is_err(), "an input came from a stranger");
    }
}

async fn link(dialler: &mut Host, acceptor: &mut Host) -> (LinkId, LinkId) {
    dialler.transport.dial(acceptor.address());
    (dialler.up().await.link, acceptor.up().await.link)
}

async fn pair() -> (Host, Host, LinkId, LinkId) {
    let mut a = Host::of(Some(credentials(1, 1)));
    let mut b = Host::of(Some(credentials(1, 1)));
    let (to_b, to_a) = link(&mut a, &mut b).await;
    (a, b, to_b, to_a)
}

#[tokio::test]
async fn a_link_comes_up_on_both_sides_and_says_who_is_there() {
    let mut a = Host::start(loopback(), Identity::ephemeral().unwrap(), 11, 64);
    let mut b = Host::start(loopback(), Identity::ephemeral().unwrap(), 22, 64);
    a.transport.membership(Some(credentials(1, 1)));
    b.transport.membership(Some(credentials(1, 1)));
    a.transport.dial(b.address());
    let (at_a, at_b) = (a.up().await, b.up().await);
    assert_eq!((at_a.peer, at_a.incarnation), (b.peer(), 22));
    assert_eq!((at_b.peer, at_b.incarnation), (a.peer(), 11));
    assert_eq!((at_a.remote, at_a.dialled), (b.address(), Some(b.address())));
    assert_eq!((at_b.remote, at_b.dialled), (a.address(), None));
    a.transport.send(at_a.link, false, b"ping".to_vec());
    assert_eq!(b.frame().await, b"ping");
    b.transport.send(at_b.link, true, b"pong".to_vec());
    assert_eq!(a.frame().await, b"pong");
    assert!(a.transport.round_trips()[&at_a.link] > Duration::ZERO);
}

#[tokio::test]
async fn strangers_are_told_apart_and_get_no_link() {
    let cases = [
        (Some(credentials(1, 2)), DialError::WrongSecret),
        (Some(credentials(2, 1)), DialError::ForeignMesh),
        (Some(credentials(2, 2)), DialError::ForeignMesh),
        (None, DialError::NotMember),
    ];
    let mut a = Host::of(Some(credentials(1, 1)));
    for (membership, expected) in cases {
        let mut b = Host::of(membership);
        a.transport.dial(b.address());
        assert_eq!(a.refusal().await, expected);
        b.assert_nothing_came();
    }
}

#[tokio::test]
async fn a_host_finds_itself() {
    let mut a = Host::of(Some(credentials(1, 1)));
    a.transport.dial(a.address());
    assert_eq!(a.refusal().await, DialError::Ourselves);
}

#[tokio::test]
async fn a_copy_of_this_host_is_named_as_one() {
    let mut a = Host::of(Some(credentials(1, 1)));
    let mut twin = Host::start(loopback(), a.identity.clone(), 8, 64);
    twin.transport.membership(Some(credentials(1, 1)));
    a.transport.dial(twin.address());
    let error = a.refusal().await;
    assert_eq!(error, DialError::Twin);
    let event = twin.next_event().await;
    assert!(matches!(event, Input::Twin { remote } if remote == a.address()), "{event:?}");
}

#[tokio::test]
async fn a_host_outside_any_mesh_dials_nobody() {
    let mut a = Host::of(None);
    a.transport.dial(loopback());
    assert!(matches!(a.refusal().await, DialError::Protocol(_)));
}

#[tokio::test]
async fn a_silent_target_fails_once_and_in_time() {
    let silent = StdUdpSocket::bind(loopback()).unwrap();
    let mut a = Host::of(Some(credentials(1, 1)));
    let begun = Instant::now();
    a.transport.dial(silent.local_addr().unwrap());
    assert!(matches!(a.refusal().await, DialError::Unreachable(_)));
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn both_families_reach_a_wildcard_and_are_shown_as_they_are() {
    let listen = (Ipv6Addr::UNSPECIFIED, 0).into();
    let mut b = Host::start(listen, Identity::ephemeral().unwrap(), 1, 64);
    b.transport.membership(Some(credentials(1, 1)));
    let port = b.address().port();
    let cases: [(SocketAddr, SocketAddr); 3] = [
        ((Ipv4Addr::LOCALHOST, 0).into(), (Ipv4Addr::LOCALHOST, port).into()),
        ((Ipv6Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, port).into()),
        ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::LOCALHOST, port).into()),
    ];
    for (from, target) in cases {
        let mut a = Host::start(from, Identity::ephemeral().unwrap(), 1, 64);
        a.transport.membership(Some(credentials(1, 1)));
        a.transport.dial(target);
        let (at_a, at_b) = (a.up().await, b.up().await);
        assert_eq!((at_a.remote, at_a.dialled), (target, Some(target)));
        assert_eq!(at_b.remote, SocketAddr::new(target.ip(), a.address().port()));
        a.transport.close(at_a.link, "next case");
        assert!(b.down().await.contains("next case"));
    }
}

#[tokio::test]
async fn a_target_of_a_family_that_is_not_listened_on_is_unreachable_at_once() {
    let mut a = Host::of(Some(credentials(1, 1)));
    a.transport.dial((Ipv6Addr::LOCALHOST, 7780).into());
    assert!(matches!(a.refusal().await, DialError::Unreachable(_)));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let a = Host::of(None);
    let config =
        TransportConfig { listen: a.address(), identity: a.identity.clone(), incarnation: 0 };
    let error = Transport::start(config, mpsc::channel(1).0).unwrap_err().to_string();
    assert!(error.contains(&a.address().to_string()) && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn many_frames_arrive_whole_and_in_order() {
    let (a, mut b, to_b, _) = pair().await;
    let frame = |number: u32| {
        let mut bytes = vec![number as u8; (number as usize * 37) % 3000];
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes
    };
    for number in 0..3000 {
        a.transport.send(to_b, false, frame(number));
    }
    for number in 0..3000 {
        assert_eq!(b.frame().await, frame(number), "frame {number}");
    }
}

#[tokio::test]
async fn the_longest_frame_passes_with_signs_of_life_and_all_bytes_are_reported_sent() {
    let (mut a, mut b, to_b, _) = pair().await;
    let frames = [vec![], vec![1; FRAME_BYTES_MAX], vec![2; 3]];
    for frame in &frames {
        a.transport.send(to_b, false, frame.clone());
    }
    assert_eq!(b.frame().await, frames[0]);
    let mut activity = 0;
    let long = loop {
        match b.next().await {
            Input::Activity { .. } => activity += 1,
            Input::Frame { bytes, .. } => break bytes,
            other => panic!("{other:?}"),
        }
    };
    assert!(activity > 0, "a long frame came without a sign of life");
    assert_eq!(long, frames[1]);
    assert_eq!(b.frame().await, frames[2]);
    let mut sent = 0;
    while sent < FRAME_BYTES_MAX + 3 {
        match a.next().await {
            Input::Sent { bytes, .. } => sent += bytes,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, FRAME_BYTES_MAX + 3);
}

#[tokio::test]
async fn a_close_tells_the_other_side_why_and_this_side_nothing() {
    let (mut a, mut b, to_b, _) = pair().await;
    a.transport.close(to_b, "two links to one peer\n");
    assert_eq!(b.down().await, "closed by the peer: two links to one peer");
    let (second, _) = link(&mut a, &mut b).await;
    assert_ne!(second, to_b, "the next input at the closing side is the next link");
}

#[tokio::test]
async fn a_stop_is_seen_at_once() {
    let (a, mut b, ..) = pair().await;
    let begun = Instant::now();
    a.transport.shutdown().await;
    assert!(b.down().await.contains("stopping"));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn leaving_the_mesh_ends_the_links() {
    let (mut a, mut b, ..) = pair().await;
    a.transport.membership(None);
    a.down().await;
    assert!(b.down().await.contains("left the mesh"));
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_link_with_a_reason() {
    let mut b = Host::of(Some(credentials(1, 1)));
    let (connection, proved) = raw_member(&b).await;
    b.up().await;
    let mut stream = proved.send;
    let length = (FRAME_BYTES_MAX as u32 + 1).to_be_bytes();
    stream.write_all(&length).await.unwrap();
    assert!(b.down().await.contains("announced"));
    let seen = handshake::describe(&connection.closed().await);
    assert!(seen.contains("announced"), "{seen}");
}

/// A member that speaks the handshake and then whatever the test wants.
async fn raw_member(to: &Host) -> (quinn::Connection, handshake::Proved) {
    let (connection, identity) = raw_connection(to).await;
    let local = handshake::Local {
        identity: &identity,
        incarnation: 1,
        credentials: Some(credentials(1, 1)),
    };
    let proved = handshake::dial(local, &connection).await.unwrap();
    (connection, proved)
}

/// A connection to a host after TLS and before the proof.
async fn raw_connection(to: &Host) -> (quinn::Connection, Identity) {
    let identity = Identity::ephemeral().unwrap();
    let configs = tls::configs(&identity).unwrap();
    let endpoint = Endpoint::client(loopback()).unwrap();
    let connecting = endpoint.connect_with(configs.client, to.address(), "mesh").unwrap();
    (connecting.await.unwrap(), identity)
}

#[tokio::test]
async fn garbage_instead_of_a_proof_is_refused_and_others_get_in() {
    let mut b = Host::of(Some(credentials(1, 1)));
    for garbage in [&[0xff; 4096][..], &[1; 4096], &[0; 1], &[1; 73]] {
        let (connection, _) = raw_connection(&b).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        // The other side may have closed before all was written.
        let _ = send.write_all(garbage).await;
        let _ = send.finish();
        let error = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
        assert!(matches!(error, quinn::ConnectionError::ApplicationClosed(_)), "{error}");
    }
    b.assert_nothing_came();
    let mut a = Host::of(Some(credentials(1, 1)));
    link(&mut a, &mut b).await;
}

#[tokio::test]
async fn strangers_that_say_nothing_are_not_waited_for() {
    let mut b = Host::of(Some(credentials(1, 1)));
    // So many that the later ones are asked to show their address first.
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(raw_connection(&b).await);
    }
    let mut a = Host::of(Some(credentials(1, 1)));
    link(&mut a, &mut b).await;
    let begun = Instant::now();
    for (connection, _) in silent {
        tokio::time::timeout(PATIENCE, connection.closed()).await.expect("the deadline closes it");
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

/// What is logged on this thread while the guard lives.
fn log_lines() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&lines);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(move || Lines(Arc::clone(&writer)))
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[tokio::test]
async fn each_kind_of_stranger_gives_one_clear_line_and_a_flood_only_a_few() {
    let (lines, _guard) = log_lines();
    let b = Host::of(Some(credentials(1, 1)));
    let mut wrong = Host::of(Some(credentials(1, 2)));
    let mut foreign = Host::of(Some(credentials(2, 2)));
    for stranger in [&mut wrong, &mut foreign] {
        stranger.transport.dial(b.address());
        stranger.refusal().await;
    }
    let text = |lines: &Arc<Mutex<Vec<u8>>>| String::from_utf8(lock(lines).clone()).unwrap();
    let begun = Instant::now();
    while text(&lines).lines().count() < 2 && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (stranger, what) in [(&wrong, "join token"), (&foreign, "another mesh")] {
        let (peer, address) = (stranger.peer().short(), stranger.address().to_string());
        let fits = |line: &str| [what, &peer, &address].iter().all(|part| line.contains(*part));
        let text = text(&lines);
        assert_eq!(text.lines().filter(|line| fits(line)).count(), 1, "{text}");
    }
    for _ in 0..50 {
        wrong.transport.dial(b.address());
        assert_eq!(wrong.refusal().await, DialError::WrongSecret);
    }
    let text = text(&lines);
    assert!(text.lines().count() < 20, "{text}");
}

#[tokio::test]
async fn a_proof_of_another_connection_is_worth_nothing() {
    // A member's hello, carried over to a stranger's connection.
    let mut b = Host::of(Some(credentials(1, 1)));
    let (connection, stranger) = raw_connection(&b).await;
    let (_, member) = raw_connection(&b).await;
    let local = handshake::Local {
        identity: &member,
        incarnation: 1,
        credentials: Some(credentials(1, 1)),
    };
    assert_ne!(member.peer_id(), stranger.peer_id());
    let rejection = handshake::dial(local, &connection).await.err().unwrap();
    assert_eq!(rejection, handshake::Rejection::ForeignMesh);
    b.assert_nothing_came();
}

#[tokio::test]
async fn garbage_datagrams_disturb_nobody() {
    let (a, mut b, to_b, _) = pair().await;
    let socket = StdUdpSocket::bind(loopback()).unwrap();
    let mut state = 1_u64;
    for round in 0..2000_usize {
        let garbage: Vec<u8> = (0..round % 1400)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 56) as u8
            })
            .collect();
        let _ = socket.send_to(&garbage, b.address());
        if round % 100 == 0 {
            a.transport.send(to_b, false, round.to_be_bytes().to_vec());
            assert_eq!(b.frame().await, round.to_be_bytes());
        }
    }
}

#[test]
fn a_restarted_host_tells_at_once_that_its_former_links_are_dead() {
    let survivor = tokio::runtime::Runtime::new().unwrap();
    let killed = tokio::runtime::Runtime::new().unwrap();
    let mut a = survivor.block_on(async { Host::of(Some(credentials(1, 1))) });
    let mut b = killed.block_on(async { Host::of(Some(credentials(1, 1))) });
    let (address, identity) = (b.address(), b.identity.clone());
    let to_b = survivor.block_on(async {
        a.transport.dial(address);
        a.up().await.link
    });
    killed.block_on(b.up());
    // All tasks stop where they are, as with kill -9: no goodbye is sent.
    killed.shutdown_timeout(Duration::from_secs(5));
    drop(b);
    survivor.block_on(async {
        let restarted = restart(address, identity).await;
        restarted.transport.membership(Some(credentials(1, 1)));
        let begun = Instant::now();
        a.transport.send(to_b, false, vec![0; 64]);
        assert_eq!(a.down().await, "the peer restarted");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        a.transport.dial(address);
        a.up().await;
    });
}

/// Starts a host where one just was; the system may need a moment to give the port free.
async fn restart(address: SocketAddr, identity: Identity) -> Host {
    let begun = Instant::now();
    loop {
        let (sender, inputs) = mpsc::channel(64);
        let config =
            TransportConfig { listen: address, identity: identity.clone(), incarnation: 2 };
        match Transport::start(config, sender) {
            Ok(transport) => return Host { transport, inputs, identity },
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A narrow link: datagrams in both directions, those to `target` at this rate.
async fn narrow(target: SocketAddr, bytes_per_sec: usize, passed: Arc<AtomicUsize>) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    let back = Arc::new(UdpSocket::bind(loopback()).await.unwrap());
    back.connect(target).await.unwrap();
    let address = front.local_addr().unwrap();
    let client = Arc::new(Mutex::new(None));
    let (queue, mut queued) = mpsc::channel::<Vec<u8>>(64);
    let (receiving, seen) = (Arc::clone(&front), Arc::clone(&client));
    tokio::spawn(async move {
        let mut buffer = vec![0; 65536];
        while let Ok((length, from)) = receiving.recv_from(&mut buffer).await {
            *lock(&seen) = Some(from);
            // A full queue drops, as a router does.
            let _ = queue.try_send(buffer[..length].to_vec());
        }
    });
    let sending = Arc::clone(&back);
    tokio::spawn(async move {
        while let Some(datagram) = queued.recv().await {
            let time = datagram.len() as f64 / bytes_per_sec as f64;
            tokio::time::sleep(Duration::from_secs_f64(time)).await;
            passed.fetch_add(datagram.len(), Ordering::Relaxed);
            let _ = sending.send(&datagram).await;
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; 65536];
        while let Ok(length) = back.recv(&mut buffer).await {
            let to = *lock(&client);
            if let Some(to) = to {
                let _ = front.send_to(&buffer[..length], to).await;
            }
        }
    });
    address
}

#[tokio::test]
async fn an_urgent_frame_overtakes_a_bulk_transfer_on_a_narrow_link() {
    let mut a = Host::of(Some(credentials(1, 1)));
    let mut b = Host::of(Some(credentials(1, 1)));
    let passed = Arc::new(AtomicUsize::new(0));
    let rate = 500_000;
    let through = narrow(b.address(), rate, Arc::clone(&passed)).await;
    a.transport.dial(through);
    let to_b = a.up().await.link;
    b.up().await;
    a.transport.send(to_b, false, vec![1; FRAME_BYTES_MAX]);
    while passed.load(Ordering::Relaxed) < 200_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begun = Instant::now();
    a.transport.send(to_b, true, b"heartbeat".to_vec());
    assert_eq!(b.frame().await, b"heartbeat");
    let overtaking = begun.elapsed();
    assert_eq!(b.frame().await.len(), FRAME_BYTES_MAX);
    let bulk = begun.elapsed();
    assert!(overtaking < bulk / 2, "urgent {overtaking:?}, bulk {bulk:?}");
}

#[tokio::test]
async fn a_node_that_does_not_listen_stops_the_sender_and_loses_nothing() {
    let identity = Identity::ephemeral().unwrap();
    let mut b = Host::start(loopback(), identity, 1, 1);
    b.transport.membership(Some(credentials(1, 1)));
    let mut a = Host::of(Some(credentials(1, 1)));
    a.transport.dial(b.address());
    let to_b = a.up().await.link;
    b.up().await;
    let frames = 4000;
    for number in 0..frames {
        let mut bytes = vec![0; 1000];
        bytes[..4].copy_from_slice(&u32::to_be_bytes(number));
        a.transport.send(to_b, false, bytes);
    }
    let sent = |inputs: &mut mpsc::Receiver<Input>| {
        let mut sum = 0;
        while let Ok(input) = inputs.try_recv() {
            if let Input::Sent { bytes, .. } = input {
                sum += bytes;
            }
        }
        sum
    };
    // Wait until nothing moves any more: the windows are full.
    let (mut total, mut still) = (0, 0);
    while still < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let more = sent(&mut a.inputs);
        total += more;
        still = if more == 0 && total > 0 { still + 1 } else { 0 };
    }
    assert!(total < 1 << 20, "{total} bytes were taken for a peer that does not listen");
    for number in 0..frames {
        assert_eq!(b.frame().await[..4], u32::to_be_bytes(number));
    }
}

#[tokio::test]
async fn an_identity_survives_and_a_damaged_one_is_named() {
    let scratch = crate::storage::scratch::Scratch::new();
    let made = Identity::load_or_create(scratch.path()).unwrap();
    let read = Identity::load_or_create(scratch.path()).unwrap();
    assert_eq!(made.peer_id(), read.peer_id());
    let path = scratch.path().join("identity.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let good = std::fs::read(&path).unwrap();
    for damage in [&good[..40], &[], b"garbage"] {
        std::fs::write(&path, damage).unwrap();
        let error = Identity::load_or_create(scratch.path()).unwrap_err().to_string();
        assert!(error.contains("identity.key") && error.contains("damaged"), "{error}");
    }
    for position in 0..good.len() {
        let mut bytes = good.clone();
        bytes[position] ^= 0x20;
        std::fs::write(&path, bytes).unwrap();
        let outcome = Identity::load_or_create(scratch.path());
        assert!(outcome.is_err(), "a flip at {position} went unnoticed");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let error = Identity::load_or_create(scratch.path()).unwrap_err();
    assert!(matches!(error, IdentityError::Unreadable { .. }), "{error}");
}

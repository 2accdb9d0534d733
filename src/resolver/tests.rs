//! Real sockets on loopback, a client made of hickory-proto, an upstream of our own.

use std::{net::IpAddr, str::FromStr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name as WireName, RData, Record, RecordType,
        rdata::{CNAME, PTR, SOA, TXT},
    },
};
use mesh_router::PeerId;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::{sleep, timeout},
};

use super::*;

mod forwarding;
mod local;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A resolver on a free port of loopback, and the directory of its resolv.conf.
struct Bench {
    resolver: Resolver,
    address: SocketAddr,
    conf: PathBuf,
}

impl Bench {
    async fn start(test: &str, conf: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("mesh-dns-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("resolv.conf");
        std::fs::write(&path, conf).unwrap();
        let domain = Name::parse("mesh.internal").unwrap();
        let resolver = Resolver::start(Config { domain, resolv_conf: path.clone() });
        resolver.set_ranges(vec!["10.32.0.0/12".parse().unwrap(), "fd00:1::/48".parse().unwrap()]);
        resolver.listen(vec!["127.0.0.1:0".parse().unwrap()]);
        until("the resolver listens", || !resolver.listening().is_empty()).await;
        let address = resolver.listening()[0];
        Self { resolver, address, conf: path }
    }

    fn set(&self, name: &str, holder: &str, addresses: &[&str]) {
        self.resolver.apply(ZoneChange::Set {
            origin: PeerId::new([1; 16]),
            name: Name::in_domain(name, &Name::parse("mesh.internal").unwrap()).unwrap(),
            holder: holder.to_owned(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        });
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        exchange(self.address, &question(name, kind)).await
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(self.conf.parent().unwrap()));
    }
}

/// Waits for a condition that something else brings about.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "never came: {what}");
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(WireName::from_ascii(name).unwrap(), kind));
    message
}

async fn raw(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.unwrap();
    let mut answer = vec![0; 65536];
    let length = timeout(PATIENCE, socket.recv(&mut answer)).await.expect("an answer").unwrap();
    answer.truncate(length);
    answer
}

/// Asks over UDP; the answer must be the bytes of one message and nothing after it.
async fn exchange(server: SocketAddr, question: &Message) -> Message {
    let bytes = raw(server, &question.to_vec().unwrap()).await;
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.to_vec().unwrap().len(), bytes.len(), "bytes after the message");
    assert_eq!(message.metadata.id, question.metadata.id);
    assert_eq!(message.metadata.message_type, MessageType::Response);
    message
}

async fn exchange_tcp(stream: &mut TcpStream, question: &Message) -> std::io::Result<Message> {
    let bytes = question.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await?;
    stream.write_all(&bytes).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(Message::from_vec(&answer).unwrap())
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> =
        message.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    all.sort();
    all
}

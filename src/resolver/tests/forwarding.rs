//! Everybody else's names.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A name server with a few fixed answers that counts what it is asked.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Starts one whose `www.example.com` has this address.
    async fn start(www: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let (counter, www) = (asked.clone(), www.parse().unwrap());
        let task = tokio::spawn(async move {
            let mut packet = [0; 4096];
            loop {
                let (length, client) = socket.recv_from(&mut packet).await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let request = Message::from_vec(&packet[..length]).unwrap();
                let answer = fixed(&request, www).to_vec().unwrap();
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        Self { address, asked, task }
    }

    fn conf(&self) -> String {
        format!("nameserver {}\n", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn fixed(request: &Message, www: std::net::Ipv4Addr) -> Message {
    let mut response = respond::blank(request);
    let query = &request.queries[0];
    let name = |text: &str| WireName::from_str(text).unwrap();
    let mut answer = |owner: WireName, data: RData| {
        response.answers.push(Record::from_rdata(owner, 300, data));
    };
    match (query.name.to_lowercase().to_string().as_str(), query.query_type) {
        ("www.example.com.", RecordType::A) => answer(query.name.clone(), RData::A(www.into())),
        ("alias.example.com.", RecordType::A) => {
            answer(query.name.clone(), RData::CNAME(CNAME(name("www.example.com."))));
            answer(name("www.example.com."), RData::A(www.into()));
        }
        ("text.example.com.", RecordType::TXT) => {
            let text = TXT::new(vec!["x".repeat(200); 4]);
            answer(query.name.clone(), RData::TXT(text));
        }
        ("refused.example.com.", _) => response.metadata.response_code = ResponseCode::Refused,
        ("broken.example.com.", _) => response.metadata.response_code = ResponseCode::ServFail,
        (owner, _) => {
            if owner.starts_with("nix") {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            let soa = SOA::new(name("ns.example.com."), name("h.example.com."), 1, 9, 9, 9, 60);
            let soa = Record::from_rdata(name("example.com."), 60, RData::SOA(soa));
            response.authorities.push(soa);
        }
    }
    response
}

#[tokio::test]
async fn other_names_are_forwarded_and_cached() {
    let upstream = Upstream::start("192.0.2.1").await;
    let bench = Bench::start("forward", &upstream.conf()).await;
    assert_eq!(bench.resolver.upstreams(), [upstream.address]);
    for _ in 0..3 {
        let answer = bench.ask("Www.Example.com.", RecordType::A).await;
        assert_eq!(addresses(&answer), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
        assert_eq!(answer.queries[0].name.to_string(), "Www.Example.com.");
    }
    assert_eq!(upstream.asked(), 1);
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let asked = question("www.example.com.", RecordType::A);
    assert_eq!(exchange_tcp(&mut stream, &asked).await.unwrap().answers.len(), 1);
    assert_eq!(bench.resolver.stats().forwarded, 4);
}

#[tokio::test]
async fn aliases_and_other_types_come_through_whole() {
    let upstream = Upstream::start("192.0.2.1").await;
    let bench = Bench::start("types", &upstream.conf()).await;
    let answer = bench.ask("alias.example.com.", RecordType::A).await;
    let kinds: Vec<_> = answer.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::A]);
    let answer = bench.ask("text.example.com.", RecordType::TXT).await;
    assert!(answer.metadata.truncation, "800 bytes do not fit into a plain datagram");
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let asked = question("text.example.com.", RecordType::TXT);
    let answer = exchange_tcp(&mut stream, &asked).await.unwrap();
    assert!(matches!(answer.answers[0].data, RData::TXT(_)));
}

#[tokio::test]
async fn what_does_not_exist_is_cached_too() {
    let upstream = Upstream::start("192.0.2.1").await;
    let bench = Bench::start("nxdomain", &upstream.conf()).await;
    for (name, code) in [
        ("nix.example.com.", ResponseCode::NXDomain),
        ("empty.example.com.", ResponseCode::NoError),
    ] {
        let before = upstream.asked();
        for _ in 0..3 {
            let answer = bench.ask(name, RecordType::A).await;
            assert_eq!(answer.metadata.response_code, code);
            assert!(answer.answers.is_empty());
            assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        }
        assert_eq!(upstream.asked(), before + 1, "{name}");
    }
}

#[tokio::test]
async fn an_upstreams_refusal_is_passed_on() {
    let upstream = Upstream::start("192.0.2.1").await;
    let bench = Bench::start("refusal", &upstream.conf()).await;
    let answer = bench.ask("refused.example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    let answer = bench.ask("broken.example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(bench.resolver.stats().forward_failed, 2);
}

#[tokio::test]
async fn without_an_upstream_the_answer_is_servfail_at_once() {
    let bench = Bench::start("none", "search example.com\n").await;
    let asked = bench.ask("www.example.com.", RecordType::A);
    let answer = timeout(Duration::from_secs(1), asked).await.expect("at once");
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_dead_upstream_holds_up_no_mesh_name() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let conf = format!("nameserver {}\n", silent.local_addr().unwrap());
    let bench = Bench::start("dead", &conf).await;
    bench.set("web", "c1", &["10.32.0.1"]);
    let slow = question("www.example.com.", RecordType::A);
    let slow = tokio::spawn({
        let address = bench.address;
        async move { exchange(address, &slow).await }
    });
    until("the slow query waits", || bench.resolver.stats().forwarded == 1).await;
    assert_eq!(bench.ask("web.mesh.internal.", RecordType::A).await.answers.len(), 1);
    assert!(!slow.is_finished());
    assert_eq!(slow.await.unwrap().metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn an_edited_file_switches_the_upstream_and_our_own_sockets_are_none() {
    let first = Upstream::start("192.0.2.1").await;
    let second = Upstream::start("192.0.2.2").await;
    let bench = Bench::start("edit", &first.conf()).await;
    let answer = bench.ask("www.example.com.", RecordType::A).await;
    assert_eq!(addresses(&answer), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    // As an editor does: a new file in place of the old one. It also names ourselves.
    bench.resolver.listen(vec![bench.address]);
    let replacement = bench.conf.with_extension("new");
    let text = format!("nameserver {}\n{}", bench.address, second.conf());
    std::fs::write(&replacement, text).unwrap();
    std::fs::rename(&replacement, &bench.conf).unwrap();
    let switched = || bench.resolver.upstreams() == [second.address];
    until("the second upstream", switched).await;
    until("it listens again", || bench.resolver.listening() == [bench.address]).await;
    let answer = bench.ask("www.example.com.", RecordType::A).await;
    assert_eq!(addresses(&answer), ["192.0.2.2".parse::<IpAddr>().unwrap()]);
}

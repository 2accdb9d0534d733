//! Names of the mesh.

use super::*;

#[tokio::test]
async fn mesh_names_are_answered_with_authority() {
    let bench = Bench::start("authority", "").await;
    bench.set("web", "c1", &["10.32.0.1", "fd00:1::1"]);
    let answer = bench.ask("WeB.Mesh.Internal.", RecordType::A).await;
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(addresses(&answer), ["10.32.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(answer.answers[0].ttl, 1);
    assert_eq!(answer.queries[0].name.to_string(), "WeB.Mesh.Internal.", "case of the question");
    let answer = bench.ask("web.mesh.internal.", RecordType::AAAA).await;
    assert_eq!(addresses(&answer), ["fd00:1::1".parse::<IpAddr>().unwrap()]);
    assert!(answer.edns.is_none());
    assert_eq!(bench.resolver.stats().local, 2);
}

#[tokio::test]
async fn addresses_of_the_mesh_have_names() {
    let bench = Bench::start("ptr", "").await;
    bench.set("web", "c1", &["10.32.0.1", "fd00:1::1"]);
    for address in ["10.32.0.1", "fd00:1::1"] {
        let reverse = Name::reverse(address.parse().unwrap());
        let answer = bench.ask(&format!("{reverse}."), RecordType::PTR).await;
        let name = WireName::from_str("web.mesh.internal.").unwrap();
        assert_eq!(answer.answers[0].data, RData::PTR(PTR(name)), "{address}");
    }
    let answer = bench.ask("2.0.32.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(answer.authorities[0].name.to_string(), "32.10.in-addr.arpa.");
}

#[tokio::test]
async fn negative_answers_carry_the_start_of_authority() {
    let bench = Bench::start("negative", "").await;
    bench.set("web", "c1", &["10.32.0.1"]);
    let cases = [
        ("web.mesh.internal.", RecordType::AAAA, ResponseCode::NoError),
        ("web.mesh.internal.", RecordType::TXT, ResponseCode::NoError),
        ("nix.mesh.internal.", RecordType::A, ResponseCode::NXDomain),
        ("*.mesh.internal.", RecordType::A, ResponseCode::NXDomain),
    ];
    for (name, kind, code) in cases {
        let answer = bench.ask(name, kind).await;
        assert_eq!(answer.metadata.response_code, code, "{name} {kind}");
        assert!(answer.answers.is_empty() && answer.metadata.authoritative);
        let RData::SOA(soa) = &answer.authorities[0].data else { panic!("no SOA for {name}") };
        assert_eq!(soa.minimum, 1);
    }
    let answer = bench.ask("mesh.internal.", RecordType::SOA).await;
    assert!(matches!(answer.answers[0].data, RData::SOA(_)));
}

#[tokio::test]
async fn a_change_is_in_the_next_answer() {
    let bench = Bench::start("change", "").await;
    let origin = PeerId::new([1; 16]);
    bench.set("web", "c1", &["10.32.0.1"]);
    bench.resolver.apply(ZoneChange::Hide(origin));
    let answer = bench.ask("web.mesh.internal.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
    bench.resolver.apply(ZoneChange::Show(origin));
    assert_eq!(bench.ask("web.mesh.internal.", RecordType::A).await.answers.len(), 1);
}

#[tokio::test]
async fn what_does_not_fit_is_truncated_and_whole_over_tcp() {
    let bench = Bench::start("truncated", "").await;
    for n in 0..100 {
        bench.set("web", &format!("c{n}"), &[&format!("10.32.0.{n}")]);
    }
    let plain = bench.ask("web.mesh.internal.", RecordType::A).await;
    assert!(plain.metadata.truncation && plain.answers.is_empty() && plain.edns.is_none());
    for (payload, truncated) in [(0, true), (512, true), (1232, true), (65535, true)] {
        let mut asked = question("web.mesh.internal.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_dnssec_ok(true);
        asked.set_edns(edns);
        let answer = exchange(bench.address, &asked).await;
        assert_eq!(answer.metadata.truncation, truncated, "{payload}");
        let edns = answer.edns.as_ref().expect("the OPT record stays");
        assert!(edns.max_payload() == 1232 && edns.flags().dnssec_ok);
    }
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    for _ in 0..3 {
        let asked = question("web.mesh.internal.", RecordType::A);
        let answer = exchange_tcp(&mut stream, &asked).await.unwrap();
        assert!(!answer.metadata.truncation);
        assert_eq!(answer.answers.len(), 100);
    }
    assert_eq!(bench.resolver.stats().truncated, 5);
}

#[tokio::test]
async fn edns_makes_room_for_more() {
    let bench = Bench::start("edns", "").await;
    for n in 0..50 {
        bench.set("web", &format!("c{n}"), &[&format!("10.32.0.{n}")]);
    }
    let mut asked = question("web.mesh.internal.", RecordType::A);
    assert!(exchange(bench.address, &asked).await.metadata.truncation);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let answer = exchange(bench.address, &asked).await;
    assert_eq!((answer.metadata.truncation, answer.answers.len()), (false, 50));
    let first: Vec<_> = answer.answers.iter().map(|record| record.data.clone()).collect();
    let again = exchange(bench.address, &asked).await;
    let second: Vec<_> = again.answers.iter().map(|record| record.data.clone()).collect();
    assert_ne!(first, second, "several addresses come in random order");
}

#[tokio::test]
async fn odd_questions_get_the_fitting_code() {
    let bench = Bench::start("odd", "").await;
    let base = || question("web.mesh.internal.", RecordType::A);
    let mut version = base();
    let mut edns = Edns::new();
    edns.set_version(1);
    version.set_edns(edns);
    let mut update = base();
    update.metadata.op_code = OpCode::Update;
    let mut two = base();
    two.add_query(two.queries[0].clone());
    let mut chaos = base();
    chaos.queries[0].set_query_class(DNSClass::CH);
    let transfer = question("mesh.internal.", RecordType::AXFR);
    let cases = [
        (version, ResponseCode::BADVERS),
        (update, ResponseCode::NotImp),
        (two, ResponseCode::FormErr),
        (chaos, ResponseCode::Refused),
        (transfer, ResponseCode::Refused),
    ];
    for (asked, code) in cases {
        let answer = exchange(bench.address, &asked).await;
        let high = answer.edns.as_ref().map_or(0, Edns::rcode_high);
        let got = ResponseCode::from(high, answer.metadata.response_code.low());
        // By number: BADVERS and BADSIG share theirs.
        assert_eq!(u16::from(got), u16::from(code), "{asked}");
    }
}

#[tokio::test]
async fn garbage_is_dropped_and_counted() {
    let bench = Bench::start("garbage", "").await;
    bench.set("web", "c1", &["10.32.0.1"]);
    let good = question("web.mesh.internal.", RecordType::A).to_vec().unwrap();
    let mut response = good.clone();
    response[2] |= 0x80;
    // Issue 2210 of hickory: a name that points at itself.
    let mut looping = good[..12].to_vec();
    looping.extend([0xc0, 12, 0, 1, 0, 1]);
    let mut packets = vec![response, looping, vec![], vec![0xff; 4096]];
    packets.extend((1..good.len()).map(|cut| good[..cut].to_vec()));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for packet in &packets {
        socket.send_to(packet, bench.address).await.unwrap();
    }
    let bad = || bench.resolver.stats().bad;
    until("all bad packets are counted", || bad() == packets.len() as u64).await;
    assert_eq!(bench.ask("web.mesh.internal.", RecordType::A).await.answers.len(), 1);
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    stream.write_all(&[0xff; 100]).await.unwrap();
    let mut rest = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("closed"));
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_thousand_connections_of_one_client_starve_nobody() {
    let bench = Bench::start("thousand", "").await;
    bench.set("web", "c1", &["10.32.0.1"]);
    let mut held = Vec::new();
    for _ in 0..1000 {
        let stream = TcpStream::connect(bench.address).await.unwrap();
        // Not all are kept: a user may often open 1024 files only.
        if held.len() < 100 {
            held.push(stream);
        }
    }
    let allowed = tcp::CONNECTIONS_PER_CLIENT_MAX as u64;
    let refused = || bench.resolver.stats().tcp_refused;
    until("the others are refused", || refused() == 1000 - allowed).await;
    let asked = question("web.mesh.internal.", RecordType::A);
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut stream = other.connect(bench.address).await.unwrap();
    assert_eq!(exchange_tcp(&mut stream, &asked).await.unwrap().answers.len(), 1);
    assert_eq!(exchange_tcp(&mut held[0], &asked).await.unwrap().answers.len(), 1);
    drop(held);
    let mut stream = loop {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        if exchange_tcp(&mut stream, &asked).await.is_ok() {
            break stream;
        }
    };
    assert_eq!(exchange_tcp(&mut stream, &asked).await.unwrap().answers.len(), 1);
}

#[tokio::test]
async fn listen_addresses_change_at_run_time() {
    let bench = Bench::start("listen", "").await;
    bench.set("web", "c1", &["10.32.0.1"]);
    let taken = std::net::UdpSocket::bind("127.0.0.3:0").unwrap();
    let late = taken.local_addr().unwrap();
    let six: SocketAddr = "[::1]:0".parse().unwrap();
    bench.resolver.listen(vec![late, six, "192.0.2.1:5353".parse().unwrap()]);
    until("two of three stand", || bench.resolver.listening().len() == 2).await;
    assert!(!bench.resolver.listening().contains(&bench.address), "the first one was closed");
    assert_eq!(bench.resolver.failures()[0].0, late);
    drop(taken);
    until("the port is free", || bench.resolver.failures().is_empty()).await;
    let answer = exchange(late, &question("web.mesh.internal.", RecordType::A)).await;
    assert_eq!(answer.answers.len(), 1, "and the answer came from the address that was asked");
}

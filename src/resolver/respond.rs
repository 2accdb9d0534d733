//! From a query's bytes to an answer's bytes, without IO.
//!
//! Mesh names are answered here; for others the caller is told to forward. The question is echoed
//! as it was asked, case and all (some clients check it).

use std::{
    net::IpAddr,
    sync::{Arc, RwLock},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name as WireName, RData, Record, RecordType,
        rdata::{PTR, SOA},
    },
};
use mesh_dns::{Answer, QueryName, QueryType, Table};
use rand::Rng;

use super::{
    Shared, read,
    stats::{Counters, count},
};

/// Seconds that clients may keep an answer about the mesh. A container may be gone the next moment
/// and asking again costs a tenth of a millisecond; 0 would make some clients not accept it.
const TTL_SECS: u32 = 1;
/// The longest datagram that is sent: what passes every path unfragmented (DNS flag day 2020).
const DATAGRAM_BYTES_MAX: u16 = 1232;
/// The longest datagram for a client that says nothing of EDNS. RFC 1035 section 4.2.1.
const DATAGRAM_BYTES_PLAIN: u16 = 512;
/// How long secondary servers, of which there are none, would wait.
const SOA_SECS: i32 = 3600;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// What to do with a packet.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Send this.
    Reply(Vec<u8>),
    /// Ask an upstream, then send what [`forward`] makes of its answer.
    Forward(Box<Message>),
    /// It was no query; nothing is sent, lest two servers answer each other for ever.
    Drop,
}

/// Decides about a packet.
pub(super) fn respond(
    shared: &Shared,
    packet: &[u8],
    transport: Transport,
    rng: &mut impl Rng,
) -> Outcome {
    let request = match Message::from_vec(packet) {
        Ok(message) if message.metadata.message_type == MessageType::Query => message,
        _ => {
            count(&shared.counters.bad);
            return Outcome::Drop;
        }
    };
    let response = match refusal(&request) {
        Some(code) => error(&request, code),
        None => match answer(&shared.table, &request.queries[0], rng) {
            Answer::NotOurs => return Outcome::Forward(Box::new(request)),
            answer => {
                count(&shared.counters.local);
                local(&request, answer)
            }
        },
    };
    encode(&request, response, transport, &shared.counters).map_or(Outcome::Drop, Outcome::Reply)
}

/// Asks an upstream and makes the answer's bytes.
pub(super) async fn forward(
    shared: &Arc<Shared>,
    request: &Message,
    transport: Transport,
) -> Option<Vec<u8>> {
    let response = if let Ok(_permit) = shared.forwards.try_acquire() {
        count(&shared.counters.forwarded);
        let response = shared.upstreams.lookup(request).await;
        response.unwrap_or_else(|code| {
            count(&shared.counters.forward_failed);
            error(request, code)
        })
    } else {
        count(&shared.counters.overload);
        error(request, ResponseCode::ServFail)
    };
    encode(request, response, transport, &shared.counters)
}

/// Why a query is not answered, if it is not.
fn refusal(request: &Message) -> Option<ResponseCode> {
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Some(ResponseCode::BADVERS);
    }
    if request.metadata.op_code != OpCode::Query {
        return Some(ResponseCode::NotImp);
    }
    let [query] = &request.queries[..] else { return Some(ResponseCode::FormErr) };
    let transfer = matches!(query.query_type, RecordType::AXFR | RecordType::IXFR);
    (query.query_class != DNSClass::IN || transfer).then_some(ResponseCode::Refused)
}

fn answer(table: &RwLock<Table>, query: &Query, rng: &mut impl Rng) -> Answer {
    let kind = match query.query_type {
        RecordType::A => QueryType::A,
        RecordType::AAAA => QueryType::Aaaa,
        RecordType::PTR => QueryType::Ptr,
        RecordType::SOA => QueryType::Soa,
        RecordType::ANY => QueryType::Any,
        _ => QueryType::Other,
    };
    let name = QueryName::from_labels(query.name.iter());
    let mut answer = read(table).answer(&name, kind);
    answer.shuffle(rng);
    answer
}

/// An empty response to a request.
pub(super) fn blank(request: &Message) -> Message {
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = Metadata::response_from_request(&request.metadata);
    response.metadata.recursion_available = true;
    response.queries.clone_from(&request.queries);
    response
}

fn error(request: &Message, code: ResponseCode) -> Message {
    let mut response = blank(request);
    response.metadata.response_code = code;
    response
}

/// The response to a question about the mesh.
fn local(request: &Message, answer: Answer) -> Message {
    let mut response = blank(request);
    response.metadata.authoritative = true;
    let owner = &request.queries[0].name;
    match answer {
        Answer::Addresses(all) => {
            response.answers = all.into_iter().map(|ip| address(owner, ip)).collect();
        }
        Answer::Pointers(all) => {
            let names = all.iter().filter_map(|name| wire_name(name.as_str()));
            let record = |name| Record::from_rdata(owner.clone(), TTL_SECS, RData::PTR(PTR(name)));
            response.answers = names.map(record).collect();
        }
        Answer::Authority { zone } => response.answers.extend(authority(&zone)),
        Answer::NoData { zone } => response.authorities.extend(authority(&zone)),
        Answer::NameError { zone } => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.authorities.extend(authority(&zone));
        }
        Answer::NotOurs => {}
    }
    response
}

fn address(owner: &WireName, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    Record::from_rdata(owner.clone(), TTL_SECS, data)
}

/// A zone's start of authority; a negative answer is kept as long as a positive one.
fn authority(zone: &str) -> Option<Record> {
    let apex = wire_name(zone)?;
    let server = apex.prepend_label("ns").unwrap_or_else(|_| apex.clone());
    let person = apex.prepend_label("hostmaster").unwrap_or_else(|_| apex.clone());
    let soa = SOA::new(server, person, 1, SOA_SECS, SOA_SECS, SOA_SECS, TTL_SECS);
    Some(Record::from_rdata(apex, TTL_SECS, RData::SOA(soa)))
}

fn wire_name(text: &str) -> Option<WireName> {
    let mut name = WireName::from_ascii(text).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Makes a response's bytes. What does not fit goes out empty with the truncation bit, so that the
/// client asks again over TCP; the OPT record stays, as RFC 6891 section 7 wants.
fn encode(
    request: &Message,
    mut response: Message,
    transport: Transport,
    counters: &Counters,
) -> Option<Vec<u8>> {
    response.edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM_BYTES_MAX).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    let limit = match (transport, &request.edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, None) => DATAGRAM_BYTES_PLAIN,
        (Transport::Udp, Some(edns)) => {
            edns.max_payload().clamp(DATAGRAM_BYTES_PLAIN, DATAGRAM_BYTES_MAX)
        }
    };
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) {
        return Some(bytes);
    }
    count(&counters.truncated);
    response.metadata.truncation = true;
    response.answers.clear();
    response.authorities.clear();
    response.additionals.clear();
    response.to_vec().ok()
}

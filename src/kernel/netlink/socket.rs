//! A blocking netlink socket: requests in, answers out.
//!
//! Many requests ride in one `send`, and their answers are read by sequence number: five thousand
//! routes are programmed in tens of round trips, not in five thousand.

use std::{io, os::fd::AsFd, time::Duration};

use netlink_sys::{Socket, SocketAddr};
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::TimeVal,
};

use super::{Attributes, HEADER_BYTES, Message, Received, flags};

/// How many requests are sent before their answers are read. Each answer takes under 1 KiB of a
/// receive buffer of 212 KiB (the kernel's default).
const WINDOW: usize = 64;
/// Space for one datagram from the kernel, which sends at most 32 KiB (`netlink_dump`).
const BUFFER_BYTES: usize = 64 * 1024;
/// Chosen: far above the slowest answer that was seen (deleting many devices: seconds).
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a dump that was disturbed by changes is repeated.
const DUMP_ATTEMPTS: usize = 5;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_TLVS: u16 = 0x200;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What the kernel answered to a request that it refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", io::Error::from_raw_os_error(*errno), detail(text.as_deref()))]
pub(crate) struct KernelError {
    /// The error number, positive.
    pub(crate) errno: i32,
    /// What the kernel said about it.
    pub(crate) text: Option<String>,
}

fn detail(text: Option<&str>) -> String {
    text.map(|text| format!(": {text}")).unwrap_or_default()
}

impl From<KernelError> for io::Error {
    fn from(error: KernelError) -> Self {
        Self::other(error)
    }
}

/// Whether a socket lost messages: what it told is not complete any more.
pub(crate) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOBUFS)
}

/// A netlink socket in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket for requests of one protocol.
    pub(crate) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Filtered dumps; not for every protocol, and without it the filters are only ignored.
        let _ = socket.set_netlink_get_strict_chk(true);
        let socket = Self { socket, sequence: 1, buffer: Vec::with_capacity(BUFFER_BYTES) };
        socket.set_patience(PATIENCE)?;
        Ok(socket)
    }

    /// Opens a socket that only hears the events of these groups, and waits for them so long.
    pub(crate) fn listen(protocol: isize, groups: &[u32], patience: Duration) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        for group in groups {
            socket.add_membership(*group)?;
        }
        let socket = Self { socket, sequence: 1, buffer: Vec::with_capacity(BUFFER_BYTES) };
        socket.set_patience(patience)?;
        Ok(socket)
    }

    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let micros = i64::try_from(patience.as_micros()).expect("patience is below a minute");
        let value = TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        Ok(setsockopt(&self.socket.as_fd(), sockopt::ReceiveTimeout, &value)?)
    }

    /// Sends requests and waits for all answers, which come back in the requests' order.
    pub(crate) fn perform(
        &mut self,
        messages: Vec<Message>,
    ) -> io::Result<Vec<Result<(), KernelError>>> {
        let mut answers = Vec::with_capacity(messages.len());
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let first = self.sequence;
            let mut bytes = Vec::new();
            for message in messages.by_ref().take(WINDOW) {
                bytes.extend(message.finish(flags::ACK, self.sequence));
                self.sequence = self.sequence.wrapping_add(1);
            }
            self.socket.send(&bytes, 0)?;
            let count = self.sequence.wrapping_sub(first) as usize;
            answers.extend(self.answers(first, count)?);
        }
        Ok(answers)
    }

    /// Sends one request and waits for its answer.
    pub(crate) fn request(&mut self, message: Message) -> io::Result<Result<(), KernelError>> {
        Ok(self.perform(vec![message])?.remove(0))
    }

    fn answers(&mut self, first: u32, count: usize) -> io::Result<Vec<Result<(), KernelError>>> {
        let mut answers = vec![None; count];
        while answers.iter().any(Option::is_none) {
            self.receive()?;
            for (header, body) in Datagrams(&self.buffer) {
                let slot = header.sequence.wrapping_sub(first) as usize;
                if header.kind == NLMSG_ERROR && slot < count {
                    answers[slot] = Some(outcome(header, body));
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Sends messages that only count together (nf_tables) and waits for the last one's answer.
    /// Answers the first refusal with the position of the message that it is about.
    pub(crate) fn transact(
        &mut self,
        messages: Vec<Message>,
    ) -> io::Result<Result<(), (usize, KernelError)>> {
        let (first, count) = (self.sequence, messages.len());
        let mut bytes = Vec::new();
        // The last message ends the batch and is not acknowledged itself.
        for (index, message) in messages.into_iter().enumerate() {
            let ack = if index + 2 == count { flags::ACK } else { 0 };
            bytes.extend(message.finish(ack, self.sequence));
            self.sequence = self.sequence.wrapping_add(1);
        }
        let _ = setsockopt(&self.socket.as_fd(), sockopt::SndBufForce, &(bytes.len() * 2 + 4096));
        self.socket.send(&bytes, 0)?;
        loop {
            self.receive()?;
            for (header, body) in Datagrams(&self.buffer) {
                let position = header.sequence.wrapping_sub(first) as usize;
                if header.kind != NLMSG_ERROR || position >= count {
                    continue;
                }
                match outcome(header, body) {
                    Err(error) => return Ok(Err((position, error))),
                    Ok(()) if position + 2 == count => return Ok(Ok(())),
                    Ok(()) => {}
                }
            }
        }
    }

    /// Asks for all objects of a kind. A dump during which something changed is repeated.
    pub(crate) fn dump(&mut self, message: Message) -> io::Result<Vec<Received>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(received) = self.dump_once(message.clone())? {
                return Ok(received);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the kernel's tables change all the time"))
    }

    fn dump_once(&mut self, message: Message) -> io::Result<Option<Vec<Received>>> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&message.finish(flags::DUMP, sequence), 0)?;
        let (mut received, mut whole) = (Vec::new(), true);
        loop {
            self.receive()?;
            for (header, body) in Datagrams(&self.buffer) {
                if header.sequence != sequence {
                    continue;
                }
                whole &= header.flags & FLAG_DUMP_INTERRUPTED == 0;
                match header.kind {
                    NLMSG_DONE => return Ok(whole.then_some(received)),
                    NLMSG_ERROR => outcome(header, body)?,
                    kind => received.push(Received { kind, body: body.to_vec() }),
                }
            }
        }
    }

    /// Asks for one object.
    pub(crate) fn get(&mut self, message: Message) -> io::Result<Received> {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&message.finish(0, sequence), 0)?;
        loop {
            self.receive()?;
            for (header, body) in Datagrams(&self.buffer) {
                match header.kind {
                    _ if header.sequence != sequence => {}
                    NLMSG_ERROR => outcome(header, body)?,
                    kind => return Ok(Received { kind, body: body.to_vec() }),
                }
            }
        }
    }

    /// Waits for events; none when the patience of [`Self::listen`] ends.
    pub(crate) fn events(&mut self) -> io::Result<Vec<Received>> {
        match self.receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(()) => Ok(Datagrams(&self.buffer)
                .map(|(header, body)| Received { kind: header.kind, body: body.to_vec() })
                .collect()),
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(()),
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// The messages of one datagram.
struct Datagrams<'a>(&'a [u8]);

impl<'a> Iterator for Datagrams<'a> {
    type Item = (Header, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..HEADER_BYTES)?;
        let word =
            |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let half = |at: usize| u16::from_ne_bytes([head[at], head[at + 1]]);
        let header = Header { kind: half(4), flags: half(6), sequence: word(8) };
        let length = word(0) as usize;
        let body = self.0.get(HEADER_BYTES..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    }
}

/// What an answer says.
///
/// ```text
/// | error i32 | the request's header | the request, unless capped | attributes, if flagged |
/// ```
fn outcome(header: Header, body: &[u8]) -> Result<(), KernelError> {
    let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    if code == 0 {
        return Ok(());
    }
    let mut text = None;
    if header.flags & FLAG_ACK_TLVS != 0 {
        let request = body.get(4..8).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let capped = header.flags & FLAG_CAPPED != 0;
        let skip = if capped { HEADER_BYTES } else { (request as usize).next_multiple_of(4) };
        let rest = body.get(4 + skip..).unwrap_or_default();
        text = Attributes::from(rest).text(NLMSGERR_ATTR_MSG);
    }
    Err(KernelError { errno: -code, text })
}

//! The netlink codec: one builder for messages and one reader for attributes.
//!
//! Links, addresses, routes, neighbours, nexthop objects and nf_tables all speak the same three
//! layers, so all are written and read here in the same way:
//!
//! ```text
//! | length u32 | kind u16 | flags u16 | sequence u32 | port u32 |  header, host byte order
//! | the kind's fixed part: ifinfomsg, rtmsg, nhmsg, nfgenmsg …  |
//! | length u16 | kind u16 | value … padding to 4 |              |  attributes, may nest
//! ```
//!
//! It knows no protocol and no meaning; kinds and values come from the modules of the nouns.

mod socket;

pub(super) use socket::{KernelError, Netlink, is_overrun};

/// Flags of a message header, from `linux/netlink.h`.
pub(super) mod flags {
    /// It is a request.
    pub(crate) const REQUEST: u16 = 0x1;
    /// It is to be acknowledged.
    pub(crate) const ACK: u16 = 0x4;
    /// All objects of the kind.
    pub(crate) const DUMP: u16 = 0x300;
    /// Replace what is there.
    pub(crate) const REPLACE: u16 = 0x100;
    /// Fail when it is there.
    pub(crate) const EXCL: u16 = 0x200;
    /// Make it when it is not there.
    pub(crate) const CREATE: u16 = 0x400;
    /// Put it behind its like.
    pub(crate) const APPEND: u16 = 0x800;
}

/// Bytes of the netlink header.
const HEADER_BYTES: usize = 16;
/// Set on attributes that hold attributes.
const NESTED: u16 = 0x8000;
/// Kinds of attributes without the flags that ride on them.
const KIND_MASK: u16 = 0x3fff;

/// A message that is being built.
#[derive(Debug, Clone)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of a kind with further flags and the kind's fixed part.
    pub(super) fn new(kind: u16, extra: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags::REQUEST | extra).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(super) fn put(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("attributes are far below 64 KiB");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds an attribute, if there is a value.
    pub(super) fn put_some(self, kind: u16, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) => self.put(kind, value),
            None => self,
        }
    }

    /// Adds a byte.
    pub(super) fn put_u8(self, kind: u16, value: u8) -> Self {
        self.put(kind, &[value])
    }

    /// Adds a number in host byte order.
    pub(super) fn put_u32(self, kind: u16, value: u32) -> Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Adds a text with the zero byte at its end.
    pub(super) fn put_text(self, kind: u16, text: &str) -> Self {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.put(kind, &value)
    }

    /// Adds an attribute that holds what `fill` adds.
    pub(super) fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start).expect("nests are below 64 KiB");
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled.bytes[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        filled
    }

    /// Adds bytes as they are: the fixed part of a message within an attribute.
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }

    fn finish(mut self, extra: u16, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("messages are far below 4 GiB");
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | extra;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// A message from the kernel.
#[derive(Debug, Clone)]
pub(super) struct Received {
    /// Its kind.
    pub(super) kind: u16,
    /// What stands behind the header.
    pub(super) body: Vec<u8>,
}

impl Received {
    /// The attributes behind a fixed part of so many bytes.
    pub(super) fn attributes(&self, fixed: usize) -> Attributes<'_> {
        Attributes(self.body.get(fixed..).unwrap_or_default())
    }

    /// A byte of the fixed part.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or_default()
    }

    /// A number of the fixed part, in host byte order.
    pub(super) fn number(&self, at: usize) -> u32 {
        self.body.get(at..at + 4).and_then(number).unwrap_or_default()
    }
}

/// Attributes, one after the other. Reading stops at the first one that is cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of a kind.
    pub(super) fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// The attributes within the first attribute of a kind; none if it is absent.
    pub(super) fn within(self, kind: u16) -> Self {
        Attributes(self.find(kind).unwrap_or_default())
    }

    /// The number, in host byte order, in the first attribute of a kind.
    pub(super) fn number(self, kind: u16) -> Option<u32> {
        self.find(kind).and_then(number)
    }

    /// The byte in the first attribute of a kind.
    pub(super) fn byte(self, kind: u16) -> Option<u8> {
        self.find(kind).and_then(|value| value.first().copied())
    }

    /// The text in the first attribute of a kind.
    pub(super) fn text(self, kind: u16) -> Option<String> {
        let value = self.find(kind)?;
        let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
        Some(String::from_utf8_lossy(&value[..end]).into_owned())
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Attributes of a value that holds some.
impl<'a> From<&'a [u8]> for Attributes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_with_nests_and_padding() {
        let bytes = Message::new(16, 0, &[9; 4])
            .put_text(1, "mesh0")
            .nest(2, |m| m.put_u8(3, 7).put_u32(4, 70_000))
            .finish(flags::ACK, 5);
        let received = Received { kind: 16, body: bytes[HEADER_BYTES..].to_vec() };
        let attributes = received.attributes(4);
        assert_eq!(received.byte(3), 9);
        assert_eq!(attributes.text(1).as_deref(), Some("mesh0"));
        assert_eq!(attributes.within(2).byte(3), Some(7));
        assert_eq!(attributes.within(2).number(4), Some(70_000));
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_cut_attribute_ends_the_reading_and_nothing_else() {
        let whole = Message::new(0, 0, &[]).put_u32(1, 1).put_u32(2, 2).finish(0, 0);
        for cut in HEADER_BYTES..whole.len() {
            let received = Received { kind: 0, body: whole[HEADER_BYTES..cut].to_vec() };
            assert!(received.attributes(0).count() <= 1, "cut at {cut}");
        }
        let lying = [0xff, 0xff, 1, 0, 1, 2, 3, 4];
        assert_eq!(Attributes(&lying).count(), 0);
        assert_eq!(Attributes(&[0, 0, 0, 0]).count(), 0);
    }
}

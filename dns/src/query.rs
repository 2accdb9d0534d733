//! What was asked, reduced to what an answer depends on.
//!
//! A query's name is kept with its labels turned round (`internal.mesh.web`): what lies below a
//! name is then one range of a sorted map, and a reverse name's numbers stand in reading order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Name;

/// The types of records that are told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueryType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Names of an address.
    Ptr,
    /// Start of authority.
    Soa,
    /// Whatever there is.
    Any,
    /// A type that the mesh has no records of.
    Other,
}

/// A name as it was asked for: any bytes, case does not matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueryName(String);

/// Stands for a byte that no name of ours has, so that the query matches nothing.
const FOREIGN: char = '!';

impl QueryName {
    /// Makes it of the labels on the wire, the leftmost first, without the root.
    pub fn from_labels<'a>(labels: impl DoubleEndedIterator<Item = &'a [u8]>) -> Self {
        let mut turned = String::with_capacity(64);
        for label in labels.rev() {
            if !turned.is_empty() {
                turned.push('.');
            }
            turned.extend(label.iter().map(|byte| match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte),
                b'A'..=b'Z' => char::from(byte.to_ascii_lowercase()),
                _ => FOREIGN,
            }));
        }
        Self(turned)
    }

    /// The name with its labels turned round.
    pub(crate) fn turned(&self) -> &str {
        &self.0
    }

    /// Whether this is `zone` or lies below it.
    pub(crate) fn is_within(&self, zone: &Self) -> bool {
        let rest = self.0.strip_prefix(&zone.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The last `labels` labels as a name in the usual order.
    pub(crate) fn suffix(&self, labels: usize) -> String {
        let mut parts: Vec<&str> = self.0.split('.').take(labels).collect();
        parts.reverse();
        parts.join(".")
    }

    /// For a reverse name: the address, filled up with zeros, and how many bits of it are named.
    pub(crate) fn reverse(&self) -> Option<(IpAddr, u8)> {
        if let Some(rest) = self.0.strip_prefix("arpa.in-addr.") {
            let mut octets = [0; 4];
            let count = fill(&mut octets, rest, decimal)?;
            return Some((Ipv4Addr::from(octets).into(), count * 8));
        }
        let mut nibbles = [0; 32];
        let count = fill(&mut nibbles, self.0.strip_prefix("arpa.ip6.")?, nibble)?;
        let bits = nibbles.iter().fold(0_u128, |bits, nibble| bits << 4 | u128::from(*nibble));
        Some((Ipv6Addr::from(bits).into(), count * 4))
    }
}

impl From<&Name> for QueryName {
    fn from(name: &Name) -> Self {
        Self::from_labels(name.as_str().split('.').map(str::as_bytes))
    }
}

/// Reads the parts of `text` into `slots` and says how many there were.
fn fill(slots: &mut [u8], text: &str, read: fn(&str) -> Option<u8>) -> Option<u8> {
    let mut count = 0_u8;
    for part in text.split('.') {
        *slots.get_mut(usize::from(count))? = read(part)?;
        count += 1;
    }
    Some(count)
}

/// A number as it is written in `in-addr.arpa`: no sign, no leading zero.
fn decimal(part: &str) -> Option<u8> {
    let number: u8 = part.parse().ok()?;
    (number.to_string() == part).then_some(number)
}

fn nibble(part: &str) -> Option<u8> {
    let [digit] = part.as_bytes() else { return None };
    char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(labels: &[&[u8]]) -> QueryName {
        QueryName::from_labels(labels.iter().copied())
    }

    #[test]
    fn odd_bytes_in_labels_never_look_like_a_name() {
        let zone = query(&[b"mesh", b"internal"]);
        assert!(query(&[b"WEB", b"Mesh", b"internal"]).is_within(&zone));
        assert!(!query(&[b"web.mesh", b"internal"]).is_within(&zone));
        assert!(!query(&[b"xmesh", b"internal"]).is_within(&zone));
        assert!(!query(&[b"internal"]).is_within(&zone));
        assert!(!query(&[]).is_within(&zone));
        assert_eq!(query(&[b"w\0\xffb", b"mesh"]).turned(), "mesh.w!!b");
    }

    #[test]
    fn part_of_a_reverse_name_says_how_much_it_names() {
        let reverse = |text: &str| QueryName::from(&Name::parse(text).unwrap()).reverse();
        assert_eq!(reverse("32.10.in-addr.arpa"), Some(("10.32.0.0".parse().unwrap(), 16)));
        assert_eq!(reverse("0.0.d.f.ip6.arpa"), Some(("fd00::".parse().unwrap(), 16)));
        assert_eq!(reverse("in-addr.arpa"), None);
        assert_eq!(reverse("g.ip6.arpa"), None);
    }
}

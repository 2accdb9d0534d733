//! Targets: where another member may be found, as people write it.
//!
//! `host[:port]`, `192.0.2.1[:port]`, `2001:db8::1` or `[2001:db8::1][:port]`. Parsing is pure;
//! host names are looked up by `Target::resolve` only (feature `io`), in meshd and with a limit.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The control port, from INTERFACE: QUIC over UDP.
pub const CONTROL_PORT: u16 = 7780;

/// What a target is, in words, for messages.
pub const GRAMMAR: &str = "host[:port], 192.0.2.1[:port] or [2001:db8::1][:port]";

/// Where a member may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A host name or an address without brackets.
    pub host: String,
    /// The control port there.
    pub port: u16,
}

/// A text that is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a target: {why}; write {GRAMMAR}")]
pub struct TargetError {
    text: String,
    why: &'static str,
}

impl Target {
    /// Reads a target; without a port it is [`CONTROL_PORT`].
    ///
    /// # Errors
    /// Says which text is wrong and what a target looks like.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let fail = |why| TargetError { text: text.to_owned(), why };
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self { host: text.to_owned(), port: CONTROL_PORT });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']').ok_or_else(|| fail("`]` is missing"))?;
                host.parse::<Ipv6Addr>().map_err(|_| fail("no IPv6 address in the brackets"))?;
                let port = match tail {
                    "" => None,
                    _ => Some(tail.strip_prefix(':').ok_or_else(|| fail("text after `]`"))?),
                };
                (host, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.parse::<IpAddr>().is_err() && !is_host_name(host) {
            return Err(fail("the host is no address and no host name"));
        }
        let port = match port {
            None => CONTROL_PORT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(fail("the port is no number from 1 to 65535")),
                Ok(port) => port,
            },
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// The address, if the target is one and needs no look-up.
    pub fn literal(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.parse().ok()?, self.port))
    }

    /// The target's addresses, by the system's resolver if it is a name; or that there are none, or
    /// that nobody answered within `limit`.
    #[cfg(feature = "io")]
    pub async fn look_up(&self, limit: std::time::Duration) -> crate::node::request::JoinTarget {
        let host = &self.host;
        let found = if let Some(address) = self.literal() {
            Ok(vec![address])
        } else {
            let lookup = tokio::net::lookup_host((host.as_str(), self.port));
            match tokio::time::timeout(limit, lookup).await {
                Err(_) => Err(format!("host name {host:?} was not resolved within {limit:?}")),
                Ok(Err(error)) => Err(format!("host name {host:?} cannot be resolved: {error}")),
                Ok(Ok(found)) => Ok(found.collect()),
            }
        };
        crate::node::request::JoinTarget { target: host.clone(), found }
    }
}

/// RFC 1123 section 2.1: labels of letters, digits and inner hyphens; `_` is let pass, as
/// resolvers do.
fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // All digits and dots is a mistyped address, never a name.
    let mistyped = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (1..=253).contains(&text.len()) && !mistyped && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_without_a_port_gets_the_control_port() {
        for (text, host, port) in [
            ("192.0.2.1", "192.0.2.1", 7780),
            ("192.0.2.1:1", "192.0.2.1", 1),
            ("2001:db8::1", "2001:db8::1", 7780),
            ("[2001:db8::1]", "2001:db8::1", 7780),
            ("[2001:db8::1]:65535", "2001:db8::1", 65535),
            ("node-1.example.org:7", "node-1.example.org", 7),
            ("node", "node", 7780),
        ] {
            assert_eq!(Target::parse(text), Ok(Target { host: host.to_owned(), port }), "{text}");
        }
    }

    #[test]
    fn a_wrong_target_is_refused_with_its_text_and_the_grammar() {
        for text in [
            "",
            ":",
            "host:",
            "host:0",
            "host:65536",
            "a b",
            "-a",
            "10.0.0",
            "[::1",
            "[x]:1",
            "[::1]1",
        ] {
            let message = Target::parse(text).unwrap_err().to_string();
            assert!(
                message.contains(&format!("{text:?}")) && message.contains(GRAMMAR),
                "{message}"
            );
        }
    }
}

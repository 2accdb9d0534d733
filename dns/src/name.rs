//! A validated DNS name.
//!
//! Only host names are names here (RFC 1123 section 2.1, and `_` which containers' names often
//! have): whatever else a query asks for simply does not exist.

use std::{fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// The longest label, in bytes. RFC 1035 section 2.3.4.
pub const LABEL_BYTES_MAX: usize = 63;
/// The longest name as text without the final dot, in bytes. RFC 1035 section 2.3.4.
pub const NAME_BYTES_MAX: usize = 253;

/// A lower-case name without its final dot, such as `web.mesh.internal`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// A text that is not a name. Normal: people type names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or nothing between two dots.
    #[error("{0:?} is not a DNS name: a part between dots is empty")]
    EmptyLabel(String),
    /// A label of more than [`LABEL_BYTES_MAX`].
    #[error("{0:?} is not a DNS name: a part between dots may have at most 63 bytes")]
    LongLabel(String),
    /// More than [`NAME_BYTES_MAX`] in all.
    #[error("{0:?} is not a DNS name: with its domain it has more than 253 bytes")]
    TooLong(String),
    /// A character that host names do not have.
    #[error("{name:?} is not a DNS name: {bad:?} is not a letter a-z, a digit, '-' or '_'")]
    Character {
        /// The text.
        name: String,
        /// The first such character.
        bad: char,
    },
    /// `-` at either end of a label.
    #[error("{0:?} is not a DNS name: a part between dots may not start or end with '-'")]
    Hyphen(String),
    /// Absolute (it ends with a dot), but of another domain.
    #[error(
        "{name:?} is not in the mesh's domain {domain:?}: leave its last dot out, or the domain"
    )]
    Outside {
        /// The text.
        name: String,
        /// The mesh's domain.
        domain: String,
    },
    /// The domain itself, which holds no addresses.
    #[error("{0:?} is the mesh's domain itself: put a name before it")]
    Apex(String),
}

impl Name {
    /// Reads a name; upper case becomes lower case, one final dot is dropped.
    ///
    /// # Errors
    /// When it is not a host name; the message says why.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let bare = text.strip_suffix('.').unwrap_or(text);
        if bare.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(clip(text)));
        }
        for label in bare.split('.') {
            check_label(label, text)?;
        }
        Ok(Self(bare.to_ascii_lowercase().into()))
    }

    /// Reads a name that is relative to the mesh's domain (`web`, `pod.namespace`) or absolute in
    /// it (`web.mesh.internal`, with or without a final dot).
    ///
    /// # Errors
    /// When it is not a host name, is the domain itself, or is absolute and of another domain.
    pub fn in_domain(text: &str, domain: &Self) -> Result<Self, NameError> {
        let name = Self::parse(text)?;
        if name == *domain {
            return Err(NameError::Apex(text.to_owned()));
        }
        if name.is_below(domain) {
            return Ok(name);
        }
        if text.ends_with('.') {
            let domain = domain.to_string();
            return Err(NameError::Outside { name: text.to_owned(), domain });
        }
        let absolute = format!("{name}.{domain}");
        if absolute.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong(clip(text)));
        }
        Ok(Self(absolute.into()))
    }

    /// The name under which an address is looked up backwards: `1.0.32.10.in-addr.arpa`.
    pub fn reverse(address: IpAddr) -> Self {
        let text = match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                format!("{d}.{c}.{b}.{a}.in-addr.arpa")
            }
            IpAddr::V6(v6) => {
                let nibbles = v6
                    .octets()
                    .into_iter()
                    .rev()
                    .map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4));
                nibbles.collect::<String>() + "ip6.arpa"
            }
        };
        Self(text.into())
    }

    /// The address that this name looks up backwards, if it is the reverse name of one.
    pub fn address(&self) -> Option<IpAddr> {
        match crate::QueryName::from(self).reverse()? {
            (address @ IpAddr::V4(_), 32) | (address @ IpAddr::V6(_), 128) => Some(address),
            _ => None,
        }
    }

    /// Whether this is a name within `domain`, and not the domain itself.
    pub fn is_below(&self, domain: &Self) -> bool {
        let head = self.0.strip_suffix(domain.as_str());
        head.is_some_and(|head| head.len() > 1 && head.ends_with('.'))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key that sorts before every name; it is none itself.
    pub(crate) fn least() -> Self {
        Self("".into())
    }
}

fn check_label(label: &str, text: &str) -> Result<(), NameError> {
    let good = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if label.is_empty() {
        return Err(NameError::EmptyLabel(clip(text)));
    }
    if let Some(bad) = label.chars().find(|c| !good(c)) {
        return Err(NameError::Character { name: clip(text), bad });
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(NameError::LongLabel(clip(text)));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(NameError::Hyphen(clip(text)));
    }
    Ok(())
}

/// What a message shows of a text of any length.
fn clip(text: &str) -> String {
    text.chars().take(NAME_BYTES_MAX).collect()
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> Name {
        Name::parse("mesh.internal").unwrap()
    }

    #[test]
    fn relative_and_absolute_names_are_the_same_name() {
        for text in ["web", "WEB", "web.mesh.internal", "web.mesh.internal.", "Web.Mesh.Internal"] {
            assert_eq!(Name::in_domain(text, &domain()).unwrap().as_str(), "web.mesh.internal");
        }
        let pod = Name::in_domain("pod.ns", &domain()).unwrap();
        assert_eq!(pod.as_str(), "pod.ns.mesh.internal");
        let other = Name::in_domain("www.example.com", &domain()).unwrap();
        assert_eq!(other.as_str(), "www.example.com.mesh.internal");
    }

    #[test]
    fn names_outside_the_domain_and_the_domain_are_refused() {
        let outside = Name::in_domain("www.example.com.", &domain()).unwrap_err();
        assert!(matches!(outside, NameError::Outside { .. }));
        let lookalike = Name::in_domain("xmesh.internal.", &domain()).unwrap_err();
        assert!(matches!(lookalike, NameError::Outside { .. }));
        assert!(matches!(Name::in_domain("mesh.internal", &domain()), Err(NameError::Apex(_))));
    }

    #[test]
    fn what_is_not_a_host_name_is_refused_with_the_reason() {
        let long_label = "a".repeat(64);
        let long_name = format!("{}x", "abcd.".repeat(51));
        let relative = "abcd.".repeat(48) + "x";
        let cases: [(&str, &str); 12] = [
            ("", "empty"),
            (".", "empty"),
            ("a..b", "empty"),
            (".a", "empty"),
            ("a b", "' '"),
            ("a/b", "'/'"),
            ("ä", "'ä'"),
            ("a\0", "'\\0'"),
            ("-a", "'-'"),
            ("a-.b", "'-'"),
            (&long_label, "63"),
            (&long_name, "253"),
        ];
        for (text, reason) in cases {
            let message = Name::parse(text).unwrap_err().to_string();
            assert!(message.contains(reason), "{text:?}: {message}");
        }
        assert!(matches!(Name::in_domain(&relative, &domain()), Err(NameError::TooLong(_))));
        assert!(Name::parse(&"a".repeat(63)).is_ok());
        assert!(Name::parse("_sip._tcp.a1").is_ok());
    }

    #[test]
    fn a_reverse_name_reads_back_as_its_address() {
        for text in ["10.32.0.1", "255.255.255.255", "fd00::1", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Name::reverse(address).address(), Some(address));
        }
        assert_eq!(Name::reverse("10.32.0.1".parse().unwrap()).as_str(), "1.0.32.10.in-addr.arpa");
        assert!(Name::reverse("fd00::1".parse().unwrap()).as_str().starts_with("1.0.0.0."));
        for text in [
            "0.32.10.in-addr.arpa",
            "256.0.0.1.in-addr.arpa",
            "01.0.0.1.in-addr.arpa",
            "x.ip6.arpa",
            "web",
            "1.2.3.4.5.in-addr.arpa",
        ] {
            assert_eq!(Name::parse(text).unwrap().address(), None, "{text}");
        }
    }
}

//! Identities: fixed-size ids that print as lower-case hexadecimal.
//!
//! A [`PeerId`] is the hash of a host's public key and a [`MeshId`] is drawn when a mesh is
//! founded. The hashing itself is done where the keys are (the transport); here they are only
//! bytes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A string that is not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 hexadecimal digits, not {0:?}")]
pub struct IdError(String);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes an id of its 16 bytes.
            pub const fn new(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The id's 16 bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The first eight hexadecimal digits, for messages.
            pub fn short(&self) -> String {
                self.to_string()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Ok(Self(parse_hex(text).ok_or_else(|| IdError(text.to_owned()))?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
                } else {
                    // The same bytes: the codec takes a float as eight bytes at once, and reads an
                    // array byte by byte, which was a tenth of the time that merging a ring takes.
                    let (one, other) = <(f64, f64)>::deserialize(deserializer)?;
                    let words = [one, other].map(|word| word.to_bits().to_le_bytes());
                    Ok(Self(words.as_flattened().try_into().expect("twice eight are sixteen")))
                }
            }
        }
    };
}

hex_id! {
    /// A host: the first 16 bytes of the SHA-256 of its ed25519 public key.
    PeerId
}

hex_id! {
    /// A mesh: 16 random bytes drawn by the host that founds it.
    MeshId
}

fn parse_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 16];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = PeerId::new([0xab; 16]);
        assert_eq!(id.to_string().parse::<PeerId>(), Ok(id));
        assert_eq!(id.short(), "abababab");
    }

    #[test]
    fn an_id_of_any_bytes_survives_the_codec() {
        let signalling = f64::from_bits(0x7ff0_0000_0000_0001);
        for word in [0.0, -0.0, 1.5, f64::NAN, -f64::NAN, signalling, f64::from_bits(u64::MAX)] {
            let mut bytes = [0x5a; 16];
            bytes[..8].copy_from_slice(&word.to_bits().to_le_bytes());
            for id in [
                bytes,
                bytes.map(|byte| !byte),
                word.to_bits().to_be_bytes().repeat(2)[..].try_into().unwrap(),
            ] {
                let encoded = codec::encode(&PeerId::new(id));
                assert_eq!(encoded, id, "an id is encoded as it is");
                assert_eq!(codec::decode::<PeerId>(&encoded).unwrap(), PeerId::new(id));
            }
        }
        assert!(
            codec::decode::<PeerId>(&[1; 15]).is_err()
                && codec::decode::<PeerId>(&[1; 17]).is_err()
        );
    }

    #[test]
    fn what_is_not_hex_is_refused_with_the_text() {
        for text in ["", "zz", "0123", &"é".repeat(16)] {
            assert!(text.parse::<PeerId>().unwrap_err().to_string().contains(text));
        }
    }
}

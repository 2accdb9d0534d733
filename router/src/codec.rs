//! The one binary codec, for the wire and for the disk.
//!
//! bincode 2 with variable-length integers. A frame's length is checked before it is decoded, a
//! decoded value must use up its bytes, and the decoder may claim eight times [`FRAME_BYTES_MAX`]:
//! it counts each integer as long as it may be, and one byte may be a `u64`.
//! Encodings are not canonical (a small integer may be written long), so bytes from outside are
//! never compared or hashed in place of the value.

use serde::{Serialize, de::DeserializeOwned};

/// The longest frame or stored value: chosen so that a frame's decoding stays under 10 ms.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Room that an encoding begins with: most rows and frames fit.
const USUAL_BYTES: usize = 128;

/// Bytes that do not decode. State is unchanged; a peer that sends such bytes is cut off.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Longer than [`FRAME_BYTES_MAX`].
    #[error("{0} bytes are more than the {FRAME_BYTES_MAX} a frame may have")]
    TooLong(usize),
    /// Not an encoding of the wanted type.
    #[error("not a valid encoding: {0}")]
    Invalid(#[from] bincode::error::DecodeError),
    /// A valid value followed by something else.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<{ 8 * FRAME_BYTES_MAX }>()
}

/// Encodes a value.
///
/// # Panics
/// When the type cannot be encoded at all (a map without a length, say), which is our own bug.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = Bytes(Vec::with_capacity(USUAL_BYTES));
    bincode::serde::encode_into_writer(value, &mut bytes, bincode::config::standard())
        .expect("our own types have an encoding");
    bytes.0
}

/// Where an encoding goes.
struct Bytes(Vec<u8>);

impl bincode::enc::write::Writer for Bytes {
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// How many bytes [`encode`] would give, without writing them.
///
/// # Panics
/// As [`encode`].
pub fn encoded_len<T: Serialize>(value: &T) -> usize {
    let mut writer = bincode::enc::write::SizeWriter::default();
    bincode::serde::encode_into_writer(value, &mut writer, bincode::config::standard())
        .expect("our own types have an encoding");
    writer.bytes_written
}

/// Decodes a value from exactly these bytes.
///
/// # Errors
/// When the bytes are too long, are no encoding of `T`, or go on after it.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(CodecError::TooLong(bytes.len()));
    }
    let (value, used) = bincode::serde::decode_from_slice(bytes, config())?;
    if used != bytes.len() {
        return Err(CodecError::Trailing(bytes.len() - used));
    }
    Ok(value)
}

/// For `#[serde(with = ...)]` on a `Vec<u8>`: the same encoding, copied as a whole, not byte by
/// byte.
pub(crate) mod whole {
    use std::fmt;

    use serde::{Deserializer, Serializer, de::Visitor};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_byte_buf(Whole)
    }

    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_truncation_is_refused() {
        let bytes = encode(&vec![vec![7_u32; 3]; 10]);
        assert!(decode::<Vec<Vec<u32>>>(&bytes).is_ok());
        for cut in 0..bytes.len() {
            assert!(decode::<Vec<Vec<u32>>>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn trailing_bytes_and_giant_lengths_are_refused() {
        let mut bytes = encode(&1_u32);
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(CodecError::Trailing(1))));
        let giant = encode(&(1_u64 << 40));
        assert!(decode::<Vec<u64>>(&giant).is_err());
        assert!(matches!(
            decode::<Vec<u8>>(&vec![0; FRAME_BYTES_MAX + 1]),
            Err(CodecError::TooLong(_))
        ));
    }

    #[test]
    fn what_fits_into_a_frame_can_be_decoded() {
        let small = vec![1_u64; FRAME_BYTES_MAX - 10];
        assert_eq!(decode::<Vec<u64>>(&encode(&small)).unwrap(), small);
    }
}

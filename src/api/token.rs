//! Join tokens: a mesh's id and secret as one word that survives copying by hand.
//!
//! ```text
//!   "mw1" base32( mesh id (16 bytes) | secret (32) | check (4) ), lower case, 87 letters
//! ```
//!
//! base32 (RFC 4648 section 6, no padding) because one click selects it whole and neither case nor
//! shells matter. The check finds typing errors; it protects nothing.

use mesh_router::MeshId;

use crate::node::event::{Credentials, Secret};

const PREFIX: &str = "mw1";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const PAYLOAD_LEN: usize = 16 + 32;
const CHECK_LEN: usize = 4;

/// A text that is no join token. Says nothing of what was in it: it may be nearly a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as tokens do.
    #[error("a join token begins with `{PREFIX}`; copy what `meshctl token show` prints")]
    Prefix,
    /// Letters are missing or too many.
    #[error("a join token has 87 letters, this has {0}; copy what `meshctl token show` prints")]
    Length(usize),
    /// It was mistyped.
    #[error("the join token is damaged; copy again what `meshctl token show` prints")]
    Damaged,
}

/// The join token of a mesh.
pub fn encode(credentials: &Credentials) -> String {
    let mut bytes = Vec::with_capacity(PAYLOAD_LEN + CHECK_LEN);
    bytes.extend_from_slice(credentials.mesh.as_bytes());
    bytes.extend_from_slice(&credentials.secret.0);
    bytes.extend_from_slice(&check(&bytes));
    let mut text = String::from(PREFIX);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits)) as usize & 31]));
    }
    text
}

/// Reads a join token; white space around it and upper case are forgiven.
///
/// # Errors
/// Says in which way it is no token.
pub fn decode(text: &str) -> Result<Credentials, TokenError> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
    if digits.len() != ((PAYLOAD_LEN + CHECK_LEN) * 8).div_ceil(5) {
        return Err(TokenError::Length(text.chars().count()));
    }
    let mut bytes = Vec::with_capacity(PAYLOAD_LEN + CHECK_LEN);
    let (mut buffer, mut bits) = (0u32, 0);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|&letter| letter == digit);
        buffer = (buffer << 5) | u32::try_from(value.ok_or(TokenError::Damaged)?).unwrap_or(0);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    let (payload, sum) = bytes.split_at(PAYLOAD_LEN);
    if sum != check(payload) || buffer != 0 {
        return Err(TokenError::Damaged);
    }
    let (mesh, secret) = payload.split_at(16);
    Ok(Credentials {
        mesh: MeshId::new(mesh.try_into().map_err(|_| TokenError::Damaged)?),
        secret: Secret(secret.try_into().map_err(|_| TokenError::Damaged)?),
    })
}

/// Draws the id and the secret of a new mesh from the system's randomness.
///
/// # Errors
/// If the system has none.
#[cfg(feature = "io")]
pub fn draw() -> Result<Credentials, rand::rngs::SysError> {
    use rand::{TryRng, rngs::SysRng};
    let (mut mesh, mut secret) = ([0; 16], [0; 32]);
    SysRng.try_fill_bytes(&mut mesh)?;
    SysRng.try_fill_bytes(&mut secret)?;
    Ok(Credentials { mesh: MeshId::new(mesh), secret: Secret(secret) })
}

/// FNV-1a, 32 bits.
fn check(bytes: &[u8]) -> [u8; CHECK_LEN] {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    bytes.iter().fold(0x811c_9dc5, step).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials { mesh: MeshId::new([7; 16]), secret: Secret([0xa5; 32]) }
    }

    #[test]
    fn a_token_reads_back_what_was_written() {
        let token = encode(&credentials());
        assert_eq!(token.len(), 87);
        assert_eq!(decode(&format!(" {}\n", token.to_uppercase())), Ok(credentials()));
    }

    #[test]
    fn every_mistyped_letter_is_found() {
        let token = encode(&credentials());
        for at in 0..token.len() {
            for other in ['a', 'q', '7', '0', 'é'] {
                let mut wrong: Vec<char> = token.chars().collect();
                if wrong[at] == other {
                    continue;
                }
                wrong[at] = other;
                assert!(decode(&wrong.iter().collect::<String>()).is_err(), "letter {at}");
            }
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_repeated() {
        for text in ["", "mw1", "secret", "mw1secret"] {
            let message = decode(text).unwrap_err().to_string();
            assert!(!message.contains("secret") && message.contains("meshctl token show"));
        }
    }
}

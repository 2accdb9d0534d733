//! Who this host is: an ed25519 key, made at the first start and kept in the state directory.
//!
//! The file is the key as PKCS#8 (RFC 5958) with the public half in it, so that damage is noticed.
//! It survives `leave` and a damaged state file: a host stays the same peer.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_router::PeerId;
use ring::{
    digest, hmac,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use rustls::{
    crypto::ring::sign::any_eddsa_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use crate::storage::{StorageError, dir};

/// The file's name in the state directory.
const FILE: &str = "identity.key";
/// The DER of a SubjectPublicKeyInfo for ed25519 up to the key itself (RFC 8410 section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

/// Raw bytes of an ed25519 public key.
pub(super) type PublicKey = [u8; 32];

/// Why there is no identity. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is there but cannot be read.
    #[error(
        "cannot read this host's key {}: {source}; run meshd as the user that owns it (root, \
         mostly)", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is there but holds no valid key.
    #[error(
        "this host's key {} is damaged ({reason}); restore it from a backup, or remove it and \
         start again: the host is then a new peer", path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file could not be made.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The system gave no random bytes.
    #[error("the system gives no random numbers; is /dev/urandom there?")]
    Random,
}

/// This host's key pair.
#[derive(Clone)]
pub struct Identity {
    public: PublicKey,
    /// Keys derived from the private one, by purpose.
    derive: hmac::Key,
    certified: Arc<CertifiedKey>,
    is_new: bool,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.peer_id())
    }
}

impl Identity {
    /// Reads the key in the state directory, or makes one. Call it while the directory is held
    /// (`Storage::open`), else two processes could make one each.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn load_or_create(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = state_dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                Self::parse(&bytes).map_err(|reason| IdentityError::Corrupt { path, reason })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                dir::prepare(state_dir)?;
                let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| IdentityError::Random)?;
                dir::replace(&path, document.as_ref())?;
                let made = Self::parse(document.as_ref())
                    .map_err(|reason| IdentityError::Corrupt { path, reason })?;
                Ok(Self { is_new: true, ..made })
            }
            Err(source) => Err(IdentityError::Unreadable { path, source }),
        }
    }

    /// A key that is kept nowhere.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| IdentityError::Random)?;
        Self::parse(document.as_ref()).map_err(|_| IdentityError::Random)
    }

    fn parse(pkcs8: &[u8]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|error| error.to_string())?;
        let mut public = PublicKey::default();
        public.copy_from_slice(pair.public_key().as_ref());
        let der = PrivatePkcs8KeyDer::from(pkcs8.to_vec());
        let signing = any_eddsa_type(&der).map_err(|error| error.to_string())?;
        let spki = CertificateDer::from([&SPKI_PREFIX[..], &public[..]].concat());
        Ok(Self {
            public,
            derive: hmac::Key::new(hmac::HMAC_SHA256, pkcs8),
            certified: Arc::new(CertifiedKey::new(vec![spki], signing)),
            is_new: false,
        })
    }

    /// Whether it was made just now.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The first 16 bytes of the SHA-256 of the public key.
    pub fn peer_id(&self) -> PeerId {
        peer_id(&self.public)
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        &self.public
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// 32 bytes that only this host can compute and that are the same after a restart.
    pub(super) fn derived(&self, purpose: &str) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.derive, purpose.as_bytes()).as_ref());
        bytes
    }
}

/// The id of the peer with this key.
pub(super) fn peer_id(key: &PublicKey) -> PeerId {
    let digest = digest::digest(&digest::SHA256, key);
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_ref()[..16]);
    PeerId::new(id)
}

/// The key in a SubjectPublicKeyInfo, when it is one for ed25519.
pub(super) fn key_of_spki(spki: &[u8]) -> Option<PublicKey> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

//! TLS 1.3 with raw public keys (RFC 7250) on both sides, and the numbers that shape QUIC.
//!
//! TLS proves that each side holds its key and nothing more: whether that key is a member's is
//! proved afterwards, see `handshake`. There is no name, no ticket and no early data: a stranger
//! learns nothing about the mesh and nothing can be replayed.

use std::{sync::Arc, time::Duration};

use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, ServerConfig,
    TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{
        AlwaysResolvesClientRawPublicKeys, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::{
        AlwaysResolvesServerRawPublicKeys,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};

use super::identity::{Identity, PublicKey, key_of_spki};

/// The protocol's name in the TLS handshake.
const ALPN: &[u8] = b"mesh/1";
/// A connection on which nothing arrives for so long is dead. From DESIGN: the node sends
/// heartbeats much more often, so QUIC itself keeps nothing alive.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// What one stream may have under way. Chosen: a narrow link (1 Mbit/s) is then at most a second
/// behind, and a 20 ms one still carries 50 Mbit/s.
const STREAM_WINDOW_BYTES: u32 = 128 << 10;
/// What both streams of a link may have under way: more than one stream's, so that a stuck bulk
/// transfer always leaves room for the urgent one.
const LINK_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES + (64 << 10);
/// Connections of which only the first packet has come; quinn's own default is 65,536.
const INCOMING_MAX: usize = 256;
/// The least time between two stateless resets. Chosen: a host that restarts tells a hundred peers
/// within half a second; quinn's own 20 ms would take two.
const RESET_INTERVAL: Duration = Duration::from_millis(5);
/// From quinn: as long as its own ids.
const CONNECTION_ID_BYTES: usize = 8;

/// What an endpoint is made of.
pub(super) struct Configs {
    pub(super) endpoint: EndpointConfig,
    pub(super) server: ServerConfig,
    pub(super) client: ClientConfig,
}

/// The configuration of this host's endpoint.
pub(super) fn configs(identity: &Identity) -> Result<Configs, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let transport = Arc::new(transport());
    let mut server =
        ServerConfig::with_crypto(Arc::new(server_crypto(identity, Arc::clone(&provider))?));
    server.transport_config(Arc::clone(&transport)).max_incoming(INCOMING_MAX);
    let mut client = ClientConfig::new(Arc::new(client_crypto(identity, provider)?));
    client.transport_config(transport);
    Ok(Configs { endpoint: endpoint(identity), server, client })
}

/// Reset tokens come from the host's key: after a restart it says at once that the connections of
/// its former process are dead, with less bytes than it got, so strangers gain nothing from it.
fn endpoint(identity: &Identity) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &identity.derived("stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset));
    config
        .min_reset_interval(RESET_INTERVAL)
        .cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    config
}

/// Connection ids that this host recognizes after a restart, too, because it takes all for its own.
/// (quinn's own generator recognizes only those of the same process, and would answer no others.)
struct RandomIds(SystemRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; CONNECTION_ID_BYTES];
        self.0.fill(&mut id).expect("the system gave random numbers for the key");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The MTU starts at QUIC's least (1200 bytes of payload, which every underlay carries) and is
/// probed up to what Ethernet allows: control traffic gains nothing from jumbo frames.
fn transport() -> TransportConfig {
    let idle = VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(idle.into()))
        .keep_alive_interval(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(LINK_WINDOW_BYTES))
        .send_window(u64::from(LINK_WINDOW_BYTES))
        .datagram_receive_buffer_size(None);
    config
}

fn server_crypto(
    identity: &Identity,
    provider: Arc<CryptoProvider>,
) -> Result<QuicServerConfig, Error> {
    let verifier = Arc::new(AnyKey(provider.signature_verification_algorithms));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity.certified())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
}

fn client_crypto(
    identity: &Identity,
    provider: Arc<CryptoProvider>,
) -> Result<QuicClientConfig, Error> {
    let verifier = Arc::new(AnyKey(provider.signature_verification_algorithms));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            identity.certified(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    QuicClientConfig::try_from(config).map_err(|error| Error::General(error.to_string()))
}

/// The key that the other side of a connection has proved to hold.
pub(super) fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match identity.as_slice() {
        [spki] => key_of_spki(spki),
        _ => None,
    }
}

/// Accepts every ed25519 key that the other side can sign with.
#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl AnyKey {
    fn check(spki: &CertificateDer<'_>) -> Result<(), Error> {
        match key_of_spki(spki) {
            Some(_) => Ok(()),
            None => Err(Error::InvalidCertificate(rustls::CertificateError::BadEncoding)),
        }
    }

    fn signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.0)
    }
}

fn no_tls12<T>() -> Result<T, Error> {
    Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

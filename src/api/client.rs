//! A client of the local API: HTTP/1.1 over the unix socket, one kept connection, a deadline each.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::types::ErrorBody;
use crate::node::request::Refusal;

/// The longest answer, in bytes: the records of a very large mesh.
const ANSWER_LEN_MAX: usize = 256 * 1024 * 1024;

/// How much longer than the server the client waits: the server's reason says more.
const GRACE: Duration = Duration::from_secs(1);

/// A client; cheap, connects when it is first used.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
    kept: Mutex<Option<SendRequest<Full<Bytes>>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket; nothing was asked.
    #[error("meshd is not running ({reason} at {socket})", socket = .socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// In which way.
        reason: String,
    },
    /// The socket may not be used by this user; nothing was asked.
    #[error("no permission to use {}", .0.display())]
    Forbidden(PathBuf),
    /// meshd refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There was no answer in time. It is not known whether the request was carried out.
    #[error("meshd at {} gave no answer within {patience:?}", .socket.display())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// The time.
        patience: Duration,
    },
    /// What answered does not speak as meshd does, or broke off. It is not known whether the
    /// request was carried out.
    #[error("meshd at {} gave no proper answer: {reason}", .socket.display())]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// In which way.
        reason: String,
    },
}

impl ClientError {
    /// What to do next, for people.
    pub fn hint(&self) -> &str {
        match self {
            Self::NotRunning { .. } => "start meshd, or name its socket with --socket",
            Self::Forbidden(_) => "run as root, or as a member of the socket's group",
            Self::Refused(refusal) => &refusal.hint,
            Self::Timeout { .. } => "try again: asking twice does no harm; look at meshd's log",
            Self::Garbled { .. } => "check that meshd has the same version and look at its log",
        }
    }
}

impl Client {
    /// A client of the meshd at a socket, that waits 10 s for each answer.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        let patience = Duration::from_secs(10);
        Self { socket: socket.into(), patience, kept: Mutex::new(None) }
    }

    /// The same with another time to wait.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// For how long an answer is waited for.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Asks a question.
    ///
    /// # Errors
    /// All of [`ClientError`].
    pub async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.decode(&self.raw(Method::GET, path, Bytes::new()).await?)
    }

    /// Gives an order.
    ///
    /// # Errors
    /// All of [`ClientError`].
    pub async fn post<Q, A>(&self, path: &str, body: &Q) -> Result<A, ClientError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let body = serde_json::to_vec(body).map_err(|error| self.garbled(error))?;
        self.decode(&self.raw(Method::POST, path, body.into()).await?)
    }

    /// Asks for a path that answers text, such as `/metrics`.
    ///
    /// # Errors
    /// All of [`ClientError`].
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let bytes = self.raw(Method::GET, path, Bytes::new()).await?;
        String::from_utf8(bytes.into()).map_err(|error| self.garbled(error))
    }

    async fn raw(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let limit = self.patience.saturating_add(GRACE);
        match tokio::time::timeout(limit, self.exchange(method, path, body)).await {
            Ok(result) => result,
            Err(_) => {
                Err(ClientError::Timeout { socket: self.socket.clone(), patience: self.patience })
            }
        }
    }

    /// One exchange, on the kept connection if it still works. A request on a connection that
    /// meshd closed meanwhile is sent once more: requests are idempotent.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let request = || {
            Request::builder()
                .method(&method)
                .uri(path)
                .header("host", "meshd")
                .header("content-type", "application/json")
                .header("mesh-patience-ms", self.patience.as_millis().to_string())
                .body(Full::new(body.clone()))
                .map_err(|error| self.garbled(error))
        };
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
            && let Ok(response) = sender.send_request(request()?).await
        {
            return self.answer(sender, response).await;
        }
        let mut sender = self.connect().await?;
        let response =
            sender.send_request(request()?).await.map_err(|error| self.garbled(error))?;
        self.answer(sender, response).await
    }

    async fn answer(
        &self,
        sender: SendRequest<Full<Bytes>>,
        response: hyper::Response<hyper::body::Incoming>,
    ) -> Result<Bytes, ClientError> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LEN_MAX).collect().await;
        let bytes = body.map_err(|error| self.garbled(error))?.to_bytes();
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        if parts.status == StatusCode::OK {
            return Ok(bytes);
        }
        match serde_json::from_slice::<ErrorBody>(&bytes) {
            Ok(body) => Err(ClientError::Refused(body.error)),
            Err(_) => Err(self.garbled(format!("status {}", parts.status))),
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| {
            let reason = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    return ClientError::Forbidden(self.socket.clone());
                }
                io::ErrorKind::NotFound => "no socket".to_owned(),
                io::ErrorKind::ConnectionRefused => "nobody answers".to_owned(),
                _ => error.to_string(),
            };
            ClientError::NotRunning { socket: self.socket.clone(), reason }
        })?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| self.garbled(error))?;
        // It ends with the sender, or when meshd closes it; its errors reach the sender, too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn decode<A: DeserializeOwned>(&self, bytes: &[u8]) -> Result<A, ClientError> {
        serde_json::from_slice(bytes).map_err(|error| self.garbled(error))
    }

    fn garbled(&self, reason: impl std::fmt::Display) -> ClientError {
        ClientError::Garbled { socket: self.socket.clone(), reason: reason.to_string() }
    }
}

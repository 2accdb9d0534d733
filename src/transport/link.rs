//! One link: frames on two long-lived streams each way, and the task that lives as long as it.
//!
//! ```text
//!   ordinary  the handshake's stream, used further      frame = length (u32, big endian) | bytes
//!   urgent    a stream of its own in each direction, made with the first urgent frame; its bytes
//!             leave before the other's
//! ```
//!
//! All of a link's inputs come from one task, so their order is kept, and a full input channel
//! stops the reading of this link alone: QUIC's windows then stop its peer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh_router::codec::FRAME_BYTES_MAX;
use quinn::{Connection, ConnectionError, ReadError, ReadExactError, RecvStream, SendStream};
use tokio::{
    sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};

use super::handshake::{CLOSED, Proved, describe};
use crate::node::event::{Input, LinkId};

/// What may wait to be sent on one link. Chosen: eight of the longest frames; the node sends by
/// budget, so only a bug gets there.
const QUEUE_BYTES_MAX: usize = 8 * FRAME_BYTES_MAX;
/// Sent bytes are reported in steps of at least this while more waits to be sent.
const SENT_STEP_BYTES: usize = 16 << 10;
/// How often a frame that arrives slowly is reported as activity.
const ACTIVITY_INTERVAL: Duration = Duration::from_millis(100);
/// Memory for a frame before its bytes have come.
const FRAME_RESERVE_BYTES: usize = 16 << 10;
const URGENT_PRIORITY: i32 = 1;

/// The sending half of a link, as the transport keeps it.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) connection: Connection,
    ordinary: UnboundedSender<Vec<u8>>,
    urgent: UnboundedSender<Vec<u8>>,
    queued: Arc<AtomicUsize>,
}

/// A frame was not queued: the link is to be ended with this reason.
#[derive(Debug)]
pub(super) struct Overflow(pub(super) String);

impl Handle {
    pub(super) fn send(&self, urgent: bool, bytes: Vec<u8>) -> Result<(), Overflow> {
        let length = bytes.len();
        if length > FRAME_BYTES_MAX {
            return Err(Overflow(format!("a frame of {length} bytes was to be sent")));
        }
        if self.queued.fetch_add(length, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            return Err(Overflow("too many frames wait to be sent".to_owned()));
        }
        let queue = if urgent { &self.urgent } else { &self.ordinary };
        // The task is gone: the link is down, which the node is being told.
        let _ = queue.send(bytes);
        Ok(())
    }
}

/// A link that has not begun yet.
pub(super) struct Link {
    id: LinkId,
    connection: Connection,
    proved: Proved,
    ordinary: UnboundedReceiver<Vec<u8>>,
    urgent: UnboundedReceiver<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    inputs: Sender<Input>,
}

impl Link {
    pub(super) fn new(
        id: LinkId,
        connection: Connection,
        proved: Proved,
        inputs: Sender<Input>,
    ) -> (Handle, Self) {
        let (ordinary_sender, ordinary) = unbounded_channel();
        let (urgent_sender, urgent) = unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let handle = Handle {
            connection: connection.clone(),
            ordinary: ordinary_sender,
            urgent: urgent_sender,
            queued: Arc::clone(&queued),
        };
        (handle, Self { id, connection, proved, ordinary, urgent, queued, inputs })
    }

    /// Carries frames until the link ends, and returns why it did.
    pub(super) async fn run(self) -> String {
        let Self { id, connection, proved, ordinary, urgent, queued, inputs } = self;
        let port = Port { id, inputs, queued };
        let reason = tokio::select! {
            error = connection.closed() => return describe(&error),
            reason = port.write(proved.send, ordinary) => reason,
            reason = port.write_urgent(&connection, urgent) => reason,
            reason = port.read(proved.recv) => reason,
            reason = port.read_urgent(&connection) => reason,
        };
        connection.close(CLOSED, reason.as_bytes());
        reason
    }
}

/// What the parts of a link's task share.
struct Port {
    id: LinkId,
    inputs: Sender<Input>,
    queued: Arc<AtomicUsize>,
}

impl Port {
    async fn report(&self, input: Input) -> Result<(), String> {
        self.inputs.send(input).await.map_err(|_| "this host is stopping".to_owned())
    }

    async fn write_urgent(
        &self,
        connection: &Connection,
        frames: UnboundedReceiver<Vec<u8>>,
    ) -> String {
        match connection.open_uni().await {
            Ok(stream) => {
                // Fails only when the stream is closed already, which the next write says.
                let _ = stream.set_priority(URGENT_PRIORITY);
                self.write(stream, frames).await
            }
            Err(error) => describe(&error),
        }
    }

    async fn write(
        &self,
        mut stream: SendStream,
        mut frames: UnboundedReceiver<Vec<u8>>,
    ) -> String {
        let mut sent = 0;
        while let Some(frame) = frames.recv().await {
            let length = frame.len();
            let head = Bytes::copy_from_slice(&(length as u32).to_be_bytes());
            let written = stream.write_all_chunks(&mut [head, Bytes::from(frame)]).await;
            self.queued.fetch_sub(length, Ordering::Relaxed);
            if let Err(error) = written {
                return lost(error);
            }
            sent += length;
            if frames.is_empty() || sent >= SENT_STEP_BYTES {
                let bytes = std::mem::take(&mut sent);
                if let Err(reason) = self.report(Input::Sent { link: self.id, bytes }).await {
                    return reason;
                }
            }
        }
        "this host closed it".to_owned()
    }

    async fn read_urgent(&self, connection: &Connection) -> String {
        match connection.accept_uni().await {
            Ok(stream) => self.read(stream).await,
            Err(error) => describe(&error),
        }
    }

    async fn read(&self, mut stream: RecvStream) -> String {
        loop {
            let frame = match self.read_frame(&mut stream).await {
                Ok(bytes) => Input::Frame { link: self.id, bytes },
                Err(reason) => return reason,
            };
            if let Err(reason) = self.report(frame).await {
                return reason;
            }
        }
    }

    async fn read_frame(&self, stream: &mut RecvStream) -> Result<Vec<u8>, String> {
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.map_err(ended)?;
        let length = u32::from_be_bytes(head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(format!(
                "a frame of {length} bytes was announced, more than the {FRAME_BYTES_MAX} allowed"
            ));
        }
        let mut bytes = Vec::with_capacity(length.min(FRAME_RESERVE_BYTES));
        let mut reported: Option<Instant> = None;
        while bytes.len() < length {
            let chunk = stream.read_chunk(length - bytes.len(), true).await.map_err(lost)?;
            let chunk = chunk.ok_or_else(|| "the peer ended a stream".to_owned())?;
            bytes.extend_from_slice(&chunk.bytes);
            let due = || reported.is_none_or(|last| last.elapsed() >= ACTIVITY_INTERVAL);
            if bytes.len() < length && due() {
                reported = Some(Instant::now());
                self.report(Input::Activity { link: self.id }).await?;
            }
        }
        Ok(bytes)
    }
}

fn ended(error: ReadExactError) -> String {
    match error {
        ReadExactError::FinishedEarly(_) => "the peer ended a stream".to_owned(),
        ReadExactError::ReadError(error) => lost(error),
    }
}

/// A stream's error, in the connection's words when that is what broke.
fn lost(error: impl Into<StreamError>) -> String {
    match error.into() {
        StreamError::Connection(error) => describe(&error),
        StreamError::Stream(text) => format!("a stream broke: {text}"),
    }
}

enum StreamError {
    Connection(ConnectionError),
    Stream(String),
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Connection(error),
            error => Self::Stream(error.to_string()),
        }
    }
}

impl From<quinn::WriteError> for StreamError {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::ConnectionLost(error) => Self::Connection(error),
            error => Self::Stream(error.to_string()),
        }
    }
}

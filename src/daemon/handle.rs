//! The way to ask the daemon's loop: everything outside it that wants something of the node.
//!
//! A bounded queue in, one answer out. A queue that is full is a refusal at once, never a wait: an
//! asker learns soon that the host is overloaded, and memory stays bounded.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::node::request::{Code, Refusal, Reply, Request};

/// Questions that may wait for the loop. Chosen: at 10,000 requests a second 0.4 s of work.
pub const QUEUE_LEN: usize = 4096;

/// How much longer than its patience a question is waited for: the node itself ends it at its
/// patience, with a reason that says more than "too late".
const GRACE: Duration = Duration::from_millis(500);

/// A question on its way to the loop.
#[derive(Debug)]
pub struct Ask {
    /// What is asked.
    pub request: Box<Request>,
    /// For how long the asker waits.
    pub patience: Duration,
    /// Where the answer goes. It may be gone: the asker gave up.
    pub reply: oneshot::Sender<Result<Box<Reply>, Refusal>>,
}

/// The asker's end; cheap to clone.
#[derive(Debug, Clone)]
pub struct NodeHandle {
    queue: mpsc::Sender<Ask>,
}

impl NodeHandle {
    /// Makes a handle and the loop's end of its queue, of [`QUEUE_LEN`].
    pub fn new() -> (Self, mpsc::Receiver<Ask>) {
        Self::with_queue(QUEUE_LEN)
    }

    /// The same with another length of the queue, at least 1.
    pub fn with_queue(len: usize) -> (Self, mpsc::Receiver<Ask>) {
        let (queue, asks) = mpsc::channel(len);
        (Self { queue }, asks)
    }

    /// Asks the node and waits for the answer.
    ///
    /// # Errors
    /// The node's own refusals; [`Code::NotReady`] when the queue is full or the loop has ended,
    /// [`Code::Timeout`] when no answer came within the patience. After a timeout, or when the loop
    /// ended meanwhile, it is not known whether the request was carried out: ask again, requests
    /// are idempotent.
    pub async fn ask(&self, request: Request, patience: Duration) -> Result<Reply, Refusal> {
        let answer = self.send(request, patience)?;
        match tokio::time::timeout(patience.saturating_add(GRACE), answer).await {
            Ok(Ok(result)) => result.map(|reply| *reply),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Refusal::new(
                Code::Timeout,
                format!("meshd gave no answer within {patience:?}"),
                "ask again: it may have been done meanwhile, and asking twice does no harm",
            )),
        }
    }

    /// Puts a question into the queue now; what is put in first is handled first.
    ///
    /// # Errors
    /// [`Code::NotReady`] when the queue is full or the loop has ended; nothing was asked then.
    pub fn send(
        &self,
        request: Request,
        patience: Duration,
    ) -> Result<oneshot::Receiver<Result<Box<Reply>, Refusal>>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { request: Box::new(request), patience, reply };
        self.queue.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refusal::new(
                Code::NotReady,
                format!("meshd is overloaded: {} requests wait", self.queue.max_capacity()),
                "try again in a second, with fewer requests at once",
            ),
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        Ok(answer)
    }
}

fn stopping() -> Refusal {
    Refusal::new(Code::NotReady, "meshd is stopping", "try again when it has started")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn an_answer_comes_back() {
        let (handle, mut asks) = NodeHandle::new();
        tokio::spawn(async move {
            let ask = asks.recv().await.unwrap();
            assert_eq!((*ask.request, ask.patience), (Request::Leave, SHORT));
            ask.reply.send(Ok(Box::new(Reply::Done))).unwrap();
        });
        assert_eq!(handle.ask(Request::Leave, SHORT).await, Ok(Reply::Done));
    }

    #[tokio::test]
    async fn silence_ends_with_a_timeout() {
        let (handle, _asks) = NodeHandle::new();
        let refusal = handle.ask(Request::Status, SHORT).await.unwrap_err();
        assert_eq!(refusal.code, Code::Timeout);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let (handle, _asks) = NodeHandle::with_queue(1);
        let _first = handle.send(Request::Status, SHORT).unwrap();
        let before = tokio::time::Instant::now();
        let refusal = handle.ask(Request::Status, Duration::from_secs(9)).await.unwrap_err();
        assert_eq!(refusal.code, Code::NotReady);
        assert!(before.elapsed() < Duration::from_secs(1));
        assert!(refusal.message.contains("overloaded"), "{refusal}");
    }

    #[tokio::test]
    async fn a_loop_that_ends_refuses_what_waits_and_what_comes() {
        let (handle, mut asks) = NodeHandle::new();
        tokio::spawn(async move { drop(asks.recv().await) });
        for _ in 0..2 {
            let refusal = handle.ask(Request::Status, SHORT).await.unwrap_err();
            assert_eq!(refusal.message, "meshd is stopping");
        }
    }
}

//! Detaches that mesh-cni could not ask for while meshd was away: asked for here, later.
//!
//! A container may come back under the same id and interface while its old detach still waits. So
//! an attach first settles what waits for its own key, and both ways hold one lock from the
//! question to the strike: a detach never overtakes the attach that came after it.

use std::{sync::Arc, time::Duration};

use mesh_ipam::Holder;

use super::server::Api;
use crate::node::request::{Code, Refusal, Request};

/// How often the spool is looked at. Chosen: addresses come back within seconds.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long a spooled detach may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Works the spool off, now and every ten seconds, for ever.
pub(super) async fn work(api: Arc<Api>) {
    loop {
        match api.spool.list() {
            Ok(holders) => {
                for holder in holders {
                    let Err(refusal) = api.settle_pending(&holder, PATIENCE).await else {
                        continue;
                    };
                    let container = &holder.container;
                    tracing::warn!(%refusal, container, "a late detach has to wait longer");
                    if matches!(refusal.code, Code::NotReady | Code::Timeout) {
                        break;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "late detaches cannot be read"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Api {
    /// Before an attach: carries out the detach of the same key that may wait.
    pub(super) async fn settle(
        &self,
        container: &str,
        interface: &str,
        patience: Duration,
    ) -> Result<(), Refusal> {
        let holder = Holder { container: container.to_owned(), interface: interface.to_owned() };
        if !self.spool.contains(&holder) {
            return Ok(());
        }
        self.settle_pending(&holder, patience).await
    }

    async fn settle_pending(&self, holder: &Holder, patience: Duration) -> Result<(), Refusal> {
        let _one_at_a_time = self.settling.lock().await;
        if !self.spool.contains(holder) {
            return Ok(());
        }
        let Holder { container, interface } = holder.clone();
        let detach = Request::Detach { container, interface: Some(interface) };
        match self.node.ask(detach, patience).await {
            Ok(_) => {}
            // There is nothing to take back, and never will be.
            Err(refusal) if matches!(refusal.code, Code::NotFound | Code::Invalid) => {
                tracing::warn!(%refusal, container = holder.container, "a late detach is dropped");
            }
            Err(refusal) => return Err(refusal),
        }
        self.spool.done(holder).map_err(|error| {
            Refusal::new(
                Code::Internal,
                format!("a late detach cannot be struck from the spool: {error}"),
                "look at the directory pending-detach beside the socket",
            )
        })
    }
}

//! The kernel: desired state in, netlink out.
//!
//! A [`Kernel`] keeps bridge, tunnel, nexthop objects, routes, settings, nftables table and
//! containers' links as a [`Desired`] wants them, in the network namespace of the thread that
//! started it. It adopts what stands and changes only the difference, so that a restart loses no
//! packet; it puts back what others break and remembers that it did. It touches only what bears our
//! mark: the route protocol [`PROTOCOL`], the devices that the desired state names, ports whose
//! names start with `mw`, and the nftables table `meshwork`.
//!
//! It decides nothing about peers, blocks or paths, and it does not carry packets.
//!
//! * [`netlink`]: the codec and the socket; [`link`], [`address`], [`neighbour`], [`nexthop`],
//!   [`route`], [`nft`], [`sysctl`]: one noun each, read and written.
//! * [`actual`]: what stands; [`plan`]: desired minus actual, pure; [`apply`]: the steps taken;
//!   [`reconcile`]: the loop; [`events`]: what wakes it; [`repairs`]: what it had to put right.
//! * [`container`], [`netns`], [`ports`]: containers' links; [`underlay`]: the way to other hosts.

mod actual;
mod address;
mod apply;
mod container;
mod events;
mod link;
mod neighbour;
mod netlink;
mod netns;
mod nexthop;
mod nft;
mod plan;
mod ports;
mod reconcile;
mod repairs;
mod route;
mod sysctl;
#[cfg(test)]
mod tests;
mod underlay;

use std::{
    io,
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use mesh_ipam::Holder;
use tokio::sync::mpsc::Sender;

use self::{
    ports::Ports,
    reconcile::{Order, Reconciler, View},
};
use crate::{
    api::types::Repair,
    node::{
        desired::{Desired, Wiring},
        event::{Input, Underlay},
    },
};

/// The mark on routes and nexthop objects: `rtm_protocol`. Chosen: `M`, free in iproute2's table.
pub const PROTOCOL: u8 = 77;

/// What a kernel must be told that is not in the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// Addresses that others shall use; when there are none they are found.
    pub advertise: Vec<IpAddr>,
    /// Port of the control endpoints.
    pub control_port: u16,
}

/// The kernel cannot be spoken to; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the kernel's network configuration cannot be reached ({0}): run meshd as root or in a user \
     namespace of its own"
)]
pub struct KernelStartError(#[from] io::Error);

/// The kernel's keeper. Dropping it leaves the kernel's state as it is.
#[derive(Debug)]
pub struct Kernel {
    orders: mpsc::Sender<Order>,
    ports: Arc<Ports>,
    view: Arc<RwLock<View>>,
    stopped: Arc<AtomicBool>,
}

impl Kernel {
    /// Starts to keep the network namespace of the calling thread. What happens is told through
    /// `inputs`: the underlay at once and when it changes, the rest in answer to the methods below.
    ///
    /// # Errors
    /// When a netlink socket cannot be opened or a thread not be started.
    pub fn start(config: Config, inputs: Sender<Input>) -> Result<Self, KernelStartError> {
        let (orders, received) = mpsc::channel();
        let (ports, view) = (Arc::<Ports>::default(), Arc::<RwLock<View>>::default());
        let stopped = Arc::new(AtomicBool::new(false));
        events::start(&orders, &stopped)?;
        ports.start(&inputs)?;
        let reconciler = Reconciler::open(config, Arc::clone(&ports), Arc::clone(&view), inputs)?;
        let thread = std::thread::Builder::new().name("mesh-kernel".to_owned());
        let gone = Arc::clone(&stopped);
        thread.spawn(move || reconciler.run(&received, &gone))?;
        Ok(Self { orders, ports, view, stopped })
    }

    /// Says what is wanted from now on; only the newest counts. `None` removes everything that is
    /// ours. Answered once by [`Input::Programmed`], when it stands in full.
    pub fn program(&self, desired: Option<Box<Desired>>) {
        // The loop runs for as long as there is a `Kernel`.
        let _ended = self.orders.send(Order::Program(desired));
    }

    /// Makes a container's link. Answered by [`Input::Wired`] or [`Input::WireFailed`].
    pub fn wire(&self, holder: Holder, wiring: Wiring) {
        self.ports.wire(holder, wiring);
    }

    /// Removes a container's link. Answered by [`Input::Unwired`].
    pub fn unwire(&self, holder: Holder, host_name: String) {
        self.ports.unwire(holder, host_name);
    }

    /// What others broke and was put right, newest last; bounded.
    pub fn repairs(&self) -> Vec<Repair> {
        self.view().repairs.list()
    }

    /// What could not be made as wanted, each with the reason; empty when all is well.
    pub fn problems(&self) -> Vec<String> {
        self.view().problems.clone()
    }

    /// The underlay as it was last seen.
    pub fn underlay(&self) -> Underlay {
        self.view().underlay.clone()
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.ports.stop();
        let _ended = self.orders.send(Order::Look);
    }
}

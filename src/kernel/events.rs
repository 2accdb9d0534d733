//! What the kernel tells by itself: that something has changed. Never what: that is looked up.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::Duration,
};

use super::{
    netlink::{Netlink, is_overrun},
    nft,
    reconcile::Order,
};

/// `RTNLGRP_*`: link, IPv4 and IPv6 addresses, routes and settings, nexthop objects.
const GROUPS: [u32; 8] = [1, 5, 7, 24, 9, 11, 25, 32];
/// How often a thread that hears nothing looks whether it shall end.
const PATIENCE: Duration = Duration::from_millis(500);

/// Starts to listen, in the network namespace of the caller.
pub(super) fn start(orders: &Sender<Order>, stopped: &Arc<AtomicBool>) -> io::Result<()> {
    let route = Netlink::listen(netlink_sys::protocols::NETLINK_ROUTE, &GROUPS, PATIENCE)?;
    let nft = Netlink::listen(nft::NETFILTER, &[nft::GROUP], PATIENCE)?;
    for netlink in [route, nft] {
        let (orders, stopped) = (orders.clone(), Arc::clone(stopped));
        let thread = std::thread::Builder::new().name("mesh-events".to_owned());
        thread.spawn(move || listen(netlink, &orders, &stopped))?;
    }
    Ok(())
}

fn listen(mut netlink: Netlink, orders: &Sender<Order>, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        let something = match netlink.events() {
            Ok(events) => !events.is_empty(),
            // Some events were lost; that there were any is all that counts.
            Err(error) if is_overrun(&error) => true,
            Err(error) => {
                tracing::warn!("no more kernel events, only regular looks: {error}");
                return;
            }
        };
        if something && orders.send(Order::Look).is_err() {
            return;
        }
    }
}

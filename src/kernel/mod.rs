//! The kernel: desired state in, netlink out.
use crate::api::types::Repair;
use crate::node::{desired::*, event::*};
use mesh_ipam::Holder;
#[derive(Debug)]
pub struct Kernel;
#[derive(Debug)]
pub struct Config {
    pub advertise: Vec<std::net::IpAddr>,
    pub control_port: u16,
}
impl Kernel {
    pub fn start(_c: Config, _i: tokio::sync::mpsc::Sender<Input>) -> anyhow::Result<Self> {
        Ok(Self)
    }
    pub fn program(&self, _d: Option<Box<Desired>>) {}
    pub fn wire(&self, _h: Holder, _w: Wiring) {}
    pub fn unwire(&self, _h: Holder, _w: String) {}
    pub fn repairs(&self) -> Vec<Repair> {
        vec![]
    }
    pub fn problems(&self) -> Vec<String> {
        vec![]
    }
}

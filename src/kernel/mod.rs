//! The kernel: desired state in, netlink out.

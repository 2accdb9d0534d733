//! The UDP socket: both families on one, and addresses as people write them.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Asked of the kernel for each direction; it gives less if its limits say so. Chosen: a burst of
/// all peers' frames while the process waits for the processor.
const BUFFER_BYTES: usize = 1 << 20;

/// Binds a socket. An IPv6 wildcard takes IPv4 too; where the kernel has no IPv6, IPv4 alone.
pub(super) fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    match open(listen) {
        Err(error) if listen.ip().is_unspecified() && no_ipv6(&error) => {
            open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, listen.port())))
        }
        result => result,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [nix::libc::EAFNOSUPPORT, nix::libc::EADDRNOTAVAIL].map(Some).contains(&code)
}

fn open(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Smaller buffers only cost speed.
    for result in
        [socket.set_recv_buffer_size(BUFFER_BYTES), socket.set_send_buffer_size(BUFFER_BYTES)]
    {
        if let Err(error) = result {
            tracing::debug!(%error, "cannot enlarge the buffers of the UDP socket");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// An IPv4 address that came through the IPv6 socket, as an IPv4 address.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => SocketAddr::from((ip, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// Asks the kernel's routes whether a target can be reached at all; sends nothing.
pub(super) fn check_route(target: SocketAddr) -> io::Result<()> {
    Socket::new(Domain::for_address(target), Type::DGRAM, Some(Protocol::UDP))?
        .connect(&target.into())
}

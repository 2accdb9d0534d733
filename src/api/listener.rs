//! The unix socket that the API is served on.
//!
//! It appears complete or not at all (mode 0660, renamed into place), replaces a socket that a dead
//! meshd left, and never one that somebody answers on. At most [`CONNECTIONS_MAX`] at once.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Chosen: half of the usual limit of 1024 open files.
const CONNECTIONS_MAX: usize = 512;

/// A bound socket. The file goes when it is dropped.
#[derive(Debug)]
pub struct ApiListener {
    inner: UnixListener,
    slots: Arc<Semaphore>,
    path: PathBuf,
}

/// A connection that holds one of the slots.
#[derive(Debug)]
pub struct Slot {
    stream: UnixStream,
    _permit: Option<OwnedSemaphorePermit>,
}

impl ApiListener {
    /// Binds the socket; makes its directory.
    ///
    /// # Errors
    /// When another meshd answers there, something else than a socket is there, or the path cannot
    /// be written. Nothing was changed then.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("socket {}: {error}", path.display()))
        };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(named)?;
        }
        refuse_a_live_one(path).map_err(named)?;
        let fresh = path.with_extension("new");
        drop(fs::remove_file(&fresh));
        let inner = UnixListener::bind(&fresh).map_err(named)?;
        let placed = fs::set_permissions(&fresh, fs::Permissions::from_mode(0o660))
            .and_then(|()| fs::rename(&fresh, path));
        if let Err(error) = placed {
            drop(fs::remove_file(&fresh));
            return Err(named(error));
        }
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Ok(Self { inner, slots, path: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ApiListener {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

fn refuse_a_live_one(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something else than a socket is there; remove it or choose another with --socket",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another meshd answers there; stop it or choose another with --socket",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

impl axum::serve::Listener for ApiListener {
    type Io = Slot;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // `None` only when the semaphore were closed, which nobody does.
        let permit = self.slots.clone().acquire_owned().await.ok();
        loop {
            match self.inner.accept().await {
                Ok((stream, address)) => return (Slot { stream, _permit: permit }, address),
                Err(error) => {
                    // Out of file descriptors, mostly: others must end first.
                    tracing::warn!(%error, "a connection to the socket could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

impl AsyncRead for Slot {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Slot {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

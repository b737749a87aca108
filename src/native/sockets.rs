//! Listening sockets.

use std::os::fd::AsRawFd;

/// Makes the system drop the packets of new connections to `listener`, as if they were lost.
/// Connections that have begun can still be accepted.
///
/// A listener that is closed resets the connections that wait in its queue. So the queue is emptied
/// first, and this keeps it from filling again: a client tries again after a second, and is then
/// refused, or let in by another process.
///
/// # Errors
///
/// A system that has no filters for sockets.
pub fn drop_new_connections(listener: &impl AsRawFd) -> std::io::Result<()> {
    // One instruction: keep 0 bytes of the packet.
    const KEEP_NOTHING: libc::sock_filter =
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 };
    let mut program = [KEEP_NOTHING];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the system copies the filter, whose one instruction outlives the call.
    let code = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

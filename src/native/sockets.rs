//! Listening sockets.

use std::os::fd::AsRawFd;

/// Place of the flags in a TCP header, in bytes.
const TCP_FLAGS: u32 = 13;

/// The flag of a packet that acknowledges another.
const TCP_ACK: u32 = 0x10;

/// Makes the system drop the first packets of new connections to `listener`, as if they were lost.
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
    const fn line(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt, jf, k }
    }
    // Only the first packet of a connection has no acknowledgement. The third has one: without it a
    // client that has its answer to the first would be reset later.
    let mut program = [
        line(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, TCP_FLAGS),
        line(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, TCP_ACK),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        line(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: the system copies the filter, whose instructions outlive the call.
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

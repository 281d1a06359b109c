//! What drivers of a real machine do to a socket in the same way.

use socket2::Socket;

use crate::limits::UNSENT_BYTES_MAX;

/// No more will be sent.
pub(super) fn finish(socket: &Socket) {
    // A connection that broke meanwhile has nothing to finish.
    let _ = socket.shutdown(std::net::Shutdown::Write);
}

/// From now on it takes little more than it sends at once.
pub(super) fn bound_unsent(socket: &Socket) {
    // A Unix socket has no such bound, nor what it is for: it takes what its buffer holds.
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
}

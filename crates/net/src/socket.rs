//! What every socket of ours needs.

use std::io;

use convoke_model::limits::TCP_USER_TIMEOUT;
use socket2::SockRef;
use tokio::net::TcpStream;

/// Sets what an accepted or dialled socket needs.
///
/// Without `TCP_NODELAY` the first request on a new connection waits for a delayed acknowledgement,
/// about 40 ms; `TCP_USER_TIMEOUT` ends connections to peers that vanished or stopped to read.
pub(crate) fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(tcp).set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    Ok(())
}

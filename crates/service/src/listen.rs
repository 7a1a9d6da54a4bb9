//! Binding addresses, with errors that say what to do.

use std::net::{SocketAddr, TcpListener};
use std::{error, fmt, io};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait for an accept: some milliseconds of a burst at full rate.
const BACKLOG: i32 = 1024;

/// A non-blocking listener for `what`, whose name is also that of the flag that moves it: `edge` and `--edge`.
///
/// # Errors
///
/// When the address is in use, not of this machine or not allowed.
pub fn bind(addr: SocketAddr, what: &str) -> Result<TcpListener, ListenError> {
    open(addr).map_err(|source| ListenError {
        what: what.to_owned(),
        addr,
        kind: Kind::Bind(source),
    })
}

/// Refuses an address that other machines can reach, for listeners that ask nobody who they are.
///
/// # Errors
///
/// When the address is not a loopback address.
pub fn loopback_only(addr: SocketAddr, what: &str) -> Result<(), ListenError> {
    if addr.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(ListenError {
        what: what.to_owned(),
        addr,
        kind: Kind::NotLoopback,
    })
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Answers are single small writes; waiting to fill a packet only delays them. Accepted connections inherit it.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Why there is no listener.
#[derive(Debug)]
pub struct ListenError {
    what: String,
    addr: SocketAddr,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Bind(io::Error),
    NotLoopback,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ListenError { what, addr, kind } = self;
        match kind {
            Kind::Bind(source) if source.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "{what}: {addr} is already in use: stop the other process or choose another with --{what}"
            ),
            Kind::Bind(source) => {
                write!(
                    f,
                    "{what}: cannot listen on {addr}: {source}: choose another with --{what}"
                )
            }
            Kind::NotLoopback => write!(
                f,
                "{what}: {addr} can be reached by other machines and {what} has no access keys yet: use 127.0.0.1:{}",
                addr.port()
            ),
        }
    }
}

impl error::Error for ListenError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.kind {
            Kind::Bind(source) => Some(source),
            Kind::NotLoopback => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_says_what_to_do() {
        let held = bind("127.0.0.1:0".parse().unwrap(), "edge").unwrap();
        let addr = held.local_addr().unwrap();
        assert_eq!(
            bind(addr, "edge").unwrap_err().to_string(),
            format!(
                "edge: {addr} is already in use: stop the other process or choose another with --edge"
            )
        );
    }

    #[test]
    fn only_loopback_passes() {
        for (addr, passes) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.0.2.1:1", false),
        ] {
            assert_eq!(
                loopback_only(addr.parse().unwrap(), "reports").is_ok(),
                passes,
                "{addr}"
            );
        }
    }
}

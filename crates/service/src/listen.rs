//! Binding addresses, with errors that say what to do.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::{error, fmt, io};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait for an accept: those of some seconds at 1,000 a second, which a restart takes. The system takes
/// its own bound (`net.core.somaxconn`, 4096) where that is lower.
const BACKLOG: i32 = 16_384;

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

/// The listener for `what` where another process opened it: handed over by a predecessor (for this address), or kept open by
/// the service manager (socket activation); else one of our own. Only a process' first listener can be activated.
///
/// # Errors
///
/// As [`bind`], or when the service manager passes something else than one TCP socket.
pub fn inherit_or_bind(
    addr: SocketAddr,
    what: &str,
    handed: Option<OwnedFd>,
    can_be_activated: bool,
) -> Result<TcpListener, ListenError> {
    let about = |kind| ListenError {
        what: what.to_owned(),
        addr,
        kind,
    };
    if let Some(handed) = handed {
        let listener = TcpListener::from(handed);
        let at = listener
            .local_addr()
            .map_err(|source| about(Kind::Bind(source)))?;
        if at.ip() == addr.ip() && (at.port() == addr.port() || addr.port() == 0) {
            return prepare(listener).map_err(|source| about(Kind::Bind(source)));
        }
    }
    if can_be_activated {
        let activated = activated().map_err(|source| about(Kind::Activation(source)))?;
        if let Some(listener) = activated {
            let at = listener
                .local_addr()
                .map_err(|source| about(Kind::Activation(source)))?;
            if at != addr {
                tracing::warn!(setting = %addr, socket = %at, listener = what, "the service manager passes another address than is set, using its socket");
            }
            return Ok(listener);
        }
    }
    bind(addr, what)
}

/// The one listener that a service manager passes.
fn activated() -> io::Result<Option<TcpListener>> {
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => Ok(None),
        1 => match passed.take_tcp_listener(0)? {
            Some(listener) => prepare(listener).map(Some),
            None => Ok(None),
        },
        count => Err(io::Error::other(format!("{count} sockets are passed"))),
    }
}

/// Gives a listener that another process opened what ours have.
fn prepare(listener: TcpListener) -> io::Result<TcpListener> {
    listener.set_nonblocking(true)?;
    SockRef::from(&listener).set_tcp_nodelay(true)?;
    Ok(listener)
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
    Activation(io::Error),
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
            Kind::Activation(source) => write!(
                f,
                "{what}: what the service manager passes is not one listening TCP socket: {source}: name one ListenStream="
            ),
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
            Kind::Bind(source) | Kind::Activation(source) => Some(source),
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
    fn a_handed_listener_is_used_for_its_own_address_only() {
        let held = bind("127.0.0.1:0".parse().unwrap(), "edge").unwrap();
        let addr = held.local_addr().unwrap();
        let take = |asked: SocketAddr| {
            let handed = held.try_clone().unwrap().into();
            let listener = inherit_or_bind(asked, "edge", Some(handed), false).unwrap();
            listener.local_addr().unwrap()
        };
        assert_eq!(take(addr), addr);
        assert_eq!(take("127.0.0.1:0".parse().unwrap()), addr);
        assert_ne!(take("127.0.0.2:0".parse().unwrap()), addr);
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

//! The network between the system and its broker: passes everything on, until it is cut or swallows what it is given.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use testkit::wait;

/// How often a connection looks at what the network is like.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the network is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Network {
    Open,
    /// Every connection breaks, and new ones at once.
    Cut,
    /// Connections stay and nothing passes.
    Silent,
}

/// Its threads live as long as the process.
pub(super) struct Proxy {
    network: Arc<AtomicU8>,
}

impl Proxy {
    /// Passes on between an address to listen on and one to connect to.
    pub(super) fn start(listen: SocketAddr, to: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen)?;
        let network = Arc::new(AtomicU8::new(Network::Open as u8));
        let seen = Arc::clone(&network);
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || serve(&connection, to, &seen));
            }
        });
        Ok(Self { network })
    }

    pub(super) fn set(&self, network: Network) {
        self.network.store(network as u8, Ordering::Relaxed);
    }
}

fn is(seen: &AtomicU8, network: Network) -> bool {
    seen.load(Ordering::Relaxed) == network as u8
}

fn serve(client: &TcpStream, to: SocketAddr, seen: &AtomicU8) {
    while is(seen, Network::Silent) {
        wait::pass(LOOK_EVERY);
    }
    if is(seen, Network::Cut) {
        return;
    }
    let Ok(server) = TcpStream::connect(to) else {
        return;
    };
    thread::scope(|scope| {
        scope.spawn(|| pass_on(client, &server, seen));
        pass_on(&server, client, seen);
    });
}

/// Passes on in one direction until one side closes or the network is cut; then both are closed.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream, seen: &AtomicU8) {
    // Both can only fail for a time of zero and a socket that is none.
    let _ = from.set_read_timeout(Some(LOOK_EVERY));
    let _ = to.set_nodelay(true);
    let mut buffer = [0; 64 * 1024];
    while !is(seen, Network::Cut) {
        if is(seen, Network::Silent) {
            wait::pass(LOOK_EVERY);
            continue;
        }
        let taken = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(taken) => taken,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) =>
            {
                continue;
            }
            Err(_) => break,
        };
        if to.write_all(&buffer[..taken]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    fn say_and_hear(mut connection: &TcpStream, word: &[u8; 4]) -> std::io::Result<[u8; 4]> {
        connection.write_all(word)?;
        let mut heard = [0; 4];
        connection.read_exact(&mut heard)?;
        Ok(heard)
    }

    #[test]
    fn passes_on_swallows_and_cuts() {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = echo.local_addr().unwrap();
        thread::spawn(move || {
            for connection in echo.incoming().flatten() {
                thread::spawn(move || std::io::copy(&mut &connection, &mut &connection));
            }
        });
        let listen = testkit::lasting_address();
        let proxy = Proxy::start(listen, to).unwrap();
        let connection = TcpStream::connect(listen).unwrap();
        assert_eq!(say_and_hear(&connection, b"open").unwrap(), *b"open");

        proxy.set(Network::Silent);
        connection
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        // What a direction was reading already may still pass; the second word does not.
        let mut swallowed = false;
        for _ in 0..3 {
            swallowed |= say_and_hear(&connection, b"hush").is_err();
        }
        assert!(swallowed);

        proxy.set(Network::Cut);
        connection.set_read_timeout(Some(BOUND)).unwrap();
        let mut rest = Vec::new();
        // An end or a reset, not the time.
        let error = (&connection).read_to_end(&mut rest).err();
        assert!(error.is_none_or(|error| error.kind() == ErrorKind::ConnectionReset));
        wait::until("a new connection is refused", BOUND, || {
            let new = TcpStream::connect(listen).unwrap();
            new.set_read_timeout(Some(BOUND)).unwrap();
            say_and_hear(&new, b"anew").is_err()
        });

        proxy.set(Network::Open);
        let new = TcpStream::connect(listen).unwrap();
        assert_eq!(say_and_hear(&new, b"anew").unwrap(), *b"anew");
    }
}

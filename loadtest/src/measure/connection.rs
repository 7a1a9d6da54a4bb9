//! A connection that never blocks: plain, or TLS 1.3 without resumption.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Protocol, Socket, Type};

/// Loopback addresses that connections come from in turn: a closed connection keeps its port for a minute, and one
/// address has too few of them for thousands of connections a second.
const SOURCES: u32 = 32;

/// How a client speaks TLS.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts this certificate (PEM) under this name, and nothing else.
    pub(crate) fn new(certificate: &Path, name: &str) -> Result<Tls, String> {
        let because = |error: &dyn std::fmt::Display| format!("{}: {error}", certificate.display());
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_file(certificate).map_err(|error| because(&error))?;
        roots.add(der).map_err(|error| because(&error))?;
        let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(name.to_owned()).map_err(|error| because(&error))?;
        Ok(Tls {
            config: Arc::new(config),
            name,
        })
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    tls: Option<ClientConnection>,
}

impl Connection {
    /// Begins to connect; `nth` spreads connections over the machine's own addresses.
    pub(crate) fn open(to: SocketAddr, tls: Option<&Tls>, nth: u32) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if to.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            let from = Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + nth % SOURCES);
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        if let Err(error) = socket.connect(&to.into())
            && error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error())
        {
            return Err(error);
        }
        let tls = tls.map(|tls| ClientConnection::new(Arc::clone(&tls.config), tls.name.clone()));
        Ok(Connection {
            socket: socket.into(),
            tls: tls.transpose().map_err(io::Error::other)?,
        })
    }

    /// What is waited on.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// As `write(2)`; while it connects or shakes hands it would block.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => rustls::Stream::new(tls, &mut self.socket).write(bytes),
        }
    }

    /// As `read(2)`.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(into),
            Some(tls) => rustls::Stream::new(tls, &mut self.socket).read(into),
        }
    }

    /// Says goodbye where the protocol has a word for it, and closes.
    pub(crate) fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // Who is not reached any more needs no goodbye.
            let _ = tls.write_tls(&mut self.socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustls::pki_types::PrivateKeyDer;
    use rustls::{HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

    use super::*;
    use crate::measure::generator::{Generator, Plan};
    use crate::measure::visits::{Choice, HOST, Links, Visits};

    #[test]
    fn each_tls_connection_is_a_full_handshake() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let certificate = cases.join("certificate.pem");
        let chain = vec![CertificateDer::from_pem_file(&certificate).unwrap()];
        let key = PrivateKeyDer::from_pem_file(cases.join("key.pem")).unwrap();
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut bytes = [0; 4096];
                let mut both = rustls::Stream::new(&mut tls, &mut stream);
                assert!(both.read(&mut bytes).unwrap() > 0);
                both.write_all(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")
                    .unwrap();
                assert_eq!(both.read(&mut bytes).unwrap(), 0, "a goodbye");
                assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full));
                assert_eq!(tls.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            }
        });
        let plan = Plan {
            to,
            tls: Some(Tls::new(&certificate, HOST).unwrap()),
            connections: 1,
            new_connections: true,
            rate: Some(100.0),
        };
        let links = Links::One("plain".to_owned());
        let visits = Visits::new(HOST, links, Choice::Uniform, "", None, 1);
        let started = Instant::now();
        let mut generator = Generator::new(plan, visits).unwrap();
        let outcome = generator.run(Duration::from_millis(200)).unwrap();
        let outcome = outcome.whole().unwrap();
        assert_eq!((outcome.redirects, generator.opened()), (20, 20));
        assert!(started.elapsed() > Duration::from_millis(190));
    }
}

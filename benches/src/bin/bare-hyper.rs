//! The baseline of `loadtest compare`: hyper's HTTP/1 server that answers every request with one constant redirect.
//!
//! Built with the workspace's profile and the allocator of the edge, on one current-thread runtime, so that what the edge
//! costs more is what the edge does more. The answer has the header fields that a click's answer has, from constants.

#![expect(
    clippy::print_stdout,
    reason = "the line that says where it listens is what its starter waits for"
)]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;
use http_body_util::Empty;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A hyper server that answers every request with one constant redirect.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The value of Location; as long as what it is compared with sends.
    #[arg(long, default_value = "https://shop.example/")]
    location: HeaderValue,
    /// The value of Set-Cookie; none where it is not given.
    #[arg(long)]
    cookie: Option<HeaderValue>,
    /// Speak TLS with this certificate chain (PEM).
    #[arg(long, requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key (PEM).
    #[arg(long, requires = "certificate")]
    key: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let tls = match (&arguments.certificate, &arguments.key) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        _ => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, serve(arguments, tls))
}

async fn serve(arguments: Arguments, tls: Option<TlsAcceptor>) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("bare-hyper is up: {}", listener.local_addr()?);
    let answer = Answer {
        location: arguments.location,
        cookie: arguments.cookie,
    };
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (answer, tls) = (answer.clone(), tls.clone());
        tokio::task::spawn_local(async move {
            match tls {
                None => connection(stream, answer).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, answer).await;
                    }
                }
            }
        });
    }
}

/// What every request gets.
#[derive(Clone)]
struct Answer {
    location: HeaderValue,
    cookie: Option<HeaderValue>,
}

impl Answer {
    fn response(&self) -> Response<Empty<Bytes>> {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::FOUND;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::LOCATION, self.location.clone());
        headers.insert(
            "x-robots-tag",
            HeaderValue::from_static("noindex, nofollow"),
        );
        if let Some(cookie) = &self.cookie {
            headers.insert(header::SET_COOKIE, cookie.clone());
        }
        response
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer) {
    let service = service_fn(|_request| {
        let response = answer.response();
        async { Ok::<_, Infallible>(response) }
    });
    // Who hangs up early is of no interest here.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// One certificate, TLS as rustls has it by default, no resumption, HTTP/1.1 only.
fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Box<dyn Error>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

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
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Body;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(feature = "multi-thread")]
use tokio::spawn;
#[cfg(not(feature = "multi-thread"))]
use tokio::task::spawn_local as spawn;
use tokio_rustls::TlsAcceptor;

#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that may wait for an accept: as many as the edge's.
const BACKLOG: i32 = 1024;

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
    /// What is done otherwise, to see what it costs.
    #[arg(long = "with", value_enum)]
    change: Option<Change>,
}

/// One thing that may be done otherwise.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Change {
    /// SO_REUSEPORT.
    ReusePort,
    /// TCP_NODELAY from the listener, not set on each connection.
    NodelayInherited,
    /// No TCP_NODELAY.
    Nagle,
    /// TCP congestion control "reno", whatever the system's is.
    Reno,
    /// Answers of pipelined requests written together.
    PipelineFlush,
    /// Head and body copied into one buffer, without hyper's trial of a list.
    OneBuffer,
    /// A list of buffers always.
    Vectored,
    /// An empty `Full` as the body.
    FullBody,
    /// A boxed body.
    BoxedBody,
    /// A boxed future.
    BoxedFuture,
    /// No Date field.
    NoDate,
    /// The values of the answer's fields formatted and checked for each answer.
    Formatted,
    /// Hyper's own time limit of a request's head.
    HeadTimer,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let tls = match (&arguments.certificate, &arguments.key) {
        (Some(certificate), Some(key)) => Some(acceptor(certificate, key)?),
        _ => None,
    };
    #[cfg(feature = "multi-thread")]
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let served = runtime.spawn(serve(arguments, tls));
        Ok(runtime.block_on(served)??)
    }
    #[cfg(not(feature = "multi-thread"))]
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let tasks = tokio::task::LocalSet::new();
        Ok(tasks.block_on(&runtime, serve(arguments, tls))?)
    }
}

async fn serve(arguments: Arguments, tls: Option<TlsAcceptor>) -> io::Result<()> {
    let change = arguments.change;
    let listener = TcpListener::from_std(listen(arguments.listen, change)?.into())?;
    println!("bare-hyper is up: {}", listener.local_addr()?);
    let answer = Arc::new(Answer {
        location: arguments.location,
        cookie: arguments.cookie,
        change,
    });
    loop {
        let (stream, _) = listener.accept().await?;
        if !matches!(change, Some(Change::NodelayInherited | Change::Nagle)) {
            stream.set_nodelay(true)?;
        }
        let (answer, tls) = (Arc::clone(&answer), tls.clone());
        spawn(async move {
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

fn listen(addr: SocketAddr, change: Option<Change>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    match change {
        Some(Change::ReusePort) => socket.set_reuse_port(true)?,
        Some(Change::NodelayInherited) => socket.set_tcp_nodelay(true)?,
        Some(Change::Reno) => socket.set_tcp_congestion(b"reno")?,
        _ => {}
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// What every request gets.
struct Answer {
    location: HeaderValue,
    cookie: Option<HeaderValue>,
    change: Option<Change>,
}

impl Answer {
    fn response<B>(&self, body: B) -> Response<B> {
        let mut response = Response::new(body);
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
        if self.change == Some(Change::Formatted) {
            for value in headers.values_mut() {
                let text = value.to_str().expect("given as text").to_owned();
                *value = HeaderValue::try_from(text).expect("given as a value");
            }
        }
        response
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: Arc<Answer>,
) {
    let change = answer.change;
    match change {
        Some(Change::FullBody) => speak(stream, answer, Full::<Bytes>::default).await,
        Some(Change::BoxedBody) => {
            let body = || BoxBody::new(Empty::<Bytes>::new().map_err(|never| match never {}));
            speak::<BoxBody<Bytes, Infallible>>(stream, answer, body).await;
        }
        _ => speak(stream, answer, Empty::<Bytes>::new).await,
    }
}

async fn speak<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: Arc<Answer>,
    body: impl Fn() -> B + Send,
) where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let mut http = http1::Builder::new();
    match answer.change {
        Some(Change::PipelineFlush) => _ = http.pipeline_flush(true),
        Some(Change::OneBuffer) => _ = http.writev(false),
        Some(Change::Vectored) => _ = http.writev(true),
        Some(Change::NoDate) => _ = http.auto_date_header(false),
        Some(Change::HeadTimer) => {
            http.timer(TokioTimer::new());
            http.header_read_timeout(Duration::from_secs(15));
        }
        _ => {}
    }
    let io = TokioIo::new(stream);
    // Who hangs up early is of no interest here.
    let _ = if answer.change == Some(Change::BoxedFuture) {
        let service = service_fn(|_request| {
            let response = answer.response(body());
            let future = async { Ok::<_, Infallible>(response) };
            Box::pin(future) as Pin<Box<dyn Future<Output = _> + Send>>
        });
        http.serve_connection(io, service).await
    } else {
        let service = service_fn(|_request| {
            let response = answer.response(body());
            async { Ok::<_, Infallible>(response) }
        });
        http.serve_connection(io, service).await
    };
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

//! The small HTTP server behind the listeners that people and scrapers ask: bounded in connections, heads and time, and
//! drained when the process stops. The edge has its own, which is made for another load.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::shutdown::Shutdown;

/// Far more than the people, scripts and scrapers of one network; more wait for an accept.
const CONNECTIONS_MAX: u32 = 64;

/// A request's few header lines come at once; also how long an idle connection is kept.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Many times the longest sensible request.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Leaves a failing accept (out of file descriptors) time to get better; also how often that is logged at most.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long answers under way may take after a shutdown is requested.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// A body, of [`whole`] or [`in_parts`].
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// An answer.
pub type Answer = Response<Body>;

/// A body that is known.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    let body = Full::new(bytes.into());
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A body whose parts come one after another. An error among them ends the connection, so that nobody takes half of it for
/// the whole.
pub fn in_parts(parts: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    Parts(parts).boxed_unsync()
}

struct Parts(mpsc::Receiver<io::Result<Bytes>>);

impl hyper::body::Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0
            .poll_recv(context)
            .map(|part| part.map(|bytes| bytes.map(Frame::data)))
    }
}

/// Answers requests until the shutdown is requested. Runs inside a tokio runtime with time and I/O enabled; `what` is the
/// listener's name in logs.
pub async fn serve<F>(
    listener: TcpListener,
    what: &'static str,
    shutdown: Shutdown,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Answer> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    loop {
        let accept = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (
                slot.expect("the semaphore is never closed"),
                listener.accept().await,
            )
        };
        let accepted = tokio::select! {
            accepted = accept => accepted,
            () = shutdown.requested_async() => break,
        };
        match accepted {
            (slot, Ok((connection, _))) => {
                let converse = converse(connection, what, shutdown.clone(), answer.clone());
                tokio::spawn(async move {
                    converse.await;
                    drop(slot);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(listener = what, %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    // Whoever has not read their answer by then does without it.
    let _ = tokio::time::timeout(DRAIN_MAX, slots.acquire_many(CONNECTIONS_MAX)).await;
}

async fn converse<F>(
    connection: TcpStream,
    what: &'static str,
    shutdown: Shutdown,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(connection), service)
    );
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = shutdown.requested_async() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(listener = what, %error, "connection ended early");
    }
}

//! The admin listener of a process: `/metrics` for Prometheus, `/livez` and `/readyz` for a supervisor.
//!
//! It asks nobody who they are, so the caller binds it to loopback ([`crate::listen::loopback_only`]).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

pub use crate::health::Health;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// Scrapers and probes are few; more connections than this wait for an accept.
const CONNECTIONS_MAX: usize = 64;

/// A scraper sends its few header lines at once, and comes back within a keep-alive of this.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The least buffer hyper takes; a scraper's request is far smaller.
const BUFFER_BYTES_MAX: usize = 8192;

/// Leaves a failing accept (out of file descriptors) time to get better.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long answers under way may take after a shutdown is requested.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// Serves until the shutdown is requested. Runs inside a tokio runtime with time and I/O enabled.
pub async fn serve(listener: TcpListener, metrics: Metrics, health: Health, shutdown: Shutdown) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested_async() => break,
        };
        let connection = match accepted {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::warn!(%error, "admin accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (metrics, health, shutdown) = (metrics.clone(), health.clone(), shutdown.clone());
        tokio::spawn(async move {
            converse(connection, metrics, health, shutdown).await;
            drop(slot);
        });
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS_MAX).expect("a small constant");
    // Whoever has not read their answer by then does without it.
    let _ = tokio::time::timeout(DRAIN_MAX, slots.acquire_many(all)).await;
}

async fn converse(connection: TcpStream, metrics: Metrics, health: Health, shutdown: Shutdown) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = answer(request.method(), request.uri().path(), &metrics, &health);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_READ_TIMEOUT)
            .max_buf_size(BUFFER_BYTES_MAX)
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
        tracing::debug!(%error, "admin connection ended early");
    }
}

fn answer(
    method: &Method,
    path: &str,
    metrics: &Metrics,
    health: &Health,
) -> Response<Full<Bytes>> {
    let known = matches!(path, "/metrics" | "/livez" | "/readyz");
    if !known {
        return text(
            StatusCode::NOT_FOUND,
            "not found: try /metrics, /livez or /readyz\n".into(),
        );
    }
    if method != Method::GET && method != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".into());
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => {
            let mut response = text(StatusCode::OK, metrics.render());
            response.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static(prometheus::TEXT_FORMAT),
            );
            response
        }
        "/livez" => verdict(health.alive()),
        _ => verdict(health.ready()),
    }
}

fn verdict(health: Result<(), String>) -> Response<Full<Bytes>> {
    match health {
        Ok(()) => text(StatusCode::OK, "ok\n".into()),
        Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reasons}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn each_path_and_method_has_its_status() {
        let metrics = Metrics::new();
        let health = Health::new();
        let status = |method: &Method, path: &str| answer(method, path, &metrics, &health).status();
        assert_eq!(status(&Method::GET, "/metrics"), 200);
        assert_eq!(status(&Method::HEAD, "/livez"), 200);
        assert_eq!(status(&Method::GET, "/readyz"), 503);
        assert_eq!(status(&Method::POST, "/readyz"), 405);
        assert_eq!(status(&Method::GET, "/"), 404);
        health.set_ready("all", Ok(()));
        assert_eq!(status(&Method::GET, "/readyz"), 200);
    }

    #[tokio::test]
    async fn it_answers_over_a_socket_and_stops_when_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let serving = tokio::spawn(serve(
            listener,
            Metrics::new(),
            Health::new(),
            shutdown.clone(),
        ));

        let mut client = TcpStream::connect(addr).await.unwrap();
        client
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("sluice_build_info"), "{answer}");

        shutdown.request();
        serving.await.unwrap();
    }
}

//! The admin listener of a process: `/metrics` for Prometheus, `/livez` and `/readyz` for a supervisor.
//!
//! It asks nobody who they are, so the caller binds it to loopback ([`crate::listen::loopback_only`]).

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use tokio::net::TcpListener;

pub use crate::health::Health;
use crate::http::{self, Answer};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// Serves until the shutdown is requested. Runs inside a tokio runtime with time and I/O enabled.
pub async fn serve(listener: TcpListener, metrics: Metrics, health: Health, shutdown: Shutdown) {
    http::serve(listener, "admin", shutdown, move |request| {
        let answer = answer(request.method(), request.uri().path(), &metrics, &health);
        async move { answer }
    })
    .await;
}

fn answer(method: &Method, path: &str, metrics: &Metrics, health: &Health) -> Answer {
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

fn verdict(health: Result<(), String>) -> Answer {
    match health {
        Ok(()) => text(StatusCode::OK, "ok\n".into()),
        Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reasons}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Answer {
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
    use tokio::net::TcpStream;

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

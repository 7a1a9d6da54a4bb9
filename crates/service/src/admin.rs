//! The admin listener of a process: `/metrics` for Prometheus, `/livez` and `/readyz` for a supervisor, and POST for commands
//! that change what the process owns.
//!
//! It asks nobody who they are, so the caller binds it to loopback ([`crate::listen::loopback_only`]).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::{Method, Response, StatusCode};
use tokio::net::TcpListener;

pub use crate::health::Health;
use crate::http::{self, Answer};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;

/// How long a command waits for its answer: longer than any command takes.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// A status and a text.
pub type CommandAnswer = (u16, String);

/// What a process does when it is asked by POST: path and query in, answer out; `None` for a path that it does not know. Runs
/// on a thread that may wait.
pub type Commands = Arc<dyn Fn(&str, &str) -> Option<CommandAnswer> + Send + Sync>;

/// Of a process that takes none.
pub fn no_commands() -> Commands {
    Arc::new(|_, _| None)
}

/// Serves until the shutdown is requested. Runs inside a tokio runtime with time and I/O enabled.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    health: Health,
    commands: Commands,
    shutdown: Shutdown,
) {
    http::serve(listener, "admin", shutdown, move |request| {
        let (metrics, health) = (metrics.clone(), health.clone());
        let commands = Arc::clone(&commands);
        async move {
            let uri = request.uri();
            if request.method() != Method::POST {
                return answer(request.method(), uri.path(), &metrics, &health);
            }
            // Every browser names the page that makes it POST: no page may change anything here.
            if request.headers().contains_key(ORIGIN) {
                return text(StatusCode::FORBIDDEN, "not from a browser\n".into());
            }
            let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or("").to_owned());
            let command = {
                let path = path.clone();
                tokio::task::spawn_blocking(move || commands(&path, &query))
            };
            match command.await {
                Ok(Some((status, said))) => {
                    let status = StatusCode::from_u16(status).expect("commands give a status");
                    text(status, said)
                }
                Ok(None) => answer(&Method::POST, &path, &metrics, &health),
                Err(error) => {
                    tracing::error!(path, %error, "command panicked");
                    text(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "the command failed\n".into(),
                    )
                }
            }
        }
    })
    .await;
}

/// Asks a running process by POST for a command: its answer.
///
/// # Errors
/// Nobody answers there.
pub fn ask(admin: SocketAddr, target: &str) -> io::Result<CommandAnswer> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(
        stream,
        "POST {target} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, said))) => Ok((status, said.to_owned())),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
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
    let mut response = Response::new(http::whole(body));
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
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use tokio::net::TcpStream;

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
            Arc::new(|path, query| (path == "/do").then(|| (200, format!("done {query}\n")))),
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

        for (target, expected) in [
            ("/do?it=1", (200, "done it=1\n")),
            ("/readyz", (405, "use GET\n")),
            ("/", (404, "not found: try /metrics, /livez or /readyz\n")),
        ] {
            let asking = tokio::task::spawn_blocking(move || ask(addr, target).unwrap());
            let (status, said) = asking.await.unwrap();
            assert_eq!((status, said.as_str()), expected, "{target}");
        }
        let mut page = TcpStream::connect(addr).await.unwrap();
        page.write_all(
            b"POST /do HTTP/1.1\r\nHost: x\r\nOrigin: http://page.example\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
        let mut answer = String::new();
        page.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");

        shutdown.request();
        serving.await.unwrap();
    }
}

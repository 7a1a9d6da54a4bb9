//! One worker: a thread with a current-thread runtime, its connections and its journal.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use domain::event::{Class, Reason, edge_record::Event};
use domain::{Shard, Topic};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use service::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::answer::{self, Answer};
use crate::classify::Classifier;
use crate::click::{self, Asked};
use crate::live::Live;
use crate::metrics::{Metrics, PathKind};
use crate::recorder::Recorder;
use crate::settings::Settings;
use crate::unmatched::Unmatched;
use crate::{postback, request};

/// A request's head and headers together; browsers stay below 4 KiB, cookies of other hosts do not come here.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long a postback's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a postback waits for the disk before its sender is asked to come again.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open connections may take to end once the process drains.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often counts of unmatched requests are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What one worker's requests share.
pub(crate) struct Worker {
    pub(crate) settings: Arc<Settings>,
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) recorder: RefCell<Recorder>,
    pub(crate) unmatched: RefCell<Unmatched>,
    pub(crate) metrics: Metrics,
    pub(crate) classifier: Classifier,
    /// The listener's own addresses, served as the first domain over plain HTTP.
    pub(crate) local_hosts: Arc<Vec<String>>,
    pub(crate) synced: watch::Receiver<u64>,
}

impl Worker {
    /// Accepts until shutdown, then lets open requests end.
    pub(crate) async fn run(
        self: Rc<Self>,
        listener: TcpListener,
        shutdown: Shutdown,
        mut beat: impl FnMut(Result<(), String>),
    ) {
        let places = Arc::new(Semaphore::new(self.settings.connections_max));
        let mut tick = tokio::time::interval(TICK);
        let drain = shutdown.requested_async();
        tokio::pin!(drain);
        loop {
            let accept = async {
                let place = Arc::clone(&places)
                    .acquire_owned()
                    .await
                    .expect("the semaphore is never closed");
                (listener.accept().await, place)
            };
            tokio::select! {
                () = &mut drain => break,
                _ = tick.tick() => {
                    beat(self.recorder.borrow().ready());
                    self.record_unmatched(false);
                }
                (accepted, place) = accept => match accepted {
                    Ok((stream, peer)) => {
                        let connection = Rc::clone(&self).connection(stream, peer, shutdown.clone());
                        tokio::task::spawn_local(async move {
                            connection.await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        // Out of descriptors or memory: open connections end and give some back.
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        drop(listener);
        let all = u32::try_from(self.settings.connections_max).unwrap_or(u32::MAX);
        if tokio::time::timeout(DRAIN_TIMEOUT, places.acquire_many(all))
            .await
            .is_err()
        {
            tracing::warn!("connections were still open at the end of the drain");
        }
        self.record_unmatched(true);
        self.recorder.borrow_mut().end();
    }

    async fn connection(self: Rc<Self>, stream: TcpStream, peer: SocketAddr, shutdown: Shutdown) {
        self.metrics.connections.inc();
        // Answers are single small writes; waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let worker = Rc::clone(&self);
        let service = hyper::service::service_fn(move |request| {
            let worker = Rc::clone(&worker);
            async move { Ok::<_, Infallible>(worker.answer(peer, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(self.settings.head_timeout_s))
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = shutdown.requested_async() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // Visitors hang up, scanners send rubbish: not worth more than a debug line.
            tracing::debug!(%error, "connection ended early");
        }
        self.metrics.connections.dec();
    }

    async fn answer(&self, peer: SocketAddr, request: Request<Incoming>) -> Answer {
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        let class = self.classifier.classify(&parts.method, &parts.headers);
        let kind = match parts.uri.path() {
            "/c" => PathKind::Click,
            "/postback" => PathKind::Postback,
            path if is_reserved(path) => PathKind::Other,
            _ => PathKind::Slug,
        };
        let (answer, class) = match request::method(&parts)
            .and_then(|()| request::target(&parts))
            .and_then(|()| request::host(&parts))
        {
            Err((StatusCode::METHOD_NOT_ALLOWED, line)) => {
                let allowed = if matches!(kind, PathKind::Postback) {
                    "GET, POST"
                } else {
                    "GET, HEAD"
                };
                (answer::foreign_method(line, allowed), Class::Unspecified)
            }
            Err((status, line)) => (answer::text(status, line), Class::Unspecified),
            Ok(host) => {
                let live = self.live.load_full();
                let domain = match live.table.domain(&host.name) {
                    Some(domain) => Some((domain, true)),
                    None if self.local_hosts.contains(&host.with_port) => {
                        live.table.first_domain().map(|domain| (domain, false))
                    }
                    None => None,
                };
                let client =
                    request::client(peer.ip(), &parts.headers, &self.settings.trusted_forwarders);
                let asked = Asked {
                    parts: &parts,
                    client,
                    domain,
                    class,
                };
                let answer = match (domain, kind) {
                    (None, _) => {
                        click::unmatched(
                            self,
                            &asked,
                            Reason::UnknownHost,
                            domain::event::Decision::Refuse,
                        );
                        answer::text(
                            StatusCode::MISDIRECTED_REQUEST,
                            "no domain of this name is served here",
                        )
                    }
                    (Some(_), PathKind::Postback) => self.postback(&live, &asked, body).await,
                    (Some((domain, secure)), PathKind::Slug | PathKind::Click) => {
                        click::serve(self, &live, &asked, domain, secure)
                    }
                    (Some(_), PathKind::Other) => match parts.uri.path() {
                        "/robots.txt" => answer::text(StatusCode::OK, "User-agent: *\nAllow: /"),
                        _ => answer::text(StatusCode::NOT_FOUND, "nothing is served here"),
                    },
                };
                (answer, class)
            }
        };
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.answered(kind, answer.status(), class);
        answer
    }

    async fn postback(&self, live: &Live, asked: &Asked<'_>, body: Incoming) -> Answer {
        let (body, broken) = if asked.parts.method == Method::POST {
            let body = Limited::new(body, postback::BODY_BYTES_MAX).collect();
            match tokio::time::timeout(BODY_TIMEOUT, body).await {
                Ok(Ok(body)) => (Some(body.to_bytes()), None),
                Ok(Err(_)) => (
                    None,
                    Some((
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "the body broke off or is longer than 16384 bytes",
                    )),
                ),
                Err(_) => (
                    None,
                    Some((
                        StatusCode::REQUEST_TIMEOUT,
                        "the body did not arrive within 10 seconds",
                    )),
                ),
            }
        } else {
            (Some(Bytes::new()), None)
        };
        let (sequence, answer) = match postback::record(self, live, asked, body.as_deref()) {
            Ok(recorded) => recorded,
            Err(answer) => return *answer,
        };
        let mut synced = self.synced.clone();
        let durable = synced.wait_for(|synced| *synced >= sequence);
        match (tokio::time::timeout(DURABLE_TIMEOUT, durable).await, broken) {
            (Ok(Ok(_)), None) => answer,
            (Ok(Ok(_)), Some((status, line))) => answer::text(status, line),
            _ => answer::text(
                StatusCode::SERVICE_UNAVAILABLE,
                "the disk does not keep up: send the postback again",
            ),
        }
    }

    fn record_unmatched(&self, at_end: bool) {
        let mut recorder = self.recorder.borrow_mut();
        let now_ms = recorder.now_ms();
        let Some((minute_ms, counts)) = self.unmatched.borrow_mut().take(now_ms, at_end) else {
            return;
        };
        for ((domain, reason, class), count) in counts {
            let shard = Shard::of(recorder.seed, b"unmatched");
            let appended = recorder.next().and_then(|key| {
                let event = domain::event::Unmatched {
                    key: Some(key.into()),
                    shard: shard.get().into(),
                    minute_ms,
                    domain: domain.map_or(0, domain::Domain::get),
                    reason: reason.into(),
                    class: class.into(),
                    count,
                };
                recorder.append(Topic::Clicks, shard, Vec::new(), Event::Unmatched(event))
            });
            self.metrics.recorded(appended.is_some());
        }
    }
}

/// Paths that are no slugs, now and for ever.
fn is_reserved(path: &str) -> bool {
    matches!(
        path,
        "/event" | "/pixel.gif" | "/s.js" | "/i.gif" | "/robots.txt" | "/favicon.ico"
    ) || path.starts_with("/.well-known/")
        || path.starts_with("/_/")
}

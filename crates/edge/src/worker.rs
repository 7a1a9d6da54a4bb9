//! One worker: a thread with a runtime of its own, its connections and its journal.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use domain::event::{Class, Decision, Reason, edge_record::Event};
use domain::token::TOKEN_CHARS;
use domain::{Domain, Shard, Topic};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Method, Request, StatusCode};
use routing::{Params, Route};
use service::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::answer::{self, Answer, Reply};
use crate::classify::Classifier;
use crate::click::{self, Asked};
use crate::connection::{self, Connections, Slot};
use crate::cookie::{self, History};
use crate::live::Live;
use crate::metrics::{Metrics, PathKind};
use crate::recorder::Recorder;
use crate::request::{Fields, Head, Host};
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::tls::Tls;
use crate::unmatched::Unmatched;
use crate::{forwarded, postback, request};

/// How long a postback's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a postback waits for the disk before its sender is asked to come again.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open connections may take to end once the process drains.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often connections and the counts of unmatched requests are looked at.
const TICK: Duration = Duration::from_secs(1);
/// What answers are written into at a time, some hundred of them.
const ANSWER_BYTES: usize = 64 * 1024;

/// What one worker's requests share.
pub(crate) struct Worker {
    pub(crate) settings: Arc<Settings>,
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) secrets: Arc<ArcSwap<Secrets>>,
    pub(crate) recorder: RefCell<Recorder>,
    pub(crate) unmatched: RefCell<Unmatched>,
    pub(crate) metrics: Metrics,
    pub(crate) classifier: RefCell<Classifier>,
    /// The listener's own addresses, served as the first domain over plain HTTP.
    pub(crate) local_hosts: Arc<Vec<String>>,
    pub(crate) synced: watch::Receiver<u64>,
    pub(crate) tls: Option<Tls>,
    pub(crate) connections: Connections,
    /// Where locations and cookies are written.
    pub(crate) scratch: RefCell<BytesMut>,
}

/// What `write` writes. The answers before are gone by the time new room is asked for, so that their room is used again.
fn written(bytes: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    if bytes.capacity() == 0 {
        bytes.reserve(ANSWER_BYTES);
    }
    write(bytes);
    bytes.split().freeze()
}

impl Worker {
    /// Accepts until shutdown, then lets open requests end.
    pub(crate) async fn run(
        self: Rc<Self>,
        listener: TcpListener,
        shutdown: Shutdown,
        mut beat: impl FnMut(Result<(), String>),
    ) {
        let accepting = tokio::task::spawn_local(Rc::clone(&self).accept(listener));
        let mut tick = tokio::time::interval(TICK);
        // A worker that stood still has not looked meanwhile: nobody was silent for as long as it missed ticks.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let drain = shutdown.requested_async();
        tokio::pin!(drain);
        loop {
            tokio::select! {
                () = &mut drain => break,
                _ = tick.tick() => {
                    beat(self.recorder.borrow().ready());
                    self.connections.look();
                    self.record_unmatched(false);
                }
            }
        }
        accepting.abort();
        if tokio::time::timeout(DRAIN_TIMEOUT, self.connections.drain())
            .await
            .is_err()
        {
            tracing::warn!("connections were still open at the end of the drain");
        }
        self.record_unmatched(true);
        self.recorder.borrow_mut().end();
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            self.connections.room().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    self.metrics.idle.inc();
                    let visitor = Visitor {
                        worker: Rc::clone(&self),
                        peer: peer.ip(),
                        slot: self.connections.open(),
                    };
                    tokio::task::spawn_local(connection::serve(visitor, stream));
                }
                Err(error) => {
                    // Out of descriptors or memory: open connections end and give some back.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
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
                    domain: domain.map_or(0, Domain::get),
                    reason: reason.into(),
                    class: class.into(),
                    count,
                    catalog_hash: self.live.load().table.catalog().hash,
                };
                recorder.append(Topic::Clicks, shard, &[], Event::Unmatched(event))
            });
            self.metrics.recorded(appended.is_some());
        }
    }

    /// Where a route leads; `token` is `None` where none may be issued.
    pub(crate) fn location(
        &self,
        route: &Route<'_>,
        params: &Params<'_>,
        token: Option<&[u8]>,
    ) -> Bytes {
        let bytes = &mut self.scratch.borrow_mut();
        written(bytes, |bytes| routing::render(route, params, token, bytes))
    }

    /// The `Set-Cookie` value of a history with one more token.
    pub(crate) fn cookie(
        &self,
        live: &Live,
        history: Option<&History>,
        token: &[u8; TOKEN_CHARS],
        secure: bool,
    ) -> Bytes {
        let bytes = &mut self.scratch.borrow_mut();
        written(bytes, |bytes| {
            cookie::write(history, token, secure, live.cookie(secure), bytes);
        })
    }
}

/// Who is at the other end of a connection, and the service hyper calls with their requests.
pub(crate) struct Visitor {
    pub(crate) worker: Rc<Worker>,
    pub(crate) peer: IpAddr,
    pub(crate) slot: Slot,
}

/// The answer to a click is there at once; that to a postback waits for the disk.
pub(crate) enum Answering {
    Now(Option<Answer>),
    Later(Pin<Box<dyn Future<Output = Answer>>>),
}

impl Future for Answering {
    type Output = Result<Answer, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(answer) => Poll::Ready(Ok(answer.take().expect("polled once"))),
            Self::Later(answering) => answering.as_mut().poll(context).map(Ok),
        }
    }
}

impl Service<Request<Incoming>> for Visitor {
    type Response = Answer;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        let begun = Instant::now();
        let kind = PathKind::of(request.uri().path());
        if let PathKind::Postback = kind {
            self.slot.begin();
            let (parts, body) = request.into_parts();
            let (worker, slot, peer) = (Rc::clone(&self.worker), self.slot.clone(), self.peer);
            return Answering::Later(Box::pin(async move {
                let (answer, class) = worker.postback(peer, (&parts).into(), body).await;
                worker.answered(begun, kind, &answer, class, &slot);
                answer
            }));
        }
        let (reply, class) = self.worker.reply(self.peer, (&request).into(), kind);
        let answer = reply.into_answer(std::mem::take(request.headers_mut()));
        self.worker
            .answered(begun, kind, &answer, class, &self.slot);
        Answering::Now(Some(answer))
    }
}

impl Worker {
    fn answered(&self, begun: Instant, kind: PathKind, answer: &Answer, class: Class, slot: &Slot) {
        self.metrics.seconds.observe(begun.elapsed().as_secs_f64());
        self.metrics.answered(kind, answer.status(), class);
        slot.answered(&self.connections);
    }

    /// What is understood of a request, or the answer to one that is refused for its form.
    fn hear<'r>(
        &self,
        live: &Live,
        peer: IpAddr,
        head: Head<'r>,
        fields: &'r Fields<'r>,
    ) -> Result<Asked<'r>, Box<Answer>> {
        if let Err(line) = request::method(head) {
            let allowed = match PathKind::of(head.uri.path()) {
                PathKind::Postback => "GET, POST",
                _ => "GET, HEAD",
            };
            return Err(Box::new(answer::foreign_method(line, allowed)));
        }
        let refused = |(status, line)| Box::new(answer::text(status, line));
        request::target(head).map_err(refused)?;
        // Most requests have a domain's name just as the catalog has it, which needs no check of its form.
        let known = match head.uri.authority() {
            None => fields.plain_host().and_then(|host| live.table.domain(host)),
            Some(_) => None,
        };
        let domain = match known {
            Some(domain) => Some((domain, true)),
            None => self.domain(live, &request::host(head.uri, fields).map_err(refused)?),
        };
        let (class, user_agent) = self.classifier.borrow_mut().classify(head.method, fields);
        Ok(Asked {
            head,
            fields,
            client: forwarded::client(peer, head.headers, &self.settings.trusted_forwarders),
            domain,
            class,
            user_agent,
        })
    }

    fn domain(&self, live: &Live, host: &Host<'_>) -> Option<(Domain, bool)> {
        match live.table.domain(host.name().as_bytes()) {
            Some(domain) => Some((domain, true)),
            None if self
                .local_hosts
                .iter()
                .any(|local| local == host.with_port()) =>
            {
                live.table.first_domain().map(|domain| (domain, false))
            }
            None => None,
        }
    }

    /// Answers everything but a postback.
    fn reply(&self, peer: IpAddr, head: Head<'_>, kind: PathKind) -> (Reply, Class) {
        let live = self.live.load();
        let fields = Fields::read(head.headers);
        let asked = match self.hear(&live, peer, head, &fields) {
            Ok(asked) => asked,
            Err(refused) => return ((*refused).into(), Class::Unspecified),
        };
        let reply = match (asked.domain, kind) {
            (None, _) => self.misdirected(&asked).into(),
            (Some((domain, secure)), PathKind::Slug | PathKind::Click) => {
                click::serve(self, &live, &asked, domain, secure)
            }
            _ if head.uri.path() == "/robots.txt" => {
                answer::text(StatusCode::OK, "User-agent: *\nAllow: /").into()
            }
            _ => answer::text(StatusCode::NOT_FOUND, "nothing is served here").into(),
        };
        (reply, asked.class)
    }

    fn misdirected(&self, asked: &Asked<'_>) -> Answer {
        click::unmatched(self, asked, Reason::UnknownHost, Decision::Refuse);
        answer::text(
            StatusCode::MISDIRECTED_REQUEST,
            "no domain of this name is served here",
        )
    }

    async fn postback(&self, peer: IpAddr, head: Head<'_>, body: Incoming) -> (Answer, Class) {
        let live = self.live.load_full();
        let fields = Fields::read(head.headers);
        let asked = match self.hear(&live, peer, head, &fields) {
            Ok(asked) => asked,
            Err(refused) => return (*refused, Class::Unspecified),
        };
        if asked.domain.is_none() {
            return (self.misdirected(&asked), asked.class);
        }
        (
            self.durable_postback(&live, &asked, body).await,
            asked.class,
        )
    }

    async fn durable_postback(&self, live: &Live, asked: &Asked<'_>, body: Incoming) -> Answer {
        let (body, broken) = if *asked.head.method == Method::POST {
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
}

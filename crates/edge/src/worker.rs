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
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, StatusCode};
use routing::{Params, Route};
use rustix::io::Errno;
use service::{Health, Shutdown};
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;

use crate::answer::{self, Answer, Reply};
use crate::classify::Classifier;
use crate::click::{self, Asked};
use crate::connection::{self, Connections, Slot};
use crate::cookie::{self, History};
use crate::journals::{Again, Journals, Opening};
use crate::live::Live;
use crate::local_hosts::LocalHosts;
use crate::metrics::{Metrics, PathKind};
use crate::postback::{self, BodyKind};
use crate::recorder::Recorder;
use crate::request::{Fields, Head, Host};
use crate::secrets::Secrets;
use crate::settings::{Settings, WhenFull};
use crate::tls::Tls;
use crate::unmatched::Unmatched;
use crate::{forwarded, mend, request};

/// How long a postback's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a postback waits for the disk before its sender is asked to come again.
const DURABLE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long kept connections may still send a request once the process drains: a proxy's do so at once, and each is told
/// with the answer to close.
const DRAIN_KEPT: Duration = Duration::from_secs(1);
/// How long afterwards what is under way may take: a slow client holds nothing up.
const DRAIN_REST: Duration = Duration::from_secs(1);
/// How long a failing accept pauses, which is also how often it is logged.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(1);
/// Where a balancer or a monitor asks for health, whatever the Host.
pub(crate) const HEALTH_PATH: &str = "/_/health";
/// How often connections and the counts of unmatched requests are looked at.
const TICK: Duration = Duration::from_secs(1);
/// What answers are written into at a time, some hundred of them.
const ANSWER_BYTES: usize = 64 * 1024;

/// What one worker's requests share.
pub(crate) struct Worker {
    /// Its number.
    pub(crate) index: usize,
    pub(crate) settings: Arc<ArcSwap<Settings>>,
    pub(crate) live: Arc<ArcSwap<Live>>,
    pub(crate) secrets: Arc<ArcSwap<Secrets>>,
    pub(crate) recorder: RefCell<Recorder>,
    pub(crate) unmatched: RefCell<Unmatched>,
    pub(crate) metrics: Metrics,
    pub(crate) classifier: RefCell<Classifier>,
    /// The listener's own addresses, served as the first domain over plain HTTP.
    pub(crate) local_hosts: Arc<LocalHosts>,
    pub(crate) health: Health,
    pub(crate) journals: Arc<Journals>,
    pub(crate) tls: Option<Arc<ArcSwap<Tls>>>,
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
    /// Accepts until shutdown, then lets open requests end. `opening` is a journal that takes longer than the start could wait.
    pub(crate) async fn run(
        self: Rc<Self>,
        listener: TcpListener,
        mut opening: Option<Opening>,
        shutdown: Shutdown,
    ) {
        let accepting = tokio::task::spawn_local(Rc::clone(&self).accept(listener));
        let mut tick = tokio::time::interval(TICK);
        // A worker that stood still has not looked meanwhile: nobody was silent for as long as it missed ticks.
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let drained = async {
            shutdown.requested_async().await;
            accepting.abort();
            let kept = match shutdown.is_succeeded() {
                // Each ends by its next answer, or by itself.
                true => Duration::from_secs(self.settings.load().head_timeout_s) + 2 * TICK,
                false => DRAIN_KEPT,
            };
            self.connections.drain(kept, DRAIN_REST).await;
        };
        tokio::pin!(drained);
        let clock_ahead = self.metrics.clock_ahead(self.index);
        let name = format!("edge-{}", self.index);
        let mut again = Again::default();
        self.metrics.unopened.add(self.without_journal());
        loop {
            tokio::select! {
                () = &mut drained => break,
                _ = tick.tick() => {
                    let settings = self.settings.load();
                    self.health.beat(&name);
                    self.health.set_ready(&name, self.ready(settings.when_full));
                    self.connections.set_silent_looks_max(settings.head_timeout_s);
                    self.connections.look();
                    self.record_unmatched(false);
                    let ahead_ms = self.recorder.borrow().ahead_ms();
                    clock_ahead.set(ahead_ms as f64 / 1000.0);
                    let outlived = self.recorder.borrow().outlived();
                    let is_closed = self.without_journal() > 0;
                    if opening.is_none() && (outlived.is_some() || is_closed) && again.is_due(Instant::now()) {
                        if let Some(journal) = outlived {
                            tracing::error!(journal, ahead_ms, "the clock was set back, going on in another stream");
                        }
                        opening = Some(self.journals.open_aside(outlived));
                    }
                }
                opened = async { opening.as_mut().expect("checked before").await }, if opening.is_some() => {
                    opening = None;
                    let closed = self.without_journal();
                    match opened {
                        Ok(Ok(opened)) => {
                            self.recorder.borrow_mut().go_on_in(opened);
                            again = Again::default();
                        }
                        Ok(Err(error)) => {
                            let pause_s = again.failed(Instant::now()).as_secs();
                            let cause = std::error::Error::source(&error).map(ToString::to_string);
                            tracing::error!(%error, cause, pause_s, "journal not opened, trying again");
                        }
                        Err(_) => {
                            let pause_s = again.failed(Instant::now()).as_secs();
                            tracing::error!(pause_s, "no thread to open a journal, trying again");
                        }
                    }
                    self.metrics.unopened.add(self.without_journal() - closed);
                }
            }
        }
        self.metrics.unopened.sub(self.without_journal());
        self.record_unmatched(true);
        self.recorder.borrow_mut().end();
        self.health.ended(&name);
    }

    /// Whether clicks can be recorded. Where they are redirected all the same, a balancer must not take all edges out at once
    /// because a stream is away for long; a worker without a journal is this machine's own trouble.
    fn ready(&self, when_full: WhenFull) -> Result<(), String> {
        let recorder = self.recorder.borrow();
        match when_full {
            WhenFull::Redirect if recorder.is_open() => Ok(()),
            _ => recorder.ready(),
        }
    }

    /// 1 where this worker has no journal.
    fn without_journal(&self) -> i64 {
        i64::from(!self.recorder.borrow().is_open())
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        let mut told: Option<Instant> = None;
        let count = |evicted: usize| self.metrics.evicted.inc_by(evicted as u64);
        loop {
            self.connections.room(count).await;
            let error = match listener.accept().await {
                Ok((stream, peer)) => {
                    self.metrics.idle.inc();
                    let visitor = Visitor {
                        worker: Rc::clone(&self),
                        peer: peer.ip(),
                        slot: self.connections.open(),
                    };
                    tokio::task::spawn_local(connection::serve(visitor, stream));
                    continue;
                }
                Err(error) => error,
            };
            // One connection's own error (it is gone already) says nothing of the next one.
            let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
            if !Errno::from_io_error(&error).is_some_and(|errno| lacks.contains(&errno)) {
                tracing::debug!(%error, "connection ended before it was accepted");
                continue;
            }
            if told.is_none_or(|told| told.elapsed() >= ACCEPT_LOG_EVERY) {
                told = Some(Instant::now());
                tracing::warn!(%error, "cannot accept");
            }
            count(self.connections.evict());
            tokio::time::sleep(ACCEPT_PAUSE).await;
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
        let mut kind = PathKind::of(request.uri().path());
        let mut is_mended = false;
        if let PathKind::Slug = kind
            && let Some(uri) = mend::reserved(request.uri())
        {
            kind = PathKind::of(uri.path());
            *request.uri_mut() = uri;
            is_mended = true;
        }
        if let PathKind::Postback = kind {
            self.slot.begin();
            let (parts, body) = request.into_parts();
            let (worker, slot, peer) = (Rc::clone(&self.worker), self.slot.clone(), self.peer);
            return Answering::Later(Box::pin(async move {
                let (mut answer, class) = worker.postback(peer, (&parts).into(), body).await;
                worker.close_if_draining(&mut answer);
                worker.answered(begun, kind, &answer, class, &slot);
                answer
            }));
        }
        let (reply, class) = self
            .worker
            .reply(self.peer, (&request).into(), kind, is_mended);
        let mut answer = reply.into_answer(std::mem::take(request.headers_mut()));
        self.worker.close_if_draining(&mut answer);
        self.worker
            .answered(begun, kind, &answer, class, &self.slot);
        Answering::Now(Some(answer))
    }
}

impl Worker {
    fn answered(&self, begun: Instant, kind: PathKind, answer: &Answer, class: Class, slot: &Slot) {
        let seconds = begun.elapsed().as_secs_f64();
        self.metrics.answered(kind, answer.status(), class, seconds);
        slot.answered(&self.connections);
    }

    /// Tells a kept connection that this was its last answer.
    fn close_if_draining(&self, answer: &mut Answer) {
        if self.connections.is_closing() {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
    }

    /// What a balancer is told.
    fn health(&self) -> Answer {
        let (status, line) = match self.health.ready() {
            Ok(()) => (StatusCode::OK, "ok"),
            Err(_) if self.health.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            // Why it is not is nobody's business on this listener.
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        };
        answer::text(status, line)
    }

    /// What is understood of a request, or the answer to one that is refused for its form.
    fn hear<'r>(
        &self,
        live: &Live,
        peer: IpAddr,
        head: Head<'r>,
        fields: &'r Fields<'r>,
    ) -> Result<Asked<'r>, Box<Answer>> {
        let refused = |(status, line)| Box::new(answer::text(status, line));
        // Most requests have a domain's name just as the catalog has it, which needs no check of its form.
        let known = match head.uri.authority() {
            None => fields.plain_host().and_then(|host| live.table.domain(host)),
            Some(_) => None,
        };
        let domain = match known {
            Some(domain) => Some((domain, true)),
            None => self.domain(live, &request::host(head.uri, fields).map_err(refused)?),
        };
        if let Err(line) = request::method(head) {
            let allowed = match PathKind::of(head.uri.path()) {
                PathKind::Postback => "GET, POST",
                _ => "GET, HEAD",
            };
            return Err(Box::new(answer::foreign_method(line, allowed)));
        }
        request::target(head).map_err(refused)?;
        let (class, user_agent) = self.classifier.borrow_mut().classify(head.method, fields);
        Ok(Asked {
            head,
            fields,
            client: forwarded::client(peer, head.headers, &self.settings.load().trusted_forwarders),
            domain,
            class,
            user_agent,
            is_mended: false,
        })
    }

    fn domain(&self, live: &Live, host: &Host<'_>) -> Option<(Domain, bool)> {
        match live.table.domain(host.name().as_bytes()) {
            Some(domain) => Some((domain, true)),
            None if self.local_hosts.contains(host) => {
                live.table.first_domain().map(|domain| (domain, false))
            }
            None => None,
        }
    }

    /// Answers everything but a postback.
    fn reply(
        &self,
        peer: IpAddr,
        head: Head<'_>,
        kind: PathKind,
        is_mended: bool,
    ) -> (Reply, Class) {
        if let PathKind::Other = kind
            && head.uri.path() == HEALTH_PATH
        {
            return (self.health().into(), Class::Unspecified);
        }
        let live = self.live.load();
        let fields = Fields::read(head.headers);
        let mut asked = match self.hear(&live, peer, head, &fields) {
            Ok(asked) => asked,
            Err(refused) => return ((*refused).into(), Class::Unspecified),
        };
        asked.is_mended = is_mended;
        let reply = match (asked.domain, kind) {
            (None, _) => self.misdirected(&asked).into(),
            (Some((domain, secure)), PathKind::Slug | PathKind::Click) => {
                click::serve(self, &live, &asked, domain, secure)
            }
            _ if request::is_too_long(head) => {
                let (status, line) = request::TOO_LONG;
                answer::text(status, line).into()
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
        if request::is_too_long(head) {
            let (status, line) = request::TOO_LONG;
            return (answer::text(status, line), asked.class);
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
        let kind = BodyKind::of(asked.head.headers);
        let broken = match kind {
            None if broken.is_none() && *asked.head.method == Method::POST => Some((
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a body of this type is not read: send a form (application/x-www-form-urlencoded) or JSON",
            )),
            _ => broken,
        };
        // What a GET's head says of a body that it does not have means nothing.
        let kind = kind.or((*asked.head.method == Method::GET).then_some(BodyKind::Form));
        let body = kind.zip(body.as_deref());
        let (sequence, answer) = match postback::record(self, live, asked, body) {
            Ok(recorded) => recorded,
            Err(answer) => return *answer,
        };
        let synced = self.recorder.borrow().synced();
        let mut synced = synced.expect("it was just recorded");
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

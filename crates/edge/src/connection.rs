//! Connections: how many there are, how long they may be silent, and what an idle one costs.
//!
//! Hyper's own timer would be set anew for every request. Here a request leaves the number of the second it was answered in,
//! and once a second every connection is looked at: one that was silent for too long is closed, one that is idle gives back
//! hyper's buffers (some 18 KiB) and only waits for its socket to be readable. A new connection has them from the start: tokio
//! reports a new socket as readable, and as a rule the request is there.
//!
//! At the bound the connection that is silent longest gives way, so that silent ones keep nobody out.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use crate::worker::Visitor;

/// A request's head and headers together. Browsers stay below 4 KiB, but a redirect host on a shop's own site also gets the
/// cookies of that site.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// At the bound one connection in so many gives way at a time: to find them, all are looked at.
const EVICTED_SHARE: usize = 64;
/// Looks after which a silent connection gives back its buffers: at least a second of silence.
const IDLE_LOOKS: u64 = 2;

/// The connections of one worker.
pub(crate) struct Connections {
    max: usize,
    silent_looks_max: Cell<u64>,
    looks: Cell<u64>,
    open: Cell<usize>,
    slots: RefCell<Vec<Slot>>,
    /// One ended, or one more may give way.
    ended: Notify,
    is_closing: Cell<bool>,
}

/// What a connection and those who look at it tell each other.
#[derive(Clone)]
pub(crate) struct Slot(Rc<State>);

struct State {
    /// The look before its last answer, or before it was opened.
    since: Cell<u64>,
    answers: Cell<u64>,
    /// A request is being answered: the silence is ours.
    busy: Cell<bool>,
    /// Bytes came that no answer followed yet.
    heard: Cell<bool>,
    /// An answer is not yet written.
    unwritten: Cell<bool>,
    /// It holds no buffers.
    is_parked: Cell<bool>,
    wish: Cell<Wish>,
    waker: RefCell<Option<Waker>>,
}

/// What a connection is to do.
#[derive(Clone, Copy, PartialEq)]
enum Wish {
    Stay,
    /// Give back its buffers, if no request is under way.
    Park,
    /// End after the request that is under way.
    Leave,
    /// End at once.
    Over,
}

impl Connections {
    /// At most `max` at a time, each silent for at most so many looks, of which there is one a second.
    pub(crate) fn new(max: usize, silent_looks_max: u64) -> Self {
        Self {
            max,
            silent_looks_max: Cell::new(silent_looks_max),
            looks: Cell::new(0),
            open: Cell::new(0),
            slots: RefCell::default(),
            ended: Notify::new(),
            is_closing: Cell::new(false),
        }
    }

    pub(crate) fn set_silent_looks_max(&self, looks: u64) {
        self.silent_looks_max.set(looks);
    }

    /// Waits until one more may be opened. At the bound those that are silent longest give way; `evicted` is told how many.
    pub(crate) async fn room(&self, evicted: impl Fn(usize)) {
        while self.open.get() >= self.max {
            evicted(self.evict());
            self.ended.notified().await;
        }
    }

    /// Closes those that are silent longest, for a look at least; how many.
    pub(crate) fn evict(&self) -> usize {
        let now = self.looks.get();
        let slots = self.slots.borrow();
        let open = slots.iter().filter(|slot| slot.is_open());
        // One whose answer waits for us only where no other is left.
        let mut silent: Vec<(bool, u64, &Slot)> = open
            .map(|slot| (slot.0.busy.get(), slot.0.since.get(), slot))
            .filter(|(_, since, _)| *since < now)
            .collect();
        // In the order of their opening where they are alike, because the sort is stable.
        silent.sort_by_key(|(busy, since, _)| (*busy, *since));
        let count = silent.len().min((self.max / EVICTED_SHARE).max(1));
        for (.., slot) in &silent[..count] {
            slot.wish(Wish::Over);
        }
        count
    }

    pub(crate) fn open(&self) -> Slot {
        self.open.set(self.open.get() + 1);
        let slot = Slot(Rc::new(State {
            since: self.looks.clone(),
            answers: Cell::new(0),
            busy: Cell::new(false),
            heard: Cell::new(false),
            unwritten: Cell::new(false),
            is_parked: Cell::new(true),
            wish: Cell::new(Wish::Stay),
            waker: RefCell::default(),
        }));
        self.slots.borrow_mut().push(slot.clone());
        slot
    }

    fn close(&self) {
        self.open.set(self.open.get() - 1);
        self.ended.notify_one();
    }

    /// Looks at every connection.
    pub(crate) fn look(&self) {
        let now = self.looks.get() + 1;
        self.looks.set(now);
        self.slots.borrow_mut().retain(|slot| {
            let state = &*slot.0;
            if Rc::strong_count(&slot.0) == 1 {
                return false;
            }
            let silent = match state.busy.get() {
                true => 0,
                false => now - state.since.get(),
            };
            if silent > self.silent_looks_max.get() {
                slot.wish(Wish::Over);
            } else if silent >= IDLE_LOOKS && state.is_idle() {
                slot.wish(Wish::Park);
            }
            true
        });
        // Whoever waits for room may find one that is silent now.
        self.ended.notify_one();
    }

    /// Lets every connection end: with its next answer, as an idle one after `kept`, and whatever it does after `rest` more.
    pub(crate) async fn drain(&self, kept: Duration, rest: Duration) {
        self.is_closing.set(true);
        for (bound, then) in [(kept, Wish::Leave), (rest, Wish::Over)] {
            if tokio::time::timeout(bound, self.until_none()).await.is_ok() {
                return;
            }
            for slot in &*self.slots.borrow() {
                slot.wish(then);
            }
        }
        let open = self.open.get();
        tracing::warn!(
            open,
            "connections were still open at the end of the drain and are cut off"
        );
        self.until_none().await;
    }

    async fn until_none(&self) {
        while self.open.get() > 0 {
            self.ended.notified().await;
        }
    }

    /// Whether each connection ends with its next answer.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }
}

impl State {
    /// Whether it holds buffers with nothing in them.
    fn is_idle(&self) -> bool {
        !self.is_parked.get() && !self.heard.get() && !self.unwritten.get()
    }
}

impl Slot {
    fn is_open(&self) -> bool {
        Rc::strong_count(&self.0) > 1 && self.0.wish.get() != Wish::Over
    }

    fn wish(&self, wish: Wish) {
        self.0.wish.set(wish);
        if let Some(waker) = &*self.0.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// A request is under way whose answer waits for something.
    pub(crate) fn begin(&self) {
        self.0.busy.set(true);
    }

    /// It is answered.
    pub(crate) fn answered(&self, connections: &Connections) {
        self.0.busy.set(false);
        self.0.since.set(connections.looks.get());
        self.0.answers.set(self.0.answers.get() + 1);
        self.0.heard.set(false);
        self.0.unwritten.set(true);
    }

    /// Waits until there is something to read; false where the connection is to end.
    async fn readable(&self, socket: &mut Socket) -> io::Result<bool> {
        if socket.holds_bytes() {
            return Ok(true);
        }
        poll_fn(|context| match self.0.wish.get() {
            Wish::Leave | Wish::Over => Poll::Ready(Ok(false)),
            Wish::Stay | Wish::Park => {
                ready!(socket.tcp().poll_read_ready(context))?;
                Poll::Ready(Ok(true))
            }
        })
        .await
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(visitor: Visitor, stream: TcpStream) {
    let (worker, slot) = (Rc::clone(&visitor.worker), visitor.slot.clone());
    let mut speaking = pin!(speak(visitor, stream));
    let spoken = poll_fn(|context| {
        if slot.0.wish.get() == Wish::Over {
            return Poll::Ready(Ok(()));
        }
        // A task has one waker for its life.
        slot.0
            .waker
            .borrow_mut()
            .get_or_insert_with(|| context.waker().clone());
        speaking.as_mut().poll(context)
    });
    if let Err(error) = spoken.await {
        // What is no request hyper answers itself.
        let refused = error.downcast_ref::<hyper::Error>().and_then(|error| {
            match error.is_parse_too_large() {
                true => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
                false => error.is_parse().then_some(StatusCode::BAD_REQUEST),
            }
        });
        if let Some(status) = refused {
            worker.metrics.refused(status);
        }
        // Visitors hang up, scanners send rubbish: not worth more than a debug line.
        tracing::debug!(%error, "connection ended early");
    }
    // It keeps the task in memory, and the slot is looked at only once a second.
    slot.0.waker.take();
    let metrics = &worker.metrics;
    match slot.0.is_parked.get() {
        true => metrics.idle.dec(),
        false => metrics.active.dec(),
    }
    worker.connections.close();
}

type Failure = Box<dyn std::error::Error>;

async fn speak(mut visitor: Visitor, stream: TcpStream) -> Result<(), Failure> {
    let (worker, slot) = (Rc::clone(&visitor.worker), visitor.slot.clone());
    let mut socket = Socket::Plain(stream);
    if let Some(tls) = &worker.tls
        && let Socket::Plain(stream) = socket
    {
        let tls = tls.load_full();
        // On the heap: as long as the connection lives it would have room in its task.
        let mut accepting = Box::pin(tls.accept(stream));
        let accepted = poll_fn(|context| match slot.0.wish.get() {
            Wish::Leave | Wish::Over => Poll::Ready(None),
            Wish::Stay | Wish::Park => accepting.as_mut().poll(context).map(Some),
        });
        let Some(accepted) = accepted.await else {
            return Ok(());
        };
        socket = Socket::Tls(Box::new(accepted?));
    }
    let mut left = Bytes::new();
    loop {
        if left.is_empty() && !slot.readable(&mut socket).await? {
            break;
        }
        slot.0.is_parked.set(false);
        worker.metrics.idle.dec();
        worker.metrics.active.inc();
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_BYTES_MAX);
        // Answers are a head and next to no body: one buffer is written more cheaply than a list of them.
        http.writev(false);
        // Who closes its half after the request, as simple senders of postbacks do, still waits for the answer.
        http.half_close(true);
        let io = TokioIo::new(Rewound {
            left,
            socket,
            slot: slot.clone(),
        });
        let mut http = Box::new(http.serve_connection(io, visitor));
        let mut told = false;
        let (ended, is_parked) = poll_fn(|context| {
            let answers = slot.0.answers.get();
            let asked = !told && slot.0.wish.get() != Wish::Stay;
            if asked {
                told = true;
                Pin::new(&mut *http).graceful_shutdown();
            }
            if asked && slot.0.wish.get() == Wish::Park {
                let ended = ready!(http.poll_without_shutdown(context));
                // It ends right away where no request was under way.
                if answers == slot.0.answers.get() {
                    return Poll::Ready((ended, true));
                }
            }
            let ended = ready!(Pin::new(&mut *http).poll(context));
            Poll::Ready((ended, false))
        })
        .await;
        ended?;
        if !is_parked {
            return Ok(());
        }
        let parts = http.into_parts();
        Rewound { socket, .. } = parts.io.into_inner();
        visitor = parts.service;
        // An empty `Bytes` would still keep the whole allocation alive.
        left = match parts.read_buf.is_empty() {
            true => Bytes::new(),
            false => parts.read_buf,
        };
        slot.0.is_parked.set(true);
        worker.metrics.active.dec();
        worker.metrics.idle.inc();
        slot.0.wish.set(Wish::Stay);
    }
    // Closing a socket ends a plain connection; TLS says that nothing was cut off.
    if let Socket::Tls(mut stream) = socket {
        poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await?;
    }
    Ok(())
}

/// Plain or not.
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether bytes that were read from the network wait in here: a request may come with the end of the handshake.
    fn holds_bytes(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => {
                let state = stream.get_mut().1.process_new_packets();
                // What is wrong with them is told by the next read.
                state.map_or(true, |state| state.plaintext_bytes_to_read() > 0)
            }
        }
    }
}

/// A socket behind bytes that were read from it before. It tells the slot what comes and goes.
struct Rewound {
    left: Bytes,
    socket: Socket,
    slot: Slot,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.left.is_empty() {
            let length = self.left.len().min(buffer.remaining());
            buffer.put_slice(&self.left[..length]);
            self.left.advance(length);
            self.slot.0.heard.set(true);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Socket::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        if buffer.filled().len() > before {
            self.slot.0.heard.set(true);
        }
        read
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Socket::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    /// Hyper asks for it when it has written all it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(context),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(context),
        };
        if flushed.is_ready() {
            self.slot.0.unwritten.set(false);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

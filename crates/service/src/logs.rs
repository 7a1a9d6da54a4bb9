//! Logs go to standard error, one line each: a fixed lower-case phrase plus fields.
//!
//! A line is put into a bounded queue and a thread of its own writes it. Whoever logs never waits for standard error, and a
//! line that cannot be written (a full disk, a closed pipe) or does not fit the queue (a reader that stands still) is
//! dropped and counted: no log line ever stops a redirect. `tracing-appender` does the same, but needs a second time
//! library, and prints, which may panic, when its queue is full at the end.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::{EnvFilter, fmt};

/// The variable that says what is logged, in `tracing`'s filter syntax: `debug`, `info,edge=trace`, …
pub const FILTER_VARIABLE: &str = "SLUICE_LOG";

/// What is logged when nobody asked for anything else.
const FILTER_DEFAULT: &str = "info";

/// Lines that wait to be written: a burst of a start with many parts, and at most some MiB when the reader stands still.
const QUEUE_LINES_MAX: usize = 8192;

/// How long the end of a process waits for its last lines, and its first lines for standard output. A reader that takes
/// none within it gets none.
const WAIT_MAX: Duration = Duration::from_secs(1);

static QUEUE: OnceLock<SyncSender<Entry>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Entry {
    Line(Vec<u8>),
    /// Everything before it is written: say so.
    Flush(SyncSender<()>),
}

/// Starts logging for this process. A second call changes nothing, so that tests may call it freely.
pub fn init() {
    let asked = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let parsed = if asked.is_empty() {
        Ok(EnvFilter::new(FILTER_DEFAULT))
    } else {
        EnvFilter::try_new(&asked)
    };
    let mistake = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));

    let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
    let subscriber = fmt()
        .with_writer(Lines(queue.clone()))
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(filter)
        // It would tell a failure on standard error with a call that panics.
        .log_internal_errors(false)
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        return;
    }
    let writer = std::thread::Builder::new().name("logs".into());
    // Without the thread the receiver is gone: every line counts as dropped, and the process goes on.
    let _ = writer.spawn(move || write(&lines, &mut io::stderr(), &DROPPED));
    let _ = QUEUE.set(queue);
    if let Some(mistake) = mistake {
        tracing::warn!(
            variable = FILTER_VARIABLE,
            value = asked,
            mistake,
            "log filter not understood, using info"
        );
    }
}

/// Lines that were dropped since the start.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Waits until the lines logged so far are written, for a second at most: the last act of a process.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (written, done) = sync_channel(1);
    // A queue that is full at the end has a reader that stands still.
    if queue.try_send(Entry::Flush(written)).is_ok() {
        let _ = done.recv_timeout(WAIT_MAX);
    }
}

/// Says something on standard output that is not worth a process: whoever closed it, or does not read, does without.
pub fn say(text: String) {
    let (written, done) = sync_channel(1);
    let say = move || {
        let mut stdout = io::stdout();
        let _ = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
        let _ = written.send(());
    };
    if std::thread::Builder::new()
        .name("say".into())
        .spawn(say)
        .is_ok()
    {
        let _ = done.recv_timeout(WAIT_MAX);
    }
}

/// Writes lines until nobody can send one. Counts what it cannot write, and says how many were dropped as soon as it can.
fn write(lines: &Receiver<Entry>, out: &mut impl Write, dropped: &AtomicU64) {
    let mut told = 0;
    for entry in lines {
        match entry {
            Entry::Line(line) => {
                let lost = dropped.load(Ordering::Relaxed);
                let mut text = Vec::new();
                if lost > told {
                    text = format!("{} log lines were dropped before this one\n", lost - told)
                        .into_bytes();
                }
                text.extend(line);
                match out.write_all(&text) {
                    Ok(()) => told = lost,
                    Err(_) => _ = dropped.fetch_add(1, Ordering::Relaxed),
                }
            }
            Entry::Flush(written) => {
                let _ = out.flush();
                let _ = written.send(());
            }
        }
    }
}

/// Makes a line of each event: `tracing` writes it whole, with one call.
struct Lines(SyncSender<Entry>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

struct Line<'a>(&'a SyncSender<Entry>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Entry::Line(bytes.to_vec())).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as a full disk does, until it has room again.
    struct Disk {
        full_for: usize,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full_for > 0 {
                self.full_for -= 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_told_later() {
        let (queue, lines) = sync_channel(8);
        for line in ["one\n", "two\n", "three\n"] {
            queue.send(Entry::Line(line.into())).unwrap();
        }
        drop(queue);
        let dropped = AtomicU64::new(0);
        let mut disk = Disk {
            full_for: 2,
            written: Vec::new(),
        };
        write(&lines, &mut disk, &dropped);
        assert_eq!(dropped.into_inner(), 2);
        assert_eq!(
            String::from_utf8(disk.written).unwrap(),
            "2 log lines were dropped before this one\nthree\n"
        );
    }

    #[test]
    fn a_queue_that_nobody_empties_drops_lines_and_holds_nobody_up() {
        let (queue, _lines) = sync_channel(2);
        let before = dropped();
        for _ in 0..5 {
            Line(&queue).write_all(b"line\n").unwrap();
        }
        assert_eq!(dropped() - before, 3);
    }
}

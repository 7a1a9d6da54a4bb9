//! The hand-over of a running process to its successor: open sockets and locks go from one to the other, so that no
//! connection is refused in between.
//!
//! The running process listens on a socket in its data folder (mode 0700: whoever may write there may take over). The
//! successor connects and gets the names of what is handed over in one line, with the descriptors beside it. Nothing changes
//! until the successor says that it is ready: a successor that dies before then leaves all as it was.

use std::fs::{DirBuilder, File};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sockets and locks of one process.
const DESCRIPTORS_MAX: usize = 8;
/// The names of so many, and the line's head.
const LINE_BYTES_MAX: usize = 256;
const HEAD: &str = "sluice 1";
const READY: &[u8; 6] = b"ready\n";
/// Far above what a running process takes to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Far above what a successor takes to start; afterwards another one may ask.
const START_MAX: Duration = Duration::from_secs(120);

/// What a process is ready to hand over.
#[derive(Debug, Default)]
pub struct Offer {
    handed: Handed,
}

/// Empty once the offer is withdrawn.
type Handed = Arc<Mutex<Vec<(&'static str, OwnedFd)>>>;

impl Offer {
    /// Lets the descriptors go: a process that ends without a successor must not keep a socket open that nobody accepts on.
    pub fn withdraw(&self) {
        lock(&self.handed).clear();
    }
}

fn lock(handed: &Handed) -> MutexGuard<'_, Vec<(&'static str, OwnedFd)>> {
    handed.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits, on a thread of its own, for a successor in `data`, hands it these descriptors, and calls `succeeded` when it is
/// ready. `what` tells processes of several kinds in one folder apart.
///
/// # Errors
/// When the socket cannot be made; the process can then be restarted only with its sockets closed in between.
pub fn offer(
    data: &Path,
    what: &str,
    handed: Vec<(&'static str, OwnedFd)>,
    succeeded: impl FnOnce() + Send + 'static,
) -> io::Result<Offer> {
    let folder = data.join("handover");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)?;
    let folder_file = File::open(&folder)?;
    // Beside it and renamed: the successor's socket takes the place of its predecessor's.
    let young = folder.join(format!("{what}.new"));
    match std::fs::remove_file(&young) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(short_path(&folder_file, &format!("{what}.new")))?;
    std::fs::rename(&young, folder.join(what))?;
    let offer = Offer {
        handed: Arc::new(Mutex::new(handed)),
    };
    let handed = Arc::clone(&offer.handed);
    std::thread::Builder::new()
        .name("handover".into())
        .spawn(move || {
            for successor in listener.incoming() {
                match successor.and_then(|successor| hand(&successor, &handed)) {
                    Ok(()) => {
                        tracing::info!("a successor took over, draining");
                        lock(&handed).clear();
                        return succeeded();
                    }
                    Err(error) => tracing::warn!(%error, "a successor asked and did not take over"),
                }
            }
        })?;
    Ok(offer)
}

fn hand(mut successor: &UnixStream, handed: &Handed) -> io::Result<()> {
    successor.set_write_timeout(Some(ANSWER_MAX))?;
    successor.set_read_timeout(Some(START_MAX))?;
    let handed = lock(handed);
    if handed.is_empty() {
        return Err(io::Error::other("this process ends already"));
    }
    let names: Vec<&str> = handed.iter().map(|(name, _)| *name).collect();
    let line = format!("{HEAD} {}\n", names.join(" "));
    let descriptors: Vec<BorrowedFd<'_>> = handed.iter().map(|(_, fd)| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(
        line.len() <= LINE_BYTES_MAX && control.push(SendAncillaryMessage::ScmRights(&descriptors)),
        "a process hands over a handful of descriptors"
    );
    let line = [IoSlice::new(line.as_bytes())];
    sendmsg(successor, &line, &mut control, SendFlags::NOSIGNAL)?;
    // Withdrawing must not wait for a successor that is slow to start.
    drop(handed);
    let mut answer = [0; READY.len()];
    successor.read_exact(&mut answer)?;
    match &answer == READY {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A running process that handed over its descriptors and goes on until it is [released](Predecessor::release).
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    handed: Vec<(String, OwnedFd)>,
}

/// Asks the running process of this kind in `data` for its descriptors; `None` where none runs.
///
/// # Errors
/// When it does not answer, or in another version's words.
pub fn ask(data: &Path, what: &str) -> io::Result<Option<Predecessor>> {
    let folder = match File::open(data.join("handover")) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let stream = match UnixStream::connect(short_path(&folder, what)) {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            // Nobody listens: the socket is one of a process that is gone.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => return Ok(None),
            _ => return Err(error),
        },
    };
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let mut line = [0; LINE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        &stream,
        &mut [IoSliceMut::new(&mut line)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(handed) = message {
            descriptors.extend(handed);
        }
    }
    let names = std::str::from_utf8(&line[..received.bytes])
        .ok()
        .and_then(|line| line.strip_prefix(HEAD)?.strip_suffix('\n'))
        .ok_or_else(|| io::Error::other("the running process speaks another version's words"))?;
    let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
    if names.len() != descriptors.len() {
        return Err(io::Error::other("descriptors were lost on the way"));
    }
    Ok(Some(Predecessor {
        stream,
        handed: names.into_iter().zip(descriptors).collect(),
    }))
}

impl Predecessor {
    /// The descriptor of a name; `None` where it was not handed over, or taken before.
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let place = self.handed.iter().position(|(handed, _)| handed == name)?;
        Some(self.handed.swap_remove(place).1)
    }

    /// Tells it that its successor is ready: it drains and ends.
    ///
    /// # Errors
    /// When it is gone.
    pub fn release(mut self) -> io::Result<()> {
        self.stream.write_all(READY)
    }
}

/// A path to a socket of any length: the system takes 107 bytes only, so the folder is named by its descriptor.
fn short_path(folder: &File, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", folder.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_socket_goes_from_one_process_to_the_next() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path().join("d".repeat(120));
        std::fs::create_dir(&data).unwrap();
        assert!(ask(&data, "edge").unwrap().is_none());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (succeeded, told) = sync_channel(1);
        let handed = vec![("edge", listener.into())];
        let _offer = offer(&data, "edge", handed, move || succeeded.send(()).unwrap()).unwrap();
        assert!(ask(&data, "up").unwrap().is_none());

        // One that dies before it is ready changes nothing.
        drop(ask(&data, "edge").unwrap().unwrap());
        let mut predecessor = ask(&data, "edge").unwrap().unwrap();
        let taken = TcpListener::from(predecessor.take("edge").unwrap());
        assert!(predecessor.take("edge").is_none());
        assert!(told.try_recv().is_err());
        predecessor.release().unwrap();
        told.recv_timeout(Duration::from_secs(20)).unwrap();

        let _client = TcpStream::connect(address).unwrap();
        taken.accept().unwrap();
    }

    #[test]
    fn a_process_that_ends_keeps_no_socket_open_that_nobody_accepts_on() {
        let data = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let handed = vec![("edge", listener.into())];
        let offer = offer(data.path(), "edge", handed, || {}).unwrap();
        TcpStream::connect(address).unwrap();
        offer.withdraw();
        TcpStream::connect(address).unwrap_err();
        ask(data.path(), "edge").unwrap_err();
    }

    #[test]
    fn the_socket_of_a_process_that_is_gone_is_nobody() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("handover");
        std::fs::create_dir(&folder).unwrap();
        drop(UnixListener::bind(folder.join("edge")).unwrap());
        assert!(ask(data.path(), "edge").unwrap().is_none());
    }
}

//! Files as memory, read only.
//!
//! A mapped file is read where it lies, in pages that the machine can take back. The price is that whoever shortens or
//! changes the file changes memory under a running program.
#![expect(
    unsafe_code,
    reason = "mapping a file is: nothing but the rule below keeps its bytes from changing"
)]

use std::{fs::File, io};

use bytes::Bytes;
use memmap2::{Advice, Mmap};

/// Maps a whole file and asks the kernel to read it in, without waiting for it.
///
/// Only for files that nobody changes or shortens while they are mapped: a snapshot, which is written under another name,
/// renamed into place and from then on only ever deleted, or a temporary file without a name.
pub(crate) fn map(file: &File) -> io::Result<Bytes> {
    // SAFETY: upheld by the callers, which map such files only (see above). Deleting a file keeps its pages.
    let map = unsafe { Mmap::map(file)? };
    // Advice: without it the pages come one by one, when they are checked.
    let _ = map.advise(Advice::WillNeed);
    Ok(Bytes::from_owner(map))
}

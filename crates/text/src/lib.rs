//! Text as people save it, and names as people mistype them: what every part does alike that reads a file or a word of a
//! person.

mod nearest;

use std::io::{self, ErrorKind};

pub use nearest::nearest;

/// What is wrong with a file's bytes, and in which line; 0 when it is the whole file.
#[derive(Debug, PartialEq, Eq)]
pub struct NotText {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: &'static str,
}

const MARK: &[u8] = b"\xef\xbb\xbf";
const NOT_UTF_8: &str = "not UTF-8 text: save it as UTF-8";
const UTF_16: &str = "is UTF-16, as Windows programs write it: save it as UTF-8";

/// The bytes without a byte-order mark; refused when they are UTF-16.
pub fn without_mark(bytes: &[u8]) -> Result<&[u8], &'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(UTF_16),
        // Without a mark: every second byte of plain letters is zero.
        [0, _, 0, _, ..] | [_, 0, _, 0, ..] => Err(UTF_16),
        _ => Ok(bytes.strip_prefix(MARK).unwrap_or(bytes)),
    }
}

/// The text of a file.
pub fn decode(bytes: &[u8]) -> Result<&str, NotText> {
    let bytes = without_mark(bytes).map_err(|message| NotText { line: 0, message })?;
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        NotText {
            line: memchr::memchr_iter(b'\n', good).count() + 1,
            message: NOT_UTF_8,
        }
    })
}

/// Why a file cannot be read or written, in the words of people where the system has only its own; the caller names the file.
pub fn io_error(error: &io::Error) -> String {
    if error.raw_os_error().is_none() {
        return error.to_string();
    }
    match error.kind() {
        ErrorKind::NotFound => "there is no such file or folder: check its path".to_owned(),
        ErrorKind::PermissionDenied => {
            "this user has no right to it: change its owner or mode, or run this as its user"
                .to_owned()
        }
        ErrorKind::IsADirectory => "is a folder: name a file".to_owned(),
        ErrorKind::NotADirectory => "a part of its path is a file, not a folder".to_owned(),
        ErrorKind::StorageFull => format!("{error}: make room on its disk"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_encodings() {
        for (bytes, expected) in [
            (&b"a = 1"[..], Ok("a = 1")),
            (b"\xef\xbb\xbfa = 1", Ok("a = 1")),
            (b"\xef\xbb\xbf", Ok("")),
            (b"", Ok("")),
            (b"\xff\xfea\0 \0", Err((0, UTF_16))),
            (b"\xfe\xff\0a\0 ", Err((0, UTF_16))),
            (b"a\0=\x001\0", Err((0, UTF_16))),
            (b"a = 1\nb = '\xe9'", Err((2, NOT_UTF_8))),
        ] {
            let expected = expected.map_err(|(line, message)| NotText { line, message });
            assert_eq!(decode(bytes), expected, "{bytes:?}");
        }
    }
}

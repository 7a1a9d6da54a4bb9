//! Text files as the programs of their authors write them: UTF-8, with or without a byte-order mark.

/// What is wrong with a file's bytes, and in which line; 0 when it is the whole file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotText {
    pub(crate) line: usize,
    pub(crate) message: &'static str,
}

const MARK: &[u8] = b"\xef\xbb\xbf";
const UTF_16: &str = "is UTF-16, as Windows programs write it: save it as UTF-8";

/// The bytes without a byte-order mark; refused when they are UTF-16.
pub(crate) fn without_mark(bytes: &[u8]) -> Result<&[u8], &'static str> {
    match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(UTF_16),
        // Without a mark: every second byte of plain letters is zero.
        [0, _, 0, _, ..] | [_, 0, _, 0, ..] => Err(UTF_16),
        _ => Ok(bytes.strip_prefix(MARK).unwrap_or(bytes)),
    }
}

/// The text of a file.
pub(crate) fn decode(bytes: &[u8]) -> Result<&str, NotText> {
    let bytes = without_mark(bytes).map_err(|message| NotText { line: 0, message })?;
    std::str::from_utf8(bytes).map_err(|error| {
        let good = &bytes[..error.valid_up_to()];
        NotText {
            line: memchr::memchr_iter(b'\n', good).count() + 1,
            message: "not UTF-8 text",
        }
    })
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
            (b"a = 1\nb = '\xe9'", Err((2, "not UTF-8 text"))),
        ] {
            let expected = expected.map_err(|(line, message)| NotText { line, message });
            assert_eq!(decode(bytes), expected, "{bytes:?}");
        }
    }
}

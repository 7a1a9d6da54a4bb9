//! Reads an answer as far as a measurement needs it: its status, and where it ends.

use std::fmt;

/// A redirect's head is below 4 kB, and so is any body beside it; more than this is not one of ours.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An answer that arrives in pieces. It is used again for the next one.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    /// Where the line of the head begins that is not whole yet.
    line: usize,
    status: u16,
    body_bytes: Option<usize>,
    closes: bool,
    /// Where the body begins, once the head is whole.
    body: Option<usize>,
}

/// A whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// The server closes the connection.
    pub(crate) closes: bool,
}

/// What no server here sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

impl Answer {
    /// Forgets what was read.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.line = 0;
        self.body_bytes = None;
        self.closes = false;
        self.body = None;
    }

    /// The bytes read so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the next bytes; tells the answer once it is whole.
    ///
    /// # Errors
    /// No answer to one request of ours begins so.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Option<Answered>, Malformed> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > ANSWER_BYTES_MAX {
            return Err(Malformed("longer than 64 KiB"));
        }
        while self.body.is_none() {
            let rest = &self.bytes[self.line..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return Ok(None);
            };
            let start = self.line;
            self.line += end + 1;
            self.head_line(start, start + end)?;
        }
        let (Some(body), Some(body_bytes)) = (self.body, self.body_bytes) else {
            return Err(Malformed("no Content-Length"));
        };
        if self.bytes.len() > body + body_bytes {
            return Err(Malformed("more than one answer"));
        }
        let whole = self.bytes.len() == body + body_bytes;
        Ok(whole.then_some(Answered {
            status: self.status,
            closes: self.closes,
        }))
    }

    fn head_line(&mut self, start: usize, end: usize) -> Result<(), Malformed> {
        let line = self.bytes[start..end].trim_ascii_end();
        if start == 0 {
            let status = line
                .strip_prefix(b"HTTP/1.1 ")
                .and_then(|rest| rest.get(..3));
            self.status = status
                .and_then(number)
                .and_then(|status| u16::try_from(status).ok())
                .ok_or(Malformed("no HTTP/1.1 status line"))?;
        } else if line.is_empty() {
            self.body = Some(self.line);
        } else if let Some(value) = field(line, b"content-length:") {
            self.body_bytes = Some(number(value).ok_or(Malformed("a bad Content-Length"))?);
        } else if let Some(value) = field(line, b"connection:") {
            self.closes = value.eq_ignore_ascii_case(b"close");
        }
        Ok(())
    }
}

/// The value of a head's line that has this name, colon included.
fn field<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NGINX: &[u8] =
        b"HTTP/1.1 302 Moved Temporarily\r\nServer: nginx\r\nContent-Length: 5\r\n\
        Connection: close\r\nLocation: https://shop.example/\r\n\r\nhello";

    #[test]
    fn an_answer_is_whole_at_its_last_byte_wherever_it_is_split() {
        let whole = Answered {
            status: 302,
            closes: true,
        };
        let mut answer = Answer::default();
        for at in 0..NGINX.len() {
            answer.clear();
            assert_eq!(answer.push(&NGINX[..at]), Ok(None), "{at}");
            assert_eq!(answer.push(&NGINX[at..]), Ok(Some(whole)), "{at}");
        }
        answer.clear();
        let (last, before) = NGINX.split_last().unwrap();
        for byte in before {
            assert_eq!(answer.push(&[*byte]), Ok(None));
        }
        assert_eq!(answer.push(&[*last]), Ok(Some(whole)));
    }

    #[test]
    fn what_is_no_answer_of_ours_is_refused() {
        for bytes in [
            "HTTP/1.0 302 Found\r\n",
            "HTTP/1.1 3\r\n",
            "HTTP/1.1 302 Found\r\n\r\n",
            "HTTP/1.1 302 Found\r\nContent-Length: x\r\n",
            "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\nHTTP/1.1 302",
        ] {
            let pushed = Answer::default().push(bytes.as_bytes());
            assert!(pushed.is_err(), "{bytes:?} {pushed:?}");
        }
    }
}

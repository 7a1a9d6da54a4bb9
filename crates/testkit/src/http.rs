//! A small blocking HTTP/1.1 client for tests and load generators: strict about what it accepts, bounded in what it
//! reads, and able to send bytes that no proper client would.
//!
//! Answers carry their length in `Content-Length`; chunked ones are an error here, because Sluice sends none.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A redirect's head is below 4 kB; more than this is not one of ours.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A report of every pair of a large catalog; more than this a test does not read.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Header lines of one answer: hyper's own bound.
const HEADERS_MAX: usize = 100;

/// The longest a server may stay silent before the connection counts as broken.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, 100 to 999.
    pub status: u16,
    /// Names in lower case with their values, in the order sent.
    pub headers: Vec<(String, String)>,
    /// The body, as long as the head said.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the server closes the connection after this answer.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// One GET on a connection of its own. A `Host` is added unless the headers have one.
///
/// # Errors
///
/// When the server cannot be reached or its answer is not HTTP.
pub fn get(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
    request(addr, "GET", target, headers, b"")
}

/// One request on a connection of its own, as [`get`].
///
/// # Errors
///
/// As [`get`].
pub fn request(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut headers = headers.to_vec();
    headers.push(("Connection", "close"));
    Connection::open(addr)?.request(method, target, &headers, body)
}

/// Sends these bytes, whatever they are, and reads one answer. A server that answers and closes before it has read
/// everything is not an error.
///
/// # Errors
///
/// When the server cannot be reached, closes without an answer or its answer is not HTTP.
pub fn raw(addr: SocketAddr, bytes: &[u8]) -> io::Result<Response> {
    let mut connection = Connection::open(addr)?;
    let sent = connection.stream.write_all(bytes);
    match connection.read_response(false) {
        Ok(response) => Ok(response),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

/// A kept connection.
#[derive(Debug)]
pub struct Connection {
    addr: SocketAddr,
    stream: TcpStream,
    /// What was read and belongs to the next answer.
    rest: Vec<u8>,
    out: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody listens there.
    pub fn open(addr: SocketAddr) -> io::Result<Connection> {
        Self::open_within(addr, SILENCE_MAX)
    }

    /// As [`Self::open`], for a client that waits no longer than `bound` for anything.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_within(addr: SocketAddr, bound: Duration) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&addr, bound)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(bound))?;
        stream.set_write_timeout(Some(bound))?;
        Ok(Connection {
            addr,
            stream,
            rest: Vec::new(),
            out: Vec::new(),
        })
    }

    /// Sends a request and reads its answer. After an error the connection is of no more use.
    ///
    /// # Errors
    ///
    /// When the connection breaks or the answer is not HTTP.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            head.push_str(&format!("Host: {}\r\n", self.addr));
        }
        for (name, value) in headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");

        // One write, so that a request is one packet where it fits.
        self.out.clear();
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(body);
        self.stream.write_all(&self.out)?;
        self.read_response(method == "HEAD")
    }

    fn read_response(&mut self, head_only: bool) -> io::Result<Response> {
        loop {
            if let Some((mut response, head_bytes)) = parse_head(&self.rest)? {
                self.rest.drain(..head_bytes);
                // Interim answers (100 Continue) precede the real one.
                if response.status < 200 {
                    continue;
                }
                let body_bytes = body_bytes(&response, head_only)?;
                while self.rest.len() < body_bytes {
                    self.read_more()?;
                }
                response.body = self.rest.drain(..body_bytes).collect();
                return Ok(response);
            }
            self.read_more()?;
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut chunk = [0; 8192];
        let count = self.stream.read(&mut chunk)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed before the answer was whole",
            ));
        }
        self.rest.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}

/// The head at the start of `bytes` with its length; `None` while it is not whole.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(Response, usize)>> {
    let window = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() >= HEAD_BYTES_MAX {
            return Err(bad("the head of the answer is too long"));
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])
        .map_err(|_| bad("the head of the answer is not UTF-8"))?;
    let mut lines = head.split("\r\n");

    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .filter(|rest| rest.len() == 3 || rest.as_bytes().get(3) == Some(&b' '))
        .and_then(|rest| rest.get(..3))
        .filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|code| code.parse::<u16>().ok())
        .filter(|code| *code >= 100)
        .ok_or_else(|| bad("the answer does not begin with an HTTP/1.1 status line"))?;

    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| bad("a header line of the answer has no colon"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(bad("a header of the answer has a bad name"));
        }
        if value
            .bytes()
            .any(|byte| byte.is_ascii_control() && byte != b'\t')
        {
            return Err(bad("a header of the answer has a control character"));
        }
        if headers.len() == HEADERS_MAX {
            return Err(bad("the answer has too many headers"));
        }
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let response = Response {
        status,
        headers,
        body: Vec::new(),
    };
    Ok(Some((response, end + 4)))
}

fn body_bytes(response: &Response, head_only: bool) -> io::Result<usize> {
    if response.header("transfer-encoding").is_some() {
        return Err(bad("the answer is chunked, which Sluice never sends"));
    }
    let mut lengths = response
        .headers
        .iter()
        .filter(|(name, _)| name == "content-length");
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(bad("the answer has two lengths"));
    }
    if head_only || matches!(response.status, 204 | 304) {
        return Ok(0);
    }
    let (_, length) = length.ok_or_else(|| bad("the answer has no length"))?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad("the answer's length is not a number"));
    }
    length
        .parse::<usize>()
        .ok()
        .filter(|length| *length <= BODY_BYTES_MAX)
        .ok_or_else(|| bad("the answer is too long"))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[track_caller]
    fn check_head(bytes: &[u8], expected: &str) {
        let told = match parse_head(bytes) {
            Ok(None) => "more".to_owned(),
            Ok(Some((response, length))) => match body_bytes(&response, false) {
                Ok(body) => format!("{} head {length} body {body}", response.status),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        assert_eq!(told, expected);
    }

    #[test]
    fn heads_are_taken_strictly() {
        check_head(
            b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\nHTTP",
            "302 head 41 body 0",
        );
        check_head(b"HTTP/1.1 204\r\n\r\n", "204 head 16 body 0");
        check_head(b"HTTP/1.1 302 Found\r\nContent-", "more");
        check_head(b"", "more");
        let no_status = "the answer does not begin with an HTTP/1.1 status line";
        check_head(b"HTTP/1.0 200 OK\r\n\r\n", no_status);
        check_head(b"HTTP/1.1 2000 OK\r\n\r\n", no_status);
        check_head(b"HTTP/1.1 +20 OK\r\n\r\n", no_status);
        check_head(b"HTTP/1.1 099 OK\r\n\r\n", no_status);
        check_head(b"HTTP/1.1 200 OK\r\n\r\n", "the answer has no length");
        check_head(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
            "the answer has two lengths",
        );
        check_head(
            b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "the answer's length is not a number",
        );
        check_head(
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "the answer is too long",
        );
        check_head(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "the answer is chunked, which Sluice never sends",
        );
        check_head(
            b"HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
            "a header of the answer has a bad name",
        );
        check_head(
            b"HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",
            "a header of the answer has a control character",
        );
        check_head(
            &vec![b'x'; HEAD_BYTES_MAX],
            "the head of the answer is too long",
        );
    }

    #[test]
    fn one_connection_carries_several_answers_and_tells_a_broken_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = [0; 4096];
            let count = stream.read(&mut seen).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A:  b \r\n\r\nokHTTP/1.1 3")
                .unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream
                .write_all(b"02 Found\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhal")
                .unwrap();
            String::from_utf8(seen[..count].to_vec()).unwrap()
        });

        let mut connection = Connection::open(addr).unwrap();
        let first = connection
            .request("GET", "/a?b", &[("Host", "h.example")], b"")
            .unwrap();
        assert_eq!((first.status, first.text().as_str()), (200, "ok"));
        assert_eq!(first.header("x-a"), Some("b"));
        let second = connection.request("GET", "/", &[], b"").unwrap();
        assert_eq!((second.status, second.body.len()), (302, 0));
        let broken = connection.request("GET", "/", &[], b"").unwrap_err();
        assert_eq!(broken.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(
            server.join().unwrap(),
            "GET /a?b HTTP/1.1\r\nHost: h.example\r\n\r\n"
        );
    }
}

//! What a redirect costs in user-space instructions, heap allocations and system calls: the edge and the bare hyper it is
//! measured against, under valgrind and under strace, each driven twice over one connection. What the longer run has more
//! than the shorter is what its requests cost; starting, draining and the other threads fall out of it.
//!
//! One connection, one request after another: with more, how many of them a look at the sockets finds ready depends on how
//! busy the machine is, and the counts with it.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use testkit::{Running, System, wait};

/// Requests of the two runs.
const SHORT: u32 = 500;
const LONG: u32 = 4500;
/// Valgrind starts the edge in a second or two; a busy machine takes its time.
const BOUND: Duration = Duration::from_secs(120);
/// The demo's host and link.
const HOST: &str = "go.northpeak.example";
const LINK: &str = "/fall-boots";
/// Two sub ids of the visitor, for the link that has everything.
const FULL_LINK: &str = "/fall-boots?sub1=newsletter-42&sub2=autumn";

/// What one request costs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
    pub(crate) system_calls: f64,
}

/// The edge on two links, and bare hyper with an answer of the plain link's length.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) bare: Counts,
    /// A link without parameters, a visitor without a cookie.
    pub(crate) plain: Counts,
    /// Two sub ids, a cookie of two tokens.
    pub(crate) full: Counts,
}

/// Counts; `release` is where the built binaries are.
pub(crate) fn measure(release: &Path) -> Result<Measured, String> {
    let temporary = tempfile::tempdir().map_err(|error| error.to_string())?;
    let folder = temporary.path();
    let data = folder.join("data");
    // Keys and catalog come from a start of the whole system.
    System::start(&data, &[]).stop();
    let settings = folder.join("sluice.toml");
    fs::write(&settings, "[edge]\nworkers = 1\n").map_err(|error| error.to_string())?;

    let edge = Server {
        binary: release.join("sluice-edge"),
        arguments: vec![
            "--settings".into(),
            settings.display().to_string(),
            "--data".into(),
            data.display().to_string(),
            "--edge".into(),
            "127.0.0.1:0".into(),
            "--admin".into(),
            "127.0.0.1:0".into(),
        ],
        folder: folder.to_owned(),
    };
    let (location, cookie) = edge.answer()?;
    let bare = Server {
        binary: release.join("bare-hyper"),
        arguments: vec![
            "--location".into(),
            location,
            "--cookie".into(),
            cookie.clone(),
        ],
        folder: folder.to_owned(),
    };
    let token = cookie.split(';').next().unwrap_or_default().to_owned();
    let (_, second) = edge.answer()?;
    let second = second.split(['=', ';']).nth(1).unwrap_or_default();
    let two = format!("{token}.{second}");
    Ok(Measured {
        plain: edge.counts(LINK, None)?,
        full: edge.counts(FULL_LINK, Some(&two))?,
        bare: bare.counts(LINK, None)?,
    })
}

struct Server {
    binary: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

impl Server {
    fn counts(&self, target: &str, cookie: Option<&str>) -> Result<Counts, String> {
        let request = request(target, cookie);
        let callgrind = |requests| {
            let out = self.folder.join("callgrind");
            let tool = [
                "valgrind".to_owned(),
                "--tool=callgrind".to_owned(),
                "--separate-threads=yes".to_owned(),
                format!("--callgrind-out-file={}", out.display()),
            ];
            self.run(&tool, &request, requests)?;
            // The thread that spoke HTTP: what others do depends on what the run before left behind.
            let server = |text: &str| {
                text.contains("hyper::proto::h1::dispatch")
                    .then(|| profile(text))
            };
            of_threads(&self.folder, "callgrind", server)
        };
        let strace = |requests| {
            let out = self.folder.join("strace");
            let tool = [
                "strace".to_owned(),
                // It watches from the side, so that what is started and ended here is the server.
                "-D".to_owned(),
                "-ff".to_owned(),
                "-o".to_owned(),
                out.display().to_string(),
            ];
            self.run(&tool, &request, requests)?;
            wait::until("strace has written everything", BOUND, || {
                files(&self.folder, "strace").is_ok_and(|files| {
                    files.iter().all(|file| {
                        let text = fs::read(file).unwrap_or_default();
                        let last = text.trim_ascii_end().rsplit(|b| *b == b'\n').next();
                        last.is_some_and(|line| line.starts_with(b"+++ "))
                    })
                })
            });
            of_threads(&self.folder, "strace", |text| {
                // A line is a call, but for signals and the last one.
                let calls = text.lines().filter(|line| line.contains('('));
                text.contains("HTTP/1.1 302").then(|| Profile {
                    cost: calls.count() as f64,
                    allocations: 0.0,
                })
            })
        };
        let per_request = |short: Profile, long: Profile| Profile {
            cost: (long.cost - short.cost) / f64::from(LONG - SHORT),
            allocations: (long.allocations - short.allocations) / f64::from(LONG - SHORT),
        };
        let work = per_request(callgrind(SHORT)?, callgrind(LONG)?);
        let calls = per_request(strace(SHORT)?, strace(LONG)?);
        Ok(Counts {
            instructions: work.cost,
            allocations: work.allocations,
            system_calls: calls.cost,
        })
    }

    /// What a first visitor is answered: Location and Set-Cookie.
    fn answer(&self) -> Result<(String, String), String> {
        let answer = self.run(&[], &request(LINK, None), 1)?;
        let field = |name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::to_owned)
                .ok_or_else(|| format!("no {name} in: {answer}"))
        };
        Ok((field("location: ")?, field("set-cookie: ")?))
    }

    /// Starts it under a tool, sends so many requests and ends it. The last answer.
    fn run(&self, tool: &[String], request: &str, requests: u32) -> Result<String, String> {
        let mut line = tool.to_vec();
        line.push(self.binary.display().to_string());
        line.extend_from_slice(&self.arguments);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        let mut running = Running::spawn(command, &self.folder.join("output"))
            .map_err(|error| format!("{}: {error}", line[0]))?;
        let mut address = None;
        wait::until("the server is up", BOUND, || {
            assert!(running.ended().is_none(), "{}", running.stderr());
            address = listens(&running.stdout());
            address.is_some()
        });
        let answer = drive(address.expect("waited for"), request, requests)
            .map_err(|error| format!("{}: {error}", self.binary.display()))?;
        running.terminate(BOUND);
        Ok(answer)
    }
}

/// The address behind `is up: `, where the line is whole.
fn listens(stdout: &str) -> Option<SocketAddr> {
    let (_, rest) = stdout.split_once(" is up: ")?;
    let (line, _) = rest.split_once('\n')?;
    let address = line
        .rsplit_once("edge http://")
        .map_or(line, |(_, rest)| rest);
    address.split(',').next()?.parse().ok()
}

/// What a browser sends to a page it comes to from another one.
fn request(target: &str, cookie: Option<&str>) -> String {
    let cookie = cookie.map_or(String::new(), |cookie| format!("Cookie: {cookie}\r\n"));
    format!(
        "GET {target} HTTP/1.1\r\n\
         Host: {HOST}\r\n\
         Connection: keep-alive\r\n\
         sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\"\r\n\
         sec-ch-ua-mobile: ?0\r\n\
         sec-ch-ua-platform: \"Windows\"\r\n\
         Upgrade-Insecure-Requests: 1\r\n\
         User-Agent: {}\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
         Sec-Fetch-Site: cross-site\r\n\
         Sec-Fetch-Mode: navigate\r\n\
         Sec-Fetch-User: ?1\r\n\
         Sec-Fetch-Dest: document\r\n\
         Referer: https://trailblog.example/best-boots-of-autumn\r\n\
         Accept-Encoding: gzip, deflate, br, zstd\r\n\
         Accept-Language: en-US,en;q=0.9\r\n\
         {cookie}\r\n",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
    )
}

fn drive(address: SocketAddr, request: &str, requests: u32) -> Result<String, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_read_timeout(Some(BOUND)).map_err(failed)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    for _ in 0..requests {
        stream.write_all(request.as_bytes()).map_err(failed)?;
        answer.clear();
        while !answer.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut buffer).map_err(failed)?;
            answer.extend_from_slice(&buffer[..length]);
            if length == 0 || answer.len() > buffer.len() {
                break;
            }
        }
        if !answer.starts_with(b"HTTP/1.1 302 ") || !answer.ends_with(b"\r\n\r\n") {
            let answer = String::from_utf8_lossy(&answer);
            return Err(format!("expected a redirect without a body, got: {answer}"));
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Of one thread.
#[derive(Clone, Copy)]
struct Profile {
    cost: f64,
    allocations: f64,
}

/// What a tool wrote, a file a thread.
fn files(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// What is read of the one thread that is the server. The files are removed.
fn of_threads(
    folder: &Path,
    prefix: &str,
    read: impl Fn(&str) -> Option<Profile>,
) -> Result<Profile, String> {
    let mut server = None;
    for path in files(folder, prefix)? {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let bytes = fs::read(&path).map_err(failed)?;
        fs::remove_file(&path).map_err(failed)?;
        server = read(&String::from_utf8_lossy(&bytes)).or(server);
    }
    server.ok_or_else(|| format!("{prefix} has seen no thread that serves"))
}

/// Instructions, and calls of the allocator, from callgrind's own format ("Callgrind Format Specification").
fn profile(text: &str) -> Profile {
    let mut names = HashMap::new();
    let (mut cost, mut allocations, mut called) = (0.0, 0.0, "");
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("totals: ") {
            cost = total.trim().parse().unwrap_or(0.0);
        } else if let Some(name) = line
            .strip_prefix("cfn=")
            .or_else(|| line.strip_prefix("fn="))
        {
            // `(7) name` the first time, `(7)` from then on.
            let (number, name) = name.split_once(") ").unwrap_or((name, ""));
            let number = number.trim_end_matches(')');
            if !name.is_empty() {
                names.insert(number, name);
            }
            called = names.get(number).copied().unwrap_or_default();
        } else if let Some(calls) = line.strip_prefix("calls=")
            && matches!(
                called,
                "mi_malloc_aligned" | "mi_zalloc_aligned" | "mi_realloc_aligned"
            )
        {
            let count = calls.split(' ').next().unwrap_or_default();
            allocations += count.parse().unwrap_or(0.0);
        }
    }
    Profile { cost, allocations }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_is_read() {
        let found = profile(
            "version: 1\nfn=(1) main\n+3 4\ncfn=(2) mi_malloc_aligned\ncalls=3 0\n+1 90\nfn=(3) other\n\
             cfn=(2)\ncalls=2 0\n+1 60\ncfn=(1)\ncalls=9 0\ntotals: 1234\n",
        );
        assert_eq!((found.cost, found.allocations), (1234.0, 5.0));
    }

    #[test]
    fn addresses_are_read() {
        for (stdout, expected) in [
            ("bare-hyper is up: 127.0.0.1:7\n", Some("127.0.0.1:7")),
            (
                "sluice-edge 0.1.0 is up: edge http://127.0.0.1:8, admin http://127.0.0.1:9, data in d\n",
                Some("127.0.0.1:8"),
            ),
            ("bare-hyper is up: 127.0.0.1:7", None),
        ] {
            let found = listens(stdout).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{stdout}");
        }
    }
}

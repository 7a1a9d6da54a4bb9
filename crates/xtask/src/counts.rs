//! What a redirect costs in user-space instructions, heap allocations and system calls: the edge and the bare hyper it is
//! measured against, under valgrind and under strace, each driven twice over one connection. What the longer run has more
//! than the shorter is what its requests cost; starting, draining and the other threads fall out of it.
//!
//! One connection, one request after another: with more, how many of them a look at the sockets finds ready depends on how
//! busy the machine is, and the counts with it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use testkit::http::{Connection, Response};
use testkit::{Running, System, wait};

/// Requests of the two runs.
const SHORT: u32 = 500;
const LONG: u32 = 4500;
/// Valgrind starts the edge in a second or two; a busy machine takes its time.
const BOUND: Duration = Duration::from_secs(120);
/// The demo's link.
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

/// Counts, and what the instructions of a plain redirect are for; `release` is where the built binaries are.
pub(crate) fn measure(release: &Path) -> Result<(Measured, String), String> {
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
    let first = edge.run(&[], &Visit::default(), 1)?;
    let cookie = field(&first, "set-cookie")?;
    let bare = Server {
        binary: release.join("bare-hyper"),
        arguments: vec![
            "--location".into(),
            field(&first, "location")?.to_owned(),
            "--cookie".into(),
            cookie.to_owned(),
        ],
        folder: folder.to_owned(),
    };
    let second = edge.run(&[], &Visit::of(FULL_LINK, cookie), 1)?;
    let full = Visit::of(FULL_LINK, field(&second, "set-cookie")?);
    let third = edge.run(&[], &full, 1)?;
    let kept = field(&third, "set-cookie")?;
    if kept
        .split(';')
        .next()
        .unwrap_or_default()
        .split('.')
        .count()
        != 3
    {
        return Err(format!(
            "expected the cookie to keep two tokens and get a third: {kept}"
        ));
    }
    let (plain, steps) = edge.counts(&Visit::default())?;
    let measured = Measured {
        plain,
        full: edge.counts(&full)?.0,
        bare: bare.counts(&Visit::default())?.0,
    };
    Ok((measured, steps))
}

fn field<'r>(answer: &'r Response, name: &str) -> Result<&'r str, String> {
    let value = answer.header(name);
    value.ok_or_else(|| format!("no {name} in the answer: {answer:?}"))
}

/// What is asked for.
struct Visit {
    target: &'static str,
    cookie: Option<String>,
}

impl Default for Visit {
    /// A link without parameters, a visitor without a cookie.
    fn default() -> Self {
        Self {
            target: LINK,
            cookie: None,
        }
    }
}

impl Visit {
    /// With the cookie of an earlier answer.
    fn of(target: &'static str, set_cookie: &str) -> Self {
        let cookie = set_cookie.split(';').next().map(str::to_owned);
        Self { target, cookie }
    }
}

struct Server {
    binary: PathBuf,
    arguments: Vec<String>,
    folder: PathBuf,
}

impl Server {
    /// What a visit costs, and which functions the instructions are of.
    fn counts(&self, visit: &Visit) -> Result<(Counts, String), String> {
        let callgrind = |requests| {
            let out = self.folder.join("callgrind");
            let tool = [
                "valgrind".to_owned(),
                "--tool=callgrind".to_owned(),
                "--separate-threads=yes".to_owned(),
                format!("--callgrind-out-file={}", out.display()),
            ];
            self.run(&tool, visit, requests)?;
            // The thread that spoke HTTP: what others do depends on what the run before left behind.
            let server = |text: &str| {
                let speaks = text.contains("hyper::proto::h1::dispatch");
                speaks.then(|| profile(text)).transpose()
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
            self.run(&tool, visit, requests)?;
            let is_whole = || {
                files(&self.folder, "strace").is_ok_and(|files| {
                    files.iter().all(|file| {
                        let text = fs::read(file).unwrap_or_default();
                        let last = text.trim_ascii_end().rsplit(|b| *b == b'\n').next();
                        last.is_some_and(|line| line.starts_with(b"+++ "))
                    })
                })
            };
            if !wait::holds_within(BOUND, is_whole) {
                return Err("strace does not end".to_owned());
            }
            of_threads(&self.folder, "strace", |text| {
                // A line is a call, but for signals and the last one.
                let calls = text.lines().filter(|line| line.contains('('));
                let calls = calls.count() as f64;
                Ok(text.contains("HTTP/1.1 302").then_some(calls))
            })
        };
        let requests = f64::from(LONG - SHORT);
        let (short, long) = (callgrind(SHORT)?, callgrind(LONG)?);
        let counts = Counts {
            instructions: (long.cost - short.cost) / requests,
            allocations: (long.allocations - short.allocations) / requests,
            system_calls: (strace(LONG)? - strace(SHORT)?) / requests,
        };
        // No server does without them: a tool that counts none counts something else.
        for (what, count) in [
            ("instructions", counts.instructions),
            ("allocations", counts.allocations),
            ("system calls", counts.system_calls),
        ] {
            if count < 1.0 {
                let binary = self.binary.display();
                return Err(format!(
                    "{binary}: {count:.2} {what} a request were counted"
                ));
            }
        }
        Ok((counts, steps(&short, &long)))
    }

    /// Starts it under a tool, makes a visit so many times and ends it. The last answer.
    fn run(&self, tool: &[String], visit: &Visit, times: u32) -> Result<Response, String> {
        let mut line = tool.to_vec();
        line.push(self.binary.display().to_string());
        line.extend_from_slice(&self.arguments);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        let mut running = Running::spawn(command, &self.folder.join("output"))
            .map_err(|error| format!("{}: {error}", line[0]))?;
        let mut address = None;
        wait::holds_within(BOUND, || {
            address = listens(&running.stdout());
            address.is_some() || running.ended().is_some()
        });
        let address = address.ok_or_else(|| format!("not up: {}", running.stderr()))?;
        let answer = drive(address, visit, times)
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
const HEADERS: [(&str, &str); 15] = [
    ("Host", "go.northpeak.example"),
    ("Connection", "keep-alive"),
    (
        "sec-ch-ua",
        "\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\", \"Google Chrome\";v=\"140\"",
    ),
    ("sec-ch-ua-mobile", "?0"),
    ("sec-ch-ua-platform", "\"Windows\""),
    ("Upgrade-Insecure-Requests", "1"),
    (
        "User-Agent",
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    (
        "Accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("Sec-Fetch-Site", "cross-site"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-User", "?1"),
    ("Sec-Fetch-Dest", "document"),
    ("Referer", "https://trailblog.example/best-boots-of-autumn"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-US,en;q=0.9"),
];

fn drive(address: SocketAddr, visit: &Visit, times: u32) -> Result<Response, String> {
    let mut headers = HEADERS.to_vec();
    headers.extend(visit.cookie.as_deref().map(|cookie| ("Cookie", cookie)));
    let mut connection = Connection::open(address).map_err(|error| error.to_string())?;
    let mut last = None;
    for _ in 0..times {
        let answer = connection
            .request("GET", visit.target, &headers, b"")
            .map_err(|error| error.to_string())?;
        if answer.status != 302 || answer.closes() {
            return Err(format!("expected a redirect, got {answer:?}"));
        }
        last = Some(answer);
    }
    last.ok_or_else(|| "nothing was asked for".to_owned())
}

/// Of one thread.
#[derive(Debug, Default)]
struct Profile {
    cost: f64,
    allocations: f64,
    /// What each function cost itself (under its own name) and in those it called.
    functions: BTreeMap<String, BTreeMap<String, f64>>,
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
fn of_threads<T>(
    folder: &Path,
    prefix: &str,
    read: impl Fn(&str) -> Result<Option<T>, String>,
) -> Result<T, String> {
    let mut server = None;
    for path in files(folder, prefix)? {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let bytes = fs::read(&path).map_err(failed)?;
        fs::remove_file(&path).map_err(failed)?;
        server = read(&String::from_utf8_lossy(&bytes))?.or(server);
    }
    server.ok_or_else(|| format!("{prefix} has seen no thread that serves"))
}

/// Instructions, and calls of the allocator, from callgrind's own format ("Callgrind Format Specification").
fn profile(text: &str) -> Result<Profile, String> {
    let mut profile = Profile::default();
    let mut names = HashMap::new();
    let mut named = |name: &str| {
        // `(7) name` the first time, `(7)` from then on.
        let (number, name) = name.split_once(") ").unwrap_or((name, ""));
        let number = number.trim_end_matches(')').to_owned();
        let known = names.entry(number).or_insert_with(|| name.to_owned());
        known.clone()
    };
    let (mut function, mut called, mut is_call) = (String::new(), String::new(), false);
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("totals: ") {
            let total = total.trim().parse();
            profile.cost = total.map_err(|_| format!("callgrind says {line:?}, not one number"))?;
        } else if let Some(name) = line.strip_prefix("fn=") {
            function = named(name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            called = named(name);
        } else if let Some(calls) = line.strip_prefix("calls=") {
            is_call = true;
            if matches!(
                &*called,
                "mi_malloc_aligned" | "mi_zalloc_aligned" | "mi_realloc_aligned"
            ) {
                let count = calls.split(' ').next().unwrap_or_default();
                profile.allocations += count.parse().unwrap_or(0.0);
            }
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok());
            let costs = profile.functions.entry(function.clone()).or_default();
            let of = if is_call { &called } else { &function };
            *costs.entry(of.clone()).or_insert(0.0) += cost.unwrap_or(0.0);
            is_call = false;
        }
    }
    Ok(profile)
}

/// The crates whose functions are told step by step.
const OURS: [&str; 6] = ["edge", "routing", "catalog", "domain", "journal", "service"];

/// Instructions a request of each function of ours, and of what it calls.
fn steps(short: &Profile, long: &Profile) -> String {
    let of_request = |caller: &str, called: &str| {
        let costs = |of: &Profile| of.functions.get(caller)?.get(called).copied();
        let difference = costs(long).unwrap_or(0.0) - costs(short).unwrap_or(0.0);
        difference / f64::from(LONG - SHORT)
    };
    let descending = |costs: &mut Vec<(f64, &String)>| costs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut callers = Vec::new();
    for (caller, costs) in &long.functions {
        let all = costs.keys().map(|called| of_request(caller, called));
        callers.push((all.sum(), caller));
    }
    callers.retain(|(all, caller)| {
        let path = caller.trim_start_matches('<');
        *all >= 8.0 && OURS.iter().any(|of| path.starts_with(&format!("{of}::")))
    });
    descending(&mut callers);
    let mut text = String::from(
        "Instructions a plain redirect, by callgrind: each function with those it calls, then its own and those of each it calls,\n\
         where they are eight or more.\n",
    );
    for (all, caller) in callers {
        let _ = writeln!(text, "\n{all:.0} {caller}");
        let called = long.functions[caller].keys();
        let mut called: Vec<_> = called
            .map(|called| (of_request(caller, called), called))
            .filter(|(cost, _)| *cost >= 8.0)
            .collect();
        descending(&mut called);
        for (cost, called) in called {
            let name = if called == caller { "itself" } else { called };
            let _ = writeln!(text, "{cost:>8.0} {name}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_is_read() {
        let text = |more: u32, total: u32| {
            format!(
                "version: 1\nfn=(1) edge::main\n+3 {more}\ncfn=(2) mi_malloc_aligned\ncalls=3 0\n+1 {more}\nfn=(3) other\n\
                 cfn=(2)\ncalls=2 0\n+1 60\ncfn=(1)\ncalls=9 0\n* 7\ntotals: {total}\n"
            )
        };
        let short = profile(&text(0, 1234)).unwrap();
        assert_eq!((short.cost, short.allocations), (1234.0, 5.0));
        let long = profile(&text(80_000, 1234)).unwrap();
        let told = steps(&short, &long);
        assert!(
            told.ends_with("\n40 edge::main\n      20 itself\n      20 mi_malloc_aligned\n"),
            "{told}"
        );
        // With a cache simulated there are more numbers than one.
        assert!(profile("totals: 1 2 3\n").is_err());
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

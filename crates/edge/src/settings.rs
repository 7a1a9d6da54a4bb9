//! What an operator may choose for the edge.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use crate::tls;

/// The `[edge]` table of the settings file.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where visitors arrive.
    pub listen: SocketAddr,
    /// How many workers, each with a runtime and a journal of its own; 0 = one per core.
    pub workers: usize,
    /// Networks whose `X-Forwarded-For` is believed, rightmost untrusted address first.
    pub trusted_forwarders: Vec<IpNet>,
    /// Size of a worker's ring in bytes, a power of two: how much a stalled disk may hold back. 64 MiB where nobody says
    /// otherwise; [`RING_BYTES_UP`] beside the rest of the system.
    pub ring_bytes: Option<u64>,
    /// The folder for rings, in a memory file system that outlives the process; see [`Self::ring_folder`].
    pub ring_folder: Option<PathBuf>,
    /// Most bytes of a worker's log files together: what is not shipped and deleted in time is not recorded beyond them.
    pub journal_bytes_max: u64,
    /// Milliseconds between two syncs of the log: how much a power cut may take.
    pub sync_ms: u64,
    /// What a click gets when it cannot be recorded.
    pub when_full: WhenFull,
    /// Seconds a connection may take to send a request's head, and may stay idle between requests.
    pub head_timeout_s: u64,
    /// Most connections a worker holds; 0 = 10,000, or as many as the limit of open files leaves room for. At the bound the
    /// one that is silent longest gives way.
    pub connections_max: usize,
    /// Seconds from the first signal to stop, during which health says "draining", to the end of accepting.
    pub drain_wait_s: u64,
    /// Certificate and key, where the edge speaks TLS itself; plain HTTP where they are not named.
    pub tls: Option<tls::Files>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 0,
            trusted_forwarders: Vec::new(),
            ring_bytes: None,
            ring_folder: None,
            journal_bytes_max: journal::FOLDER_BYTES_MAX,
            sync_ms: 20,
            when_full: WhenFull::Redirect,
            head_timeout_s: 15,
            connections_max: 0,
            drain_wait_s: 0,
            tls: None,
        }
    }
}

/// Size of a worker's ring in one process with everything else: there the memory is everybody's.
pub const RING_BYTES_UP: u64 = 8 << 20;
const RING_BYTES: u64 = 64 << 20;

/// Names the folder for rings where the settings do not: a service manager knows it.
const RING_FOLDER_VARIABLE: &str = "SLUICE_RING_FOLDER";

impl Settings {
    /// Size of a worker's ring in bytes.
    pub fn ring_bytes(&self) -> u64 {
        self.ring_bytes.unwrap_or(RING_BYTES)
    }

    /// The folder for rings, if one is named: by the setting, else by the variable `SLUICE_RING_FOLDER`. Otherwise it is that of
    /// [`journal::default_ring_folder`].
    pub fn ring_folder(&self) -> Option<PathBuf> {
        let named = self.ring_folder.clone();
        named.or_else(|| std::env::var_os(RING_FOLDER_VARIABLE).map(PathBuf::from))
    }

    /// What an address of it begins with.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// What no edge can work with, in words.
    ///
    /// # Errors
    /// The first setting outside of its bounds, with the bounds.
    pub fn check(&self) -> Result<(), String> {
        let connections = u64::try_from(self.connections_max).unwrap_or(u64::MAX);
        for (name, value, bounds) in [
            ("workers", self.workers as u64, 0..=1024),
            // Several of the longest records at least, and what a start can still write through.
            ("ring_bytes", self.ring_bytes(), 1 << 20..=1 << 34),
            ("sync_ms", self.sync_ms, 1..=10_000),
            ("head_timeout_s", self.head_timeout_s, 1..=600),
            ("connections_max", connections, 0..=1_000_000),
            ("drain_wait_s", self.drain_wait_s, 0..=300),
        ] {
            if !bounds.contains(&value) {
                return Err(format!(
                    "edge.{name} is {value}: choose {} to {}",
                    bounds.start(),
                    bounds.end()
                ));
            }
        }
        // So that the newest file, which always stays, leaves room when the others are gone.
        let least = self.ring_bytes().saturating_mul(4);
        if self.journal_bytes_max < least {
            return Err(format!(
                "edge.journal_bytes_max is {}: choose at least {least}, four times edge.ring_bytes",
                self.journal_bytes_max
            ));
        }
        Ok(())
    }
}

/// Connections of a worker where nobody says otherwise and the limit of open files has room for them.
const CONNECTIONS_DEFAULT: u64 = 10_000;
/// Open files beside connections: of a process with all parts, the store, topics, log files and sockets to Kafka.
const FILES_RESERVED: u64 = 256;
/// Open files of a worker beside its connections: its journal's and its courier's.
const FILES_OF_WORKER: u64 = 16;
/// With fewer connections a worker serves nobody well.
const CONNECTIONS_LEAST: u64 = 64;

impl Settings {
    /// How many workers there are.
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            count => count,
        }
    }

    /// How many connections a worker may hold where `files_max` files may be open.
    ///
    /// # Errors
    /// They do not fit; the text says what to do.
    pub fn connections_that_fit(&self, files_max: u64) -> Result<usize, String> {
        let workers = self.workers() as u64;
        let reserved = FILES_RESERVED + workers * FILES_OF_WORKER;
        let fit = files_max.saturating_sub(reserved) / workers;
        let connections = match self.connections_max as u64 {
            0 if fit >= CONNECTIONS_LEAST => fit.min(CONNECTIONS_DEFAULT),
            0 => CONNECTIONS_LEAST,
            asked => asked,
        };
        if connections <= fit {
            return Ok(usize::try_from(connections).unwrap_or(usize::MAX));
        }
        Err(format!(
            "edge: {workers} workers of {connections} connections, with {reserved} other files, need a limit of {} open files \
             and this process has {files_max}: raise it (LimitNOFILE= of the unit, ulimit -n), or set edge.connections_max or \
             edge.workers lower",
            workers.saturating_mul(connections).saturating_add(reserved)
        ))
    }
}

/// What a click gets when the journal cannot take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// The redirect without token and cookie: the visitor comes first, the click counts as unrecorded.
    Redirect,
    /// 503.
    Refuse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_do_not_fit_the_limit_of_open_files_are_refused() {
        for (workers, connections_max, files_max, expected) in [
            (2, 0, 65_536, Ok(10_000)),
            (2, 0, 1024, Ok(368)),
            (8, 10_000, 65_536, Err(80_384)),
            (8, 0, 65_536, Ok(8144)),
            (1, 752, 1024, Ok(752)),
            (1, 753, 1024, Err(1025)),
            (1, 0, 256, Err(336)),
            (1, 0, u64::MAX, Ok(10_000)),
        ] {
            let settings = Settings {
                workers,
                connections_max,
                ..Settings::default()
            };
            let found = settings.connections_that_fit(files_max);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(line), Err(needed)) => {
                    let needed = format!("need a limit of {needed} open files and this process");
                    assert!(line.contains(&needed), "{line}");
                }
                (found, expected) => panic!("{found:?} {expected:?}"),
            }
        }
    }

    #[test]
    fn a_journal_has_room_for_more_than_its_ring() {
        Settings::default().check().unwrap();
        let settings = |journal_bytes_max| Settings {
            ring_bytes: Some(1 << 20),
            journal_bytes_max,
            ..Settings::default()
        };
        settings(4 << 20).check().unwrap();
        assert_eq!(
            settings((4 << 20) - 1).check().unwrap_err(),
            "edge.journal_bytes_max is 4194303: choose at least 4194304, four times edge.ring_bytes"
        );
    }
}

//! What an operator may choose for the edge.

use std::net::SocketAddr;

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
    /// Size of a worker's ring in bytes, a power of two: how much a stalled disk may hold back.
    pub ring_bytes: u64,
    /// Most bytes of a worker's log files together: what is not shipped and deleted in time is not recorded beyond them.
    pub journal_bytes_max: u64,
    /// Milliseconds between two syncs of the log: how much a power cut may take.
    pub sync_ms: u64,
    /// What a click gets when it cannot be recorded.
    pub when_full: WhenFull,
    /// Seconds a connection may take to send a request's head, and may stay idle between requests.
    pub head_timeout_s: u64,
    /// Most connections a worker holds; more wait in the socket's queue.
    pub connections_max: usize,
    /// Certificate and key, where the edge speaks TLS itself; plain HTTP where they are not named.
    pub tls: Option<tls::Files>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 0,
            trusted_forwarders: Vec::new(),
            ring_bytes: 64 << 20,
            journal_bytes_max: journal::FOLDER_BYTES_MAX,
            sync_ms: 20,
            when_full: WhenFull::Redirect,
            head_timeout_s: 15,
            connections_max: 10_000,
            tls: None,
        }
    }
}

impl Settings {
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
            ("ring_bytes", self.ring_bytes, 1 << 20..=1 << 34),
            ("sync_ms", self.sync_ms, 1..=10_000),
            ("head_timeout_s", self.head_timeout_s, 1..=600),
            ("connections_max", connections, 1..=1_000_000),
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
        let least = self.ring_bytes.saturating_mul(4);
        if self.journal_bytes_max < least {
            return Err(format!(
                "edge.journal_bytes_max is {}: choose at least {least}, four times edge.ring_bytes",
                self.journal_bytes_max
            ));
        }
        Ok(())
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
    fn a_journal_has_room_for_more_than_its_ring() {
        Settings::default().check().unwrap();
        let settings = |journal_bytes_max| Settings {
            ring_bytes: 1 << 20,
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

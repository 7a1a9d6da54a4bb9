//! What an operator may choose, as one file; flags win over it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// The data folder where none is named.
pub(crate) const DATA: &str = "sluice-data";

/// The settings file of `sluice up`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where journals, stream, store, keys and catalog versions live.
    pub(crate) data: PathBuf,
    /// The catalog's file; a demo catalog is written and used where none is named.
    pub(crate) catalog: Option<PathBuf>,
    /// The edge.
    pub(crate) edge: edge::Settings,
    /// Metrics and health.
    pub(crate) admin: Listen,
    /// The reports.
    pub(crate) reports: Listen,
    /// The embedded stream.
    pub(crate) stream: Stream,
    /// The courier.
    pub(crate) courier: Courier,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data: DATA.into(),
            catalog: None,
            edge: edge::Settings::default(),
            admin: Listen {
                listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            },
            reports: Listen {
                listen: SocketAddr::from(([127, 0, 0, 1], 8090)),
            },
            stream: Stream::default(),
            courier: Courier::default(),
        }
    }
}

/// A listener; loopback addresses only.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    pub(crate) listen: SocketAddr,
}

/// The embedded stream.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Stream {
    /// Partitions of every topic, 1 to 256; written down when the data folder is made.
    pub(crate) partitions: u16,
    /// What topic names begin with.
    pub(crate) prefix: String,
    /// Most records a consumer folds in one transaction.
    pub(crate) batch_records_max: usize,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            partitions: 4,
            prefix: "sluice".into(),
            batch_records_max: 2000,
        }
    }
}

/// The courier.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Courier {
    /// Seconds journal files are kept after all of their records are acknowledged.
    pub(crate) retain_acked_s: u64,
    /// Keep only the network of an address (/24, /48) in events; without, no address at all leaves the machine.
    pub(crate) truncated_address: bool,
}

impl Default for Courier {
    fn default() -> Self {
        Self {
            retain_acked_s: 3600,
            truncated_address: true,
        }
    }
}

//! Follows the catalog's file: a good change becomes a new version, a bad one is said and changes nothing.

use std::path::Path;
use std::time::{Duration, SystemTime};

use service::Shutdown;

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(500);

/// What tells a changed file without reading it.
type Look = Option<(SystemTime, u64)>;

fn look(path: &Path) -> Look {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Applies changes until shutdown.
pub(crate) fn follow(path: &Path, folder: &Path, shutdown: &Shutdown) {
    let mut seen = look(path);
    let mut version = 0;
    while !shutdown.wait_timeout(POLL) {
        let now = look(path);
        if now == seen {
            continue;
        }
        seen = now;
        match catalog::apply(path, folder) {
            Ok(catalog) if catalog.version != version => {
                version = catalog.version;
                tracing::info!(version, "catalog applied");
            }
            Ok(_) => {}
            Err(problems) => {
                for problem in &problems.0 {
                    tracing::error!(%problem, "catalog refused, the version before goes on");
                }
            }
        }
    }
}

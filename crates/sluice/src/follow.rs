//! Follows the catalog's file: a good change becomes a new version, a bad one is said and changes nothing.

use std::path::Path;
use std::time::{Duration, SystemTime};

use journal::StreamId;
use service::Shutdown;

/// How often the file is looked at.
const POLL: Duration = Duration::from_millis(500);

/// What tells a changed file without reading it.
pub(crate) type Look = Option<(SystemTime, u64)>;

pub(crate) fn look(path: &Path) -> Look {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Applies changes since `seen` until shutdown. One that is refused is tried again at every look, because what it lacks
/// may lie outside of the file (a secret), and told again only when what is wrong has changed.
pub(crate) fn follow(path: &Path, folder: &Path, mut seen: Look, shutdown: &Shutdown) {
    let mut refused = None;
    while !shutdown.wait_timeout(POLL) {
        let now = look(path);
        if now == seen && refused.is_none() {
            continue;
        }
        seen = now;
        match catalog::apply(path, folder, &StreamId::random().to_string()) {
            Ok(catalog) => {
                tracing::info!(version = catalog.version, "catalog applied");
                refused = None;
            }
            Err(problems) => {
                let told = Some(problems.to_string());
                if told != refused {
                    for problem in &problems.0 {
                        tracing::error!(%problem, "catalog refused, the version before goes on");
                    }
                }
                refused = told;
            }
        }
    }
}

//! Follows the catalog's files: a good change becomes a new version, a bad one is said and changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use catalog::{Catalog, Problems};
use journal::StreamId;
use service::Shutdown;

/// How often the files are looked at.
const POLL: Duration = Duration::from_millis(500);
/// Trying again takes at most one part in so many of the time.
const PAUSE_FACTOR: u32 = 10;

/// Where the catalog stands.
pub(crate) struct Source {
    pub(crate) catalog: PathBuf,
    /// Its links, where they stand in a file of their own.
    pub(crate) links: Option<PathBuf>,
}

/// What tells changed files without reading them.
pub(crate) type Look = [Option<(SystemTime, u64)>; 2];

impl Source {
    pub(crate) fn look(&self) -> Look {
        [Some(&self.catalog), self.links.as_ref()].map(|path| {
            let metadata = std::fs::metadata(path?).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    /// Makes what the files say the version in force in `folder`.
    pub(crate) fn apply(
        &self,
        folder: &Path,
        progress: catalog::Progress<'_>,
    ) -> Result<Arc<Catalog>, Problems> {
        let id = StreamId::random().to_string();
        match &self.links {
            Some(links) => catalog::build(&self.catalog, links, folder, &id, progress),
            None => catalog::apply(&self.catalog, folder, &id),
        }
    }

    /// Applies changes since `seen` until shutdown. One that is refused is tried again and again, because what it lacks may
    /// lie outside of the files (a secret), and told again only when what is wrong has changed.
    pub(crate) fn follow(&self, folder: &Path, mut seen: Look, shutdown: &Shutdown) {
        let mut refused = None;
        let mut again = Instant::now();
        while !shutdown.wait_timeout(POLL) {
            let now = self.look();
            if now == seen && (refused.is_none() || Instant::now() < again) {
                continue;
            }
            seen = now;
            let begun = Instant::now();
            match self.apply(folder, &|_, _, _| {}) {
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
                    again = Instant::now() + begun.elapsed() * PAUSE_FACTOR;
                }
            }
        }
    }
}

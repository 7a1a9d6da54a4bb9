//! Follows the catalog's files: a good change becomes a new version, a bad one is said and changes nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use catalog::{Applied, Checked, Problems, Removes, Stamp};
use journal::StreamId;
use prometheus::IntGauge;
use service::Shutdown;

/// How often the files are looked at. What is the same at two looks is read: nobody is writing it any more.
const POLL: Duration = Duration::from_millis(500);
/// A start looks twice, too, unless the files are older than this.
const YOUNG: Duration = Duration::from_secs(2);
/// A start waits this long for files that change all the time, then reads what is there.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Trying again takes at most one part in so many of the time.
const PAUSE_FACTOR: u32 = 10;

/// Where the catalog stands.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) catalog: PathBuf,
    /// Its links, where they stand in a file of their own.
    pub(crate) links: Option<PathBuf>,
}

/// What tells changed files without reading them; `None` for one that is not there.
pub(crate) type Look = [Option<Stamp>; 2];

/// How the files were found at the start.
pub(crate) struct Start {
    pub(crate) look: Look,
    /// Why they were refused, where they were.
    pub(crate) refused: Option<String>,
}

impl Source {
    pub(crate) fn new(catalog: PathBuf, links: Option<PathBuf>) -> Self {
        Self { catalog, links }
    }

    pub(crate) fn look(&self) -> Look {
        [Some(&self.catalog), self.links.as_ref()].map(|path| Stamp::at(path?).ok())
    }

    /// Waits until the files are the same at two looks, where they are so young that somebody may still be writing them.
    pub(crate) fn settle(&self) {
        let files = [Some(&self.catalog), self.links.as_ref()];
        let age = |path: &PathBuf| {
            std::fs::metadata(path)
                .ok()?
                .modified()
                .ok()?
                .elapsed()
                .ok()
        };
        let is_young = |path| age(path).is_some_and(|age| age < YOUNG);
        if !files.into_iter().flatten().any(is_young) {
            return;
        }
        let until = Instant::now() + SETTLE_MAX;
        let mut before = self.look();
        while Instant::now() < until {
            std::thread::park_timeout(POLL);
            let now = self.look();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Says what is wrong with the files, and changes nothing.
    pub(crate) fn check(&self, progress: catalog::Progress<'_>) -> Result<Checked, Problems> {
        match &self.links {
            Some(links) => catalog::check_build(&self.catalog, links, progress),
            None => catalog::check(&self.catalog),
        }
    }

    /// Makes what the files say the version in force in `folder`.
    pub(crate) fn apply(
        &self,
        folder: &Path,
        removes: Removes,
        progress: catalog::Progress<'_>,
    ) -> Result<Applied, Problems> {
        let id = StreamId::random().to_string();
        match &self.links {
            Some(links) => catalog::build(&self.catalog, links, folder, &id, removes, progress),
            None => catalog::apply(&self.catalog, folder, &id, removes),
        }
    }

    /// Applies changes since `start` until shutdown. `refused` is 1 while a change is refused. It is tried again and again,
    /// because what it lacks may lie outside of the files (a secret), and told again only when what is wrong has changed.
    pub(crate) fn follow(
        &self,
        folder: &Path,
        start: Start,
        refused: &IntGauge,
        shutdown: &Shutdown,
    ) {
        let mut told = start.refused;
        refused.set(i64::from(told.is_some()));
        let mut seen = start.look;
        let mut before = seen;
        let mut again = Instant::now();
        while !shutdown.wait_timeout(POLL) {
            let now = self.look();
            let is_settled = now == before;
            before = now;
            let is_changed = now != seen && is_settled;
            let is_due = told.is_some() && Instant::now() >= again;
            if !is_changed && !is_due {
                continue;
            }
            let begun = Instant::now();
            match self.apply(folder, Removes::Few, &|_, _, _| {}) {
                Ok(done) => {
                    if !done.changes.is_empty() || told.is_some() {
                        let (version, changes) = (done.catalog.version, &done.changes);
                        tracing::info!(version, %changes, "catalog applied");
                    }
                    refused.set(0);
                    told = None;
                }
                Err(problems) => {
                    refused.set(1);
                    let text = Some(problems.to_string());
                    if text != told {
                        log(&problems);
                    }
                    told = text;
                    again = Instant::now() + begun.elapsed() * PAUSE_FACTOR;
                }
            }
            seen = now;
        }
    }
}

/// Says until shutdown whether the version in force can be used, for a process that only looks versions up. `refused` is 1
/// while it cannot.
pub(crate) fn watch(versions: &Path, refused: &IntGauge, shutdown: &Shutdown) {
    let mut told = None;
    let mut folder = None;
    loop {
        let looked = match &mut folder {
            Some(folder) => catalog::Folder::changed(folder).map(drop),
            none => catalog::Folder::open(versions).map(|opened| *none = Some(opened)),
        };
        let failure = looked.err().map(|error| error.to_string());
        refused.set(i64::from(failure.is_some()));
        if failure != told
            && let Some(error) = &failure
        {
            tracing::error!(error, "catalog refused, the versions before are used");
        }
        told = failure;
        if shutdown.wait_timeout(POLL) {
            return;
        }
    }
}

/// Logs why a catalog is refused.
pub(crate) fn log(problems: &Problems) {
    for problem in &problems.0 {
        tracing::error!(%problem, "catalog refused, the version before goes on");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CATALOG: &str = "[network]\ncurrency = \"EUR\"\n[domain.\"go.northpeak.example\"]\n\
        [advertiser.northpeak]\n[offer.boots]\nadvertiser = \"northpeak\"\nto = \"https://shop.northpeak.example/\"\n\
        [affiliate.trailblog]\noffers = [\"boots\"]\n";

    const BOUND: Duration = Duration::from_secs(60);

    fn links(count: u32) -> String {
        let mut text = String::from("slug,affiliate,offer\n");
        for link in 0..count {
            text += &format!("link-{link},trailblog,boots\n");
        }
        text
    }

    #[test]
    fn a_half_written_file_is_not_put_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("catalog.toml"), CATALOG).unwrap();
        fs::write(path("links.csv"), links(20)).unwrap();
        let source = Source::new(path("catalog.toml"), Some(path("links.csv")));
        let none: catalog::Progress<'_> = &|_, _, _| {};
        let versions = path("versions");
        let look = source.look();
        let first = source.apply(&versions, Removes::Few, none).unwrap();
        let start = Start {
            look,
            refused: None,
        };
        assert_eq!(first.catalog.links.len(), 20);

        let shutdown = Shutdown::new();
        let refused = IntGauge::new("refused", "refused").unwrap();
        let in_force = || {
            let folder = catalog::Folder::open(&versions).unwrap();
            folder.current().unwrap().unwrap().links.len()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| source.follow(&versions, start, &refused, &shutdown));
            // The writer stops in the middle, for longer than any look, and goes on later.
            fs::write(path("links.csv"), links(10)).unwrap();
            testkit::wait::until("the half is refused", BOUND, || refused.get() == 1);
            assert_eq!(in_force(), 20);
            fs::write(path("links.csv"), links(30)).unwrap();
            testkit::wait::until("the whole is in force", BOUND, || in_force() == 30);
            testkit::wait::until("nothing is refused", BOUND, || refused.get() == 0);
            shutdown.request();
        });
    }
}

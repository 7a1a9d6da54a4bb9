//! The advertisers' secrets: read apart from the catalog and the requests, so that one that cannot be read keeps nobody but
//! its own advertiser waiting.
//!
//! A thread of its own looks at the files, because a file may lie on a mount that hangs. Until it has read all secrets of an
//! advertiser, that advertiser's postbacks are asked to come again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use catalog::{Catalog, SECRET_BYTES_MAX, SecretRef};
use domain::Advertiser;
use prometheus::IntGauge;
use service::Shutdown;
use sha2::{Digest, Sha256};

use crate::live::Live;

/// How often a newer catalog is looked for, which may name other secrets.
const POLL: Duration = Duration::from_millis(200);
/// How often the files are looked at: 2,000 of them cost less than a hundredth of a core.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The secrets of one catalog version, as digests.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// Nothing forbids two advertisers to have one secret.
    owners: HashMap<[u8; 32], Vec<Advertiser>>,
    /// Advertisers all of whose secrets were read.
    readable: HashSet<Advertiser>,
}

/// What a secret says of its sender, who claims to be an advertiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// It is the advertiser's own.
    Own,
    /// It is another advertiser's.
    Foreign,
    /// It is nobody's.
    Unknown,
    /// Nobody can say: a secret of the advertiser cannot be read at the moment.
    Unreadable,
}

impl Secrets {
    /// Reads what the catalog names. Beside it: what cannot be read, one line an advertiser.
    fn read(catalog: &Catalog) -> (Self, BTreeMap<Advertiser, String>) {
        let mut secrets = Self::default();
        let mut failures = BTreeMap::new();
        for (number, advertiser) in &catalog.advertisers {
            for secret in &advertiser.secrets {
                match secret.read() {
                    Ok(bytes) => {
                        let owners = secrets.owners.entry(Sha256::digest(bytes).into());
                        owners.or_default().push(*number);
                    }
                    Err(error) => {
                        let line = format!("advertiser {}: {secret}: {error}", advertiser.name);
                        failures.entry(*number).or_insert(line);
                    }
                }
            }
            if !failures.contains_key(number) {
                secrets.readable.insert(*number);
            }
        }
        (secrets, failures)
    }

    /// What `secret` says of a sender who claims to be `advertiser`. It is hashed once, however many advertisers there are;
    /// digests are compared, so the time taken says nothing of the secrets.
    pub(crate) fn ownership(&self, advertiser: Advertiser, secret: &[u8]) -> Ownership {
        let owners = match secret.len() {
            0..=SECRET_BYTES_MAX => {
                let digest: [u8; 32] = Sha256::digest(secret).into();
                self.owners.get(&digest).map_or(&[][..], Vec::as_slice)
            }
            // Longer than any secret.
            _ => &[],
        };
        if owners.contains(&advertiser) {
            Ownership::Own
        } else if !self.readable.contains(&advertiser) {
            Ownership::Unreadable
        } else if owners.is_empty() {
            Ownership::Unknown
        } else {
            Ownership::Foreign
        }
    }
}

impl Secrets {
    /// Whether it is the secret of any advertiser.
    pub(crate) fn is_known(&self, secret: &[u8]) -> bool {
        secret.len() <= SECRET_BYTES_MAX && {
            let digest: [u8; 32] = Sha256::digest(secret).into();
            self.owners.contains_key(&digest)
        }
    }
}

/// What tells a changed file without reading it: device, inode, size, times of the content and of the inode. Tools that
/// write images fix the times of contents, and two secrets of one kind have one length.
type Stamp = Option<(u64, u64, u64, (i64, i64), (i64, i64))>;

fn stamps(catalog: &Catalog) -> Vec<Stamp> {
    let secrets = catalog
        .advertisers
        .values()
        .flat_map(|advertiser| &advertiser.secrets);
    secrets
        .map(|secret| match secret {
            SecretRef::File(path) => {
                let found = std::fs::metadata(path).ok()?;
                Some((
                    found.dev(),
                    found.ino(),
                    found.size(),
                    (found.mtime(), found.mtime_nsec()),
                    (found.ctime(), found.ctime_nsec()),
                ))
            }
            // A process's environment does not change.
            SecretRef::Env(_) => None,
        })
        .collect()
}

/// Reads the secrets of the catalog in force, and reads them again when it or a file changes, until the shutdown.
/// `failing` has the number of advertisers whose secrets cannot all be read; each is logged once.
pub(crate) fn watch(
    live: &ArcSwap<Live>,
    secrets: &ArcSwap<Secrets>,
    failing: &IntGauge,
    shutdown: &Shutdown,
    mut looked: impl FnMut(),
) {
    let mut known: Option<(Arc<Catalog>, Vec<Stamp>)> = None;
    let mut told = BTreeMap::new();
    let mut look_at = Instant::now();
    loop {
        let catalog = Arc::clone(live.load().table.catalog());
        let same = known
            .as_ref()
            .is_some_and(|(known, _)| Arc::ptr_eq(known, &catalog));
        if !same || Instant::now() >= look_at {
            look_at = Instant::now() + LOOK_EVERY;
            // Before the reading: what changes meanwhile is seen at the next look.
            let stamps = stamps(&catalog);
            if !same || known.as_ref().is_none_or(|(_, known)| *known != stamps) {
                let (read, failures) = Secrets::read(&catalog);
                secrets.store(Arc::new(read));
                for (advertiser, error) in &failures {
                    if told.get(advertiser) != Some(error) {
                        tracing::error!(
                            error,
                            "secret not read, this advertiser's postbacks are asked to come again"
                        );
                    }
                }
                failing.set(i64::try_from(failures.len()).unwrap_or(i64::MAX));
                told = failures;
                known = Some((catalog, stamps));
            }
            looked();
        }
        if shutdown.wait_timeout(POLL) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use catalog::Removes;

    use super::*;

    /// A catalog of advertisers `shop0`, `shop1`, …, each with the secret file of its name.
    fn catalog(folder: &Path, advertisers: usize) -> Arc<Catalog> {
        let mut text =
            String::from("[network]\ncurrency = \"EUR\"\n[domain.\"go.northpeak.example\"]\n");
        for index in 0..advertisers {
            let secret = folder.join(format!("shop{index}"));
            fs::write(&secret, format!("secret of shop{index}\n")).unwrap();
            text += &format!(
                "[advertiser.shop{index}]\npostback = {{ secret = \"file:shop{index}\" }}\n"
            );
        }
        let file = folder.join("catalog.toml");
        fs::write(&file, text).unwrap();
        catalog::apply(
            &file,
            &folder.join("versions"),
            "00112233445566778899aabbccddeeff",
            Removes::Many,
        )
        .unwrap()
        .catalog
    }

    fn number(catalog: &Catalog, name: &str) -> Advertiser {
        catalog.advertiser_number(name).unwrap()
    }

    #[test]
    fn one_unreadable_secret_keeps_only_its_advertiser_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = catalog(folder.path(), 3);
        fs::remove_file(folder.path().join("shop1")).unwrap();
        let (secrets, failures) = Secrets::read(&catalog);
        let [shop0, shop1] = ["shop0", "shop1"].map(|name| number(&catalog, name));
        for (advertiser, secret, expected) in [
            (shop0, "secret of shop0", Ownership::Own),
            (shop0, "secret of shop2", Ownership::Foreign),
            (shop0, "secret of shop1", Ownership::Unknown),
            (shop0, "", Ownership::Unknown),
            (shop1, "secret of shop1", Ownership::Unreadable),
            (shop1, "guess", Ownership::Unreadable),
        ] {
            let found = secrets.ownership(advertiser, secret.as_bytes());
            assert_eq!(found, expected, "{advertiser:?} {secret}");
        }
        assert_eq!(failures.len(), 1);
        let line = &failures[&shop1];
        assert!(line.starts_with("advertiser shop1: file "), "{line}");
        assert!(line.contains("shop1: No such file"), "{line}");
    }

    #[test]
    fn nobody_is_believed_or_refused_before_the_secrets_are_read() {
        let shop = Advertiser::new(1).unwrap();
        let found = Secrets::default().ownership(shop, b"secret of shop0");
        assert_eq!(found, Ownership::Unreadable);
    }

    #[test]
    fn a_secret_replaced_by_one_of_the_same_size_and_time_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = catalog(folder.path(), 1);
        let path = folder.path().join("shop0");
        let before = stamps(&catalog);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let newer = folder.path().join("newer");
        fs::write(&newer, "SECRET OF SHOP0\n").unwrap();
        let file = fs::File::options().write(true).open(&newer).unwrap();
        file.set_modified(modified).unwrap();
        fs::rename(&newer, &path).unwrap();
        let now = fs::metadata(&path).unwrap();
        assert_eq!((now.size(), now.modified().unwrap()), (16, modified));
        assert_ne!(stamps(&catalog), before);
    }

    #[test]
    fn a_long_wrong_secret_costs_the_same_with_two_thousand_advertisers() {
        let folder = tempfile::tempdir().unwrap();
        let few = Secrets::read(&catalog(folder.path(), 2)).0;
        let many = Secrets::read(&catalog(folder.path(), 2000)).0;
        let shop = Advertiser::new(1).unwrap();
        // Too long for any secret: it is not even hashed.
        let long = vec![b'x'; 15_000];
        let cost = |secrets: &Secrets| {
            let begun = Instant::now();
            for _ in 0..100 {
                assert_eq!(secrets.ownership(shop, &long), Ownership::Unknown);
            }
            begun.elapsed()
        };
        cost(&few);
        // Once for each advertiser would be a thousand times as much.
        let (of_few, of_many) = (cost(&few), cost(&many));
        assert!(
            of_many < of_few * 50 + Duration::from_millis(20),
            "{of_few:?} {of_many:?}"
        );
    }
}

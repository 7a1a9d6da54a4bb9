//! What requests are decided from: the link table and the advertisers' secrets of one catalog version.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use catalog::{Catalog, SecretRef};
use domain::Advertiser;
use routing::Table;
use sha2::{Digest, Sha256};

use crate::cookie;

/// One catalog version, ready to decide with.
pub(crate) struct Live {
    pub(crate) table: Table,
    /// What stands behind the tokens in `Set-Cookie`, over plain HTTP and over HTTPS.
    cookies: [String; 2],
    secrets: HashMap<Advertiser, Vec<[u8; 32]>>,
    /// Of the files the secrets came from, as they were before they were read.
    stamps: Vec<Stamp>,
}

/// What tells a changed file without reading it.
type Stamp = Option<(SystemTime, u64)>;

impl Live {
    /// Builds the table and reads the secrets; the error names the secret that cannot be read.
    pub(crate) fn new(catalog: Arc<Catalog>) -> Result<Self, String> {
        let stamps = stamps(&catalog);
        let mut secrets = HashMap::new();
        for (number, advertiser) in &catalog.advertisers {
            let mut digests = Vec::new();
            for secret in &advertiser.secrets {
                let bytes = secret
                    .read()
                    .map_err(|error| format!("advertiser {}: {error}", advertiser.name))?;
                digests.push(Sha256::digest(bytes).into());
            }
            secrets.insert(*number, digests);
        }
        let table = Table::new(catalog);
        let max_age_s = table.cookie_max_age_s();
        Ok(Self {
            table,
            cookies: [false, true].map(|secure| cookie::attributes(secure, max_age_s)),
            secrets,
            stamps,
        })
    }

    /// What stands behind the tokens in `Set-Cookie`.
    pub(crate) fn cookie(&self, secure: bool) -> &str {
        &self.cookies[usize::from(secure)]
    }

    /// Whether a secret's file is another one than was read.
    pub(crate) fn secrets_changed(&self) -> bool {
        self.stamps != stamps(self.table.catalog())
    }

    /// Whether this is a secret of the advertiser. Digests are compared, so the time taken says nothing of the secret.
    pub(crate) fn knows(&self, advertiser: Advertiser, secret: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        self.secrets
            .get(&advertiser)
            .is_some_and(|known| known.contains(&digest))
    }
}

fn stamps(catalog: &Catalog) -> Vec<Stamp> {
    let secrets = catalog
        .advertisers
        .values()
        .flat_map(|advertiser| &advertiser.secrets);
    secrets
        .map(|secret| match secret {
            SecretRef::File(path) => {
                let found = std::fs::metadata(path).ok()?;
                Some((found.modified().ok()?, found.len()))
            }
            // A process's environment does not change.
            SecretRef::Env(_) => None,
        })
        .collect()
}

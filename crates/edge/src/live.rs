//! What requests are decided from: the link table and the advertisers' secrets of one catalog version.

use std::collections::HashMap;
use std::sync::Arc;

use catalog::Catalog;
use domain::Advertiser;
use routing::Table;
use sha2::{Digest, Sha256};

/// One catalog version, ready to decide with.
pub(crate) struct Live {
    pub(crate) table: Table,
    secrets: HashMap<Advertiser, Vec<[u8; 32]>>,
}

impl Live {
    /// Builds the table and reads the secrets; the error names the secret that cannot be read.
    pub(crate) fn new(catalog: Arc<Catalog>) -> Result<Self, String> {
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
        Ok(Self {
            table: Table::new(catalog),
            secrets,
        })
    }

    /// Whether this is a secret of the advertiser. Digests are compared, so the time taken says nothing of the secret.
    pub(crate) fn knows(&self, advertiser: Advertiser, secret: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(secret).into();
        self.secrets
            .get(&advertiser)
            .is_some_and(|known| known.contains(&digest))
    }
}

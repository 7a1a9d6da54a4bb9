//! What requests are decided from: the link table of one catalog version, and what is worked out from it once.

use std::collections::HashMap;
use std::sync::Arc;

use catalog::Catalog;
use domain::Advertiser;
use routing::Table;

use crate::cookie;

/// One catalog version, ready to decide with.
pub(crate) struct Live {
    pub(crate) table: Table,
    /// What stands behind the tokens in `Set-Cookie`, over plain HTTP and over HTTPS.
    cookies: [String; 2],
    advertisers: HashMap<String, Advertiser>,
}

impl Live {
    /// Builds the table.
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        let advertisers = catalog.advertisers.iter();
        let advertisers = advertisers.map(|(number, entry)| (entry.name.clone(), *number));
        let advertisers = advertisers.collect();
        let table = Table::new(catalog);
        let max_age_s = table.cookie_max_age_s();
        Self {
            table,
            cookies: [false, true].map(|secure| cookie::attributes(secure, max_age_s)),
            advertisers,
        }
    }

    /// What stands behind the tokens in `Set-Cookie`.
    pub(crate) fn cookie(&self, secure: bool) -> &str {
        &self.cookies[usize::from(secure)]
    }

    /// The advertiser of a name.
    pub(crate) fn advertiser(&self, name: &str) -> Option<Advertiser> {
        self.advertisers.get(name).copied()
    }
}

//! Who sends a postback: the secret it carries, and whose it is.

use catalog::Catalog;
use domain::Advertiser;
use domain::event::{Reason, Trust};
use hyper::header::{self, HeaderMap};

use super::form::Form;
use crate::secrets::{Ownership, Secrets};

const SCHEME: &[u8] = b"bearer";

/// The secret of a request; that of the header wins, because it stays out of logs.
pub(super) fn secret<'r>(headers: &'r HeaderMap, form: &'r Form) -> Option<&'r [u8]> {
    let header = headers.get(header::AUTHORIZATION);
    let bearer = header.and_then(|value| bearer(value.as_bytes()));
    let parameter = Some(form.text("secret").as_bytes()).filter(|secret| !secret.is_empty());
    bearer.or(parameter)
}

/// What stands behind `Bearer`: the scheme in any case (RFC 9110, 11.1), then one blank or more (11.4).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked(SCHEME.len())?;
    let is_separated = secret.first().is_some_and(|byte| b" \t".contains(byte));
    let secret = secret.trim_ascii();
    (scheme.eq_ignore_ascii_case(SCHEME) && is_separated && !secret.is_empty()).then_some(secret)
}

/// Who a postback says it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Whom the token's offer belongs to.
    pub(super) owner: Option<Advertiser>,
    /// What `adv` names; `Some(None)` for a name that is not in the catalog.
    pub(super) named: Option<Option<Advertiser>>,
}

impl Claim {
    /// Whose order it is.
    pub(super) fn advertiser(self) -> Option<Advertiser> {
        self.owner.or(self.named.flatten())
    }
}

/// What trust the secret earns. Whoever did not prove to be an advertiser hears nothing of which names there are.
pub(super) fn trust(
    secrets: &Secrets,
    claim: Claim,
    secret: Option<&[u8]>,
) -> Result<Trust, Reason> {
    let secret = secret.ok_or(Reason::Unauthenticated)?;
    let Some(advertiser) = claim.advertiser() else {
        return Err(if secrets.is_known(secret) {
            Reason::UnknownAdvertiser
        } else {
            Reason::Unauthenticated
        });
    };
    match (secrets.ownership(advertiser, secret), claim.named) {
        (Ownership::Own, Some(None)) => Err(Reason::UnknownAdvertiser),
        (Ownership::Own, Some(named)) if named != Some(advertiser) => Err(Reason::TokenForeign),
        (Ownership::Own, _) => Ok(Trust::Server),
        (Ownership::Foreign, _) => Err(Reason::TokenForeign),
        (Ownership::Unreadable, _) => Err(Reason::SecretUnreadable),
        (Ownership::Unknown, _) => Err(Reason::Unauthenticated),
    }
}

/// Whether an advertiser has an offer with a goal of this name, also one that is gone.
pub(super) fn has_goal(catalog: &Catalog, advertiser: Advertiser, name: &str) -> bool {
    let mut goals = catalog.names.goals.values();
    goals.any(|goal| goal.name == name && catalog.offer_advertiser(goal.offer) == Some(advertiser))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_is_read_as_the_standard_has_it() {
        for (value, expected) in [
            ("Bearer s3cret", Some("s3cret")),
            ("bearer s3cret", Some("s3cret")),
            ("BEARER s3cret", Some("s3cret")),
            ("Bearer  s3cret", Some("s3cret")),
            ("Bearer s3cret  ", Some("s3cret")),
            ("Bearer\ts3cret", Some("s3cret")),
            ("Bearers3cret", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Basic s3cret", None),
        ] {
            let found = bearer(value.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{value}");
        }
    }
}

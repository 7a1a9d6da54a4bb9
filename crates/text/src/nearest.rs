//! The valid name somebody probably meant.

/// Most names compared for one mistake: a catalog of 100,000 links with 1,000 bad references is still checked in seconds.
const CANDIDATES_MAX: usize = 5_000;

/// The shortest beginning by which a name is known.
const BEGINNING_BYTES_MIN: usize = 3;

/// The valid name nearest to the one found, when one is near enough to be meant: a few letters differ, or one is the
/// beginning of the other.
pub fn nearest<'a>(found: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if found.is_empty() || found.len() > 100 {
        return None;
    }
    let far = found.chars().count() / 3 + 1;
    let lower = found.to_ascii_lowercase();
    let begins = |one: &str, other: &str| {
        one.len().min(other.len()) >= BEGINNING_BYTES_MIN
            && (one.starts_with(other) || other.starts_with(one))
    };
    valid
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|name| *name != found)
        .filter_map(|name| {
            let other = name.to_ascii_lowercase();
            let distance = strsim::osa_distance(&lower, &other);
            let is_near = distance <= far;
            (is_near || begins(&lower, &other)).then_some((!is_near, distance, name))
        })
        .min()
        .map(|(.., name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_names_what_was_meant() {
        let valid = ["boots", "jackets", "certificate", "approved", "a"];
        for (found, expected) in [
            ("bots", Some("boots")),
            ("Boots", Some("boots")),
            ("jakcets", Some("jackets")),
            ("cert", Some("certificate")),
            ("approved-late", Some("approved")),
            ("boots", None),
            ("an-offer", None),
            ("skis", None),
            ("", None),
        ] {
            assert_eq!(nearest(found, valid).as_deref(), expected, "{found}");
        }
    }
}

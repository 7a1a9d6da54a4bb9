//! The valid name somebody probably meant.

/// Most names compared for one mistake: a catalog of 100,000 links with 1,000 bad references is still checked in seconds.
const CANDIDATES_MAX: usize = 5_000;

/// The valid name nearest to the one found, when one is near enough to be meant.
pub(crate) fn nearest<'a>(found: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if found.is_empty() || found.len() > 100 {
        return None;
    }
    let far = found.chars().count() / 3 + 1;
    let lower = found.to_ascii_lowercase();
    valid
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|name| *name != found)
        .map(|name| {
            let distance = strsim::osa_distance(&lower, &name.to_ascii_lowercase());
            (distance, name)
        })
        .filter(|(distance, _)| *distance <= far)
        .min()
        .map(|(_, name)| name.to_owned())
}

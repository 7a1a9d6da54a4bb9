//! Only `stream` links rdkafka, and what answers visitors, decides, records, stores and reports never does, not even
//! through another crate: a crash in librdkafka cannot stop a redirect.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, PackageId};

/// The crate that may name it.
const OWNER: &str = "stream";

/// The crates that never link it.
const FREE: [&str; 6] = ["edge", "routing", "catalog", "journal", "store", "reports"];

pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let names_it = package
            .dependencies
            .iter()
            .any(|dependency| dependency.name.starts_with("rdkafka"));
        if names_it && package.name.as_str() != OWNER {
            wrong.push(format!(
                "crates: {} names rdkafka, only {OWNER} may",
                package.name
            ));
        }
        if FREE.contains(&package.name.as_str()) && reaches_it(metadata, &package.id) {
            wrong.push(format!(
                "crates: {} links rdkafka through another crate",
                package.name
            ));
        }
    }
    wrong
}

/// Whether a walk over the resolved dependencies, other than for tests, meets it.
fn reaches_it(metadata: &Metadata, from: &PackageId) -> bool {
    let resolve = metadata
        .resolve
        .as_ref()
        .expect("metadata is asked for with dependencies");
    let mut seen = BTreeSet::new();
    let mut ahead = vec![from];
    while let Some(id) = ahead.pop() {
        if !seen.insert(id) {
            continue;
        }
        if metadata[id].name.starts_with("rdkafka") {
            return true;
        }
        let node = resolve.nodes.iter().find(|node| node.id == *id);
        ahead.extend(
            node.into_iter()
                .flat_map(|node| &node.deps)
                .filter_map(|dependency| {
                    let linked = dependency
                        .dep_kinds
                        .iter()
                        .any(|kind| kind.kind == DependencyKind::Normal);
                    linked.then_some(&dependency.pkg)
                }),
        );
    }
    false
}

//! `cargo xtask tidy`: the rules of this repo that no compiler checks. Each is one file that returns what is wrong.

mod files;
mod layers;
mod lints;
mod rdkafka;
mod registry;
mod unsafe_code;
mod words;

use std::path::Path;

use crate::workspace;

/// The page whose table says which crate may depend on which.
const PAGE: &str = "docs/ARCHITECTURE.md";

pub(crate) fn run() -> Result<(), String> {
    check(&workspace::root())?;
    println!("tidy");
    Ok(())
}

/// Everything that is wrong, one a line.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let read = |name: &str| {
        std::fs::read_to_string(root.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let metadata = workspace::metadata(root)?;
    let files = files::all(root)?;

    let mut wrong = Vec::new();
    wrong.extend(layers::check(&read(PAGE)?, &layers::actual(&metadata)));
    wrong.extend(rdkafka::check(&metadata));
    wrong.extend(lints::check(&read("Cargo.toml")?));
    wrong.extend(registry::check(&read("Cargo.lock")?));
    wrong.extend(unsafe_code::check(&files));
    wrong.extend(words::check(&files));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(wrong.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_repo_is_tidy() {
        let root = workspace::root();
        if !root.join(PAGE).exists() {
            testkit::skip(
                "this_repo_is_tidy",
                "docs/ARCHITECTURE.md is not written yet",
            );
            return;
        }
        if let Err(wrong) = check(&root) {
            panic!("{wrong}");
        }
    }
}

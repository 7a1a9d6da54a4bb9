//! Every lint of the workspace says why it is on.

/// The lines under `[workspace.lints.…]` without a comment.
pub(super) fn check(manifest: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line.starts_with("[workspace.lints");
        } else if inside && !line.is_empty() && !line.contains('#') {
            wrong.push(format!("Cargo.toml:{}: the lint has no reason", index + 1));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lint_without_a_reason_is_named() {
        let manifest =
            "[a]\nb = 1\n[workspace.lints.rust]\nx = \"warn\" # why\ny = \"warn\"\n[c]\nd = 1\n";
        assert_eq!(check(manifest), ["Cargo.toml:5: the lint has no reason"]);
    }
}

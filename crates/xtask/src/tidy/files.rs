//! The text files of the repo.

use std::fs;
use std::path::Path;

/// Deeper than any folder here: a link that leads in a circle ends.
const DEPTH_MAX: usize = 20;

/// What git keeps, what cargo builds and what `sluice up` writes.
const LEFT_OUT: [&str; 3] = [".git", "target", "sluice-data"];

/// A text file: its path from the root, and what is in it.
#[derive(Debug)]
pub(super) struct TextFile {
    pub(super) path: String,
    pub(super) text: String,
}

/// All of them, in order; what is built, hidden by git or no UTF-8 is left out.
pub(super) fn all(root: &Path) -> Result<Vec<TextFile>, String> {
    let mut files = Vec::new();
    gather(root, "", 0, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn gather(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<TextFile>,
) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("{prefix} is too deep"));
    }
    let about = |error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(about)? {
        let entry = entry.map_err(about)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(about)?;
        let path = format!("{prefix}{name}");
        if LEFT_OUT.contains(&name.as_str()) {
            // In a worktree `.git` is a file.
            continue;
        }
        if kind.is_dir() {
            gather(&entry.path(), &format!("{path}/"), depth + 1, files)?;
        } else if kind.is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push(TextFile { path, text });
        }
    }
    Ok(())
}

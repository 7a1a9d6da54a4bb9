//! Nothing in the repo names one person's machine.

use super::files::TextFile;

/// Folders of a machine that the repo was once worked on; put together, so that this file does not contain them.
const FORBIDDEN: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            for word in FORBIDDEN {
                if is_path(line, word) {
                    wrong.push(format!(
                        "{}:{}: {word} is a path of one machine",
                        file.path,
                        index + 1
                    ));
                }
            }
        }
    }
    wrong
}

/// Whether the word begins a path, and is not the middle of another (a URL's, say).
fn is_path(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "._-~".contains(letter))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_and_the_middle_of_another_is_not() {
        let word = FORBIDDEN[0];
        assert!(is_path(&format!("cd {word}main"), word));
        assert!(is_path(&format!("\"{word}main\""), word));
        assert!(!is_path(&format!("https://h.example{word}main"), word));
        assert!(!is_path("nothing", word));
    }
}

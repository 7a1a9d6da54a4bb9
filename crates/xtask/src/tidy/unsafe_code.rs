//! Code whose memory safety is upheld by hand lives in few named files.

use super::files::TextFile;

/// Those files, each a mapping of memory that another process may see.
const ALLOWED: [&str; 2] = [
    "crates/journal/src/ring/map.rs",
    "crates/catalog/src/map.rs",
];

/// Put together, so that this file does not contain it.
const KEYWORD: &str = concat!("un", "safe");

pub(super) fn check(files: &[TextFile]) -> Vec<String> {
    files
        .iter()
        .filter(|file| file.path.ends_with(".rs") && !ALLOWED.contains(&file.path.as_str()))
        .flat_map(|file| {
            file.text
                .lines()
                .enumerate()
                .filter(|(_, line)| has_keyword(line))
                .map(|(index, _)| {
                    format!(
                        "{}:{}: {KEYWORD} outside of its files",
                        file.path,
                        index + 1
                    )
                })
        })
        .collect()
}

/// Whether the keyword stands in the code of a line; comments may speak of it.
fn has_keyword(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .any(|word| word == KEYWORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyword_is_found_in_code_only() {
        assert!(has_keyword(&format!("let x = {KEYWORD} {{ y }};")));
        assert!(has_keyword(&format!("{KEYWORD}{{y}}")));
        assert!(!has_keyword(&format!("// no {KEYWORD} here")));
        assert!(!has_keyword(&format!("#![forbid({KEYWORD}_code)]")));
    }

    #[test]
    fn a_file_outside_the_list_is_named() {
        let file = |path: &str| TextFile {
            path: path.to_owned(),
            text: format!("fn a() {{}}\n{KEYWORD} fn b() {{}}\n"),
        };
        assert_eq!(
            check(&[
                file(ALLOWED[0]),
                file("crates/a/src/b.rs"),
                file("docs/a.md")
            ]),
            [format!(
                "crates/a/src/b.rs:2: {KEYWORD} outside of its files"
            )]
        );
    }
}

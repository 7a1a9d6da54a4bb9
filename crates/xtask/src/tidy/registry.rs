//! Every dependency comes from crates.io: not from a mirror, another registry or a branch of somebody's repository.

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check(lock: &str) -> Vec<String> {
    lock.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let source = line.strip_prefix("source = \"")?.strip_suffix('"')?;
            (source != CRATES_IO)
                .then(|| format!("Cargo.lock:{}: not from crates.io: {source}", index + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_source_is_named() {
        let lock = format!(
            "name = \"a\"\nsource = \"{CRATES_IO}\"\nsource = \"git+https://h.example/b\"\n"
        );
        assert_eq!(
            check(&lock),
            ["Cargo.lock:3: not from crates.io: git+https://h.example/b"]
        );
    }
}

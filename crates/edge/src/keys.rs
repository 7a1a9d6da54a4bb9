//! The installation's keys: made once, 0600, first on the list of what to back up.

use std::path::Path;

use service::secret;

/// What the keys folder holds.
pub struct Keys {
    /// The token key file's text.
    pub tokens: String,
    /// Master key of visitor hashes.
    pub visitor: [u8; 32],
}

impl Keys {
    /// Reads the keys, making them at the first start.
    ///
    /// # Errors
    /// A key cannot be read, made or understood, or others may read it; the text names the file.
    pub fn open(folder: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let tokens = read_or_make(&folder.join("tokens.key"), |key| format!("1 {key}\n"))?;
        let visitor = read_or_make(&folder.join("visitor.key"), |key| format!("{key}\n"))?;
        domain::Keyring::parse(&tokens)
            .map_err(|error| format!("{}: {error}", folder.join("tokens.key").display()))?;
        let visitor = domain::token::from_hex(visitor.trim()).ok_or_else(|| {
            format!(
                "{}: expected 64 hexadecimal digits",
                folder.join("visitor.key").display()
            )
        })?;
        Ok(Self { tokens, visitor })
    }

    /// The seed of shards: no secret, but not to be guessed by who wants to aim at one partition.
    pub fn seed(&self) -> u64 {
        domain::shard::seed(&self.visitor)
    }
}

fn read_or_make(path: &Path, text: impl FnOnce(&str) -> String) -> Result<String, String> {
    if !path.exists() {
        secret::write_private(path, text(&random_hex()).as_bytes())
            .map_err(|error| error.to_string())?;
    }
    let bytes = secret::read_private(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| format!("{}: is not text", path.display()))
}

/// 32 random bytes in hexadecimal digits.
pub fn random_hex() -> String {
    format!(
        "{}{}",
        journal::StreamId::random(),
        journal::StreamId::random()
    )
}
